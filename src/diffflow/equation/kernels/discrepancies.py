r"""Fields that descend a discrepancy between the cloud and its target, given as points or as a score (derivations.md
section 7, items 3 to 6 and 8).

With F the functional of n particles, v(x_i) = -n dF/dx_i: the tests take that derivative and compare. The formulas
stand with each class. Shapes: x (n, *shape) -> (n, *shape); targets (m, *shape).
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from ..algebra import Cond, Field, as_field, gradients, recordable
from ..noise import Noise, as_noise
from ..times import Time
from .density import CloudField, time_key
from .kernel import (
    EnergyKernel,
    GaussianKernel,
    InverseMultiquadric,
    Kernel,
    LaplaceKernel,
    blocks,
    mean_shift,
    pull,
    squares,
)


class OnPoints(CloudField):
    """A field toward target points (m, *shape)."""

    def __init__(self, data: Tensor) -> None:
        self.data = self._points(data)

    def on(self, data: Tensor, noise: Noise | int | None = None) -> Self:
        return self._with(data=self._points(data), noise=self.noise if noise is None else as_noise(noise))

    def _points(self, data: Tensor) -> Tensor:
        if not isinstance(data, Tensor) or data.ndim < 2 or not len(data):
            got = tuple(data.shape) if isinstance(data, Tensor) else type(data).__name__
            raise ValueError(f"{type(self).__name__} wants target points (m, *shape), got {got}; law.sample(m) draws")
        return data

    def _target(self, x: Tensor) -> Tensor:
        """The target points, flat (m, d), beside x."""
        if self.data.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"particles of shape {tuple(x.shape[1:])} cannot go to points of shape {tuple(self.data.shape[1:])}"
            )
        return self.data.flatten(1).to(x)


class _OnScore(CloudField):
    """A field toward the law of a given score."""

    def __init__(self, score: Field, kernel: Kernel) -> None:
        self.score, self.kernel = as_field(score, f"{type(self).__name__}'s score"), kernel
        self.cost = self.score.cost

    @property
    def conditional(self) -> bool:
        return self.score.conditional

    def given(self, cond: Cond) -> Self:
        return self._with(score=self.score.given(cond))

    def _scores(self, t: Time) -> Tensor:
        """The target's score at the particles, flat (n, d)."""
        self._seen()
        assert self.particles is not None
        return self.score(self.particles, t).flatten(1).to(self.particles.dtype)


class SVGD(_OnScore):
    """mean_i [k(x_i, x) s(x_i) + grad_{x_i} k(x_i, x)] (Liu & Wang 2016): steepest descent of KL over velocities of
    the kernel's space. The kernel's median heuristic follows the cloud."""

    def __init__(self, score: Field, kernel: Kernel | None = None) -> None:
        super().__init__(score, kernel or GaussianKernel())

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        flat, cloud, scores = x.flatten(1), self._seen(), self._scores(t)
        kernel = self.kernel.fitted(cloud, t)
        out = [kernel.derivatives(squares(rows, cloud), 0)[0] @ scores for _, rows in blocks(flat, cloud)]
        return (torch.cat(out) / len(cloud) - pull(kernel, flat, cloud)).reshape(x.shape)


class KSD(_OnScore):
    """-mean_i grad_x k_q(x, x_i) (Korba et al. 2021), with the Stein kernel of the score s = grad log q

        k_q(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k

    whose mean over q x q is 0. Needs the score's derivative (one vector-Jacobian product) and a kernel that is smooth
    at 0. The kernel's median heuristic follows the cloud; its bandwidth is not differentiated.
    """

    def __init__(self, score: Field, kernel: Kernel | None = None) -> None:
        super().__init__(score, kernel or InverseMultiquadric())
        self.cost = 2 * self.score.cost

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        cloud, onward = self._seen().detach(), x.requires_grad and torch.is_grad_enabled()
        kernel, m, d = self.kernel.fitted(cloud, t), len(cloud), cloud.shape[1]
        with gradients():
            y = x if onward else recordable(x).detach().requires_grad_()
            s = self.score(y, t).to(y.dtype)
            if not s.requires_grad:
                raise ValueError(f"KSD differentiates its score, and {self.score!r} is not differentiable in x")
        same = x is self.particles
        other = (s.flatten(1) if same else self._scores(t)).detach()
        inner = (other * cloud).sum(1)  # s(x_i).x_i
        a, b = [], []  # what multiplies the Jacobian of s, and the rest
        flat, here = y.flatten(1), (s if onward else s.detach()).flatten(1)
        with torch.set_grad_enabled(onward):
            for i, rows in blocks(flat, cloud):
                mine, square = here[i : i + len(rows)], squares(rows, cloud)
                k0, k1, k2, k3 = kernel.derivatives(square, 3)
                total = k1.sum(1, keepdim=True)
                a.append(k0 @ other - 2 * (rows * total - k1 @ cloud))
                gap = rows @ other.T - inner - (mine * rows).sum(1, keepdim=True) + mine @ cloud.T  # (s_y - s_x).r
                c = 2 * k1 * (mine @ other.T) + 4 * k2 * gap - 4 * (d + 2) * k2 - 8 * square * k3
                b.append(rows * c.sum(1, keepdim=True) - c @ cloud + 2 * (k1 @ other - mine * total))
            weights = (torch.cat(a) / m).reshape(x.shape)
        with gradients():
            through = torch.autograd.grad(s, y, recordable(weights), create_graph=onward)[0]
        return -(through + (torch.cat(b) / m).reshape(x.shape))


