r"""diffflow: GANs, Langevin dynamics, score-based diffusion and everything between, as settings of one equation:

    dX = [ f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r ] dt + sqrt(g2 - lam2) dW

    import diffflow as df

Every name loads its room when it is first used: `diffflow --help` needs no torch, and takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import data, metrics
    from .equation import kernels, laws
    from .equation.fields import Field, LawRatio, LawScore, Piecewise, Ratio, ScoreField, guide
    from .equation.kernels import (
        KSD,
        MMD,
        SVGD,
        Drifting,
        EnergyKernel,
        GaussianKernel,
        KernelRatio,
        KernelScore,
        LaplaceKernel,
        SlicedWasserstein,
    )
    from .equation.laws import Empirical, Gaussian, GaussianMixture, Law
    from .equation.noise import BrownianPath, Noise
    from .equation.schedule import EDM, VE, VP, Cosine, Levels, RectifiedFlow, Schedule, SubVP
    from .equation.sde import DiffFlow, Speed
    from .equation.spectrum import (
        annealed_langevin,
        at,
        continued,
        diffusion_gan,
        discriminator_flow,
        edm_churn,
        gan_flow,
        improved_gan,
        langevin,
        probability_flow,
        reverse_sde,
        slcd,
        static,
    )
    from .equation.toys import TOYS
    from .likelihood import elbo as bounds
    from .likelihood.elbo import Quadrature, Stratified, elbo
    from .likelihood.ode import Exact, Hutchinson, bits_per_dim, log_prob
    from .models import catalogue as models
    from .models import flows
    from .models import presets as recipes
    from .networks.denoiser import Denoiser
    from .networks.discriminator import Discriminator, DiscriminatorRatio
    from .networks.games import GAMES, Game, Penalty
    from .networks.generator import FewSteps, Generator
    from .runs.run import Run, load
    from .sampling import convergence as diagnostics
    from .sampling import solvers
    from .sampling.calibrate import calibrate
    from .sampling.exponential import Exponential, NoiseRaising
    from .sampling.grids import karras, log_uniform, snr_grid
    from .sampling.plan import Plan
    from .sampling.sample import Trajectory, sample
    from .sampling.solvers import Euler, Heun

__version__ = "0.1.0"

__all__ = [
    "EDM",
    "GAMES",
    "KSD",
    "MMD",
    "SVGD",
    "TOYS",
    "VE",
    "VP",
    "BrownianPath",
    "Cosine",
    "Denoiser",
    "DiffFlow",
    "Discriminator",
    "DiscriminatorRatio",
    "Drifting",
    "Empirical",
    "EnergyKernel",
    "Euler",
    "Exact",
    "Exponential",
    "FewSteps",
    "Field",
    "Game",
    "Gaussian",
    "GaussianKernel",
    "GaussianMixture",
    "Generator",
    "Heun",
    "Hutchinson",
    "KernelRatio",
    "KernelScore",
    "LaplaceKernel",
    "Law",
    "LawRatio",
    "LawScore",
    "Levels",
    "Noise",
    "NoiseRaising",
    "Penalty",
    "Piecewise",
    "Plan",
    "Quadrature",
    "Ratio",
    "RectifiedFlow",
    "Run",
    "Schedule",
    "ScoreField",
    "SlicedWasserstein",
    "Speed",
    "Stratified",
    "SubVP",
    "Trajectory",
    "annealed_langevin",
    "at",
    "bits_per_dim",
    "bounds",
    "calibrate",
    "continued",
    "data",
    "diagnostics",
    "diffusion_gan",
    "discriminator_flow",
    "edm_churn",
    "elbo",
    "flows",
    "gan_flow",
    "guide",
    "improved_gan",
    "karras",
    "kernels",
    "langevin",
    "laws",
    "load",
    "log_prob",
    "log_uniform",
    "metrics",
    "models",
    "probability_flow",
    "recipes",
    "reverse_sde",
    "sample",
    "slcd",
    "snr_grid",
    "solvers",
    "static",
]  # fmt: skip

_ROOMS = {
    "equation.fields": ("Field", "LawRatio", "LawScore", "Piecewise", "Ratio", "ScoreField", "guide"),
    "equation.kernels": (
        "KSD", "MMD", "SVGD", "Drifting", "EnergyKernel", "GaussianKernel", "KernelRatio", "KernelScore",
        "LaplaceKernel", "SlicedWasserstein",
    ),
    "equation.laws": ("Empirical", "Gaussian", "GaussianMixture", "Law"),
    "equation.noise": ("BrownianPath", "Noise"),
    "equation.schedule": ("EDM", "VE", "VP", "Cosine", "Levels", "RectifiedFlow", "Schedule", "SubVP"),
    "equation.sde": ("DiffFlow", "Speed"),
    "equation.spectrum": (
        "annealed_langevin", "at", "continued", "diffusion_gan", "discriminator_flow", "edm_churn",
        "gan_flow", "improved_gan", "langevin", "probability_flow", "reverse_sde", "slcd", "static",
    ),
    "equation.toys": ("TOYS",),
    "likelihood.elbo": ("Quadrature", "Stratified", "elbo"),
    "likelihood.ode": ("Exact", "Hutchinson", "bits_per_dim", "log_prob"),
    "networks.denoiser": ("Denoiser",),
    "networks.discriminator": ("Discriminator", "DiscriminatorRatio"),
    "networks.games": ("GAMES", "Game", "Penalty"),
    "networks.generator": ("FewSteps", "Generator"),
    "runs.run": ("Run", "load"),
    "sampling.calibrate": ("calibrate",),
    "sampling.exponential": ("Exponential", "NoiseRaising"),
    "sampling.grids": ("karras", "log_uniform", "snr_grid"),
    "sampling.plan": ("Plan",),
    "sampling.sample": ("Trajectory", "sample"),
    "sampling.solvers": ("Euler", "Heun"),
}  # fmt: skip
_LATER = {name: room for room, names in _ROOMS.items() for name in names}

_MOVED: dict[str, str] = {
    "laws": "equation.laws",
    "kernels": "equation.kernels",
    "diagnostics": "sampling.convergence",
    "solvers": "sampling.solvers",
    "bounds": "likelihood.elbo",
    "flows": "models.flows",
    "recipes": "models.presets",
}  # public modules by the name that `df` has for them


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    if name in __all__:
        return importlib.import_module(f".{_MOVED.get(name, name)}", __name__)
    raise AttributeError(f"module 'diffflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
