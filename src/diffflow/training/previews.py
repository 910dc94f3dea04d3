"""Previews of a training: what its players draw now, always from the same noise, and which modes those samples reach.

Drawing must leave no trace in what is being trained: the weights after a run do not depend on how often it was looked
at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..data import Data
from ..data.conditions import encode
from ..equation.conditions import Cond, apply
from ..equation.laws import GaussianMixture
from ..equation.noise import Noise
from ..metrics.modes import modes
from ..models.base import TrainConfig
from ..networks.denoiser import Denoiser
from .state import TrainingState


def grid_sampler(
    training: TrainingState, config: TrainConfig, data: Data, device: torch.device, at_once: int | None = None
) -> Callable[[], Tensor]:
    """A function that draws the samples of the preview grid, always from the same noise.

    Drawing leaves no trace in the players: a layer that follows what passes through it while training (the power
    iteration of spectral normalisation) stands still.

    Args:
        training: the players, which draw as they are when the function is called.
        config: how they draw.
        data: what is learned.
        device: where the players are.
        at_once: samples that are drawn at a time, where memory is short; None: all.

    Returns:
        () -> decoded samples (n, *shape) on the CPU: 512 vectors, or 40 of another kind (`grid_conditions`).
    """
    n = 512 if data.kind == "vector" else 40
    noise, meta = Noise(0).fork("grid"), data.meta()
    modules = {name: player.module for name, player in training.players.items()}
    cond = grid_conditions(modules, data, n, device)

    @torch.no_grad()
    def draw() -> Tensor:
        with evaluating(modules.values()):
            return torch.cat([part(first) for first in range(0, n, at_once or n)])

    def part(first: int) -> Tensor:
        m = min(at_once or n, n - first)
        told = apply(lambda leaf: leaf[first : first + m], cond)
        return data.decode(config.draw(modules, meta, m, config.dials, told, noise.shift(first)).last.cpu())

    return draw


def grid_conditions(modules: Mapping[str, nn.Module], data: Data, n: int, device: torch.device) -> Cond:
    """What the samples of the grid are conditioned on: each of the first ten classes in turn, or rows of the data."""
    denoiser = modules.get("denoiser")
    if isinstance(denoiser, Denoiser) and not denoiser.conditional:
        return None
    if data.conditions is not None:
        return apply(lambda leaf: leaf.to(device), encode(data.conditions, data.sample_conditions(n)))
    if data.y is None or not data.classes:
        return None
    seen = data.y.unique()[:10].to(device)  # sorted; a class without examples is skipped
    return seen[torch.arange(n, device=device) % len(seen)]


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode, and every part of them back into its own mode afterwards."""
    modes = {part: part.training for module in modules for part in module.modules()}
    for part in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def mode_counter(data: Data) -> Callable[[Tensor], dict[str, float]] | None:
    """For a toy of well separated modes a function of samples (n, d), else None.

    It gives `modes`, the share of modes that the samples reach, and `within`, the share of samples that lie in one.
    """
    law = data.law
    if not isinstance(law, GaussianMixture) or len(law.means) > 64:  # finer mixtures draw curves
        return None

    def count(x: Tensor) -> dict[str, float]:
        reached, within = modes(x, law)
        return {"modes": reached.value / len(law.means), "within": within.value}

    return count
