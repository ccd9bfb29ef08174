"""The pages in a headless Chromium, against `sambay serve` with the bundled model.

Screenshots go to the directory that SAMBAY_SCREENSHOTS names.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
# No request of the browser's own: what is left is the page's.
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    """A browser for the whole run."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("needs a browser: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The address of a server with the bundled model."""
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as errors:
        command = [sys.executable, "-m", "sambay", "serve", "--port", "0", "--threads", "1"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
        assert found, log.read_text()
        yield f"{found[0]}/"
        server.terminate()
        server.communicate(timeout=60)


@pytest.fixture
def context(browser, site):
    """A browser without memories; at the end nothing had left the server, and no page had complained."""
    context = browser.new_context(viewport={"width": 1280, "height": 820}, accept_downloads=True)
    context.set_default_timeout(60_000)
    asked, complaints = [], []
    context.on("request", lambda request: asked.append(request))
    context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.complaints = complaints
    yield context
    context.close()
    # What the page's own policy stops has not left, either.
    left = [one.url for one in asked if one.failure != "csp" and not one.url.startswith((site, f"blob:{site}"))]
    assert left == []
    # The status of an answer that a test asked for is told there, too.
    assert [one for one in complaints if "the server responded with a status of" not in one] == []


@pytest.fixture(scope="session")
def until():
    """`until(page, expression)` waits until it holds; Playwright's own way needs `eval`, which the page forbids."""

    def until(page, expression, seconds=60):
        end = time.monotonic() + seconds
        while not page.evaluate(expression):
            assert time.monotonic() < end, f"waited in vain for {expression}"
            page.wait_for_timeout(20)

    return until


@pytest.fixture
def page(context, site, until):
    """The chat page, ready."""
    page = context.new_page()
    page.goto(site)
    until(page, "document.querySelector('#model').value === 'tutor'")
    return page


@pytest.fixture
def shot(request):
    """`shot(page)`: a screenshot with the name of the test, if they are wanted."""
    directory = os.environ.get("SAMBAY_SCREENSHOTS")
    taken = []

    def take(page, part=""):
        if directory:
            Path(directory).mkdir(parents=True, exist_ok=True)
            name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")
            page.screenshot(path=Path(directory) / f"{name}{'-' * bool(part)}{part}.png")
            taken.append(part)

    return take


@pytest.fixture
def says():
    """`says(page, [(seconds, delta), ...])`: the next replies, in the place of the model's.

    What is said is up to the test, for hostile texts and exact pauses; the page, its policy and the renderer are real.
    """

    def script(page, pieces, usage=None):
        page.evaluate(_SCRIPTED, [pieces, json.dumps(usage or {"prompt_tokens": 9, "completion_tokens": 5})])

    return script


_SCRIPTED = """([pieces, usage]) => {
  const real = window.realFetch ??= window.fetch;
  window.fetch = async (path, options) => {
    if (!String(path).endsWith("chat/completions")) return real(path, options);
    window.lastBody = JSON.parse(options.body);
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      async start(controller) {
        options.signal.addEventListener("abort", () => controller.error(new DOMException("", "AbortError")));
        const send = (value) => controller.enqueue(encoder.encode(`data: ${value}\\n\\n`));
        for (const [seconds, delta] of pieces) {
          await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
          if (options.signal.aborted) return;
          send(JSON.stringify({ choices: [{ index: 0, delta, finish_reason: null }] }));
        }
        send(JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }));
        send(`{"choices": [], "usage": ${usage}}`);
        send("[DONE]");
        controller.close();
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  };
}"""


@pytest.fixture
def ask(until):
    """`ask(page, text)` sends a message and waits for the whole reply, whose element it returns."""

    def ask(page, text):
        page.fill("#message", text)
        page.press("#message", "Enter")
        return wait(page)

    def wait(page):
        done = "document.querySelector('.turn:last-child.assistant:not([aria-busy])')"
        until(page, f"{done} && !document.querySelector('#send').hidden")
        return page.locator(".turn.assistant").last

    ask.wait = wait
    return ask
