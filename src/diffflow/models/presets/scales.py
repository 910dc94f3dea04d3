"""Scales: what fits a kind of data, from points in the plane to colour pictures, in every preset by model.

That of colour pictures is a ladder (`of_pictures`), whose rung that fits budget and machine `runs.fitted` finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..base import of_kind
from ..diffusion import ScoreConfig
from ..settings.common import FitConfig
from ..settings.networks import (
    ConvDiscriminatorConfig,
    ConvGeneratorConfig,
    FastUNetConfig,
    MLPDiscriminatorConfig,
    MLPGeneratorConfig,
)
from ..settings.serialise import require
from .base import Preset
from .budget import MINUTES, RUNGS, Machine, Pictures, settings
from .by_data import demo, mnist, table, toy


@dataclass(frozen=True)
class Scale:
    """What fits a kind of data: a diffusion preset, whose denoiser and budget are taken over, and the other networks.

    Mirror images are shown only where somebody asks for them: a scale knows the size of pictures, not what is on them.

    Args:
        diffusion: makes the diffusion preset.
        discriminator: the network of a discriminator.
        generator: the network of a generator.
        batch: samples per step of a game.
        lr: learning rate of the players of a game.
        decay: the step from which that rate falls; None: it follows the budget (`anneal`).
        penalty: weight of |grad d|^2 between real and generated samples. Slopes fall as 1/distance, so the weight grows
            with the square of it; too small a one, and generators miss modes and discriminators win.
        eta: speed of a Discriminator Flow.
        steps: steps of its path, two evaluations each.
        slowing: how these steps shrink (`PathConfig.slowing`).
        temperatures: of drifting, in the units of a distance between samples.
        anneal: share of the budget over which rates rise, to fall to zero at its end; None: by `decay`.
        sigma_min: lowest noise level of a Diffusion-GAN.
    """

    diffusion: Callable[[], Preset]
    discriminator: MLPDiscriminatorConfig | ConvDiscriminatorConfig
    generator: MLPGeneratorConfig | ConvGeneratorConfig
    batch: int
    lr: float
    decay: int | None
    penalty: float
    eta: float
    steps: int
    slowing: float
    temperatures: tuple[float, ...]
    anneal: float | None = None
    sigma_min: float = 0.002

    @property
    def vectors(self) -> bool:
        """Whether the data are vectors, not images."""
        return isinstance(self.discriminator, MLPDiscriminatorConfig)

    @property
    def base(self) -> ScoreConfig:
        """The settings of the diffusion preset, without mirror images."""
        config = of_kind(self.diffusion().config, ScoreConfig)
        return replace(config, data=replace(config.data, flip=False))

    @property
    def fit(self) -> FitConfig:
        """The training loop of a game."""
        # the loss of a game does not choose
        return replace(self.base.fit, batch=self.batch, holdout=0.0, patience=None)


def of_pictures(pictures: Pictures, rung: str, machine: Machine, batch: int | None = None) -> Scale:
    """The scale of pictures: generator and discriminator on the places of the denoiser's net, as wide as it is.

    Weights of penalties and temperatures are about those that MNIST was measured with, in units of the mean distance d
    of two pictures, d^2 = 2 (entries of a picture) (their variance): .0026 d^2, .1 d and .3 d.

    Args:
        pictures: what is learned.
        rung: a key of `budget.RUNGS`.
        machine: where it is trained.
        batch: samples per step; None: as many as the machine likes.
    """
    base = settings(pictures, rung, machine)
    base = replace(base, fit=replace(base.fit, minutes=MINUTES))
    distance = math.sqrt(2 * math.prod(pictures.shape)) * max(pictures.std, 0.05)
    stem = of_kind(base.model.net, FastUNetConfig).stem
    return Scale(
        lambda: Preset("pictures", "Pictures of any size.", base),
        ConvDiscriminatorConfig(RUNGS[rung], stem=stem),
        ConvGeneratorConfig(128 if machine.accelerator else 64, RUNGS[rung][::-1], stem=stem),
        batch=batch or (128 if machine.accelerator else 32),
        lr=5e-4,
        decay=None,
        penalty=float(f"{0.0026 * distance**2:.2g}"),
        eta=1.0,
        steps=12,
        slowing=2.0,
        temperatures=(float(f"{0.1 * distance:.2g}"), float(f"{0.3 * distance:.2g}")),
        anneal=0.02,
        sigma_min=base.sampling.sigma_min,
    )


DATA_SCALES = {
    "toy": Scale(
        toy,
        MLPDiscriminatorConfig(64, 3, waves=32),
        MLPGeneratorConfig(2, 96, 3, waves=16),
        batch=128,
        lr=1e-3,
        decay=500,
        penalty=0.03,
        eta=0.5,
        steps=25,
        slowing=1.0,
        temperatures=(0.03, 0.3),
    ),
    "table": Scale(
        table,
        MLPDiscriminatorConfig(256, 3),
        MLPGeneratorConfig(32, 256, 3),
        batch=128,
        lr=5e-4,
        decay=1000,
        penalty=0.1,
        eta=0.5,
        steps=25,
        slowing=1.0,
        temperatures=(0.2, 0.6),
    ),
    "digits": Scale(
        demo,
        ConvDiscriminatorConfig((24, 48)),
        ConvGeneratorConfig(32, (64, 32)),
        batch=64,
        lr=1e-3,
        decay=1000,
        penalty=0.3,
        eta=2.0,
        steps=12,
        slowing=2.0,
        temperatures=(1.0, 3.0),
    ),
    "mnist": Scale(
        mnist,
        ConvDiscriminatorConfig((16, 32, 64)),
        ConvGeneratorConfig(64, (64, 32, 16)),
        batch=64,
        lr=1e-3,
        decay=1000,
        penalty=1.5,
        eta=1.0,
        steps=12,
        slowing=2.0,
        temperatures=(2.0, 6.0),
    ),
    "pictures": of_pictures(Pictures(10_000, (3, 32, 32)), "M", Machine()),
}


def scale_of(name: str, model: str) -> Scale:
    """The scale of a name.

    Args:
        name: of the diffusion preset that fits the data, as `fitting` gives it.
        model: what the scale is for, as messages call it.

    Raises:
        ConfigError: no scale of that name: such data have a diffusion preset only.
    """
    require(
        name in DATA_SCALES,
        f"{model} is for vectors and images, and these data are of the kind {name!r}, for which no discriminator or "
        f"generator is made: use a diffusion model, preset {name!r}",
    )
    return DATA_SCALES[name]
