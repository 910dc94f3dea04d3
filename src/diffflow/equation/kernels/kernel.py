r"""Kernels: functions of the distance of two points, and sums of them over pairs of points.

    k(x, y) = phi(s),   s = |x - y|^2,   grad_x k = 2 phi'(s) (x - y),   tr grad_x grad_y k = -2 d phi' - 4 s phi''

A kernel gives phi and its derivatives in closed form; the sums go by blocks of rows, so that memory is bounded by PAIRS
whatever n and m. Shapes: flat points x (n, d), y (m, d).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from ..times import Time

PAIRS = 1 << 20  # pairs that a block may hold


def median_bandwidth(points: Tensor) -> float:
    """Bandwidth h of the median heuristic, h^2 = median squared distance / (2 log(n + 1)).

    A Gaussian kernel of this width sums to about 1 over all other points.

    Args:
        points: (n, *shape), of which 1000 at most are looked at.

    Returns:
        h, in the units of the points.

    Raises:
        ValueError: points that all lie in one place.

    References:
        Liu & Wang 2016, "Stein variational gradient descent".
    """
    flat = points.detach().flatten(1)
    few = flat[:: max(1, math.ceil(len(flat) / 1000))]
    median = torch.pdist(few).median().item() if len(few) > 1 else 0.0
    if not median > 0:
        raise ValueError("the median heuristic needs points apart from each other: give the bandwidth as a number")
    return median / math.sqrt(2 * math.log(len(flat) + 1))


@dataclass(frozen=True)
class Kernel:
    """A kernel k(x, y) = phi(|x - y|^2), phi > 0.

    Args:
        bandwidth: a length in the units of x, or a function of t; None asks for the median heuristic.

    Raises:
        ValueError: a bandwidth that is not positive.
    """

    bandwidth: float | Callable[[Time], float | Tensor] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.bandwidth, (int, float)) and not self.bandwidth > 0:
            raise ValueError(f"bandwidth={self.bandwidth} must be positive")

    def fitted(self, points: Tensor, t: Time = 0.0) -> Self:
        """The kernel with a number for its bandwidth.

        Args:
            points: (n, *shape), for the median heuristic.
            t: time, for a bandwidth that is a function of it.

        Returns:
            The kernel at t, or with the bandwidth of the median heuristic.
        """
        if self.bandwidth is None:
            return replace(self, bandwidth=median_bandwidth(points))
        return replace(self, bandwidth=float(self.bandwidth(t))) if callable(self.bandwidth) else self

    @property
    def h(self) -> float:
        """The bandwidth as a number. Raises ValueError where it is none yet."""
        if self.bandwidth is None or callable(self.bandwidth):
            raise ValueError(f"{type(self).__name__} has no number for its bandwidth yet: call fitted(points, t)")
        return self.bandwidth

    def log(self, s: Tensor) -> Tensor:
        """Logarithm log phi(s) at squared distances s, any shape."""
        raise NotImplementedError(f"{type(self).__name__} must define log(s)")

    def derivatives(self, s: Tensor, order: int) -> list[Tensor]:
        """Values of phi and its first `order` derivatives at squared distances s, as far as they are finite at 0."""
        raise NotImplementedError(f"{type(self).__name__} must define derivatives(s, order)")

    def _rough(self, order: int) -> None:
        if order > 1:
            raise ValueError(
                f"{type(self).__name__} is not smooth where x = y, and this field differentiates it {order} times: "
                "use GaussianKernel or InverseMultiquadric"
            )


@dataclass(frozen=True)
class GaussianKernel(Kernel):
    """Gaussian kernel exp(-|x - y|^2 / (2 h^2)).

    Args:
        bandwidth: h, a length in the units of x, or a function of t; None: the median heuristic.
    """

    def log(self, s: Tensor) -> Tensor:
        """Logarithm of the kernel at squared distances s."""
        return s * (-0.5 / self.h**2)

    def derivatives(self, s: Tensor, order: int) -> list[Tensor]:
        """Values of phi and its first `order` derivatives by s."""
        value = self.log(s).exp()
        return [value * (-0.5 / self.h**2) ** k for k in range(order + 1)]


@dataclass(frozen=True)
class InverseMultiquadric(Kernel):
    """Inverse multiquadric kernel (1 + |x - y|^2 / h^2)^(-1/2): heavy tails, for which KSD detects non-convergence.

    Args:
        bandwidth: h, a length in the units of x, or a function of t; None: the median heuristic.

    References:
        Gorham & Mackey 2017, "Measuring sample quality with kernels".
    """

    def log(self, s: Tensor) -> Tensor:
        """Logarithm of the kernel at squared distances s."""
        return -0.5 * torch.log1p(s / self.h**2)

    def derivatives(self, s: Tensor, order: int) -> list[Tensor]:
        """Values of phi and its first `order` derivatives by s."""
        base, out = 1 + s / self.h**2, [(1 + s / self.h**2).rsqrt()]
        for k in range(order):
            out.append(out[-1] / base * (-(0.5 + k) / self.h**2))
        return out


def _inverse_root(s: Tensor) -> Tensor:
    """Inverse root 1 / sqrt(s), and 0 at s = 0, where the gradient of a distance is taken to be 0."""
    return s.masked_fill(s == 0, math.inf).rsqrt()


@dataclass(frozen=True)
class LaplaceKernel(Kernel):
    """Laplace kernel exp(-|x - y| / h), that of drifting (there h is the temperature).

    Args:
        bandwidth: h, a length in the units of x, or a function of t; None: the median heuristic.
    """

    def log(self, s: Tensor) -> Tensor:
        """Logarithm of the kernel at squared distances s."""
        return s * _inverse_root(s) * (-1 / self.h)

    def derivatives(self, s: Tensor, order: int) -> list[Tensor]:
        """Values of phi and its first derivative by s. Raises ValueError for an order above 1."""
        self._rough(order)
        value = self.log(s).exp()
        return [value, value * _inverse_root(s) * (-0.5 / self.h)][: order + 1]


@dataclass(frozen=True)
class EnergyKernel(Kernel):
    """Energy kernel -|x - y|, whose MMD^2 is the energy distance, without a bandwidth to choose.

    Positive definite only between laws of equal mass, so for MMD alone.

    Args:
        bandwidth: not used.

    References:
        Szekely & Rizzo 2013, "Energy statistics: a class of statistics based on distances".
    """

    def fitted(self, points: Tensor, t: Time = 0.0) -> Self:
        """The kernel itself: it has no bandwidth."""
        return self

    def log(self, s: Tensor) -> Tensor:
        """No logarithm: raises ValueError, for the kernel is negative."""
        raise ValueError("EnergyKernel is negative and cannot weigh points: use GaussianKernel or LaplaceKernel")

    def derivatives(self, s: Tensor, order: int) -> list[Tensor]:
        """Values of phi and its first derivative by s. Raises ValueError for an order above 1."""
        self._rough(order)
        inverse = _inverse_root(s)
        return [-s * inverse, -0.5 * inverse][: order + 1]


# -- sums over pairs --------------------------------------------------------------------------------------------------
def squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances |x_i - y_j|^2: (n, d), (m, d) -> (n, m).

    By differences in few dimensions, where nothing cancels; else by products.
    """
    if x.shape[1] <= 8:
        s = x.new_zeros(len(x), len(y))
        for a, b in zip(x.unbind(1), y.unbind(1), strict=True):
            s = s + (a[:, None] - b).square()
        return s
    centre = y.mean(0)
    x, y = x - centre, y - centre
    return (x.square().sum(1, keepdim=True) - 2 * x @ y.T + y.square().sum(1)).clamp_min(0)


