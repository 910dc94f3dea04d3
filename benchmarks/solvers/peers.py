"""Deterministic samplers of other libraries, each wrapped as one function (denoiser, y, evaluations) -> clean points.

The libraries: diffusers, azula, k-diffusion, torchdiffeq.

All get the same things: the exact denoiser D(y; sigma) in EDM coordinates (y = Y + sigma eps), the same starts
y = 80 eps and a budget of evaluations; a method of two stages makes half as many steps. Grids run from 80 to 0.002 and
the last evaluation gives the answer: where a library can step to sigma = 0 it does, elsewhere one evaluation is kept
for a final denoising.

diffusers: a scheduler owns the step, the caller feeds it. Variance-preserving ones see x = y / sqrt(1 + sigma^2). Their
tables of noise levels are float32 and snap to integer training times; here `sigmas` is overwritten by the same grid in
float64, which can only help them. Schedulers that cast the sample to float32 by themselves carry "(f32)" in their name.
azula: a sampler takes a schedule object; `Grid` gives it any list of noise levels.
k-diffusion: its package cannot be installed beside current ones; Euler, Heun, LMS and DPM++ 2M are diffusers' (Karras's
names there), and its two-stage methods stand here by their formulas.
torchdiffeq: fixed-grid Runge-Kutta methods on dy/dsigma = (y - D)/sigma, and in log sigma.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import azula.sample as az
import numpy as np
import scipy.stats
import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from diffusers import schedulers as ds
from torch import Tensor
from torchdiffeq import odeint

import diffflow as df

F64 = torch.float64
TOP, LOW = 80.0, 0.002
Denoise = Callable[[Tensor, Tensor], Tensor]
Levels = Callable[[int], Tensor]
Run = Callable[[Denoise, Tensor, int], Tensor]


@dataclass(frozen=True)
class Peer:
    """One configuration of one library: `run(denoiser, y, n)` calls the denoiser at most n times, for n >= least."""

    library: str
    solver: str
    grid: str
    run: Run
    least: int = 2

    @property
    def name(self) -> str:
        return f"{self.library} {self.solver}, {self.grid}"

    def draw(self, run: df.Run, n: int, labels: Tensor | None, noise: df.Noise, steps: int, batch: int = 256) -> Tensor:
        """n samples of a run's denoiser, decoded; labels (n,). `batch` at a time, as `run.sample` does."""
        parts = []
        for first in range(0, n, batch):
            size = min(batch, n - first)
            denoiser = run.denoiser.given(None if labels is None else labels[first : first + size])

            def denoise(y: Tensor, sigma: Tensor, D: df.Denoiser = denoiser) -> Tensor:
                return D(y.float(), torch.as_tensor(sigma, dtype=torch.float32)).to(y.dtype)

            y = TOP * noise.shift(first).normal(size, run.shape, dtype=F64)
            with torch.no_grad():
                parts.append(run.decode(self.run(denoise, y, steps).float()))
        return torch.cat(parts)


# -- grids: n noise levels from TOP to LOW -----------------------------------------------------------------------------
def karras(n: int, rho: float) -> Tensor:
    return torch.linspace(TOP ** (1 / rho), LOW ** (1 / rho), n, dtype=F64) ** rho


def log_uniform(n: int) -> Tensor:
    return torch.linspace(math.log(TOP), math.log(LOW), n, dtype=F64).exp()


def beta(n: int) -> Tensor:
    return torch.from_numpy(LOW + (TOP - LOW) * scipy.stats.beta.ppf(1 - np.linspace(0, 1, n), 0.6, 0.6))


# diffusers offers karras (rho 7, free in the EDM schedulers), exponential (at these ends the same as lu_lambdas) and
# beta; azula takes any schedule. Everybody is tried on all of these.
GRIDS: dict[str, Levels] = {f"karras {rho}": partial(karras, rho=float(rho)) for rho in (3, 5, 7, 10)}
GRIDS |= {"log-uniform": log_uniform, "beta": beta}


# -- diffusers ---------------------------------------------------------------------------------------------------------
def _betas() -> list[float]:
    """A training table that reaches from LOW to TOP, so that no scheduler finds a noise level outside its range."""
    kept = 1 / (1 + log_uniform(1000).flip(0) ** 2)
    return (1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])).tolist()


VP = {"trained_betas": _betas(), "prediction_type": "sample"}


def _loaded(make: Callable, levels: Tensor, steps: int):
    """A fresh scheduler for `steps` steps whose levels are replaced by `levels` (float64)."""
    with warnings.catch_warnings():  # some of its options are announced to disappear
        warnings.simplefilter("ignore")
        scheduler = make()
    scheduler.set_timesteps(steps)
    scheduler.sigmas = levels
    scheduler.timesteps = torch.arange(len(levels) - 1, dtype=F64)
    scheduler.set_begin_index(0)
    scheduler.is_scale_input_called = True
    return scheduler


