r"""Multistep weights: the numbers that an exponential step gives to its evaluations of the denoiser, by quadrature.

A step replaces D*(Lambda), Lambda = -log sigma, by the polynomial through its last values and integrates it against an
exponential (exponential.py). The polynomials are in

    w = 1/sqrt(1 + sigma^2/principal_std^2),

the signal's share of the amplitude, in which D* of Gaussian data is linear along a path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def _variable(lam: np.ndarray, principal_std: float) -> np.ndarray:
    """Variable w - 1 of the polynomials, w = (1 + sigma^2/principal_std^2)^(-1/2), at lam = -log sigma.

    Written so that small sigma cancels nothing.
    """
    r = np.exp(-2 * lam) / principal_std**2
    root = np.sqrt(1 + r)
    return -r / (root * (1 + root))


def basis(nodes: Sequence[float], lam: np.ndarray, principal_std: float) -> list[np.ndarray]:
    """The Lagrange polynomials of the nodes in w = 1/sqrt(1 + sigma^2/principal_std^2), at the points lam."""
    u, w = _variable(np.array(nodes), principal_std), _variable(lam, principal_std)
    k = range(len(u))
    return [np.prod([(w - u[i]) / (u[j] - u[i]) for i in k if i != j], axis=0) for j in k]


@lru_cache(maxsize=4096)  # every batch takes the same steps
def multistep_weights(
    nodes: tuple[float, ...], lam0: float, lam1: float, a: float = 1.0, principal_std: float = 1.0
) -> tuple[float, ...]:
    """Weights of the evaluations at `nodes` in a step: int_{lam0}^{lam1} a e^{-a (lam1 - L)} l_j(w(L)) dL.

    l_j are the Lagrange polynomials of the nodes in w = 1/sqrt(1 + sigma^2/principal_std^2), the signal's share of the
    amplitude: D* of Gaussian data is linear along a path in w. By Gauss-Legendre quadrature on panels.

    Args:
        nodes: where D* was evaluated, in Lambda = -log sigma.
        lam0: Lambda at the step's beginning.
        lam1: Lambda at its end.
        a: rate of the exponential, 1 + churn times the field's pull.
        principal_std: largest principal standard deviation of the data, data units.

    Returns:
        One weight a node, of sum 1 - e^{-a (lam1 - lam0)}.
    """
    lam, lengths, basis = _integral(nodes, lam0, lam1, a, principal_std)
    mass = lengths * a * np.exp(-a * (lam1 - lam))
    return tuple(float((mass * b).sum()) for b in basis)


def multistep_row(
    nodes: tuple[float, ...],
    lam1: float,
    order: int,
    principal_std: float,
    correct: bool = False,
    finest: float = math.inf,
) -> tuple[float, ...]:
    """One step of `Exponential` on the probability flow as a row of a table (plan.py): y1 = r y0 + sum_j row_j D_j.

    Redoing a step is linear in the same evaluations: with e the weights that extrapolated over the last step and c
    those that interpolate over it, y0 moves by (c - e).D first, and the row is one wider, w + r (c - e).

    Args:
        nodes: where D* was evaluated, in Lambda = -log sigma, newest first; the step begins at the first.
        lam1: Lambda at the step's end; inf for the answer, which is the newest evaluation (with `correct` and what y0
            moves by, its trend continued to `finest`).
        order: number of evaluations that the polynomial goes through.
        principal_std: largest principal standard deviation of the data, data units.
        correct: whether the step before is redone.
        finest: Lambda to which the trend is continued.

    Returns:
        The weights of the evaluations, newest first.
    """
    near, row = nodes[:order], np.zeros(len(nodes))
    if lam1 < math.inf:
        row[: len(near)] = multistep_weights(near, nodes[0], lam1, 1.0, principal_std)
        r = math.exp(nodes[0] - lam1)
    else:
        ends = nodes[: min(order, 2)] if correct else nodes[:1]
        row[: len(ends)] = basis(ends, np.array(max(nodes[0], finest)), principal_std)
        r = row[0]
    if correct and order > 1 and len(nodes) > 1:
        old = nodes[1 : order + 1]
        row[: len(near)] += r * np.array(multistep_weights(near, nodes[1], nodes[0], 1.0, principal_std))
        row[1 : len(old) + 1] -= r * np.array(multistep_weights(old, nodes[1], nodes[0], 1.0, principal_std))
    return tuple(row[: order + correct].tolist())


_NODES, _MASS = np.polynomial.legendre.leggauss(24)


def _integral(
    nodes: Sequence[float], lam0: float, lam1: float, a: float, principal_std: float
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Quadrature of `multistep_weights`: the places in Lambda, the lengths beside them, the polynomials there."""
    lo = max(lam0, lam1 - 40 / a)  # the kernel is below e^-40 before
    edges = np.linspace(lo, lam1, 1 + math.ceil(a * (lam1 - lo)))
    half, mid = 0.5 * np.diff(edges)[:, None], 0.5 * (edges[1:] + edges[:-1])[:, None]
    lam = (mid + half * _NODES).ravel()
    return lam, (half * _MASS).ravel(), basis(nodes, lam, principal_std)


def differentiable_weights(
    nodes: Sequence[float], lam0: float, lam1: float, a: Tensor, principal_std: float
) -> tuple[Tensor, ...]:
    """The weights of `multistep_weights` with the gradient that runs through a."""
    lam, lengths, basis = _integral(nodes, lam0, lam1, a.item(), principal_std)
    mass = torch.from_numpy(lengths) * a * (-a * torch.from_numpy(lam1 - lam)).exp()
    return tuple((mass * torch.as_tensor(b)).sum() for b in basis)
