"""The sequence of problems: the same everywhere, in splits that share nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import pytest

from answered import SEED, test_set, train
from sambay.data.problems import FAMILIES, INSTRUCTION, problem_at, smalltalk_at, split_of

# It changes only when the data changes: a new value is a new data set.
DIGEST = "ca25f045ceaefb7a"


class TestSequence:
    def test_problems_are_the_same_everywhere(self) -> None:
        rows = [problem_at(7, index, "train") for index in range(150)]
        rows += [problem_at(7, index, "test") for index in range(50)]
        rows += [smalltalk_at(7, index) for index in range(20)]
        text = "\n".join(f"{p.key}\n{p.question}\n{p.thinking}\n{p.reply}" for p in rows)
        digest = hashlib.blake2b(text.encode(), digest_size=8)
        assert digest.hexdigest() == DIGEST

    def test_hash_randomisation_changes_nothing(self) -> None:
        code = "from sambay.data.problems import problem_at; print(problem_at(3, 5, 'test'))"
        out = {
            subprocess.run(
                [sys.executable, "-c", code],
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"},
                capture_output=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert len(out) == 1

    def test_any_place_can_be_asked_for_alone(self) -> None:
        for index in (0, 17, 4_999):
            assert problem_at(SEED, index, "train") == train()[index]
        assert problem_at(SEED + 1, 0, "train") != train()[0]

    def test_tidy_questions_are_the_same_mathematics(self) -> None:
        typed = [problem_at(SEED, index, "train") for index in range(600)]
        tidy = [problem_at(SEED, index, "train", tidy=True) for index in range(600)]
        assert [(p.key, p.answer) for p in typed] == [(p.key, p.answer) for p in tidy]
        assert any(a.question != b.question for a, b in zip(typed, tidy, strict=True))
        for problem in tidy:
            assert not problem.question.startswith(INSTRUCTION)
            assert problem.question != problem.question.upper() or not any(c.isalpha() for c in problem.question)
            assert "*" not in problem.question

    def test_splits_share_no_key(self) -> None:
        assert not {p.key for p in train()} & {p.key for p in test_set()}
        assert all(split_of(p.key) == "train" for p in train())
        assert all(split_of(p.key) == "test" for p in test_set())

    def test_one_key_in_sixteen_is_held_out(self) -> None:
        held = sum(split_of(f"arithmetic/add:{a},{b}") == "test" for a in range(100) for b in range(100))
        assert 500 < held < 750

    def test_same_key_same_answer(self) -> None:
        answers: dict[str, str] = {}
        for problem in [*train(), *test_set()]:
            assert answers.setdefault(problem.key, problem.answer) == problem.answer

    def test_families_follow_their_shares(self) -> None:
        counts = Counter(p.family for p in train())
        assert set(counts) == set(FAMILIES)
        assert 0.24 < counts["arithmetic"] / len(train()) < 0.28
        only = {problem_at(1, index, "test", {"equations": 2.0, "fractions": 1}).family for index in range(60)}
        assert only == {"equations", "fractions"}

    @pytest.mark.parametrize(
        ("split", "families"),
        [
            ("valid", None),
            ("train", {"geometry": 1.0}),
            ("train", {"fractions": -1.0}),
            ("train", {"fractions": float("nan")}),
            ("train", {"fractions": 0.0}),
            ("train", {}),
        ],
    )
    def test_impossible_requests_are_refused(self, split: str, families: dict[str, float] | None) -> None:
        with pytest.raises(ValueError, match=r"choose|give"):
            problem_at(1, 1, split, families)

    def test_small_spaces_are_covered(self) -> None:
        sums = {p.key for p in train() if p.key.startswith("arithmetic/add:")}
        digits = [key for a in range(10) for b in range(a, 10) if split_of(key := f"arithmetic/add:{a},{b}") == "train"]
        assert sum(key in sums for key in digits) > 0.9 * len(digits)
