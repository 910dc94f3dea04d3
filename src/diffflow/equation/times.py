"""Times: the particles' clock in float64, and float64 coefficients made ready for particles of another type."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

Time = float | Tensor


class NoiseLevels(Protocol):
    """What a field needs of a noise schedule: its two functions of time, and where it ends."""

    @property
    def horizon(self) -> float:
        """The generation time of the data."""
        ...

    def sigma(self, t: Time, /) -> Tensor:
        """Noise level of the blurred data, in data units, float64 like t."""
        ...

    def scale(self, t: Time, /) -> Tensor:
        """Factor between data units and x, float64 like t."""
        ...


def wants_gradient(c: Tensor) -> bool:
    """Whether gradients are wanted through c: then it must not become a number."""
    return c.requires_grad and torch.is_grad_enabled()


def clock(t: Time) -> Tensor:
    """Time t as a float64 tensor, 0-d or (n,)."""
    return torch.as_tensor(t, dtype=torch.float64)


def per_particle(c: Tensor, x: Tensor) -> Tensor | float:
    """Coefficient made ready to multiply particles in their own type. Gradients run through it.

    Args:
        c: float64 coefficient, 0-d or (n,).
        x: particles (n, *shape).

    Returns:
        A number, or a tensor like x: 0-d where gradients are wanted through c, or (n, 1, ..., 1).
    """
    if c.ndim == 0:
        return c.to(x) if wants_gradient(c) else c.item()
    return c.to(x).reshape(-1, *[1] * (x.ndim - 1))
