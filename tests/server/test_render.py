"""What a model writes, as HTML: safe whatever it is, the same however it came, and good to read where it is sound."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("markdown_it", reason="needs sambay[serve]")

from sambay.recent import Recent
from sambay.server import mathml as mathml_module
from sambay.server import render as render_module
from sambay.server.mathml import mathml
from sambay.server.render import render, render_html

MATH = """math mrow mi mn mo mtext mspace ms mfrac msqrt mroot mstyle mpadded mphantom msub msup msubsup munder mover
    munderover mtable mtr mtd"""
TEXT = """p br hr strong em s code pre figure ul ol li blockquote h1 h2 h3 h4 h5 h6 table thead tbody tr th td div span
    a"""
TAGS = set(MATH.split()) | set(TEXT.split())
NAMES = """class data-language tabindex start href title target rel display alttext stretchy fence separator
    movablelimits accent accentunder displaystyle largeop symmetric form scriptlevel lspace rspace minsize maxsize width
    height depth voffset linethickness mathvariant"""
ATTRIBUTES = set(NAMES.split())
VOID = {"br", "hr"}


class Checker(HTMLParser):
    """Nothing but what is allowed, each element closed where it should be."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.links, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, (tag, name, value)
        given = dict(attrs)
        if tag == "a":
            assert re.match(r"https?://[^@/]+(/|$|\?|#)|mailto:[^/]+@", given["href"]), given
            assert {"noopener", "noreferrer"} <= set(given["rel"].split())
            assert given["target"] == "_blank"
            assert "a" not in self.open
            self.links.append(given["href"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def unknown_decl(self, data):
        raise AssertionError(data)

    handle_comment = handle_decl = handle_pi = unknown_decl


def checked(html):
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def words(text):
    return "".join(checked(render_html(text)).words).strip()


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<math><mtext><script>alert(1)</script></mtext></math>",
    "<a href='javascript:alert(1)'>x</a>",
    "<!-- --><iframe src=//evil.example></iframe>",
    "<style>*{display:none}</style>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](&#x6A;avascript&colon;alert(1))",
    "[x](%6Aavascript:alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](data:image/svg+xml;base64,PHN2Zz4=)",
    "[x](vbscript:msgbox(1))",
    "[x](file:///etc/passwd)",
    "[x](//evil.example)",
    "[x](/v1/models)",
    "[x](blob:https://a/b)",
    "[x](https://bank.example@evil.example/)",
    "[x](https://bank.example%40evil.example\\@x)",
    "[x](https:evil.example)",
    "[x](https://)",
    "[x](https://[::1)",
    "<javascript:alert(1)>",
    "<data:text/html,x>",
    '[x](https://ok.example/"onmouseover="alert(1))',
    "[x](https://ok.example '\"><script>alert(1)</script>')",
    "[x]: javascript:alert(1)\n\n[x]",
    "![x](https://evil.example/track.png)",
    '![x" onerror="alert(1)](https://evil.example/a.png)',
    "![<script>alert(1)</script>](x)",
    "[![x](https://evil.example/a.png)](https://evil.example)",
    "```<script>alert(1)</script>\nx\n```",
    '```"onmouseover="alert(1)\nx\n```',
    "```html\n<script>alert(1)</script>\n```",
    "```python\n'</code></pre><script>alert(1)</script>'\n```",
    "    <script>alert(1)</script>",
    "`<script>alert(1)</script>`",
    "| <script>alert(1)</script> | b |\n|---|:-:|\n| <img src=x onerror=alert(1)> | x |",
    '|a|\n|:-" onclick="alert(1)|',
    "\\(\\text{<script>alert(1)</script>}\\)",
    "\\(\\text{</mtext></math><img src=x onerror=alert(1)>}\\)",
    "\\(\\text{&lt;script&gt;alert(1)&lt;/script&gt;}\\)",
    "\\(\\text{&#60;img src=x onerror=alert(1)&#62;}\\)",
    "\\(\\href{javascript:alert(1)}{x}\\)",
    "\\(\\style{position:fixed;inset:0}{x}\\)",
    '\\(\\class{x" onclick="alert(1)}{y}\\)',
    "\\(\\color{red;background:url(//evil.example)}x\\)",
    "\\(\\hspace{99999em}x\\kern-9999em y\\)",
    "\\(\\unicode{x3c}script\\unicode{x3e}\\)",
    "\\(\\def\\a{\\a\\a}\\a\\)",
    "\\(\\newcommand{\\a}{xx}\\newcommand{\\b}{\\a\\a}\\b\\)",
    '\\(" onmouseover="alert(1)\\)',
    "$$<img src=x onerror=alert(1)>$$",
    "\\boxed{<img src=x onerror=alert(1)>}",
    "# <script>alert(1)</script>",
    "> <script>alert(1)</script>",
    "\x00<script>alert(1)</script>",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "\u202e<script>\u2066",
    "\ud800<script>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text):
    for growing in (False, True):
        found = render(text, growing)
        html = "".join(found.blocks) + found.open
        checked(html)
        assert "<script" not in html.lower()
        assert "<img" not in html.lower()


@pytest.mark.parametrize("text", [one for one in HOSTILE if one.startswith(("[x](", "<j", "<d"))][:22])
def test_hostile_links_are_no_links(text):
    if "ok.example" not in text:
        assert checked(render_html(text)).links == []


FRAGMENTS = [
    *HOSTILE, "word", " ", "\n", "\n\n", "- ", "1. ", "> ", "# ", "```", "```python\n", "~~~\n", "*", "**", "_", "~~",
    "`", "|", "|a|b|\n", "|-|-|\n", "---\n", "===\n", "\\(", "\\)", "\\[", "\\]", "\\[\n", "\n\\]\n", "$", "$$", "$$\n",
    "\\frac{1}{2}", "\\boxed{", "}", "{", "\\", "\\begin{align}", "\\end{align}", "&", "\\\\", "x^2", "    ", "\t",
    "\r\n", "\r", "[a](https://b.c)", "<", ">", "é", "漢", "𝔸", "5", "\\begin{pmatrix}", "\\end{pmatrix}", "\\left(",
    "\\right)", "\\text{", "^",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join) | st.text(max_size=60)


@given(TEXTS)
@settings(max_examples=100)
def test_whatever_is_written_is_safe(text):
    checked(render_html(text))


@given(TEXTS, st.lists(st.integers(1, 40), min_size=1, max_size=20))
@settings(max_examples=100)
def test_a_growing_text_ends_as_the_whole_does(text, steps):
    """What is finished never changes, and what is sent again is only what is open."""
    units = text.encode("utf-16-le", "surrogatepass")
    begin, end, done = 0, 0, []
    while end < len(units) // 2:
        end += steps[len(done) % len(steps)]
        while end < len(units) // 2 and 0xDC00 <= int.from_bytes(units[2 * end : 2 * end + 2], "little") < 0xE000:
            end += 1  # JavaScript's decoder of streams never cuts a character
        found = render(units[2 * begin : 2 * end].decode("utf-16-le", "surrogatepass"), growing=True)
        checked("".join(found.blocks) + found.open)
        done += found.blocks
        begin += found.rest
    rest = render(units[2 * begin :].decode("utf-16-le", "surrogatepass"))
    assert "".join(done + rest.blocks) == render_html(text)


def test_finished_blocks_are_left_alone():
    first = render("A paragraph.\n\n- one\n- two\n\n```python\nx = 1\n", growing=True)
    assert len(first.blocks) == 2
    assert first.rest == len("A paragraph.\n\n- one\n- two\n\n")
    assert "<figure" in first.open


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("so **bold wor", "<p>so <strong>bold wor</strong></p>"),
        ("so **bold **", "<p>so **bold **</p>"),
        ("\\(a ** b", "a ** b</code>"),
        ("so **bold*", "<p>so <strong>bold</strong></p>"),
        ("use `pri", "<p>use <code>pri</code></p>"),
        ("- **a** b\n- **c", "<li><strong>c</strong></li>"),
        ("```\na ** b", "a ** b</code>"),
        ("2 ** 3", "<p>2 ** 3</p>"),
    ],
)
def test_what_has_begun_is_shown_as_if_it_had_ended(text, shown):
    assert shown in render(text, growing=True).open


