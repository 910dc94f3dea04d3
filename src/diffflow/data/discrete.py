r"""Discrete values as cells of the line, which a density can model (docs/theory/derivations.md, section 5.3).

A column that takes the levels v_1 < ... < v_K has a probability for each, and no density. Every level owns the cell up
to the middles between it and its neighbours (the outer cells are as wide as their inner halves say), and a value is
spread evenly over its cell,

    x = e_k + u w_k,  u ~ U[0, 1),            log P(v_k) = log int_cell p >= E_u log p(x) + log w_k        (Jensen)

so that a density over x gives a lower bound of the probability, and samples are read back by the cell they fall into.

Shapes: any; levels (k,).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """The cells of the line that the levels of a discrete quantity stand for.

    Args:
        levels: the values that it takes, rising.

    Raises:
        ValueError: fewer than two levels, or levels that do not rise.
    """

    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.levels) < 2 or not (np.diff(self.levels) > 0).all():
            raise ValueError(f"levels must be at least two rising numbers, got {self.levels[:8]}")

    @cached_property
    def _levels(self) -> Tensor:
        return torch.tensor(self.levels, dtype=torch.float64)

    @cached_property
    def edges(self) -> Tensor:
        """The edges of the k cells, rising, (k + 1,) float64."""
        v = self._levels
        middle = 0.5 * (v[1:] + v[:-1])
        return torch.cat([(2 * v[:1] - middle[:1]), middle, (2 * v[-1:] - middle[-1:])])

    def index(self, x: Tensor) -> Tensor:
        """The number of the cell that each value falls into, int64; beyond the ends, of the outer cells."""
        inner = self.edges[1:-1].to(x.device)
        return torch.bucketize(x.double().contiguous(), inner, right=True)

    def is_level(self, x: Tensor) -> Tensor:
        """Whether each value is a level, rounded to float32."""
        return self._levels.to(x.device)[self.index(x)].float() == x.float()

    def widths(self, x: Tensor) -> Tensor:
        """The widths of the cells that values fall into, float64."""
        return self.edges.diff().to(x.device)[self.index(x)]

    def dequantise(self, x: Tensor, u: Tensor | None) -> Tensor:
        """Spread values over their cells.

        Args:
            x: values, of any shape.
            u: how far through its cell each is put, numbers in [0, 1) of the same shape; None: on its level.

        Returns:
            float64, of the same shape.
        """
        k = self.index(x)
        if u is None:
            return self._levels.to(x.device)[k]
        edges = self.edges.to(x.device)
        below = torch.nextafter(edges[1:], edges[:-1])  # the sum may round up to the edge, which is the next cell's
        return torch.minimum(torch.lerp(edges[k], edges[k + 1], u.double()), below[k])

    def snap(self, x: Tensor) -> Tensor:
        """The levels of the cells that values fall into, float64."""
        return self._levels.to(x.device)[self.index(x)]


def discrete(x: np.ndarray, repeats: float = 10.0) -> tuple[float, ...]:
    """The levels of a column of few values.

    Args:
        x: the values of the column, (n,).
        repeats: how many times each value is met on average, at least, where they are few.

    Returns:
        The distinct values, rising; () for a continuous or a constant column.
    """
    levels = np.unique(x)
    return tuple(levels.tolist()) if 2 <= len(levels) <= len(x) / repeats else ()
