r"""The algebra of fields: what a field is, and what sums and multiples of fields are.

A field maps particles x at time t to tangents. Fields add and take weights, and the sum is of the most special kind
that it can be: scores on one schedule whose weights sum to 1 are a score again, that of the mixed denoiser
sum_j w_j D_j; ratios add up to a ratio; every other sum keeps what solvers ask of it (`Sum`). The fields themselves
stand in fields.py; the coefficients beside them in the equation (numbers and functions of t alone) in coefficients.py.

Shapes: x (n, *shape), t float64 0-d or (n,) -> (n, *shape).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .coefficients import EqualByValue
from .conditions import Cond
from .times import NoiseLevels, Time, clock, per_particle, wants_gradient

Weight = float | Tensor | Callable[[Time], Any]  # of a field in a sum


class Field:
    """A field: a function (x, t) -> tangent that can be added, subtracted and weighed.

    Weights are numbers, tensors of one element or functions of t. A subclass defines `__call__(x, t)`.

    Attributes:
        cost: network evaluations per particle and call.
        cloud: True for a field of the cloud: it needs `observe` before it can be evaluated, and cannot be chunked or
            used in a likelihood.
        schedule: the noise schedule on which the field is a score, or None.
        principal_std: largest principal standard deviation of the data, data units; None where it is not known.
    """

    cost: int = 1
    cloud: bool = False
    schedule: NoiseLevels | None = None
    principal_std: float | None = None

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The tangents (n, *shape) at x (n, *shape) and t, float64 0-d or (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(x, t)")

    def __repr__(self) -> str:
        return type(self).__name__

    @property
    def terms(self) -> list[tuple[Weight, Field]]:
        """The weighted terms of the field: itself with weight 1, unless it is a sum."""
        return [(1.0, self)]

    @staticmethod
    def merged(terms: Sequence[tuple[Weight, Field]]) -> Field | None:
        """The weighted sum of the terms as a field of this class, or None where it is no such field."""
        return None

    @property
    def conditional(self) -> bool:
        """Whether the field takes a condition: one that defines `given` does."""
        return type(self).given is not Field.given

    def given(self, cond: Cond) -> Field:
        """The same field conditioned on `cond`.

        Args:
            cond: what its network takes, such as labels (n,) int64; None for no condition.

        Returns:
            The conditioned field.

        Raises:
            ValueError: a condition for a field that takes none.
        """
        if cond is not None:
            raise ValueError(f"cond was given, but {type(self).__name__} takes no condition: leave cond out")
        return self

    def observe(self, x: Tensor, t: Time) -> Field:
        """The same field having seen the cloud x (n, *shape) at t; itself, unless it is a field of the cloud."""
        return self

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """The denoiser D(x/scale, sigma) of a field on a schedule.

        Args:
            x: particles (n, *shape).
            t: time, float64 0-d or (n,).

        Returns:
            D in data units, (n, *shape).

        Raises:
            NotImplementedError: a field that is no score on a noise schedule.
        """
        raise NotImplementedError(f"{type(self).__name__} is no score on a noise schedule, so it has no denoiser")

    def narrowest(self, t: Time) -> float | None:
        """Standard deviation of the narrowest part of the fixed law whose score this is, or None if not known.

        It decides how large a Langevin step may be.
        """
        return None

    def __add__(self, other: Field | Callable[[Tensor, Time], Tensor]) -> Field:
        return weighted_sum([(1.0, self), (1.0, as_field(other, "what is added to a field"))])

    def __radd__(self, other: Any) -> Field:
        return self if isinstance(other, int) and other == 0 else as_field(other, "what is added to a field") + self

    def __sub__(self, other: Field | Callable[[Tensor, Time], Tensor]) -> Field:
        return weighted_sum([(1.0, self), (-1.0, as_field(other, "what is taken from a field"))])

    def __rsub__(self, other: Any) -> Field:
        return as_field(other, "what a field is taken from") - self

    def __mul__(self, weight: Weight) -> Field:
        if isinstance(weight, (type, Field)) or hasattr(weight, "noised"):
            raise TypeError(f"a field is weighed by a number or a function of t, not by {type(weight).__name__}")
        if isinstance(weight, Tensor) and weight.numel() != 1:
            raise ValueError(f"a field is weighed by one number, or one per time: got shape {tuple(weight.shape)}")
        return weighted_sum([(weight.reshape(()) if isinstance(weight, Tensor) else weight, self)])

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Field:
        return self * (1 / divisor)

    def __neg__(self) -> Field:
        return self * -1.0


def as_field(value: Any, name: str) -> Field:
    """`value` as a Field: a Field is returned, a plain callable becomes one.

    Args:
        value: a Field, or a callable (x, t) -> (n, *shape).
        name: what the error calls it.

    Returns:
        The field.

    Raises:
        TypeError: anything else; the message names what is wanted in its place.
    """
    if isinstance(value, Field):
        return value
    kind, hint = type(value).__name__, "a Field or a callable (x (n, *shape), t) -> (n, *shape) is wanted"
    if isinstance(value, type):
        raise TypeError(f"{name} is the class {value.__name__}, and an instance is wanted: {value.__name__}(...)")
    if hasattr(value, "noised"):
        hint = "its score is the Field: schedule.score(law) on a noise schedule, LawScore(law) for a fixed target"
    elif hasattr(value, "sigma_data"):
        hint = "its score is the Field: schedule.score(denoiser)"
    elif callable(getattr(value, "ratio", None)):
        hint = "its gradient is the Field: discriminator.ratio()"
    elif callable(getattr(value, "log_prob", None)):
        hint = f"its score is the Field: EnergyField({kind.lower()}.log_prob)"
    elif callable(value):
        function: Any = value
        return Plain(function)
    raise TypeError(f"{name} is a {kind}, which is no Field: {hint}")


def checked_shape(v: Tensor, x: Tensor, name: str) -> Tensor:
    """The tangents v that `name` returned at x, once their shape is known to be that of x.

    Args:
        v: tangents.
        x: particles (n, *shape).
        name: what the error calls the field.

    Returns:
        v itself.

    Raises:
        ValueError: v of another shape than x.
    """
    if v.shape != x.shape:
        raise ValueError(f"{name} returned shape {tuple(v.shape)} for particles of shape {tuple(x.shape)}: equal ones")
    return v


@contextmanager
def gradients() -> Iterator[None]:
    """A context that records gradients, whatever the caller switched off.

    Tensors from outside pass through `recordable`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield


