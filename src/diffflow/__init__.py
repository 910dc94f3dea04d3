r"""diffflow: GANs, Langevin dynamics, score-based diffusion and everything between, as settings of one equation:

    dX = [ f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r ] dt + sqrt(g2 - lam2) dW

    import diffflow as df

Every name loads its room when it is first used: `diffflow --help` needs no torch, and takes no time.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import bounds, data, diagnostics, flows, kernels, laws, metrics, models, recipes, solvers
    from .bounds import Quadrature, Stratified, elbo
    from .calibrate import calibrate
    from .critic import GAMES, CriticRatio, Discriminator, Game, Penalty
    from .denoiser import Denoiser
    from .fields import Field, LawRatio, LawScore, Piecewise, Ratio, ScoreField, guide
    from .generator import FewSteps, Generator
    from .kernels import (
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
    from .laws import TOYS, Empirical, Gaussian, GaussianMixture, Law
    from .likelihood import Exact, Hutchinson, bits_per_dim, log_prob
    from .noise import BrownianPath, Noise
    from .plan import Plan
    from .run import Run, load
    from .sample import Trajectory, sample
    from .schedule import EDM, VE, VP, Cosine, Levels, RectifiedFlow, Schedule, SubVP, jump, karras, log_uniform
    from .sde import DiffFlow, Speed
    from .solvers import Euler, Exponential, Heun, NoiseRaising
    from .spectrum import (
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

__version__ = "0.1.0"

__all__ = [
    "EDM", "GAMES", "KSD", "MMD", "SVGD", "TOYS", "VE", "VP", "BrownianPath", "Cosine", "CriticRatio", "Denoiser",
    "DiffFlow", "Discriminator", "Drifting", "Empirical", "EnergyKernel", "Euler", "Exact", "Exponential", "FewSteps",
    "Field", "Game", "Gaussian", "GaussianKernel", "GaussianMixture", "Generator", "Heun", "Hutchinson",
    "KernelRatio", "KernelScore", "LaplaceKernel", "Law", "LawRatio", "LawScore", "Levels", "Noise", "NoiseRaising",
    "Penalty", "Piecewise", "Plan", "Quadrature", "Ratio", "RectifiedFlow", "Run", "Schedule", "ScoreField",
    "SlicedWasserstein", "Speed", "Stratified", "SubVP", "Trajectory", "annealed_langevin", "at", "bits_per_dim",
    "bounds", "calibrate", "continued", "data", "diagnostics", "diffusion_gan", "discriminator_flow", "edm_churn",
    "elbo", "flows", "gan_flow", "guide", "improved_gan", "jump", "karras", "kernels", "langevin", "laws", "load",
    "log_prob", "log_uniform", "metrics", "models", "probability_flow", "recipes", "reverse_sde", "sample", "slcd",
    "solvers", "static",
]  # fmt: skip

_ROOMS = {
    "bounds": ("Quadrature", "Stratified", "elbo"),
    "calibrate": ("calibrate",),
    "critic": ("GAMES", "CriticRatio", "Discriminator", "Game", "Penalty"),
    "denoiser": ("Denoiser",),
    "fields": ("Field", "LawRatio", "LawScore", "Piecewise", "Ratio", "ScoreField", "guide"),
    "generator": ("FewSteps", "Generator"),
    "kernels": (
        "KSD", "MMD", "SVGD", "Drifting", "EnergyKernel", "GaussianKernel", "KernelRatio", "KernelScore",
        "LaplaceKernel", "SlicedWasserstein",
    ),
    "laws": ("TOYS", "Empirical", "Gaussian", "GaussianMixture", "Law"),
    "likelihood": ("Exact", "Hutchinson", "bits_per_dim", "log_prob"),
    "noise": ("BrownianPath", "Noise"),
    "plan": ("Plan",),
    "run": ("Run", "load"),
    "sample": ("Trajectory", "sample"),
    "schedule": (
        "EDM", "VE", "VP", "Cosine", "Levels", "RectifiedFlow", "Schedule", "SubVP", "jump", "karras", "log_uniform",
    ),
    "sde": ("DiffFlow", "Speed"),
    "solvers": ("Euler", "Exponential", "Heun", "NoiseRaising"),
    "spectrum": (
        "annealed_langevin", "at", "continued", "diffusion_gan", "discriminator_flow", "edm_churn", "gan_flow",
        "improved_gan", "langevin", "probability_flow", "reverse_sde", "slcd", "static",
    ),
}  # fmt: skip
_LATER = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'diffflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """`df.sample` and `df.calibrate` are functions, although Python would put the modules of these names there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in ("calibrate", "sample") and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
