r"""Fitting of Gaussian mixtures with full covariances: expectation-maximisation as two matrix products an iteration.

With features phi(x) = (1, x, x_i x_j for i <= j), F of them, every component's log-density is linear in phi, and all
that a new mixture depends on are sums of phi:

    log w_k N_k(x) = theta_k . phi(x),    r_k(x) = softmax_k,    S_k = mean over rows of r_k(x) phi(x)
    w_k = S_k[1],  mu_k = S_k[x] / w_k,  C_k = S_k[x x^T] / w_k - mu_k mu_k^T + floor I

so that n rows cost 2 n k F multiply-adds, in float64, where the differences are exact enough. Sizes are tried from one
component on, each twice as large as the last, from two starts: the last mixture with every component cut in two along
its longest axis, mean and covariance kept, and k-means. No other random number is drawn.

Shapes: rows x (n, d), weights (k,), means (k, d), covariances (k, d, d), float64.

References:
    Dempster, Laird and Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm".
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

FLOORS = (1e-3, 3e-4, 3e-3)  # of the variances, in units of the mean variance of a column; the first, then the others
ROUNDS, ENOUGH = 40, 1e-3  # of EM at most; nats a row that the next one must gain
PART = 0.8  # of the standard deviation along the longest axis, how far the halves of a component lie from its mean
ROWS = 3  # that a component must have on average
MOST = 65_536  # rows that a mixture is fitted to
NUMBERS = 2**27  # of the features of these rows
CHUNK = 2**22  # of them at a time


class Mixture(NamedTuple):
    """A Gaussian mixture.

    Attributes:
        weights: (k,), of sum 1.
        means: (k, d).
        covariances: (k, d, d), positive definite.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def joint(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (m, F) and log w_k N_k(x) (m, k) of rows (n, d), some at a time."""
        d = x.shape[1]
        i, j = torch.triu_indices(d, d)
        factors = torch.linalg.cholesky(self.covariances)
        precisions = torch.cholesky_inverse(factors)
        linear = torch.einsum("kde,ke->kd", precisions, self.means)
        log_det = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = self.weights.log() - 0.5 * (d * math.log(2 * math.pi) + log_det + (linear * self.means).sum(1))
        square = -precisions[:, i, j] * torch.where(i == j, 0.5, 1.0)
        theta = torch.cat([constant[:, None], linear, square], 1)
        for part in x.split(max(1, CHUNK // (theta.shape[1] + len(theta)))):
            phi = torch.cat([part.new_ones(len(part), 1), part, part[:, i] * part[:, j]], 1)
            yield phi, phi @ theta.T

    def score(self, x: Tensor) -> float:
        """Mean log-density of rows (n, d), nats."""
        return sum(joint.logsumexp(1).sum().item() for _, joint in self.joint(x)) / len(x)

    def improved(self, x: Tensor, floor: float) -> tuple[Mixture, float]:
        """The mixture after one round of EM on rows (n, d), and the mean log-density before it."""
        sums, total = 0.0, 0.0
        for phi, joint in self.joint(x):
            evidence = joint.logsumexp(1, keepdim=True)
            sums, total = sums + (joint - evidence).exp().T @ phi, total + evidence.sum().item()
        return of_sums(torch.as_tensor(sums) / len(x), x.shape[1], floor), total / len(x)

    def cut(self) -> Mixture:
        """The mixture with every component cut in two along its longest axis; mean and covariance of it are kept."""
        values, axes = torch.linalg.eigh(self.covariances)
        longest = PART * values[:, -1:].clamp_min(0).sqrt() * axes[:, :, -1]
        inner = self.covariances - longest[:, :, None] * longest[:, None, :]
        means = torch.cat([self.means + longest, self.means - longest])
        return Mixture(self.weights.repeat(2) / 2, means, inner.repeat(2, 1, 1))


def of_sums(sums: Tensor, d: int, floor: float) -> Mixture:
    """The mixture of weighted mean features (k, F); a component that has no row is left out."""
    sums = sums[sums[:, 0] > 1e-9]
    weights = sums[:, 0]
    means, square = (sums[:, 1:] / weights[:, None]).split([d, sums.shape[1] - 1 - d], 1)
    i, j = torch.triu_indices(d, d)
    covariances = sums.new_zeros(len(sums), d, d)
    covariances[:, i, j], covariances[:, j, i] = square, square
    covariances = covariances - means[:, :, None] * means[:, None, :] + floor * torch.eye(d).to(sums)
    return Mixture(weights / weights.sum(), means, covariances)


def gaussian(x: Tensor, floor: float) -> Mixture:
    """The likeliest single Gaussian of rows (n, d), with a floor added to its variances."""
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean) / len(x) + floor * torch.eye(x.shape[1]).to(x)
    return Mixture(x.new_ones(1), mean[None], covariance[None])


def clusters(x: Tensor, k: int, floor: float) -> Mixture:
    """The mixture of k clusters of rows (n, d) by k-means, fewer where there are fewer distinct rows."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
        labels = torch.from_numpy(KMeans(k, n_init="auto", random_state=0).fit_predict(x.numpy())).long()
    parts = [gaussian(x[labels == label], floor) for label in labels.unique()]
    weights = torch.stack([(labels == label).double().mean() for label in labels.unique()])
    return Mixture(weights, torch.cat([p.means for p in parts]), torch.cat([p.covariances for p in parts]))


def climbed(law: Mixture, x: Tensor, floor: float, late: Callable[[], bool]) -> Mixture:
    """The mixture after rounds of EM until they gain little, or it is late.

    Rounding can make the covariance of a handful of rows that lie far out singular: then it is the last one before.
    """
    before = -math.inf
    for _ in range(ROUNDS):
        try:
            law_next, value = law.improved(x, floor)
        except torch.linalg.LinAlgError:
            break
        if value - before < ENOUGH or late():
            break
        law, before = law_next, value
    return law


def most_rows(d: int) -> int:
    """Rows of d columns that a mixture is fitted to, at most."""
    return min(MOST, max(4 * d, NUMBERS // (1 + d + d * (d + 1) // 2)))


def fitting_components(components: int, rows: int) -> int:
    """Components that so many rows can determine, of those that are wanted; at least one."""
    return max(1, min(components, rows // ROWS))


def fit_mixture(
    x: Tensor,
    aside: Tensor,
    components: int,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Mixture, dict[int, float]]:
    """The mixture that makes rows kept aside likeliest, of sizes from one component on.

    Sizes are doubled as long as that helps and time is left; then other floors of the variances are tried.

    Args:
        x: rows to fit to (n, d), float64, n >= 1; at most `most_rows` of them are used.
        aside: rows kept aside (m, d).
        components: at most.
        seconds: what this may take, about.
        clock: seconds of what.

    Returns:
        The mixture, and the log-density of the rows aside, nats a row, by the sizes that were tried.
    """
    end, d = clock() + seconds, x.shape[1]
    x = x[: most_rows(d)]
    scale = float(x.var(0, correction=0).mean()) or 1.0
    floor = FLOORS[0] * scale

    def late() -> bool:
        return clock() > end

    last = best = gaussian(x, floor)
    value = last.score(aside)
    found, size, poorer = {1: value}, 2, 0
    while size <= fitting_components(components, len(x)) and poorer < 2 and not late():
        starts = [last.cut(), clusters(x, size, floor)]
        tried = [(law.score(aside), law) for law in (climbed(start, x, floor, late) for start in starts)]
        score, last = max(tried, key=lambda pair: pair[0])
        found[size] = score
        poorer = 0 if score > value else poorer + 1
        if score > value:
            value, best = score, last
        size *= 2
    for other in FLOORS[1:]:
        start = best._replace(covariances=best.covariances + max(0.0, other - FLOORS[0]) * scale * torch.eye(d).to(x))
        law = climbed(start, x, other * scale, late)
        if (score := law.score(aside)) > value:
            value, best = score, law
    return best, found
