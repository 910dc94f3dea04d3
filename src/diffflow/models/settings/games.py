"""Settings of games: what a discriminator minimises, for how many classes, and what it is told along a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ...equation.schedule import Schedule
from ...networks.discriminator import Discriminator
from ...networks.games import GAMES, Game, Penalty
from .serialise import UNSAID, require


def class_count(meta: Mapping[str, Any]) -> int:
    """The number of classes of the data, 0 without. Raises ConfigError for a single class, which says nothing."""
    classes = meta["classes"] or ()
    require(
        len(classes) != 1,
        f"the data have a single class ({', '.join(map(str, classes))}), and a class-conditional game needs two or "
        "more: give the data without classes (arrays without labels, a table without its class column)",
    )
    return len(classes)


@dataclass(frozen=True)
class GameConfig:
    """The game that a discriminator plays: its loss and its penalty.

    Raises:
        ConfigError: an unknown loss.
    """

    loss: str = "vanilla"
    """Loss: vanilla, saturating, kl, chi2, hinge, lsgan, ipm, fgan-kl, fgan-pearson; relativistic (generators only)."""
    penalty: Penalty = Penalty()
    """Penalty: weight (|grad d| - centre)^2 at real, fake and in-between points."""
    augment: float = field(default=0.0, metadata=UNSAID)
    """GANs of pictures: how sure of real ones the discriminator may be, such as 0.6; beyond that, what it sees is
    changed (mirrored, turned, scaled, ...) with a probability that rises as long as it is (ADA). 0: never."""

    def __post_init__(self) -> None:
        require(self.loss in GAMES, f"game.loss = {GAMES.unknown(self.loss)}")
        require(0 <= self.augment < 1, f"game.augment = {self.augment} must be in [0, 1), such as 0.6; 0: none")

    @property
    def game(self) -> Game:
        """The row of GAMES."""
        return GAMES[self.loss]


def log_ratio_game(config: GameConfig, why: str) -> None:
    """Raise ConfigError for a game whose logit is something else than the log-ratio that the equation asks for."""
    additive = [name for name, game in GAMES.items() if game.additive]
    require(
        config.game.additive,
        f"game.loss = {config.loss!r}: with {why} particles move along grad log r/p, and the logit of this game is "
        f"another function of r and p. Take one of {', '.join(additive)}",
    )


def along(net: nn.Module, schedule: Schedule, std: float) -> Discriminator:
    """A discriminator along a noise schedule, with EDM's preconditioning.

    Its inputs have unit size at every noise level, and it is told the level as a quarter of its logarithm.

    Args:
        net: the network.
        schedule: the noise schedule.
        std: standard deviation of the data, in model units.
    """
    at = Along(schedule, std)
    return Discriminator(net, time=at.time, precondition=at.precondition, amplitude=at.amplitude)


@dataclass(frozen=True)
class Along:
    """EDM's preconditioning of a discriminator; a value, so that it travels to other processes.

    Args:
        schedule: the noise schedule.
        std: standard deviation of the data, in model units.
    """

    schedule: Schedule
    std: float

    def time(self, t: Tensor) -> Tensor:
        """What the network is told of the times t (n,): a quarter of the logarithm of the noise level."""
        return 0.25 * self.schedule.sigma(t).log()

    def precondition(self, t: Tensor) -> Tensor:
        """The factor (n,) that gives the inputs unit size."""
        return (self.schedule.sigma(t) ** 2 + self.std**2).rsqrt() / self.schedule.scale(t)

    def amplitude(self, t: Tensor) -> Tensor:
        """The factor (n,) of the logit."""
        return self.std * (self.schedule.sigma(t) ** 2 + self.std**2).rsqrt()
