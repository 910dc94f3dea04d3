r"""Fields: functions that push particles, from x at time t to tangents.

Two fields can enter the equation: the data score grad log r_t (`ScoreField`, from a Law, a Denoiser or any D(y, sigma))
and the gradient of the log-ratio log r_t/p_t (a `Ratio`, which also offers the log-ratio itself, the logit). With
y = x / scale and the denoiser D(y, sigma) = E[Y | Y + sigma eps = y], Tweedie and the chain rule give

    grad_x log r_t(x) = (D(y, sigma) - y) / (scale sigma^2)

`observe(x, t)` is the one door through which the cloud enters: fields made of particles (kernels/) answer with a
copy that has seen x. `cost` counts network evaluations per particle and call (an input gradient counts 2, guidance
counts 2). What a field is, and what sums of fields are, stands in algebra.py.

Shapes: x (n, *shape), t float64 0-d or (n,) -> (n, *shape).
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .algebra import (
    Cond,
    Field,
    Sum,
    Weight,
    as_field,
    checked_shape,
    each_given,
    gradients,
    is_number,
    largest_std,
    recordable,
)
from .coefficients import EqualByValue
from .laws import Law
from .times import NoiseLevels, Time, clock, per_particle


class ScoreField(EqualByValue, Field):
    """The score grad log r_t on a noise schedule, from a Law (exact) or a denoiser D(y, sigma).

    Args:
        schedule: the noise schedule that r_t follows.
        source: a Law, a Denoiser, or a callable D(y, sigma) with y (n, *shape) in data units and sigma 0-d or (n,).

    Attributes:
        source: as given.
        law: the source where it is a Law, else None.

    Raises:
        TypeError: a source that is a class, a Field, or cannot be called.
    """

    schedule: NoiseLevels

    def __init__(self, schedule: NoiseLevels, source: Any) -> None:
        if isinstance(source, type):
            raise TypeError(f"a score is of an instance, got the class {source.__name__}: {source.__name__}(...)")
        if isinstance(source, Field):
            raise TypeError(f"{type(source).__name__} is a Field already; a score is made of a Law or a Denoiser")
        self.schedule, self.source = schedule, source
        self.law: Law | None = source if hasattr(source, "noised") else None
        if self.law is None and not callable(source):
            raise TypeError(f"a score needs a Law, a Denoiser or a callable D(y, sigma), got {type(source).__name__}")
        self.cost = getattr(source, "cost", 1)

    def __repr__(self) -> str:
        return f"{self.schedule}.score({type(self.source).__name__})"

    @property
    def terms(self) -> list[tuple[Weight, Field]]:
        """The scores that a mixed one is made of, with their weights; else the field itself."""
        return self.source.terms if isinstance(self.source, Mixed) else super().terms

    @staticmethod
    def merged(terms: Sequence[tuple[Weight, Field]]) -> Field | None:
        """The score of the mixed denoiser, where the weights are numbers of sum 1."""
        s = terms[0][1].schedule
        alike = all(isinstance(f, ScoreField) and f.schedule == s and is_number(w) for w, f in terms)
        if s is None or not alike or abs(sum(w for w, _ in terms) - 1) > 1e-12:  # type: ignore[misc]
            return None
        return ScoreField(s, Mixed(terms))

    @property
    def principal_std(self) -> float | None:  # type: ignore[override]
        """Largest principal standard deviation of the data, data units; None where the source does not know it."""
        return getattr(self.source, "principal_std", None)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """The source's D(x / scale, sigma) in data units, (n, *shape) (see `Field.denoise`)."""
        return self.at_noise(x / per_particle(self.schedule.scale(t), x), self.schedule.sigma(t))

    def at_noise(self, y: Tensor, sigma: Tensor) -> Tensor:
        """The source's D(y, sigma).

        Args:
            y: noised data (n, *shape), data units.
            sigma: noise level, 0-d or (n,), data units.

        Returns:
            The posterior mean (n, *shape), data units.

        Raises:
            ValueError: a source whose result has another shape than y.
        """
        if self.law is not None:
            return self.law.denoise(y, sigma)
        sigma = sigma.to(device=y.device, dtype=torch.promote_types(y.dtype, torch.float32))
        return checked_shape(self.source(y, sigma), y, type(self.source).__name__)

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The score at x, (D - y) / (scale sigma^2), or the law's own: (n, *shape)."""
        scale, sigma = self.schedule.scale(t), self.schedule.sigma(t)
        if self.law is not None:
            return self.law.score(x / per_particle(scale, x), sigma) / per_particle(scale, x)
        return (self.denoise(x, t) - x / per_particle(scale, x)) / per_particle(scale * sigma**2, x)

    @property
    def conditional(self) -> bool:
        """Whether the source takes a condition."""
        told = getattr(self.source, "conditional", None)  # as a Denoiser says it, else by its classes, if it has some
        return hasattr(self.source, "given") and (getattr(self.source, "classes", 1) != 0 if told is None else told)

    def given(self, cond: Cond) -> Field:
        """The score of the source conditioned on `cond` (see `Field.given`)."""
        if hasattr(self.source, "given"):
            return ScoreField(self.schedule, self.source.given(cond))
        return super().given(cond)


