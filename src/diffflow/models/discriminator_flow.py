"""Discriminator Flow and the improved GAN: particles moved by a discriminator along their own path, without a score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..equation.fields import Ratio
from ..equation.laws import Gaussian
from ..equation.schedule import VE
from ..equation.sde import DiffFlow
from ..equation.spectrum import continued, discriminator_flow, improved_gan
from ..networks.backbones.discriminator import Stages
from ..networks.discriminator import Discriminator
from ..objectives.discriminator_path import PathDiscriminator
from ..objectives.paths import ParticlePath
from .base import NO_DRIFT, RATIO, SDE, TrainConfig, Words, device_of, player
from .settings.common import DataConfig, Dials, FitConfig, PlayerConfig
from .settings.games import GameConfig, class_count, log_ratio_game
from .settings.networks import DiscriminatorNet, MLPDiscriminatorConfig
from .settings.serialise import require


@dataclass(frozen=True)
class PathConfig:
    """The path of the particles, t from 0 to 1.

    Raises:
        ConfigError: a number out of its range.
    """

    steps: int = 25
    """Steps N; the discriminator is trained at their times."""
    eta: float = 0.5
    """Speed: dx = -speed l'(d) grad d dt (improved GAN: speed grad d dt), speed = eta x entries of a sample x variance
    of the data. A logit that tells samples a typical distance apart has slopes that fall with both, so that one eta
    moves points and pictures alike."""
    noise: float = 0.0
    """Noise of the real samples at t = 0, in units of the data's standard deviation, falling to noise_end at t = 1
    (improved GAN); 0: clean at all times (Discriminator Flow)."""
    noise_end: float = 0.01
    """Noise of the real samples at t = 1, in the same units."""
    entropy: float = 0.0
    """-lam2, for data of unit variance: noise sqrt(entropy) dW beside the flow, which flattens the law (analytic
    continuation)."""
    start_width: float = 1.0
    """Standard deviation of the start, in units of the data's."""
    slowing: float = 1.0
    """Times t_k = 1 - (1 - k/N)^slowing: 1 for equal steps; 2 for steps that shrink to nothing, since a field is smooth
    far from the data, where particles begin, and steep near them, where long steps overshoot."""
    pool: int = 1
    """Particles kept, in batches: each moves at every pool-th update."""

    def __post_init__(self) -> None:
        require(
            self.steps >= 1 and self.pool >= 1, f"path.steps = {self.steps} and pool = {self.pool} must be at least 1"
        )
        require(
            self.eta > 0 and self.start_width > 0,
            f"path.eta = {self.eta} and start_width = {self.start_width} must be positive",
        )
        require(
            1 <= self.slowing <= 4,
            f"path.slowing = {self.slowing} must be between 1, which is equal steps, and 4, where the last ones vanish",
        )
        require(min(self.noise, self.entropy) >= 0, f"path.noise = {self.noise}, entropy = {self.entropy}: at least 0")
        require(
            self.noise == 0 or 0 < self.noise_end < self.noise,
            f"path.noise_end = {self.noise_end} must lie between 0 and path.noise = {self.noise}",
        )

    def grid(self, steps: int) -> Tensor:
        """The times of so many steps, (steps + 1,) float64."""
        return 1 - torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** self.slowing


@dataclass(frozen=True)
class TimedDiscriminatorConfig:
    """The discriminator d(x, t): one network that is told the time, or one for each interval of it.

    Raises:
        ConfigError: a number out of its range.
    """

    net: DiscriminatorNet = field(default_factory=MLPDiscriminatorConfig)
    """The network."""
    stages: int | None = None
    """Independent networks, one per equal interval of time (improved GAN); none: one network that is told the time."""
    label_dropout: float = 0.1
    """Share of samples whose class is hidden."""

    def __post_init__(self) -> None:
        require(self.stages is None or self.stages >= 1, f"model.stages = {self.stages} must be at least 1")
        require(0 <= self.label_dropout < 1, f"model.label_dropout = {self.label_dropout} must be in [0, 1)")

    def build(self, meta: Mapping[str, Any]) -> Discriminator:
        """The discriminator for data that `meta` describes. Raises ConfigError where the net does not fit."""
        shape, classes = tuple(meta["shape"]), class_count(meta)
        if self.stages is None:
            return Discriminator(self.net.build(shape, classes, timed=True))
        return Discriminator(Stages([self.net.build(shape, classes, timed=False) for _ in range(self.stages)]))


@dataclass(frozen=True)
class FlowSampling:
    """How samples are drawn by default.

    Raises:
        ConfigError: fewer than one step.
    """

    steps: int | None = None
    """Steps of the flow; none: as many as in training."""
    ema: float | None = None
    """Width of the weight average to use; none: the player's first."""

    def __post_init__(self) -> None:
        require(self.steps is None or self.steps >= 1, f"sampling.steps = {self.steps} must be at least 1")


