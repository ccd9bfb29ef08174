"""What a model says, what a file brings and what a person types does nothing but be shown."""

import json

import pytest

from server.test_render import HOSTILE

pytestmark = pytest.mark.browser

WATCH = """() => {
  window.ran = [];
  for (const name of ["alert", "confirm", "prompt", "open"]) window[name] = () => ran.push(name);
  document.addEventListener("securitypolicyviolation", (event) => ran.push(`policy: ${event.violatedDirective}`));
}"""

FOREIGN = """() => [...document.querySelectorAll("#turns *, #conversations *, #title *")]
  .filter((one) => /^(script|img|iframe|object|embed|link|style|form|base|meta|video|audio)$/i.test(one.tagName)
    || [...one.attributes].some(({name, value}) => name.startsWith("on") || name === "style"
      || (["href", "src", "xlink:href", "action"].includes(name)
        && !/^(https?:|mailto:|#|static\\/icons\\.svg#)/.test(value))))
  .map((one) => one.outerHTML)"""

MORE = [
    "<img src=x onerror=\"fetch('https://evil.example')\">",
    "<svg><script>alert(1)</script></svg>",
    '<math><mi//xlink:href="data:x,<script>alert(1)</script>">',
    "<form><button formaction=javascript:alert(1)>X",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href=https://evil.example/>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<template><img src=x onerror=alert(1)></template>",
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "</div></article></main><script>alert(1)</script>",
    "<a id=turns><a id=message name=value>",
]


def test_hostile_replies_do_nothing(page, ask, says, shot):
    page.evaluate(WATCH)
    text = "\n\n".join([*HOSTILE, *MORE]).replace("\ud800", "")
    size = 97
    says(page, [(0.002, {"content": text[n : n + size]}) for n in range(0, len(text), size)])
    reply = ask(page, "go")
    page.wait_for_timeout(300)
    assert page.evaluate(FOREIGN) == []
    assert page.evaluate("ran") == []
    for link in reply.locator("a").all():
        assert link.get_attribute("rel").startswith("noopener noreferrer")
    page.reload()
    page.locator(".answer p").first.wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate(FOREIGN) == []
    shot(page)


def test_hostile_thoughts_titles_and_words_do_nothing(page, ask, says):
    page.evaluate(WATCH)
    for text in ("<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "[x](javascript:alert(1))"):
        says(page, [(0, {"reasoning_content": text}), (0, {"content": text})])
        page.click("#new")
        reply = ask(page, text)
        reply.locator("summary").click()
        page.fill("#search", text)
        page.wait_for_timeout(100)
        page.fill("#search", "")
    assert page.evaluate(FOREIGN) == []
    assert page.evaluate("ran") == []
    assert page.inner_text("#title") == "[x](javascript:alert(1))"


def test_a_hostile_file_does_nothing(page, tmp_path):
    page.evaluate(WATCH)
    bad = "<img src=x onerror=alert(1)>"
    nodes = {
        "__proto__x": {"role": "user", "text": bad, "parent": None, "created": bad, "order": bad, "id": bad},
        bad: {"role": "assistant", "text": bad, "parent": "__proto__x", "thinking": bad, "error": bad, "model": bad,
              "finish": bad, "thinkingSeconds": bad, "stats": {"tokens": bad, "prompt": bad}},
    }  # fmt: skip
    conversation = {
        "id": bad, "title": bad, "model": bad, "settings": {"system": bad, "temperature": bad}, "nodes": nodes,
        "chosen": {"root": "__proto__x", "__proto__x": bad}, "created": bad, "updated": bad,
    }  # fmt: skip
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"format": "sambay-conversations", "version": 1, "conversations": [conversation]}))
    page.set_input_files("#file", path)
    page.get_by_role("alert").wait_for()
    page.locator("summary").click()
    page.click("#settings-open")
    assert page.input_value("#set-system") == bad
    assert page.evaluate(FOREIGN) == []
    assert page.evaluate("ran") == []


def test_nothing_can_be_run_within_the_page(page, context):
    """Were there a hole in all else, the policy of the page would still hold."""
    found = page.evaluate(
        """async () => {
          const found = [];
          document.addEventListener("securitypolicyviolation", (event) => found.push(event.effectiveDirective));
          const script = document.createElement("script");
          try { script.textContent = "window.pwned = 1"; document.body.append(script); }
          catch { found.push("trusted"); }
          try { document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.pwned = 1'>"); }
          catch { found.push("trusted"); }
          const image = new Image(); image.src = "https://evil.example/x.png";
          await fetch("https://evil.example/").catch(() => found.push("fetch"));
          await new Promise((resolve) => setTimeout(resolve, 200));
          return [window.pwned ?? null, [...new Set(found)].sort()];
        }"""
    )
    assert found == [None, ["connect-src", "fetch", "img-src", "require-trusted-types-for", "trusted"]]
    assert context.complaints
    context.complaints.clear()
