"""Columns of tables: what each holds, and how its file writes it.

A column is decided as a whole, never cell by cell: one word makes it words, few numbers are levels, all whole numbers
integers. `ColumnSpec.parse` turns the cells of a file into codes (float64, NaN for a gap) and `write` turns them back,
exactly. What a float64 cannot hold as it is written (17 digits, "00501", "12E4") is words or an identifier.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from .column_styles import NumberStyle
from .columns import column_label
from .date_styles import DateStyle, date_style
from .errors import DataError

KINDS = ("words", "levels", "integer", "number", "date", "constant", "identifier", "dropped")
MODELLED = KINDS[:5]
WIDEST = 48  # characters of a cell in the table of decisions
GAPS = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "?", "NULL", "null")  # gaps in any column
NUMBER_GAPS = (*GAPS, "NaN", "nan", "NAN", "NaT", "None", "none", "na", "-", "--", ".")  # words in a column of words


@dataclass(frozen=True)
class ColumnSpec:
    """What a column of a table holds, and how its file writes it.

    Args:
        name: of the header; its number from 1 where there is none.
        kind: one of `KINDS`: words, levels (few numbers), integer, number and date are modelled.
        words: words: the distinct ones in natural order.
        values: levels: the numbers (of dates days or seconds, as below) that it takes, rising.
        texts: levels: how the file writes each of them; () as numbers of these decimals.
        decimals: digits after the point (of dates: of a second); -1: as many as a number takes.
        low: of numbers and dates: the smallest of the file; of identifiers of numbers the first.
        high: the largest.
        gap: how the file writes a gap, such as "" or "NA"; None: it has none.
        style: of numbers a `NumberStyle`, of dates a format; of words "bool" or "ordered" where a data frame says so.
        content: constant: what stands there; identifier: its pattern, such as "C{:05d}" or "uuid", "" for blank cells;
            words: the word that stands for rare ones, "" where there is none.
        why: the decision in a few words.
        step: numbers, integers and dates: the values lie on low + k step; 0: anywhere.
    """

    name: str
    kind: str
    words: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()
    decimals: int = 0
    low: float = 0.0
    high: float = 0.0
    gap: str | None = None
    style: str = ""
    content: str = ""
    why: str = ""
    step: float = 0.0

    @property
    def modelled(self) -> bool:
        """Whether a model learns the column."""
        return self.kind in MODELLED

    @property
    def label(self) -> str:
        """The column as messages call it."""
        return column_label(self.name)

    @property
    def is_date(self) -> bool:
        """Whether its codes are days or seconds since 1970-01-01."""
        return self.kind == "date" or (self.kind == "levels" and "%" in self.style and "=" not in self.style)

    @property
    def in_seconds(self) -> bool:
        """Whether the codes of dates count seconds, not days."""
        return self.is_date and self._date.has_time

    @cached_property
    def _date(self) -> DateStyle:
        return date_style(self.style)

    @cached_property
    def _number(self) -> NumberStyle:
        return NumberStyle.from_text(self.style)

    @cached_property
    def _places(self) -> dict[str, float]:
        """The codes of cells by what stands there: words, or levels as the file writes them."""
        if self.kind == "levels":
            return dict(zip(self.texts, self.values, strict=False))
        return {word: float(k) for k, word in enumerate(self.words)}

    def is_gap(self, cell: str) -> bool:
        """Whether a cell, without blanks around, is a gap: how the file writes one, or as gaps are usually written."""
        return cell == self.gap or (cell in NUMBER_GAPS and cell not in self._places)

    def number(self, cell: str) -> float | None:
        """The code of a cell, which need not occur in the file: a number, date or the place of a word; None: none."""
        if self.kind == "words":
            return self._places.get(cell, self._places.get(self.content) if self.content else None)
        if cell in self._places:
            return self._places[cell]
        return self._date.read(cell) if self.is_date else self._number.read(cell)

    def parse(self, cells: Sequence[str], rows: Sequence[int] | None = None) -> np.ndarray:
        """The codes of cells.

        Args:
            cells: of the column, n of them; a usual sign of a gap is one, whether or not the file of the model had any.
            rows: their numbers in messages; None: from 1.

        Returns:
            float64 (n,): places in `words`; numbers; of dates days, with a time seconds, since 1970-01-01. NaN: a gap.

        Raises:
            DataError: words, levels or cells that the column does not know, row by row.
        """
        codes, problems = self.parse_all(cells, rows)
        if problems:
            raise DataError(f"column {self.label}: {len(problems)} cells that cannot be used:", problems, show=20)
        return codes

    def parse_all(self, cells: Sequence[str], rows: Sequence[int] | None = None) -> tuple[np.ndarray, list[str]]:
        """The codes of cells as `parse` gives them, and what is wrong with each that has none."""
        if not self.modelled:
            raise DataError(f"column {self.label} is {self.kind}: a model does not learn it")
        cells = [cell.strip() for cell in cells]
        code: dict[str, float] = {}
        wrong: dict[str, str] = {}
        known = set(self.values)
        for cell in dict.fromkeys(cells):
            value = None if self.is_gap(cell) else self.number(cell)
            code[cell] = math.nan if value is None else value
            if value is not None and self.kind == "levels" and value not in known:
                wrong[cell] = "is not among the levels"
            elif value is not None and self.kind == "integer" and not value.is_integer():
                wrong[cell] = "is no whole number"
            elif value is None and not self.is_gap(cell):
                wrong[cell] = {"words": "is not among the words", "date": f"is no date {self.style}"}.get(
                    self.kind, "is not among the levels" if self.kind == "levels" else "is no number of its form"
                )
        problems = []
        if wrong:
            number = rows or range(1, len(cells) + 1)
            problems = [
                f"row {number[i]}, column {self.label}: {cell!r} {wrong[cell]}"
                for i, cell in enumerate(cells)
                if cell in wrong
            ]
        return np.array([code[cell] for cell in cells], np.float64), problems

    def write(self, codes: np.ndarray) -> list[str]:
        """The cells of codes (n,) as the file writes them, numbers rounded to its decimals; NaN as its gaps."""
        codes = np.asarray(codes, np.float64)
        values, places = np.unique(codes, return_inverse=True)  # NaNs are one value
        texts = [self._write(v) if not math.isnan(v) else self.gap or "" for v in values.tolist()]
        return [texts[k] for k in places.tolist()]

    def _write(self, value: float) -> str:
        """One cell."""
        if self.kind == "words":
            return self.words[min(max(round(value), 0), len(self.words) - 1)]
        if self.kind == "levels" and self.texts:
            place = int(np.abs(np.array(self.values) - value).argmin())
            if self.values[place] == value:
                return self.texts[place]
        if self.is_date:
            return self._date.write(value, self.decimals)
        return self._number.write(value, self.decimals)

    def snap(self, codes: np.ndarray, clip: bool = True) -> np.ndarray:
        """The nearest codes that the column could hold: words and levels that it has, numbers on its grid.

        Args:
            codes: float64 (n,); NaN stays.
            clip: move numbers and dates into the range of the file.
        """
        codes = np.asarray(codes, np.float64)
        if self.kind == "words":
            return np.clip(np.rint(codes), 0, len(self.words) - 1)
        if self.kind == "levels":
            values = np.array(self.values)
            codes = np.where(np.isnan(codes), np.nan, values[np.searchsorted((values[1:] + values[:-1]) / 2, codes)])
        elif clip:
            codes = np.clip(codes, self.low, self.high)
        if self.kind in ("integer", "number", "date"):
            if self.step:
                codes = self.low + np.rint((codes - self.low) / self.step) * self.step
            digits = self.decimals if self.decimals >= 0 else round(-math.log10(self.step)) if self.step else None
            if digits is not None:  # the float64 that is written so
                codes = np.round(codes, digits)
        return codes

    def made(self, n: int, first: int = 0) -> list[str]:
        """Cells of a column that is not modelled: a constant, or identifiers made anew, none of them of the file.

        Args:
            n: rows.
            first: number of the first row.
        """
        if self.kind == "constant" or ("{" not in self.content and self.content != "uuid"):
            return [self.content if self.kind == "constant" else ""] * n
        if self.content == "uuid":
            return [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name}/{i}")) for i in range(first, first + n)]
        start = int(self.low) if self.style == "running" else int(self.high) + 1
        return [self.content.format(start + i) for i in range(first, first + n)]

    def to_meta(self) -> dict[str, Any]:
        """The spec, JSON-able (`from_meta`)."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in said.items()
            if name in ("name", "kind") or value not in ((), "", None, 0)
        } | ({"gap": ""} if self.gap == "" else {})

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> ColumnSpec:
        """The spec that `to_meta` wrote."""
        said: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in meta.items()}
        return cls(**said)


