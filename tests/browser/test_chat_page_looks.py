"""How the chat page looks: both themes, narrow windows, contrast, names for those who listen."""

import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

RICH = r"""The sum is \(\frac{3}{4} + \frac{1}{6}\). Here is why:

1. **Common denominator**: the least common multiple of 4 and 6 is `12`.
2. *Expand* both fractions:

\[
\begin{align}
\frac{3}{4} &= \frac{9}{12} \\
\frac{1}{6} &= \frac{2}{12}
\end{align}
\]

| Fraction | Expanded | As a decimal |
|:---------|:--------:|-------------:|
| \(\frac{3}{4}\) | 9/12 | 0.75 |
| \(\frac{1}{6}\) | 2/12 | 0.1667 |

> It costs $5 now and $10 later. See [the textbook](https://example.org/fractions).

```python
from fractions import Fraction

def total(*parts: str) -> Fraction:
    "Add fractions given as text."  # exact, no rounding
    return sum(map(Fraction, parts), Fraction(0))

print(total("3/4", "1/6"))  # 11/12
```

\[
\left[\begin{array}{cc|c} 1 & 2 & 3 \\ 4 & 5 & 6 \end{array}\right] \quad
\sum_{i=1}^{n} i = \frac{n(n+1)}{2}, \qquad \sqrt{b^2 - 4ac}
\]

So the answer is \boxed{\frac{11}{12}}. And \(\foo{x}\) cannot be set.
"""

CONTRAST = r"""() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((one) => one / 255);
  };
  const over = (top, under) => top.slice(0, 3).map((one, n) => one * top[3] + under[n] * (1 - top[3]));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(rgba(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [1, 1, 1]);
  };
  const wrong = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim()) continue;
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest(".spoken-only, .skip, :disabled, noscript, option")) continue;
    const under = ground(element);
    const top = over(rgba(getComputedStyle(element).color), under);
    const [a, b] = [light(top), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const text = walker.currentNode.data.trim().slice(0, 40);
    if (ratio < 4.5) wrong.push(`${ratio.toFixed(2)} ${text} <${element.className}>`);
  }
  return wrong;
}"""

NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, a[href], summary, dialog[open]")]
  .filter((one) => one.checkVisibility())
  .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.labels?.length || one.ariaLabelledByElements))
  .map((one) => one.outerHTML)"""


@pytest.fixture
def filled(page, ask, says):
    says(page, [(0, {"reasoning_content": "Let me see: the common denominator is 12."}), (0, {"content": RICH})])
    ask(page, "What is 3/4 + 1/6? Show me all the steps, please.")
    page.locator(".thinking summary").click()
    page.locator(".thoughts p").wait_for()
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_can_be_read(filled, theme, shot):
    filled.click("#settings-open")
    filled.get_by_label(theme.capitalize()).check()
    filled.wait_for_timeout(300)  # until the colours have changed over
    assert filled.evaluate(CONTRAST) == []
    assert filled.evaluate(NAMELESS) == []
    shot(filled, "settings")
    filled.get_by_role("button", name="Done").click()
    filled.locator(".turn.user").hover()
    filled.wait_for_timeout(300)
    assert filled.evaluate(CONTRAST) == []
    assert filled.evaluate(NAMELESS) == []
    filled.evaluate("document.querySelector('#scroller').scrollTop = 0")
    shot(filled, "begin")
    filled.evaluate("document.querySelector('#scroller').scrollTop = 1e6")
    shot(filled, "end")
    dark = filled.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    filled.reload()
    filled.locator(".answer p").first.wait_for()
    ground = filled.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (ground == "rgb(22, 24, 26)") == (theme == "dark")
    assert not dark, "the theme is the page's, not the system's"


def test_the_system_decides_by_default(context, site):
    page = context.new_page()
    page.emulate_media(color_scheme="dark")
    page.goto(site)
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(22, 24, 26)"


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone(filled, width, shot):
    filled.set_viewport_size({"width": width, "height": 780})
    filled.wait_for_timeout(300)
    assert filled.evaluate("document.documentElement.scrollWidth") <= width
    assert filled.evaluate(
        """() => [...document.querySelectorAll("#turns > *, #composer, header, header > *")]
          .filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML)"""
    ) == []  # fmt: skip
    shot(filled, "chat")
    filled.evaluate("document.querySelector('#scroller').scrollTop = 0")
    shot(filled, "begin")
    filled.click("#sidebar-open")
    filled.wait_for_timeout(300)
    assert filled.evaluate("document.activeElement.id") == "sidebar-close"
    shot(filled, "list")
    filled.keyboard.press("Escape")
    filled.wait_for_timeout(300)
    assert filled.locator("#sidebar").is_hidden()
    filled.click("#settings-open")
    filled.wait_for_timeout(200)
    shot(filled, "settings")
    assert filled.evaluate("document.querySelector('dialog').scrollWidth") <= width


def test_mathematics_is_drawn(filled):
    assert filled.locator(".answer math").count() == 6
    box = filled.locator("math .boxed").bounding_box()
    assert box["width"] > 15
    assert box["height"] > 25
    assert filled.evaluate("getComputedStyle(document.querySelector('math .boxed')).borderTopStyle") == "solid"
    fraction = filled.locator(".math.display mfrac").first
    above, below = (fraction.locator("> *").nth(n).bounding_box()["y"] for n in (0, 1))
    assert above < below
    assert filled.locator(".answer code.source").inner_text() == r"\(\foo{x}\)"


def test_motion_is_left_out_where_it_is_not_wanted(page, says):
    page.emulate_media(reduced_motion="reduce")
    says(page, [(1, {"content": "x"})])
    page.fill("#message", "go")
    page.press("#message", "Enter")
    duration = page.evaluate("getComputedStyle(document.querySelector('.waiting span')).animationDuration")
    assert float(duration.removesuffix("s")) < 0.001


def test_the_first_paint_needs_the_style_alone(context, site, until):
    """Scripts are not waited for; the times go to the artefacts, since machines differ."""
    times = []
    for _ in range(5):
        page = context.new_page()
        page.goto(site)
        until(page, "performance.getEntriesByName('first-contentful-paint').length")
        times.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        blocking = page.evaluate(
            "performance.getEntriesByType('resource').filter((one) => one.renderBlockingStatus === 'blocking')"
            ".map((one) => one.name.split('/').pop())"
        )
        assert set(blocking) == {"base.css", "page.css", "theme.js"}
        page.close()
    directory = os.environ.get("SAMBAY_SCREENSHOTS")
    if directory:
        (Path(directory) / "first-paint.json").write_text(json.dumps({"milliseconds": times}), encoding="utf-8")
