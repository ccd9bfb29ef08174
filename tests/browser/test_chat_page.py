"""The chat page, as a person uses it: with the bundled model where its words are known, else with scripted replies."""

import json
import re

import pytest

pytestmark = pytest.mark.browser

PROBLEM = "What is 3/4 + 1/6?"


def test_a_solved_problem(page, ask, shot):
    shot(page, "welcome")
    reply = ask(page, PROBLEM)
    assert reply.locator("math .boxed mfrac").count() == 1
    assert reply.locator(".boxed mn").all_text_contents() == ["11", "12"]
    thinking = reply.locator("details.thinking")
    assert re.fullmatch(r"Thought for [\d.]+ s", thinking.locator("summary").inner_text())
    assert not thinking.evaluate("one => one.open")
    shot(page, "folded")
    thinking.locator("summary").click()
    thinking.get_by_text("9 + 2 = 11").wait_for()
    shot(page, "thinking")
    stats = reply.locator(".stats").inner_text()
    assert re.fullmatch(
        r"\d+ tokens · [\d.]+ tokens/s · first after [\d.]+ m?s · 0 of \d+ prompt tokens cached", stats
    ), stats
    assert page.title() == f"{PROBLEM} · sambay"


def test_a_second_turn_is_cached(page, ask):
    ask(page, " ".join(f"{n} + {n + 1}" for n in range(30)))
    second = ask(page, "Solve 3x + 5 = 20")
    assert re.search(r"[1-9]\d* of \d+ prompt tokens cached", second.locator(".stats").inner_text())


def test_a_stopped_reply(page, ask, shot):
    page.fill("#message", "What is 48 * 73 + 19 * 27 - 5?")
    page.press("#message", "Enter")
    page.locator(".thoughts p").wait_for()
    page.press("#message", "Escape")
    reply = ask.wait(page)
    kept = reply.locator(".thoughts").text_content()
    assert kept
    assert page.locator("#status").inner_text() == "Stopped"
    page.wait_for_timeout(500)
    assert reply.locator(".thoughts").text_content() == kept
    shot(page)
    page.locator(".regenerate").click()
    page.locator("#stop").click()
    assert ask.wait(page).locator(".switcher").inner_text().strip() == "2 of 2"


def test_an_edited_turn(page, ask, says, shot):
    says(page, [(0, {"content": "first answer"})])
    ask(page, "first question")
    says(page, [(0, {"content": "second answer"})])
    user = page.locator(".turn.user")
    user.hover()
    page.get_by_label("Edit the message").click()
    area = page.locator(".turn.user textarea")
    assert area.input_value() == "first question"
    shot(page, "editing")
    area.fill("better question")
    area.press("Enter")
    ask.wait(page)
    assert page.evaluate("lastBody.messages") == [{"role": "user", "content": "better question"}]
    assert page.locator("#turns").inner_text().count("answer") == 1
    assert user.locator(".switcher").inner_text().strip() == "2 of 2"
    shot(page)
    page.get_by_label("Version before").click()
    page.get_by_text("first answer").wait_for()
    assert user.locator(".bubble").inner_text() == "first question"
    assert page.evaluate("document.activeElement.ariaLabel") == "Next version"


def test_regenerate_and_branch(page, ask, says, until):
    says(page, [(0, {"content": "one"})])
    ask(page, "a question")
    says(page, [(0, {"content": "two"})])
    page.get_by_label("Answer again").click()
    reply = ask.wait(page)
    reply.get_by_text("two").wait_for()
    assert reply.locator(".switcher").inner_text().strip() == "2 of 2"
    ask(page, "and on")
    assert [one["content"] for one in page.evaluate("lastBody.messages")] == ["a question", "two", "and on"]
    page.get_by_label("Go on from here in a new conversation").first.click()
    until(page, "document.querySelectorAll('#conversations .row').length === 2")
    assert page.locator(".turn").count() == 2
    assert page.locator(".switcher").count() == 0
    says(page, [(0, {"content": "another way"})])
    ask(page, "elsewhere")
    assert [one["content"] for one in page.evaluate("lastBody.messages")] == ["a question", "two", "elsewhere"]


