r"""Exact conditionals of Gaussian mixtures: the oracle of conditional samplers.

For q = sum_j w_j N(m_j, C_j) and coordinates split into known k and unknown u, the law of Y_u given Y_k = v is again a
mixture,

    w_j(v) ~ w_j N(v; m_jk, C_jkk),   mean_j(v) = m_ju + C_juk C_jkk^-1 (v - m_jk),
    cov_j  = C_juu - C_juk C_jkk^-1 C_jku,

and so are its one-dimensional marginals, whose absolute moments are known: the continuous ranked probability score
of any draws can be compared with the least there is, without an outcome being drawn.

References:
    Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", section 4.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...equation.laws import GaussianMixture
from ...equation.noise import Noise


@dataclass(frozen=True, eq=False)
class Conditional:
    """Exact law of the unknown coordinates of a Gaussian mixture, a mixture for each of n rows.

    Attributes:
        weights: (n, k), each row of sum 1.
        means: (n, k, u).
        covariances: (k, u, u), the same for all rows.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @classmethod
    def of(cls, law: GaussianMixture, values: Tensor, known: Tensor) -> Conditional:
        """The conditional of a mixture of vectors.

        Args:
            law: the mixture.
            values: rows (n, d), read where known.
            known: bool (d,), the same for all rows.

        Returns:
            The law of the unknown coordinates, in rising order, for each row.
        """
        k, u = known.nonzero()[:, 0], (~known).nonzero()[:, 0]
        means, c = law.means.double(), law.covariances().double()
        gap = values.double()[:, None, k] - means[:, k]
        ckk = c[:, k][:, :, k]
        gain = torch.linalg.solve(ckk, c[:, k][:, :, u]).mT  # (components, unknown, known)
        square = torch.einsum("njk,njk->nj", gap, torch.linalg.solve(ckk, gap.permute(1, 2, 0)).permute(2, 0, 1))
        logits = law.log_weights.double() - 0.5 * (square + torch.linalg.slogdet(ckk).logabsdet)
        mean = means[:, u] + torch.einsum("juk,njk->nju", gain, gap)
        return cls(logits.softmax(1), mean, c[:, u][:, :, u] - gain @ c[:, k][:, :, u])

    @property
    def mean(self) -> Tensor:
        """Conditional means (n, u)."""
        return torch.einsum("nj,nju->nu", self.weights, self.means)

    @property
    def variance(self) -> Tensor:
        """Conditional variances (n, u)."""
        own = self.covariances.diagonal(dim1=1, dim2=2)
        return torch.einsum("nj,nju->nu", self.weights, own + self.means.square()) - self.mean.square()

    def sample(self, draws: int, noise: Noise) -> Tensor:
        """Exact draws (n, draws, u), row i from stream i of `noise`."""
        n, _, u = self.means.shape
        uniform = noise.fork("component").uniform(n, (draws,), dtype=torch.float64)
        j = torch.searchsorted(self.weights.cumsum(1), uniform).clamp_max(self.weights.shape[1] - 1)
        z = noise.fork("normal").normal(n, (draws, u), dtype=torch.float64)
        roots = torch.linalg.cholesky(self.covariances)
        means = self.means.gather(1, j[..., None].expand(-1, -1, u))
        return means + torch.einsum("nmuv,nmv->nmu", roots[j], z)

    def least_score(self) -> Tensor:
        """Expected score (CRPS) of this law itself, E|Y - Y'| / 2: (n, u)."""
        v = self.covariances.diagonal(dim1=1, dim2=2)
        spread = _absolute(self.means[:, :, None] - self.means[:, None], v[:, None] + v[None])
        return 0.5 * torch.einsum("ni,nj,niju->nu", self.weights, self.weights, spread)

    def excess_score(self, draws: Tensor) -> Tensor:
        """How much the expected CRPS of the law behind some draws exceeds the least, unbiased, one row and coordinate.

        It is the integral of (F - G)^2 over all thresholds, F behind the draws and G this law: E|X - Y| - E|X - X'|/2 -
        E|Y - Y'|/2, with the second mean over different draws.

        Args:
            draws: (n, m, u), m >= 2.

        Returns:
            (n, u); zero in the mean where F = G.
        """
        x, m = draws.double(), draws.shape[1]
        v = self.covariances.diagonal(dim1=1, dim2=2)
        across = torch.zeros_like(self.mean)
        for j in range(self.weights.shape[1]):
            across += self.weights[:, j, None] * _absolute(x - self.means[:, None, j], v[j]).mean(1)
        rank = 2 * torch.arange(m, dtype=x.dtype) - (m - 1)  # sum over pairs of |x_i - x_j| by order
        within = 2 * torch.einsum("m,nmu->nu", rank, x.sort(1).values) / (m * (m - 1))
        return across - 0.5 * within - self.least_score()


def _absolute(mean: Tensor, variance: Tensor) -> Tensor:
    """E|X| of X ~ N(mean, variance)."""
    std = variance.sqrt()
    z = mean / std
    return mean * torch.erf(z / math.sqrt(2)) + std * math.sqrt(2 / math.pi) * torch.exp(-0.5 * z**2)
