"""Columns of tables: the cells of a column become numbers, and say of which kind they are.

A column of words (a cell in every row, none of them a number) is coded 0, 1, ... in alphabetical order of its words;
any other is read as numbers, NaN where a cell is none. Readers and `prepare` refuse what cannot be used, with all of
its names; a column only says what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .discrete import discrete

LARGEST_VALUE = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table.

    Args:
        name: its name in the header; where there is none its number, counted from 1.
        values: its numbers (n,) float64; of a column of words their places in `words`.
        words: the distinct words in alphabetical order; () for a column of numbers.
    """

    name: str
    values: np.ndarray
    words: tuple[str, ...] = ()

    @classmethod
    def parse(cls, name: str, cells: Sequence[str]) -> Column:
        """The column of these cells (n,), as a file has them, without blanks around."""
        numbers = [parse_number(cell) for cell in cells]
        if cells and all(cells) and all(number is None for number in numbers):
            words = tuple(sorted(set(cells)))
            code = {word: i for i, word in enumerate(words)}
            return cls(name, np.array([code[cell] for cell in cells], np.float64), words)
        return cls(name, np.array([np.nan if number is None else number for number in numbers], np.float64))

    @property
    def label(self) -> str:
        """The column as messages call it."""
        return column_label(self.name)

    @property
    def unusable(self) -> np.ndarray:
        """The rows, counted from 0, whose value is no finite float32 number."""
        return np.flatnonzero(~(np.abs(self.values) <= LARGEST_VALUE))  # true for NaN too

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """The rising values that a discrete column takes; () for a continuous one."""
        return tuple(map(float, range(len(self.words)))) if self.words else discrete(self.values)

    @property
    def is_continuous(self) -> bool:
        """Whether its numbers change, and are not few."""
        return not self.levels and float(self.values.std()) > 1e-12 * abs(float(self.values.mean()))

    def kind(self, mean: float, std: float) -> str:
        """The kind of the column: "constant", "words", "discrete" (few values) or "continuous", which has a density.

        Args:
            mean: of the values of its training rows.
            std: of the same.
        """
        if std <= 1e-12 * np.abs(mean):
            return "constant"
        if self.words:
            return "words"
        return "discrete" if self.levels else "continuous"


def parse_number(cell: str) -> float | None:
    """The number that a cell holds; None where it holds none."""
    try:
        return float(cell)
    except ValueError:
        return None


def column_label(name: str) -> str:
    """A column as messages call it: its number, or its name in quotes."""
    return name if name.isdecimal() else repr(name)
