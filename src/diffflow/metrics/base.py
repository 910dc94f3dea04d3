"""What does a number about samples mean? Only something beside its error and its floor.

value    the statistic of n samples x against n real points y
stderr   its standard error over fresh draws of both, at this n (how it is estimated stands with each metric)
floor    the same statistic, at the same n, of other real points against y: what a perfect model would score

Statistics are biased by n (a Wasserstein distance most of all), so value and floor always use the same n.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Better = Literal["lower", "higher"]
Statistic = Callable[[Tensor, Tensor], tuple[float, float]]


@dataclass(frozen=True)
class Metric:
    """One score. n: how many samples it looked at; floor: None when there was nothing real to compare with."""

    name: str
    value: float
    stderr: float
    floor: float | None
    better: Better
    n: int

    def __str__(self) -> str:
        floor = "" if self.floor is None else f", real data {self.floor:.4g}"
        return f"{self.name} {self.value:.4g} +- {self.stderr:.2g} ({self.better} is better{floor}, n = {self.n})"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def points(x: Tensor) -> Tensor:
    """(n, *shape) to float64 (n, d); uint8 images to [0, 1]. Raises ValueError where a value is not finite."""
    flat = torch.as_tensor(x).detach().cpu()
    flat = (flat.float() / 255.0 if flat.dtype == torch.uint8 else flat).double().reshape(len(flat), -1)
    bad = (~flat.isfinite().all(1)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"{len(bad)} of {len(flat)} samples are not finite, the first is number {int(bad[0])}")
    return flat


def pick(x: Tensor, n: int, seed: int, stream: int = 0) -> Tensor:
    """n rows of x without replacement, in an order that (seed, stream) decides."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + stream)
    return x[torch.randperm(len(x), generator=generator)[:n]]


def matched(x: Tensor, y: Tensor, other: Tensor | None, limit: int, seed: int, least: int = 2) -> tuple[Tensor, ...]:
    """Equal-sized random parts of the sets, each at most `limit`, as points. Raises ValueError if the events differ."""
    sets = [x, y] if other is None else [x, y, other]
    if len({tuple(s.shape[1:]) for s in sets}) > 1:
        raise ValueError(f"events of different shapes cannot be compared: {[tuple(s.shape[1:]) for s in sets]}")
    n = min(limit, *(len(s) for s in sets))
    if n < least:
        raise ValueError(f"this metric needs at least {least} points in each set, got {[len(s) for s in sets]}")
    return tuple(points(pick(s, n, seed, k)) for k, s in enumerate(sets))


def two_sample(
    name: str, statistic: Statistic, x: Tensor, y: Tensor, other: Tensor | None, limit: int, seed: int, better: Better
) -> Metric:
    """`statistic(x, y) -> (value, stderr)` on matched sets, and on (other, y) for the floor."""
    sets = matched(x, y, other, limit, seed)
    value, stderr = statistic(sets[0], sets[1])
    floor = statistic(sets[2], sets[1])[0] if len(sets) == 3 else None
    return Metric(name, value, stderr, floor, better, len(sets[0]))


def binomial_stderr(hits: float, n: int) -> float:
    """Standard error of hits / n, with two hits and two misses added so that 0 and n keep one (Agresti and Coull 1998).

    n counts independent trials.
    """
    p = (hits + 2.0) / (n + 4.0)
    return (p * (1.0 - p) / (n + 4.0)) ** 0.5