class Mixed(EqualByValue):
    """The mixed denoiser sum_j w_j D_j of scores on one schedule, sum_j w_j = 1.

    Args:
        terms: pairs (w_j, ScoreField).
    """

    def __init__(self, terms: Sequence[tuple[Weight, Field]]) -> None:
        self.terms, fields = list(terms), [f for _, f in terms]
        self.cost, self.principal_std = sum(f.cost for f in fields), largest_std(fields)
        self.classes = int(any(f.conditional for f in fields))

    def given(self, cond: Cond) -> Mixed:
        """The mixture of the denoisers conditioned on `cond`."""
        fields = each_given([f for _, f in self.terms], cond)
        return Mixed([(w, f) for (w, _), f in zip(self.terms, fields, strict=True)])

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """The mixture of the denoisers' results at (y, sigma): (n, *shape)."""
        out = torch.zeros_like(y)
        for w, field in self.terms:
            assert isinstance(field, ScoreField)
            out = out + w * field.at_noise(y, sigma)  # type: ignore[operator]
        return out


class LawScore(EqualByValue, Field):
    """The score grad log q of a fixed law, the same at all times (Langevin).

    Args:
        law: the law q.

    Raises:
        TypeError: what is no Law.
    """

    def __init__(self, law: Law) -> None:
        if isinstance(law, type) or not hasattr(law, "score"):
            as_field(law, "LawScore's law")
            raise TypeError(f"LawScore wants a Law, got a {type(law).__name__}, which is a field already")
        self.law = law

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The law's score at x: (n, *shape)."""
        return self.law.score(x)

    def narrowest(self, t: Time) -> float | None:
        """Smallest standard deviation of the law's components."""
        return self.law.narrowest


