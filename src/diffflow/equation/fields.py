r"""Fields: what pushes particles. A field maps particles x at time t to tangents.

Two fields can enter the equation: the data score grad log r_t (`ScoreField`, from a Law, a Denoiser or any D(y, sigma))
and the gradient of the log-ratio log r_t/p_t (a `Ratio`, which also offers the log-ratio itself, the logit). With
y = x / scale and the denoiser D(y, sigma) = E[Y | Y + sigma eps = y], Tweedie and the chain rule give

    grad_x log r_t(x) = (D(y, sigma) - y) / (scale sigma^2)

`observe(x, t)` is the one door through which the cloud enters: fields made of particles (kernels.py) answer with a
copy that has seen x. `cost` counts network evaluations per particle and call (an input gradient counts 2, guidance
counts 2).

Shapes: x (n, *shape), t float64 0-d or (n,) -> (n, *shape).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .laws import Law
from .times import NoiseLevels, Time, clock, per_particle

Cond = Any  # what a network is conditioned on: labels (n,) int64, or None


class Field:
    """(x, t) -> tangent. Fields add, subtract and take weights (floats or functions of t)."""

    cost: int = 1
    cloud: bool = False  # True: needs `observe` before it can be evaluated; cannot be chunked or used in a likelihood

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(x, t)")

    def given(self, cond: Cond) -> Field:
        """The same field conditioned on `cond`; fields without a condition return themselves."""
        return self

    def observe(self, x: Tensor, t: Time) -> Field:
        """The same field having seen the cloud x; fields that do not look at the cloud return themselves."""
        return self

    def __add__(self, other: Field) -> Field:
        return Sum([(1.0, self), (1.0, other)])

    def __sub__(self, other: Field) -> Field:
        return Sum([(1.0, self), (-1.0, other)])

    def __mul__(self, weight: float | Callable[[Time], float]) -> Field:
        return Sum([(weight, self)])

    __rmul__ = __mul__

    def __neg__(self) -> Field:
        return Sum([(-1.0, self)])


class Sum(Field):
    """sum_j weight_j field_j."""

    def __init__(self, terms: Sequence[tuple[float | Callable[[Time], float], Field]]) -> None:
        self.terms = list(terms)
        self.cost = sum(f.cost for _, f in self.terms)
        self.cloud = any(f.cloud for _, f in self.terms)

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        out = torch.zeros_like(x)
        for weight, field in self.terms:
            w = per_particle(clock(weight(t)), x) if callable(weight) else weight
            out = out + w * field(x, t)
        return out

    def given(self, cond: Cond) -> Field:
        return Sum([(w, f.given(cond)) for w, f in self.terms])

    def observe(self, x: Tensor, t: Time) -> Field:
        return Sum([(w, f.observe(x, t)) for w, f in self.terms])


class ScoreField(Field):
    """grad log r_t on a noise schedule, from a Law (exact) or a denoiser D(y, sigma). It remembers its `source`."""

    def __init__(self, schedule: NoiseLevels, source: Any) -> None:
        self.schedule, self.source = schedule, source
        self.law: Law | None = source if hasattr(source, "noised") else None
        if self.law is None and not callable(source):
            raise TypeError(f"a score needs a Law, a Denoiser or a callable D(y, sigma), got {type(source).__name__}")
        self.cost = getattr(source, "cost", 1)

    @property
    def principal_std(self) -> float | None:
        """Largest principal standard deviation of the data, where the source knows it."""
        return getattr(self.source, "principal_std", None)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """D(x / scale, sigma) in data units."""
        y, sigma = x / per_particle(self.schedule.scale(t), x), self.schedule.sigma(t)
        if self.law is not None:
            return self.law.denoise(y, sigma)
        return self.source(y, sigma.to(device=y.device, dtype=torch.promote_types(y.dtype, torch.float32)))

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        scale, sigma = self.schedule.scale(t), self.schedule.sigma(t)
        if self.law is not None:
            return self.law.score(x / per_particle(scale, x), sigma) / per_particle(scale, x)
        return (self.denoise(x, t) - x / per_particle(scale, x)) / per_particle(scale * sigma**2, x)

    def given(self, cond: Cond) -> Field:
        return ScoreField(self.schedule, self.source.given(cond)) if hasattr(self.source, "given") else self


class LawScore(Field):
    """grad log q of a fixed law, the same at all times (Langevin)."""

    def __init__(self, law: Law) -> None:
        self.law = law

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        return self.law.score(x)


class Ratio(Field):
    """grad log r_t/p_t, with the log-ratio (logit) from the same evaluation."""

    cost = 2

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """(logit (n,), gradient (n, *shape))."""
        raise NotImplementedError(f"{type(self).__name__} must define value_and_grad(x, t)")

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        return self.value_and_grad(x, t)[1]


class LawRatio(Ratio):
    """Exact log-ratio of two known paths of laws: `target(t)` and `particles(t)` give r_t and p_t."""

    def __init__(self, target: Callable[[Time], Law], particles: Callable[[Time], Law]) -> None:
        self.target, self.particles = target, particles

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        r, p = self.target(t), self.particles(t)
        return r.log_prob(x) - p.log_prob(x), r.score(x) - p.score(x)


class _Guided:
    """D_null + weight (D_cond - D_null), a denoiser made of two conditions of one."""

    def __init__(self, source: Any, weight: float, cond: Cond = None) -> None:
        self.source, self.weight, self.principal_std = source, weight, getattr(source, "principal_std", None)
        self.conditional, self.free = source.given(cond), source.given(None)
        self.cost = 2 * getattr(source, "cost", 1)

    def given(self, cond: Cond) -> _Guided:
        return _Guided(self.source, self.weight, cond)

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        free = self.free(y, sigma)
        return free + self.weight * (self.conditional(y, sigma) - free)


def guide(field: ScoreField, weight: float) -> ScoreField:
    """Classifier-free guidance: score of null + weight (conditional - null) (Ho & Salimans 2022). 1 is the plain
    conditional score."""
    if not math.isfinite(weight):
        raise ValueError(f"guidance weight {weight} is not a number to steer with")
    if weight == 1.0:
        return field
    return ScoreField(field.schedule, _Guided(field.source, weight))


class Piecewise(Field):
    """One field per time interval: fields[i] on [edges[i], edges[i+1])."""

    def __init__(self, edges: Sequence[float], fields: Sequence[Field]) -> None:
        if len(edges) != len(fields) + 1 or any(a >= b for a, b in itertools.pairwise(edges)):
            raise ValueError(f"{len(fields)} fields need {len(fields) + 1} rising edges, got {list(edges)}")
        self.edges, self.fields = list(edges), list(fields)
        self.cost, self.cloud = max(f.cost for f in fields), any(f.cloud for f in fields)

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        now = clock(t)
        if not bool(((now >= self.edges[0]) & (now <= self.edges[-1])).all()):
            raise ValueError(f"t={t} is outside [{self.edges[0]}, {self.edges[-1]}], where this field is defined")
        piece = torch.bucketize(now, torch.tensor(self.edges[1:-1], dtype=torch.float64), right=True)
        if piece.ndim == 0:
            return self.fields[int(piece)](x, t)
        out = torch.empty_like(x)
        for i in piece.unique().tolist():
            out[piece == i] = self.fields[i](x[piece == i], now[piece == i])
        return out

    def _map(self, change: Callable[[Field], Field]) -> Piecewise:
        other = copy.copy(self)
        other.fields = [change(f) for f in self.fields]
        return other

    def given(self, cond: Cond) -> Field:
        return self._map(lambda f: f.given(cond))

    def observe(self, x: Tensor, t: Time) -> Field:
        return self._map(lambda f: f.observe(x, t))