def test_offsets_are_those_of_javascript():
    assert render("𝔸𝔸\r\n\r\nsecond\r\n\r\nthird", growing=True).rest == 8


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        ("\\(x^2\\)", 1),
        ("so \\[ x \\] holds", 1),
        ("\\[\nx\n\\]", 1),
        ("$$x$$", 1),
        ("$$\nx\n$$", 1),
        ("$x$ and $y_1$", 2),
        ("\\boxed{42}", 1),
        ("\\boxed{\\frac{1}{2}}", 1),
        ("\\begin{align}a&=b\\\\&=c\\end{align}", 1),
        ("- \\(x\\)\n- $$y$$", 2),
        ("| \\(x\\) |\n|---|\n| $y$ |", 2),
        ("**\\(x\\)**", 1),
        ("I have $5 and $10.", 0),
        ("It costs $5, that is $2.50 more.", 0),
        ("US$5 and US$6", 0),
        ("$5-$10", 0),
        ("a $ b $ c", 0),
        ("\\$5 and \\$6", 0),
        ("pay $20 per month and get $x$", 1),
        ("`\\(x\\)` and `$x$`", 0),
        ("```\n\\(x\\)\n```", 0),
        ("\\(unclosed", 0),
        ("$$\nunclosed\n\nnext", 0),
        ("$", 0),
        ("$$", 0),
        ("\\", 0),
    ],
)
def test_mathematics_and_prices(text, formulas):
    assert render_html(text).count("<math") == formulas


