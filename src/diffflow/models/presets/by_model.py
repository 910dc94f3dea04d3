"""Presets by model: games, particle flows and generators, in the scale that fits the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ...networks.games import GAMES, Penalty
from ...objectives.movers.score_difference import DMD, LogUniformLevels, ScoreGAN
from ...registry import name_of
from ...sampling.plan import Plan
from ..base import MoveConfig, TrainConfig
from ..diffusion_gan import DiffusionGANConfig, DiffusionGANSampling, RangesConfig
from ..discriminator_flow import DiscriminatorFlowConfig, PathConfig, TimedDiscriminatorConfig
from ..distill import DistillConfig, PlanConfig, UNetDiscriminatorConfig
from ..field_generator import DriftingConfig, FieldConfig, MMDConfig, SlicedWassersteinConfig
from ..gan import GANConfig, GANNets
from ..score_gan import ScoreGANConfig
from ..settings.common import PlayerConfig
from ..settings.games import GameConfig
from ..settings.networks import MLPDiscriminatorConfig
from .base import BY_MODEL, Preset
from .scales import Scale, scale_of

Make = TypeVar("Make", bound=Callable[[Scale], TrainConfig])


def for_model(make: Make) -> Make:
    """Enter a function that makes settings into BY_MODEL, under its name, with the first line of its docstring.

    Args:
        make: from the `Scale` that fits the data to the settings.

    Returns:
        The function itself, so that this is a decorator.
    """
    enter(name_of(make, make.__name__.replace("_", "-")), (make.__doc__ or "").split("\n")[0], make)
    return make


def enter(name: str, about: str, make: Callable[[Scale], TrainConfig]) -> None:
    """Enter a preset into BY_MODEL.

    Args:
        name: of the preset.
        about: one line about it.
        make: makes its settings for a scale.
    """

    def build(scale: str | Scale) -> Preset:
        if isinstance(scale, Scale):
            return Preset(name, about, make(scale))
        return Preset(name, about, make(scale_of(scale, f"the preset {name!r}")), scale)

    build.__doc__ = about
    BY_MODEL.own(name, build)


def adversary(scale: Scale) -> PlayerConfig:
    """Adam without memory of the gradient: in a game yesterday's gradient is of another opponent."""
    return PlayerConfig(lr=scale.lr, betas=(0.0, 0.99), warmup=0, clip=None, decay=scale.decay, anneal=scale.anneal)


def gan_of(loss: str) -> Callable[[Scale], GANConfig]:
    """The function that makes a GAN's settings for a scale; loss is a row of games.GAMES."""

    def make(scale: Scale) -> GANConfig:
        penalty = Penalty(between=scale.penalty)
        if loss == "ipm":  # as published, but for the weight
            penalty = Penalty(between=0.1, centre=1.0)
        elif loss == "relativistic":
            penalty = Penalty(real=scale.penalty, fake=scale.penalty)
        return GANConfig(
            scale.base.data,
            GANNets(scale.generator, scale.discriminator),
            GameConfig(loss, penalty),
            MoveConfig(updates=1),
            adversary(scale),
            adversary(scale),
            scale.fit,
        )

    return make


for game in GAMES.values():
    if game.preset:
        enter(game.preset, game.about, gan_of(game.name))


@for_model
def discriminator_flow(scale: Scale) -> DiscriminatorFlowConfig:
    """Particles moved by one discriminator along their own path; no generator, no score."""
    # in the plane a particle that overshoots narrow modes is lost: d is flat where particles are. On pictures such a d
    # wins, and then moves nothing: it is flat between them and the data
    penalty = Penalty(fake=0.02) if scale.vectors else Penalty(between=scale.penalty)
    return DiscriminatorFlowConfig(
        scale.base.data,
        TimedDiscriminatorConfig(scale.discriminator),
        GameConfig("vanilla", penalty),
        PathConfig(steps=scale.steps, eta=scale.eta, slowing=scale.slowing),
        adversary(scale),
        scale.fit,
    )


@for_model
def improved_gan(scale: Scale) -> DiscriminatorFlowConfig:
    """One shared discriminator, told the time; the data's noise falls along the path, and particles follow."""
    base = discriminator_flow(scale)
    return replace(base, game=replace(base.game, loss="kl"), path=PathConfig(steps=25, eta=scale.eta, noise=0.5))


@for_model
def improved_gan_independent(scale: Scale) -> DiscriminatorFlowConfig:
    """The same with an independent discriminator per step."""
    base = improved_gan(scale)
    return replace(base, model=replace(base.model, stages=10), path=replace(base.path, steps=10))


@for_model
def diffusion_gan(scale: Scale) -> DiffusionGANConfig:
    """Score and discriminator together, with the dials gan, churn and steps free at sampling."""
    base, weight = scale.base, 0.003 if scale.vectors else 0.01
    return DiffusionGANConfig(
        base.data,
        base.model,
        scale.discriminator,
        base.loss,
        GameConfig("vanilla", Penalty(real=weight, fake=weight)),
        RangesConfig(),
        base.denoiser,
        adversary(scale),
        replace(scale.fit, batch=512 if scale.vectors else scale.fit.batch),
        DiffusionGANSampling(churn=1.0, sigma_min=scale.sigma_min),
    )