def test_a_reload_keeps_all(page, ask, says):
    says(page, [(0, {"reasoning_content": "Well: $x^2$"}), (0, {"content": "**Bold** words"})])
    ask(page, "keep this")
    page.fill("#message", "half a thought")
    page.reload()
    page.locator(".answer strong").wait_for()
    assert page.locator(".answer").inner_text() == "Bold words"
    assert page.input_value("#message") == "half a thought"
    page.locator(".thinking summary").click()
    page.locator(".thoughts math").wait_for()
    page.click("#new")
    assert page.locator(".turn").count() == 0
    page.locator("#conversations a").click()
    page.locator(".answer strong").wait_for()


def test_a_reply_goes_on_while_another_conversation_is_shown(page, ask, says):
    slow = [(0.2, {"content": f"{n} "}) for n in range(20)]
    says(page, [(0, {"reasoning_content": "well"}), (0.5, {"content": "slow "}), *slow])
    page.fill("#message", "the slow one")
    page.press("#message", "Enter")
    page.get_by_text("well").wait_for()
    page.click("#new")
    says(page, [(0, {"content": "quick"})])
    ask(page, "the quick one")
    page.get_by_role("link", name="the slow one").click()
    page.get_by_text("slow 0").wait_for()
    assert page.locator("summary").inner_text().startswith("Thought for")
    reply = ask.wait(page)
    assert reply.locator(".answer").inner_text() == "slow " + " ".join(map(str, range(20)))
    reply.locator("summary").click()
    page.get_by_text("well").wait_for()


def test_what_is_left_in_mid_reply_is_kept(page, says):
    says(page, [(0, {"content": "the beginning"}), (2.0, {"content": " more"}), (60, {"content": " never"})])
    page.fill("#message", "go")
    page.press("#message", "Enter")
    page.get_by_text("the beginning more").wait_for()
    page.wait_for_timeout(300)
    page.reload()
    page.get_by_text("the beginning more").wait_for()
    page.get_by_text("The reply was broken off when the page was left.").wait_for()
    assert page.get_by_role("button", name="Try again").is_visible()


def test_search_rename_delete(page, ask, says, until):
    for word in ("apples", "pears"):
        says(page, [(0, {"content": f"I like {word} from the orchard"})])
        page.click("#new")
        ask(page, f"what about {word}?")
    rows = page.locator("#conversations .row")
    assert rows.count() == 2
    page.fill("#search", "orchard APPLES")
    until(page, "document.querySelectorAll('#conversations .row').length === 1")
    assert rows.inner_text() == "what about apples?"
    page.fill("#search", "plums")
    page.get_by_text("Nothing found.").wait_for()
    page.fill("#search", "")
    page.get_by_label("More about what about pears?").click()
    page.get_by_role("button", name="Rename").click()
    page.fill("#dialog-text", "Fruit")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Fruit").wait_for()
    assert page.inner_text("#title") == "Fruit"
    page.get_by_label("More about Fruit").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete", exact=True).last.click()
    until(page, "document.querySelectorAll('#conversations .row').length === 1")
    assert page.locator(".turn").count() == 0


def test_export_and_import(page, ask, says, tmp_path, until):
    says(page, [(0, {"reasoning_content": "hm"}), (0, {"content": "an answer"})])
    ask(page, "a question")
    page.get_by_label("More about a question").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as Markdown").click()
    text = download.value.path().read_text(encoding="utf-8")
    assert download.value.suggested_filename == "a-question.md"
    assert text.startswith("# a question\n\n## You\n\na question\n\n## tutor\n\n<details>")
    assert text.rstrip().endswith("an answer")
    with page.expect_download() as download:
        page.click("#export-all")
    kept = tmp_path / "all.json"
    download.value.save_as(kept)
    data = json.loads(kept.read_text(encoding="utf-8"))
    assert data["format"] == "sambay-conversations"
    page.set_input_files("#file", kept)
    until(page, "document.querySelectorAll('#conversations .row').length === 2")
    page.get_by_text("an answer").wait_for()
    for wrong, sentence in [
        ("{", "not JSON"),
        ("[]", "no conversations"),
        ('{"format": "sambay-conversations", "conversations": [{"nodes": {"a": {"role": "user", "text": "x", '
         '"parent": "a"}}, "chosen": {}}]}', "damaged"),
    ]:  # fmt: skip
        kept.write_text(wrong, encoding="utf-8")
        page.set_input_files("#file", kept)
        page.locator("dialog").get_by_text(sentence).wait_for()
        page.get_by_role("button", name="Close").click()


