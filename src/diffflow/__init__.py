r"""diffflow: GANs, Langevin dynamics, score-based diffusion and everything between, as settings of one equation:

    dX = [ f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r ] dt + sqrt(g2 - lam2) dW

    import diffflow as df

The equation's own rooms load at once (they cost little more than torch itself); likelihoods, networks, data, metrics
and runs load when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .fields import Field, LawRatio, LawScore, Piecewise, Ratio, ScoreField, guide
from .kernels import KernelRatio, KernelScore
from .laws import TOYS, Empirical, Gaussian, GaussianMixture, Law
from .noise import BrownianPath, Noise
from .sample import Trajectory, sample
from .schedule import EDM, VE, VP, Cosine, Levels, RectifiedFlow, Schedule, SubVP, jump, karras, log_uniform
from .sde import DiffFlow, Speed
from .solvers import Euler, Exponential, Heun, NoiseRaising
from .spectrum import annealed_langevin, at, continued, edm_churn, langevin, probability_flow, reverse_sde, slcd, static

if TYPE_CHECKING:
    from . import data, laws, metrics, recipes, solvers
    from .denoiser import Denoiser
    from .likelihood import Exact, Hutchinson, log_prob
    from .run import Run, load

__version__ = "0.1.0"

__all__ = [
    "EDM", "TOYS", "VE", "VP", "BrownianPath", "Cosine", "Denoiser", "DiffFlow", "Empirical", "Euler", "Exact",
    "Exponential", "Field", "Gaussian", "GaussianMixture", "Heun", "Hutchinson", "KernelRatio", "KernelScore",
    "Law", "LawRatio", "LawScore", "Levels", "Noise", "NoiseRaising", "Piecewise", "Ratio", "RectifiedFlow", "Run",
    "Schedule", "ScoreField", "Speed", "SubVP", "Trajectory", "annealed_langevin", "at", "continued", "data",
    "edm_churn", "guide", "jump", "karras", "langevin", "laws", "load", "log_prob", "log_uniform", "metrics",
    "probability_flow", "recipes", "reverse_sde", "sample", "slcd", "solvers", "static",
]  # fmt: skip

_LATER = {
    "Denoiser": "denoiser",
    "Exact": "likelihood",
    "Hutchinson": "likelihood",
    "log_prob": "likelihood",
    "Run": "run",
    "load": "run",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'diffflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
