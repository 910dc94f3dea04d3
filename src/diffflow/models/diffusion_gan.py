"""Diffusion-GAN: a denoiser and a discriminator that correct samples together, with free dials between the two."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, ClassVar

from torch import nn

from ..equation.guidance import Guidance
from ..equation.sde import DiffFlow
from ..equation.spectrum import at
from ..networks.denoiser import Denoiser
from ..networks.discriminator import Discriminator
from ..objectives.base import InTurn
from ..objectives.discriminator_path import PathDiscriminator
from ..objectives.paths import SchedulePath
from ..objectives.score_matching import EDMWeighting, ScoreMatching
from ..sampling.sample import Grid
from ..sampling.solvers import Solver
from .base import RATIO, SDE, TrainConfig, Words, device_of, player
from .diffusion import ModelConfig, SamplingConfig, WeightingConfig, guided
from .settings.common import DataConfig, Dials, FitConfig, PlayerConfig
from .settings.games import GameConfig, along, class_count, log_ratio_game
from .settings.networks import DiscriminatorNet, MLPDiscriminatorConfig
from .settings.serialise import require


@dataclass(frozen=True)
class RangesConfig:
    """The ranges of dials that a Diffusion-GAN is trained for; its discriminator is told where each batch stands.

    Sampling outside of them warns.

    Raises:
        ConfigError: a range that is empty or not finite.
    """

    gan: float = 2.0
    """Largest weight of the log-ratio; the least is 0."""
    churn: float = 1.0
    """Largest churn; the least is 0."""
    steps: tuple[int, int] = (8, 32)
    """Fewest and most steps."""

    def __post_init__(self) -> None:
        low, high = self.steps
        require(0 < self.gan < math.inf, f"ranges.gan = {self.gan} must be positive and finite")
        require(0 <= self.churn < math.inf, f"ranges.churn = {self.churn} must be finite and not negative")
        require(1 <= low <= high, f"ranges.steps = {self.steps} must be (fewest, most) with 1 <= fewest <= most")


@dataclass(frozen=True)
class DiffusionGANSampling(SamplingConfig):
    """How samples are drawn by default: as for a denoiser alone, and the weight of the log-ratio.

    Raises:
        ConfigError: a number out of its range.
    """

    gan: float = 1.0
    """Weight of the log-ratio; 0 is the denoiser alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gan >= 0, f"gan = {self.gan} must not be negative: 0 is the denoiser alone")


