"""How far must the samples be carried to become the data? Wasserstein distances with quadratic cost, by POT.

    W2^2(x, y)  = min over matchings of mean |x_i - y_pi(i)|^2
    SW2^2(x, y) = mean over directions theta of W2^2(<theta, x>, <theta, y>)         (in 1-D the matching is sorting)

For a shift by m: W2 = |m| and SW2 = |m| / sqrt(d). Empirical W2 of equal laws is not zero (of order n^(-1/d)): read it
beside its floor. Standard errors are those of the central limit theorem of del Barrio and Loubes (Ann. Probab. 2019,
Theorem 4.1): Var W2^2 = Var phi(X) / n + Var psi(Y) / n with (phi, psi) the dual potentials, and W2 by the delta
method; for SW2 the potentials are averaged over directions, and the variance from finitely many directions is added.
They are about the mean at this n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Metric, two_sample


def exact_w2(x: Tensor, y: Tensor, other: Tensor | None = None, *, limit: int = 1000, seed: int = 0) -> Metric:
    """Exact W2 between at most `limit` points each of x and y, (n, *shape). other: more real points, for the floor."""
    return two_sample("w2", _exact, x, y, other, limit, seed, "lower")


def sliced_w2(
    x: Tensor, y: Tensor, other: Tensor | None = None, *, directions: int = 256, limit: int = 2000, seed: int = 0
) -> Metric:
    """Sliced W2 over random directions between at most `limit` points each of x and y, (n, *shape)."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(x[0].numel(), directions, generator=generator, dtype=torch.float64)
    theta = theta / theta.norm(dim=0)
    return two_sample("sliced_w2", lambda a, b: _sliced(a, b, theta), x, y, other, limit, seed, "lower")


def marginal_w2(x: Tensor, y: Tensor, other: Tensor | None = None, *, limit: int = 2000, seed: int = 0) -> Metric:
    """The root mean square over columns of the W2 of each column alone, between at most `limit` rows of x and y."""
    axes = torch.eye(x[0].numel(), dtype=torch.float64)
    return two_sample("marginal_w2", lambda a, b: _sliced(a, b, axes, sampled=False), x, y, other, limit, seed, "lower")


def _exact(x: Tensor, y: Tensor) -> tuple[float, float]:
    import ot

    cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    square, log = ot.emd2([], [], cost, log=True, numItermax=1_000_000)
    return _root(float(square), float(log["u"].var() + log["v"].var()) / len(x))


def _sliced(x: Tensor, y: Tensor, theta: Tensor, sampled: bool = True) -> tuple[float, float]:
    """Over the columns of theta (d, k); `sampled`: they stand for all directions, which adds to the error."""
    import ot

    log = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=theta.numpy(), log=True)[1]
    squares = torch.from_numpy(log["projected_emds"])
    phi, psi = _potential(x @ theta, y @ theta), _potential(y @ theta, x @ theta)
    variance = (phi.var() + psi.var()) / len(x) + (squares.var() / theta.shape[1] if sampled else 0.0)
    return _root(float(squares.mean()), float(variance))


def _potential(a: Tensor, b: Tensor) -> Tensor:
    """The 1-D dual potential, phi' = 2 (a - T(a)) with T by sorting, at each row of a (n, k), averaged over columns."""
    order = a.argsort(0)
    a, b = a.gather(0, order), b.sort(0).values
    steps = (a[1:] - a[:-1]) * ((a - b)[1:] + (a - b)[:-1])
    phi = torch.cat([torch.zeros_like(steps[:1]), steps.cumsum(0)])
    phi = phi - phi.mean(0)
    return torch.empty_like(phi).scatter_(0, order, phi).mean(1)


def _root(square: float, variance: float) -> tuple[float, float]:
    """W and its standard error from W^2 and its variance; at W = 0 the delta method gives way to sqrt(se)."""
    se = variance**0.5
    value = max(square, 0.0) ** 0.5
    return value, min(se / (2.0 * value) if value else float("inf"), se**0.5)
