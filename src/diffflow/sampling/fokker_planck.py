r"""The Fokker-Planck equation on a line: cells, and one step of the density of the particles (derivations.md eq. 3).

    dp/dt = -div (p F - K grad p),      F = f + beta grad log r,      K = beta - lam2/2

Shapes: densities (cells,), coefficients at the inner edges (cells - 1,), all float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solve_banded
from torch import Tensor


@dataclass(frozen=True)
class Line:
    """Equal cells of a line.

    Args:
        low: left end, in units of x.
        high: right end.
        count: number of cells.
    """

    low: float
    high: float
    count: int = 2000

    @property
    def h(self) -> float:
        """Width of a cell."""
        return (self.high - self.low) / self.count

    @property
    def x(self) -> Tensor:
        """Centres of the cells (count,), float64."""
        return self.low + (torch.arange(self.count, dtype=torch.float64) + 0.5) * self.h


def fokker_planck_step(p: Tensor, F: Tensor, K: Tensor, h: float, dt: float, theta: float) -> Tensor:
    """One step of dp/dt = -div(p F - K grad p), with no flux through the ends.

    Args:
        p: the density on the cells (n,).
        F: drift at the inner edges (n - 1,).
        K: diffusion there (n - 1,).
        h: width of a cell.
        dt: length of the step.
        theta: 1 is implicit, 1/2 Crank-Nicolson.

    Returns:
        The density after the step (n,).
    """
    n = len(p)
    left, right = (F / 2 + K / h) / h, (F / 2 - K / h) / h  # flux through an edge / h = left p_below + right p_above
    main = torch.zeros(n, dtype=torch.float64)
    main[:-1] -= left
    main[1:] += right
    below, above = left, -right  # dp_i/dt = below_{i-1} p_{i-1} + main_i p_i + above_i p_{i+1}
    explicit = p + (1 - theta) * dt * main * p
    explicit[1:] += (1 - theta) * dt * below * p[:-1]
    explicit[:-1] += (1 - theta) * dt * above * p[1:]
    bands = np.zeros((3, n))
    bands[0, 1:], bands[1], bands[2, :-1] = -theta * dt * above, 1 - theta * dt * main, -theta * dt * below
    return torch.from_numpy(solve_banded((1, 1), bands, explicit.numpy()))