def test_settings_reach_the_model(page, ask, says):
    page.click("#settings-open")
    page.fill("#set-system", "Answer in one word.")
    page.fill("#set-temperature", "0.7")
    page.fill("#set-top_p", "0.9")
    page.fill("#set-max_tokens", "99")
    page.fill("#set-max_thinking_tokens", "50")
    page.fill("#set-seed", "7")
    page.get_by_role("button", name="Done").click()
    says(page, [(0, {"content": "yes"})])
    ask(page, "really?")
    sent = page.evaluate("lastBody")
    assert sent["messages"][0] == {"role": "system", "content": "Answer in one word."}
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"], sent["seed"]) == (0.7, 0.9, 99, 7)
    assert sent["max_thinking_tokens"] == 50
    assert sent["stream_options"] == {"include_usage": True}
    page.click("#thinking")
    page.wait_for_timeout(300)  # it is kept beside what the page does
    page.reload()
    page.locator(".answer p").wait_for()
    says(page, [(0, {"content": "no"})])
    ask(page, "again?")
    sent = page.evaluate("lastBody")
    assert sent["enable_thinking"] is False
    assert "max_thinking_tokens" not in sent
    assert sent["temperature"] == 0.7


def test_without_thinking_the_model_answers_at_once(page, ask):
    page.click("#thinking")
    reply = ask(page, "What is 3 + 4?")
    assert reply.locator("details.thinking").is_hidden()


