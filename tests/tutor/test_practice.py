"""Topics, levels, hints, and the rule by which the difficulty follows the learner."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sambay.data.problems import FAMILIES
from sambay.errors import TutorError
from sambay.tutor.skill import LEVELS, Skill, expected_score, score_of
from sambay.tutor.solution import folded, hints_of, idea_of
from sambay.tutor.topics import TOPICS, draw, exercise, work_of


class TestTopics:
    def test_every_topic_has_every_level(self):
        assert set(TOPICS) == set(FAMILIES)
        for topic in TOPICS:
            for level in range(1, LEVELS + 1):
                found = draw(topic, level, 12345)
                assert (found.topic, found.level) == (topic, level)
                assert exercise(found.name) == found
                assert found.question.strip() == found.question
                assert not found.question.endswith("=")

    def test_a_level_is_a_fifth_and_more_work_than_the_one_below(self):
        for topic in TOPICS:
            drawn = [exercise(f"{topic}-{index}") for index in range(5000, 5300)]
            counts = [sum(one.level == level for one in drawn) for level in range(1, LEVELS + 1)]
            assert min(counts) > 20, topic
            work = [[work_of(one.problem) for one in drawn if one.level == level] for level in range(1, LEVELS + 1)]
            assert all(max(low) <= min(high) for low, high in itertools.pairwise(work))

    def test_names_of_nothing(self):
        for name in ("", "fractions", "fractions-", "algebra-1", "fractions-" + "9" * 30, "../etc-1"):
            with pytest.raises(TutorError, match="ask for a new one"):
                exercise(name)
        with pytest.raises(TutorError, match="choose from arithmetic"):
            draw("algebra", 1, 0)
        with pytest.raises(TutorError, match="level is 6: it must be from 1 to 5"):
            draw("fractions", 6, 0)


class TestHints:
    def test_hints_never_say_the_answer(self):
        for topic in TOPICS:
            for level in range(1, LEVELS + 1):
                for place in range(6):
                    found = draw(topic, level, 977 * place)
                    steps = folded(found.problem.thinking.splitlines())
                    hints = hints_of(idea_of(found), steps, found.question, found.problem.answer)
                    assert hints[0] == idea_of(found)
                    assert all(hints)
                    answer = found.problem.answer
                    assert not any(hint.endswith(f"= {answer}") for hint in hints), (found.question, hints)
                    assert steps[-1].text not in hints

    def test_columns_are_folded_into_their_step(self):
        lines = ["347 + 586:", "7 + 6 = 13: 3, carry 1", "4 + 8 + 1 = 13: 33, carry 1", "3 + 5 + 1 = 9: 933"]
        [step] = folded([*lines, "347 + 586 = 933"])
        assert step.text == "347 + 586 = 933"
        assert step.detail[:4] == tuple(lines)
        hints = hints_of("Add.", [step], "What is 347 + 586?", "933")
        assert hints == ["Add.", "7 + 6 = 13: 3, carry 1", "4 + 8 + 1 = 13: 33, carry 1"]

    def test_every_kind_has_an_idea(self):
        for topic in TOPICS:
            ideas = {idea_of(exercise(f"{topic}-{index}")) for index in range(150)}
            assert all(len(idea) > 20 for idea in ideas)

    def test_nothing_is_lost_in_folding(self):
        for topic in TOPICS:
            for index in range(60):
                lines = exercise(f"{topic}-{index}").problem.thinking.splitlines()
                steps = folded(lines)
                assert sum(max(len(step.detail), 1) for step in steps) >= len(steps)
                assert steps


class TestSkill:
    def test_the_rule(self):
        assert expected_score(800, 1) == 0.5
        assert expected_score(1200, 1) == pytest.approx(1 / 1.1)
        assert (score_of(True, 0, 0), score_of(True, 1, 1), score_of(False, 0, 0)) == (1, 0.55, 0)
        assert score_of(True, 9, 9) == 0.1
        skill = Skill().after(2, 1.0)
        assert skill.rating == pytest.approx(1100 + 200 * (1 - expected_score(1100, 2)))
        assert (skill.answered, skill.right, skill.level) == (1, 1, 2)
        assert Skill(1100, 20, 20, 2).after(2, 0).rating == pytest.approx(1100 - 48 * expected_score(1100, 2))

    def test_success_makes_it_harder_and_failure_easier(self):
        start = skill = Skill()
        assert skill.next_level() == 2
        for _ in range(15):
            level = skill.next_level()
            assert abs(level - (skill.level or level)) <= 1
            skill = skill.after(level, 1.0)
        assert skill.next_level() == LEVELS
        for _ in range(20):
            skill = skill.after(skill.next_level(), 0.0)
        assert skill.next_level() == 1
        assert start == Skill()

    def test_it_settles_where_two_in_three_are_right(self):
        """A learner who always solves levels 1 to 3 and never 4 and 5 ends between 3 and 4."""
        skill, seen = Skill(), []
        for _ in range(60):
            level = skill.next_level()
            seen.append(level)
            skill = skill.after(level, 1.0 if level <= 3 else 0.0)
        assert set(seen[-20:]) <= {3, 4}

    @given(
        st.lists(st.tuples(st.integers(1, LEVELS), st.booleans(), st.integers(0, 9), st.integers(0, 9)), max_size=60)
    )
    def test_any_history_stays_within_bounds_and_survives_the_browser(self, history):
        skill = Skill()
        for level, solved, hints, wrong in history:
            skill = skill.after(level, score_of(solved, hints, wrong))
        assert 400 <= skill.rating <= 2200
        again = Skill.from_dict(skill.to_dict())
        assert again.next_level() == skill.next_level() or abs(again.rating - skill.rating) < 0.1
        assert (again.answered, again.right, again.level) == (skill.answered, skill.right, skill.level)

    @pytest.mark.parametrize(
        "values",
        [{"rating": "x"}, {"rating": float("nan")}, {"rating": True}, {"answered": -1}, {"level": 6}, {"answered": 1.5},
         {"right": 3, "answered": 2}, {"answered": 10**9}],
    )  # fmt: skip
    def test_what_no_browser_of_ours_kept(self, values):
        with pytest.raises(TutorError, match="it must be"):
            Skill.from_dict(values)
