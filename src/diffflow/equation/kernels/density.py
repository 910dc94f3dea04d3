r"""Fields of the cloud: their contract, and the particles' own law as kernels estimate it.

    p_h(x) = 1/n sum_i N(x; x_i, h^2 I),    grad log p_h(x) = (m(x) - x) / h^2,    m = kernel-weighted mean of the cloud

`KernelRatio` pairs it with the target blurred by the same h, so that bias cancels: grad log (r * N_h) / p_h
(derivations.md section 2, item 3). Shapes: x (n, *shape) -> (n, *shape).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from ..algebra import Cond, Field, as_field, each_given
from ..coefficients import EqualByValue
from ..fields import Ratio
from ..laws import Empirical, Law
from ..noise import Noise, as_noise
from ..times import Time, clock
from .kernel import GaussianKernel, mean_shift


def time_key(t: Time) -> str:
    """The time t as the name of a family of random numbers."""
    return float(clock(t)).hex()


class CloudField(EqualByValue, Field):
    """A field that must see the particles before it is called.

    The contract of whoever moves particles: `field.observe(x, t)(x, t)`, with the same tensor in both places (a field
    that leaves a particle out of its own sum knows its cloud by identity). A trainer of generators says first
    `field.on(batch, noise)`: the target points of this step, and the streams of its randomness.
    """

    cloud = True
    cost = 0  # no network
    particles: Tensor | None = None
    noise: Noise = Noise(0)

    def observe(self, x: Tensor, t: Time) -> Self:
        """The same field having seen the cloud x (n, *shape)."""
        return self._with(particles=x)

    def on(self, data: Tensor, noise: Noise | int | None = None) -> Self:
        """The same field toward other target points.

        Fields whose target is a score, and fields without a target, keep it.

        Args:
            data: target points (m, *shape).
            noise: streams that seed what is random in the field, or an integer seed; None: those it has.

        Returns:
            The field.
        """
        return self if noise is None else self._with(noise=as_noise(noise))

    def _with(self, **changes: Any) -> Self:
        other = copy.copy(self)
        other.__dict__.update(changes)
        return other

    def _seen(self) -> Tensor:
        """The particles, flat (n, d)."""
        if self.particles is None:
            raise RuntimeError(f"{type(self).__name__} has seen no cloud: call observe(x, t) first (sample() does)")
        return self.particles.flatten(1)


class _Density(CloudField):
    """A kernel density estimate of the particles' own law, with its gradient.

    Whether a particle of the cloud leaves itself out of the sum is a choice: without its own kernel the estimate has no
    1/n bias (right for looking at a cloud), but in a flow a particle that has lost its neighbours is pushed away from
    them without end; its own kernel then holds it (right for moving one, the default).

    Args:
        bandwidth: h, a length in the units of x, or a function of t.
        leave_one_out: whether a particle of the cloud leaves itself out.
    """

    def __init__(self, bandwidth: float | Callable[[Time], float | Tensor], leave_one_out: bool = False) -> None:
        if not callable(bandwidth):
            GaussianKernel(bandwidth)  # refuses what is not positive
        self.bandwidth, self.leave_one_out = bandwidth, leave_one_out

    def _h(self, t: Time) -> float:
        return float(self.bandwidth(t) if callable(self.bandwidth) else self.bandwidth)

    def _density(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """Log density log p_h (n,) and its gradient at x (n, *shape)."""
        flat, cloud, h = x.flatten(1), self._seen(), self._h(t)
        others_only = self.leave_one_out and x is self.particles
        if others_only and len(cloud) < 2:
            raise ValueError("the density of the other particles needs at least two: or leave_one_out=False")
        log_sum, mean = mean_shift(GaussianKernel(h), flat, cloud, others_only)
        log_p = log_sum - math.log(len(cloud) - others_only) - 0.5 * flat.shape[1] * math.log(2 * math.pi * h**2)
        return log_p, ((mean - flat) / h**2).reshape(x.shape)


@dataclass(frozen=True)
class Fixed:
    """A constant path of laws."""

    law: Law

    def __call__(self, t: Time) -> Law:
        """The law, whatever t."""
        return self.law


class KernelScore(_Density):
    """The score grad log p_h of the observed cloud, estimated with a Gaussian kernel.

    Args:
        bandwidth: h, a length in the units of x, or a function of t.
        leave_one_out: whether a particle of the cloud leaves itself out of the sum.
    """

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The gradient of log p_h at x: (n, *shape)."""
        return self._density(x, t)[1]