def test_keyboard_only(page, ask, says, shot):
    says(page, [(0, {"content": "fine"})])
    assert page.evaluate("document.activeElement.id") == "message"
    page.keyboard.type("line one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Enter")
    ask.wait(page)
    assert page.evaluate("lastBody.messages[0].content") == "line one\nline two"
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.ariaLabel") == "Edit the message"
    page.keyboard.press("Escape")
    assert page.locator(".editing").count() == 0
    page.keyboard.press("Control+k")
    page.keyboard.type("line")
    page.wait_for_timeout(200)
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('#conversations') !== null")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Shift+O")
    assert page.locator(".turn").count() == 0
    assert page.evaluate("document.activeElement.id") == "message"
    page.keyboard.press("Control+/")
    page.get_by_role("heading", name="Shortcuts").wait_for()
    shot(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+,")
    page.get_by_role("heading", name="Settings").wait_for()
    page.keyboard.press("Escape")
    # Whatever can be pressed is reached with Tab, and is seen to be.
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate(
            """() => {
              const one = document.activeElement;
              if (one === document.body) return null;
              const {outlineStyle, outlineWidth} = getComputedStyle(one);
              const shown = (outlineStyle !== "none" && outlineWidth !== "0px") || one.id === "message";
              return shown ? one.id || one.ariaLabel || one.textContent : `no outline: ${one.outerHTML}`;
            }"""
        )
        assert name is None or not name.startswith("no outline"), name
        reached.add(name)
    assert {"new", "search", "sidebar-open", "settings-open", "thinking", "message"} <= reached


def test_copy(page, context, ask, says):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    says(page, [(0, {"content": "Take\n\n```python\nprint(1 < 2)\n```\n"})])
    ask(page, "code?")
    page.get_by_role("button", name="Copy", exact=True).click()
    assert page.evaluate("navigator.clipboard.readText()") == "print(1 < 2)\n"
    page.get_by_label("Copy the reply").click()
    assert page.evaluate("navigator.clipboard.readText()") == "Take\n\n```python\nprint(1 < 2)\n```\n"


def test_finished_blocks_stay_as_they_are(page, ask, says):
    """No flicker: what is finished is the same node from its first appearance to the end, even while it is selected."""
    words = [(0.03, {"content": f"word{n} "}) for n in range(30)]
    says(
        page,
        [(0, {"content": "The **first** paragraph.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nThen "}), *words,
         (0, {"content": "\n\n```python\n"}), *[(0.03, {"content": f"x{n} = {n}\n"}) for n in range(20)],
         (0, {"content": "```\n\n\\[ \\frac{1}{2} \\]\n"})],
    )  # fmt: skip
    page.fill("#message", "go")
    page.press("#message", "Enter")
    page.get_by_text("word3 ").wait_for()
    page.evaluate(
        """() => {
          window.first = document.querySelector(".answer p");
          window.table = document.querySelector(".answer table");
          window.open = [...document.querySelectorAll(".answer p")].at(-1);
          window.removed = 0;
          new MutationObserver((all) => all.forEach((one) => one.removedNodes.forEach((node) => (
            removed += node.nodeType === Node.ELEMENT_NODE)))).observe(document.querySelector(".answer"),
            {childList: true, subtree: true});
          getSelection().selectAllChildren(first);
        }"""
    )
    reply = ask.wait(page)
    assert page.evaluate("document.querySelector('.answer p') === first && first.isConnected && table.isConnected")
    assert page.evaluate("open.isConnected && open.textContent.includes('word29')")
    assert page.evaluate("getSelection().toString().trim()") == "The first paragraph."
    assert page.evaluate("removed") <= 40  # spans of the line of code that was being written
    assert reply.locator("figure.code code").inner_text().count("\n") >= 19
    assert reply.locator(".math.display mfrac").count() == 1


def test_the_end_stays_in_view_until_the_reader_goes_up(page, says, until):
    lines = [(0.02, {"content": f"line {n}\n\n"}) for n in range(150)]
    says(page, lines)
    page.fill("#message", "go")
    page.press("#message", "Enter")
    gap = "(one => one.scrollHeight - one.scrollTop - one.clientHeight)(document.querySelector('#scroller'))"
    page.get_by_text("line 40", exact=True).wait_for()
    until(page, f"{gap} < 40")
    page.hover("#scroller")
    page.mouse.wheel(0, -600)
    page.get_by_text("line 80", exact=True).wait_for()
    assert page.evaluate(gap) > 300
    place = page.evaluate("document.querySelector('#scroller').scrollTop")
    page.wait_for_timeout(400)
    assert page.evaluate("document.querySelector('#scroller').scrollTop") == place
    page.click("#to-end")
    until(page, f"{gap} < 40")
    page.get_by_text("line 149", exact=True).wait_for()
    until(page, f"{gap} < 40")
    assert page.locator("#to-end").is_hidden()


def test_what_is_on_the_screen_stays_there(page, ask, says):
    says(page, [(0, {"reasoning_content": "hm"}), (0, {"content": "the first answer"})])
    ask(page, "one")
    page.locator(".thinking summary").click()
    page.get_by_text("hm").wait_for()
    page.evaluate("window.first = document.querySelector('.answer p')")
    ask(page, "two")
    assert page.evaluate("first.isConnected && document.querySelector('.answer p') === first")
    assert page.evaluate("document.querySelector('.thinking').open")
    assert page.locator(".turn").count() == 4


def test_the_way_back(page, ask, says):
    says(page, [(0, {"content": "answer"})])
    for text in ("one", "two"):
        page.click("#new")
        ask(page, text)
    page.go_back()
    page.locator("#title", has_text="one").wait_for()
    assert page.locator(".bubble").inner_text() == "one"
    page.go_forward()
    page.locator("#title", has_text="two").wait_for()


def test_what_is_deleted_while_it_is_written_stays_deleted(page, says, until):
    says(page, [(0, {"content": "on "}), (60, {"content": "and on"})])
    page.fill("#message", "delete me")
    page.press("#message", "Enter")
    page.get_by_text("on", exact=True).wait_for()
    page.get_by_label("More about delete me").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete", exact=True).last.click()
    until(page, "document.querySelectorAll('#conversations .row').length === 0")
    page.wait_for_timeout(300)
    page.reload()
    page.get_by_text("What you ask is kept here.").wait_for()


def test_two_tabs(page, context, site, ask, says, until):
    says(page, [(0, {"content": "from the first tab"})])
    ask(page, "hello")
    other = context.new_page()
    other.goto(page.url)
    other.get_by_text("from the first tab").wait_for()
    says(page, [(0, {"content": "and once more"})])
    ask(page, "again")
    other.get_by_text("and once more").wait_for()


def test_several_models_can_be_chosen(context, site, ask, says, until):
    page = context.new_page()
    served = {"object": "list", "data": [{"id": "tutor", "object": "model"}, {"id": "flash", "object": "model"}]}
    page.route("**/v1/models", lambda route: route.fulfill(json=served))
    page.goto(site)
    until(page, "document.querySelector('#model').options.length === 2")
    page.select_option("#model", "flash")
    says(page, [(0, {"content": "quick"})])
    ask(page, "who?")
    assert page.evaluate("lastBody.model") == "flash"
    page.reload()
    until(page, "document.querySelector('#model').value === 'flash'")
    page.click("#new")
    assert page.input_value("#model") == "flash"
