"""What every family with a discriminator has: its network, the game that it plays, and for how many classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...equation.schedule import Schedule
from ...networks.discriminator import Discriminator
from ...networks.games import GAMES, Game, Penalty
from .serialise import require


def class_count(meta: Mapping[str, Any]) -> int:
    """How many classes a game is played within; 0 where the data have none."""
    classes = meta["classes"] or ()
    require(
        len(classes) != 1,
        f"the data have a single class ({', '.join(map(str, classes))}), and a class-conditional game needs two or "
        "more: give the data without classes (arrays without labels, a table without its class column)",
    )
    return len(classes)


@dataclass(frozen=True)
class GameConfig:
    """What the discriminator minimises."""

    loss: str = "vanilla"
    """A row of games.GAMES: vanilla, saturating, kl, chi2, hinge, lsgan, ipm, fgan-kl, fgan-pearson,
    relativistic (for a generator only: its particles have partners)."""
    penalty: Penalty = Penalty()
    """weight (|grad d| - centre)^2 at real, fake and in-between points."""

    def __post_init__(self) -> None:
        require(self.loss in GAMES, f"game.loss = {GAMES.unknown(self.loss)}")

    @property
    def game(self) -> Game:
        return GAMES[self.loss]


def log_ratio_game(config: GameConfig, why: str) -> None:
    """Raise ConfigError for a game whose logit is something else than the log-ratio that the equation asks for."""
    known = [name for name, game in GAMES.items() if game.additive]
    require(
        config.game.additive,
        f"game.loss = {config.loss!r}: with {why} particles move along grad log r/p, and the logit of this game is "
        f"another function of r and p. Take one of {', '.join(known)}",
    )


def along(net: nn.Module, schedule: Schedule, std: float) -> Discriminator:
    """A discriminator along a noise schedule, for data of this standard deviation, with EDM's preconditioning: inputs
    of unit size at every noise level, and the level as a quarter of its logarithm."""
    at = Along(schedule, std)
    return Discriminator(net, time=at.time, precondition=at.precondition, amplitude=at.amplitude)


@dataclass(frozen=True)
class Along:
    """EDM's preconditioning of a discriminator; a value, so that it travels to other processes."""

    schedule: Schedule
    std: float

    def time(self, t: Tensor) -> Tensor:
        return 0.25 * self.schedule.sigma(t).log()

    def precondition(self, t: Tensor) -> Tensor:
        return (self.schedule.sigma(t) ** 2 + self.std**2).rsqrt() / self.schedule.scale(t)

    def amplitude(self, t: Tensor) -> Tensor:
        return self.std * (self.schedule.sigma(t) ** 2 + self.std**2).rsqrt()


def as_discriminator(module: nn.Module) -> Discriminator:
    assert isinstance(module, Discriminator)
    return module
