"""What the chat page says when the server cannot do what was asked."""

import json

import pytest

pytestmark = pytest.mark.browser


def refuse(page, status, message, code=None, headers=None):
    body = json.dumps({"error": {"message": message, "type": "x", "param": None, "code": code}})
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=status, body=body, headers=headers or {}, content_type="application/json"),
    )


def test_too_busy(page, ask, shot, until):
    refuse(page, 429, "16 requests run and 256 wait: try again in 2 seconds", headers={"Retry-After": "2"})
    reply = ask(page, "hello")
    assert "16 requests run and 256 wait" in reply.get_by_role("alert").inner_text()
    again = reply.get_by_role("button", name="Try again")
    assert again.is_disabled()
    shot(page)
    page.unroute("**/v1/chat/completions")
    until(page, "!document.querySelector('.trouble button').disabled")
    again.click()
    reply = ask.wait(page)
    assert reply.locator(".answer").inner_text()
    assert reply.get_by_role("alert").count() == 0


def test_a_context_that_is_too_long(page, ask):
    """By the server itself: more tokens than the model has places."""
    page.click("#settings-open")
    page.fill("#set-max_tokens", "999999")
    page.get_by_role("button", name="Done").click()
    told = ask(page, "hello " * 20_000).get_by_role("alert").inner_text()
    assert "Edit an earlier turn, or begin a new conversation." in told


def test_a_server_that_is_gone(page, ask, shot):
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.context.complaints.clear()
    reply = ask(page, "hello")
    assert "The server does not answer. Is it still running?" in reply.get_by_role("alert").inner_text()
    page.context.complaints.clear()  # the browser says that the connection failed
    shot(page)
    page.unroute("**/v1/chat/completions")
    reply.get_by_role("button", name="Try again").click()
    assert ask.wait(page).locator(".answer").inner_text()


def test_a_reply_that_breaks_off(page, ask):
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            body='data: {"choices": [{"index": 0, "delta": {"content": "half an"}}]}\n\n',
            content_type="text/event-stream",
        ),
    )
    reply = ask(page, "hello")
    assert reply.locator(".answer").inner_text() == "half an"
    assert "The reply broke off. What came so far is kept." in reply.get_by_role("alert").inner_text()


def test_an_error_in_mid_stream(page, ask):
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            body='data: {"choices": [{"index": 0, "delta": {"content": "so far"}}]}\n\n'
            'data: {"error": {"message": "the numbers overflowed", "code": null}}\n\ndata: [DONE]\n\n',
            content_type="text/event-stream",
        ),
    )
    assert "the numbers overflowed" in ask(page, "hello").get_by_role("alert").inner_text()


def test_a_server_that_wants_a_key(context, site, ask, shot, until):
    page = context.new_page()

    def guarded(route):
        if route.request.headers.get("authorization") == "Bearer right":
            route.continue_()
        else:
            body = json.dumps({"error": {"message": "the API key is wrong", "code": "invalid_api_key"}})
            route.fulfill(status=401, body=body, content_type="application/json")

    page.route("**/v1/**", guarded)
    page.goto(site)
    page.get_by_role("heading", name="API key").wait_for()
    shot(page)
    page.fill("#dialog-key", "wrong")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#dialog-key')?.value === ''")
    page.fill("#dialog-key", "right")
    page.check("#dialog-remember")
    page.get_by_role("button", name="Continue").click()
    until(page, "document.querySelector('#model').value === 'tutor'")
    assert ask(page, "What is 3 + 4?").locator(".answer").inner_text()
    page.reload()
    until(page, "document.querySelector('#model').value === 'tutor'")
