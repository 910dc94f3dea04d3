"""Times: the clock of the particles, and float64 coefficients that meet tensors of another type."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

Time = float | Tensor


class NoiseLevels(Protocol):
    """What a field has to know of a noise schedule: its two functions of time, and where it ends."""

    @property
    def horizon(self) -> float: ...

    def sigma(self, t: Time, /) -> Tensor:
        """Noise level of the blurred data, in data units."""
        ...

    def scale(self, t: Time, /) -> Tensor:
        """Factor between data units and x."""
        ...


def wants_gradient(c: Tensor) -> bool:
    """Whether gradients are wanted through c: then it must not become a number."""
    return c.requires_grad and torch.is_grad_enabled()


def clock(t: Time) -> Tensor:
    """A time as a float64 tensor, 0-d or (n,)."""
    return torch.as_tensor(t, dtype=torch.float64)


def per_particle(c: Tensor, x: Tensor) -> Tensor | float:
    """A float64 coefficient, 0-d or (n,), ready to multiply x (n, *shape) in x's own type. Gradients run through it."""
    if c.ndim == 0:
        return c.to(x) if wants_gradient(c) else c.item()
    return c.to(x).reshape(-1, *[1] * (x.ndim - 1))
