"""Metric: a score of samples with its standard error and its floor; and the check that every metric makes of its input.

    value    the statistic of n samples x against n real points y
    stderr   its standard error over fresh draws of both, at this n (how it is estimated stands with each metric)
    floor    the same statistic, at the same n, of other real points against y: what a perfect model would score

A number about samples means something only beside its error and its floor. Statistics are biased by n (a Wasserstein
distance most of all), so value and floor always use the same n.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Better = Literal["lower", "higher"]
Statistic = Callable[[Tensor, Tensor], tuple[float, float]]

NAMES = ("samples", "real points", "held-out points")
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # the units that images come in as floats


@dataclass(frozen=True)
class Metric:
    """One score of samples.

    Args:
        name: what `METRICS` calls it.
        value: the statistic of the samples.
        stderr: its standard error at this n.
        floor: the value of other real points; None where there were none.
        better: which direction is better, "lower" or "higher".
        n: number of samples it looked at.
        note: what must be known to read the value, one sentence; empty where there is nothing to say.
    """

    name: str
    value: float
    stderr: float
    floor: float | None
    better: Better
    n: int
    note: str = ""

    def __str__(self) -> str:
        floor = "" if self.floor is None else f", real data {self.floor:.4g}"
        note = f"; {self.note}" if self.note else ""
        return f"{self.name} {self.value:.4g} +- {self.stderr:.2g} ({self.better} is better{floor}, n = {self.n}){note}"

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, JSON-able; `note` only where there is one."""
        fields = asdict(self)
        if not self.note:
            del fields["note"]
        return fields


def admitted(*sets: Tensor | None, names: Sequence[str] = NAMES, unit: bool = False) -> list[Tensor]:
    """Sets of events that can be compared, on the CPU: of one shape, in the same units, every value finite.

    The one check at the door of every metric. Bytes count as [0, 1], so floats beside bytes must lie there. Images as
    floats, (n, c, h, w) or (n, h, w), in [0, 1], [-1, 1] and [0, 255] are told apart by their ranges. Rows of numbers
    may differ in range as a bad model's do: two rows of RANGES that are filled to the brim only give a warning.

    Args:
        sets: samples (n, *shape), real points (m, *shape), more of either; None where there are none.
        names: what messages call each set.
        unit: whether images must be bytes or floats in [0, 1], as classifiers take them.

    Returns:
        The sets that are not None, as tensors on the CPU, without gradients.

    Raises:
        ValueError: for an empty set, events of different shapes, values that are not finite (with the number of the
            first row that has one), and sets in different units. The message names the set, the value and the remedy.
    """
    named = [(name, torch.as_tensor(x).detach().cpu()) for name, x in zip(names, sets, strict=False) if x is not None]
    for name, x in named:
        if not x.numel():
            raise ValueError(f"the {name} are empty: shape {tuple(x.shape)}. Give at least one event")
    if len({tuple(x.shape[1:]) for _, x in named}) > 1:
        shapes = ", ".join(f"{name} {tuple(x.shape[1:])}" for name, x in named)
        raise ValueError(f"events of different shapes cannot be compared: {shapes}. Bring them to one shape")
    spans = [_span(name, x) for name, x in named]
    if unit:
        for (name, x), span in zip(named, spans, strict=True):
            if x.ndim > 2 and x.dtype != torch.uint8:
                _in_unit_range(name, span)
    for i in (i for i in range(len(named)) if i != 1 and len(named) > 1):
        _same_units(*named[i], spans[i], *named[1], spans[1])
    return [x for _, x in named]


def _span(name: str, x: Tensor) -> tuple[float, float]:
    """Smallest and largest value. Raises ValueError where one is not finite."""
    low, high = (float(v) for v in (x.byte() if x.dtype == torch.bool else x).aminmax())
    if not (-float("inf") < low and high < float("inf")):  # also when one is not a number
        finite(x, name)
    return low, high


def finite(x: Tensor, name: str) -> Tensor:
    """Return x (n, *shape) itself, all of it finite; raises ValueError with the number of the first row that is not."""
    bad = (~x.isfinite().flatten(1).all(1) if x.ndim > 1 else ~x.isfinite()).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(x)} {name} are not finite, the first is number {int(bad[0])}. "
            "Leave them out, or find out what made them"
        )
    return x


def _in_unit_range(name: str, span: tuple[float, float]) -> None:
    slack = 0.5 / 255  # rounds to the same bytes
    if span[0] < -slack or span[1] > 1.0 + slack:
        raise ValueError(
            f"float images live in [0, 1], these {name} in [{span[0]:.4g}, {span[1]:.4g}]; decode them first"
        )