@dataclass(frozen=True)
class DiffusionGANConfig(TrainConfig):
    """Score and discriminator together (equations 29 and 30 of the DiffFlow paper).

    The dials gan, churn and steps are free at sampling, within the trained ranges.

    Raises:
        ConfigError: a game whose logit is no log-ratio, or dials of `sampling` outside the ranges.
    """

    data: DataConfig = DataConfig()
    """What to learn from."""
    model: ModelConfig = ModelConfig()
    """The denoiser."""
    discriminator_net: DiscriminatorNet = field(default_factory=MLPDiscriminatorConfig)
    """The network of the discriminator."""
    loss: WeightingConfig = field(default_factory=EDMWeighting)
    """How noise levels are drawn and weighed."""
    game: GameConfig = GameConfig()
    """What the discriminator minimises."""
    ranges: RangesConfig = RangesConfig()
    """Settings of the sampler that the discriminator is trained for."""
    denoiser: PlayerConfig = PlayerConfig()
    """How the denoiser moves: learning rate, averages, clipping."""
    discriminator: PlayerConfig = PlayerConfig()
    """How the discriminator moves: learning rate, averages, clipping."""
    fit: FitConfig = FitConfig()
    """The training loop."""
    sampling: DiffusionGANSampling = DiffusionGANSampling()
    """How samples are drawn when nobody says otherwise."""

    fixed: ClassVar[tuple[str, ...]] = (
        "sampling.schedule",
        "sampling.sigma_min",
        "sampling.sigma_max",
    )  # the path's own noise levels

    def __post_init__(self) -> None:
        log_ratio_game(self.game, "a score beside it")
        r, s = self.ranges, self.sampling
        bounds = {"gan": (0.0, r.gan), "churn": (0.0, r.churn), "steps": r.steps}
        for name, (low, high) in bounds.items() if s.gan else ():  # the denoiser alone knows any number of steps
            value = getattr(s, name)
            require(
                low <= value <= high,
                f"sampling.{name} = {value} is outside [{low:g}, {high:g}], for which the discriminator is trained: "
                f"widen ranges.{name}, or sample within",
            )

    words: ClassVar[Words] = Words(
        "A denoiser and a discriminator",
        "New examples are drawn by moving noise along the equation below; dials set how much of the path is random, "
        "and how much the discriminator corrects it.",
        " --steps 20 --gan 1 --churn 0",
        ", steps=20, gan=1.0, churn=0.5",
        SDE.format("gan=1.0, churn=1.0"),
    )

    def equation_rows(self) -> list[tuple[str, str]]:
        """The rows of the schedule, of the discriminator's weight, and of the trained ranges."""
        ranges, steps = self.ranges, "–".join(map(str, self.ranges.steps))
        return [
            *self.sampling.equation_rows(),
            (
                "<i>β</i>",
                f"<i>g</i>²/2 + gan <i>G</i>²/2 / (1 + <i>σ</i>²/std²), the weight of the discriminator's {RATIO}: it "
                "fades where the noise is wider than the data, of standard deviation std; here gan = "
                f"{self.sampling.gan:g}",
            ),
            (
                "trained for",
                f"gan up to {ranges.gan:g}, churn up to {ranges.churn:g}, {steps} steps; game {escape(self.game.loss)}",
            ),
        ]

    @property
    def row(self) -> str:
        """The row "diffusion-gan" of the catalogue."""
        return "diffusion-gan"

    @property
    def classless(self) -> bool:
        """Whether labels were dropped in training."""
        return self.model.label_dropout > 0

    def players(self) -> dict[str, PlayerConfig]:
        """How denoiser and discriminator are trained."""
        return {"denoiser": self.denoiser, "discriminator": self.discriminator}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        """The denoiser, and a discriminator that is told the noise level and three dials."""
        schedule, std = self.sampling.path, float(meta["std"])
        net = self.discriminator_net.build(tuple(meta["shape"]), class_count(meta), timed=True, dials=3)
        return {"denoiser": self.model.build(meta), "discriminator": along(net, schedule, std)}

    def path(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], guidance: Guidance = 1.0) -> SchedulePath:
        """The path of the particles that the discriminator is trained on.

        Args:
            modules: the players' networks.
            meta: describes the data.
            guidance: of the denoiser; 1 is none.
        """
        schedule, ranges = self.sampling.path, self.ranges
        source = guided(schedule, player(modules, "denoiser", Denoiser), guidance).source
        start = self.sampling.start(meta, device_of(modules))
        std = float(meta["std"])
        return SchedulePath(schedule, source, start, ranges.steps, ranges.gan, ranges.churn, reach=std)

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> InTurn:
        """Score matching and the discriminator's game along the path, in turn."""
        dropout = self.model.label_dropout
        score = ScoreMatching(player(modules, "denoiser", Denoiser), self.loss, dropout)
        discriminator = player(modules, "discriminator", Discriminator)
        path, game = self.path(modules, meta), self.game
        ratio = PathDiscriminator(
            discriminator, path, game.game, game.penalty, size=self.fit.batch, label_dropout=dropout
        )
        return InTurn([score, ratio])

    @property
    def dials(self) -> Dials:
        """The dials of `sampling`."""
        s = self.sampling
        return Dials(s.steps, s.gan, s.churn, s.guidance)

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> DiffFlow:
        """The equation with score and log-ratio; with gan = 0 the denoiser's alone. Warns of guidance beside gan."""
        path = self.path(modules, meta, dials.guidance)
        if dials.gan == 0:
            score = guided(self.sampling.path, player(modules, "denoiser", Denoiser), dials.guidance)
            return at(self.sampling.path, score, churn=dials.churn, start=path.start)
        if dials.guidance != 1.0:
            warn_untrained(f"guidance = {dials.guidance:g}")
        discriminator = player(modules, "discriminator", Discriminator)
        return path.sampler(discriminator, dials.steps, dials.gan, dials.churn)[0]

    def solver(self, dials: Dials) -> Solver | None:
        """The solver of the training; None for the denoiser alone."""
        return None if dials.gan == 0 else SchedulePath.solver  # the very steps that the discriminator was trained on

    def check(self, dials: Dials, solver: Solver | None, grid: Grid | None) -> None:
        """Warn of another solver or grid than the particles of the training had."""
        if dials.gan != 0 and solver not in (None, SchedulePath.solver):
            warn_untrained(f"solver = {solver}")
        if dials.gan != 0 and grid is not None:
            warn_untrained("a grid of your own")


def warn_untrained(what: str) -> None:
    """Warn that a setting makes another process than the one that a discriminator was trained on."""
    warnings.warn(
        f"{what} moves the particles otherwise than in training: this discriminator does not know their law, and its "
        "ratio is a guess. Leave it out, or use gan=0",
        stacklevel=3,
    )
