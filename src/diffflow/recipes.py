"""Named runs: settings that are known to work, with the budget they were made for.

A recipe is a value; its function's first line says what it is for. `config` is the starting point that files and
flags then change. There are two kinds: by data (diffusion models, "mnist"), and by model ("gan", "discriminator-flow"),
whose networks and budgets are those of the `Scale` that fits the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from . import data as datasets
from .critic import Penalty
from .laws import TOYS
from .objectives.difference import LogUniformLevels
from .objectives.score import EDMWeighting
from .training.config import (
    ConfigError,
    ConvCriticConfig,
    ConvGeneratorConfig,
    DataConfig,
    DiffusionGANConfig,
    DiffusionGANSampling,
    DiscriminatorFlowConfig,
    DriftingConfig,
    FieldConfig,
    FitConfig,
    GameConfig,
    GANConfig,
    GANNets,
    MLPConfig,
    MLPCriticConfig,
    MLPGeneratorConfig,
    MMDConfig,
    ModelConfig,
    MoveConfig,
    PathConfig,
    PathCriticConfig,
    PlayerConfig,
    RangesConfig,
    SamplingConfig,
    ScoreConfig,
    ScoreGANConfig,
    SlicedWassersteinConfig,
    TrainConfig,
    UNetConfig,
    suggest,
)
from .training.config import replace as settings


@dataclass(frozen=True)
class Recipe:
    """A named starting point: one line about it, and the settings."""

    name: str
    about: str
    config: TrainConfig


RECIPES: dict[str, Callable[[], Recipe]] = {}
MODELS: dict[str, Callable[[str], Recipe]] = {}  # by model, for the scale of that name


def named(make: Callable[[], ScoreConfig]) -> Callable[[], Recipe]:
    """Enter settings into RECIPES under their function's name, with the first line of its docstring."""

    def build() -> Recipe:
        return Recipe(make.__name__, build.__doc__ or "", make())

    build.__name__, build.__doc__ = make.__name__, (make.__doc__ or "").split("\n")[0]
    RECIPES[make.__name__] = build
    return build


def recipe(name: str, source: str | None = None) -> Recipe:
    """The recipe of that name; a model's in the scale that fits `source` (as `DataConfig.source`; default: a toy).
    Raises ConfigError with a suggestion, and DataError for a source that is not there.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if name not in MODELS:
        raise ConfigError(f"unknown preset {name!r}{suggest(name, [*RECIPES, *MODELS])}")
    scale = "toy" if source is None else fitting(source)
    made = MODELS[name](scale)
    return made if source is None else replace(made, config=settings(made.config, {"data.source": source}))


def fitting(source: str) -> str:
    """The diffusion recipe, and the scale, for a source: by its name, else by the kind of file and the machine."""
    if source in TOYS:
        return "toy"
    if source == "digits":
        return "digits"
    path = Path(source).expanduser()
    if not path.exists():
        datasets.load(source)  # says what is wrong with the name
    table = path.name.lower().endswith((".csv", ".csv.gz"))
    if table or (path.suffix in (".npy", ".npz") and datasets.load(path).kind == "vector"):
        return "table"
    return "cifar10" if torch.accelerator.is_available() else "mnist"


# -- by data: diffusion models ----------------------------------------------------------------------------------------


@named
def demo() -> ScoreConfig:
    """Scikit-learn's 8x8 digits by class, three minutes on two processor cores."""
    return ScoreConfig(
        DataConfig("digits"),
        ModelConfig(UNetConfig(widths=(32, 64), layers=1)),
        denoiser=PlayerConfig(lr=2e-3, decay=1000),
        fit=FitConfig(batch=128, minutes=3.0, sample_minutes=1.0, checkpoint_minutes=1.0),
    )


@named
def digits() -> ScoreConfig:
    """Scikit-learn's 8x8 digits by class, ten minutes on two processor cores."""
    return ScoreConfig(
        DataConfig("digits"),
        ModelConfig(UNetConfig(widths=(32, 64), layers=2)),
        denoiser=PlayerConfig(lr=2e-3, decay=1000),
        fit=FitConfig(batch=128, minutes=10.0),
    )


def grey() -> ScoreConfig:
    """Made for little time: a narrow top level, where the pixels are, and noise levels shifted up from EDM's, to where
    a picture's plan is decided (at 25,000 images, 68 % instead of 32 % of the digits were recognised). Sampled by the
    reverse SDE, whose noise repairs some of a young score's errors (96.4 % instead of 94.6 % after half an hour)."""
    return ScoreConfig(
        model=ModelConfig(UNetConfig(widths=(16, 32, 64), layers=1)),
        loss=EDMWeighting(mean=-0.3, std=1.4),
        denoiser=PlayerConfig(lr=2e-3, decay=2000),
        fit=FitConfig(batch=32, minutes=30.0),
        sampling=SamplingConfig(churn=1.0),
    )


