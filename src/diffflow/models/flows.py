r"""Flows: models without training, whose field, steps and bandwidth make particles follow a target at once.

One entry of FLOWS is one setting of the equation whose fields are known and not learned: kernels of the cloud, the
target's points, or a given score. `build` fills it in:

    sde, x0, steps = build("svgd", df.TOYS["moons"](), particles=1000)
    x = df.sample(sde, x0, steps).last

Most targets are narrow compared with the room between their modes, and a flow that looks only at the fine structure
does not find the modes. So where a noise level enters it falls while the flow runs, f = lam2 = 0: the improved GAN's
annealing (derivations.md 3.2). `Cooling` is that staircase in the clock in which beta = 1: level sigma_k lasts pace
sigma_k^2, so that a step of speed 1 moves x the fraction `pace` of the way to its denoised value: x += pace (D_q -
D_p)(x, sigma_k) or, Langevin, x += pace (D_q(x, sigma_k) - x) + sqrt(2 pace) sigma_k xi.

Everything is in the units of the data given. Shapes: points (m, *shape), particles (n, *shape).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..equation.fields import Field
from ..equation.kernels import KSD, MMD, SVGD, Drifting, GaussianKernel, KernelRatio, LaplaceKernel, SlicedWasserstein
from ..equation.kernels.kernel import squares
from ..equation.laws import Law
from ..equation.noise import Noise, as_noise
from ..equation.schedule import Schedule
from ..equation.sde import Coefficient, DiffFlow, Speed
from ..equation.spectrum import continued, gan_flow, static
from ..equation.times import Time, clock

MONOFLOWS: dict[str, Speed | float] = {
    "kl": 1.0,
    "reverse-kl": Speed(torch.exp),
    "chi2": Speed(lambda d: 2 * torch.exp(-d)),
    "reverse-chi2": Speed(lambda d: 2 * torch.exp(2 * d)),
    "js": Speed(torch.sigmoid),
    "mid": Speed(lambda d: torch.sigmoid(-d)),
    "hellinger": Speed(lambda d: 0.5 * torch.exp(0.5 * d)),
}
"""Speed beta(d) of the Wasserstein flow of D_f(p | q) = int q f(p/q): beta = w f''(w), w = p/q = e^-d (derivations.md
7.1). KL(p|q), KL(q|p), chi2(p|q), chi2(q|p), 2 JS, 2 KL((p+q)/2 | q), int (sqrt p - sqrt q)^2."""


@dataclass(frozen=True)
class Cooling(Schedule):
    """A staircase of noise levels: sigma(t) = sigmas[k], scale 1, for a time pace * sigmas[k]^2 each, one step a level.

    It is constant between jumps, so lam2 = 0.

    Args:
        sigmas: the levels, in data units.
        pace: the fraction of the way to its denoised value that a step moves x, in (0, 2).

    Raises:
        ValueError: levels that are not positive, or a pace outside (0, 2).
    """

    sigmas: tuple[float, ...]
    pace: float

    def __post_init__(self) -> None:
        if not self.sigmas or min(self.sigmas) <= 0:
            raise ValueError(f"sigmas must be positive, got {self.sigmas}")
        if not 0 < self.pace < 2:
            raise ValueError(f"pace={self.pace}: a step moves x by pace (D - x), which is stable for 0 < pace < 2 only")
        object.__setattr__(self, "sigma_max", self.sigmas[0])
        object.__setattr__(self, "sigma_min", self.sigmas[-1])

    @classmethod
    def geometric(cls, sigma_max: float, sigma_min: float, steps: int, pace: float, rest: float = 0.2) -> Cooling:
        """Levels in equal ratio.

        Args:
            sigma_max: the first level.
            sigma_min: the last level.
            steps: number of levels.
            pace: see the class.
            rest: the share of the levels, the last ones, that stay at sigma_min.
        """
        last = max(1, round((1 - rest) * steps) - 1)
        return cls(tuple(sigma_max * (sigma_min / sigma_max) ** min(k / last, 1.0) for k in range(steps)), pace)

    @cached_property
    def grid(self) -> list[float]:
        """The times of the jumps, 0 and the horizon included: (steps + 1,)."""
        return [0.0, *itertools.accumulate(self.pace * sigma**2 for sigma in self.sigmas)]

    @property
    def horizon(self) -> float:
        """The time at which the last level ends."""
        return self.grid[-1]

    def sigma(self, t: Time) -> Tensor:
        """The level at time t, float64."""
        jumps = torch.tensor(self.grid[1:-1], dtype=torch.float64)
        return torch.tensor(self.sigmas, dtype=torch.float64)[torch.bucketize(clock(t), jumps, right=True)]

    def scale(self, t: Time) -> Tensor:
        """One at every time."""
        return torch.ones_like(clock(t))

    def rate(self, t: Time) -> Tensor:
        """Zero: the scale does not change."""
        return torch.zeros_like(clock(t))

    def lam2(self, t: Time) -> Tensor:
        """Zero: the noise is constant between jumps."""
        return torch.zeros_like(clock(t))

    def time(self, sigma: Time) -> Tensor:
        """Raise ValueError: a staircase has no inverse."""
        raise ValueError("a staircase of levels has no inverse: many times share one sigma")


@dataclass(frozen=True)
class Target:
    """What a flow knows of its target.

    Args:
        points: of the target, (m, *shape) in data units.
        source: of its score: a Law, or a denoiser D(y, sigma); None where it is not known.
        steps: number of steps of the flow.
        noise: the source of the flow's randomness.
    """

    points: Tensor
    source: Any
    steps: int
    noise: Noise

    @cached_property
    def std(self) -> float:
        """Root mean square distance of a coordinate from its mean."""
        return (self.points - self.points.mean(0)).square().mean().sqrt().item()

    @cached_property
    def principal_std(self) -> float:
        """Largest principal standard deviation, from at most 1000 points."""
        x = self.points.flatten(1)[:1000].double()
        x = x - x.mean(0)
        gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
        return math.sqrt(torch.linalg.eigvalsh(gram)[-1].item() / len(x))

    @cached_property
    def finest(self) -> float:
        """The noise level at which cooling ends: half the narrowest component of a known law, else 5 % of the std."""
        return 0.05 * self.std if self.law is None else 0.5 * self.law.narrowest

    @property
    def law(self) -> Law | None:
        """The target itself, where it is known."""
        return self.source if hasattr(self.source, "noised") else None

    def cooling(self, pace: float = 0.3) -> Cooling:
        """The staircase from noise as wide as the target to its finest structure."""
        return Cooling.geometric(self.principal_std, self.finest, self.steps, pace)

    def slowing(self, first: float, last: float) -> list[float]:
        """Times of steps that shrink in equal ratio from `first` to `last`."""
        ratio = (last / first) ** (1 / max(1, self.steps - 1))
        return [0.0, *itertools.accumulate(first * ratio**k for k in range(self.steps))]


# -- the models -------------------------------------------------------------------------------------------------------
def _particle_flow(field: Field, grid: list[float], beta: Coefficient | Speed = 1.0) -> DiffFlow:
    """The flow of particles along beta times a field, on a grid of times."""
    return replace(gan_flow(field, beta, horizon=grid[-1]), grid=grid)


def _mono(target: Target, beta: Speed | float) -> DiffFlow:
    """The flow dx = beta(d) grad d, d = log q_sigma / p_sigma by kernels, at one pace for every beta where p = q."""
    at_rest = beta(torch.zeros(())).item() if isinstance(beta, Speed) else beta
    cooling = target.cooling(0.3 / at_rest)
    ratio = KernelRatio(target.points if target.law is None else target.law, cooling.sigma)
    return _particle_flow(ratio, cooling.grid, beta)


def _stein(target: Target, field: type[SVGD] | type[KSD], size: Callable[[float], float]) -> DiffFlow:
    """A field of score and Gaussian kernel, at the speed size(sigma) / mean of k, which gives it the size of a score.

    The kernel is as wide as the noise: a wider one hardly sees the structure within a mode.
    """
    cooling, points = target.cooling(), target.points[:500].flatten(1)
    kernel = GaussianKernel(cooling.sigma)

    def speed(t: Time) -> Tensor:
        sigma = cooling.sigma(t).item()
        noised = points + sigma * target.noise.fork("mass").normal(len(points), (points.shape[1],)).to(points)
        pairs = kernel.fitted(noised, t).derivatives(squares(noised, noised), 0)[0]
        return size(sigma) / pairs.mean().double().cpu()

    return _particle_flow(field(cooling.score(target.source), kernel), cooling.grid, speed)


def _mmd(target: Target) -> DiffFlow:
    """Descent of the energy distance, by steps that shrink."""
    size = target.std * math.sqrt(target.points[0].numel())
    return _particle_flow(MMD(target.points), target.slowing(2 * size, 0.2 * size))


def _sliced_wasserstein(target: Target) -> DiffFlow:
    """Descent of the sliced Wasserstein distance, whose field shrinks with the dimension as 1/d."""
    d = target.points[0].numel()
    return _particle_flow(SlicedWasserstein(target.points, max(64, d), target.noise), target.slowing(0.5 * d, 0.05 * d))


def _drifting(target: Target) -> DiffFlow:
    """Drifting at a temperature that falls from a good part of the distances between points to what is fine.

    A particle weighs itself, too: at low temperatures one without neighbours would be pushed away without end.
    """
    size, grid = target.std * math.sqrt(target.points[0].numel()), target.slowing(0.3, 0.3)
    kernel = LaplaceKernel(lambda t: size * 0.3 * 0.05 ** (float(t) / grid[-1]))
    return _particle_flow(Drifting(target.points, kernel, leave_one_out=False), grid)


def _langevin(cooling: Cooling, target: Target) -> DiffFlow:
    """Langevin dynamics of the target at the levels of `cooling`."""
    sde = static(cooling.score(target.source), None, churn=1.0, horizon=cooling.horizon, start=None)
    return replace(sde, grid=cooling.grid)


@dataclass(frozen=True)
class FlowModel:
    """A model without training.

    What it does, in words, is `models.FLOWS`.

    Args:
        papers: keys of `papers.BIBTEX`.
        steps: how many it takes by default.
        make: makes its equation for a target.
        needs_score: whether it needs the score of the target.
        wide_start: whether particles start as wide as the first noise level: at the target's std and largest principal
            std together, hypot(std, principal_std), instead of the std alone.
    """

    papers: tuple[str, ...]
    steps: int
    make: Callable[[Target], DiffFlow]
    needs_score: bool = False
    wide_start: bool = True


FLOWS: dict[str, FlowModel] = {
    "svgd": FlowModel(
        ("liu2016",),
        300,
        partial(_stein, field=SVGD, size=lambda sigma: 1.0),
        needs_score=True,
    ),
    "mmd": FlowModel(("arbel2019",), 300, _mmd, wide_start=False),
    "ksd": FlowModel(
        ("korba2021",),
        300,
        partial(_stein, field=KSD, size=lambda sigma: 3 * sigma**2),
        needs_score=True,
    ),
    "sliced-wasserstein": FlowModel(("liutkus2019",), 200, _sliced_wasserstein, wide_start=False),
    "score-difference": FlowModel(("weber2023",), 300, partial(_mono, beta=1.0)),
    "drifting": FlowModel(("deng2026",), 300, _drifting, wide_start=False),
    **{
        name: FlowModel(
            ("yi2023", "gao2019"),
            300,
            partial(_mono, beta=MONOFLOWS[name]),
            wide_start="chi2" not in name,  # far out, where q << p, beta is extreme: none start there
        )
        for name in MONOFLOWS
    },
    "langevin": FlowModel(
        ("roberts1996",),
        500,
        lambda a: _langevin(Cooling((a.finest,) * a.steps, 0.3), a),
        needs_score=True,
        wide_start=False,
    ),
    "ncsn": FlowModel(("song2019",), 300, lambda a: _langevin(a.cooling(0.2), a), needs_score=True),
    "continuation": FlowModel(
        ("song2019",),
        300,
        lambda a: continued(_langevin(a.cooling(0.2), a), -1.0),
        needs_score=True,
    ),
}


class Ready(NamedTuple):
    """A flow that is ready to run, `df.sample(sde, x0, steps)`: its equation, particles (n, *shape), and steps."""

    sde: DiffFlow
    x0: Tensor
    steps: int


def build(
    name: str,
    data: Tensor | Law,
    *,
    score: Any = None,
    particles: int = 1000,
    steps: int | None = None,
    noise: Noise | int = Noise(0),
) -> Ready:
    """Make a flow toward data ready to run.

    Args:
        name: a row of FLOWS.
        data: target points (m, *shape), or a Law, whose score is then exact and of which as many points are drawn as
            there are particles, at least 2000.
        score: a Law, a Denoiser, any D(y, sigma), or a ScoreField of one, in the units of the data; None: the data's
            own, where they are a Law.
        particles: number of particles, at least 2.
        steps: number of steps; None: the flow's default.
        noise: the source of randomness, or a seed.

    Returns:
        The equation, the particles at the start, and the number of steps.

    Raises:
        ValueError: an unknown name, too few particles or steps, or a score that is needed and missing.
    """
    if name not in FLOWS:
        raise ValueError(f"no flow called {name!r}; there are {', '.join(FLOWS)}")
    flow, noise = FLOWS[name], as_noise(noise)
    steps = flow.steps if steps is None else steps
    if particles < 2 or steps < 1:
        raise ValueError(f"particles={particles}, steps={steps}: a flow takes at least two particles and one step")
    source = getattr(score, "source", score)
    if source is None and not isinstance(data, Tensor):
        source = data
    if flow.needs_score and source is None:
        raise ValueError(f"{name} needs the score of the target, and points have none: give score=, a trained denoiser")
    points = data if isinstance(data, Tensor) else data.sample(max(2000, particles), noise.fork("points"))
    target = Target(points, source, steps, noise.fork("field"))
    mean, kind = points.mean(0), {"dtype": points.dtype, "device": points.device}
    std = math.hypot(target.std, target.principal_std) if flow.wide_start else target.std
    x0 = mean + std * noise.fork("start").normal(particles, tuple(points.shape[1:]), **kind)
    return Ready(replace(flow.make(target), papers=flow.papers), x0, steps)
