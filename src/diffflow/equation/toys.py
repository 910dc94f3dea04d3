"""Toys: the plane laws that everybody draws (moons, circles, rolls), as Gaussian mixtures with exact answers.

A curve is a fine row of narrow components along it, so that samples, density and score of a toy are those of a mixture
(laws.py) and need no approximation. `TOYS` has them by name. The largest principal standard deviation of each is
between 0.8 and 1.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .laws import GaussianMixture


def _grid(n: int, lo: float, hi: float) -> Tensor:
    """Midpoints of n equal cells of [lo, hi]."""
    return lo + (hi - lo) * (torch.arange(n) + 0.5) / n


def _curve(x: Tensor, y: Tensor, std: float, weights: Tensor | None = None) -> GaussianMixture:
    return GaussianMixture(torch.stack([x, y], 1), std, weights)


def eight_gaussians() -> GaussianMixture:
    """Eight components on a circle of radius sqrt(2) with std 0.1."""
    a = torch.arange(8) * (math.pi / 4)
    return _curve(math.sqrt(2) * a.cos(), math.sqrt(2) * a.sin(), 0.1)


def twenty_five_gaussians() -> GaussianMixture:
    """A 5 x 5 lattice of spacing 2 and std .05, all scaled by 1/2.828."""
    p = 2.0 * torch.arange(-2, 3) / 2.828
    return GaussianMixture(torch.cartesian_prod(p, p), 0.05 / 2.828)


def moons() -> GaussianMixture:
    """Two interleaved half circles with std 0.1, centred."""
    a = _grid(60, 0, math.pi)
    x, y = torch.cat([a.cos(), 1 - a.cos()]), torch.cat([a.sin(), 0.5 - a.sin()])
    return _curve(x - 0.5, y - 0.25, 0.1)


def circles() -> GaussianMixture:
    """Two concentric circles, radii 1.5 and 0.75, equal mass, std 0.06."""
    outer, inner = _grid(120, 0, 2 * math.pi), _grid(60, 0, 2 * math.pi)
    x, y = torch.cat([1.5 * outer.cos(), 0.75 * inner.cos()]), torch.cat([1.5 * outer.sin(), 0.75 * inner.sin()])
    return _curve(x, y, 0.06, torch.cat([torch.full((120,), 1 / 120), torch.full((60,), 1 / 60)]))


def swiss_roll() -> GaussianMixture:
    """One spiral arm from radius 0.4 to 1.7 over one and a half turns, std 0.06, mass uniform in the angle."""
    a = _grid(180, 1.5 * math.pi, 4.5 * math.pi)
    r = 1.7 * a / (4.5 * math.pi)
    return _curve(r * a.cos(), r * a.sin(), 0.06)


def pinwheel() -> GaussianMixture:
    """Five bent arms: radii about 1 with std 0.3, all scaled by 1.2, width 0.07, sheared by the radius."""
    bend = _grid(32, 0.4, 3.4)  # even steps of it are nearly even along an arm, and so are the components
    r = (bend / 0.35).log() / 1.2
    dr = 1 / (1.2 * bend)  # d radius / d bend
    mass = (-0.5 * ((r - 1) / 0.3) ** 2).exp() * dr
    means, covariances = [], []
    for arm in range(5):
        turn = 2 * math.pi * arm / 5 + bend
        radial = torch.stack([turn.cos(), turn.sin()], 1)
        tangential = torch.stack([-turn.sin(), turn.cos()], 1)
        means.append(1.2 * r[:, None] * radial)
        axis = 1.2 * 0.06 * (dr[:, None] * radial + r[:, None] * tangential)  # two thirds of the way to the next one
        covariances.append(0.07**2 * torch.eye(2) + axis[:, :, None] * axis[:, None, :])
    return GaussianMixture(torch.cat(means), weights=mass.repeat(5), covariances=torch.cat(covariances))


def spirals() -> GaussianMixture:
    """Two arms, opposite to each other, growing over one and a half turns, std 0.05."""
    u = _grid(150, 0.02, 1).sqrt()
    a, r = 3 * math.pi * u, 1.8 * u
    x, y = r * a.cos(), r * a.sin()
    return _curve(torch.cat([x, -x]), torch.cat([y, -y]), 0.05)


def checkerboard() -> GaussianMixture:
    """The eight dark squares of a 4 x 4 board on [-2, 2]^2: uniform to 0.5 % inside, edges of width 0.06."""
    p = _grid(10, 0, 1)  # a fine lattice of components in each square
    cell = torch.cartesian_prod(p, p)
    corners = [(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]
    return GaussianMixture(torch.cat([cell + torch.tensor(c) for c in corners]), 0.06)


TOYS: dict[str, Callable[[], GaussianMixture]] = {
    "8gaussians": eight_gaussians,
    "25gaussians": twenty_five_gaussians,
    "moons": moons,
    "circles": circles,
    "swissroll": swiss_roll,
    "pinwheel": pinwheel,
    "spirals": spirals,
    "checkerboard": checkerboard,
}