def _with_zero(sigma: Tensor) -> Tensor:
    return torch.cat([sigma, sigma.new_zeros(1)])


def preserving(make: Callable, to_zero: bool, grid: Levels, denoise: Denoise, y: Tensor, n: int) -> Tensor:
    """DPM-Solver, UniPC, DEIS: x = y / sqrt(1 + sigma^2), fed with D. Unless `to_zero` the last evaluation denoises."""
    sigma = grid(n)
    steps = n if to_zero else n - 1
    scheduler = _loaded(make, _with_zero(sigma) if to_zero else sigma, steps)
    x = y / (1 + sigma[0] ** 2).sqrt()
    for i in range(steps):
        d = denoise(x * (1 + sigma[i] ** 2).sqrt(), sigma[i])
        x = scheduler.step(d, scheduler.timesteps[i], x, return_dict=False)[0].to(F64)
    return x if to_zero else denoise(x * (1 + sigma[-1] ** 2).sqrt(), sigma[-1])


def edm_multistep(make: Callable, grid: Levels, denoise: Denoise, y: Tensor, n: int) -> Tensor:
    """DPM-Solver++ in EDM form: the scheduler asks for the preconditioned network's output, so D is unwrapped first."""
    sigma = grid(n)
    scheduler = _loaded(make, _with_zero(sigma), n)
    data = scheduler.config.sigma_data
    for i in range(n):
        s2 = sigma[i] ** 2 + data**2
        out = (denoise(y, sigma[i]) - y * (data**2 / s2)) / (sigma[i] * data / s2.sqrt())
        y = scheduler.step(out, scheduler.timesteps[i], y, return_dict=False)[0]
    return y


def sigma_space(make: Callable, grid: Levels, denoise: Denoise, y: Tensor, n: int) -> Tensor:
    """Euler and linear multistep in the manner of k-diffusion: dy/dsigma = (y - D) / sigma."""
    sigma = grid(n)
    scheduler = _loaded(make, _with_zero(sigma), n)
    for i in range(n):
        y = scheduler.step(denoise(y, sigma[i]), scheduler.timesteps[i], y, return_dict=False)[0].to(F64)
    return y


def heun(make: Callable, grid: Levels, denoise: Denoise, y: Tensor, n: int) -> Tensor:
    """m levels cost 2 m - 1 evaluations; the scheduler lists every level but the first twice."""
    m = (n + 1) // 2
    sigma = grid(m)
    levels = _with_zero(torch.cat([sigma[:1], sigma[1:].repeat_interleave(2)]))
    scheduler = _loaded(make, levels, m)
    for i in range(2 * m - 1):
        y = scheduler.step(denoise(y, levels[i]), scheduler.timesteps[i], y, return_dict=False)[0]
    return y


class _LMS(ds.LMSDiscreteScheduler):
    """Its order is an argument of `step`; here it is bound, and the quadrature behind its coefficients kept quiet."""

    bound = 4

    def step(self, *args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return super().step(*args, order=self.bound, **kwargs)


def _lms(order: int) -> _LMS:
    scheduler = _LMS(**VP)
    scheduler.bound = order
    return scheduler


def _dpm_plus(grid: str, levels: Levels) -> Iterator[Peer]:
    for order, kind in ((2, "midpoint"), (2, "heun"), (3, "midpoint")):
        for full in (False, True):
            options = {"solver_order": order, "solver_type": kind, "lower_order_final": not full}
            make = partial(ds.EDMDPMSolverMultistepScheduler, **options)
            label = f"DPM++ {order}M {kind}{' full tail' if full else ''}"
            yield Peer("diffusers", label, grid, partial(edm_multistep, make, levels))


def _unipc(grid: str, levels: Levels) -> Iterator[Peer]:
    for order in (2, 3):
        for kind in ("bh1", "bh2"):
            for full in (False, True):
                options = {"solver_order": order, "solver_type": kind, "lower_order_final": not full}
                options["final_sigmas_type"] = "sigma_min" if full else "zero"
                make = partial(ds.UniPCMultistepScheduler, **options, **VP)
                label = f"UniPC {order} {kind}{' full tail' if full else ''}"
                yield Peer("diffusers", label, grid, partial(preserving, make, not full, levels), order + 1)


def diffusers_peers() -> Iterator[Peer]:
    old = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
    for grid, levels in GRIDS.items():
        yield from _dpm_plus(grid, levels)
        yield from _unipc(grid, levels)
        for order in (2, 3):
            make = partial(ds.DPMSolverMultistepScheduler, solver_order=order, **old, **VP)
            yield Peer("diffusers", f"DPM {order}M (f32)", grid, partial(preserving, make, False, levels), order + 1)
            make = partial(ds.DEISMultistepScheduler, solver_order=order, **VP)
            yield Peer("diffusers", f"DEIS {order}", grid, partial(preserving, make, False, levels), order + 1)
        for order in (2, 3, 4):
            yield Peer("diffusers", f"LMS {order}", grid, partial(sigma_space, partial(_lms, order), levels))
        make = partial(ds.EulerDiscreteScheduler, **VP)
        yield Peer("diffusers", "Euler (f32)", grid, partial(sigma_space, make, levels))
        make = partial(ds.HeunDiscreteScheduler, **VP)
        yield Peer("diffusers", "Heun", grid, partial(heun, make, levels), 3)


# -- azula -------------------------------------------------------------------------------------------------------------
class Grid(Schedule):
    """alpha = 1 and sigma(t) through the given levels at equally spaced t, from t = 0 (last level) to t = 1 (first)."""

    def __init__(self, levels: Tensor) -> None:
        self.levels = levels.flip(0)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.levels[(t * (len(self.levels) - 1)).round().long()]


class _Exact(Denoiser):
    def __init__(self, denoise: Denoise, schedule: Schedule) -> None:
        super().__init__()
        self.denoise, self.schedule = denoise, schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs) -> DiracPosterior:
        return DiracPosterior(self.denoise(x_t, self.schedule(t)[1]))


