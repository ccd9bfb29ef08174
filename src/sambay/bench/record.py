"""What is kept of a run: one JSON line with the figures and everything they depend on."""

from __future__ import annotations

import datetime
import json
import math
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sambay._version import __version__
from sambay.ops import native

__all__ = ["Spread", "append", "commit", "new_record", "peak_rss", "quantiles", "threads"]


@dataclass(frozen=True)
class Spread:
    """A figure in several rounds.

    Attributes:
        median: of the rounds.
        least: the smallest.
        first_quartile: a quarter of the rounds is below.
        third_quartile: a quarter is above.
        rounds: how many.
    """

    median: float
    least: float
    first_quartile: float
    third_quartile: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        cuts = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(statistics.median(values), min(values), cuts[0], cuts[2], len(values))

    def to_dict(self) -> dict[str, float]:
        """The numbers as plain data."""
        return {
            "median": self.median,
            "min": self.least,
            "q1": self.first_quartile,
            "q3": self.third_quartile,
            "rounds": self.rounds,
        }


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """What half, 95 and 99 in a hundred of many values are not above; None where there are none."""
    if not values:
        return None
    # What was measured, not something between: the few slowest are the point.
    ranked = sorted(values)
    found = {f"p{part}": ranked[math.ceil(part / 100 * len(ranked)) - 1] for part in (50, 95, 99)}
    return {"mean": statistics.fmean(ranked)} | found


def new_record(mode: str, command: str) -> dict[str, Any]:
    """The fields that every run has, before there are any figures.

    Args:
        mode: what is measured.
        command: as typed.
    """
    return {
        "mode": mode,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": command,
        "machine": _machine(),
        "versions": _versions(),
        "threads": threads(),
    }


def threads() -> dict[str, int | None]:
    """Threads of the compiled kernels (None without any) and of torch, as they are now."""
    return {"kernels": native.threads() if native.available() else None, "torch": torch.get_num_threads()}


def append(record: dict[str, Any], path: Path) -> None:
    """Add a record to a file, as one line.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def peak_rss() -> int | None:
    """The most memory that this process has held, in bytes, mapped weights included; None where no one tells."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def commit() -> str | None:
    """The commit of the clone that this package runs from, with "+" if files differ; None for an installed one."""
    package = Path(__file__).resolve().parents[1]
    root = package.parents[1]
    if package != root / "src" / "sambay" or not (root / ".git").exists():
        return None
    try:
        found = _git(root, "rev-parse", "--short=12", "HEAD").strip()
        return found + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def _machine() -> dict[str, Any]:
    found = native.describe()
    return {
        "cpu": _cpu_model(),
        "cores": found.threads_reason.removeprefix("available: ") or None,
        "isa": found.isa,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"sambay": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
