"""Generators, moved by a velocity field: of a discriminator (GAN), of two scores (Score GAN), or of the samples and the
data alone (drifting, MMD, sliced Wasserstein)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, ClassVar

from torch import nn

from ..networks.discriminator import Discriminator
from ..networks.generator import Generator
from ..objectives.follow_velocity import FollowVelocity
from ..objectives.movers.adversarial import DiscriminatorMover
from .base import ONE_EVALUATION, RATIO, GeneratorConfig, GeneratorSampling, MoveConfig, Words, as_generator
from .settings.common import DataConfig, FitConfig, PlayerConfig
from .settings.games import GameConfig, as_discriminator, class_count
from .settings.networks import DiscriminatorNet, GeneratorNet, MLPDiscriminatorConfig, MLPGeneratorConfig


@dataclass(frozen=True)
class GANNets:
    """The two networks."""

    generator: GeneratorNet = field(default_factory=MLPGeneratorConfig)
    """G(z)."""
    discriminator: DiscriminatorNet = field(default_factory=MLPDiscriminatorConfig)
    """d(x)."""


@dataclass(frozen=True)
class GANConfig(GeneratorConfig):
    """A generator moved by a discriminator (Algorithm 1 of the DiffFlow paper): every GAN is a row of games.GAMES."""

    data: DataConfig = DataConfig()
    model: GANNets = GANNets()
    game: GameConfig = GameConfig()
    move: MoveConfig = MoveConfig()
    generator: PlayerConfig = PlayerConfig()
    discriminator: PlayerConfig = PlayerConfig()
    fit: FitConfig = FitConfig()
    sampling: GeneratorSampling = GeneratorSampling()

    words: ClassVar[Words] = Words("A generator and a discriminator", ONE_EVALUATION)

    def moved_rows(self) -> list[tuple[str, str]]:
        return [
            (RATIO, f"the gradient of the discriminator <i>d</i>(<i>x</i>); game {escape(self.game.loss)}"),
            ("<i>β</i>", "−<i>l</i>′(<i>d</i>), the slope of the generator’s loss"),
        ]

    @property
    def row(self) -> str:
        return self.game.game.row

    def players(self) -> dict[str, PlayerConfig]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        shape, classes = tuple(meta["shape"]), class_count(meta)
        return {
            "generator": Generator(self.model.generator.build(shape, classes), shape),
            "discriminator": Discriminator(self.model.discriminator.build(shape, classes, timed=False)),
        }

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> FollowVelocity:
        discriminator = DiscriminatorMover(
            as_discriminator(modules["discriminator"]), self.game.game, self.game.penalty, self.move.updates
        )
        return FollowVelocity(
            as_generator(modules["generator"]), discriminator, self.move.eta, self.move.steps, self.move.reuse
        )
