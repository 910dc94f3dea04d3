"""Choices for a density of rows, made on rows kept aside: what a denoiser is given to start from, and where it ends.

Two settings decide more than the length of a training, and neither is best for all tables (benchmarks/likelihood):

    the skip          a y of the form, or the exact denoiser of a mixture (networks/mixture_skip.py)
    the path's end    lower noise resolves more, where there are rows enough to learn it from

`choose_form` gives each candidate a short training of the same length and goes on with the one of the least loss on
the rows aside, which all see with the same noise. Losses compare where noise levels are weighed alike, so the end of
the path is no such candidate: `choose_end` compares bounds of the density itself along one denoiser's path.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..console import Console, to_stderr
from ..data import Data
from ..models.base import TrainConfig
from ..models.diffusion import ended
from ..models.settings.serialise import ConfigError
from ..models.settings.serialise import replace as with_settings
from ..training.hooks import Hooks
from ..training.run_folder import Folder
from ..training.train import train as train_into
from .run import Run

FORMS: Mapping[str, Mapping[str, Any]] = {"plain": {}, "mixture": {"model.skip": "mixture"}}
ENDS = (0.015, 0.03, 0.05, 0.08)  # noise levels in model units at which a path may end
UNLIKE = ("data.", "fit.", "loss.")  # settings that change what the loss on the rows aside means


@dataclass(frozen=True)
class FormTrial:
    """A short training.

    Args:
        name: of the candidate.
        config: its settings.
        path: its run directory, where it can go on.
        loss: mean loss on the rows kept aside of its best average.
        seconds: that it took in all, what was fitted before its first step included.
        losses: of all candidates, by name.
    """

    name: str
    config: TrainConfig
    path: Path
    loss: float
    seconds: float
    losses: Mapping[str, float]


def choose_form(
    config: TrainConfig,
    folder: str | Path,
    data: Data,
    seconds: float,
    candidates: Mapping[str, Mapping[str, Any]] = FORMS,
    *,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = lambda line: None,
    console: Console | None = None,
) -> FormTrial:
    """Train each candidate for a short time and choose the one with the least loss on the rows kept aside.

    The winner's run is no waste: train it further with `resume="auto"`. Its mixture, if it has one, was fitted within
    the share of the whole budget that `config` says, and stays.

    Args:
        config: the settings of the whole training, fit.holdout among them.
        folder: where the short runs go, each under its name.
        data: what is learned.
        seconds: of training for each, beside what comes before its first step.
        candidates: settings by dotted name that each differs in.
        clock: seconds of what, the wall's by default.
        say: where to tell the choice.
        console: where the progress of the trainings goes; default: standard error.

    Returns:
        The best of the trials.

    Raises:
        ConfigError: nothing is kept aside, or candidates whose losses do not compare.
    """
    if not config.fit.holdout:
        raise ConfigError("a form is chosen by the loss on rows kept aside, and fit.holdout is 0: give 0.1")
    for name, changes in candidates.items():
        if unlike := [key for key in changes if key.startswith(UNLIKE)]:
            raise ConfigError(
                f"candidate {name!r} changes {', '.join(unlike)}, so that its loss does not compare with the others'"
            )
    trials: dict[str, tuple[float, TrainConfig, Path, float]] = {}
    for name, changes in candidates.items():
        wanted, path, begun = with_settings(config, dict(changes)), Path(folder) / name, clock()
        train_into(wanted, path, data=data, console=console or to_stderr(), hooks=Hooks(on_log=_until(seconds, clock)))
        loss = float(json.loads((path / "chosen.json").read_text())["loss"])
        trials[name] = loss, wanted, path, clock() - begun
    losses = {name: trial[0] for name, trial in sorted(trials.items(), key=lambda item: item[1][0])}
    best = next(iter(losses))
    loss, wanted, path, took = trials[best]
    said = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    say(f"of the forms {best} has the least loss on rows kept aside after {seconds:.3g} s of training each ({said})")
    return FormTrial(best, wanted, path, loss, took, losses)


def _until(seconds: float, clock: Callable[[], float]) -> Callable[[dict[str, Any]], bool]:
    """A watcher of a training's log that stops it so many seconds after its first line."""
    end: list[float] = []  # known from the first line on

    def late(line: dict[str, Any]) -> bool:
        if not end:
            end.append(clock() + seconds)
        return clock() >= end[0]

    return late


@dataclass(frozen=True)
class EndTrial:
    """An end of the path.

    Args:
        sigma_min: noise level at which it ends.
        churn: the sampler's, as it was.
        nats: mean log-density of the rows kept aside.
    """

    sigma_min: float
    churn: float
    nats: float


def choose_end(
    run: Run,
    aside: Tensor,
    ends: tuple[float, ...] = ENDS,
    *,
    score: Callable[[Run, Tensor], Tensor] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Run:
    """Choose the noise level at which a denoiser's path ends by the log-density of rows kept aside, and keep it.

    Args:
        run: a denoiser's run.
        aside: rows that it never saw, as loaded (n, d).
        ends: candidates; those that the training did not reach (loss.sigma_min) are left out.
        score: run and rows -> log-density (n,); default: the bound of the density of the data, `Run.log_likelihood`,
            which all ends bound alike.
        say: where to tell the choice.

    Returns:
        The run with this end, which is kept in sampler.json and holds whenever these weights are opened.

    Raises:
        ConfigError: no end that the training reached.
    """
    lowest, churn = getattr(getattr(run.config, "loss", None), "sigma_min", 0.0), run.config.sampling.churn
    levels = [end for end in ends if end >= lowest * (1 - 1e-9)]
    if not levels:
        raise ConfigError(f"ends {ends} lie below loss.sigma_min = {lowest}, the lowest noise of the training")

    def density(one: Run) -> float:
        values = one.log_likelihood(aside, steps=24).value if score is None else score(one, aside)
        return float(values.double().mean())

    trials = [EndTrial(s, churn, density(replace(run, config=ended(run.config, s, churn)))) for s in levels]
    best = max(trials, key=lambda trial: trial.nats)
    content = {"weights": run.weights, "rows": len(aside), "chosen": asdict(best)}
    Folder(run.path).keep_sampler(content | {"trials": [asdict(trial) for trial in trials]})
    rest = ", ".join(f"{t.sigma_min:g}: {t.nats:.3f}" for t in trials)
    say(f"the path ends at noise {best.sigma_min:g}: {len(aside)} rows kept aside are likeliest there (nats: {rest})")
    return replace(run, config=ended(run.config, best.sigma_min, churn))
