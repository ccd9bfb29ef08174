"""One judge for all tests of the tutor: its process takes a second or two to start."""

import pytest


@pytest.fixture(scope="session")
def judge():
    pytest.importorskip("math_verify", reason="needs math-verify: pip install 'sambay[tutor]'")
    from sambay.tutor.judge import Judge

    with Judge() as judge:
        yield judge
