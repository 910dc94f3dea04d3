"""Likelihoods of data in their own units: dequantised, decoded, and summed with the change of units.

The last three functions are methods of `Run`: they check what is asked, and call the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data import Transform
from ..equation.conditions import Cond
from ..equation.conditions import rows as condition_rows
from ..equation.noise import Noise, as_noise
from ..equation.sde import DiffFlow
from ..likelihood.dequantiser import Dequantiser, fit_dequantiser
from ..likelihood.elbo import Bound, Stratified, blended, elbo
from ..likelihood.ode import Exact, Hutchinson, LogProb, Trace, decoded
from ..likelihood.ode import log_prob as log_prob_of
from .conditions import AnyCondition

EXACT = 16  # dimensions up to which likelihoods sum the divergence exactly


def is_discrete(transform: Transform) -> bool:
    """Whether some coordinates of the data have probabilities and no density."""
    return transform.of_bytes or transform.spreads


@dataclass(frozen=True)
class OdeLikelihood:
    """The likelihood of the ODE model (the probability flow).

    Args:
        probes: random probes of the divergence a row; up to EXACT dimensions it is summed exactly.
        steps: Runge-Kutta steps of the solve; None: adaptive.
    """

    probes: int
    steps: int | None

    def __call__(self, sde: DiffFlow, z: Tensor, y: Tensor, cond: Cond, noise: Noise) -> LogProb:
        """Log density of particles y (n, *shape) at the end of `sde`; z is the data, in model units."""
        trace = Exact() if math.prod(y.shape[1:]) <= EXACT else Hutchinson(self.probes, noise)
        return log_prob_of(sde, y, trace=trace, cond=cond, steps=self.steps)


@dataclass(frozen=True)
class SdeBound:
    """The lower bound of the reverse SDE, which needs no solve.

    Args:
        times: noise levels an example.
    """

    times: int

    def __call__(self, sde: DiffFlow, z: Tensor, y: Tensor, cond: Cond, noise: Noise) -> Bound:
        """Lower bound of the log density of data z (n, *shape), in model units; y is z with noise."""
        return elbo(sde, z, rule=Stratified(self.times, noise), reference=blended(sde), cond=cond)


def data_log_likelihood(
    sde: DiffFlow,
    transform: Transform,
    x: Tensor,
    labels: Cond,
    rule: OdeLikelihood | SdeBound,
    noise: Noise,
    device: torch.device,
    batch: int,
    dequantiser: Dequantiser | None,
) -> LogProb:
    """Lower bounds of the log-probability of data, in nats (n,), on the CPU.

    Args:
        sde: the equation, in model units, with its start.
        transform: from data units to model units.
        x: data (n, *shape), as loaded.
        labels: conditions of the rows as networks are told them, such as class indices (n,), or None.
        rule: whose likelihood is taken.
        noise: streams, one an example.
        device: where the networks are.
        batch: examples that are computed together.
        dequantiser: where in its cell a value is put; None: uniformly.
    """
    shape = tuple(x.shape[1:])
    parts: list[LogProb] = []
    for first in range(0, len(x), batch):
        rows, streams = x[first : first + batch].cpu(), noise.shift(first)
        u, log_q = streams.fork("cells").uniform(len(rows), shape), torch.zeros(len(rows))
        if dequantiser is not None:
            with torch.no_grad():
                u, log_q = (v.cpu() for v in dequantiser(transform.encode(rows).to(device), u.to(device)))
        z = transform.encode(rows, u if is_discrete(transform) else None).to(device)
        cond = condition_rows(labels, slice(first, first + batch))
        y, extra = decoded(sde, z, streams) if sde.on_schedule else (z, 0.0)
        result = rule(sde, z, y, cond, streams)
        if transform.points and sde.schedule is not None:
            # points are known again from y, so that the noise's entropy is all that parts density and probability
            sigma = sde.schedule.sigma(sde.horizon).item()
            extra = extra + transform.points * 0.5 * math.log(2 * math.pi * math.e * sigma**2)
        total = (result.value + extra).double().cpu() + transform.log_units(rows, u) - log_q
        parts.append(LogProb(total, result.stderr.double().cpu(), result.nfe))
    return LogProb(torch.cat([p.value for p in parts]), torch.cat([p.stderr for p in parts]), parts[0].nfe)


def train_dequantiser(
    sde: DiffFlow,
    transform: Transform,
    shape: tuple[int, ...],
    x: Tensor,
    steps: int,
    noise: Noise | int,
    device: torch.device,
    on_step: Callable[[int, float], None] | None,
) -> Dequantiser:
    """A dequantiser trained on data x (n, *shape), as loaded, under the score of `sde` at its smallest noise.

    Raises:
        ValueError: an equation without a score.
    """
    schedule = sde.schedule
    if schedule is None or not sde.on_schedule:
        raise ValueError("variational dequantisation follows the score of the particles, and this model has none")
    sigma, scale = schedule.sigma(sde.horizon).item(), schedule.scale(sde.horizon).item()

    def score(y: Tensor) -> Tensor:
        return (sde.denoised(scale * y, sde.horizon) - y) / sigma**2

    mask = torch.tensor([bool(v) for v in transform.levels]) if transform.levels else None
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(0)
        q = Dequantiser(shape, mask).to(device)
    return fit_dequantiser(q, score, transform.encode, x, steps, noise=noise, on_step=on_step)


def refuse_latents(run: Any) -> None:
    """Raise ValueError for a likelihood of a run whose model lives in latents."""
    if run.space is not None:
        raise ValueError(
            f"the model of {run.path} lives in latents, and a density of latents is none of the data that they decode "
            "to (the decoder has none): train one without a coder for likelihoods"
        )


def log_prob(run: Any, x: Tensor, cond: AnyCondition = None, trace: Trace | None = None) -> LogProb:
    """Log density of data at noise sigma_min, in nats of model units (n,); see `df.log_prob`.

    Args:
        run: the run.
        x: data (n, *shape) in data units.
        cond: class index, or one an example; None: no class.
        trace: how the divergence is taken; default: exactly.

    Raises:
        ValueError: data of another shape, or a model without a density: also one that lives in latents.
    """
    refuse_latents(run)
    if tuple(x.shape[1:]) != run.shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)}: give (n, {', '.join(map(str, run.shape))}) in the data's units"
        )
    run._rows_of(cond, len(x))  # checks
    sde = run.sde(churn=0.0, cond=cond)  # any churn has this likelihood, where it has one
    return log_prob_of(sde, run.encode(x).to(run.device), trace=Exact() if trace is None else trace)


def log_likelihood(
    run: Any,
    x: Tensor,
    cond: AnyCondition = None,
    *,
    noise: Noise | int = Noise(0),
    probes: int = 1,
    steps: int | None = None,
    churn: float | None = None,
    times: int = 32,
    batch: int = 64,
    dequantiser: Dequantiser | None = None,
) -> LogProb:
    """Lower bounds of the log-probability of data, in their own units: probabilities of discrete coordinates.

    Each row is spread over its cells and noised by sigma_min once (derivations.md 5.1 and 5.3): on average over
    `noise` the values are no more than the truth. They belong to the ODE model (`log_prob`), or, where churn is
    given, to the reverse SDE with it (`elbo`). The divergence is exact for 16 dimensions at most.

    Args:
        run: the run.
        x: data (n, *shape), as they are loaded (bytes of images, columns of a table).
        cond: class index, or one an example; None: no class.
        noise: streams, one an example; or an integer seed.
        probes: random probes of the divergence a row, for more than 16 dimensions.
        steps: Runge-Kutta steps of the solve; None: adaptive.
        churn: stochasticity of the reverse SDE whose bound is taken; None: the ODE model.
        times: noise levels of that bound.
        batch: examples that are computed together: memory, not the outcome.
        dequantiser: where in its cell a value is put (`run.dequantiser()`); None: uniformly.

    Returns:
        Nats (n,) on the CPU: log-probability of discrete coordinates, log-density of the others in data units.

    Raises:
        ValueError: values that are not of this data, or a model without a density: also one that lives in latents.
    """
    refuse_latents(run)
    if tuple(x.shape[1:]) != run.shape:
        raise ValueError(f"x has shape {tuple(x.shape)}: give (n, {', '.join(map(str, run.shape))}), as loaded")
    labels, noise = run._rows_of(cond, len(x)), as_noise(noise)
    sde = run.sde(churn=0.0 if churn is None else churn)
    rule = OdeLikelihood(probes, steps) if churn is None else SdeBound(times)
    return data_log_likelihood(sde, run.transform, x, labels, rule, noise, run.device, batch, dequantiser)


def dequantiser(
    run: Any,
    x: Tensor,
    steps: int = 500,
    noise: Noise | int = Noise(0),
    churn: float | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> Dequantiser:
    """A dequantiser trained on data for this model (variational dequantisation).

    Args:
        run: the run.
        x: data (n, *shape), as loaded.
        steps: gradient steps.
        noise: streams of the training; or an integer seed.
        churn: as for `log_likelihood`.
        on_step: called with (steps done, mean of log q).

    Raises:
        ValueError: data without discrete values, or a model without a score.
    """
    refuse_latents(run)
    if not run.discrete:
        raise ValueError("variational dequantisation is for bytes and for columns with levels, and there are none")
    sde = run.sde(churn=0.0 if churn is None else churn)
    return train_dequantiser(sde, run.transform, run.shape, x, steps, noise, run.device, on_step)
