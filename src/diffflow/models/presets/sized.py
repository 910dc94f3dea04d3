"""Presets by model, sized to a budget: what `budget` is for the denoiser, for games, flows and generators of pictures.

A pure function of facts and costs, like it: `runs.fitted` climbs the ladder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..base import TrainConfig
from .base import BY_MODEL
from .budget import Budget, Machine, Pictures, batch_line, closing, pace
from .scales import of_pictures

LEAST_BATCH = 16  # below it the gradients of a game are noise


def settings(name: str, pictures: Pictures, rung: str, machine: Machine, batch: int | None = None) -> TrainConfig:
    """The settings of a preset by model on a rung of the ladder.

    Args:
        name: a key of BY_MODEL.
        pictures: what is learned.
        rung: a key of `budget.RUNGS`.
        machine: where it is trained.
        batch: samples per step, where the preset leaves it to the scale; None: as many as the machine likes.
    """
    return BY_MODEL[name](of_pictures(pictures, rung, machine, batch)).config


def reasons(
    pictures: Pictures,
    budget: Budget,
    config: TrainConfig,
    cost: tuple[float, float],
    parameters: Mapping[str, int],
) -> list[str]:
    """Why the settings are what they are, a sentence for each.

    Args:
        pictures: what is learned.
        budget: what the training may take.
        config: the settings.
        cost: seconds of the clock and of the processor for a step.
        parameters: numbers that are learned, by player.
    """
    steps, each = pace(budget, cost)
    nets = ", ".join(f"{player} {count:,} weights" for player, count in parameters.items())
    rates = ", ".join(f"{name} {player.lr:g}" for name, player in config.players().items())
    return [
        f"net     {nets}: about {steps:,.0f} steps of {each} in the budget; wider ones are tried as long as "
        f"{config.least_steps:,} fit",
        batch_line(pictures, config.fit, steps),
        f"rate    {rates}, up and then down to zero at the end of the budget",
        *closing(config.data, config.fit),
    ]


def unfit(budget: Budget, config: TrainConfig, cost: tuple[float, float]) -> str:
    """Why the model will be poor with this budget, and what to do; "" where it need not be.

    Args:
        budget: what the training may take.
        config: the settings.
        cost: seconds of the clock and of the processor for a step.
    """
    steps, least = budget.steps_at(*cost), config.least_steps
    why = config.unfit(steps)
    if not why:
        return ""
    more = f"--minutes {math.ceil(least * cost[0] / 60)}"
    if budget.minutes is None:
        more = f"--steps {least}" if budget.by_steps else f"--cpu-minutes {math.ceil(least * cost[1] / 60)}"
    needed = "" if steps >= least else f"give it {more} or more, or "
    other = "train a denoiser (no --preset), and where samples must be fast `diffflow distill` it"
    return f"unfit   {why}: {needed}{other}"
