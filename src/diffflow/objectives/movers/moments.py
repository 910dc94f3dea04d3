"""Moment matching: samples are moved by the optimal map between Gaussians with the moments of samples and data.

What a discriminator sees last is that variances are a few per cent too small, in many directions: it tells single
samples apart, and one sample says next to nothing of a variance that is 5 % too small; ten thousand of them say it
plainly. So the mover keeps the moments of the generated samples of late, and of the data,

    of class c:  means m_c and m*_c (k,);  of all classes together, about their means:  covariances S and S* (k, k)

and moves every sample as if both laws were Gaussian within a class, by the optimal map from one to the other
(Olkin & Pukelsheim 1982; it is the end of the Wasserstein flow of KL between them):

    v(x) = m*_c - x + T (x - m_c),    T = S*^(1/2) (S*^(1/2) S S*^(1/2))^(-1/2) S*^(1/2)

Pictures are read in their `side` x `side` slowest cosines, orthonormal, and moved in these alone: what is finer is for
others to judge. Vectors are read as they are.

Shapes: x, v (n, *shape), cond int64 (n,) or None; points p (n, k), k = c side^2 for pictures and d for vectors.

References:
    Olkin & Pukelsheim 1982, "The distance between two random vectors with given dispersion matrices".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...equation.noise import Noise
from ..base import Batch, Turn, gather_rows
from .adversarial import inside
from .base import DrawFake

TINY = 1e-12  # share of the largest variance below which one is rounding, in float64


class Sums:
    """Running moments of points with classes: counts (classes,), sums (classes, k) and products (k, k), in float64.

    Args:
        classes: how many classes, at least 1.
        k: length of a point.
    """

    def __init__(self, classes: int, k: int):
        self.counts = torch.zeros(classes, dtype=torch.float64)
        self.sums = torch.zeros(classes, k, dtype=torch.float64)
        self.products = torch.zeros(k, k, dtype=torch.float64)

    def add(self, p: Tensor, of: Tensor, keep: float = 1.0) -> None:
        """Take in points.

        Points that are not finite are left out: they would stay for good, when the step that made them has long been
        skipped.

        Args:
            p: points (n, k).
            of: their classes int64 (n,).
            keep: weight of all points before, of what they counted until now.
        """
        finite = p.isfinite().all(1)
        p, of = p[finite].double(), of[finite]
        for name in ("counts", "sums", "products"):
            setattr(self, name, keep * getattr(self, name).to(p.device))
        self.counts.index_add_(0, of, torch.ones_like(p[:, 0]))
        self.sums.index_add_(0, of, p)
        self.products += p.T @ p

    def moments(self) -> tuple[Tensor, Tensor]:
        """Means of the classes (classes, k), 0 for one without points, and the covariance within classes (k, k)."""
        means = self.sums / self.counts.clamp_min(1e-300)[:, None]
        return means, (self.products - self.sums.T @ means) / self.counts.sum()


@dataclass
class Moments:
    """Mover by moments: v(x) = m*_c - x + T (x - m_c), of samples that are Gaussian within a class.

    What is remembered depends on the order of the samples, and a sample's velocity on those before it: cut into
    micro-batches, a step is the same but for a share batch / window. Of many classes a window holds few samples each,
    and the generated variances are seen too small by a share classes / (2 window).

    Args:
        shape: shape of one sample, (d,) or (c, h, w).
        number: how many classes, 0 for none.
        side: cosines along either side of a picture, at most its own sides.
        window: how many generated samples are remembered: older ones fade. The mover rests until a quarter of them are
            there. The data are remembered for good.
        data_range: coordinates are read between -data_range and data_range, and moved no further out (see
            `DiscriminatorMover`).

    Raises:
        ValueError: for settings out of range, or a shape that is neither (d,) nor (c, h, w).
    """

    shape: tuple[int, ...]
    number: int = 0
    side: int = 10
    window: float = 10_000.0
    data_range: float = math.inf
    real: Sums = field(init=False)
    made: Sums = field(init=False)

    def __post_init__(self) -> None:
        if self.side < 1 or not 0 < self.window < math.inf or not self.data_range > 0:
            raise ValueError(
                f"Moments(side={self.side}, window={self.window}, data_range={self.data_range}): side is at least "
                "1, window positive and finite, data_range positive"
            )
        if len(self.shape) not in (1, 3):
            raise ValueError(f"Moments of shape {self.shape}: samples are vectors (d,) or pictures (c, h, w)")
        self.slow = [cosines(n, min(self.side, n)) for n in self.shape[1:]]
        k = self.shape[0] * math.prod(len(c) for c in self.slow)
        self.real = Sums(max(1, self.number), k)
        self.made = Sums(max(1, self.number), k)

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """No players."""
        return {}

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.number

    def learn(self, batch: Batch, draw_fake: DrawFake, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        """No turns."""
        return iter(())

    @torch.no_grad()
    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        """Velocity by the moments so far, those of these samples and this batch among them; 0 at the beginning."""
        with torch.autocast(x.device.type, enabled=False):
            return inside(self._velocity(x.detach(), cond, batch.x), x, self.data_range)

    def _velocity(self, x: Tensor, cond: Tensor | None, real: Tensor) -> Tensor:
        labels = torch.zeros(len(x), dtype=torch.long, device=x.device) if cond is None else cond
        p, classes = self._read(x), gather_rows(labels)
        self.real.add(gather_rows(self._read(real)), classes)
        self.made.add(gather_rows(p), classes, max(0.0, 1.0 - len(classes) / self.window))
        if self.made.counts.sum() < self.window / 4:
            return torch.zeros_like(x)
        (m, s), (m_real, s_real) = self.made.moments(), self.real.moments()
        p = p.double()
        step = m_real[labels] - p + (p - m[labels]) @ optimal(s, s_real)
        return self._write(step.to(x.dtype), x)

    def _read(self, x: Tensor) -> Tensor:
        x = x.clamp(-self.data_range, self.data_range)
        if self.slow:
            a, b = (c.to(x) for c in self.slow)
            x = a @ x @ b.T
        return x.flatten(1)

    def _write(self, p: Tensor, x: Tensor) -> Tensor:
        if not self.slow:
            return p
        a, b = (c.to(x) for c in self.slow)
        return a.T @ p.view(len(x), self.shape[0], len(a), len(b)) @ b

    def state(self) -> dict[str, Tensor]:
        """Counts, sums and products, under "real/..." and "made/..."."""
        return {f"{name}/{k}": v for name in ("real", "made") for k, v in vars(getattr(self, name)).items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved moments. Raises ValueError for those of other data or settings."""
        shapes, saved = ({k: tuple(v.shape) for k, v in tensors.items()} for tensors in (self.state(), state))
        if shapes != saved:
            names = sorted(k for k in shapes | saved if shapes.get(k) != saved.get(k))
            kept, loaded = ({k: table.get(k) for k in names} for table in (shapes, saved))
            raise ValueError(
                f"the moments kept are {kept}, those of the checkpoint {loaded}: resume with the data and settings it "
                "was made with, or begin anew"
            )
        for key, v in state.items():
            name, k = key.split("/")
            setattr(getattr(self, name), k, v.clone())


