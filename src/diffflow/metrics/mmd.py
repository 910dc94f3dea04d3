"""Kernel distances between samples and data, unbiased at every number of points.

They are zero in expectation for equal laws at any n, and the first two only then.

    MMD^2  k(x, y) = exp(-|x - y|^2 / (2 h^2)), h the median distance within the reference (Gretton et al. 2012, eq. 4)
    energy k(x, y) = -|x - y|:  2 E|X - Y| - E|X - X'| - E|Y - Y'|                    (Szekely and Rizzo 2013)
    KID    k(x, y) = (x.y/d + 1)^3 of features of d numbers: zero for equal first three moments (Binkowski et al. 2018)

All are the same unbiased U-statistic of pairs z_i = (x_i, y_i),

    U = mean over i != j of h_ij,     h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i),

and may come out slightly negative. Standard error in closed form, exact to second order so that it holds under equal
laws too, where the first-order term vanishes (Hoeffding 1948):

    Var U = [4 (n - 2) zeta1 + 2 zeta2] / (n (n - 1)),     zeta1 = Var E[h | z],  zeta2 = Var h
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Metric, two_sample


def mmd(x: Tensor, y: Tensor, other: Tensor | None = None, *, limit: int = 2000, seed: int = 0) -> Metric:
    """Maximum mean discrepancy, squared and unbiased, with a Gaussian kernel.

    The bandwidth is the median distance within the real points.

    Args:
        x: samples (n, *shape).
        y: real points (m, *shape), in the same units.
        other: more real points, for the floor, or None.
        limit: most points taken of each.
        seed: of which points are taken.

    Returns:
        `mmd2`, without units, at most 2; unbiased, so it can be negative.

    Raises:
        ValueError: for fewer than two points in a set, and for sets that cannot be compared (`base.admitted`).

    References:
        Gretton et al. 2012, "A kernel two-sample test", eq. 4.
    """

    def statistic(a: Tensor, b: Tensor) -> tuple[float, float]:
        within = _distances(b, b)
        # from the reference alone: a bandwidth that saw the samples would bias the estimate
        width = within[~torch.eye(len(b), dtype=torch.bool)].median().clamp_min(torch.finfo(b.dtype).tiny)
        return _u_statistic(*(torch.exp(-0.5 * (r / width) ** 2) for r in (_distances(a, a), within, _distances(a, b))))

    return two_sample("mmd2", statistic, x, y, other, limit, seed, "lower")


def energy_distance(x: Tensor, y: Tensor, other: Tensor | None = None, *, limit: int = 2000, seed: int = 0) -> Metric:
    """Energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased.

    Args:
        x: samples (n, *shape).
        y: real points (m, *shape), in the same units.
        other: more real points, for the floor, or None.
        limit: most points taken of each.
        seed: of which points are taken.

    Returns:
        `energy`, in the units of the points; unbiased, so it can be negative.

    Raises:
        ValueError: for fewer than two points in a set, and for sets that cannot be compared (`base.admitted`).

    References:
        Szekely and Rizzo 2013, "Energy statistics: a class of statistics based on distances".
    """

    def statistic(a: Tensor, b: Tensor) -> tuple[float, float]:
        return _u_statistic(-_distances(a, a), -_distances(b, b), -_distances(a, b))

    return two_sample("energy", statistic, x, y, other, limit, seed, "lower")


def kid(x: Tensor, y: Tensor, other: Tensor | None = None, *, limit: int = 2000, seed: int = 0) -> Metric:
    """Kernel distance of features, KID where they are Inception's: the MMD^2 of the kernel (x.y/d + 1)^3, unbiased.

    Args:
        x: features of samples (n, d).
        y: features of real data (m, d).
        other: features of more real data, for the floor, or None.
        limit: most rows taken of each.
        seed: of which rows are taken.

    Returns:
        `kid`, without units; zero for equal first three moments, unbiased, so it can be negative.

    Raises:
        ValueError: for fewer than two rows in a set, and for sets that cannot be compared (`base.admitted`).

    References:
        Binkowski et al. 2018, "Demystifying MMD GANs".
    """

    def statistic(a: Tensor, b: Tensor) -> tuple[float, float]:
        return _u_statistic(*((u @ v.T / u.shape[1] + 1) ** 3 for u, v in ((a, a), (b, b), (a, b))))

    return two_sample("kid", statistic, x, y, other, limit, seed, "lower")


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (n, m), float64; through the Gram matrix when large, so centred first to lose no digits."""
    centre = y.mean(0)
    return torch.cdist(x - centre, y - centre)


def _u_statistic(xx: Tensor, yy: Tensor, xy: Tensor) -> tuple[float, float]:
    """U and its standard error from the kernels (n, n) within x, within y, and between them."""
    n = len(xx)
    h = xx + yy - xy - xy.T
    h.fill_diagonal_(0.0)
    pairs = n * (n - 1)
    mean = h.sum() / pairs
    zeta2 = h.square().sum() / pairs - mean**2
    rows = h.sum(1) / (n - 1)
    zeta1 = (rows.var() - zeta2 / (n - 1)).clamp_min(0.0)  # the row means carry zeta2 / (n - 1) of their own
    return float(mean), float(((4 * (n - 2) * zeta1 + 2 * zeta2) / pairs).clamp_min(0.0).sqrt())
