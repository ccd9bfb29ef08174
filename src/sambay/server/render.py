"""Markdown as models write it -> HTML that is safe to put into a page.

What a model says is not trusted. HTML in it is text; links go to http, https and mailto, say where they lead and open
apart; images are their descriptions; mathematics is MathML from a list of elements; code is coloured by classes.
Nothing has a style, an id or a handler of its own.

Blocks are independent of each other (there are no reference links), so that a text which grows can be shown block by
block: `render` says which blocks no further text can change, and where the rest begins.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from sambay.recent import Recent
from sambay.server.mathml import LONGEST, mathml

__all__ = ["Rendered", "render", "render_html"]

_LONGEST_LINK = 2000
_LONGEST_CODE = 20_000  # characters that are coloured; a lexer's time has no bound that we know

_COLOURED: Recent[tuple[str, str], str] = Recent(256, 4_000_000)
"""Code and what it became, for the next time that a growing text is shown; the size is in characters."""

# Lexers that models have use for. Any other name is plain text: some lexers can be made to run for minutes.
_LANGUAGES = {
    "bash": "bash", "c": "c", "c++": "cpp", "cpp": "cpp", "cs": "csharp", "csharp": "csharp", "css": "css",
    "diff": "diff", "dockerfile": "docker", "go": "go", "golang": "go", "html": "html", "ini": "ini", "java": "java",
    "javascript": "javascript", "js": "javascript", "json": "json", "julia": "julia", "kotlin": "kotlin",
    "latex": "latex", "lua": "lua", "makefile": "make", "php": "php", "py": "python", "python": "python",
    "python3": "python", "r": "r", "rb": "ruby", "ruby": "ruby", "rs": "rust", "rust": "rust", "scala": "scala",
    "sh": "bash", "shell": "bash", "sql": "sql", "swift": "swift", "tex": "latex", "toml": "toml", "ts": "typescript",
    "typescript": "typescript", "xml": "xml", "yaml": "yaml", "yml": "yaml",
}  # fmt: skip

_DELIMITERS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}
_ENVIRONMENT = re.compile(r"\\begin\{((?:align|aligned|alignat|equation|gather|gathered|multline|eqnarray)\*?)\}")


@dataclass(frozen=True)
class Rendered:
    """A text as HTML.

    Attributes:
        blocks: HTML of each block that is finished, in order; no text that follows changes them.
        open: HTML of the rest, "" if there is none.
        rest: where the rest begins, in the UTF-16 units that JavaScript counts.
    """

    blocks: list[str]
    open: str
    rest: int


def render_html(text: str) -> str:
    """A whole text as HTML."""
    return "".join(render(text).blocks)


def render(text: str, growing: bool = False) -> Rendered:
    """Render a text.

    Args:
        text: Markdown.
        growing: more is to come: the last block stays open, and formulas that have only begun are shown as such. Call
            again with the text from `rest` on.
    """
    text = _readable(text)
    if not growing:
        return Rendered(_blocks(text), "", _units(text))
    # Lines that are not complete could still become anything, so they do not finish a block.
    complete = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
    if complete.endswith("\r"):
        complete = complete[: complete.rstrip("\r").rfind("\n") + 1]  # half of a line break
    tokens = _OUTLINE.parse(complete)
    starts = _starts(tokens)
    if len(starts) < 2:
        return Rendered([], _open(text), 0)
    line = (tokens[starts[-1]].map or [0])[0]
    place = [0, *(found.end() for found in re.finditer(r"\r\n?|\n", complete))][line]
    return Rendered(_blocks(text[:place]), _open(text[place:]), _units(text[:place]))


def _open(text: str) -> str:
    """A block that grows. What has begun in its last line is shown as if it had ended: bold words, code."""
    leaves = [one for one in _OUTLINE.parse(text) if one.type in {"inline", "fence", "code_block", "math_block"}]
    if leaves and leaves[-1].type == "inline":
        text += _missing(leaves[-1].content.rpartition("\n")[2])
    written = _PARSER.render(text, {"growing": True})
    assert isinstance(written, str)
    return written


def _missing(line: str) -> str:
    """What would end the bold words or the code that a line has begun."""
    if line.rfind("\\(") > line.rfind("\\)") or line.rfind("\\[") > line.rfind("\\]"):
        return ""  # within a formula
    if line.count("`") % 2:
        return "`"
    begun = re.search(r"(?<![\w*])\*\*(?=[^\s*])(?:(?!\*\*).)*$", line)
    if begun is None or line.count("**") % 2 == 0 or line[-1].isspace():
        return ""
    return "*" if line.endswith("*") else "**"


def _readable(text: str) -> str:
    """Halves of characters, which JSON can spell and nothing can encode, become marks of the same length."""
    return re.sub("[\ud800-\udfff]", "�", text)


def _units(text: str) -> int:
    return len(text) + sum(one > "\uffff" for one in text)


def _blocks(text: str) -> list[str]:
    env: dict[str, Any] = {}
    tokens = _PARSER.parse(text, env)
    starts = [*_starts(tokens), len(tokens)]
    return [_html(tokens[start:end], env) for start, end in itertools.pairwise(starts)]


def _starts(tokens: Sequence[Token]) -> list[int]:
    return [number for number, token in enumerate(tokens) if token.level == 0 and token.nesting >= 0 and token.block]


def _html(tokens: Sequence[Token], env: dict[str, Any]) -> str:
    written = _PARSER.renderer.render(tokens, _PARSER.options, env)
    assert isinstance(written, str)
    return written


class _Renderer(RendererHTML):
    """HTML of the tokens; its methods are named after their types."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        """Code, coloured, with the name of its language where the page puts a button to copy it."""
        token = tokens[idx]
        name = (token.info.split() or [""])[0][:30]
        label = html.escape(name or "text")
        inner = _coloured(token.content, _LANGUAGES.get(name.lower(), ""))
        return f'<figure class="code" data-language="{label}"><pre tabindex="0"><code>{inner}</code></pre></figure>\n'

    code_block = fence

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        """Nothing is loaded from elsewhere: what the image is said to show."""
        shown = self.renderInlineAsText(tokens[idx].children or [], options, env)
        return f'<span class="image">{html.escape(html.unescape(shown) or "image")}</span>'

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        """A link that takes nothing along and says where it leads."""
        target = html.escape(str(tokens[idx].attrs.get("href", "")))
        return f'<a href="{target}" title="{target}" target="_blank" rel="noopener noreferrer nofollow">'

    def link_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        """The host behind a link whose words are not its address: words can claim anything."""
        level, start = tokens[idx].level, idx - 1
        while tokens[start].type != "link_open" or tokens[start].level != level:
            start -= 1
        target = str(tokens[start].attrs.get("href", ""))
        words = "".join(token.content for token in tokens[start + 1 : idx])
        if words.rstrip("/") in {target.rstrip("/"), target.removeprefix("mailto:")}:
            return "</a>"
        where = urlsplit(target).hostname or target.removeprefix("mailto:").partition("?")[0]
        return f'</a><span class="host"> ({html.escape(where)})</span>'

    def math_inline(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]
    ) -> str:
        """A formula within a line."""
        return _formula(tokens[idx])

    def math_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        """A formula on lines of its own."""
        return _formula(tokens[idx])

    def td_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        """A cell. Its alignment is a class: the page takes no styles from here."""
        token = tokens[idx]
        side = str(token.attrs.get("style", "")).removeprefix("text-align:")
        return f'<{token.tag} class="{side}">' if side else f"<{token.tag}>"

    th_open = td_open

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]) -> str:
        """A table, which scrolls by itself where the window is narrow."""
        return '<div class="table" tabindex="0"><table>\n'

    def table_close(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: MutableMapping[str, Any]
    ) -> str:
        """Its end."""
        return "</table></div>\n"


def _formula(token: Token) -> str:
    display = bool(token.meta["display"])
    set_ = None if token.meta.get("open") else mathml(token.content, display)
    shape = "math display" if display else "math"
    if set_ is None:
        state = "pending" if token.meta.get("open") else "source"
        set_ = f'<code class="{state}">{html.escape(token.meta["source"].strip())}</code>'
    return f'<span class="{shape}">{set_}</span>'


def _coloured(code: str, lexer: str) -> str:
    if not lexer or len(code) > _LONGEST_CODE:
        return html.escape(code)
    found = _COLOURED.find((code, lexer))
    if found is None:
        formatter = HtmlFormatter(nowrap=True)
        found = str(highlight(code, get_lexer_by_name(lexer, stripnl=False, ensurenl=False), formatter))
        _COLOURED.keep((code, lexer), found, len(code) + len(found))
    return found


def _allowed_link(target: str) -> bool:
    if len(target) > _LONGEST_LINK:
        return False
    try:
        parts = urlsplit(target)
        if parts.scheme in {"http", "https"}:
            # A name before the host looks like a host: https://bank.example@elsewhere.example
            return bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False
    return parts.scheme == "mailto" and "@" in parts.path


def _inline_math(state: StateInline, silent: bool) -> bool:
    """A formula within a line: in any delimiters, as an environment, or as a box without any of these."""
    source, start = state.src, state.pos
    if source[start] not in "\\$":
        return False
    found = _formula_at(source, start)
    if found is None:
        opening = source[start : start + 2]
        # What may still be closed: it is shown as begun, and not as whatever Markdown would make of it.
        if not state.env.get("growing") or opening not in ("\\(", "\\["):
            return False
        inner, end, display = source[start + 2 :], len(source), False
    else:
        inner, end, display = found
    if not silent:
        token = state.push("math_inline", "math", 0)
        token.content = inner
        token.meta = {"display": display, "source": source[start:end], "open": found is None}
    state.pos = end
    return True


def _formula_at(source: str, start: int) -> tuple[str, int, bool] | None:
    """The LaTeX of a formula that begins here, where it ends, and whether it stands by itself."""
    reach = start + LONGEST
    two = source[start : start + 2]
    closing = _DELIMITERS.get(two)
    if closing is not None:
        end = source.find(closing, start + 2, reach)
        if end < 0 or not source[start + 2 : end].strip():
            return None
        return source[start + 2 : end], end + 2, two != "\\("
    if two.startswith("$"):
        return _dollars(source, start, reach)
    environment = _ENVIRONMENT.match(source, start)
    if environment is not None:
        last = f"\\end{{{environment[1]}}}"
        end = source.find(last, start, reach)
        return None if end < 0 else (source[start : end + len(last)], end + len(last), True)
    if source.startswith("\\boxed{", start):
        brace = _closing_brace(source, start + len("\\boxed"), reach)
        return None if brace is None else (source[start:brace], brace, False)
    return None


def _dollars(source: str, start: int, reach: int) -> tuple[str, int, bool] | None:
    """$ $ around mathematics, and not around the words between two prices."""
    if source[start + 1 : start + 2].isspace() or (start and source[start - 1].isalnum()):
        return None
    end = source.find("$", start + 1, reach)
    while end > 0 and source[end - 1] == "\\":
        end = source.find("$", end + 1, reach)
    if end < start + 2 or source[end - 1].isspace() or source[end + 1 : end + 2].isalnum():
        return None
    inner = source[start + 1 : end]
    # A line's end, or a sentence after a price: "$5. For $x$"
    if "\n" in inner or re.match(r"\d[\d.,]*[.,;:]?\s+[A-Za-z]{2}", inner):
        return None
    return inner, end + 1, False


def _closing_brace(source: str, start: int, reach: int) -> int | None:
    depth = 0
    for found in re.compile(r"\\.|[{}]").finditer(source, start, min(reach, len(source))):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.end()
    return None


def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula on lines of its own, to be closed before an empty line."""
    if state.is_code_block(start):
        return False
    rest = _line(state, start)
    environment = _ENVIRONMENT.match(rest)
    opening = environment[0] if environment else rest[:2]
    closing = f"\\end{{{environment[1]}}}" if environment else _DELIMITERS.get(opening)
    if closing is None or opening == "\\(":
        return False
    line, rest, lines = start, rest[len(opening) :], list[str]()
    while closing not in rest:
        lines.append(rest)
        line += 1
        if line >= end or state.isEmpty(line) or state.sCount[line] < state.blkIndent:
            break
        rest = _line(state, line)
    inner, closed, after = rest.partition(closing) if line < end else ("", "", "")
    if closed:
        if after.strip() and line == start:
            return False  # part of a paragraph
        lines.append(inner)
        line += 1
    if silent:
        return True
    content = "\n".join(lines)
    source = f"{opening}{content}{closed}"
    token = state.push("math_open", "div", 1)
    token.map = [start, line]
    token = state.push("math_block", "math", 0)
    # What was never closed is not to be set: it is shown as source.
    token.content = "" if not closed else source if environment else content
    token.meta = {"display": True, "source": source, "open": not closed and bool(state.env.get("growing"))}
    if closed and after.strip():
        state.push("paragraph_open", "p", 1)
        token = state.push("inline", "", 0)
        token.content, token.children, token.map = after.strip(), [], [line - 1, line]
        state.push("paragraph_close", "p", -1)
    state.push("math_close", "div", -1)
    state.line = line
    return True


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]


