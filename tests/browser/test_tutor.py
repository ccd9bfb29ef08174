"""The tutor and the teacher's page, as people use them."""

import csv
import io
import re
import time

import pytest

from sambay.tutor.topics import exercise

pytestmark = pytest.mark.browser


@pytest.fixture
def tutor(context, site, until):
    """The learner's page, ready."""
    page = context.new_page()
    page.goto(f"{site}tutor")
    until(page, "document.querySelectorAll('#topic option').length > 0 && !document.querySelector('#topics:empty')")
    return page


def task_of(page):
    """The problem that the page shows, with its answer."""
    return exercise(page.evaluate("JSON.parse(localStorage.getItem('sambay-tutor-task')).name"))


def typed(problem):
    """An answer as a learner types it."""
    return re.sub(r"(\d*)\\frac\{(\d+)\}\{(\d+)\}", r"\1 \2/\3", problem.problem.answer).strip()


def new_problem(page, topic, level=""):
    page.select_option("#topic", topic)
    page.select_option("#level", level)
    page.evaluate("localStorage.removeItem('sambay-tutor-task')")
    page.get_by_role("button", name="New problem").click()
    page.locator("#question p").wait_for()
    end = time.monotonic() + 60
    while not page.evaluate("localStorage.getItem('sambay-tutor-task') && document.activeElement.id === 'answer'"):
        assert time.monotonic() < end
        page.wait_for_timeout(20)
    return task_of(page)


def answer(page, text):
    page.fill("#answer", text)
    page.get_by_role("button", name="Check").click()
    page.locator("#feedback .note").first.wait_for()
    return page.locator("#feedback .note").first


def test_a_problem_wrong_and_right(tutor, shot, until):
    found = new_problem(tutor, "fractions", "3")
    assert tutor.locator("#meta").inner_text() == "Fractions · level 3 of 5"
    note = answer(tutor, "123457")
    assert "Not yet" in note.inner_text()
    assert tutor.evaluate("document.activeElement.id") == "answer"
    shot(tutor, "wrong")
    tutor.fill("#answer", typed(found))
    tutor.press("#answer", "Enter")
    tutor.locator("#feedback .note.good").wait_for()
    assert "Right" in tutor.locator("#feedback .note.good").inner_text()
    until(tutor, "document.activeElement.id === 'next'")
    assert "1 of 1 right" in tutor.locator("#topics").inner_text()
    assert tutor.locator("#answer").is_disabled()
    shot(tutor, "right")


def test_hints_come_one_at_a_time_and_then_the_solution(tutor, shot):
    found = new_problem(tutor, "equations", "4")
    hints = tutor.locator("#hints li")
    for count in (1, 2, 3):
        tutor.locator("#hint").click()
        hints.nth(count - 1).locator("p").wait_for()
        assert hints.count() == count
    assert not re.search(rf"= {re.escape(found.problem.answer)}$", tutor.locator("#hints").inner_text(), re.MULTILINE)
    tutor.get_by_role("button", name="Show the solution").click()
    tutor.locator("#solution li math, #solution li p").first.wait_for()
    assert tutor.locator("#solution math").count() >= 2
    assert "0 of 1 right" in tutor.locator("#topics").inner_text()
    shot(tutor)
    # What was looked at is done with.
    tutor.reload()
    assert tutor.locator("#work").is_hidden()


def test_steps_are_checked_and_the_first_wrong_one_is_named(tutor, shot):
    new_problem(tutor, "word_problems", "2")
    tutor.locator("#working-box summary").click()
    tutor.fill("#working", "4 × 3 = 12\nthen I subtract\n20 - 12 = 9\n9 + 1 = 10")
    tutor.get_by_role("button", name="Check").click()
    tutor.locator("#feedback .lines").wait_for()
    states = tutor.locator("#feedback .lines li").evaluate_all("all => all.map((one) => one.className)")
    assert states == ["true", "note-line", "false", "true"]
    assert "Look at line 3" in tutor.locator("#feedback").inner_text()
    assert "20 - 12 is 8, not 9." in tutor.locator("#feedback .false").inner_text()
    shot(tutor)


def test_the_level_follows_and_progress_is_kept(tutor, until, shot):
    levels = []
    for _ in range(6):
        found = new_problem(tutor, "arithmetic")
        levels.append(found.level)
        tutor.fill("#answer", typed(found))
        tutor.press("#answer", "Enter")
        tutor.locator("#feedback .note.good").wait_for()
        until(tutor, "document.activeElement.id === 'next'")
    assert levels[0] == 2
    assert levels[-1] > 2
    assert "6 of 6 right" in tutor.locator("#topics").inner_text()
    assert tutor.locator("#topics svg.spark polyline").count() == 1
    found = new_problem(tutor, "arithmetic")
    tutor.reload()
    tutor.locator("#question p").wait_for()
    assert task_of(tutor) == found
    assert "6 of 6 right" in tutor.locator("#topics").inner_text()
    shot(tutor)

    with tutor.expect_download() as download:
        tutor.get_by_role("button", name="Export as CSV").click()
    with download.value.path().open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["level"] for row in rows] == [str(level) for level in levels]
    assert {row["solved"] for row in rows} == {"yes"}

    tutor.get_by_role("button", name="Start over").click()
    tutor.locator("#reset-dialog").get_by_role("button", name="Start over").click()
    until(tutor, "document.querySelector('#total').textContent === ''")
    tutor.reload()
    tutor.locator("#topics .untouched").first.wait_for()
    assert "right" not in tutor.locator("#topics").inner_text()