def recordable(x: Tensor) -> Tensor:
    """The tensor x ready to have gradients recorded: one made in inference mode is copied."""
    return x.clone() if x.is_inference() else x


def recordable_net(net: Any) -> Callable[..., Any]:
    """`net` as a function whose gradients can be recorded.

    A net whose weights were made in inference mode is called with copies of them.
    """
    first = next(net.parameters(), None) if isinstance(net, nn.Module) else None
    if first is None or not first.is_inference() or torch.is_inference_mode_enabled():
        return net
    state = {name: recordable(v) for name, v in (*net.named_parameters(), *net.named_buffers())}
    return lambda *args: torch.func.functional_call(net, state, args)


class Plain(EqualByValue, Field):
    """A callable (x, t) -> (n, *shape) as a field."""

    def __init__(self, function: Callable[[Tensor, Time], Tensor]) -> None:
        self.function = function

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """What the callable returns at (x, t)."""
        return checked_shape(self.function(x, t), x, getattr(self.function, "__name__", type(self.function).__name__))


# -- sums -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Product(EqualByValue):
    """The product of weights, a weight again."""

    factors: tuple[Weight, ...]

    def __call__(self, t: Time) -> Any:
        """The product of the weights at t."""
        return math.prod(f(t) if callable(f) else f for f in self.factors)


def is_number(weight: Weight) -> bool:
    """True for a weight that is a plain number; gradients and time may run through others."""
    return isinstance(weight, (int, float))


def _product(a: Weight, b: Weight) -> Weight:
    if callable(a) or callable(b):
        return b if is_number(a) and a == 1 else a if is_number(b) and b == 1 else Product((a, b))
    return a * b


def weighted_sum(terms: Sequence[tuple[Weight, Field]]) -> Field:
    """The weighted sum of fields sum_j weight_j field_j, as the most special kind of field that it is.

    Args:
        terms: pairs (weight, field).

    Returns:
        The field itself where it stands alone with weight 1; a score where all are scores of one schedule with weights
        of sum 1; a ratio where all are ratios; a `Sum` otherwise. Weights of the same field are added up.
    """
    flat: list[tuple[Weight, Field]] = []
    for weight, field in terms:
        for w, f in ((_product(weight, v), f) for v, f in field.terms):
            met = next((i for i, (u, g) in enumerate(flat) if g == f and not (callable(u) or callable(w))), None)
            if met is None:
                flat.append((w, f))
            else:
                flat[met] = (flat[met][0] + w, f)  # type: ignore[operator]
    if len(flat) == 1 and is_number(flat[0][0]) and flat[0][0] == 1:
        return flat[0][1]
    return flat[0][1].merged(flat) or Sum(flat)


def largest_std(fields: Sequence[Field]) -> float | None:
    """The largest `principal_std` of the fields, data units; None where none is known."""
    return max((f.principal_std for f in fields if f.principal_std is not None), default=None)


def each_given(fields: Sequence[Field], cond: Cond) -> list[Field]:
    """The fields conditioned on `cond`, those that take a condition; the others as they are.

    Args:
        fields: any fields.
        cond: the condition, such as labels (n,) int64; None for none.

    Returns:
        As many fields, in the same order.

    Raises:
        ValueError: a condition, and no field that takes one.
    """
    if cond is not None and not any(f.conditional for f in fields):
        names = ", ".join(dict.fromkeys(type(f).__name__ for f in fields)) or "nothing"
        raise ValueError(f"cond was given, but no field takes a condition ({names}): leave cond out")
    return [f.given(cond) if f.conditional else f for f in fields]