@for_model
def score_gan(scale: Scale) -> ScoreGANConfig:
    """A generator moved by two scores, the data's (--init-from RUN) and its own samples'; one evaluation a sample."""
    base = scale.base
    if scale.vectors:  # narrow modes far apart: begin where the denoiser tells them apart, and weigh all levels alike
        generator = PlayerConfig(lr=1e-3, betas=(0.0, 0.99), warmup=0, clip=None, decay=1000)
        fake = PlayerConfig(lr=1e-3, betas=(0.9, 0.99), warmup=0, decay=2000)
        pull, levels = ScoreGAN(power=2.0), LogUniformLevels(0.02, 1.0)
        return ScoreGANConfig(base.data, base.model, 0.35, pull, levels, generator=generator, fake=fake, fit=scale.fit)
    generator = PlayerConfig(lr=1e-4, betas=(0.0, 0.99), warmup=0, clip=None, anneal=scale.anneal)
    fake = PlayerConfig(lr=1e-3, betas=(0.0, 0.99), warmup=0, anneal=scale.anneal)
    levels = LogUniformLevels(0.05, 3.0)
    return ScoreGANConfig(base.data, base.model, 3.0, levels=levels, generator=generator, fake=fake, fit=scale.fit)


def generator_of(scale: Scale, mover: DriftingConfig | MMDConfig | SlicedWassersteinConfig) -> FieldConfig:
    """A generator moved by a field, in a scale."""
    lr = 2 * scale.lr if scale.vectors else scale.lr  # without an opponent, a small net bears a faster rate
    player = PlayerConfig(lr=lr, betas=(0.9, 0.99), clip=None, decay=scale.decay, anneal=scale.anneal)
    return FieldConfig(scale.base.data, scale.generator, mover, MoveConfig(), player, replace(scale.fit, batch=256))


@for_model
def drifting(scale: Scale) -> FieldConfig:
    """A generator whose samples drift to the data's kernel mean, and from each other."""
    return generator_of(scale, DriftingConfig(scale.temperatures, others=not scale.vectors))


@for_model
def mmd_generator(scale: Scale) -> FieldConfig:
    """A generator that descends the maximum mean discrepancy."""
    return generator_of(scale, MMDConfig())


@for_model
def sw_generator(scale: Scale) -> FieldConfig:
    """A generator that descends the sliced Wasserstein distance."""
    return generator_of(scale, SlicedWassersteinConfig())


MOVER_WEIGHTS = {  # of the score difference and of the log-ratio in what moves a distilled sampler
    "score": (1.0, 0.0),
    "ratio": (0.0, 1.0),
    "both": (1.0, 1.0),
    "endpoints": (0.0, 0.0),
}


def distilled(scale: Scale, by: str, evaluations: int, plan: Plan | None = None) -> DistillConfig:
    """Settings of a distilled sampler of few steps; `after` gives it data and network of a run.

    Args:
        scale: what fits the run's data.
        by: what moves the samples, a key of MOVER_WEIGHTS.
        evaluations: evaluations a sample.
        plan: the sampler to start as. Of a single evaluation it is left out: such a plan is one from pure noise, a
            blur, and a few data standard deviations are the better start.
    """
    base, (score, ratio) = score_gan(scale), MOVER_WEIGHTS[by]
    if score and ratio:  # DMD's pull is of size 1 in every pixel; a discriminator's gradient is spread over all of them
        ratio *= 0.03 if scale.vectors else 100.0
    # what a trained sampler still gets wrong is harder to see than what a generator makes at first
    if isinstance(scale.discriminator, MLPDiscriminatorConfig):
        discriminator = replace(scale.discriminator, width=2 * scale.discriminator.width)
        lr, penalty = scale.lr, 0.02
    else:
        discriminator = UNetDiscriminatorConfig()
        lr, penalty = 3e-4, 0.1
    config = DistillConfig(
        base.data,
        base.model,
        base.sigma,
        base.pull if scale.vectors else DMD(),
        base.levels,
        # through N evaluations a change of the weights counts N times, and a good start is lost while d knows nothing
        generator=replace(base.generator, lr=base.generator.lr * (1 if score else 2) / evaluations),
        fake=base.fake,
        fit=replace(base.fit, batch=base.fit.batch if scale.vectors else min(64, scale.batch), steps=400, minutes=None),
        evaluations=evaluations,
        plan=PlanConfig() if plan is None or evaluations == 1 else PlanConfig.of(plan),
        score=score,
        ratio=ratio,
        teacher_first_steps=None if by == "endpoints" else 0,
        teacher_steps=max(20, 4 * evaluations),
        discriminator_net=discriminator,
        game=GameConfig("relativistic", Penalty(real=penalty, fake=penalty)),
        discriminator=replace(adversary(scale), lr=lr, decay=None),
    )
    return config if scale.vectors or by != "ratio" else duel(config)


def duel(config: DistillConfig) -> DistillConfig:
    """The settings of a distillation of images by a discriminator alone, for a game that can be played for long.

    The longer it is played, the finer what is left to learn, so rates fall and averages are long. The discriminator
    learns from the very samples that it is about to move, and what it sees last, standard deviations a few per cent too
    small, the moments say.
    """
    return replace(
        config,
        moments=0.3,
        move=MoveConfig(updates=1, reuse=True),
        generator=replace(config.generator, warmup=20, decay=500, ema=(0.15, 0.05)),
        instance_noise=0.08,
        discriminator=replace(config.discriminator, lr=4e-4, warmup=20, decay=500),
    )
