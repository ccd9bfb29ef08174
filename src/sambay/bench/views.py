"""How the figures of each mode are shown: the columns of its table, and its plot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sambay.errors import ConfigError, MissingExtraError

__all__ = ["PEER_NOTE", "PLOT_FORMATS", "VIEWS", "Column", "View", "check_plot", "draw"]

Row = dict[str, Any]

PLOT_FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: with the unit.
        show: a row of a record -> what stands in the cell.
        left: text, not a number.
        key: what the row is about, which is there even where nothing could be measured.
        peer: only where a peer was measured.
    """

    title: str
    show: Callable[[Row], str]
    left: bool = False
    key: bool = False
    peer: bool = False

    def cell(self, row: Row) -> str:
        """What stands in a row, which may have an obstacle instead of figures."""
        return self.show(row) if self.key or "obstacle" not in row else ""


@dataclass(frozen=True)
class View:
    """How a mode is shown.

    Attributes:
        columns: of the table.
        note: how the figures came about, below the table.
        x: a row -> its place on the horizontal axis, a number or a name.
        y: a row -> its height.
        series: a row -> the line it belongs to.
        x_title: of the axis.
        y_title: of the axis.
        bars: bars with names instead of lines; one panel per series.
    """

    columns: tuple[Column, ...]
    note: str
    x: Callable[[Row], Any]
    y: Callable[[Row], float]
    series: Callable[[Row], str]
    x_title: str
    y_title: str
    bars: bool = False

    def shown(self, record: dict[str, Any]) -> list[Column]:
        """The columns of a record."""
        return [column for column in self.columns if not column.peer or "peer" in record]


_UNITS = {"B/s": (1e9, "GB/s"), "op/s": (1e9, "Gop/s"), "s": (1e-6, "us")}


def _scaled(row: Row, name: str) -> str:
    return f"{row[name] / _UNITS[row['unit']][0]:,.2f}"


def _milliseconds(name: str) -> Callable[[Row], str]:
    return lambda row: f"{1e3 * row['seconds'][name]:,.2f}"


def _engine(row: Row) -> str:
    return f"{row['engine']}, flash" if row.get("flash") else str(row["engine"])


def _series(name: Callable[[Row], str]) -> Callable[[Row], str]:
    """The line of a plot: ours by its name alone, the peer's with the peer's."""
    return lambda row: name(row) if row["engine"] == "sambay" else ", ".join(filter(None, (row["engine"], name(row))))


