"""What a reader hands over, before a split is taken and anything is measured (prepare.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .schema import ColumnSpec


@dataclass(frozen=True)
class Raw:
    """What a reader hands over: the examples as it read them.

    Args:
        x: uint8 (n, c, h, w), or floating point (n, d); signals (n, c, l) and volumes (n, c, d, h, w) of any numbers.
        y: labels, integers or strings (n,); None without labels.
        classes: the names in label order; None: the sorted distinct labels name themselves.
        test: mask (n,) of the test rows; None: the source has no split of its own.
        notes: what the reader had to decide or convert, one sentence each.
        columns: tables: the names of the d columns; None where they have none.
        names: tables: by the place of a column of words, the words that its codes 0, 1, ... stand for.
        kind: what an example is: "image", "signal", "volume" or "vector"; None: as its axes say.
        own: whether nobody else has x, so that its rows may be moved instead of copied.
        schema: tables read by columns: all of the source, in its order; x are the codes of the modelled ones.
    """

    x: np.ndarray
    y: np.ndarray | None = None
    classes: list[str] | None = None
    test: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    names: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    kind: str | None = None
    own: bool = False
    schema: tuple[ColumnSpec, ...] = ()
