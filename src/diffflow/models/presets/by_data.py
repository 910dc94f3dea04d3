"""Presets by data: diffusion models, with the budget that they were made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...objectives.score_matching import EDMWeighting, LikelihoodWeighting
from ...registry import name_of
from ..base import TrainConfig
from ..diffusion import ModelConfig, SamplingConfig, ScoreConfig
from ..settings.common import DataConfig, FitConfig, PlayerConfig
from ..settings.networks import MLPConfig, UNetConfig, UNetNDConfig
from . import budget
from .base import BY_DATA, Preset


def for_data(make: Callable[[], TrainConfig]) -> Callable[[], Preset]:
    """Enter a function that makes settings into BY_DATA, under its name, with the first line of its docstring."""
    name = name_of(make)

    def build() -> Preset:
        return Preset(name, build.__doc__ or "", make())

    build.__name__, build.__doc__ = make.__name__, (make.__doc__ or "").split("\n")[0]
    BY_DATA.own(name, build)
    return build


@for_data
def demo() -> ScoreConfig:
    """Scikit-learn's 8x8 digits by class, three minutes on two processor cores."""
    return ScoreConfig(
        DataConfig("digits"),
        ModelConfig(UNetConfig(widths=(32, 64), layers=1)),
        denoiser=PlayerConfig(lr=2e-3, decay=1000),
        fit=FitConfig(batch=128, minutes=3.0, sample_minutes=1.0, checkpoint_minutes=1.0),
    )


@for_data
def digits() -> ScoreConfig:
    """Scikit-learn's 8x8 digits by class, ten minutes on two processor cores."""
    return ScoreConfig(
        DataConfig("digits"),
        ModelConfig(UNetConfig(widths=(32, 64), layers=2)),
        denoiser=PlayerConfig(lr=2e-3, decay=1000),
        fit=FitConfig(batch=128, minutes=10.0),
    )


def grey() -> ScoreConfig:
    """Settings for small grey images, made for little time.

    The top level, where the pixels are, is narrow, and noise levels are shifted up from EDM's, to where a picture's
    plan is decided (at 25,000 images, 68 % instead of 32 % of the digits were recognised). They are sampled by the
    reverse SDE, whose noise repairs some of a young score's errors (96.4 % instead of 94.6 % after half an hour).
    """
    return ScoreConfig(
        model=ModelConfig(UNetConfig(widths=(16, 32, 64), layers=1)),
        loss=EDMWeighting(mean=-0.3, std=1.4),
        denoiser=PlayerConfig(lr=2e-3, decay=2000),
        fit=FitConfig(batch=32, minutes=30.0),
        sampling=SamplingConfig(churn=1.0),
    )


@for_data
def mnist() -> ScoreConfig:
    """MNIST and other small grey images, by class, thirty minutes on two processor cores."""
    return grey()


@for_data
def fashion() -> ScoreConfig:
    """Fashion-MNIST by class, thirty minutes on two processor cores."""
    return grey()


@for_data
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


@for_data
def pictures() -> ScoreConfig:
    """Pictures of any size, sized to budget and machine; thirty minutes where nobody says how long."""
    config = budget.settings(budget.Pictures(10_000, (3, 32, 32)), "M")
    return replace(config, fit=replace(config.fit, minutes=budget.MINUTES))


@for_data
def toy() -> ScoreConfig:
    """A cloud of points in the plane (8gaussians, moons, spirals, ...), two minutes on one processor core."""
    return ScoreConfig(
        DataConfig("8gaussians"),
        ModelConfig(MLPConfig(width=128, depth=3)),
        denoiser=PlayerConfig(lr=2e-3, decay=2000),
        fit=FitConfig(batch=1024, minutes=2.0, sample_minutes=1.0),
    )


@for_data
def table() -> ScoreConfig:
    """Rows of a table, words and gaps included, three minutes on one processor core, or until it gets no better.

    The path ends at a noise of .02, a tenth of what parts the values of a column of few. A tenth of the rows is kept
    aside: it ends the training where nothing gets better, and decides which average becomes the model.
    """
    return ScoreConfig(
        model=ModelConfig(MLPConfig(width=128, depth=3, octaves=(0, 1, 2, 3))),
        loss=EDMWeighting(mean=-0.8, std=1.6),
        denoiser=PlayerConfig(lr=2e-3, weight_decay=0.3, decay=2000),
        fit=FitConfig(batch=256, minutes=3.0, holdout=0.1, patience=2.0),
        sampling=SamplingConfig(steps=40, sigma_min=0.02, sigma_max=20.0),
    )


@for_data
def density() -> ScoreConfig:
    """Rows of numbers from .csv, .npy or .npz for their likelihoods, three minutes on one processor core.

    Trained for likelihood, with sines for narrow columns and, since rows are few, weight decay and a tenth kept aside
    that decides which average becomes the model. The path ends at a noise of .05 of a standard deviation: finer than
    that, few rows teach a net nothing but themselves.
    """
    low, high = 0.05, 20.0
    return ScoreConfig(
        model=ModelConfig(MLPConfig(width=128, depth=3, octaves=(0, 1, 2, 3))),
        loss=LikelihoodWeighting(low, high),
        denoiser=PlayerConfig(lr=2e-3, weight_decay=0.3, decay=2000),
        fit=FitConfig(batch=256, minutes=3.0, holdout=0.1),
        sampling=SamplingConfig(sigma_min=low, sigma_max=high),
    )


@for_data
def conditioned() -> ScoreConfig:
    """Rows of numbers given a condition, three minutes on one processor core.

    Samples start around the mean of all rows, whatever their condition: of the distance m between that mean and the
    condition's own, m/sigma_max standard deviations of the condition are left at the end as bias. So the path begins at
    80, where a density's may begin at 20. Nor is there weight decay, which pulls every condition's width to the mean.
    """
    return ScoreConfig(
        model=ModelConfig(MLPConfig(width=128, depth=3)),
        loss=EDMWeighting(mean=-0.8, std=1.4),
        denoiser=PlayerConfig(lr=2e-3, decay=2000),
        fit=FitConfig(batch=256, minutes=3.0, holdout=0.1),
        sampling=SamplingConfig(sigma_min=0.01, sigma_max=80.0),
    )


@for_data
def signal() -> ScoreConfig:
    """Signals (n, c, l) such as waveforms and time series, ten minutes on two processor cores."""
    return ScoreConfig(
        model=ModelConfig(UNetNDConfig(widths=(16, 32, 64))),
        loss=EDMWeighting(mean=-0.5, std=1.4),
        denoiser=PlayerConfig(lr=2e-3, decay=1000),
        fit=FitConfig(batch=64, minutes=10.0),
    )


@for_data
def volume() -> ScoreConfig:
    """Volumes (n, c, d, h, w) such as small scans and fields, thirty minutes on two processor cores."""
    return ScoreConfig(
        model=ModelConfig(UNetNDConfig(widths=(16, 32, 64))),
        loss=EDMWeighting(mean=-0.5, std=1.4),
        denoiser=PlayerConfig(lr=2e-3, decay=1000),
        fit=FitConfig(batch=16, minutes=30.0),
    )
