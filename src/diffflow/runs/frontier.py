r"""The frontier of a run: the best quality of its samples for every cost, and the settings that reach it.

A setting (dials, and whether by a calibrated plan) has a cost, network evaluations a sample or seconds, and a distance
of its samples to data with a standard error. A setting is on the front when no other has both a smaller cost and a
smaller distance. From the front come three qualities:

    best        the smallest distance, or the cheapest within a standard error of the difference to it
    balanced    the cheapest within 1.2 times that distance
    fast        the cheapest within 2 times that distance
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import figures
from ..equation.conditions import Cond, rows
from ..equation.noise import Noise, as_noise
from ..metrics import Metric
from ..models.settings.common import Dials
from .run import Run

QUALITIES = {"fast": 2.0, "balanced": 1.2, "best": 1.0}  # by name: most distance, over the smallest
Distance = Callable[[Tensor], Metric]  # samples (n, *shape) -> their distance to data


@dataclass(frozen=True)
class Point:
    """A setting of a run, and what it gives.

    Args:
        dials: the setting.
        plan: whether its solver is a calibrated plan.
        distance: of its samples to data, lower is better.
        stderr: standard error of the distance.
        evaluations: of the networks, a sample.
        seconds: per 1000 samples, on this machine.
        name: of another run that is compared, if the point is of one.
    """

    dials: Dials
    plan: bool
    distance: float
    stderr: float
    evaluations: int
    seconds: float
    name: str = ""

    def __str__(self) -> str:
        if self.name:
            return self.name
        d = self.dials
        turned = (f"{name} {value:g}" for name, value in (("churn", d.churn), ("gan", d.gan)) if value != 0)
        return ", ".join([f"{d.steps} step{'s' * (d.steps > 1)}", *turned, *(["plan"] if self.plan else [])])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def sweep(
    run: Run,
    settings: Iterable[tuple[Dials, bool]],
    distance: Distance,
    n: int,
    *,
    labels: Cond = None,
    noise: Noise | int = Noise(0),
    batch: int = 256,
    name: str = "",
    on_step: Callable[[int, int], None] | None = None,
) -> list[Point]:
    """Draw n samples at every setting, from the same streams, and measure their distance to data.

    Args:
        run: whose samples.
        settings: dials, and whether to take the run's plan for them or the solver that the model comes with.
        distance: of samples (n, *shape), decoded, to data.
        n: samples a setting.
        labels: their classes (n,) or other conditions, n rows of them; None for none.
        noise: streams, one a sample; or an integer seed.
        batch: samples that move together.
        name: of the points, where it is another run than the others'.
        on_step: called with (batches done, of how many).

    Raises:
        ValueError: a plan that has not been calibrated.
    """
    settings, noise = list(settings), as_noise(noise)
    total, done = len(settings) * -(-n // batch), 0
    points = []
    for dials, planned in settings:
        if planned and run.plan(dials) is None:
            raise ValueError(f"{run.path} has no plan for {dials}: calibrate it first")
        parts = []
        seconds = 0.0
        nfe = 0
        for first in range(0, n, batch):
            size = min(batch, n - first)
            start = time.perf_counter()
            drawn = run.sample(
                size,
                rows(labels, slice(first, first + size)),
                **dataclasses.asdict(dials),
                noise=noise.shift(first),
                batch=batch,
                plans=planned,
            )
            seconds += time.perf_counter() - start
            parts.append(drawn.last)
            nfe, done = drawn.nfe, done + 1
            if on_step is not None:
                on_step(done, total)
        metric = distance(torch.cat(parts))
        points.append(Point(dials, planned, metric.value, metric.stderr, nfe, 1000 * seconds / n, name))
    return points


def front(points: Sequence[Point], cost: str = "evaluations") -> list[Point]:
    """The points that no other undercuts in cost (`evaluations` or `seconds`) and distance, cheapest first."""
    kept: list[Point] = []
    for p in sorted(points, key=lambda p: (getattr(p, cost), p.distance)):
        if not kept or p.distance < kept[-1].distance:
            kept.append(p)
    return kept


def within(points: Sequence[Point], evaluations: int) -> Point | None:
    """The smallest distance for at most so many evaluations; None where nothing is that cheap."""
    cheap = [p for p in points if p.evaluations <= evaluations]
    return min(cheap, key=lambda p: p.distance) if cheap else None


def qualities(points: Sequence[Point]) -> dict[str, Point]:
    """The three settings that are worth using, by name: fast, balanced and best."""
    top = min(points, key=lambda p: p.distance)

    def near(p: Point, factor: float) -> bool:
        slack = (p.stderr**2 + top.stderr**2) ** 0.5
        return p.distance <= max(factor * top.distance, top.distance + slack)

    return {
        name: min((p for p in points if near(p, factor)), key=lambda p: (p.evaluations, p.distance))
        for name, factor in QUALITIES.items()
    }


def plot_frontier(points: Sequence[Any], name: str, floor: float | None = None):
    """A figure of distance against cost, in evaluations and in seconds, both logarithmic.

    It has a line for every churn and gan, with and without a plan, and for every other run that is compared; the front
    of all in black, real data dashed.

    Args:
        points: as `Point`.
        name: of the distance.
        floor: what real data score, if that is known.
    """
    from matplotlib import ticker

    fig = figures.figure(11.5, 4.0)
    axes = fig.subplots(1, 2, sharey=True)
    kinds: dict[str, list[Any]] = {}
    for p in points:
        if p.name:
            kinds.setdefault(p.name, []).append(p)
            continue
        dials = (f"churn {p.dials.churn:g}", *((f"gan {p.dials.gan:g}",) if p.dials.gan else ()))
        kinds.setdefault(", ".join((*dials, *(("plan",) if p.plan else ()))), []).append(p)
    for ax, cost, label in zip(
        axes, ("evaluations", "seconds"), ("network evaluations a sample", "seconds per 1000 samples"), strict=True
    ):
        best = front(points, cost)
        ax.plot([getattr(p, cost) for p in best], [p.distance for p in best], color="black", lw=4, alpha=0.15)
        for kind, line in kinds.items():
            line = sorted(line, key=lambda p: getattr(p, cost))
            x, y, e = zip(*((getattr(p, cost), p.distance, p.stderr) for p in line), strict=True)
            ax.errorbar(x, y, yerr=e, marker="o", ms=4, lw=1.2, capsize=2, label=figures.plain(kind))
        if floor is not None and floor > 0:
            ax.axhline(floor, color="grey", ls="--", lw=1, label="real data")
        ax.set(xscale="log", yscale="log", xlabel=label)
        ax.grid(alpha=0.2, which="both")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            axis.set_minor_formatter(ticker.NullFormatter())
    ticks: list[int] = []
    for n in sorted({p.evaluations for p in points}):  # the numbers that were swept, where there is room for them
        if not ticks or n >= 1.2 * ticks[-1]:
            ticks.append(n)
    axes[0].xaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes[0].set_ylabel(figures.plain(name))
    fig.tight_layout(rect=(0, 0, 0.78, 1))
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))  # outside: it would hide points
    return fig
