"""Score GAN: a generator moved by the difference of two scores, the data's and that of its own samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ..data.augment import LABELS
from ..networks.denoiser import Denoiser
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
    device_of,
    fill,
    of_kind,
    player,
)
from .diffusion import ModelConfig
from .settings.common import DataConfig, FitConfig, PlayerConfig
from .settings.games import class_count
from .settings.serialise import ConfigError, require

DIFFERENCE = "the difference of two denoisers at random noise levels: the data’s, and that of the samples"


@dataclass(frozen=True)
class ScoreGANConfig(GeneratorConfig):
    """A generator moved by the difference of two scores: the data's, and its own samples'.

    The data's comes from a run of a denoiser that must be given (--init-from); its samples' is learned beside it.
    Generator and second denoiser start as copies of the first.

    Raises:
        ConfigError: a sigma that is not positive.
    """

    data: DataConfig = DataConfig()
    """What to learn from."""
    model: ModelConfig = ModelConfig()
    """The denoiser, that of the run it starts from."""
    sigma: float = 3.0
    """Noise of the one long step that the generator starts as (FewSteps), in standard deviations of the data."""
    pull: ScoreGAN | DMD | SiD = field(default_factory=ScoreGAN)
    """How the two denoisers make a velocity: Score GAN (any power of sigma: Diff-Instruct), DMD, SiD."""
    levels: KarrasLevels | LogUniformLevels = field(default_factory=LogUniformLevels)
    """Noise levels at which the two are compared."""
    guidance: float = 1.0
    """Classifier-free guidance of the data's denoiser; 1 is none."""
    move: MoveConfig = MoveConfig(updates=2)
    """How the generator follows what moves its samples."""
    generator: PlayerConfig = PlayerConfig()
    """How the generator moves: learning rate, averages, clipping."""
    fake: PlayerConfig = PlayerConfig()
    """How the second denoiser moves: learning rate, averages, clipping."""
    fit: FitConfig = FitConfig()
    """The training loop."""
    sampling: GeneratorSampling = GeneratorSampling()
    """How samples are drawn when nobody says otherwise."""

    needs_start: ClassVar[str] = "Score GAN needs a trained denoiser of the same data"

    def __post_init__(self) -> None:
        require(0 < self.sigma < math.inf, f"sigma = {self.sigma} must be positive")

    def after(self, run: TrainConfig) -> Self:
        """These settings with the data and the network of a run of a denoiser.

        Args:
            run: the settings of that run.

        Raises:
            ConfigError: it has no denoiser that stands alone, or guidance asks for label dropout that it lacks.
        """
        model = getattr(run, "model", None)
        if not isinstance(model, ModelConfig) or run.composite:
            raise ConfigError(f"{self.needs_start}, by itself, not a {type(run).__name__}")
        require(
            self.guidance == 1 or model.label_dropout > 0,
            f"guidance = {self.guidance} compares with samples of no class, and that run was trained without them "
            "(model.label_dropout = 0): leave it at 1, or train the denoiser with label dropout",
        )
        net: Any = model.net
        if run.data.augment and hasattr(net, "augment_labels"):  # weights of a net that was told of changed pictures
            model = replace(model, net=replace(net, augment_labels=LABELS))
        return replace(self, data=replace(run.data, augment=0.0, augment_by=None), model=model)

    words: ClassVar[Words] = Words("A generator and the denoiser of its own samples", ONE_EVALUATION)

    @property
    def target(self) -> str:
        """The noised data, as HTML."""
        return "the data noised by <i>σ</i>, drawn at random"

    def moved_rows(self) -> list[tuple[str, str]]:
        """The row of the difference of two denoisers."""
        return [(RATIO, DIFFERENCE)]

    @property
    def least_steps(self) -> int:
        """Few: it begins as a denoiser."""
        return 1000

    @property
    def row(self) -> str:
        """The row "score-gan" of the catalogue."""
        return "score-gan"

    def players(self) -> dict[str, PlayerConfig]:
        """How the generator and the denoiser of its samples ("fake") are trained."""
        return {"generator": self.generator, "fake": self.fake}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        """The generator, a denoiser sampled by a plan, and the denoiser of its samples."""
        class_count(meta)
        return {"generator": self.few_steps(meta, self.sampler(meta)), "fake": self.model.build(meta)}

    def sampler(self, meta: Mapping[str, Any]) -> Plan:
        """The plan that the generator starts as: one step from `sigma`."""
        return Plan.multistep([self.sigma * float(meta["std"])])

    def few_steps(self, meta: Mapping[str, Any], plan: Plan) -> Generator:
        """A denoiser, sampled by a plan, as a generator.

        Args:
            meta: describes the data.
            plan: the noise levels and the weights of the steps.
        """
        shape = tuple(meta["shape"])
        return Generator(FewSteps(self.model.build(meta), plan, shape, float(meta["mean"])), shape)

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> FollowVelocity:
        """The generator follows the difference of the two denoisers."""
        data = self.model.build(meta).to(device_of(modules))
        mover = ScoreDifference(
            data, player(modules, "fake", Denoiser), self.pull, self.levels, self.move.updates, self.guidance
        )
        return FollowVelocity(
            player(modules, "generator", Generator), mover, self.move.eta, self.move.steps, self.move.reuse
        )

    def begin(self, objective: Objective, weights: Mapping[str, Mapping[str, Tensor]], source: str) -> None:
        """Start the data's denoiser, the second one and the generator from the other run's denoiser."""
        objective = of_kind(objective, FollowVelocity)
        mover = of_kind(objective.mover, ScoreDifference)
        require(
            "denoiser" in weights,
            f"--init-from {source} has no denoiser (it has {', '.join(sorted(weights))}): name one of diffusion",
        )
        start = of_kind(objective.generator.net, FewSteps)
        for denoiser in (mover.data, mover.fake, start.denoiser):
            fill(denoiser, weights["denoiser"], source)
