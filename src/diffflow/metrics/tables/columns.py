"""Columns of a table as its metrics see them: codes x float64 (n, d), words as their places, NaN for a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.float64]

CATEGORIES = ("words", "levels")


class Column(Protocol):
    """What metrics ask of a column; a `ColumnSpec` has it."""

    @property
    def name(self) -> str:
        """Of the header."""
        ...

    @property
    def kind(self) -> str:
        """What it holds: "words", "levels", "integer", "number" or "date"."""
        ...

    @property
    def decimals(self) -> int:
        """Digits after the point in the file; -1: as many as a number takes."""
        ...

    @property
    def modelled(self) -> bool:
        """Whether a model learns it."""
        ...

    def write(self, codes: Codes) -> list[str]:
        """Codes (n,) as the file writes them."""
        ...


Schema = Sequence[Column]


def modelled(schema: Schema) -> tuple[Column, ...]:
    """The columns that codes stand for."""
    return tuple(spec for spec in schema if spec.modelled)


def is_category(spec: Column) -> bool:
    """Whether values of a column are only equal or different."""
    return spec.kind in CATEGORIES


def shown(spec: Column, code: float) -> str:
    """A cell as messages call it."""
    return "a gap" if np.isnan(code) else spec.write(np.array([code]))[0]


def as_codes(schema: Schema, rows: Codes, name: str = "rows") -> Codes:
    """Rows as float64 (n, d), each number rounded to the decimals that its file has, so that equal cells are equal.

    Args:
        schema: the columns; those that are not modelled have no codes.
        rows: codes (n, d).
        name: what messages call the rows.

    Raises:
        ValueError: for no rows, another number of columns, and infinite values.
    """
    columns = modelled(schema)
    x = np.array(rows, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != len(columns) or not x.size:
        raise ValueError(
            f"the {name} have shape {x.shape}: give (n, {len(columns)}), the codes of the columns that a model "
            "learns, a row at least"
        )
    if len(bad := np.argwhere(np.isinf(x))):
        row, k = bad[0]
        raise ValueError(
            f"{len(bad)} cells of the {name} are infinite, the first in row {row}, column {columns[k].name!r}: a gap "
            "is NaN; leave out others"
        )
    for k, spec in enumerate(columns):
        if not is_category(spec) and spec.decimals >= 0:
            with np.errstate(over="ignore", invalid="ignore"):
                rounded = np.round(x[:, k], spec.decimals)
            x[:, k] = np.where(np.isfinite(rounded), rounded, x[:, k])
    return x + 0.0  # no -0.0, so that equal cells have equal bytes


def thinned(rows: Codes, n: int, rng: np.random.Generator) -> Codes:
    """Draw n rows without replacement, in random order; all of them where there are fewer."""
    return rows[rng.permutation(len(rows))[:n]]
