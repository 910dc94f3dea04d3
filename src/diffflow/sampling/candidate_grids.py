r"""Candidate grids of a calibration: noise levels that are worth trying for a plan, and small changes of a good one.

Classical grids with a first jump to the data's size (equal ratios, Karras' rule with exponent 3), and grids whose steps
are equal in the change of the denoiser D along a model's own fine solutions (calibrate.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor


def candidate_grids(
    lam: np.ndarray, d: Tensor, principal_std: float, steps: int, high: float, low: float
) -> Iterator[tuple[str, list[float]]]:
    """Grids worth trying, each with a name.

    Args:
        lam: where D was evaluated along the fine solutions, equal steps of Lambda = -log sigma, rising: (m,).
        d: D there, (m, n, *shape), data units.
        principal_std: largest principal standard deviation of the data, data units.
        steps: number of levels of a grid.
        high: first level of every grid, data units.
        low: bound of the last levels of the classical grids, data units.

    Returns:
        Pairs of a name and `steps` falling levels, the last above 0.
    """
    top, m = min(high, math.exp(-lam[0])), steps - 1
    if m == 0:
        return
    for first in (10.0, 24.0) if m > 1 else (0.5, 1.0, 2.0, 4.0, 10.0):
        for last in (0.02, 0.05, 0.1, 0.2, 0.4):
            a, b = first * principal_std, max(last * principal_std, low)
            if not low < a < top or b >= a:
                continue
            yield f"jump to {first:g} principal stds, equal ratios to {last:g}", [high, *np.geomspace(a, b, m).tolist()]
            cubes = np.linspace(a ** (1 / 3), b ** (1 / 3), m) ** 3
            yield f"jump to {first:g} principal stds, Karras 3 to {last:g}", [high, *cubes.tolist()]
    change, gap = d, float(lam[1] - lam[0])
    for order in (1, 2, 3):
        change = change.diff(dim=0)
        size = change.flatten(2).double().square().mean(2).sqrt().mean(1).cpu().numpy() / gap**order
        middles = lam[: len(size)] + 0.5 * order * gap
        # an early error is forgotten in part
        size = (size * np.minimum(1, principal_std * np.exp(middles))) ** (1 / (order + 1))
        bell = np.hanning(9) / np.hanning(9).sum()
        size = np.convolve(np.pad(size, 4, mode="edge"), bell, "valid")
        for floor in (0.02, 0.1) if order == 1 else (0.02,):  # below, higher orders hardly tell
            density = np.interp(lam, middles, np.maximum(size, floor * size.max()))
            share = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
            for tail in (0.1, 0.4):
                at = np.interp(np.arange(steps) / (m + tail), share / share[-1], lam)
                name = f"equal changes of order {order}, floor {floor:g}, tail {tail:g}"
                yield name, [high, *np.exp(-at[1:]).tolist()]


def deformed(levels: Sequence[float], generator: np.random.Generator, size: float, smooth: bool) -> list[float]:
    """Another grid near this one: all levels but the first change smoothly, or one moves between its neighbours.

    Args:
        levels: falling noise levels, at least 2.
        generator: of the random change.
        size: how large it is, in units of log level or of the distance between the neighbours.
        smooth: whether all levels change, or one.

    Returns:
        As many levels, the first one unchanged; they may fail to fall.
    """
    n, log = len(levels), np.log(np.array(levels))
    move = np.zeros(n)
    if smooth:
        waves = np.cos(math.pi * np.outer(np.arange(4), np.linspace(0, 1, n)))
        move = size * (generator.normal(size=4) / (1 + np.arange(4))) @ waves
    else:
        i = int(generator.integers(1, n))
        move[i] = size * generator.normal() * (log[i - 1] - log[min(i + 1, n - 1)])
    move[0] = 0.0
    return [levels[0], *np.exp(log + move)[1:].tolist()]
