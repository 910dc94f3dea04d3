r"""Fields from the cloud alone: kernel density estimates of the particles' own law.

    p_h(x) = 1/n sum_i N(x; x_i, h^2 I),    grad log p_h(x) = (m(x) - x) / h^2,    m = kernel-weighted mean of the cloud

`KernelRatio` pairs it with the target blurred by the same h, so that bias cancels: grad log (r * N_h) / p_h. Whether
a particle of the cloud leaves itself out of the sum is a choice: without its own kernel the estimate has no 1/n bias
(right for looking at a cloud), but in a flow a particle that has lost its neighbours is pushed away from them without
end; its own kernel then holds it (right for moving one, the default).

O(n^2); for few dimensions (theory.md section 2, item 3). Shapes: x (n, *shape) -> (n, *shape).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .fields import Field, Ratio
from .laws import Law
from .schedule import Time


class _Cloud(Field):
    """A field that must see the particles first."""

    cloud = True
    cost = 0  # no network

    def __init__(self, bandwidth: float, leave_one_out: bool = False) -> None:
        if not bandwidth > 0:
            raise ValueError(f"bandwidth={bandwidth} must be positive")
        self.bandwidth, self.leave_one_out = bandwidth, leave_one_out
        self.particles: Tensor | None = None

    def observe(self, x: Tensor, t: Time) -> Field:
        other = copy.copy(self)
        other.particles = x
        return other

    def _density(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p_h (n,) and its gradient at x (n, *shape)."""
        if self.particles is None:
            raise RuntimeError(f"{type(self).__name__} has seen no cloud: call observe(x, t) first (sample() does)")
        flat, cloud = x.reshape(len(x), -1), self.particles.reshape(len(self.particles), -1)
        own = self.leave_one_out and x is self.particles
        logs, grads = [], []
        for i in range(0, len(flat), 1024):  # blocks of rows bound the memory
            y = flat[i : i + 1024]
            e = -0.5 * torch.cdist(y, cloud, compute_mode="donot_use_mm_for_euclid_dist").square() / self.bandwidth**2
            if own:
                e[torch.arange(len(y)), torch.arange(i, i + len(y))] = -math.inf
            logs.append(e.logsumexp(1))
            grads.append((e.softmax(1) @ cloud - y) / self.bandwidth**2)
        d, n = flat.shape[1], len(cloud) - own
        log_p = torch.cat(logs) - math.log(n) - 0.5 * d * math.log(2 * math.pi * self.bandwidth**2)
        return log_p, torch.cat(grads).reshape(x.shape)


class KernelScore(_Cloud):
    """grad log p_h of the observed cloud, bandwidth h in the units of x."""

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        return self._density(x)[1]


class KernelRatio(_Cloud, Ratio):
    """grad log (r_t * N(0, h^2)) / p_h: the log-ratio of target and cloud, both blurred by h. `target`: a Law, or t
    -> Law (r_t)."""

    def __init__(self, target: Any, bandwidth: float, leave_one_out: bool = False) -> None:
        super().__init__(bandwidth, leave_one_out)
        self.target: Callable[[Time], Law] = (lambda t: target) if hasattr(target, "noised") else target

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        blurred = self.target(t).noised(1.0, self.bandwidth)
        log_p, grad = self._density(x)
        return blurred.log_prob(x) - log_p, blurred.score(x) - grad

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        return self.value_and_grad(x, t)[1]