class MMD(OnPoints):
    """mean_j grad_x k(x, y_j) - mean_i grad_x k(x, x_i): descent of 1/2 MMD^2 between the cloud and the points (Arbel
    et al. 2019). The kernel's median heuristic looks at the points. `Injected` adds their noise injection."""

    def __init__(self, data: Tensor, kernel: Kernel | None = None) -> None:
        super().__init__(data)
        self.kernel = kernel or EnergyKernel()

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        flat, target = x.flatten(1), self._target(x)
        kernel = self.kernel.fitted(target, t)
        return (pull(kernel, flat, target) - pull(kernel, flat, self._seen())).reshape(x.shape)


class Drifting(OnPoints):
    """m_q(x) - m_p(x), the difference of the kernel-weighted means of target points and particles (Deng et al. 2026):
    zero at p = q, antisymmetric in (q, p), and h^2 grad log q_h/p_h for a Gaussian kernel.

    A particle of the cloud is drawn away from the *other* particles only (leave_one_out), as in the paper.
    """

    def __init__(self, data: Tensor, kernel: Kernel | None = None, leave_one_out: bool = True) -> None:
        super().__init__(data)
        self.kernel, self.leave_one_out = kernel or LaplaceKernel(), leave_one_out

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        flat, target, cloud = x.flatten(1), self._target(x), self._seen()
        kernel = self.kernel.fitted(target, t)
        own = self.leave_one_out and x is self.particles
        if own and len(cloud) < 2:
            raise ValueError("drifting away from the other particles needs at least two: or leave_one_out=False")
        return (mean_shift(kernel, flat, target)[1] - mean_shift(kernel, flat, cloud, own)[1]).reshape(x.shape)


class SlicedWasserstein(OnPoints):
    """mean over directions theta of (T(<theta, x>) - <theta, x>) theta, T the monotone map from the cloud's projection
    to the points' (Bonneel et al. 2015; Liutkus et al. 2019): descent of 1/2 SW2^2.

    Directions come in orthonormal sets of up to d (less variance: over a whole set the mean of theta theta^T is I/d
    exactly); they are a function of (noise, t), others at every step: of the noise's own number, for a direction
    belongs to no particle. Numbers of points may differ: T is then the mean
    of the points' quantiles over the particle's share of mass. Away from the cloud T is interpolated.
    """

    def __init__(self, data: Tensor, directions: int = 64, noise: Noise | int = Noise(0)) -> None:
        super().__init__(data)
        if directions < 1:
            raise ValueError(f"directions={directions}: at least one")
        self.directions, self.noise = directions, as_noise(noise)

    def axes(self, x: Tensor, t: Time) -> Tensor:
        """The directions at t, (d, directions), unit columns."""
        d = x[0].numel()
        own = Noise(self.noise.seed).fork("directions", self.noise.first, time_key(t))
        draws = own.normal(self.directions, (d,), dtype=x.dtype, device=x.device)
        return torch.cat([torch.linalg.qr(part.T)[0] for part in draws.split(d)], 1)

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        theta, cloud = self.axes(x, t), self._seen()
        here, place = x.flatten(1) @ theta, cloud @ theta
        order = place.argsort(0)
        goal = _quantiles((self._target(x) @ theta).sort(0).values, len(cloud))
        if x is self.particles:
            moved = torch.empty_like(here).scatter(0, order, goal)
        else:
            moved = _interpolate(here, place.gather(0, order), goal)
        return ((moved - here) @ theta.T / theta.shape[1]).reshape(x.shape)


def _quantiles(y: Tensor, n: int) -> Tensor:
    """Sorted columns (m, k) as n equal shares of mass, each at its mean: (n, k)."""
    m = len(y)
    if m == n:
        return y
    total = torch.cat([torch.zeros_like(y[:1]), y.cumsum(0)])  # m times the integral of the quantile function
    u = torch.arange(n + 1, dtype=torch.float64, device=y.device) * m / n
    low = u.floor().long().clamp_max(m - 1)
    part = (u - low).to(y)[:, None]
    at = total[low] + part * (total[low + 1] - total[low])
    return at.diff(dim=0) * (n / m)


def _interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Columnwise: x plus the displacement values - knots, linear between the sorted knots (n, k), constant beyond."""
    shift = values - knots
    right = torch.searchsorted(knots.T.contiguous(), x.detach().T.contiguous()).T.clamp(1, max(1, len(knots) - 1))
    right = right.clamp_max(len(knots) - 1)
    left = (right - 1).clamp_min(0)
    a, b = knots.gather(0, left), knots.gather(0, right)
    share = torch.where(b > a, (x - a) / torch.where(b > a, b - a, 1.0), 0.0).clamp(0, 1)
    return x + shift.gather(0, left) + share * (shift.gather(0, right) - shift.gather(0, left))
