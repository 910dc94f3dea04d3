"""Settings for a budget: the best denoiser of pictures that so many minutes, on this machine, can train.

    pictures (how many, of what size)  +  budget (minutes, or steps)  +  speed (seconds a step)  ->  settings

This is a pure function with its reasons in words; who measures the speed is `training.speed_probe`, and who asks it is
`runs.fitted`. What it rests on: a net on places of 2 x 2 pixels sees three times as many pictures a minute as one on
pixels; one convolution a block is as good as two; Muon pays for its cost from the first minute on; rates that fall to
zero with the budget are worth more than any average; of two nets the wider one wins where it gets thousands of steps,
the more the wider it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ...objectives.score_matching import EDMWeighting
from ..base import TrainConfig
from ..diffusion import ModelConfig, SamplingConfig, ScoreConfig
from ..settings.common import DataConfig, FitConfig, PlayerConfig
from ..settings.networks import FastUNetConfig

MINUTES = 30.0  # where nobody says it
ENOUGH = 12_000  # steps that the second rung needs to be worth its cost, and each further one GROWTH times as many:
GROWTH = 3  # twice the weights want about four times the time. After 15 minutes S was still a little ahead of M
STEADY = "M"  # the rung where the budget is of steps
RUNGS: dict[str, tuple[int, ...]] = {  # widths, from narrow to wide
    "S": (32, 64, 96),
    "M": (48, 96, 128),
    "L": (64, 128, 192),
    "XL": (96, 192, 256),
    "XXL": (128, 256, 384),
    "XXXL": (192, 384, 512),
}
PRECISIONS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
ON_PROCESSOR = ("S", "M", "L", "XL")
ON_ACCELERATOR = ("L", "XL", "XXL", "XXXL")


@dataclass(frozen=True)
class Pictures:
    """What a choice of settings depends on in the data.

    Args:
        count: how many pictures are learned from.
        shape: (channels, height, width).
        classes: how many classes, 0 for none.
        std: standard deviation of all pixels in model units.
    """

    count: int
    shape: tuple[int, int, int]
    classes: int = 0
    std: float = 0.5

    @property
    def side(self) -> int:
        """The longer side in pixels."""
        return max(self.shape[1:])


@dataclass(frozen=True)
class Budget:
    """What a training may take.

    Args:
        minutes: of the clock; None: no limit.
        cpu_minutes: of the processor; None: no limit.
        steps: steps; None: no limit.
    """

    minutes: float | None = None
    cpu_minutes: float | None = None
    steps: int | None = None

    @property
    def by_steps(self) -> bool:
        """Whether it says nothing of time, so that settings must not depend on the machine."""
        return self.minutes is None and self.cpu_minutes is None

    @property
    def least(self) -> float:
        """Minutes of whichever clock ends first; inf where there is no budget of time."""
        return min((m for m in (self.minutes, self.cpu_minutes) if m is not None), default=math.inf)

    def steps_at(self, wall: float, cpu: float) -> float:
        """Steps that it suffices for; inf without any limit.

        Args:
            wall: seconds of the clock for a step.
            cpu: seconds of the processor for a step.
        """
        by_clock = math.inf if self.minutes is None else 60 * self.minutes / wall
        by_processor = math.inf if self.cpu_minutes is None else 60 * self.cpu_minutes / cpu
        return min(by_clock, by_processor, math.inf if self.steps is None else self.steps)


@dataclass(frozen=True)
class Machine:
    """Where a training runs.

    Args:
        accelerator: whether it is a GPU.
        precision: arithmetic of the network, the faster one here.
    """

    accelerator: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"


def stem_of(side: int) -> int:
    """Side in pixels of a place of the net's grid, which keeps it at about 16 x 16 places; 1 for tiny pictures."""
    return 1 if side <= 12 else 2 if side <= 40 else 4 if side <= 96 else 8


def kept_aside(count: int, classes: int = 0) -> float:
    """Share of so many pictures that is kept aside, to judge by: 256 of them or a twentieth; none of too few.

    Nor where each is a class of its own, which would be left without one.
    """
    return 0.0 if count < 200 or count <= classes else round(min(0.05, 256 / count), 6)


def rungs(machine: Machine) -> tuple[str, ...]:
    """The sizes of a net that are tried on a machine, from narrow to wide."""
    return ON_ACCELERATOR if machine.accelerator else ON_PROCESSOR