def _times(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(name) is None else f"{row[name]:,.2f}x"


def _ratio(row: Row) -> str:
    return ("" if row.get("in_turns", True) else "~") + _times("ratio")(row)


def _fit(row: Row) -> str:
    return "" if row["budget"] is None else f" in {row['budget'] / 1e9:g} GB"


def _quantile_columns(name: str, title: str) -> tuple[Column, ...]:
    """The columns of the `quantiles` of some seconds, in milliseconds; the note says so."""

    def shown(part: str) -> Callable[[Row], str]:
        return lambda row: "" if row[name] is None else f"{1e3 * row[name][part]:,.1f}"

    return tuple(Column(f"{title} {part}", shown(part)) for part in ("p50", "p95", "p99"))


_ENGINE = Column("", _engine, left=True, key=True, peer=True)
_RATIO = Column("ours/its", _ratio, peer=True)

_SECONDS = (
    Column("ms, median", _milliseconds("median")),
    Column("quartiles", lambda row: f"{1e3 * row['seconds']['q1']:,.2f}-{1e3 * row['seconds']['q3']:,.2f}"),
    Column("min", _milliseconds("min")),
    Column("tokens/s", lambda row: f"{row['tokens_per_second']:,.2f}"),
)

_MOVED = (
    Column("MB moved", lambda row: f"{row['bytes']['total'] / 1e6:,.1f}"),
    Column("bandwidth", lambda row: f"{row['bandwidth']['median'] / 1e9:,.2f}"),
    Column("share", lambda row: f"{row['share']:.1%}"),
)

_SHORTCUT = "Depths are reached by filling states and caches with random numbers, which costs a step the same."

PEER_NOTE = (
    "ours/its: our tokens a second over the peer's, the median of the rounds, in which both take turns; the peer at "
    "the better of the settings that were measured. ~: not in turns, since the memory does not hold both."
)

VIEWS: dict[str, View] = {
    "machine": View(
        columns=(
            Column("", lambda row: row["what"], left=True),
            Column("", lambda row: row["variant"], left=True),
            Column("median", lambda row: _scaled(row, "median")),
            Column("quartiles", lambda row: f"{_scaled(row, 'q1')}-{_scaled(row, 'q3')}"),
            Column("min", lambda row: _scaled(row, "min")),
            Column("unit", lambda row: _UNITS[row["unit"]][1], left=True),
        ),
        note="Operations are two for a multiply-add.",
        x=lambda row: row["variant"],
        y=lambda row: row["median"] / _UNITS[row["unit"]][0],
        series=lambda row: f"{row['what']}, {_UNITS[row['unit']][1]}",
        x_title="",
        y_title="",
        bars=True,
    ),
    "decode": View(
        columns=(
            _ENGINE,
            Column("batch", lambda row: f"{row['batch']:,}", key=True),
            Column("depth", lambda row: f"{row['depth']:,}", key=True),
            *_SECONDS,
            *_MOVED,
            _RATIO,
        ),
        note=f"Times are of one step: a token for each sequence. {_SHORTCUT} Bytes are the least that a step can move; "
        "the bandwidth (GB/s) was measured before each round.",
        x=lambda row: row["depth"],
        y=lambda row: row["tokens_per_second"],
        series=_series(lambda row: f"batch {row['batch']}"),
        x_title="tokens before",
        y_title="tokens/s",
    ),
    "prefill": View(
        columns=(
            _ENGINE,
            Column("length", lambda row: f"{row['length']:,}", key=True),
            Column("chunk", lambda row: f"{row['chunk']:,}", key=True),
            *_SECONDS,
            Column("Gop", lambda row: f"{row['operations'] / 1e9:,.1f}"),
            Column("Gop/s", lambda row: f"{row['operations_per_second'] / 1e9:,.1f}"),
            Column("matrices", lambda row: f"{row['matrix']['median'] / 1e9:,.1f}"),
            Column("of peak", lambda row: "" if row["peak"] is None else f"{row['share_of_peak']:.1%}"),
            Column("share", lambda row: f"{row['share']:.1%}"),
            _RATIO,
        ),
        note="Operations (two for a multiply-add) are those that the logits of the last token need. Matrices: Gop/s of "
        "one product of as many rows as a chunk has with a matrix of 2560 x 2560, measured before each round. "
        "Peak: of bytes in the first cache, without scales, measured after the last.",
        x=lambda row: row["length"],
        y=lambda row: row["tokens_per_second"],
        series=_series(lambda row: "whole" if row["chunk"] == row["length"] else f"chunks of {row['chunk']}"),
        x_title="tokens of the prompt",
        y_title="tokens/s",
    ),
    "latency": View(
        columns=(
            _ENGINE,
            Column("generated", lambda row: f"{row['generated']:,}", key=True),
            Column("seconds", lambda row: f"{row['seconds_since_start']:,.1f}"),
            Column("depth", lambda row: f"{row['depth']:,}", key=True),
            *_SECONDS,
            *_MOVED,
            _RATIO,
            Column("so far", _times("ratio_since_start"), peer=True),
        ),
        note="Seconds are not of one long run: steps were timed at these depths, and the cost of a token taken to be "
        f"linear between them; the prompt's own time is not in them. {_SHORTCUT}",
        x=lambda row: row["generated"],
        y=lambda row: row["seconds_since_start"],
        series=_series(lambda row: ""),
        x_title="tokens generated",
        y_title="seconds",
    ),
    "throughput": View(
        columns=(
            _ENGINE,
            Column("sequences", lambda row: f"{row['batch']:,}{_fit(row)}", key=True),
            *_SECONDS,
            Column("x one", _times("ratio_to_one")),
            Column("GB", lambda row: f"{row['memory'] / 1e9:,.2f}"),
            *_MOVED,
            _RATIO,
        ),
        note="Figures are of a mean step (a token for each sequence) from the first token that is generated to the "
        "last: steps were timed at some depths, and the cost of a token taken to be linear between them; the prompt's "
        f"own time is not in them. {_SHORTCUT} GB: weights and states at the end.",
        x=lambda row: row["batch"],
        y=lambda row: row["tokens_per_second"],
        series=_series(lambda row: ""),
        x_title="sequences",
        y_title="tokens/s together",
    ),
    "concurrency": View(
        columns=(
            Column("at once", lambda row: f"{row['concurrency']:,}", key=True),
            Column("requests", lambda row: f"{row['requests']:,}"),
            Column("tokens", lambda row: f"{row['tokens']:,}"),
            Column("s, median", lambda row: f"{row['seconds']['median']:,.2f}"),
            Column("quartiles", lambda row: f"{row['seconds']['q1']:,.2f}-{row['seconds']['q3']:,.2f}"),
            Column("tokens/s", lambda row: f"{row['tokens_per_second']:,.2f}"),
            Column("x one", _times("ratio_to_one")),
            *_quantile_columns("first_token", "first"),
            Column("step, ms", lambda row: f"{1e3 * row['step']:,.2f}"),
            Column("own", lambda row: f"{row['own']:.1%}"),
        ),
        note="The same requests through the engine, prompts and the choice of tokens included; who is done makes room "
        "for the next. x one: the time of one after another over this, the median of the rounds. First: until a "
        "request's first token, in ms. Own: what the engine takes of a step beside the model.",
        x=lambda row: row["concurrency"],
        y=lambda row: row["tokens_per_second"],
        series=lambda row: "",
        x_title="requests at once",
        y_title="tokens/s together",
    ),
    "serve": View(
        columns=(
            Column("at once", lambda row: "any" if row["concurrency"] is None else f"{row['concurrency']:,}", key=True),
            Column("begun/s", lambda row: "" if row["rate"] is None else f"{row['rate']:g}", key=True),
            Column("requests", lambda row: f"{row['requests']:,}"),
            Column("failed", lambda row: f"{sum(row['errors'].values()):,}"),
            Column("s", lambda row: f"{row['seconds']:,.2f}"),
            Column("tokens", lambda row: f"{row['tokens']:,}"),
            Column("tokens/s", lambda row: f"{row['tokens_per_second']:,.2f}"),
            *_quantile_columns("first_token", "first"),
            *_quantile_columns("inter_token", "between"),
            Column("ms/token", lambda row: "" if row["per_token"] is None else f"{1e3 * row['per_token']['p50']:,.2f}"),
        ),
        note="Seen from the client; p50 to p99 in ms. First: until the first text of an answer; between: from one "
        "piece of text to the next; ms/token: of an answer after its first, the median.",
        x=lambda row: row["concurrency"] if row["rate"] is None else row["rate"],
        y=lambda row: row["tokens_per_second"],
        series=lambda row: "",
        x_title="conversations at once, or begun in a second where there is a rate",
        y_title="tokens/s together",
    ),
    "prefix": View(
        columns=(
            Column("turn", lambda row: f"{row['turn']}", key=True),
            Column("prompt", lambda row: f"{row['prompt']:,}", key=True),
            Column("cache", lambda row: "on" if row["cache"] else "off", left=True, key=True),
            Column("not computed", lambda row: f"{row['cached_tokens']:,}"),
            Column("ms, median", _milliseconds("median")),
            Column("quartiles", lambda row: f"{1e3 * row['seconds']['q1']:,.2f}-{1e3 * row['seconds']['q3']:,.2f}"),
            Column("min", _milliseconds("min")),
            Column("share", lambda row: f"{row['share']:.1%}"),
        ),
        note="Times are until the first token of an answer. Each question is asked with the prefix cache and without "
        "it, in turns; share: of the time without it, the median of the rounds.",
        x=lambda row: row["prompt"],
        y=lambda row: 1e3 * row["seconds"]["median"],
        series=lambda row: f"prefix cache {'on' if row['cache'] else 'off'}",
        x_title="tokens of the conversation",
        y_title="ms to the first token",
    ),
    "speculation": View(
        columns=(
            Column("text", lambda row: row["text"], left=True, key=True),
            Column("sequences", lambda row: f"{row['batch']:,}", key=True),
            Column("speculation", lambda row: row["mode"], left=True, key=True),
            Column("tokens/s", lambda row: f"{row['tokens_per_second']:,.1f}"),
            Column("x off", lambda row: f"{row['ratio']:.2f}"),
            Column("drafted", lambda row: f"{row['drafted']:,}"),
            Column("accepted", lambda row: f"{row['accepted']:,}"),
        ),
        note="Generation of texts that are given beforehand, with speculation and without it, step by step in turns. "
        "repeats: long pieces of the prompt; quotes: short ones among new words; new: nothing of it; misleads: a dozen "
        "words in any order. x off: the time without speculation over that with it, the median of the rounds.",
        x=lambda row: f"{row['text']}, {row['batch']}",
        y=lambda row: row["ratio"],
        series=lambda row: f"speculation {row['mode']}",
        x_title="",
        y_title="x off",
        bars=True,
    ),
}
"""By the name of the mode."""


def check_plot(path: Path) -> None:
    """Find out before the work whether a plot can be drawn.

    Raises:
        ConfigError: a file of a kind that is not drawn.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in PLOT_FORMATS:
        raise ConfigError(
            f"--plot {path} ends in {path.suffix!r}: choose a name that ends in {', '.join(PLOT_FORMATS)}"
        )
    try:
        import matplotlib.figure  # noqa: F401 - only whether it is there
    except ImportError:
        raise MissingExtraError("matplotlib", "bench", "--plot") from None


def draw(record: dict[str, Any], path: Path) -> None:
    """Plot a record into a file whose name says its format.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure

    view = VIEWS[record["mode"]]
    lines: dict[str, list[Row]] = {}
    for row in record["results"]:
        if "obstacle" not in row:
            lines.setdefault(view.series(row), []).append(row)
    figure = Figure(figsize=(8, 2 * len(lines)) if view.bars else (8, 5), layout="constrained")
    if view.bars:
        for axes, (name, rows) in zip(figure.subplots(len(lines), squeeze=False)[:, 0], lines.items(), strict=True):
            axes.barh([view.x(row) for row in rows][::-1], [view.y(row) for row in rows][::-1])
            axes.set_title(name)
    else:
        axes = figure.subplots()
        for name, found in lines.items():
            rows = sorted(found, key=view.x)
            axes.plot([view.x(row) for row in rows], [view.y(row) for row in rows], marker="o", label=name or "sambay")
        axes.set(xlabel=view.x_title, ylabel=view.y_title)
        axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend()
    model = record.get("model")
    what = record["mode"] if model is None else f"{record['mode']}: {model['name']}"
    figure.suptitle(f"{what}{' (random weights)' if model and model['random'] else ''}, {record['machine']['cpu']}")
    figure.savefig(path)