@named
def mnist() -> ScoreConfig:
    """MNIST and other small grey images, by class, thirty minutes on two processor cores."""
    return grey()


@named
def fashion() -> ScoreConfig:
    """Fashion-MNIST by class, thirty minutes on two processor cores."""
    return grey()


@named
def cifar10() -> ScoreConfig:
    """CIFAR-10 and other small colour images, a day on one GPU."""
    return ScoreConfig(
        data=DataConfig(flip=True),
        model=ModelConfig(UNetConfig(widths=(128, 256, 256), layers=3, head=64, groups=32)),
        denoiser=PlayerConfig(lr=1e-3, warmup=1000, decay=20_000),
        fit=FitConfig(
            batch=256, minutes=1440.0, precision="bf16", checkpoint_minutes=15.0, sample_minutes=15.0, log_every=100
        ),
    )


@named
def toy() -> ScoreConfig:
    """A cloud of points in the plane (8gaussians, moons, spirals, ...), two minutes on one processor core."""
    return ScoreConfig(
        DataConfig("8gaussians"),
        ModelConfig(MLPConfig(width=128, depth=3)),
        denoiser=PlayerConfig(lr=2e-3, decay=2000),
        fit=FitConfig(batch=1024, minutes=2.0, sample_minutes=1.0),
    )


@named
def table() -> ScoreConfig:
    """Rows of numbers from .csv, .npy or .npz, five minutes on two processor cores."""
    return ScoreConfig(
        model=ModelConfig(MLPConfig(width=256, depth=4)),
        denoiser=PlayerConfig(lr=1e-3, decay=4000),
        fit=FitConfig(batch=512, minutes=5.0),
    )


# -- by model ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """What fits a kind of data: the diffusion recipe whose data, denoiser and budget are taken over, and the networks
    of the other players.

    lr, decay   of the players of a game, and the step from which their rate falls
    penalty     weight of R1 and R2 in a game with a generator
    eta, hold   speed and weight of R2 of a Discriminator Flow: fast particles and a light hand on images, whose way is
                long; slow ones in the plane, where a particle that overshoots narrow modes is lost
    """

    diffusion: Callable[[], Recipe]
    critic: MLPCriticConfig | ConvCriticConfig
    generator: MLPGeneratorConfig | ConvGeneratorConfig
    batch: int
    lr: float
    decay: int
    penalty: float
    eta: float
    hold: float

    @property
    def base(self) -> ScoreConfig:
        config = self.diffusion().config
        assert isinstance(config, ScoreConfig)
        return config

    @property
    def fit(self) -> FitConfig:
        return replace(self.base.fit, batch=self.batch)


SCALES = {
    "toy": Scale(
        toy,
        MLPCriticConfig(64, 3, waves=32),
        MLPGeneratorConfig(2, 96, 3, waves=16),
        batch=128,
        lr=1e-3,
        decay=500,
        penalty=0.003,
        eta=1.0,
        hold=0.02,
    ),
    "table": Scale(
        table,
        MLPCriticConfig(256, 3),
        MLPGeneratorConfig(32, 256, 3),
        batch=128,
        lr=5e-4,
        decay=1000,
        penalty=0.01,
        eta=2.0,
        hold=0.02,
    ),
    "digits": Scale(
        demo,
        ConvCriticConfig((24, 48)),
        ConvGeneratorConfig(32, (64, 32)),
        batch=64,
        lr=1e-3,
        decay=1000,
        penalty=0.01,
        eta=40.0,
        hold=0.005,
    ),
    "mnist": Scale(
        mnist,
        ConvCriticConfig((16, 32, 64)),
        ConvGeneratorConfig(64, (64, 32, 16)),
        batch=64,
        lr=1e-3,
        decay=1000,
        penalty=0.01,
        eta=40.0,
        hold=0.002,
    ),
    "cifar10": Scale(
        cifar10,
        ConvCriticConfig((128, 256, 512)),
        ConvGeneratorConfig(128, (512, 256, 128)),
        batch=256,
        lr=2e-4,
        decay=20_000,
        penalty=0.01,
        eta=40.0,
        hold=0.002,
    ),
}


Make = TypeVar("Make", bound=Callable[[Scale], TrainConfig])


def model(make: Make) -> Make:
    """Enter a model's settings into MODELS under its function's name, with the first line of its docstring."""
    enter(make.__name__.replace("_", "-"), (make.__doc__ or "").split("\n")[0], make)
    return make


def enter(name: str, about: str, make: Callable[[Scale], TrainConfig]) -> None:
    def build(scale: str) -> Recipe:
        return Recipe(name, about, make(SCALES[scale]))

    build.__doc__ = about
    MODELS[name] = build


def adversary(scale: Scale) -> PlayerConfig:
    """Adam without memory of the gradient: in a game yesterday's gradient is of another opponent."""
    return PlayerConfig(lr=scale.lr, betas=(0.0, 0.99), warmup=0, clip=None, decay=scale.decay)