def settings(pictures: Pictures, rung: str, machine: Machine = Machine(), batch: int | None = None) -> ScoreConfig:
    """The settings of a rung of the ladder, without a budget.

    Args:
        pictures: what is learned.
        rung: a key of RUNGS.
        machine: where it is trained.
        batch: pictures per step; None: as many as the machine likes.
    """
    stem = stem_of(pictures.side)
    deep = machine.accelerator
    net = FastUNetConfig(
        widths=RUNGS[rung],
        layers=3 if deep else 2,
        stem=max(1, stem // 2) if deep else stem,
        refine=32 if stem > 1 else 0,
        attention=deep,
    )
    # what decides a picture's plan lies at noise of the size of its contrast: the law moves with the pixels' deviation
    law = EDMWeighting(mean=-0.8 + math.log(max(pictures.std, 0.05) / 0.5), std=1.3)
    batch = batch or (128 if machine.accelerator else 16)
    return ScoreConfig(
        data=DataConfig(),
        model=ModelConfig(net),
        loss=law,
        denoiser=PlayerConfig(lr=5e-3, betas=(0.95, 0.99), ema=(0.05,), optimizer="muon", anneal=0.02),
        fit=FitConfig(batch=batch, precision=machine.precision, holdout=kept_aside(pictures.count, pictures.classes)),
        sampling=SamplingConfig(steps=18, sigma_min=0.02),
    )


@dataclass(frozen=True)
class Choice:
    """Settings, and why.

    Args:
        config: the settings, with the budget.
        reasons: each choice in a sentence.
        unfit: why they will be poor all the same; "" where they need not be.
    """

    config: TrainConfig
    reasons: tuple[str, ...]
    unfit: str = ""


def needed(rung: int, enough: int = ENOUGH, growth: int = GROWTH) -> int:
    """Steps that a net needs to be worth its cost.

    Args:
        rung: its number on the ladder, from 0.
        enough: what the one with number 1 needs.
        growth: how many times as many each further one needs.
    """
    return 0 if rung == 0 else enough * growth ** (rung - 1)


def widest(
    budget: Budget, costs: Mapping[str, tuple[float, float]], enough: int = ENOUGH, growth: int = GROWTH
) -> str:
    """The rung whose net is best for a budget: the widest that gets the steps it needs, else the narrowest.

    Args:
        budget: what the training may take.
        costs: seconds of the clock and of the processor for a step by rung, from narrow to wide, as far as measured.
        enough: steps that the second rung needs.
        growth: how many times as many each further one needs.
    """
    rungs = enumerate(costs.items())
    reached = [rung for k, (rung, cost) in rungs if budget.steps_at(*cost) >= needed(k, enough, growth)]
    return reached[-1] if reached else next(iter(costs))


def cadence(budget: Budget) -> dict[str, float]:
    """Minutes between checkpoints and between grids, of which the first comes within three."""
    minutes = min((m for m in (budget.minutes, budget.cpu_minutes) if m is not None), default=MINUTES)
    often = max(minutes / 10, 0.5)
    return {"sample_minutes": min(often, 15.0), "checkpoint_minutes": min(often, 10.0)}


def pace(budget: Budget, cost: tuple[float, float]) -> tuple[float, str]:
    """Steps that a budget suffices for, and what each costs, in words.

    Args:
        budget: what the training may take.
        cost: seconds of the clock and of the processor for a step.
    """
    steps = budget.steps_at(*cost)
    by_processor = budget.cpu_minutes is not None and 60 * budget.cpu_minutes / cost[1] <= steps
    return steps, f"{cost[1]:.3g} s of the processor" if by_processor else f"{cost[0]:.3g} s"


def reasons(pictures: Pictures, budget: Budget, config: ScoreConfig, cost: tuple[float, float]) -> list[str]:
    """Why the settings are what they are, a sentence for each.

    Args:
        pictures: what is learned.
        budget: what the training may take.
        config: the settings.
        cost: seconds of the clock and of the processor for a step.
    """
    net, fit, player, law = config.model.net, config.fit, config.denoiser, config.loss
    steps, each = pace(budget, cost)
    lines = []
    if isinstance(net, FastUNetConfig):
        lines += [
            f"net     widths {' '.join(map(str, net.widths))}: about {steps:,.0f} steps of {each} in the budget"
            + (", enough for one so wide" if steps >= ENOUGH else ""),
            f"stem    the net works on places of {net.stem} x {net.stem} pixels"
            + (", and single pixels are refined at the end" if net.refine else ""),
        ]
    lines.append(batch_line(pictures, fit, steps))
    if player.anneal is not None:
        lines.append(
            f"rate    {player.lr:g} by {'Muon' if player.optimizer else 'Adam'}, up over {player.anneal:.0%} of the "
            "budget, then down to zero at its end"
        )
    if isinstance(law, EDMWeighting):
        lines.append(
            f"noise   mostly around {math.exp(law.mean):.2g}, for pixels of standard deviation {pictures.std:.2g}"
        )
    return [*lines, *closing(config.data, fit)]


def batch_line(pictures: Pictures, fit: FitConfig, steps: float) -> str:
    """What a batch comes to in so many steps."""
    passes = steps * fit.batch / max(1, pictures.count)
    return f"batch   {fit.batch} a step: about {passes:,.1f} passes over {pictures.count:,} pictures"


def closing(data: DataConfig, fit: FitConfig) -> list[str]:
    """What is said of every training of pictures."""
    return [
        f"grid    of samples every {fit.sample_minutes:g} minutes, in the run's folder samples",
        "flip    mirror images are shown too (--flip)"
        if data.flip
        else "flip    no mirror images; --flip shows them: right for photographs, wrong for letters",
    ]