def test_a_problem_of_ones_own(tutor, shot):
    tutor.get_by_role("button", name="My own problem").click()
    tutor.fill("#own", "Solve 3(x + 4) = 27")
    tutor.get_by_role("button", name="Work on it").click()
    tutor.locator("#question p").wait_for()
    assert tutor.locator("#meta").inner_text() == "Your own problem"
    note = answer(tutor, "-5")
    assert "sign" in note.inner_text()
    assert "good" in answer_class(tutor, "x = 5")
    shot(tutor)


def answer_class(page, text):
    page.fill("#answer", text)
    page.press("#answer", "Enter")
    page.locator("#feedback .note.good").wait_for()
    return page.locator("#feedback .note").first.get_attribute("class")


def test_hostile_text_runs_nothing(tutor):
    hostile = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> 1 + 1 = [x](javascript:alert(1))'
    tutor.get_by_role("button", name="My own problem").click()
    tutor.fill("#own", hostile)
    tutor.get_by_role("button", name="Work on it").click()
    tutor.locator("#question p").wait_for()
    tutor.locator("#working-box summary").click()
    tutor.fill("#working", hostile)
    tutor.fill("#answer", hostile[:300])
    tutor.get_by_role("button", name="Check").click()
    tutor.locator("#feedback .note").first.wait_for()
    assert tutor.evaluate("window.hacked") is None
    assert tutor.locator("#work img, #work script, #work a").count() == 0


def test_with_the_keyboard_alone(tutor, until):
    """From the top: tab to the topic, draw a problem, take a hint, answer, go on."""
    tutor.keyboard.press("Tab")
    assert tutor.evaluate("document.activeElement.className") == "skip"
    for _ in range(20):
        if tutor.evaluate("document.activeElement.id") == "topic":
            break
        tutor.keyboard.press("Tab")
    tutor.keyboard.type("Dec")
    tutor.keyboard.press("Tab")
    tutor.keyboard.press("Tab")
    tutor.keyboard.press("Enter")
    until(tutor, "document.activeElement.id === 'answer'")
    found = task_of(tutor)
    assert found.topic == "decimals"
    for _ in range(4):
        tutor.keyboard.press("Tab")
        if tutor.evaluate("document.activeElement.id") == "hint":
            break
    tutor.keyboard.press("Enter")
    tutor.locator("#hints li p").wait_for()
    tutor.focus("#answer")
    tutor.keyboard.type(typed(found))
    tutor.keyboard.press("Enter")
    until(tutor, "document.activeElement.id === 'next'")
    tutor.keyboard.press("Enter")
    until(tutor, "document.activeElement.id === 'answer' && document.querySelector('#answer').value === ''")
    assert task_of(tutor) != found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(context, site, until, shot, scheme):
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{site}tutor")
    until(page, "document.querySelectorAll('#topic option').length > 0")
    new_problem(page, "percentages", "3")
    page.locator("#hint").click()
    page.locator("#hints li p").wait_for()
    answer(page, "5000001")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", light)[:3])) > 400) == (scheme == "light")
    shot(page)
    for _ in range(2 if scheme == "light" else 1):  # system, light, dark
        page.locator("#theme").click()
    after = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert after != light


CLASS = "student,problem,answer,solution\n" + "".join(
    f"{student},What is {a} + {b}?,{a + b + (a < slips)},{a + b if student == 'Ann' else ''}\n"
    for student, slips in (("Ann", 0), ("Ben", 13), ("Cem", 15), ("=Dee", 99))
    for a, b in ((12, 7), (14, 9), (23, 48))
)


def test_a_teacher_grades_a_class(context, site, shot, tmp_path):
    page = context.new_page()
    page.goto(f"{site}tutor-class")
    file = tmp_path / "class.csv"
    file.write_text(CLASS)
    page.set_input_files("#file", file)
    page.get_by_role("button", name="Grade it").click()
    page.locator("#results").wait_for()
    assert "50 %" in page.locator("#figures").inner_text()
    assert page.locator("#charts svg").count() == 3
    assert page.locator("#rows tr").count() == 12
    shot(page)
    page.get_by_label("Only what is not right").check()
    assert page.locator("#rows tr").count() == 6
    with page.expect_download() as download:
        page.get_by_role("button", name="Graded table (CSV)").click()
    text = download.value.path().read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["correct"] for row in rows].count("yes") == 6
    assert rows[-1]["student"] == "'=Dee"
    with page.expect_download() as download:
        page.get_by_role("button", name="Drawings (SVG)").click()
    assert download.value.path().read_text(encoding="utf-8").startswith("<svg")


def test_a_table_that_is_none(context, site, tmp_path):
    page = context.new_page()
    page.goto(f"{site}tutor-class")
    file = tmp_path / "class.csv"
    file.write_text("a,b\n1,2\n")
    page.set_input_files("#file", file)
    page.get_by_role("button", name="Grade it").click()
    page.locator("#failure").wait_for()
    assert "name a column problem" in page.locator("#failure").inner_text()
    assert page.locator("#results").is_hidden()
