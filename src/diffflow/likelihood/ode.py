r"""Exact likelihood: the particles' density by the change of variables along their velocity (derivations.md eq. 13).

    dX/dt = v(X, t),      log p_T(x) = log p_0(X_0) - int_0^T div v(X_t, t) dt,      X_T = x

v is free of g2, so every point of a spectrum line has the same likelihood. With exact fields it is that of the
particles; with learned ones it is the density of the ODE model with this velocity, not that of the sampler with noise,
whose own score is another. The value is the density at t = horizon: of the target noised at sigma_min. At data noised
by sigma_min it is, on average, a lower bound of the density of the data (`decoded`): the Gaussian decoder and the
entropy of the noise cancel (derivations.md 5.1). div v is the trace of the Jacobian: exactly (d reverse products), or
as E[e^T J e] over random e (Hutchinson).

Discrete data have a probability and no density: it is the integral of the density over a cell, of which dequantisation
gives a lower bound (derivations.md 5.3), in bits per dimension.

Shapes: x (n, *shape) -> nats (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torchdiffeq import odeint

from ..equation.algebra import Cond, gradients, recordable
from ..equation.laws import as_particles
from ..equation.noise import Noise, as_noise
from ..equation.sde import DiffFlow, Tally


class Trace(Protocol):
    """A way to get div v, the trace of the Jacobian J: probes e whose e^T J e are summed or averaged."""

    def probes(self, x: Tensor) -> Tensor:
        """The probes for points x (n, *shape): (k, n, *shape)."""
        ...

    @property
    def averages(self) -> bool:
        """Whether the trace is the mean over the probes; otherwise it is their sum."""
        ...


@dataclass(frozen=True)
class Exact:
    """The exact trace, from the d unit vectors: no error, d reverse products.

    Args:
        averages: False, for the trace is a sum.
    """

    averages: bool = False

    def probes(self, x: Tensor) -> Tensor:
        """The d unit vectors for each point: (d, n, *shape)."""
        d = math.prod(x.shape[1:])
        return torch.eye(d).to(x).reshape(d, 1, *x.shape[1:]).expand(d, *x.shape)


@dataclass(frozen=True)
class Hutchinson:
    """Hutchinson's estimate of the trace, E[e^T J e] over random e that are fixed along the solve.

    Args:
        count: number of probes, at least 1; from 2 on they give a standard error.
        noise: streams, one per row, or an integer seed.
        gaussian: Gaussian probes in the place of random signs, which have the least variance among independent entries.
        averages: True, for the trace is a mean.

    Raises:
        ValueError: a count below 1.

    References:
        Hutchinson 1989; Grathwohl et al. 2019, "FFJORD".
    """

    count: int = 4
    noise: Noise | int = Noise(0)
    gaussian: bool = False
    averages: bool = True

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count={self.count}: at least one probe")

    def probes(self, x: Tensor) -> Tensor:
        """The random probes for each point: (count, n, *shape)."""
        shape, streams = (self.count, *x.shape[1:]), as_noise(self.noise).fork("probes")
        if self.gaussian:
            return streams.normal(len(x), shape, dtype=x.dtype, device=x.device).transpose(0, 1)
        return (streams.uniform(len(x), shape, dtype=x.dtype, device=x.device) - 0.5).sign().transpose(0, 1)


@dataclass(frozen=True)
class LogProb:
    """The log-density of the ODE model with an equation's velocity.

    Attributes:
        value: log density, nats, (n,).
        stderr: standard error of the trace estimate, nats, (n,); 0 for Exact.
        nfe: velocity evaluations per particle, not counting the products for the trace.
    """

    value: Tensor
    stderr: Tensor
    nfe: int


def log_prob(
    sde: DiffFlow,
    x: Tensor,
    *,
    trace: Trace = Exact(),
    cond: Cond = None,
    tol: float | None = None,
    steps: int | None = None,
) -> LogProb:
    """Log-density log p_T(x) at the horizon, on a schedule by a solve in log sigma.

    The value carries no gradient.

    Args:
        sde: the equation, with a start.
        x: points (n, *shape), in the units of the particles at the horizon.
        trace: how div v is had: `Exact()` or `Hutchinson(count)`.
        cond: condition for the fields, e.g. labels (n,).
        tol: relative and absolute tolerance of an adaptive Runge-Kutta (Dormand-Prince), whose steps all rows share; by
            default 1e-8 in float64 (1e-4 nats or better), 1e-5 in float32.
        steps: a fixed grid of so many Runge-Kutta steps of order 4 instead: 4 evaluations each, whatever the batch.

    Returns:
        The log-density in nats, one per row, with its standard error and the number of evaluations.

    Raises:
        ValueError: no start law, no velocity (no ratio where one is needed), a field made of the cloud (its particles
            depend on each other), rows of another width than the start's, or that are not finite.
    """
    if sde.start is None:
        raise ValueError(
            "a likelihood starts from a density: set start=, e.g. schedule.prior(shape, data_mean, data_std)"
        )
    if sde.cloud:
        raise ValueError(
            "a field made of the particles themselves has no velocity at a lone point x: "
            "log_prob needs a law or a trained field"
        )
    start, tally = sde.start, Tally()
    sde = replace(sde if cond is None else sde.given(cond), tally=tally)
    as_particles(x, start)
    probes = recordable(trace.probes(x))
    k = len(probes)
    tol = tol if tol is not None else 1e-8 if x.dtype == torch.float64 else 1e-5
    s = sde.schedule if sde.on_schedule else None

    # the solver's clock tau rises from 0 at the data to 1 at the prior: log sigma on a schedule, time itself elsewhere
    lo = hi = 0.0
    if s is not None:
        lo, hi = math.log(s.sigma(sde.horizon).item()), math.log(s.sigma(0.0).item())

    def clock(tau: float) -> tuple[float, float]:
        """Time t and dt/dtau at tau."""
        if s is None:
            return sde.horizon * (1 - tau), -sde.horizon
        t = sde.horizon if tau <= 0 else 0.0 if tau >= 1 else s.time(math.exp(lo + (hi - lo) * tau)).item()
        return t, (hi - lo) / s.log_sigma_rate(t).item()

    def rhs(tau: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if tau.isnan():
            raise AssertionError("its step is no number")
        t, speed = clock(tau.item())
        with gradients():
            y = recordable(state[0]).detach().requires_grad_(True)
            v = sde.velocity(y, t)
            div = [
                (torch.autograd.grad(v, y, e, retain_graph=j + 1 < k)[0] * e).flatten(1).sum(1)
                for j, e in enumerate(probes)
            ]
        return v.detach() * speed, torch.stack(div) * speed

    state = (x.detach(), x.new_zeros(k, len(x)))
    span = torch.tensor([0.0, 1.0], dtype=torch.float64, device=x.device)
    if steps is not None and steps < 1:
        raise ValueError(f"steps={steps}: at least one")
    if not bool(x.isfinite().all()):
        raise ValueError(f"{int((~x.flatten(1).isfinite().all(1)).sum())} of {len(x)} rows are not finite")
    options: dict[str, Any] = {"rtol": tol, "atol": tol, "method": "dopri5"}
    if steps is not None:
        options = {"method": "rk4", "options": {"step_size": 1 / steps}}
    solve: Callable = odeint
    try:
        xs, traces = solve(rhs, state, span, **options)
    except AssertionError as e:  # of the adaptive step, which fell to nothing
        far = int(x.flatten(1).abs().amax(1).argmax())
        raise ValueError(
            f"the solver found no step small enough ({e}): the fields are not finite somewhere on the path. Row {far} "
            f"of these lies farthest out, with a coordinate of size {x[far].abs().max().item():.3g}; leave such rows "
            "out, or give steps="
        ) from e
    by_probe = traces[-1]  # int from data to prior of div v dt = -int_0^T div v, (k, n)
    prior = start.log_prob(xs[-1]).detach()
    if trace.averages:
        err = by_probe.std(0) / math.sqrt(k) if k > 1 else torch.full_like(prior, math.nan)
        return LogProb(prior + by_probe.mean(0), err, tally.nfe)
    return LogProb(prior + by_probe.sum(0), torch.zeros_like(prior), tally.nfe)


def decoded(sde: DiffFlow, x: Tensor, noise: Noise | int = Noise(0)) -> tuple[Tensor, float]:
    """The points at which `log_prob` bounds the log-density of data x themselves, on average over the noise.

    Args:
        sde: the equation, on a noise schedule.
        x: data (n, *shape).
        noise: streams, one per row, or an integer seed.

    Returns:
        x noised by sigma_min, times scale (n, *shape), and the nats d log scale to add.

    Raises:
        ValueError: an equation without a schedule.
    """
    s = sde.schedule
    if s is None:
        raise ValueError("only a noise schedule says at which noise the density of the data is known")
    sigma, scale = s.sigma(sde.horizon).item(), s.scale(sde.horizon).item()
    eps = as_noise(noise).fork("decoded").normal(len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device)
    return scale * (x + sigma * eps), math.prod(x.shape[1:]) * math.log(scale)


def bits_per_dim(nats: Tensor, dims: int, step: float) -> Tensor:
    """Bits per dimension of discrete data, -(nats / dims + log step) / log 2.

    The probability of a level is the integral of the density over a cell of width `step` (derivations.md 5.3).

    Args:
        nats: log-density of the dequantised values, in model units (n,).
        dims: number of coordinates d.
        step: distance of neighbouring levels in model units (2/255 for bytes in [-1, 1]).

    Returns:
        Bits per dimension (n,).

    Raises:
        ValueError: dims below 1, or a step that is not positive.
    """
    if not (dims >= 1 and step > 0):
        raise ValueError(f"dims={dims} must be at least 1 and step={step} positive")
    return -(nats / dims + math.log(step)) / math.log(2)
