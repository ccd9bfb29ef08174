"""The wording of problems, small talk, and the habits of typing."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from answered import HIDDEN_NUMBERS, IN_WORDS, SEED, evaluate, expected, letters_of, numbers_of, plain, test_set, train
from sambay.data.problems import (
    ALPHABET,
    FAMILIES,
    INSTRUCTION,
    boxed,
    smalltalk_at,
    stories_measures,
    stories_money,
    stories_puzzles,
    stories_steps,
    stories_things,
)
from sambay.data.problems.base import Dice
from sambay.data.problems.stories import cast, told
from sambay.data.problems.wording import as_typed


class TestWording:
    def test_alphabet(self) -> None:
        texts = [*train(), *test_set(), *(smalltalk_at(SEED, index) for index in range(500))]
        used = {c for p in texts for c in p.question + p.thinking + p.reply + p.answer}
        assert used <= ALPHABET

    def test_no_slot_is_left_open(self) -> None:
        for problem in train():
            question = problem.question.removeprefix(INSTRUCTION)
            assert not re.search(r"[{}]", re.sub(r"\\frac\{\d+\}\{\d+\}", "", question)), problem
            assert not re.search(r"  |\bNone\b|\ba (apple|egg|eraser|onion|orange)\b", question.lower()), problem
            assert question == question.strip()

    def test_the_question_holds_the_numbers_of_the_key(self) -> None:
        for problem in [*train(), *test_set()]:
            if problem.family in ("order_of_operations", "decimals"):
                continue
            asked = Counter(int(n) for n in re.findall(r"\d+", plain(problem.question)))
            if problem.family == "word_problems":
                words = re.findall(r"[a-z]+", problem.question.lower())
                asked.update(HIDDEN_NUMBERS[word] for word in words if word in HIDDEN_NUMBERS)
            # Of an equation 1x and + 0 are not written.
            needed = Counter(abs(n) for n in numbers_of(problem.key) if problem.family != "equations" or abs(n) > 1)
            # A power may say "cubed" for its exponent.
            if problem.key.startswith("arithmetic/power"):
                needed = Counter(numbers_of(problem.key)[:1])
            if problem.key.startswith("fractions/mixed"):
                # 0 wholes are not written.
                del needed[0]
            # A square names its number once.
            if problem.key.startswith("arithmetic/mul") and len(needed) == 1:
                needed = Counter(set(needed))
            assert needed <= asked, problem

    def test_every_template_of_a_story_can_be_told(self) -> None:
        dice = Dice("templates")
        for part in (stories_things, stories_money, stories_measures, stories_puzzles, stories_steps):
            for story in part.STORIES:
                numbers = dict(zip("abcde", story.draw(dice, 1), strict=False))
                for text in story.texts:
                    for _ in range(3):
                        question = told(dice, text, cast(dice) | numbers)
                        assert set(question) <= ALPHABET - set("[]{}\\"), (question, story.name)
                        low = question.lower()
                        assert not re.search(r"\b(i|we|they|you) (has|is|does|was|[a-z]+(ys|ves|ets))\b", low) or (
                            re.search(r"\bi was\b", low)
                        ), question
                        assert not re.search(r"  |\b(a [aeio]|an [bcdfgjklmnpqrstvwxyz]|1 [a-z]+s\b)", low), question

    def test_persons_and_prices_vary(self) -> None:
        questions = [p.question for p in train() if p.family == "word_problems"]
        for part in (r"\bI have\b", r"\bdoes she\b", r"\bthey\b", r"€\d", r"\d€", r"£", r"\$", r"\btwice\b",
                     r"\bdozen\b",
                     r"\bhalf\b", r"\bthree [a-z]+s\b", r"^A farmer\b", r"^If\b", r"; ", r"\bmph\b"):  # fmt: skip
            assert any(re.search(part, question) for question in questions), part

    def test_typed_expressions_mean_what_is_asked(self) -> None:
        seen = 0
        for problem in train():
            if problem.family != "order_of_operations":
                continue
            typed = max(re.findall(r"[0-9(][0-9+\-*x×÷/^() ]*[0-9)]", plain(problem.question)), key=len)
            typed = re.sub("[*x]", "×", typed).replace("/", " ÷ ")
            assert evaluate(typed) == expected(problem), problem
            seen += 1
        assert seen > 1_500

    def test_typed_equations_have_the_solution(self) -> None:
        for problem in train():
            if problem.family != "equations" or problem.key.startswith(IN_WORDS):
                continue
            ((letter, solution),) = letters_of(problem).items()
            v = rf"(?<![a-z]){letter}(?![a-z])"
            any_ = rf"(?:[-+*×/(). 0-9]|{v})"
            found = re.search(rf"(?:[-(0-9]|{v}){any_}*=(?!\s*\?){any_}*(?:[0-9)]|{v})", plain(problem.question))
            assert found, problem
            left, right = found[0].replace("*", "×").split("=")
            # "3t = 9 t": a word of one letter behind the equation is no factor.
            right = re.sub(rf"(?<=\d) +{letter}$", "", right)
            assert evaluate(left, {letter: solution}) == evaluate(right, {letter: solution}), problem

    def test_variety(self) -> None:
        assert len({re.sub(r"\d", "", p.question) for p in train()}) >= 400
        # Names and things aside, there still are many ways to ask.
        bare = {re.sub(r"\d+", "#", p.question) for p in train() if p.family != "word_problems"}
        assert len(bare) >= 400
        questions = Counter(p.question for p in train())
        assert len(questions) > 0.8 * len(train())

    def test_the_instruction_precedes_six_percent(self) -> None:
        share = sum(p.question.startswith(INSTRUCTION) for p in train()) / len(train())
        assert 0.05 < share < 0.07
        assert INSTRUCTION == "Please reason step by step, and put your final answer within \\boxed{}. "

    def test_replies(self) -> None:
        for problem in train():
            assert re.search(r"\\boxed\{.+\}\.?$", problem.reply), problem
            assert "\n" not in problem.reply
            assert len(problem.reply) < 80

    def test_lengths(self) -> None:
        counts = sorted(
            len(re.findall(r"[0-9]|[A-Za-z]+|\n|\S", f"{p.question}\n{p.thinking}\n{p.reply}")) for p in train()
        )
        assert sum(counts) / len(counts) < 130
        assert counts[int(0.99 * len(counts))] < 400
        assert counts[-1] < 600


class TestSmalltalk:
    def test_small_talk(self) -> None:
        talks = [smalltalk_at(SEED, index) for index in range(500)]
        assert talks[3] == smalltalk_at(SEED, 3)
        assert "smalltalk" not in FAMILIES
        for talk in talks:
            assert talk.family == "smalltalk"
            assert (talk.answer, boxed(talk.reply)) == ("", None)
            assert talk.question
            assert talk.thinking
        assert len({talk.key for talk in talks}) >= 6
        assert len({talk.question for talk in talks}) > 150

    def test_what_is_declined_is_drawn(self) -> None:
        talks = [smalltalk_at(SEED, index) for index in range(8_000)]
        declined = {talk.question for talk in talks if re.search(r"other|too_", talk.key)}
        assert len(declined) > 2_500
        # What arithmetic can do is not declined.
        for question in declined:
            if root := re.search(r"(?:root of |sqrt\(?)[ ]?(\d+)", question):
                assert round(int(root[1]) ** 0.5) ** 2 != int(root[1]), question
        large = [talk for talk in talks if talk.key.endswith("too_large")]
        assert len({talk.question for talk in large}) > 0.9 * len(large) > 500
        for talk in large:
            assert sum(map(len, re.findall(r"\d+", talk.question))) >= 5, talk
            assert "too large" in talk.reply


class TestTyping:
    """The habits of typing change how a question looks, never what it says."""

    @pytest.mark.parametrize(
        "question",
        [
            "12345 - 1204 = ?",
            "What is 72?",
            "Solve 3(x - 4) = 2x + 1300",
            "6 × (5 - 2) × 3^2 + 2^3",
            "Add 14 and 5.",
            INSTRUCTION + "Ann has 7 pens and buys 15 more. How many pens has Ann now?",
            "Take 20% of 15 and 3/4 of 1.5 away",
        ],
    )
    def test_meaning_stays(self, question: str) -> None:
        seen = set()
        for index in range(600):
            typed = as_typed(Dice(index), question)
            seen.add(typed)
            assert typed.startswith(INSTRUCTION) == question.startswith(INSTRUCTION)
            meant = plain(question).rstrip(".").replace(" ", "")
            assert meant in plain(typed).replace(" ", "")
        assert len(seen) > 10
        assert question in seen

    def test_numbers_inside_of_others_keep_their_digits(self) -> None:
        typed = {
            as_typed(Dice(index), "A 3.5 m rope costs $12 and 1/2 of it 3x or 25% less, 7th, B12")
            for index in range(2000)
        }
        assert not any(word in text for text in typed for word in ("three", "five", "twelve", "half", "two", "seven"))