def blocks(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Blocks of rows of x (n, d), few enough for their pairs with y (m, d): (number of the first, rows)."""
    rows = max(1, PAIRS // len(y))
    for i in range(0, len(x), rows):
        yield i, x[i : i + rows]


def pull(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    """Mean gradient mean_j grad_x k(x, y_j): (n, d)."""
    out = []
    for _, rows in blocks(x, y):
        slope = kernel.derivatives(squares(rows, y), 1)[1]
        out.append((rows * slope.sum(1, keepdim=True) - slope @ y) * (2 / len(y)))
    return torch.cat(out)


def mean_shift(kernel: Kernel, x: Tensor, y: Tensor, leave_one_out: bool = False) -> tuple[Tensor, Tensor]:
    """Kernel-weighted mean of y at each x, with the logarithm of the weights' sum.

    Args:
        kernel: a kernel with a number for its bandwidth.
        x: flat points (n, d).
        y: flat points (m, d).
        leave_one_out: x is y, and no point weighs itself.

    Returns:
        log sum_j k(x, y_j) (n,), and the mean (n, d).
    """
    logs, means = [], []
    for i, rows in blocks(x, y):
        e = kernel.log(squares(rows, y))
        if leave_one_out:
            e = e.index_put((torch.arange(len(rows)), torch.arange(i, i + len(rows))), e.new_tensor(-math.inf))
        logs.append(e.logsumexp(1))
        means.append(e.softmax(1) @ y)
    return torch.cat(logs), torch.cat(means)
