r"""diffflow: GANs, Langevin dynamics, score-based diffusion and everything between, as settings of one equation.

    dX = [ f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r ] dt + sqrt(g2 - lam2) dW

    import diffflow as df

Every name is imported when it is first used, so that `import diffflow` costs nothing. `__init__.pyi` tells editors and
type checkers the same names; `python tests/stub.py` writes it from the table below.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# The public names: modules, and what is in them, by module.
_MODULES = {"data": "data", "metrics": "metrics", "models": "models", "presets": "models.presets"}
_NAMES = {
    "data": "Data",
    "equation.algebra": "Field",
    "equation.fields": "EnergyField LawRatio LawScore Piecewise Ratio ScoreField",
    "equation.guidance": "guide",
    "equation.kernels": "KSD MMD SVGD Drifting EnergyKernel GaussianKernel KernelRatio KernelScore LaplaceKernel "
    "SlicedWasserstein",
    "equation.laws": "Empirical Gaussian GaussianMixture Law",
    "equation.noise": "BrownianPath Noise",
    "equation.schedule": "EDM SCHEDULES VE VP Cosine Levels RectifiedFlow Schedule SubVP",
    "equation.sde": "DiffFlow Speed",
    "equation.spectrum": "annealed_langevin at continued diffusion_gan discriminator_flow edm_churn gan_flow "
    "improved_gan langevin probability_flow reverse_sde slcd static",
    "equation.toys": "TOYS",
    "likelihood.elbo": "Quadrature Stratified elbo",
    "likelihood.ode": "Exact Hutchinson bits_per_dim log_prob",
    "metrics.table": "METRICS MetricRow",
    "models.base": "GeneratorConfig GeneratorSampling MoveConfig TrainConfig Words",
    "models.diffusion": "ModelConfig SamplingConfig ScoreConfig",
    "models.diffusion_gan": "DiffusionGANConfig DiffusionGANSampling RangesConfig",
    "models.discriminator_flow": "DiscriminatorFlowConfig FlowSampling PathConfig TimedDiscriminatorConfig",
    "models.distill": "DistillConfig PlanConfig UNetDiscriminatorConfig",
    "models.field_generator": "DriftingConfig FieldConfig FieldMoverConfig MMDConfig SlicedWassersteinConfig",
    "models.gan": "GANConfig GANNets",
    "models.joint_likelihood": "JointSampling LikelihoodConfig",
    "models.score_gan": "ScoreGANConfig",
    "models.settings.common": "DataConfig Dials FitConfig PlayerConfig",
    "models.settings.games": "GameConfig",
    "models.presets.by_model": "for_model",
    "models.settings.networks": "ConvDiscriminatorConfig ConvGeneratorConfig DiTConfig DiscriminatorNet FastUNetConfig "
    "GeneratorNet MLPConfig MLPDiscriminatorConfig MLPGeneratorConfig NetConfig UNetConfig UNetNDConfig",
    "models.settings.serialise": "replace",
    "networks.backbones.discriminator": "ConvDiscriminator MLPDiscriminator",
    "networks.backbones.dit": "DiT",
    "networks.backbones.fast_unet": "FastUNet FastUNetDiscriminator",
    "networks.backbones.generator": "ConvGenerator MLPGenerator",
    "networks.backbones.mlp": "MLP",
    "networks.backbones.unet": "UNet UNetDiscriminator",
    "networks.backbones.unet_nd": "UNetND",
    "networks.denoiser": "FORMS Denoiser",
    "networks.discriminator": "Discriminator DiscriminatorRatio",
    "networks.games": "GAMES Game Penalty",
    "networks.generator": "FewSteps Generator",
    "objectives.base": "Batch InTurn Objective Turn",
    "objectives.discriminator_path": "PathDiscriminator",
    "objectives.follow_velocity": "FollowVelocity",
    "objectives.likelihood_bound": "JointBound",
    "objectives.movers.adversarial": "DiscriminatorMover",
    "objectives.movers.base": "Mover TeacherFirst WeightedSum",
    "objectives.movers.cloud": "CloudMover",
    "objectives.movers.endpoints": "EndpointDistillation",
    "objectives.movers.moments": "Moments",
    "objectives.movers.score_difference": "DMD KarrasLevels LogUniformLevels ScoreDifference ScoreGAN SiD",
    "objectives.paths": "ParticlePath SchedulePath",
    "objectives.score_matching": "EDMWeighting EpsWeighting FlowWeighting LikelihoodWeighting ScoreMatching VWeighting",
    "runs.load": "load",
    "runs.run": "Run",
    "runs.train": "train",
    "sampling.calibrate": "calibrate",
    "sampling.exponential": "Exponential NoiseRaising",
    "sampling.grids": "karras log_uniform snr_grid",
    "sampling.plan": "Plan",
    "sampling.sample": "Trajectory sample",
    "sampling.solvers": "Euler Heun",
    "training.trackers": "TRACKERS Tracker",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()} | _MODULES

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        module = importlib.import_module(f".{_MODULE_OF[name]}", __name__)
        globals()[name] = value = module if name in _MODULES else getattr(module, name)
        return value
    if name.startswith("__"):  # asked for by Python itself, never misspelt
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .models.settings.aliases import public

    if name[0].isupper():  # settings of a family that has no name of its own in the table above
        from .models.settings.serialise import settings_classes

        if name in (kinds := settings_classes()):
            return kinds[name]
    return public(name, __all__)


def __dir__() -> list[str]:
    return __all__
