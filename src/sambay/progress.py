"""Progress bars on the standard error, shown only where a person can see them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["TaskProgress", "task_progress"]


class TaskProgress:
    """One task under way; does nothing unless it is shown.

    Args:
        label: what is being done.
    """

    def __init__(self, label: str) -> None:
        self.label = label

    def update(self, done: int, total: int) -> None:
        """Report that `done` of `total` units are done."""


@contextmanager
def task_progress(label: str, *, enabled: bool = True) -> Iterator[TaskProgress]:
    """A progress bar for one task.

    Args:
        label: what is being done, such as "Loading".
        enabled: False shows nothing; nothing is shown either when standard error is not a terminal.

    Yields:
        An object whose `update(done, total)` moves the bar.
    """
    if not enabled or not sys.stderr.isatty():
        yield TaskProgress(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    class _Shown(TaskProgress):
        def update(self, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield _Shown(label)
