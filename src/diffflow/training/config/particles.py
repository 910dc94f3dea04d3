"""Generators, moved by a velocity field: of a discriminator (GAN), of two scores (Score GAN), or of the samples and the
data alone (drifting, MMD, sliced Wasserstein)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...equation.kernels import (
    MMD,
    CloudField,
    Drifting,
    EnergyKernel,
    GaussianKernel,
    LaplaceKernel,
    Several,
    SlicedWasserstein,
)
from ...equation.noise import Noise
from ...equation.sde import DiffFlow
from ...networks.backbones.generator import ConvGenerator, MLPGenerator
from ...networks.discriminator import Discriminator
from ...networks.generator import FewSteps, Generator
from ...objectives.base import Objective
from ...objectives.follow_velocity import Generate
from ...objectives.movers.adversarial import Critic
from ...objectives.movers.cloud import CloudMover
from ...objectives.movers.score_difference import DMD, KarrasLevels, LogUniformLevels, ScoreDifference, ScoreGAN, SiD
from ...sampling.plan import Plan
from ...sampling.sample import Grid, Step, Trajectory
from ...sampling.solvers import Solver
from .base import DataConfig, Dials, FitConfig, PlayerConfig, TrainConfig, device_of, fill
from .game import CriticNet, GameConfig, MLPCriticConfig, as_critic, class_count
from .plain import require
from .score import ModelConfig, as_denoiser


@dataclass(frozen=True)
class MLPGeneratorConfig:
    """The generator of vectors (nets/generator.py)."""

    latent: int = 16
    """Numbers of the latent z."""
    width: int = 128
    """Units of a layer."""
    depth: int = 3
    """Residual blocks."""
    waves: int = 0
    """Fourier features of z."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        require(
            len(shape) == 1,
            f"MLPGeneratorConfig is for vectors, and the data has shape {shape}: use a ConvGeneratorConfig (its `type` "
            "in a --config file, or another --preset)",
        )
        return MLPGenerator(self.latent, shape[0], classes, self.width, self.depth, self.waves)


@dataclass(frozen=True)
class ConvGeneratorConfig:
    """The generator of images (nets/generator.py)."""

    latent: int = 64
    """Numbers of the latent z."""
    widths: tuple[int, ...] = (64, 32)
    """Channels of the blocks, each of which doubles the image."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        require(
            len(shape) == 3,
            f"ConvGeneratorConfig is for images, and the data has shape {shape}: use an MLPGeneratorConfig (its `type` "
            "in a --config file, or another --preset)",
        )
        return ConvGenerator(self.latent, (shape[0], shape[1], shape[2]), classes, self.widths)


GeneratorNet = MLPGeneratorConfig | ConvGeneratorConfig


@dataclass(frozen=True)
class GeneratorSampling:
    """How samples are drawn when nobody says otherwise: in one evaluation."""

    ema: float | None = None
    """Width of the weight average to use; none: the player's first."""


