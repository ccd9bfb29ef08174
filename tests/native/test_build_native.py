"""The compiled kernels as a whole: found or not, chosen by the CPU or by force, and run by the pool."""

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from sambay.errors import BackendError
from sambay.ops import OPERATIONS, describe_backends, native

built = pytest.mark.skipif(not native.available(), reason="no compiled kernels here")
ISAS = ("portable", "avx2", "avxvnni", "avx512", "amx", "neon")


@pytest.fixture
def threads():
    """`set_threads`, undone afterwards."""
    before = native.threads()
    yield native.set_threads
    native.set_threads(before)


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=250, env=os.environ | environment
    )


def address(array):
    return array.ctypes.data


# ---- without ---------------------------------------------------------------------------------------------------------

WITHOUT = "import sys; sys.modules['sambay.ops._native'] = None\nfrom sambay.ops import native, describe_backends\n"


def test_without_the_module_it_says_what_helps():
    code = WITHOUT + (
        "assert not native.available()\n"
        "report = native.describe()\n"
        "assert report.isa is None and report.threads is None and report.kernels == {}\n"
        "assert all('no compiled kernels' in choice.reason for choice in describe_backends('cpu'))\n"
        "try: native.require()\n"
        "except ValueError as error: assert str(error) == report.reason\n"
        "print(report.reason)"
    )
    done = python(code, SAMBAY_ISA="")
    assert done.returncode == 0, done.stderr
    for word in ("without its compiled kernels", "C++ compiler", "apt install g++ python3-dev", "pip install"):
        assert word in done.stdout


def test_without_the_module_info_and_threads_work():
    code = WITHOUT + (
        "import sambay.cli, sambay.cli.options as options\n"
        "options.apply_threads(1)\n"
        "sys.argv = ['sambay', 'info', 'tiny']\n"
        "sambay.cli.main()"
    )
    done = python(code, SAMBAY_ISA="", COLUMNS="400")
    assert "none  sambay was installed without its compiled kernels" in done.stdout, done.stderr


def test_to_force_an_instruction_set_without_the_module_is_an_error():
    done = python(WITHOUT + "native.available()", SAMBAY_ISA="avx2")
    assert "BackendError: SAMBAY_ISA=avx2 cannot be used: sambay was installed without" in done.stderr


@pytest.mark.parametrize(("fields", "its"), [("INTERFACE=-1", "-1"), ("", "None")])
def test_a_stale_module_is_told_apart(fields, its):
    code = (
        f"import sys, types; sys.modules['sambay.ops._native'] = types.SimpleNamespace({fields})\n"
        "from sambay.ops import native; print(native.describe().reason)"
    )
    done = python(code, SAMBAY_ISA="")
    assert f"another version of sambay (interface {its}, not" in done.stdout, done.stderr


# ---- which -----------------------------------------------------------------------------------------------------------


def test_every_operation_has_a_backend():
    for device in ("cpu", "cuda"):
        choices = describe_backends(device)
        assert [choice.operation for choice in choices] == list(OPERATIONS)
        assert all(choice.reason for choice in choices)
    assert all(choice.backend == "reference" for choice in describe_backends("cuda"))


@built
def test_the_report():
    report = native.describe()
    assert report.isa in ISAS
    assert report.reason
    assert report.threads == native.threads() >= 1
    assert report.kernels["read_sum"] in ISAS
    assert "cores" in report.threads_reason


@built
@pytest.mark.parametrize("isa", [*ISAS, "sse9"])
def test_to_force_an_instruction_set(isa):
    from sambay.ops import _native

    possible = {name for name, obstacle in _native.obstacles() if not obstacle}
    code = "from sambay.ops import native; import json; print(json.dumps(native.describe()))"
    done = python(code, SAMBAY_ISA=isa)
    if isa in possible:
        used, reason, _, _, kernels = json.loads(done.stdout)
        assert (used, reason) == (isa, "forced by SAMBAY_ISA")
        order = [name for name, _ in _native.obstacles()]
        assert all(order.index(origin) <= order.index(isa) for origin in kernels.values())
    else:
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"sambay.errors.BackendError: SAMBAY_ISA={isa} ")
        assert f"possible here: {', '.join(name for name, why in _native.obstacles() if not why)}" in last


@built
@pytest.mark.parametrize("isa", ISAS)
def test_read_sum(isa, threads):
    from sambay.ops import _native

    before = _native.isa_in_use()
    try:
        _native.use_isa(isa)
    except ValueError as error:
        pytest.skip(str(error))
    try:
        words = np.random.default_rng(0).integers(0, 2**64, 5003, np.uint64)
        for count in (1, 2, 3):
            threads(count)
            for size in (0, 1, 31, 32, 33, 63, 64, 65, 5000, 5002):
                for start in (0, 1):  # not on a cache line either
                    part = words[start : start + size]
                    assert _native.read_sum(address(part), size) == int(part.sum(dtype=np.uint64)), (size, start)
    finally:
        _native.use_isa(before)


@built
def test_read_bandwidth():
    found = native.read_bandwidth(1 << 20, 0)
    assert found.passes == 1
    assert found.best >= found.median > 1e6
    assert found.isa == native.describe().isa
    with pytest.raises(BackendError, match="7 bytes: it must be 8 or more"):
        native.read_bandwidth(7)


# ---- threads ---------------------------------------------------------------------------------------------------------


@built
@pytest.mark.parametrize("count", [0, -1, 1025])
def test_an_impossible_number_of_threads(count):
    with pytest.raises(BackendError, match=f"{count} threads: it must be from 1 to 1024"):
        native.set_threads(count)


@built
def test_threads_respect_affinity():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from sambay.ops import native; print(native.threads())"
    )
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    assert python(code).stdout.strip() == "1"


@built
def test_python_runs_during_a_call(threads):
    from sambay.ops import _native

    threads(2)
    ended = []
    worker = threading.Thread(target=lambda: ended.append(_native.empty_runs(100_000, True)))
    worker.start()
    ticks = 0
    while worker.is_alive():
        ticks += 1
        time.sleep(0.0001)
    assert ticks > 5
    assert ended


@built
def test_many_callers(threads):
    from sambay.ops import _native

    threads(3)
    words = np.arange(1000, dtype=np.uint64)
    sums = []
    callers = [
        threading.Thread(target=lambda: sums.extend(_native.read_sum(address(words), 1000) for _ in range(100)))
        for _ in range(4)
    ]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert sums == [499_500] * 400


@built
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_has_threads_of_its_own():
    code = (
        "import os, numpy as np\n"
        "from sambay.ops import native, _native\n"
        "native.set_threads(3)\n"
        "words = np.arange(1000, dtype=np.uint64)\n"
        "total = lambda: _native.read_sum(words.ctypes.data, 1000)\n"
        "assert total() == 499500\n"
        "child = os.fork()\n"
        "assert total() == 499500\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
        "print('done')"
    )
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "done\ndone\n"), done.stderr


@built
def test_it_ends_quietly_while_a_call_is_under_way():
    code = (
        "import threading\n"
        "from sambay.ops import native, _native\n"
        "native.set_threads(2)\n"
        "def forever():\n"
        "    while True: _native.empty_runs(1000, True)\n"
        "threading.Thread(target=forever, daemon=True).start()"
    )
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")
