"""Rows given some of their coordinates: draws of a run's conditional law, and constraints by rejection.

    sample_given(run, observation, n)                  n rows that agree with one observation, or with one each
    sample_given(run, observation, n, accept=f)        of them those that fulfil f (decoded rows -> bool), none else
    impute(run, observation, draws=20)                 each row 20 times: multiple imputation

Everything is in model units (`Run.encode`, `Run.decode`). Three methods draw: "masks", for a run that was trained with
masks (model.masks), asks its denoiser, which is told what is known, and costs an ordinary solve; "langevin" and
"repaint" are for any run (sampling/observations/resampling.py) and cost `inner` times as much. Draw i depends on
stream i alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..equation.conditions import rows
from ..equation.guidance import Guidance
from ..equation.noise import Noise, as_noise
from ..equation.sde import DiffFlow
from ..networks.observed import observed
from ..sampling.observations.observation import Observation
from ..sampling.observations.resampling import INNER, METHODS
from ..sampling.sample import default_solver, sample
from ..sampling.solvers import Solver
from .conditions import AnyCondition
from .run import Run

STEPS = 40  # levels of a conditional solve
LEAST = 1e-4  # acceptance below which a constraint is refused
MASKS = "masks"


class TooFewAccepted(ValueError):
    """The error of a constraint that next to no row fulfils; its message says how many of how many did."""


@dataclass(frozen=True)
class GivenDraws:
    """Draws given what is known.

    Attributes:
        x: draws in model units, (n, *shape), on the CPU; known coordinates are exact.
        method: how they were drawn, "masks", "langevin" or "repaint".
        nfe: network evaluations a proposal.
        proposals: number of rows that were drawn.
        accepted: how many of these fulfilled the constraint; all where there is none.
    """

    x: Tensor
    method: str
    nfe: int
    proposals: int
    accepted: int

    @property
    def acceptance(self) -> float:
        """Share of the proposals that fulfilled the constraint, an estimate of its probability given what is known."""
        return self.accepted / self.proposals

    def __str__(self) -> str:
        more = "" if self.accepted == self.proposals else (
            f"; {self.accepted} of {self.proposals} proposals fulfil what was asked ({100 * self.acceptance:.3g} %)"
        )
        return f"{len(self.x)} rows by {self.method}, {self.nfe} evaluations each{more}"


def method_of(run: Run, method: str | None = None) -> str:
    """The method that draws a run's conditional samples.

    Args:
        run: the run.
        method: its name; None: "masks" for a run that was trained with masks, else "langevin".

    Returns:
        The name.

    Raises:
        ValueError: an unknown method, "masks" for a run trained without, or a run in whose latents nothing is known.
    """
    if run.space is not None:
        raise ValueError(f"{run.path} lives in latents, none of which a value of the data makes known: train without")
    masked = float(getattr(getattr(run.config, "model", None), "masks", 0.0)) > 0
    name = (MASKS if masked else "langevin") if method is None else method
    if name != MASKS and name not in METHODS:
        raise ValueError(f"method = {METHODS.unknown(name)}, {MASKS}")
    if name == MASKS and not masked:
        raise ValueError(f"method = 'masks' is for runs trained with model.masks > 0, and {run.path} was not")
    return name


@torch.no_grad()
def sample_given(
    run: Run,
    observation: Observation,
    n: int,
    *,
    method: str | None = None,
    accept: Callable[[Tensor], Tensor] | None = None,
    least: float = LEAST,
    steps: int = STEPS,
    inner: int = INNER,
    guidance: Guidance = 1.0,
    cond: AnyCondition = None,
    noise: Noise | int | None = None,
    batch: int = 4096,
    on_batch: Callable[[int, int], None] | None = None,
) -> GivenDraws:
    """Draw rows of a run's law given some of their coordinates, by the reverse SDE (churn 1).

    Args:
        run: a run whose samples come from a denoiser on a noise schedule.
        observation: what is known, model units; for all rows, or for each of the n.
        n: number of rows.
        method: see `method_of`.
        accept: rows in model units (m, *shape) -> bool (m,), the rows that are kept; None: all. The n rows are the
            first accepted of a sequence of proposals, so `observation` is one for all.
        least: share of accepted proposals below which this is refused.
        steps: number of levels.
        inner: rounds at each level, of langevin and repaint.
        guidance: of the condition.
        cond: a condition of the network beside what is known, in data units; with `accept` one for all.
        noise: streams, one a proposal; an integer seed; None: a fresh seed from torch's generator.
        batch: how many move together: memory, not the outcome.
        on_batch: called with (rows that there are, n) after every batch.

    Returns:
        The rows, with the number of evaluations and of proposals.

    Raises:
        ValueError: another number of observations, a method that this run does not have, or an equation without
            denoiser; TooFewAccepted, a ValueError, where next to no row fulfils the constraint.
    """
    if n < 1 or batch < 1:
        raise ValueError(f"n = {n} and batch = {batch} must be at least 1")
    name, noise = method_of(run, method), as_noise(noise)
    if accept is not None and observation.count is not None:
        raise ValueError("a constraint is fulfilled by rejection, for one observation: give each row's by itself")
    if observation.count not in (None, n):
        raise ValueError(f"{observation.count} observations for {n} rows: one for each, or a single one for all")
    if observation.shape != (shape := tuple(run.data["shape"])):
        raise ValueError(f"the observation is one of particles of shape {observation.shape}, this run's have {shape}")
    unknown = not bool(observation.known.any())
    told = run._rows_of(cond, n, guidance)
    sde = run.sde(churn=1.0, guidance=guidance)
    kept: list[Tensor] = []
    proposals = accepted = nfe = 0
    size = min(batch, n)
    most = -(-3 // least) if least > 0 else float("inf")  # 3/least proposals and none accepted: below it at 95 %
    while accepted < n:
        size = min(size, n - accepted) if accept is None else size
        part, streams = slice(proposals, proposals + size), noise.shift(proposals)
        seen = observation.rows(part)
        equation, solver = (sde, default_solver(sde)) if unknown else _conditional(sde, seen, streams, name, inner)
        solved = sample(equation, size, steps, solver=solver, noise=streams, cond=rows(told, part))
        x, nfe = seen.to(solved.last).fill(solved.last).cpu(), solved.nfe
        proposals += size
        good = x if accept is None else x[accept(x)]
        accepted += len(good)
        kept.append(good)
        size = min(batch, 2 * size)
        if on_batch is not None:
            on_batch(min(accepted, n), n)
        if accepted < n and proposals >= most and accepted < least * proposals:
            raise TooFewAccepted(
                f"{accepted} of {proposals} rows fulfil what was asked, less than 1 in {1 / least:.0f}: it is next to "
                "impossible given what is known. Ask for less, or give values (column=value) in place of comparisons"
            )
    return GivenDraws(torch.cat(kept)[:n], name, nfe, proposals, accepted)


def impute(
    run: Run,
    observation: Observation,
    draws: int = 20,
    *,
    method: str | None = None,
    steps: int = STEPS,
    inner: int = INNER,
    noise: Noise | int | None = None,
    batch: int = 4096,
    on_batch: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw the unknown coordinates of rows several times: multiple imputation.

    Args:
        run: as `sample_given` takes it; so are the settings below.
        observation: what is known of each of n rows, model units.
        draws: how many times each row is drawn, m.
        method: see `method_of`.
        steps: number of levels.
        inner: rounds at each level, of langevin and repaint.
        noise: streams; draw j of row i has stream i m + j.
        batch: how many draws move together.
        on_batch: called with (draws that there are, n m) after every batch.

    Returns:
        The rows, model units, (n, m, *shape).

    Raises:
        ValueError: as `sample_given`; less than one draw.
    """
    if draws < 1:
        raise ValueError(f"draws = {draws} must be at least 1")
    n = observation.count or 1
    each = observation.repeated(draws)
    out = sample_given(
        run, each, n * draws, method=method, steps=steps, inner=inner, noise=noise, batch=batch, on_batch=on_batch
    )
    return out.x.reshape(n, draws, *out.x.shape[1:])


def _conditional(
    sde: DiffFlow, seen: Observation, streams: Noise, method: str, inner: int
) -> tuple[DiffFlow, Solver]:
    """The equation and the solver that draw the conditional law of some rows."""
    if method == MASKS:
        sde = observed(sde, seen)
        return sde, default_solver(sde)
    return sde, METHODS[method](seen, streams.fork(method), inner)