def test_a_price_stays_as_written():
    assert words("It was $5 and is $10 now.") == "It was $5 and is $10 now."


@pytest.mark.parametrize(
    "latex", ["\\foo{x}", "\\frac{1", "x^", "a^2^3", "\\left(", "}{", "\\begin{foo}x\\end{foo}", "x" * 5001]
)
def test_what_does_not_convert_is_shown_as_source(latex):
    assert mathml(latex) is None or "\\" not in mathml(latex).partition(">")[2]
    if mathml(latex) is None:
        assert words(f"a \\({latex}\\) b".replace("x" * 5001, "\\foo")).startswith("a ")
        assert "source" in render_html("\\(\\foo\\)")


def test_a_formula_that_has_begun_is_shown_as_such():
    assert 'class="pending">\\( x +' in render("so \\( x +", growing=True).open
    assert 'class="pending">\\[\nx +' in render("\\[\nx +", growing=True).open
    assert "pending" not in render_html("so \\( x +")


@pytest.mark.parametrize(
    ("latex", "holds"),
    [
        ("\\frac{1}{2}", "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>"),
        ("\\boxed{7}", 'class="boxed"'),
        ("a<b", "<mo>&lt;</mo>"),
        ("\\sqrt[3]{8}", "<mroot>"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "<mtable>"),
        ("\\left[\\begin{array}{c|c}1&2\\end{array}\\right]", 'class="ruled"'),
        ("\\mathrm{km}", 'mathvariant="normal"'),
        ("\\cancel{5}", 'class="struck"'),
        ("\\text{if } x", "if\xa0</mtext>"),
        ("\\begin{align}a&=b\\end{align}", "<mtable"),
    ],
)
def test_formulas(latex, holds):
    found = mathml(latex)
    assert holds in found
    assert "(1)" not in found.partition(">")[2]  # no numbers of equations
    checked(found)