class KernelRatio(_Density, Ratio):
    """The log-ratio of target and cloud, both blurred by h, so that bias cancels: grad log (r_t * N(0, h^2)) / p_h.

    With an h that falls along t this is the score-difference flow: h^-2 (D_q - D_p), empirical denoisers at noise h.

    Args:
        target: a Law, points (m, *shape), or a function t -> Law (r_t).
        bandwidth: h, a length in the units of x, or a function of t.
        leave_one_out: whether a particle of the cloud leaves itself out of its sum.

    Raises:
        TypeError: a target of another kind.

    References:
        Weber 2023, "The score-difference flow for implicit generative modeling".
    """

    def __init__(
        self, target: Any, bandwidth: float | Callable[[Time], float | Tensor], leave_one_out: bool = False
    ) -> None:
        super().__init__(bandwidth, leave_one_out)
        target = Empirical(target) if isinstance(target, Tensor) else target
        if isinstance(target, type) or not (hasattr(target, "noised") or callable(target)):
            name = target.__name__ if isinstance(target, type) else type(target).__name__
            raise TypeError(f"KernelRatio wants a target: a Law, points (m, *shape) or a function t -> Law, got {name}")
        law: Any = target
        self.target: Callable[[Time], Law] = Fixed(law) if hasattr(target, "noised") else law

    def on(self, data: Tensor, noise: Noise | int | None = None) -> Self:
        """The same field toward the points `data` (see `CloudField.on`)."""
        return super().on(data, noise)._with(target=Fixed(Empirical(data)))

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """The blurred log-ratio (n,) and its gradient (n, *shape)."""
        blurred = self.target(t).noised(1.0, self._h(t))
        log_p, grad = self._density(x, t)
        return blurred.log_prob(x) - log_p, blurred.score(x) - grad

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The gradient of the blurred log-ratio: (n, *shape)."""
        return self.value_and_grad(x, t)[1]


class FieldSum(CloudField):
    """The sum of fields of one cloud, such as drifting at several temperatures.

    Wide kernels bring particles to the data, narrow ones settle them within it.

    Args:
        fields: fields of the cloud, at least one.

    Raises:
        ValueError: no field.
        TypeError: a field that is none of the cloud.
    """

    def __init__(self, fields: Sequence[CloudField]) -> None:
        if not fields:
            raise ValueError("FieldSum needs at least one field")
        for field in fields:
            if not isinstance(field, CloudField):
                raise TypeError(f"FieldSum adds fields of one cloud (CloudField), got a {type(field).__name__}")
        self.fields = list(fields)
        self.cost = sum(field.cost for field in self.fields)

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The sum of the fields at x: (n, *shape)."""
        return torch.stack([field(x, t) for field in self.fields]).sum(0)

    @property
    def conditional(self) -> bool:
        """Whether one of the fields takes a condition."""
        return any(field.conditional for field in self.fields)

    def given(self, cond: Cond) -> FieldSum:
        """The sum of the fields conditioned on `cond` (see `each_given`)."""
        return FieldSum(each_given(self.fields, cond))  # type: ignore[arg-type]

    def observe(self, x: Tensor, t: Time) -> FieldSum:
        """The sum of the fields having seen the cloud x."""
        return FieldSum([field.observe(x, t) for field in self.fields])

    def on(self, data: Tensor, noise: Noise | int | None = None) -> FieldSum:
        """The sum of the fields toward the points `data` (see `CloudField.on`)."""
        return FieldSum([field.on(data, noise) for field in self.fields])


class Injected(EqualByValue, Field):
    """A field evaluated at x + level xi, xi ~ N(0, I): the noise injection that frees MMD flow from local minima.

    The particles themselves stay free of noise; xi is a function of (noise, t), so that any solver may call it.

    Args:
        field: the field, of the cloud or not.
        level: a length in the units of x, or a function of t.
        noise: streams, one per particle, or an integer seed.

    Raises:
        ValueError: a field with leave_one_out, for a shifted point is no particle, so that nothing would be left out
            of its sum.
        TypeError: what is no field.

    References:
        Arbel et al. 2019, "Maximum mean discrepancy gradient flow".
    """

    def __init__(self, field: Field, level: float | Callable[[Time], float], noise: Noise | int = Noise(0)) -> None:
        field = as_field(field, "the field to inject noise into")
        parts = field.fields if isinstance(field, FieldSum) else [field]
        if any(getattr(part, "leave_one_out", False) for part in parts):
            raise ValueError(
                "injected noise takes particles from their places, and every one of them would flee from its own: "
                "build the field with leave_one_out=False"
            )
        self.field, self.level, self.noise = field, level, as_noise(noise)
        self.cost, self.cloud = field.cost, field.cloud

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The field at the shifted points x + level xi: (n, *shape)."""
        level = float(self.level(t) if callable(self.level) else self.level)
        xi = self.noise.fork("injected", time_key(t)).normal(len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device)
        return self.field(x + level * xi, t)

    @property
    def conditional(self) -> bool:
        """Whether the field takes a condition."""
        return self.field.conditional

    def given(self, cond: Cond) -> Injected:
        """The injected field conditioned on `cond`."""
        return Injected(self.field.given(cond), self.level, self.noise)

    def observe(self, x: Tensor, t: Time) -> Injected:
        """The injected field having seen the cloud x."""
        return Injected(self.field.observe(x, t), self.level, self.noise)

    def on(self, data: Tensor, noise: Noise | int | None = None) -> Injected:
        """The injected field toward the points `data` (see `CloudField.on`)."""
        field = self.field.on(data, noise) if isinstance(self.field, CloudField) else self.field
        return Injected(field, self.level, self.noise if noise is None else noise)
