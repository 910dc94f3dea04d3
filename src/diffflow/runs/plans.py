"""Sampling plans of a run: for which dials they can be made, and how far samples are from the fine solution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..equation.noise import Noise
from ..equation.sde import DiffFlow
from ..models.base import TrainConfig
from ..models.settings.common import Dials
from ..sampling.plan import Plan
from ..sampling.sample import sample
from ..sampling.teacher import Teacher, default_starts
from ..training.run_folder import Folder

STARTS = 256  # that plans are fitted to, at most: networks are dear


def plannable_sde(
    config: TrainConfig, players: Mapping[str, nn.Module], data: Mapping[str, Any], dials: Dials, path: Path
) -> DiffFlow:
    """The equation that a plan for these dials is made for.

    Raises:
        ValueError: it follows no noise schedule, or its discriminator knows the particles of its own solver only.
    """
    sde = config.sde(players, data, dials)
    if not sde.on_schedule:
        raise ValueError(f"{path} follows no noise schedule: there is nothing for a plan to go along")
    if own_solver(config, dials):
        raise ValueError(
            f"gan = {dials.gan:g}: this discriminator knows the particles of its own solver only, and a plan would "
            "move them otherwise. Calibrate gan = 0"
        )
    return sde


def own_solver(config: TrainConfig, dials: Dials) -> bool:
    """Whether these dials use a discriminator that knows the particles of its own solver only."""
    return dials.gan != 0 and config.solver(dials) is not None


def fine_starts(sde: DiffFlow, n: int | None, noise: Noise) -> Tensor:
    """Starts (n, *shape) that are solved finely. Raises ValueError for an equation without a start.

    Args:
        sde: what is solved.
        n: how many; None: 128 to 256, more of smaller things.
        noise: streams, one a start.
    """
    if sde.start is None:
        raise ValueError("this equation has no start: there is nothing to solve from")
    count = min(default_starts(sde.start.shape), STARTS) if n is None else n
    return sde.start.sample(count, noise.fork("start"))


@torch.no_grad()
def deviation(run: Any, teacher: Teacher, dials: Dials | None = None, plan: Plan | None = None) -> float:
    """Median distance of samples from the teacher's starts to its answers, per root dimension, in model units.

    Args:
        run: the run.
        teacher: fine solutions, without churn.
        dials: how the samples are drawn; default: the run's own.
        plan: by which plan; None: by the default solver.
    """
    asked: Dials = dials or run.dials
    sde: DiffFlow = run._calibrated(asked)
    assert sde.schedule is not None
    x = teacher.y[0] * sde.schedule.scale(0.0).item()
    cond = run._turn(teacher.y.shape[1])
    x = sample(sde, x, asked.steps, plan=plan, noise=Noise(0), cond=cond).last
    return (x - teacher.at(0.0)).flatten(1).square().mean(1).sqrt().median().item()


def find_quality(name: str, folder: Folder, weights: str, generator: bool) -> tuple[Dials, bool]:
    """Dials, and whether by their plan, that `diffflow frontier` found for a quality.

    Args:
        name: "fast", "balanced" or "best".
        folder: of the run.
        weights: which weights they must be of (`Run.weights`).
        generator: whether the run is a generator.

    Raises:
        ValueError: the frontier has not been swept for these weights, or has no such quality.
    """
    kept = folder.qualities(weights)
    if name in kept:
        return kept[name]
    if kept:
        raise ValueError(f"{folder.path} has no quality {name!r}; it has {', '.join(kept)}")
    if generator:
        raise ValueError(f"{folder.path} is a generator: it draws in one way, no quality to choose")
    raise ValueError(f"{folder.path} has no qualities for these weights: run `diffflow frontier {folder.path}`")