def azula_run(make: Callable, stages: int, grid: Levels, denoise: Denoise, y: Tensor, n: int) -> Tensor:
    """m steps of `stages` evaluations between m + 1 levels, then the posterior mean at the last."""
    m = (n - 1) // stages
    levels = grid(m + 1)
    sampler = make(_Exact(denoise, Grid(levels)), steps=m, silent=True, dtype=F64)
    return denoise(sampler(y), levels[-1])


def azula_peers() -> Iterator[Peer]:
    families = (az.zABSampler, az.vABSampler, az.zEABSampler, az.xEABSampler, az.REABSampler)
    for grid, levels in GRIDS.items():
        yield Peer("azula", "Euler", grid, partial(azula_run, az.EulerSampler, 1, levels))
        yield Peer("azula", "Heun", grid, partial(azula_run, az.HeunSampler, 2, levels), 3)
        for family in families:
            for order in (2, 3, 4):
                label = f"{family.__name__.removesuffix('Sampler')} {order}"
                yield Peer("azula", label, grid, partial(azula_run, partial(family, order=order), 1, levels))


# -- k-diffusion's formulas --------------------------------------------------------------------------------------------
def two_stage(plus: bool, grid: Levels, denoise: Denoise, y: Tensor, n: int) -> Tensor:
    """DPM-2 (midpoint in sigma) or DPM++ 2S (exponential, data prediction), the middle level a geometric mean."""
    sigma = grid((n - 1) // 2 + 1)
    for a, b in itertools.pairwise(sigma):
        mid, d = (a * b).sqrt(), denoise(y, a)
        if plus:
            half = mid / a * y + (1 - mid / a) * d
            y = b / a * y + (1 - b / a) * denoise(half, mid)
        else:
            half = y + (mid - a) * (y - d) / a
            y = y + (b - a) * (half - denoise(half, mid)) / mid
    return denoise(y, sigma[-1])


def kdiffusion_peers() -> Iterator[Peer]:
    for grid, levels in GRIDS.items():
        yield Peer("k-diffusion", "DPM-2", grid, partial(two_stage, False, levels), 3)
        yield Peer("k-diffusion", "DPM++ 2S", grid, partial(two_stage, True, levels), 3)


# -- torchdiffeq -------------------------------------------------------------------------------------------------------
def runge_kutta(method: str, stages: int, log: bool, grid: Levels, denoise: Denoise, y: Tensor, n: int) -> Tensor:
    sigma = grid((n - 1) // stages + 1)

    def slope(t: Tensor, y: Tensor) -> Tensor:
        s = t.exp() if log else t
        return (y - denoise(y, s)) / (1 if log else s)

    return denoise(odeint(slope, y, sigma.log() if log else sigma, method=method)[-1], sigma[-1])


def torchdiffeq_peers() -> Iterator[Peer]:
    for grid, levels in GRIDS.items():
        for method, stages in (("midpoint", 2), ("heun3", 3), ("rk4", 4)):
            for log in (False, True):
                label = f"{method}{' in log sigma' if log else ''}"
                yield Peer("torchdiffeq", label, grid, partial(runge_kutta, method, stages, log, levels), stages + 1)


def peers() -> list[Peer]:
    return [*diffusers_peers(), *azula_peers(), *kdiffusion_peers(), *torchdiffeq_peers()]
