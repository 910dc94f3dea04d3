"""Where a sampler ends and how random it is, chosen on pictures kept aside when a training is over.

A young denoiser is good down to some noise level and makes grain below it; a little churn repairs what it gets wrong
above. The same weights can be a third nearer the data by these two numbers alone. So a few are tried, one after the
other, on the same starts, and samples are compared with the pictures kept aside, scale by scale:

    x_0 = x,  x_(l+1) = x_l halved (means of 2 x 2);   band l = x_l - x_(l+1) doubled;  the last one whole
    score = mean over l of  log( SW2(patches of band l of samples, of the pictures aside) / the same of training rows )

A distance of one scale does not see the others: grain is in the finest bands, layout and colour in the last.

References:
    Karras et al. 2018, arXiv:1710.10196, section 5 (sliced Wasserstein distances of a Laplacian pyramid's patches).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import Data
from ..metrics.wasserstein import sliced_w2
from ..models.base import TrainConfig
from ..models.diffusion import ScoreConfig, ended
from ..training.early_stopping import holdout_split
from ..training.memory import at_once
from ..training.run_folder import Folder
from .run import Run

ENDS = (0.01, 0.02, 0.04, 0.08)  # noise levels in model units at which a sampler may end
CHURNS = (0.0, 0.2, 0.5, 1.0)
SIDE = 4  # of a patch
FEWEST, MOST = 48, 512  # samples of a trial
SHARE = 0.04  # of a budget of time that all trials may take


@dataclass(frozen=True)
class Trial:
    """A sampler, and how far its samples are from the pictures kept aside.

    Args:
        sigma_min: noise level at which it ends.
        churn: its randomness.
        score: mean log-distance over scales, in units of that of training rows; 0 would be as good as real.
    """

    sigma_min: float
    churn: float
    score: float


def bands(x: Tensor, smallest: int = 8) -> list[Tensor]:
    """Laplacian pyramid of pictures, from fine to coarse.

    Args:
        x: pictures (n, c, h, w).
        smallest: the side at which it ends.

    Returns:
        The bands (n, c, h / 2^l, w / 2^l); the last is no difference.
    """
    out = []
    while min(x.shape[2:]) >= 2 * smallest:
        small = F.avg_pool2d(x, 2)
        large = F.interpolate(small, size=x.shape[2:], mode="nearest")
        out.append(x - large)
        x = small
    return [*out, x]


def patches(band: Tensor, side: int = SIDE) -> Tensor:
    """Patches (many, c side^2) of pictures (n, c, h, w), side by side; the whole where it is small."""
    if min(band.shape[2:]) <= 2 * side:
        return band.flatten(1)
    return F.unfold(band, side, stride=side).transpose(1, 2).flatten(0, 1)


def distance(x: Tensor, real: Tensor, other: Tensor) -> float:
    """Mean log-distance over scales of pictures x to real ones, in units of the distance of other real ones.

    Args:
        x: samples (n, c, h, w).
        real: real pictures (m, c, h, w), in the same units.
        other: more real pictures.
    """
    logs = []
    for a, b, c in zip(bands(x), bands(real), bands(other), strict=True):
        mine, theirs, rest = (patches(part) for part in (a, b, c))
        far = sliced_w2(mine, theirs, directions=64, limit=4096).value
        floor = sliced_w2(rest, theirs, directions=64, limit=4096).value
        logs.append(math.log(max(far, 1e-12) / max(floor, 1e-12)))
    return sum(logs) / len(logs)


def choose_sampler(
    run: Run, real: Data, other: Data, seconds: float, say: Callable[[str], None] = lambda line: None
) -> Trial:
    """Choose where the sampler of a run of pictures ends and its churn, and keep that in the run.

    Args:
        run: a denoiser's run.
        real: pictures that it never saw.
        other: some that it learned from, for the unit of the distance.
        seconds: what this may take, about.
        say: where to tell it.

    Returns:
        What was chosen, which is kept in sampler.json and holds whenever these weights are opened.
    """
    begun = time.perf_counter()
    trial(run, 8, None, run.config)
    one = (time.perf_counter() - begun) / 8
    count = min(MOST, max(FEWEST, int(seconds / (one * (len(ENDS) + len(CHURNS) - 1)))))
    labels = real.labels(count)
    target, rest = pixels(real.x[:MOST]), pixels(other.x[:MOST])

    def tried(sigma_min: float, churn: float) -> Trial:
        config = ended(run.config, sigma_min, churn)
        x = trial(run, count, labels, config)
        return Trial(sigma_min, churn, distance(x, target, rest))

    trials = [tried(end, 0.0) for end in ENDS]
    best = min(trials, key=lambda t: t.score)
    trials += [tried(best.sigma_min, churn) for churn in CHURNS if churn]
    best = min(trials, key=lambda t: t.score)
    content = {"weights": run.weights, "rows": count, "chosen": asdict(best), "trials": [asdict(t) for t in trials]}
    Folder(run.path).keep_sampler(content)
    say(
        f"samples end at noise {best.sigma_min:g} with churn {best.churn:g}: of {len(trials)} ways nearest to "
        f"{len(target)} pictures kept aside"
    )
    return best


def trial(run: Run, n: int, labels: Tensor | None, config: TrainConfig) -> Tensor:
    """Samples (n, c, h, w) of a run under other settings, always from the same noise."""
    batch = at_once(run.transform.shape, 128)
    return replace(run, config=config).sample(n, cond=labels, noise=17, batch=batch, plans=False).last


def pixels(x: Tensor) -> Tensor:
    """Pictures in the units of samples: bytes as [0, 1]."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def ends_with_its_budget(config: TrainConfig) -> bool:
    """Whether these are settings of a denoiser that is at its best when the budget is spent, and no earlier."""
    return isinstance(config, ScoreConfig) and config.denoiser.anneal is not None


def fit_sampler(run: Run, data: Data, say: Callable[[str], None] = lambda line: None) -> Run:
    """The run with its sampler chosen, where pictures were kept aside in its training and it may be chosen.

    Args:
        run: a run that was just trained.
        data: what it was trained on.
        say: where to tell it.
    """
    config = run.config
    learned, aside = holdout_split(data, config.fit.holdout)
    unlabelled = data.conditions is not None and data.y is None
    if aside is None or not ends_with_its_budget(config) or data.kind != "image" or unlabelled:
        return run
    minutes = [m for m in (config.fit.minutes, config.fit.cpu_minutes) if m is not None]
    seconds = 60 * min(minutes) if minutes else run.metrics()[-1]["seconds"]
    count = min(len(learned), 4 * len(aside))
    some = learned.subset(torch.linspace(0, len(learned) - 1, count).long())
    best = choose_sampler(run, aside, some, SHARE * seconds, say)
    return replace(run, config=ended(config, best.sigma_min, best.churn))
