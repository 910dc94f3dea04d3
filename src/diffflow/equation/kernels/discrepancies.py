r"""Discrepancy flows: fields that descend a distance between the cloud and its target, points or a score.

They are those of derivations.md section 7, items 3 to 6 and 8. With F the functional of n particles, v(x_i) = -n
dF/dx_i: the tests take that derivative and compare. The formulas stand with each class.

Shapes: x (n, *shape) -> (n, *shape); targets (m, *shape).
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
    """A field of the cloud toward target points.

    Args:
        data: target points (m, *shape).

    Raises:
        ValueError: anything but such a tensor.
    """

    def __init__(self, data: Tensor) -> None:
        self.data = self._points(data)

    def on(self, data: Tensor, noise: Noise | int | None = None) -> Self:
        """The same field toward the points `data` (see `CloudField.on`)."""
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
    """A field of the cloud toward the law of a given score."""

    def __init__(self, score: Field, kernel: Kernel) -> None:
        self.score, self.kernel = as_field(score, f"{type(self).__name__}'s score"), kernel
        self.cost = self.score.cost

    @property
    def conditional(self) -> bool:
        """Whether the score takes a condition."""
        return self.score.conditional

    def given(self, cond: Cond) -> Self:
        """The field toward the score conditioned on `cond`."""
        return self._with(score=self.score.given(cond))

    def _scores(self, t: Time) -> Tensor:
        """The target's score at the particles, flat (n, d)."""
        self._seen()
        assert self.particles is not None
        return self.score(self.particles, t).flatten(1).to(self.particles.dtype)


