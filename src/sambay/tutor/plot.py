"""The summary of an assessment as a picture; needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["draw_summary"]

_MOST_BARS = 24
_RIGHT, _WRONG = "#0a6b5c", "#d8d3c8"


def draw_summary(found: dict[str, Any], path: Path) -> None:
    """Draw how problems and students did, the weakest problems first.

    Args:
        found: from `assess.summary`.
        path: whose name says the format.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure

    problems = sorted(found["problems"], key=lambda one: one["share"])[:_MOST_BARS]
    figure = Figure(figsize=(11, 2.6 + 0.34 * max(len(problems), 6)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    names = [f"{_short(one['name'])}{'  (model)' if one['source'] == 'model' else ''}" for one in problems]
    left.barh(range(len(problems)), [100] * len(problems), color=_WRONG)
    left.barh(range(len(problems)), [100 * one["share"] for one in problems], color=_RIGHT)
    for at, one in enumerate(problems):
        left.text(101, at, f"{one['correct']} of {one['count']}", va="center", fontsize="small")
    left.set(xlim=(0, 118), xlabel="right, %", yticks=range(len(problems)))
    left.set_yticklabels(names, fontsize="small", parse_math=False)
    left.invert_yaxis()
    more = len(found["problems"]) - len(problems)
    left.set_title(f"Problems{f', the {len(problems)} hardest' if more > 0 else ''}")
    if found["students"]:
        right.hist([100 * one["share"] for one in found["students"]], bins=range(0, 101, 10), color=_RIGHT, rwidth=0.92)
        right.set(xlabel="right, %", ylabel="students", xlim=(0, 100))
        right.yaxis.get_major_locator().set_params(integer=True)
        right.set_title(f"{len(found['students'])} students")
    else:
        right.bar(list(found["mistakes"]) or ["none"], list(found["mistakes"].values()) or [0], color=_RIGHT)
        right.tick_params(axis="x", rotation=60)
        right.set_title("Mistakes")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    share = "" if found["accuracy"] is None else f": {found['accuracy']:.0%} right"
    figure.suptitle(f"{found['correct']} of {found['graded']} answers{share}", fontweight="bold", parse_math=False)
    figure.savefig(path, dpi=120)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 46 else f"{text[:45]}…"