def _same_units(
    a_name: str, a: Tensor, a_span: tuple[float, float], b_name: str, b: Tensor, b_span: tuple[float, float]
) -> None:
    """Raise ValueError where the units of a differ from those of b, the real points."""
    bytes_a, bytes_b = a.dtype == torch.uint8, b.dtype == torch.uint8
    ranges = f"{a_name} in [{a_span[0]:.4g}, {a_span[1]:.4g}], {b_name} in [{b_span[0]:.4g}, {b_span[1]:.4g}]"
    remedy = "Decode both alike, images to bytes or to [0, 1]"
    if bytes_a and bytes_b:
        return
    if bytes_a or bytes_b:
        _in_unit_range(*((b_name, b_span) if bytes_a else (a_name, a_span)))
        if bytes_b and b_span[1] == 1.0 and a_span[1] > 0.5:
            raise ValueError(f"bytes count from 0 to 255: {ranges}. {remedy}; a mask of 0 and 1 is .float()")
        return
    home_a, home_b = _range(*a_span), _range(*b_span)
    if a.ndim > 2:
        astray = home_b is not None and _beyond(a_span, home_b)
        if astray or (home_a is not None and _fills(a_span, home_a, 0.9) and _beyond(b_span, home_a)):
            raise ValueError(f"images in different units: {ranges}. {remedy} (events that are no images: flatten them)")
    elif home_a != home_b and home_a and home_b and _fills(a_span, home_a, 0.98) and _fills(b_span, home_b, 0.98):
        warnings.warn(f"are these the same units? {ranges}", stacklevel=4)


def _range(low: float, high: float) -> tuple[float, float] | None:
    """The first of RANGES that holds [low, high]."""
    return next(((a, b) for a, b in RANGES if a - 1e-3 <= low and high <= b + 1e-3), None)


def _beyond(span: tuple[float, float], home: tuple[float, float]) -> bool:
    """Whether span leaves home by more than half of its width."""
    half = (home[1] - home[0]) / 2
    return span[0] < home[0] - half * (1 - 1e-3) or span[1] > home[1] + half * (1 - 1e-3)


def _fills(span: tuple[float, float], home: tuple[float, float], share: float) -> bool:
    return span[1] - span[0] >= share * (home[1] - home[0])


def points(x: Tensor) -> Tensor:
    """Events (n, *shape) as float64 points (n, d); uint8 images are scaled to [0, 1]."""
    flat = torch.as_tensor(x).detach().cpu()
    return (flat.float() / 255.0 if flat.dtype == torch.uint8 else flat).double().reshape(len(flat), -1)


def pick(x: Tensor, n: int, seed: int, stream: int = 0) -> Tensor:
    """Draw n rows of x without replacement, in an order that seed and stream decide; all rows where x has fewer."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + stream)
    return x[torch.randperm(len(x), generator=generator)[:n]]


def matched(x: Tensor, y: Tensor, other: Tensor | None, limit: int, seed: int, least: int = 2) -> tuple[Tensor, ...]:
    """Equal-sized random parts of the sets, as points.

    Args:
        x: samples (n, *shape).
        y: real points (m, *shape).
        other: more real points, for the floor, or None.
        limit: most points taken of each.
        seed: of the draws; each set has its own stream.
        least: fewest points that the metric is defined for.

    Returns:
        Two or three tensors (k, d), float64, k the size of the smallest set or `limit`.

    Raises:
        ValueError: for fewer than `least` points in a set, and for what `admitted` refuses.
    """
    sets = admitted(x, y, other)
    n = min(limit, *(len(s) for s in sets))
    if n < least:
        raise ValueError(f"this metric needs at least {least} points in each set, got {[len(s) for s in sets]}")
    return tuple(points(pick(s, n, seed, k)) for k, s in enumerate(sets))


def two_sample(
    name: str, statistic: Statistic, x: Tensor, y: Tensor, other: Tensor | None, limit: int, seed: int, better: Better
) -> Metric:
    """A metric that is a statistic of two equal-sized sets of points.

    Args:
        name: of the metric.
        statistic: points (n, d) and (n, d) -> (value, standard error).
        x: samples (n, *shape).
        y: real points (m, *shape).
        other: more real points, for the floor, or None.
        limit: most points taken of each.
        seed: of which are taken.
        better: which direction is better.

    Raises:
        ValueError: for fewer than two points in a set, and for what `admitted` refuses.
    """
    sets = matched(x, y, other, limit, seed)
    value, stderr = statistic(sets[0], sets[1])
    floor = statistic(sets[2], sets[1])[0] if len(sets) == 3 else None
    return Metric(name, value, stderr, floor, better, len(sets[0]))


def binomial_stderr(hits: float, n: int) -> float:
    """Standard error of the share hits / n of n independent trials.

    Two hits and two misses are added, so that shares of 0 and 1 keep an error.

    References:
        Agresti and Coull 1998, "Approximate is better than 'exact' for interval estimation of binomial proportions".
    """
    p = (hits + 2.0) / (n + 4.0)
    return (p * (1.0 - p) / (n + 4.0)) ** 0.5