class GeneratorConfig(TrainConfig, family=False):
    """What families with a generator share: a sample costs a fixed number of evaluations, mostly one, and there is no
    equation to solve."""

    @property
    def evaluations(self) -> int:
        """Of networks, for a sample."""
        return 1

    @property
    def dials(self) -> Dials:
        return Dials(steps=self.evaluations)

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> DiffFlow:
        raise ValueError("a generator has no equation: it has learned where its particles end (sample)")

    def draw(
        self,
        modules: Mapping[str, nn.Module],
        meta: Mapping[str, Any],
        n: int,
        dials: Dials,
        cond: Tensor | None = None,
        noise: Noise = Noise(0),
        solver: Solver | None = None,
        grid: Grid | None = None,
        keep: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Trajectory:
        """As for every family; where there are classes and none are asked for, they are drawn at random."""
        asked = {k: v for k, v in dataclasses.asdict(dials).items() if v != getattr(self.dials, k)}
        asked |= {k: v for k, v in {"solver": solver, "grid": grid, "keep": keep}.items() if v is not None}
        if asked:
            raise ValueError(
                f"{', '.join(f'{k} = {v}' for k, v in asked.items())}: a generator draws in "
                f"{'one evaluation' if self.evaluations == 1 else f'{self.evaluations} evaluations'}, and has no "
                "steps, dials, solver, grid or states between; leave it out"
            )
        generator = modules["generator"]
        assert isinstance(generator, Generator)
        if generator.classes:
            some = noise.fork("class").randint(n, generator.classes, device=device_of(modules))
            cond = some if cond is None else torch.where(cond < 0, some, cond)
        x = generator.draw(n, noise.fork("start"), cond)
        if on_step is not None:
            on_step(Step(1, 1, 1.0, x))
        return Trajectory(x, self.evaluations, torch.tensor([0.0, 1.0], dtype=torch.float64), [])


@dataclass(frozen=True)
class GANNets:
    """The two networks."""

    generator: GeneratorNet = field(default_factory=MLPGeneratorConfig)
    """G(z)."""
    discriminator: CriticNet = field(default_factory=MLPCriticConfig)
    """d(x)."""


@dataclass(frozen=True)
class MoveConfig:
    """How a generator follows the field that moves its samples."""

    eta: float = 1.0
    """How far samples are moved, in units of the velocity. With one regression step it scales the gradient only."""
    steps: int = 1
    """Regression steps toward each target; 1 is exactly the classical step."""
    updates: int = 1
    """Turns of the field's own network (discriminator, second denoiser) per step."""
    reuse: bool = False
    """Let these turns learn from the very samples that are about to move, instead of drawing fresh ones for each."""

    def __post_init__(self) -> None:
        require(self.eta > 0, f"move.eta = {self.eta} must be positive")
        require(
            min(self.steps, self.updates) >= 1,
            f"move.steps = {self.steps} and move.updates = {self.updates} must be at least 1",
        )


@dataclass(frozen=True)
class GANConfig(GeneratorConfig):
    """A generator moved by a discriminator (Algorithm 1 of the DiffFlow paper): every GAN is a row of critic.GAMES."""

    data: DataConfig = DataConfig()
    model: GANNets = GANNets()
    game: GameConfig = GameConfig()
    move: MoveConfig = MoveConfig()
    generator: PlayerConfig = PlayerConfig()
    discriminator: PlayerConfig = PlayerConfig()
    fit: FitConfig = FitConfig()
    sampling: GeneratorSampling = GeneratorSampling()

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

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> Generate:
        critic = Critic(as_critic(modules["discriminator"]), self.game.game, self.game.penalty, self.move.updates)
        return Generate(as_generator(modules["generator"]), critic, self.move.eta, self.move.steps, self.move.reuse)


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

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> Generate:
        data = self.model.build(meta).to(device_of(modules))
        mover = ScoreDifference(
            data, as_denoiser(modules["fake"]), self.pull, self.levels, self.move.updates, self.guidance
        )
        return Generate(as_generator(modules["generator"]), mover, self.move.eta, self.move.steps, self.move.reuse)

    def begin(self, objective: Objective, weights: Mapping[str, Mapping[str, Tensor]], source: str) -> None:
        """The data's denoiser, the second one and the generator all start from the other run's denoiser."""
        assert isinstance(objective, Generate)
        assert isinstance(objective.mover, ScoreDifference)
        require(
            "denoiser" in weights,
            f"--init-from {source} has no denoiser (it has {', '.join(sorted(weights))}): name one of diffusion",
        )
        start = objective.generator.net
        assert isinstance(start, FewSteps)
        for denoiser in (objective.mover.data, objective.mover.fake, start.denoiser):
            fill(denoiser, weights["denoiser"], source)


@dataclass(frozen=True)
class DriftingConfig:
    """Toward the data's kernel-weighted mean, away from the samples' own (kernels.Drifting)."""

    temperatures: tuple[float, ...] = (0.1, 0.4)
    """tau of the kernels exp(-|x-y|/tau), whose fields add up: wide ones to come, narrow ones to settle."""
    gaussian: bool = False
    """Gaussian kernels of these widths instead: each field is then the difference of two kernel scores."""
    others: bool = True
    """A sample is drawn away from the other ones only, as in the paper; else its own kernel holds it, too."""

    row: ClassVar[str] = "drifting-generator"

    def __post_init__(self) -> None:
        require(
            len(self.temperatures) > 0 and min(self.temperatures) > 0,
            f"mover.temperatures = {self.temperatures} must be positive lengths, at least one",
        )

    def build(self, data: Tensor) -> CloudField:
        kernel = GaussianKernel if self.gaussian else LaplaceKernel
        return Several([Drifting(data, kernel(tau), self.others) for tau in self.temperatures])


@dataclass(frozen=True)
class MMDConfig:
    """Descent of the maximum mean discrepancy (kernels.MMD)."""

    bandwidth: float | None = None
    """Of a Gaussian kernel; none: the energy distance, which needs no scale."""

    row: ClassVar[str] = "mmd-generator"

    def build(self, data: Tensor) -> CloudField:
        return MMD(data, EnergyKernel() if self.bandwidth is None else GaussianKernel(self.bandwidth))


@dataclass(frozen=True)
class SlicedWassersteinConfig:
    """Descent of the sliced Wasserstein distance (kernels.SlicedWasserstein)."""

    directions: int = 64
    """Random directions per step."""

    row: ClassVar[str] = "sw-generator"

    def build(self, data: Tensor) -> CloudField:
        return SlicedWasserstein(data, self.directions)


@dataclass(frozen=True)
class FieldConfig(GeneratorConfig):
    """A generator moved by a field of its samples and the data alone: no second network."""

    data: DataConfig = DataConfig()
    model: GeneratorNet = field(default_factory=MLPGeneratorConfig)
    mover: DriftingConfig | MMDConfig | SlicedWassersteinConfig = field(default_factory=DriftingConfig)
    move: MoveConfig = MoveConfig()
    generator: PlayerConfig = PlayerConfig()
    fit: FitConfig = FitConfig()
    sampling: GeneratorSampling = GeneratorSampling()

    def __post_init__(self) -> None:
        require(
            self.move.updates == 1,
            f"move.updates = {self.move.updates}: a field of the cloud and the data has no network that learns",
        )

    whole_batch: ClassVar[str] = "a field is made of the whole batch, and the cloud of a field lives in one process"

    @property
    def row(self) -> str:
        return self.mover.row

    def players(self) -> dict[str, PlayerConfig]:
        return {"generator": self.generator}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        shape = tuple(meta["shape"])
        return {"generator": Generator(self.model.build(shape, class_count(meta)), shape)}

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> Generate:
        device = device_of(modules)
        mover = CloudMover(self.mover.build(torch.zeros(2, *meta["shape"], device=device)))  # the batch takes its place
        return Generate(as_generator(modules["generator"]), mover, self.move.eta, self.move.steps, self.move.reuse)


def as_generator(module: nn.Module) -> Generator:
    assert isinstance(module, Generator)
    return module