def played(loss: str) -> Callable[[Scale], GANConfig]:
    def make(scale: Scale) -> GANConfig:
        weight = scale.penalty
        penalty = Penalty(between=10.0 * weight, centre=1.0) if loss == "ipm" else Penalty(real=weight, fake=weight)
        return GANConfig(
            scale.base.data,
            GANNets(scale.generator, scale.critic),
            GameConfig(loss, penalty),
            MoveConfig(updates=1),
            adversary(scale),
            adversary(scale),
            scale.fit,
        )

    return make


for name, loss, about in (
    ("gan", "vanilla", "A generator and a discriminator, non-saturating loss."),
    (
        "gan-saturating",
        "saturating",
        "The GAN of the first paper's minimax game: slow where the discriminator is sure.",
    ),
    ("gan-kl", "kl", "A GAN whose samples descend KL(p|q): the log-ratio's gradient at unit speed."),
    ("lsgan", "lsgan", "A GAN with least-squares losses."),
    ("hinge", "hinge", "A GAN with the hinge loss."),
    ("ipm", "ipm", "A GAN whose discriminator is a witness of bounded slope (WGAN-GP)."),
    ("relativistic", "relativistic", "A GAN whose samples are judged against real partners (R3GAN)."),
    ("fgan-kl", "fgan-kl", "An f-GAN for KL(p|q)."),
    ("fgan-pearson", "fgan-pearson", "An f-GAN for Pearson's chi-squared divergence."),
):
    enter(name, about, played(loss))


@model
def discriminator_flow(scale: Scale) -> DiscriminatorFlowConfig:
    """Particles moved by one discriminator along their own path; no generator, no score."""
    return DiscriminatorFlowConfig(
        scale.base.data,
        PathCriticConfig(scale.critic),
        GameConfig("vanilla", Penalty(fake=scale.hold)),
        PathConfig(steps=25, eta=scale.eta),
        adversary(scale),
        scale.fit,
    )


@model
def improved_gan(scale: Scale) -> DiscriminatorFlowConfig:
    """One shared discriminator, told the time; the data's noise falls along the path, and particles follow."""
    base = discriminator_flow(scale)
    return replace(base, game=replace(base.game, loss="kl"), path=PathConfig(steps=25, eta=scale.eta, noise=0.5))


@model
def improved_gan_independent(scale: Scale) -> DiscriminatorFlowConfig:
    """The same with an independent discriminator per step."""
    base = improved_gan(scale)
    return replace(base, model=replace(base.model, stages=10), path=replace(base.path, steps=10))


@model
def diffusion_gan(scale: Scale) -> DiffusionGANConfig:
    """Score and discriminator together, with the dials gan, churn and steps free at sampling."""
    base = scale.base
    return DiffusionGANConfig(
        base.data,
        base.model,
        scale.critic,
        base.loss,
        GameConfig("vanilla", Penalty(real=scale.penalty, fake=scale.penalty)),
        RangesConfig(),
        base.denoiser,
        adversary(scale),
        scale.fit,
        DiffusionGANSampling(),
    )


@model
def score_gan(scale: Scale) -> ScoreGANConfig:
    """A generator moved by two scores, the data's (--init-from RUN) and its own samples'; one evaluation a sample."""
    base = scale.base
    return ScoreGANConfig(
        base.data,
        base.model,
        sigma=3.0,
        levels=LogUniformLevels(0.05, 3.0),
        generator=PlayerConfig(lr=1e-4, betas=(0.0, 0.99), warmup=0, clip=None),
        fake=PlayerConfig(lr=1e-3, betas=(0.0, 0.99), warmup=0),
        fit=replace(scale.fit, batch=64),
    )


def moved(mover: DriftingConfig | MMDConfig | SlicedWassersteinConfig) -> Callable[[Scale], FieldConfig]:
    def make(scale: Scale) -> FieldConfig:
        return FieldConfig(
            scale.base.data,
            scale.generator,
            mover,
            MoveConfig(),
            PlayerConfig(lr=scale.lr, betas=(0.9, 0.99), clip=None, decay=scale.decay),
            replace(scale.fit, batch=256),
        )

    return make


enter(
    "drifting",
    "A generator whose samples drift to the data's kernel mean, and from each other.",
    moved(DriftingConfig()),
)
enter("mmd-generator", "A generator that descends the maximum mean discrepancy.", moved(MMDConfig()))
enter("sw-generator", "A generator that descends the sliced Wasserstein distance.", moved(SlicedWassersteinConfig()))
