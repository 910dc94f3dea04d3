"""Scales: what fits a kind of data, from points in the plane to colour images, in every preset by model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..base import of_kind
from ..diffusion import ScoreConfig
from ..settings.common import FitConfig
from ..settings.networks import ConvDiscriminatorConfig, ConvGeneratorConfig, MLPDiscriminatorConfig, MLPGeneratorConfig
from ..settings.serialise import require
from .base import Preset
from .by_data import cifar10, demo, mnist, table, toy


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
        decay: the step from which that rate falls.
        penalty: weight of |grad d|^2 between real and generated samples. Slopes fall as 1/distance, so the weight grows
            with the square of it; too small a one, and generators miss modes and discriminators win.
        eta: speed of a Discriminator Flow.
        steps: steps of its path, two evaluations each.
        slowing: how these steps shrink (`PathConfig.slowing`).
        temperatures: of drifting, in the units of a distance between samples.
    """

    diffusion: Callable[[], Preset]
    discriminator: MLPDiscriminatorConfig | ConvDiscriminatorConfig
    generator: MLPGeneratorConfig | ConvGeneratorConfig
    batch: int
    lr: float
    decay: int
    penalty: float
    eta: float
    steps: int
    slowing: float
    temperatures: tuple[float, ...]

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
        return replace(self.base.fit, batch=self.batch, holdout=0.0)  # the loss of a game does not choose


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
    "cifar10": Scale(
        cifar10,
        ConvDiscriminatorConfig((128, 256, 512)),
        ConvGeneratorConfig(128, (512, 256, 128)),
        batch=256,
        lr=2e-4,
        decay=20_000,
        penalty=4.0,
        eta=1.0,
        steps=12,
        slowing=2.0,
        temperatures=(4.0, 12.0),
    ),
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
