"""Unlikely cells: which column makes a row improbable to a model.

Log-probabilities of words and log-densities of numbers, each in its units, are not to be compared with each other. So a
cell is judged by how far it lies below what is usual in its column: the median over rows that the model knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .columns import Codes, Schema, as_codes, modelled, shown


@dataclass(frozen=True)
class UnlikelyCell:
    """A cell that is less likely than usual.

    Args:
        row: its place, from 0.
        column: its name.
        value: as the file writes it.
        nats: log-probability of a word, log-density of a number, given the other columns as the model decomposes it.
        below: nats below the column's median.
    """

    row: int
    column: str
    value: str
    nats: float
    below: float

    def __str__(self) -> str:
        return f"row {self.row + 1}: {self.column} = {self.value}, {self.below:.1f} nats below what is usual there"


def unlikely_cells(
    schema: Schema, x: Codes, nats: Codes, reference: Codes | None = None, *, count: int = 10, each: int | None = None
) -> list[UnlikelyCell]:
    """Find the cells that make rows unlikely, the worst first.

    Args:
        schema: the columns.
        x: rows, codes (n, d).
        nats: what each cell adds to the log-probability of its row (n, d).
        reference: the same of rows that are usual (m, d), such as those of training; None: these rows themselves.
        count: how many cells, of all rows.
        each: most cells of one row; None: any number.

    Raises:
        ValueError: for nats of another shape than the rows, or not a number.
    """
    columns, x = modelled(schema), as_codes(schema, x)
    nats = np.asarray(nats, dtype=np.float64)
    usual = nats if reference is None else np.asarray(reference, dtype=np.float64)
    if nats.shape != x.shape or usual.shape[1:] != x.shape[1:] or not len(usual):
        raise ValueError(f"rows {x.shape} need a value for each cell: got {nats.shape} and reference {usual.shape}")
    if np.isnan(nats).any() or np.isnan(usual).any():
        raise ValueError(f"{int(np.isnan(nats).sum())} of the nats are no numbers: leave out these rows")
    below = np.median(usual, axis=0) - nats
    found: list[UnlikelyCell] = []
    taken = np.zeros(len(x), dtype=int)
    for place in np.argsort(-below, axis=None, kind="stable"):
        row, k = divmod(int(place), x.shape[1])
        if len(found) == count or not below[row, k] > 0:
            break
        if each is None or taken[row] < each:
            taken[row] += 1
            cell = shown(columns[k], x[row, k])
            found.append(UnlikelyCell(row, columns[k].name, cell, float(nats[row, k]), float(below[row, k])))
    return found


def cell_lines(cells: Sequence[UnlikelyCell]) -> list[str]:
    """Unlikely cells as lines of text."""
    return [str(cell) for cell in cells]