def _times(state: StateInline, silent: bool) -> bool:
    """3*4*5 and 2**3 are products and powers; Markdown would take the stars for emphasis."""
    source, start = state.src, state.pos
    if source[start] != "*" or start == 0:
        return False
    end = start
    while source[end : end + 1] == "*":
        end += 1
    before, after = source[start - 1], source[end : end + 1]
    if end - start == 1:
        fits = (before.isdigit() or before in ")]") and (after.isalnum() or after in "([") and after != ""
        fits = fits or ((before.isalnum() or before in ")]") and after.isdigit())
    else:
        fits = end - start == 2 and before.isalnum() and after.isdigit()
    if not fits:
        return False
    if not silent:
        state.pending += source[start:end]
    state.pos = end
    return True


def _parser() -> MarkdownIt:
    parser = MarkdownIt(
        "commonmark", {"html": False, "xhtmlOut": False, "breaks": True, "maxNesting": 40}, renderer_cls=_Renderer
    )
    # Without reference links no block can change what another says.
    parser.enable(["table", "strikethrough"]).disable("reference")
    parser.validateLink = _allowed_link  # type: ignore[method-assign,assignment] # the library is told in this way
    parser.inline.ruler.before("escape", "math", _inline_math)
    parser.inline.ruler.before("emphasis", "times", _times)
    parser.block.ruler.before("fence", "math", _math_block, {"alt": ["paragraph", "blockquote", "list"]})
    return parser


_PARSER = _parser()
_OUTLINE = _parser().disable("inline")  # blocks, with what is in their lines unread
