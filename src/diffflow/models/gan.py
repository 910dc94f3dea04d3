"""GANs: a generator whose samples are moved by a discriminator. One family; its games are the rows of games.GAMES."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, ClassVar

from torch import nn

from ..networks.discriminator import Discriminator
from ..networks.generator import Generator
from ..objectives.follow_velocity import FollowVelocity
from ..objectives.movers.adaptive import AdaptiveAugmentation
from ..objectives.movers.adversarial import DiscriminatorMover
from .base import ONE_EVALUATION, RATIO, GeneratorConfig, GeneratorSampling, MoveConfig, Words, player
from .settings.common import DataConfig, FitConfig, PlayerConfig
from .settings.games import GameConfig, class_count
from .settings.networks import DiscriminatorNet, GeneratorNet, MLPDiscriminatorConfig, MLPGeneratorConfig


@dataclass(frozen=True)
class GANNets:
    """The two networks of a GAN."""

    generator: GeneratorNet = field(default_factory=MLPGeneratorConfig)
    """G(z)."""
    discriminator: DiscriminatorNet = field(default_factory=MLPDiscriminatorConfig)
    """d(x)."""


@dataclass(frozen=True)
class GANConfig(GeneratorConfig):
    """A generator moved by a discriminator (Algorithm 1 of the DiffFlow paper); its loss is a row of games.GAMES."""

    data: DataConfig = DataConfig()
    """What to learn from."""
    model: GANNets = GANNets()
    """The two networks."""
    game: GameConfig = GameConfig()
    """What the discriminator minimises."""
    move: MoveConfig = MoveConfig()
    """How the generator follows what moves its samples."""
    generator: PlayerConfig = PlayerConfig()
    """How the generator moves: learning rate, averages, clipping."""
    discriminator: PlayerConfig = PlayerConfig()
    """How the discriminator moves: learning rate, averages, clipping."""
    fit: FitConfig = FitConfig()
    """The training loop."""
    sampling: GeneratorSampling = GeneratorSampling()
    """How samples are drawn when nobody says otherwise."""

    adapts: ClassVar[bool] = True
    words: ClassVar[Words] = Words("A generator and a discriminator", ONE_EVALUATION)

    def moved_rows(self) -> list[tuple[str, str]]:
        """The rows of the discriminator's gradient and of its speed."""
        return [
            (RATIO, f"the gradient of the discriminator <i>d</i>(<i>x</i>); game {escape(self.game.loss)}"),
            ("<i>β</i>", "−<i>l</i>′(<i>d</i>), the slope of the generator’s loss"),
        ]

    @property
    def least_steps(self) -> int:
        """More than a denoiser: what moves the generator has itself to be learned."""
        return 5000

    @property
    def row(self) -> str:
        """The row of the catalogue of its game."""
        return self.game.game.row

    def players(self) -> dict[str, PlayerConfig]:
        """How generator and discriminator are trained."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        """The generator and a discriminator that is told no time."""
        shape, classes = tuple(meta["shape"]), class_count(meta)
        return {
            "generator": Generator(self.model.generator.build(shape, classes), shape),
            "discriminator": Discriminator(self.model.discriminator.build(shape, classes, timed=False)),
        }

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> FollowVelocity:
        """The game: the generator follows the velocity that the discriminator gives its samples."""
        discriminator = DiscriminatorMover(
            player(modules, "discriminator", Discriminator),
            self.game.game,
            self.game.penalty,
            self.move.updates,
            augment=AdaptiveAugmentation(self.game.augment) if self.game.augment else None,
        )
        return FollowVelocity(
            player(modules, "generator", Generator), discriminator, self.move.eta, self.move.steps, self.move.reuse
        )