class SVGD(_OnScore):
    """Stein variational gradient descent: mean_i [k(x_i, x) s(x_i) + grad_{x_i} k(x_i, x)].

    It is the steepest descent of KL over velocities of the kernel's space. The kernel's median heuristic follows the
    cloud.

    Args:
        score: s = grad log q of the target, a field or a callable (x, t) -> (n, *shape).
        kernel: k; None: GaussianKernel().

    Raises:
        TypeError: a score that is no field.

    References:
        Liu & Wang 2016, "Stein variational gradient descent".
    """

    def __init__(self, score: Field, kernel: Kernel | None = None) -> None:
        super().__init__(score, kernel or GaussianKernel())

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The velocity at x: (n, *shape)."""
        flat, cloud, scores = x.flatten(1), self._seen(), self._scores(t)
        kernel = self.kernel.fitted(cloud, t)
        out = [kernel.derivatives(squares(rows, cloud), 0)[0] @ scores for _, rows in blocks(flat, cloud)]
        return (torch.cat(out) / len(cloud) - pull(kernel, flat, cloud)).reshape(x.shape)


class KSD(_OnScore):
    """Descent of the kernel Stein discrepancy: -mean_i grad_x k_q(x, x_i), with the Stein kernel of s = grad log q.

        k_q(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k

    Its mean over q x q is 0. Needs the score's derivative (one vector-Jacobian product) and a kernel that is smooth
    at 0. The kernel's median heuristic follows the cloud; its bandwidth is not differentiated.

    Args:
        score: s = grad log q of the target, a field or a callable (x, t) -> (n, *shape), differentiable in x.
        kernel: k; None: InverseMultiquadric().

    Raises:
        TypeError: a score that is no field.

    References:
        Korba et al. 2021, "Kernel Stein discrepancy descent".
    """

    def __init__(self, score: Field, kernel: Kernel | None = None) -> None:
        super().__init__(score, kernel or InverseMultiquadric())
        self.cost = 2 * self.score.cost

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The velocity at x: (n, *shape). Raises ValueError for a score that is not differentiable in x."""
        cloud, differentiable = self._seen().detach(), x.requires_grad and torch.is_grad_enabled()
        kernel = self.kernel.fitted(cloud, t)
        with gradients():
            y = x if differentiable else recordable(x).detach().requires_grad_()
            s = self.score(y, t).to(y.dtype)
            if not s.requires_grad:
                raise ValueError(f"KSD differentiates its score, and {self.score!r} is not differentiable in x")
        s_cloud = (s.flatten(1) if x is self.particles else self._scores(t)).detach()
        flat, s_flat = y.flatten(1), (s if differentiable else s.detach()).flatten(1)
        with torch.set_grad_enabled(differentiable):
            parts = [
                _stein_gradient(kernel, rows, s_flat[i : i + len(rows)], cloud, s_cloud)
                for i, rows in blocks(flat, cloud)
            ]
            by_score, by_place = ((torch.cat(part) / len(cloud)).reshape(x.shape) for part in zip(*parts, strict=True))
        with gradients():
            through_score = torch.autograd.grad(s, y, recordable(by_score), create_graph=differentiable)[0]
        return -(through_score + by_place)


def _stein_gradient(kernel: Kernel, x: Tensor, s_x: Tensor, y: Tensor, s_y: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over y of grad_x k_q(x, y) in two parts, each (n, d), for flat points and their scores.

    Returns:
        The derivative of k_q by s(x), which a product with the Jacobian of s takes on to x, and that by x where s(x)
        is held.
    """
    square, d = squares(x, y), x.shape[1]
    k, k1, k2, k3 = kernel.derivatives(square, 3)  # with r = x - y: grad_x k = 2 k1 r = -grad_y k
    slopes = k1.sum(1, keepdim=True)
    by_score = k @ s_y - 2 * (x * slopes - k1 @ y)
    gap = x @ s_y.T - (s_y * y).sum(1) - (s_x * x).sum(1, keepdim=True) + s_x @ y.T  # (s(y) - s(x)).r
    # what multiplies r in the gradient of each of the three terms
    scores_term = 2 * k1 * (s_x @ s_y.T)  # s(x).s(y) k
    cross_term = 4 * k2 * gap  # s(x).grad_y k + s(y).grad_x k = 2 k1 (s(y) - s(x)).r, with 2 k1 (s(y) - s(x)) beside r
    trace_term = 4 * (d + 2) * k2, 8 * square * k3  # tr grad_x grad_y k = -2 d k1 - 4 r^2 k2, negated, in two parts
    c = scores_term + cross_term - trace_term[0] - trace_term[1]
    by_place = x * c.sum(1, keepdim=True) - c @ y + 2 * (k1 @ s_y - s_x * slopes)
    return by_score, by_place


class MMD(OnPoints):
    """Descent of 1/2 MMD^2 between the cloud and the points: mean_j grad_x k(x, y_j) - mean_i grad_x k(x, x_i).

    The kernel's median heuristic looks at the points. `Injected` adds the paper's noise injection.

    Args:
        data: target points (m, *shape).
        kernel: k; None: EnergyKernel().

    Raises:
        ValueError: data that are no such points.

    References:
        Arbel et al. 2019, "Maximum mean discrepancy gradient flow".
    """

    def __init__(self, data: Tensor, kernel: Kernel | None = None) -> None:
        super().__init__(data)
        self.kernel = kernel or EnergyKernel()

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The velocity at x: (n, *shape)."""
        flat, target = x.flatten(1), self._target(x)
        kernel = self.kernel.fitted(target, t)
        return (pull(kernel, flat, target) - pull(kernel, flat, self._seen())).reshape(x.shape)


class Drifting(OnPoints):
    """Drifting m_q(x) - m_p(x), the difference of the kernel-weighted means of target points and particles.

    Zero at p = q, antisymmetric in (q, p), and h^2 grad log q_h/p_h for a Gaussian kernel. A particle of the cloud is
    drawn away from the *other* particles only (leave_one_out), as in the paper.

    Args:
        data: target points (m, *shape).
        kernel: k; None: LaplaceKernel(), whose bandwidth is the temperature.
        leave_one_out: whether a particle of the cloud leaves itself out of its own mean.

    Raises:
        ValueError: data that are no such points.

    References:
        Deng et al. 2026, "Generative modeling via drifting".
    """

    def __init__(self, data: Tensor, kernel: Kernel | None = None, leave_one_out: bool = True) -> None:
        super().__init__(data)
        self.kernel, self.leave_one_out = kernel or LaplaceKernel(), leave_one_out

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The velocity at x: (n, *shape). Raises ValueError for a lone particle that would leave itself out."""
        flat, target, cloud = x.flatten(1), self._target(x), self._seen()
        kernel = self.kernel.fitted(target, t)
        others_only = self.leave_one_out and x is self.particles
        if others_only and len(cloud) < 2:
            raise ValueError("drifting away from the other particles needs at least two: or leave_one_out=False")
        return (mean_shift(kernel, flat, target)[1] - mean_shift(kernel, flat, cloud, others_only)[1]).reshape(x.shape)


class SlicedWasserstein(OnPoints):
    """Descent of 1/2 SW2^2: mean over directions theta of (T(<theta, x>) - <theta, x>) theta.

    T is the monotone map from the cloud's projection to the points'. Directions come in orthonormal sets of up to d
    (less variance: over a whole set the mean of theta theta^T is I/d exactly); they are a function of (noise, t),
    others at every step: of the noise's own number, for a direction belongs to no particle. Numbers of points may
    differ: T is then the mean of the points' quantiles over the particle's share of mass. Away from the cloud T is
    interpolated.

    Args:
        data: target points (m, *shape).
        directions: number of directions, at least 1.
        noise: seeds the directions: a Noise, or an integer seed.

    Raises:
        ValueError: data that are no such points, or no direction.

    References:
        Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures"; Liutkus et al. 2019,
        "Sliced-Wasserstein flows".
    """

    def __init__(self, data: Tensor, directions: int = 64, noise: Noise | int = Noise(0)) -> None:
        super().__init__(data)
        if directions < 1:
            raise ValueError(f"directions={directions}: at least one")
        self.directions, self.noise = directions, as_noise(noise)

    def axes(self, x: Tensor, t: Time) -> Tensor:
        """Directions at t as unit columns (d, directions), in the type of x (n, *shape)."""
        d = x[0].numel()
        streams = Noise(self.noise.seed).fork("directions", self.noise.first, time_key(t))
        draws = streams.normal(self.directions, (d,), dtype=x.dtype, device=x.device)
        return torch.cat([torch.linalg.qr(part.T)[0] for part in draws.split(d)], 1)

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        """The velocity at x: (n, *shape)."""
        theta, cloud = self.axes(x, t), self._seen()
        projected, cloud_projected = x.flatten(1) @ theta, cloud @ theta
        order = cloud_projected.argsort(0)
        goal = _quantiles((self._target(x) @ theta).sort(0).values, len(cloud))
        if x is self.particles:
            moved = torch.empty_like(projected).scatter(0, order, goal)
        else:
            moved = _interpolate(projected, cloud_projected.gather(0, order), goal)
        return ((moved - projected) @ theta.T / theta.shape[1]).reshape(x.shape)


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
