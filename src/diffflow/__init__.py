r"""diffflow: GANs, Langevin dynamics, score-based diffusion and everything between, as settings of one equation:

    dX = [ f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r ] dt + sqrt(g2 - lam2) dW

    import diffflow as df

The equation's own rooms load at once (they cost little more than torch itself); likelihoods, networks, data, metrics
and runs load when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
from .sampling.calibrate import calibrate
from .sampling.exponential import Exponential, NoiseRaising
from .sampling.grids import jump, karras, log_uniform
from .sampling.plan import Plan
from .sampling.sample import Trajectory, sample
from .sampling.solvers import Euler, Heun

if TYPE_CHECKING:
    from . import data, metrics
    from .equation import kernels, laws
    from .likelihood import elbo as bounds
    from .likelihood.elbo import Quadrature, Stratified, elbo
    from .likelihood.ode import Exact, Hutchinson, bits_per_dim, log_prob
    from .models import catalogue as models
    from .models import flows
    from .models import presets as recipes
    from .networks.denoiser import Denoiser
    from .networks.discriminator import CriticRatio, Discriminator
    from .networks.games import GAMES, Game, Penalty
    from .networks.generator import FewSteps, Generator
    from .runs.run import Run, load
    from .sampling import convergence as diagnostics
    from .sampling import solvers

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

_LATER = {
    "Denoiser": "networks.denoiser",
    **dict.fromkeys(("Exact", "Hutchinson", "bits_per_dim", "log_prob"), "likelihood.ode"),
    **dict.fromkeys(("Quadrature", "Stratified", "elbo"), "likelihood.elbo"),
    "Run": "runs.run",
    "load": "runs.run",
    **dict.fromkeys(("GAMES", "Game", "Penalty"), "networks.games"),
    **dict.fromkeys(("CriticRatio", "Discriminator"), "networks.discriminator"),
    **dict.fromkeys(("FewSteps", "Generator"), "networks.generator"),
}

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
