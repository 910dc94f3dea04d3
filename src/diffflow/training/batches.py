"""Batches: the examples of a training, in an order that needs no saving.

The k-th example of the whole training is a function of (seed, k), so a resumed training goes on where it was, and W
processes see what one process would see.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..data import Data
from ..data.augment import KINDS, augment
from ..data.conditions import MAPS, named
from ..equation.conditions import apply
from ..equation.noise import Noise
from ..models.base import TrainConfig
from ..models.settings.serialise import ConfigError
from ..objectives.base import Batch


class Batches:
    """Samples of the whole training by their numbers: every pass over the data is a fresh permutation.

    Args:
        data: what is learned from.
        seed: of the order, the flips, the places in cells and what `Data.augment` draws.
        device: where batches go.
        dequantise: spread discrete values over their cells; always done for columns with levels.
        augment: probability of each kind of change of pictures, of which the network is told (`data.augment`).
        kinds: which kinds; None: all.
    """

    def __init__(
        self,
        data: Data,
        seed: int,
        device: torch.device,
        dequantise: bool = False,
        augment: float = 0.0,
        kinds: Sequence[str] | None = None,
    ):
        self.data, self.noise, self.device = data, Noise(seed).fork("data"), device
        self.dequantise = dequantise or data.transform.spreads
        self.augment, self.kinds = augment, tuple(KINDS if kinds is None else kinds)
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
        x, told = x.to(self.device), None
        if self.augment:
            x, told = augment(x, self.augment, self.noise.shift(first).fork("changes"), self.kinds)
        return Batch(x, apply(lambda leaf: leaf.to(self.device), y), rows, told)


def training_batches(data: Data, config: TrainConfig, device: torch.device) -> Batches:
    """The batches of a training with these settings."""
    how = config.data
    return Batches(data, config.fit.seed, device, how.dequantise, how.augment, how.augment_by)


def refuse_cells(config: TrainConfig, meta: dict[str, Any]) -> None:
    """Raise ConfigError for bytes that are to be spread over their cells, where the model sees latents of them."""
    if "latent" in meta and config.data.dequantise:
        raise ConfigError(
            "data.dequantise = True spreads bytes over their cells for a density of them, and a density of latents is "
            "none of the data: leave it out, or train without a coder"
        )


def refuse_augmentation(config: TrainConfig, data: Data) -> None:
    """Raise ConfigError for an augmentation that these data, or this family of models, cannot have."""
    p, kinds = config.data.augment, config.data.augment_by or tuple(KINDS)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"data.augment_by = {unknown[0]!r} is no kind of change: give some of {', '.join(KINDS)}")
    if not 0 <= p <= 1:
        raise ConfigError(f"data.augment = {p} is the probability of each kind of change: give a number in [0, 1]")
    adapted = getattr(getattr(config, "game", None), "augment", 0.0)
    if not (p or adapted):
        return
    setting = f"data.augment = {p}" if p else f"game.augment = {adapted}"
    if adapted and not config.adapts:
        raise ConfigError(f"{setting}: of the games only GANs' are played with augmentation; leave it at 0")
    if p and not config.augments:
        raise ConfigError(
            f"{setting}: {type(config).__name__} is not told how pictures were changed, and its samples would be "
            "changed too; leave it at 0 (GANs have game.augment)"
        )
    if data.kind != "image" or data.space is not None:
        what = "latents" if data.space is not None else f"{data.kind}s"
        raise ConfigError(f"{setting} turns and moves pictures, and the model of these data sees {what}: leave it at 0")
    if any(c.kind in MAPS for _, c in named(data.conditions)):
        raise ConfigError(
            f"{setting} turns the examples, and not the pictures that they are conditioned on: leave it at 0"
        )
