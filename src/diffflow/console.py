"""Printing and progress bars: names of files, classes and columns are shown exactly as they are.

A name is somebody else's words: `[v2]` in a path is no style and `:cat:` no picture, so the markup of rich is off
everywhere, by this file alone. Tables go to standard output, everything that only a watching person needs goes to
standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

__all__ = ["Console", "bars", "plus_minus", "progress", "say", "table", "to_stderr", "to_stdout", "waiting"]


def to_stdout(width: int | None = None) -> Console:
    """A console on standard output that prints text as it is. `width`: in columns; default: the terminal's, or 80."""
    return Console(width=width, markup=False, emoji=False, highlight=False)


def to_stderr() -> Console:
    """The same on standard error."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def say(out: Console, text: str) -> None:
    """Print lines as they are, neither styled nor broken."""
    out.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def table(*heads: str, title: str | None = None) -> Table:
    """An empty table with these column heads, without lines."""
    return Table(*heads, title=title, box=None, header_style="bold", padding=(0, 2, 0, 0))


def plus_minus(value: float | None, stderr: float | None = None) -> str:
    """A number to the precision that its standard error deserves, 0.9423 ± 0.0021; four digits without one."""
    if value is None:
        return ""
    if not stderr or not math.isfinite(stderr):
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"


@contextmanager
def waiting(out: Console, what: str) -> Iterator[None]:
    """A turning wheel with a word on what takes time, on a terminal."""
    with out.status(Text(what)):
        yield


class _Note(ProgressColumn):
    """The end of a bar: the first to be cut where a terminal is narrow."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


def bars(out: Console, unit: str = "steps", shown: bool = True) -> Progress:
    """Progress bars with the time left, on a terminal; tasks take a `note`, which stands at the end."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(20), MofNCompleteColumn(), TextColumn(unit))
    columns += (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*columns, _Note(Column()), console=out, transient=True, disable=not (shown and out.is_terminal))


@contextmanager
def progress(what: str, out: Console, unit: str = "steps") -> Iterator[Callable[[int, int], None]]:
    """One progress bar; gives the function to call with (how many are done, of how many)."""
    with bars(out, unit) as display:
        task = display.add_task(what, total=None, note="")
        yield lambda done, total: display.update(task, completed=done, total=total)
