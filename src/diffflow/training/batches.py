"""Batches: the examples of a training, in an order that needs no saving.

The k-th example of the whole training is a function of (seed, k), so a resumed training goes on where it was, and W
processes see what one process would see.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..data import Data
from ..equation.conditions import apply
from ..equation.noise import Noise
from ..objectives.base import Batch


class Batches:
    """Samples of the whole training by their numbers: every pass over the data is a fresh permutation.

    Args:
        data: what is learned from.
        seed: of the order, the flips, the places in cells and what `Data.augment` draws.
        device: where batches go.
        dequantise: spread discrete values over their cells; always done for columns with levels.
    """

    def __init__(self, data: Data, seed: int, device: torch.device, dequantise: bool = False):
        self.data, self.noise, self.device = data, Noise(seed).fork("data"), device
        self.dequantise = dequantise or bool(data.transform.levels)
        self.order = lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> Tensor:
        return self.noise.fork("order", epoch).uniform(len(self.data), dtype=torch.float64).argsort(stable=True)

    def rows(self, first: int, n: int) -> Tensor:
        """Rows of the data that samples first ... first + n - 1 show, int64 (n,)."""
        size, rows = len(self.data), []
        while n:
            epoch, at = divmod(first, size)
            rows.append(self.order(epoch)[at : at + n])
            first, n = first + len(rows[-1]), n - len(rows[-1])
        return torch.cat(rows)

    def augment_seed(self, first: int) -> int:
        """Seed of what `Data.augment` draws for the batch that begins with sample `first`."""
        return int(self.noise.fork("augment").shift(first).uniform(1, dtype=torch.float64) * 2**53)

    def __call__(self, first: int, n: int) -> Batch:
        """Samples first ... first + n - 1, in model units, on the device."""
        rows = self.rows(first, n)
        flips = self.noise.shift(first).fork("flip").uniform(n) < 0.5 if self.data.flip else None
        cells = self.noise.shift(first).fork("cells").uniform(n, self.data.shape) if self.dequantise else None
        changes = None if self.data.augment is None else self.augment_seed(first)
        x, y = self.data.batch(rows, flips, cells, changes)
        return Batch(x.to(self.device), apply(lambda leaf: leaf.to(self.device), y), rows)