class Ratio(Field):
    """The gradient grad log r_t/p_t, with the log-ratio (logit) from the same evaluation.

    A subclass defines `value_and_grad(x, t)`.
    """

    cost = 2

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """The logit and its gradient, from one evaluation.

        Args:
            x: particles (n, *shape).
            t: time, float64 0-d or (n,).

        Returns:
            The logit (n,), nats, large on real data, and its gradient by x (n, *shape).

        Raises:
            NotImplementedError: a subclass without this method.
        """
        raise NotImplementedError(f"{type(self).__name__} must define value_and_grad(x, t)")

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The gradient of the logit: (n, *shape)."""
        return self.value_and_grad(x, t)[1]

    @staticmethod
    def merged(terms: Sequence[tuple[Weight, Field]]) -> Field | None:
        """The sum as a `RatioSum`, where all terms are ratios."""
        return RatioSum(terms) if all(isinstance(f, Ratio) for _, f in terms) else None


class RatioSum(Sum, Ratio):
    """A weighted sum of ratios: the gradient of sum_j weight_j logit_j."""

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """The weighted sums of the logits (n,) and of their gradients (n, *shape)."""
        logit, out = x.new_zeros(len(x)), torch.zeros_like(x)
        for w, field in self._weighed(x, t):
            assert isinstance(field, Ratio)
            value, grad = field.value_and_grad(x, t)
            logit, out = logit + (w.flatten() if isinstance(w, Tensor) else w) * value, out + w * grad
        return logit, out


class EnergyField(EqualByValue, Ratio):
    """The gradient of a log density known up to a constant (minus an energy), by autograd.

    Args:
        log_prob: a function of x (n, *shape), or of (x, t), that returns nats (n,); differentiable in x.

    Works with gradients switched off and in inference mode. Where x requires a gradient (and gradients are on) the
    result is differentiable.

    Raises:
        TypeError: what cannot be called.
    """

    def __init__(self, log_prob: Callable[..., Tensor]) -> None:
        if isinstance(log_prob, type) or not callable(log_prob):
            has_density = hasattr(log_prob, "log_prob") and not isinstance(log_prob, type)
            hint = "pass its method log_prob" if has_density else "a function x (n, *shape) -> (n,) is wanted"
            name = log_prob.__name__ if isinstance(log_prob, type) else type(log_prob).__name__
            raise TypeError(f"EnergyField got {name}: {hint}")
        self.log_prob, self.timed = log_prob, False
        try:
            parameters = inspect.signature(log_prob).parameters.values()
        except (TypeError, ValueError):  # some built-in functions have none to show
            return
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.timed = sum(p.default is p.empty and p.kind in positional for p in parameters) == 2

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """The log density (n,) and its gradient (n, *shape), by autograd.

        Raises:
            ValueError: values of another shape than (n,), or that do not depend on x.
        """
        graph = x.requires_grad and torch.is_grad_enabled()
        with gradients():
            y = x if graph else recordable(x).detach().requires_grad_(True)
            value = self.log_prob(y, t) if self.timed else self.log_prob(y)
            if value.shape != (len(x),):
                raise ValueError(f"log_prob returned shape {tuple(value.shape)}: one value per particle, ({len(x)},)")
            if not value.requires_grad:
                raise ValueError("log_prob does not depend on x by differentiable operations: no gradient to be had")
            (grad,) = torch.autograd.grad(value.sum(), y, create_graph=graph)
        return (value if graph else value.detach()), grad


class LawRatio(EqualByValue, Ratio):
    """The exact log-ratio of two known paths of laws.

    Args:
        target: t -> r_t, a Law.
        particles: t -> p_t, a Law.
    """

    def __init__(self, target: Callable[[Time], Law], particles: Callable[[Time], Law]) -> None:
        self.target, self.particles = target, particles

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """The log-ratio log r_t/p_t (n,) and its gradient (n, *shape)."""
        r, p = self.target(t), self.particles(t)
        return r.log_prob(x) - p.log_prob(x), r.score(x) - p.score(x)


class Piecewise(EqualByValue, Field):
    """One field per time interval: fields[i] on [edges[i], edges[i+1]).

    Args:
        edges: rising times, one more than there are fields.
        fields: fields or callables (x, t) -> (n, *shape).

    Raises:
        ValueError: edges that do not rise, or another number of them.
        TypeError: a piece that is no field.
    """

    def __init__(self, edges: Sequence[float], fields: Sequence[Field]) -> None:
        if len(edges) != len(fields) + 1 or any(a >= b for a, b in itertools.pairwise(edges)):
            raise ValueError(f"{len(fields)} fields need {len(fields) + 1} rising edges, got {list(edges)}")
        self.edges, self.fields = list(edges), [as_field(f, "a piece") for f in fields]
        self.cost, self.cloud = max(f.cost for f in self.fields), any(f.cloud for f in self.fields)
        self.principal_std, s = largest_std(self.fields), self.fields[0].schedule
        self.schedule = s if all(f.schedule == s for f in self.fields) else None

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The field of each particle's time, at x: (n, *shape). Raises ValueError for times outside the edges."""
        return self._each(x, t, lambda field, x, t: checked_shape(field(x, t), x, type(field).__name__))

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """The denoiser of each particle's time, data units (see `Field.denoise`)."""
        return self._each(x, t, lambda field, x, t: field.denoise(x, t))

    def _each(self, x: Tensor, t: Time, value: Callable[[Field, Tensor, Time], Tensor]) -> Tensor:
        """`value` of the piece that each particle's time lies in."""
        now = clock(t)
        if not bool(((now >= self.edges[0]) & (now <= self.edges[-1])).all()):
            raise ValueError(f"t={t} is outside [{self.edges[0]}, {self.edges[-1]}], where this field is defined")
        piece = torch.bucketize(now, torch.tensor(self.edges[1:-1], dtype=torch.float64), right=True)
        if piece.ndim == 0:
            return value(self.fields[int(piece)], x, t)
        out = torch.empty_like(x)
        for i in piece.unique().tolist():
            out[piece == i] = value(self.fields[i], x[piece == i], now[piece == i])
        return out

    @property
    def conditional(self) -> bool:
        """Whether a piece takes a condition."""
        return any(f.conditional for f in self.fields)

    def given(self, cond: Cond) -> Field:
        """The pieces conditioned on `cond` (see `each_given`)."""
        other = copy.copy(self)
        other.fields = each_given(self.fields, cond)
        return other

    def observe(self, x: Tensor, t: Time) -> Field:
        """The pieces having seen the cloud x."""
        other = copy.copy(self)
        other.fields = [f.observe(x, t) for f in self.fields]
        return other

    def narrowest(self, t: Time) -> float | None:
        """The smallest width that the pieces know."""
        stds = [std for f in self.fields if (std := f.narrowest(t)) is not None]
        return min(stds, default=None)
