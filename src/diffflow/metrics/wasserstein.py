"""Wasserstein distances of samples to data, quadratic cost: how far the samples must be carried to become the data.

    W2^2(x, y)  = min over matchings of mean |x_i - y_pi(i)|^2
    SW2^2(x, y) = mean over directions theta of W2^2(<theta, x>, <theta, y>)         (in 1-D the matching is sorting)

For a shift by m: W2 = |m| and SW2 = |m| / sqrt(d). Empirical W2 of equal laws is not zero (of order n^(-1/d)): read it
beside its floor. Standard errors are those of the central limit theorem of del Barrio and Loubes (Ann. Probab. 2019,
Theorem 4.1): Var W2^2 = Var phi(X) / n + Var psi(Y) / n with (phi, psi) the dual potentials, and W2 by the delta
method; for SW2 the potentials are averaged over directions, and the variance from finitely many directions is added.
They are about the mean at this n.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Metric, two_sample


def exact_w2(x: Tensor, y: Tensor, other: Tensor | None = None, *, limit: int = 1000, seed: int = 0) -> Metric:
    """Exact Wasserstein-2 distance between samples and real points.

    Args:
        x: samples (n, *shape).
        y: real points (m, *shape), in the same units.
        other: more real points, for the floor, or None.
        limit: most points taken of each; the time grows as its cube.
        seed: of which points are taken.

    Returns:
        `w2`, in the units of the points (images: of pixels in [0, 1]); its floor falls only as n^(-1/d).

    Raises:
        ValueError: for fewer than two points in a set, and for sets that cannot be compared (`base.admitted`).

    References:
        del Barrio and Loubes 2019, "Central limit theorems for empirical transportation cost in general dimension".
    """
    return two_sample("w2", _exact, x, y, other, limit, seed, "lower")


def sliced_w2(
    x: Tensor, y: Tensor, other: Tensor | None = None, *, directions: int = 256, limit: int = 2000, seed: int = 0
) -> Metric:
    """Sliced Wasserstein-2 distance: the root mean square over random directions of the W2 along each.

    Args:
        x: samples (n, *shape).
        y: real points (m, *shape), in the same units.
        other: more real points, for the floor, or None.
        directions: number of directions, drawn by `seed`.
        limit: most points taken of each.
        seed: of the directions and of which points are taken.

    Returns:
        `sliced_w2`, in the units of the points; |m| / sqrt(d) for a shift by m in d dimensions.

    Raises:
        ValueError: for fewer than two points in a set, and for sets that cannot be compared (`base.admitted`).

    References:
        Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures".
    """
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(math.prod(x.shape[1:]), directions, generator=generator, dtype=torch.float64)
    theta = theta / theta.norm(dim=0)
    return two_sample("sliced_w2", lambda a, b: _sliced(a, b, theta), x, y, other, limit, seed, "lower")


def marginal_w2(x: Tensor, y: Tensor, other: Tensor | None = None, *, limit: int = 2000, seed: int = 0) -> Metric:
    """Marginal Wasserstein-2 distance: the root mean square over columns of the W2 of each column alone.

    Args:
        x: samples (n, *shape).
        y: real points (m, *shape), in the same units.
        other: more real points, for the floor, or None.
        limit: most rows taken of each.
        seed: of which rows are taken.

    Returns:
        `marginal_w2`, in the units of the columns; it sees nothing of how columns depend on each other.

    Raises:
        ValueError: for fewer than two points in a set, and for sets that cannot be compared (`base.admitted`).
    """
    axes = torch.eye(math.prod(x.shape[1:]), dtype=torch.float64)
    return two_sample("marginal_w2", lambda a, b: _sliced(a, b, axes, sampled=False), x, y, other, limit, seed, "lower")


def _exact(x: Tensor, y: Tensor) -> tuple[float, float]:
    import ot

    cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    square, log = ot.emd2([], [], cost, log=True, numItermax=1_000_000)
    return _distance_and_stderr(float(square), float(log["u"].var() + log["v"].var()) / len(x))


def _sliced(x: Tensor, y: Tensor, theta: Tensor, sampled: bool = True) -> tuple[float, float]:
    """Over the columns of theta (d, k); `sampled`: they stand for all directions, which adds to the error."""
    import ot

    log = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=theta.numpy(), log=True)[1]
    squares = torch.from_numpy(log["projected_emds"])
    phi, psi = _dual_potential(x @ theta, y @ theta), _dual_potential(y @ theta, x @ theta)
    variance = (phi.var() + psi.var()) / len(x) + (squares.var() / theta.shape[1] if sampled else 0.0)
    return _distance_and_stderr(float(squares.mean()), float(variance))


def _dual_potential(a: Tensor, b: Tensor) -> Tensor:
    """The 1-D dual potential, phi' = 2 (a - T(a)) with T by sorting, at each row of a (n, k), averaged over columns."""
    order = a.argsort(0)
    a, b = a.gather(0, order), b.sort(0).values
    steps = (a[1:] - a[:-1]) * ((a - b)[1:] + (a - b)[:-1])
    phi = torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])
    phi = phi - phi.mean(0)
    return torch.empty_like(phi).scatter_(0, order, phi).mean(1)


def _distance_and_stderr(square: float, variance: float) -> tuple[float, float]:
    """W and its standard error from W^2 and its variance; at W = 0 the delta method gives way to sqrt(se)."""
    se = variance**0.5
    value = max(square, 0.0) ** 0.5
    return value, min(se / (2.0 * value) if value else float("inf"), se**0.5)