class Sum(EqualByValue, Field):
    """The sum sum_j weight_j field_j; build it by +, - and *, which find out what kind of field a sum is.

    With scores of one schedule among its terms it is a field on that schedule. In y = x/scale it then pulls towards a
    point: with W the sum of the scores' weights and v the other terms,

        scale sigma^2 (sum_j weight_j field_j) = D* - y = W (D - y),
        D* = (1 - W) y + sum_j w_j D_j + scale sigma^2 v,     D = y + (D* - y) / W

    Args:
        terms: pairs (weight, field).
    """

    def __init__(self, terms: Sequence[tuple[Weight, Field]]) -> None:
        self._terms = list(terms)
        self.cost = sum(f.cost for _, f in self.terms)
        self.cloud = any(f.cloud for _, f in self.terms)
        schedules = [f.schedule for _, f in self.terms if f.schedule is not None]
        self.schedule = schedules[0] if schedules and all(s == schedules[0] for s in schedules) else None
        self.principal_std = largest_std([f for _, f in self.terms])

    @property
    def terms(self) -> list[tuple[Weight, Field]]:
        """The pairs (weight, field)."""
        return self._terms

    def _weighed(self, x: Tensor, t: Time) -> Iterator[tuple[Tensor | float, Field]]:
        """The fields whose weight at t is not zero, with that weight ready to multiply x."""
        for weight, field in self.terms:
            w = per_particle(clock(weight(t) if callable(weight) else weight), x) if not is_number(weight) else weight
            if isinstance(w, Tensor) or w != 0:
                yield w, field  # type: ignore[misc]

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The weighted sum at (x, t); a field of weight 0 is not evaluated."""
        out = torch.zeros_like(x)
        for w, field in self._weighed(x, t):
            out = out + w * checked_shape(field(x, t), x, type(field).__name__)
        return out

    def total(self, t: Time) -> Tensor:
        """The sum W of the weights of the scores on its schedule at t: float64, 0-d or (n,)."""
        total = torch.zeros((), dtype=torch.float64)
        for weight, field in self.terms:
            if field.schedule is not None:
                total = total + clock(weight(t) if callable(weight) else weight)
        return total

    def _totals(self) -> list[Tensor]:
        s, timed = self.schedule, any(callable(w) for w, _ in self.terms)
        shares = (0.0, 0.25, 0.5, 0.75, 1.0) if timed else (0.0,)
        return [] if s is None else [self.total(u * s.horizon) for u in shares]

    @property
    def attracts(self) -> bool:
        """Whether the sum is a field on a schedule that pulls towards a point at all times: W > 0."""
        totals = self._totals()
        return len(totals) > 0 and all(bool((total > 0).all()) for total in totals)

    @property
    def is_score(self) -> bool:
        """Whether the sum is a field on a schedule with W = 1, as a score has, and no gradient is wanted by W."""
        totals = self._totals()
        return len(totals) > 0 and all(not wants_gradient(v) and bool(((v - 1).abs() <= 1e-12).all()) for v in totals)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """The composite denoiser D* in data units, (n, *shape), of a sum on a schedule (see `Field.denoise`)."""
        s = self.schedule
        if s is None:
            return super().denoise(x, t)
        y, out, total = x / per_particle(s.scale(t), x), torch.zeros_like(x), 0.0
        for w, field in self._weighed(x, t):
            if field.schedule is not None:
                out, total = out + w * field.denoise(x, t), total + w
            else:
                strength = per_particle(s.scale(t) * s.sigma(t) ** 2, x)
                out = out + strength * w * checked_shape(field(x, t), x, type(field).__name__)
        rest = 1 - total
        return out + rest * y if isinstance(rest, Tensor) or abs(rest) > 1e-12 else out

    def narrowest(self, t: Time) -> float | None:
        """The width of the narrowest part, (sum_j weight_j / std_j^2)^(-1/2) over the terms that know theirs."""
        stds = [(w, f.narrowest(t)) for w, f in self.terms]
        bend = sum(
            float(clock(w(t) if callable(w) else w).max()) / std**2 for w, std in stds if std is not None and std > 0
        )
        return bend**-0.5 if bend > 0 else None

    @property
    def conditional(self) -> bool:
        """Whether a term takes a condition."""
        return any(f.conditional for _, f in self.terms)

    def given(self, cond: Cond) -> Field:
        """The sum of the terms conditioned on `cond` (see `each_given`)."""
        fields = each_given([f for _, f in self.terms], cond)
        return weighted_sum([(w, f) for (w, _), f in zip(self.terms, fields, strict=True)])

    def observe(self, x: Tensor, t: Time) -> Field:
        """The sum of the terms having seen the cloud x."""
        return type(self)([(w, f.observe(x, t)) for w, f in self.terms]) if self.cloud else self