def cosines(n: int, m: int) -> Tensor:
    """Orthonormal cosines on n points (the second kind), the m slowest.

    Args:
        n: how many points.
        m: how many cosines, at most n.

    Returns:
        One cosine a row, float64 (m, n).
    """
    angle = torch.outer(torch.arange(m, dtype=torch.float64), torch.arange(n, dtype=torch.float64) + 0.5)
    c = (angle * (math.pi / n)).cos() * math.sqrt(2.0 / n)
    c[0] *= math.sqrt(0.5)
    return c


def optimal(s: Tensor, goal: Tensor) -> Tensor:
    """Optimal map from N(0, s) to N(0, goal): the symmetric T with T s T = goal.

    A direction in which one of them does not vary is shrunk to nothing.

    Args:
        s: covariance (k, k), float64.
        goal: covariance (k, k), float64.

    Returns:
        T (k, k).
    """
    half = _square_root(goal)
    # (half s half)^(-1/2) from the singular values of s^(1/2) half: their squares would lose half of the digits, and
    # with them directions a thousandth as wide as the widest
    _, width, turn = torch.linalg.svd(_square_root(s) @ half)
    axes = turn @ half
    return axes.mT @ (torch.where(width > TINY * width[0], 1 / width, 0.0)[:, None] * axes)


def _square_root(s: Tensor) -> Tensor:
    """Square root s^(1/2) (k, k) of a covariance; eigenvalues that are rounding count as nothing."""
    values, axes = torch.linalg.eigh(s)
    return (axes * torch.where(values > TINY * values[-1], values.abs().sqrt(), 0.0)) @ axes.mT
