"""Distillation: a run's own sampler of few steps becomes a generator (`diffflow distill`).

At N evaluations the discretisation error of a sampler is a mismatch between the law p of its samples and the data's r,
which a velocity of the particle view mends, trained into its weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..equation.schedule import EDM
from ..networks.backbones.unet import WayDown
from ..networks.denoiser import FORMS, Denoiser, quarter_log
from ..networks.discriminator import Discriminator
from ..networks.games import Penalty
from ..networks.generator import FewSteps, Generator
from ..objectives.base import Objective
from ..objectives.follow_velocity import FollowVelocity
from ..objectives.movers.adversarial import DiscriminatorMover
from ..objectives.movers.base import Mover, TeacherFirst, WeightedSum
from ..objectives.movers.endpoints import EndpointDistillation
from ..objectives.movers.moments import Moments
from ..objectives.movers.score_difference import ScoreDifference
from ..sampling.grids import snr_grid
from ..sampling.plan import Plan
from .base import RATIO, TrainConfig, Words, device_of, fill, of_kind, player
from .diffusion import ModelConfig
from .score_gan import DIFFERENCE, ScoreGANConfig
from .settings.common import PlayerConfig
from .settings.games import GameConfig, class_count
from .settings.networks import DiscriminatorNet, MLPDiscriminatorConfig
from .settings.serialise import require

LOWEST = 0.3  # last level of a sampler of several steps, in standard deviations of the data
PAPERS = {
    "score": ("franceschi2023", "yin2024"),
    "ratio": ("goodfellow2014", "jolicoeur2019", "huang2024"),
    "twins": ("gong2019",),
    "moments": ("olkin1982",),
    "endpoints": ("luhman2021",),
}


@dataclass(frozen=True)
class PlanConfig:
    """A sampling plan (sampling/plan.py), as plain numbers.

    Raises:
        ConfigError: rows of weights that do not fit the levels.
    """

    levels: tuple[float, ...] = ()
    """Noise levels; none: no plan."""
    weights: tuple[float, ...] = ()
    """Its rows one after the other, i + 1 numbers in row i."""

    def __post_init__(self) -> None:
        n = len(self.levels)
        require(
            len(self.weights) == n * (n + 1) // 2,
            f"plan.weights are {len(self.weights)} numbers: rows of 1 to {n} for {n} levels are {n * (n + 1) // 2}",
        )

    @classmethod
    def of(cls, plan: Plan) -> PlanConfig:
        """The settings of a plan. Raises ValueError for one that raises the noise."""
        if plan.noisy:
            raise ValueError("this plan raises the noise, and a generator has none but its z: take one without churn")
        rows = [(*row, *[0.0] * (i + 1 - len(row))) for i, row in enumerate(plan.weights)]
        return cls(plan.levels, tuple(itertools.chain.from_iterable(rows)))

    @property
    def plan(self) -> Plan:
        """The sampling plan of these numbers."""
        rows = [self.weights[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2] for i in range(len(self.levels))]
        return Plan(self.levels, tuple(rows))


@dataclass(frozen=True)
class UNetDiscriminatorConfig:
    """The discriminator for images that begins as the run's own denoiser (`NetConfig.discriminator`).

    It is the way down of the denoiser's net, a U-Net of either kind, at a fixed noise level.

    Raises:
        ConfigError: a level that is not positive and finite.
    """

    level: float = 0.3
    """The noise level that the net is told, in standard deviations of the data; none is added."""

    def __post_init__(self) -> None:
        require(0 < self.level < math.inf, f"discriminator_net.level = {self.level} must be positive and finite")

    def build(self, model: ModelConfig, meta: Mapping[str, Any]) -> Discriminator:
        """The discriminator.

        Args:
            model: the settings of the denoiser.
            meta: describes the data.

        Raises:
            ConfigError: the denoiser's net has no way down.
        """
        net, std = model.net.discriminator(tuple(meta["shape"]), class_count(meta)), float(meta["std"])
        sigma = torch.tensor(self.level * std, dtype=torch.float64)
        time, factor = quarter_log(sigma).item(), FORMS[model.form].at(sigma, std).c.item()
        return Discriminator(
            net,
            time=lambda t: torch.full_like(t, time),
            precondition=lambda t: torch.full_like(t, factor),
        )


@dataclass(frozen=True)
class DistillConfig(ScoreGANConfig):
    """A sampler of few steps of a run's denoiser as a generator (`diffflow distill`).

    It is moved by the score difference, by the log-ratio, or by both, after a first phase toward the ends of fine
    solutions; or by these alone.

    Raises:
        ConfigError: weights and phases that contradict each other, or a number out of its range.
    """

    evaluations: int = 1  # pyright: ignore[reportIncompatibleMethodOverride]
    """Evaluations a sample."""
    plan: PlanConfig = PlanConfig()
    """The sampler to start as; without one, equal ratios of noise from sigma."""
    score: float = 1.0
    """Weight of the score difference (Score GAN, by `pull`); 0: none, and no second denoiser."""
    ratio: float = 0.03
    """Weight of the log-ratio's gradient, of a discriminator of samples and data; 0: none, and no discriminator."""
    moments: float = 0.0
    """Weight of what the means and variances of the generated samples lack (objectives/moments.py), beside these."""
    teacher_first_steps: int | None = 0
    """Steps of the first phase; none: all of them, which is plain distillation of the solver."""
    teacher_steps: int = 20
    """Evaluations of the fine solutions: the classical exponential multistep method of order 4 on the default grid."""
    sigma_min: float = 0.002
    """Lowest noise level of the fine solutions: the run's own."""
    sigma_max: float = 80.0
    """Highest noise level of the fine solutions: the run's own."""
    discriminator_net: DiscriminatorNet | UNetDiscriminatorConfig = field(default_factory=MLPDiscriminatorConfig)
    """d(x)."""
    game: GameConfig = GameConfig("relativistic", Penalty(real=0.02, fake=0.02))
    """What the discriminator minimises."""
    penalty_share: float = 0.25
    """Share of the samples at which the penalty is taken, at so much more of its weight."""
    instance_noise: float = 0.0
    """Noise on all that the discriminator sees, in data standard deviations: what is finer than that is left alone."""
    discriminator: PlayerConfig = PlayerConfig()
    """How the discriminator moves: learning rate, averages, clipping."""

    needs_start: ClassVar[str] = "distillation needs a trained denoiser of the same data"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.evaluations >= 1, f"evaluations = {self.evaluations} must be at least 1")
        require(
            len(self.plan.levels) in (0, self.evaluations),
            f"plan.levels are {len(self.plan.levels)}: give {self.evaluations}, as many as evaluations, or none",
        )
        require(
            min(self.score, self.ratio, self.moments) >= 0 and math.isfinite(self.score + self.ratio + self.moments),
            f"score = {self.score}, ratio = {self.ratio} and moments = {self.moments} must be finite, and not negative",
        )
        require(
            (self.score > 0 or self.ratio > 0) != (self.teacher_first_steps is None),
            f"score = {self.score}, ratio = {self.ratio}, teacher_first_steps = {self.teacher_first_steps}: what "
            "moves the generator after its first "
            "phase? With teacher_first_steps = none, and only there, both weights are 0",
        )
        require(
            self.moments == 0 or self.teacher_first_steps is not None,
            f"moments = {self.moments} go beside a score difference or a log-ratio: with teacher_first_steps = "
            "none leave them at 0",
        )
        require(
            self.teacher_first_steps is None or self.teacher_first_steps >= 0,
            f"teacher_first_steps = {self.teacher_first_steps} must not be negative",
        )
        require(
            self.teacher_first_steps == 0 or self.teacher_steps > self.evaluations,
            f"teacher_steps = {self.teacher_steps} must be more than the {self.evaluations} evaluations of the sampler",
        )
        require(
            0 < self.penalty_share <= 1,
            f"penalty_share = {self.penalty_share} must be a share of the samples in (0, 1]",
        )
        require(
            self.penalty_share == 1 or not self.game.penalty.between,
            f"penalty_share = {self.penalty_share} goes with penalties at real and generated points; with "
            "game.penalty.between "
            "leave it at 1",
        )
        require(
            0 <= self.instance_noise < math.inf,
            f"instance_noise = {self.instance_noise}: noise on what the discriminator sees is >= 0",
        )
        require(
            0 < self.sigma_min < self.sigma_max < math.inf,
            f"sigma_min = {self.sigma_min} must be positive and below sigma_max = {self.sigma_max}",
        )
        require(
            self.guidance == 1 or self.teacher_first_steps == 0,
            f"guidance = {self.guidance} is of the score difference: the fine solutions of the first phase have none "
            "(teacher_first_steps = 0)",
        )

    words: ClassVar[Words] = Words(
        "The sampler of a few steps, as a generator",
        "New examples are drawn by a fixed number of steps, whose weights have learned where the particles of the "
        "equation below go.",
    )

    @property
    def target(self) -> str:
        """The data, noised where a score moves the samples, as HTML."""
        return "the data, noised by <i>σ</i> for the scores" if self.score else "the data itself"

    def moved_rows(self) -> list[tuple[str, str]]:
        """The row of what moves the samples."""
        symbol = "velocity" if self.teacher_first_steps is None else f"<i>β</i> {RATIO}"
        return [(symbol, escape(self.moved_by()))]

    def moved_by(self) -> str:
        """What moves the samples, in words."""
        discriminator = f"the gradient of a discriminator of samples and data; game {self.game.loss}"
        parts = [f"{w:g} × {what}" for w, what in ((self.score, DIFFERENCE), (self.ratio, discriminator)) if w]
        endpoints = f"to the ends of fine solutions ({self.teacher_steps} evaluations) from the same noise"
        if not parts:
            return endpoints
        phase = f"; in the first {self.teacher_first_steps} steps {endpoints}" if self.teacher_first_steps else ""
        return " + ".join(parts) + phase

    @property
    def row(self) -> str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """No row of the catalogue: what moves the samples is free."""
        return None

    @property
    def by(self) -> str:
        """What moves the samples, in a word."""
        if self.teacher_first_steps is None:
            return "endpoints"
        return "both" if self.score and self.ratio else "score" if self.score else "ratio"

    @property
    def papers(self) -> tuple[str, ...]:
        """The papers of what moves the samples."""
        twins = self.ratio > 0 and isinstance(self.discriminator_net, UNetDiscriminatorConfig)
        used = {
            "score": self.score > 0,
            "ratio": self.ratio > 0,
            "twins": twins,
            "moments": self.moments > 0,
            "endpoints": self.teacher_first_steps != 0,
        }
        return tuple(paper for name, uses in used.items() if uses for paper in PAPERS[name])

    def after(self, run: TrainConfig) -> Self:
        """These settings with the data, the network and the noise levels of a run of a denoiser.

        The data are taken as they are: noise that fills the steps of a scale is for densities, and a discriminator
        would ask the generator for it.

        Args:
            run: the settings of that run.

        Raises:
            ConfigError: it has no denoiser that stands alone, or guidance asks for label dropout that it lacks.
        """
        settings, levels = super().after(run), run.sampling
        data = replace(settings.data, dequantise=False)
        return replace(settings, data=data, sigma_min=levels.sigma_min, sigma_max=levels.sigma_max)

    def players(self) -> dict[str, PlayerConfig]:
        """How the generator is trained, and second denoiser and discriminator where they have weight."""
        configs = {"generator": self.generator}
        if self.score > 0:
            configs["fake"] = self.fake
        if self.ratio > 0:
            configs["discriminator"] = self.discriminator
        return configs

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        """The generator, and second denoiser and discriminator where they have weight."""
        classes = class_count(meta)
        modules: dict[str, nn.Module] = {"generator": self.few_steps(meta, self.sampler(meta))}
        if self.score > 0:
            modules["fake"] = self.model.build(meta)
        if self.ratio > 0:
            modules["discriminator"] = (
                self.discriminator_net.build(self.model, meta)
                if isinstance(self.discriminator_net, UNetDiscriminatorConfig)
                else Discriminator(self.discriminator_net.build(tuple(meta["shape"]), classes, timed=False))
            )
        return modules

    def sampler(self, meta: Mapping[str, Any]) -> Plan:
        """The plan that the generator starts as.

        Without one of its own: equal ratios from sigma to the smallest scale that one denoising can still make sharp.
        """
        if self.plan.levels:
            return self.plan.plan
        high, n = self.sigma * float(meta["std"]), self.evaluations
        low = min(LOWEST * float(meta["std"]), high / 2)
        return Plan.multistep([high * (low / high) ** (i / max(1, n - 1)) for i in range(n)])

    def teacher(self, meta: Mapping[str, Any]) -> Plan:
        """The plan of the fine solutions."""
        principal_std, schedule = float(meta["principal_std"]), EDM(self.sigma_min, self.sigma_max)
        levels = schedule.sigma(snr_grid(schedule, self.teacher_steps, principal_std)[:-1]).tolist()
        return Plan.multistep([self.sigma_max, *levels[1:]], 4, principal_std)

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> FollowVelocity:
        """The generator follows the weighted sum of what moves it, after the first phase."""
        device = device_of(modules)
        movers: list[tuple[float, Mover]] = []
        of_bytes = meta["kind"] == "image" and not meta["transform"]["mean"] and "latent" not in meta
        data_range = 1.0 if of_bytes else math.inf  # images are saved so (Transform.decode)
        if self.score > 0:
            data, fake = self.model.build(meta).to(device), player(modules, "fake", Denoiser)
            mover = ScoreDifference(data, fake, self.pull, self.levels, self.move.updates, self.guidance)
            movers.append((self.score, mover))
        if self.ratio > 0:
            mover = DiscriminatorMover(
                player(modules, "discriminator", Discriminator),
                self.game.game,
                self.game.penalty,
                self.move.updates,
                penalty_share=self.penalty_share,
                instance_noise=self.instance_noise * float(meta["std"]),
                data_range=data_range,
            )
            movers.append((self.ratio, mover))
        if self.moments > 0:
            movers.append((self.moments, Moments(tuple(meta["shape"]), class_count(meta), data_range=data_range)))
        mover: Mover = WeightedSum(movers)
        if self.teacher_first_steps != 0:
            endpoints = EndpointDistillation(self.few_steps(meta, self.teacher(meta)).to(device))
            mover = (
                endpoints
                if self.teacher_first_steps is None
                else TeacherFirst(endpoints, self.teacher_first_steps * self.fit.batch, mover)
            )
        return FollowVelocity(
            player(modules, "generator", Generator), mover, self.move.eta, self.move.steps, self.move.reuse
        )

    def begin(self, objective: Objective, weights: Mapping[str, Mapping[str, Tensor]], source: str) -> None:
        """Start generator, second denoiser and what they are compared with from the other run's denoiser.

        So may the discriminator.
        """
        objective = of_kind(objective, FollowVelocity)
        require(
            "denoiser" in weights,
            f"{source} has no denoiser (it has {', '.join(sorted(weights))}): name a run of diffusion",
        )
        for denoiser in denoisers(objective.generator, objective.mover):
            fill(denoiser, weights["denoiser"], source)
        judge = objective.players.get("discriminator")
        if isinstance(judge, Discriminator) and isinstance(judge.net, WayDown):
            net_weights = {k.removeprefix("net."): v for k, v in weights["denoiser"].items()}
            judge.net.begin(net_weights, classless=self.model.label_dropout > 0)


def denoisers(*parts: Any) -> Iterator[Denoiser]:
    """Every copy of the run's denoiser in a generator and in what moves it."""
    for part in parts:
        match part:
            case Generator(net=FewSteps(denoiser=denoiser)):
                yield denoiser
            case ScoreDifference(data=data, fake=fake):
                yield from (data, fake)
            case EndpointDistillation(teacher=teacher):
                yield from denoisers(teacher)
            case TeacherFirst(teacher=teacher, then=then):
                yield from denoisers(teacher, then)
            case WeightedSum(parts=movers):
                yield from denoisers(*(mover for _, mover in movers))