@dataclass(frozen=True)
class DiscriminatorFlowConfig(TrainConfig):
    """Particles moved by one discriminator along their own path, without generator and without score.

    Discriminator Flow has clean data and the speed -eta l'(d); the improved GAN has data that are noised less and less,
    and a constant speed.

    Raises:
        ConfigError: stages that some steps would leave out, or a game whose logit is no log-ratio beside noise.
    """

    data: DataConfig = DataConfig()
    """What to learn from."""
    model: TimedDiscriminatorConfig = TimedDiscriminatorConfig()
    """The discriminator."""
    game: GameConfig = GameConfig()
    """What the discriminator minimises."""
    path: PathConfig = PathConfig()
    """The path of the particles."""
    discriminator: PlayerConfig = PlayerConfig()
    """How the discriminator moves: learning rate, averages, clipping."""
    fit: FitConfig = FitConfig()
    """The training loop."""
    sampling: FlowSampling = FlowSampling()
    """How samples are drawn when nobody says otherwise."""

    def __post_init__(self) -> None:
        require(
            self.model.stages is None or self.path.slowing == 1,
            f"model.stages = {self.model.stages} networks have equal intervals of time: leave path.slowing at 1, so "
            "that all of them see steps",
        )
        require(
            self.model.stages is None or self.model.stages <= self.path.steps,
            f"model.stages = {self.model.stages} networks for path.steps = {self.path.steps} would leave some that no "
            "particle ever meets: take at most one per step",
        )
        if self.path.noise:
            log_ratio_game(self.game, "path.noise")

    words: ClassVar[Words] = Words(
        "A discriminator",
        "New examples are particles that start as noise and climb what the discriminator tells them at each time: the "
        "equation below without score, without noise and without a generator.",
        equation=SDE.format("gan=1.0"),
    )

    def equation_rows(self) -> list[tuple[str, str]]:
        """The rows of the target, the discriminator, its speed, and the noise."""
        path, stages = self.path, self.model.stages
        noised = f"noised less and less, from {path.noise:g} to {path.noise_end:g} of its standard deviation"
        size = f"{path.eta:g} × entries of a sample × the data’s variance"
        speed = size if path.noise else f"−<i>η</i> <i>l</i>′(<i>d</i>), <i>η</i> = {size}"
        noise = "0: no noise"
        if path.entropy:
            noise = f"−{path.entropy:g} × the data’s variance: noise that flattens the law"
        shrinking = " that shrink toward the data" if path.slowing > 1 else ""
        which = "one discriminator" if stages is None else f"{stages} independent discriminators, one per interval,"
        return [
            ("<i>r</i>", f"the data, {noised}" if path.noise else "the data itself, at all times"),
            (
                RATIO,
                f"the gradient of {which} <i>d</i>(<i>x</i>, <i>t</i>), trained along the particles’ own path; "
                f"game {escape(self.game.loss)}",
            ),
            ("<i>β</i>", f"{speed}, in {path.steps} steps{shrinking}"),
            NO_DRIFT,
            ("<i>λ</i>²", noise),
        ]

    @property
    def least_steps(self) -> int:
        """As many as a GAN's, for each network: a step is of one of them."""
        return 5000 * (self.model.stages or 1)

    @property
    def row(self) -> str:
        """The row of the catalogue: Discriminator Flow, or one of the two improved GANs."""
        if not self.path.noise:
            return "discriminator-flow"
        return "improved-gan" if self.model.stages is None else "improved-gan-independent"

    @property
    def classless(self) -> bool:
        """Whether labels were dropped in training."""
        return self.model.label_dropout > 0

    def players(self) -> dict[str, PlayerConfig]:
        """How the discriminator is trained."""
        return {"discriminator": self.discriminator}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        """The discriminator."""
        return {"discriminator": self.model.build(meta)}

    def flow(self, ratio: Ratio, meta: Mapping[str, Any], device: torch.device) -> DiffFlow:
        """The equation of the particles, with its start.

        Args:
            ratio: stands for the log-ratio.
            meta: describes the data.
            device: of the start.
        """
        path, std = self.path, float(meta["std"])
        speed = path.eta * math.prod(meta["shape"]) * std**2
        width = path.start_width * math.hypot(std, path.noise * std)
        start = Gaussian(torch.full(tuple(meta["shape"]), float(meta["mean"])), width).to(device)
        if path.noise:
            sde = improved_gan(VE(path.noise_end * std, path.noise * std), ratio, speed, start)
        else:
            sde = discriminator_flow(ratio, self.game.game.speed, speed, start)
        sde = replace(sde, grid=path.grid)
        return continued(sde, -path.entropy * std**2) if path.entropy else sde

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> PathDiscriminator:
        """The discriminator's game along the path of its own particles."""
        device = device_of(modules)
        return PathDiscriminator(
            player(modules, "discriminator", Discriminator),
            ParticlePath(lambda ratio: self.flow(ratio, meta, device), self.path.steps),
            self.game.game,
            self.game.penalty,
            size=self.path.pool * self.fit.batch,
            label_dropout=self.model.label_dropout,
        )

    @property
    def dials(self) -> Dials:
        """The steps of `sampling`, by default those of the training; the log-ratio's weight is 1."""
        return Dials(self.sampling.steps or self.path.steps, gan=1.0)

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> DiffFlow:
        """The equation of the particles. Raises ValueError for dials other than the steps."""
        refuse_dials(dials, Dials(gan=1.0))
        return self.flow(player(modules, "discriminator", Discriminator).ratio(), meta, device_of(modules))


def refuse_dials(dials: Dials, fixed: Dials) -> None:
    """Raise ValueError for a dial, other than the steps, that does not stand where this family of models has it."""
    for name in ("gan", "churn", "guidance"):
        if getattr(dials, name) != getattr(fixed, name):
            raise ValueError(f"{name} = {getattr(dials, name):g}: this model has no such dial; leave it out")
