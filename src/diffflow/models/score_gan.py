"""Score GAN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from ..networks.generator import FewSteps, Generator
from ..objectives.base import Objective
from ..objectives.follow_velocity import FollowVelocity
from ..objectives.movers.score_difference import DMD, KarrasLevels, LogUniformLevels, ScoreDifference, ScoreGAN, SiD
from ..sampling.plan import Plan
from .base import (
    ONE_EVALUATION,
    RATIO,
    GeneratorConfig,
    GeneratorSampling,
    MoveConfig,
    TrainConfig,
    Words,
    as_generator,
    device_of,
    fill,
)
from .diffusion import ModelConfig, as_denoiser
from .settings.common import DataConfig, FitConfig, PlayerConfig
from .settings.games import class_count
from .settings.serialise import require

DIFFERENCE = "the difference of two denoisers at random noise levels: the data’s, and that of the samples"


@dataclass(frozen=True)
class ScoreGANConfig(GeneratorConfig):
    """A generator moved by the difference of two scores: the data's, from a run of a denoiser that must be given
    (--init-from), and its own samples', learned beside it. Generator and second denoiser start as copies of it."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    sigma: float = 3.0
    """Noise of the one long step that the generator starts as (FewSteps), in standard deviations of the data."""
    pull: ScoreGAN | DMD | SiD = field(default_factory=ScoreGAN)
    """How the two denoisers make a velocity: Score GAN (any power of sigma: Diff-Instruct), DMD, SiD."""
    levels: KarrasLevels | LogUniformLevels = field(default_factory=LogUniformLevels)
    """Noise levels at which the two are compared."""
    guidance: float = 1.0
    """Classifier-free guidance of the data's denoiser; 1 is none."""
    move: MoveConfig = MoveConfig(updates=2)
    generator: PlayerConfig = PlayerConfig()
    fake: PlayerConfig = PlayerConfig()
    fit: FitConfig = FitConfig()
    sampling: GeneratorSampling = GeneratorSampling()

    needs_start: ClassVar[str] = "Score GAN needs a trained denoiser of the same data"

    def __post_init__(self) -> None:
        require(0 < self.sigma < math.inf, f"sigma = {self.sigma} must be positive")

    def after(self, run: TrainConfig) -> ScoreGANConfig:
        """These settings with the data and the network of a run of a denoiser."""
        model = getattr(run, "model", None)
        apart = isinstance(model, ModelConfig) and not run.composite
        require(apart, f"{self.needs_start}, by itself, not a {type(run).__name__}")
        assert isinstance(model, ModelConfig)
        require(
            self.guidance == 1 or model.label_dropout > 0,
            f"guidance = {self.guidance} compares with samples of no class, and that run was trained without them "
            "(model.label_dropout = 0): leave it at 1, or train the denoiser with label dropout",
        )
        return replace(self, data=run.data, model=model)

    words: ClassVar[Words] = Words("A generator and the denoiser of its own samples", ONE_EVALUATION)

    @property
    def target(self) -> str:
        return "the data noised by <i>σ</i>, drawn at random"

    def moved_rows(self) -> list[tuple[str, str]]:
        return [(RATIO, DIFFERENCE)]

    @property
    def row(self) -> str:
        return "score-gan"

    def players(self) -> dict[str, PlayerConfig]:
        return {"generator": self.generator, "fake": self.fake}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        class_count(meta)
        return {"generator": self.few(meta, self.sampler(meta)), "fake": self.model.build(meta)}

    def sampler(self, meta: Mapping[str, Any]) -> Plan:
        """The sampler that the generator starts as."""
        return Plan.multistep([self.sigma * float(meta["std"])])

    def few(self, meta: Mapping[str, Any], plan: Plan) -> Generator:
        """A denoiser, sampled by this plan, as a generator."""
        shape = tuple(meta["shape"])
        return Generator(FewSteps(self.model.build(meta), plan, shape, float(meta["mean"])), shape)

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> FollowVelocity:
        data = self.model.build(meta).to(device_of(modules))
        mover = ScoreDifference(
            data, as_denoiser(modules["fake"]), self.pull, self.levels, self.move.updates, self.guidance
        )
        return FollowVelocity(
            as_generator(modules["generator"]), mover, self.move.eta, self.move.steps, self.move.reuse
        )

    def begin(self, objective: Objective, weights: Mapping[str, Mapping[str, Tensor]], source: str) -> None:
        """The data's denoiser, the second one and the generator all start from the other run's denoiser."""
        assert isinstance(objective, FollowVelocity)
        assert isinstance(objective.mover, ScoreDifference)
        require(
            "denoiser" in weights,
            f"--init-from {source} has no denoiser (it has {', '.join(sorted(weights))}): name one of diffusion",
        )
        start = objective.generator.net
        assert isinstance(start, FewSteps)
        for denoiser in (objective.mover.data, objective.mover.fake, start.denoiser):
            fill(denoiser, weights["denoiser"], source)