def test_a_formula_does_not_move_over_the_page():
    assert "99999" not in mathml("\\hspace{99999em}x").partition(">")[2]
    assert 'width="-9em"' in mathml("\\hspace{-9em}x")


LATEX = r"""\frac \sqrt \text { } ^ _ & \\ x 1 + \left( \right) \begin{matrix} \end{matrix} \color \href \style \boxed
    < > " '"""


@given(st.lists(st.sampled_from(LATEX.split()), max_size=20).map(" ".join))
@settings(max_examples=100)
def test_whatever_latex_is_safe(latex):
    found = mathml(latex, display=True)
    if found is not None:
        checked(found)


def test_code():
    html = render_html("```python\nprint(1)\n```\n\n```nosuchlanguage\na < b\n```\n\n```\nplain\n```")
    assert 'data-language="python"' in html
    assert '<span class="nb">print</span>' in html
    assert "a &lt; b" in html
    assert html.count("<figure") == 3
    assert words("```python\n\n  x\n\n```") == "x"
    assert "\n\n  x\n\n".strip("\n") in re.sub("<.*?>", "", render_html("```text\n\n  x\n\n```"))


def test_tables_have_no_styles():
    html = render_html("| a | b | c |\n|:--|:-:|--:|\n| 1 | 2 | 3 |")
    assert '<td class="center">2</td>' in html
    assert "style=" not in html


@pytest.mark.parametrize("text", ["3*4*5", "2**3**2", "x*2*y", "(1+2)*(3+4)*5", "2*x*3", "a * b * c"])
def test_stars_between_numbers_are_products(text):
    assert words(text) == text


def test_emphasis():
    assert render_html("**Step 1:** *so* ~~no~~ **5**").strip() == (
        "<p><strong>Step 1:</strong> <em>so</em> <s>no</s> <strong>5</strong></p>"
    )


def test_a_link_says_where_it_leads():
    assert words("[your bank](https://evil.example/x)") == "your bank (evil.example)"
    assert words("[https://bank.example](https://evil.example)") == "https://bank.example (evil.example)"
    assert words("<https://a.example/b>") == "https://a.example/b"
    assert words("<me@a.example>") == "me@a.example"
    assert words("[all](https://xn--e1afmkfd.example)") == "all (xn--e1afmkfd.example)"
    assert "xn--" in words("[all](https://пример.example)")


def test_line_breaks_are_kept():
    assert render_html("9 + 2 = 11\n11/12").strip() == "<p>9 + 2 = 11<br>\n11/12</p>"


def test_deep_nesting_ends():
    for text in (
        ">" * 3000,
        "- " * 3000,
        "\\(" + "\\frac{" * 700 + "\\)",
        "\\(" + "{" * 4000 + "}" * 900 + "\\)",
        "[" * 5000,
        "*a " * 3000,
    ):
        checked(render_html(text))


def test_what_was_rendered_is_kept_within_a_bound_of_its_size(monkeypatch):
    codes, formulas = Recent(256, 60_000), Recent(4096, 60_000)
    monkeypatch.setattr(render_module, "_COLOURED", codes)
    monkeypatch.setattr(mathml_module, "_SET", formulas)
    render(f"```python\n{'x' * 30_000}\n```\n\n```nonsense\n{'y' * 9000}\n```\n\n\\[{'1+' * 9000}\\]")
    assert (len(codes), len(formulas)) == (0, 0)  # what costs no time is not kept
    code, formula = "f(x) + 1\n" * 100, "+".join(["\\frac{1}{2}"] * 90)
    html = render_html(f"```python\n{code}```\n\n\\[{formula}\\]")
    assert codes.size > 5 * len(code)
    assert formulas.size > 5 * len(formula)
    for part in range(12):
        render(f"```python\n{part}\n{code}```\n\n\\[{part}+{formula}\\]")
    assert 1 < len(codes) < 12
    assert 1 < len(formulas) < 12
    assert render_html(f"```python\n{code}```\n\n\\[{formula}\\]") == html