def described(schema: Sequence[ColumnSpec], most: int = 36) -> list[str]:
    """The decisions about the columns of a table as the lines of a table.

    Args:
        schema: the columns.
        most: columns that have a line of their own; the others are counted by kind.
    """
    rows = [("column", "kind", "levels or range", "gaps", "why"), *(_described(spec) for spec in schema[:most])]
    rows = [(*(c if len(c) <= WIDEST else f"{c[: WIDEST - 3]}..." for c in row[:4]), row[4]) for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
    if rest := schema[most:]:
        kinds = [spec.kind for spec in rest]
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds)
        lines.append(f"and {len(rest)} more: {counted}")
    return lines


def _described(spec: ColumnSpec) -> tuple[str, str, str, str, str]:
    """The line of a column."""
    if spec.kind == "words":
        what = f"{len(spec.words)}: {', '.join(spec.words)}"
    elif spec.kind == "levels":
        what = f"{len(spec.values)}: {', '.join(spec.write(np.array(spec.values)))}"
    elif spec.modelled:
        what = " to ".join(spec.write(np.array([spec.low, spec.high])))
    else:
        what = {"constant": repr(spec.content), "identifier": spec.content or "left blank"}.get(spec.kind, "left out")
    return spec.name, spec.kind, what, "" if spec.gap is None else repr(spec.gap), spec.why
