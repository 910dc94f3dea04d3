"""Errors about data."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used.

    Args:
        message: what is wrong, and what to do.
        problems: every bad file, row or column, not just the first one.
        show: how many of them the message shows; None: all.

    Attributes:
        problems: the same, as a tuple.
    """

    def __init__(self, message: str, problems: list[str] | tuple[str, ...] = (), show: int | None = None):
        self.problems = tuple(problems)
        shown = self.problems[:show]
        more = [f"... and {len(self.problems) - len(shown)} more"] if len(shown) < len(self.problems) else []
        super().__init__("\n  ".join([message, *shown, *more]))
