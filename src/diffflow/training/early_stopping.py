"""Early stopping after the fact: pick the weight average with the lowest held-out loss.

A model of few rows learns them by heart if it trains for long. The averages that a run keeps at geometric times
(ema.py) are models of every length of training, at steps of 2^(1/4): the one with the least loss on rows kept aside
(`fit.holdout`) is early stopping after the fact, of time and width at once, and no budget is too long. Every candidate
sees the same rows with the same noise, so that differences of losses are much surer than the losses.

Where the settings say so (`fit.patience`), a training ends by itself: when none of these averages has been better
within so many times the steps of the best one.

Where rates fall to zero at the end of the budget (`PlayerConfig.anneal`), the end is the best there is, and what came
before is not kept. Such a model stays that of its run, whatever is trained on top of it, until that is better.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import safetensors.torch
import torch

from .. import files
from ..data import Data
from ..data.prepare import holdout
from ..equation.noise import Noise
from ..models.settings.common import FitConfig
from ..models.settings.serialise import ConfigError
from . import checkpoint
from .batches import Batches
from .checkpoint import Tensors
from .ema import averaged_tensors, put
from .memory import at_once
from .previews import evaluating
from .run_folder import Folder
from .state import TrainingState

SAMPLES = 4096  # draws of noise that a candidate is judged by, at least one of each row
LEAST = 250  # steps: an earlier average may have the least loss, and its samples are poor all the same


@dataclass(frozen=True)
class Choice:
    """The weight average that was chosen.

    Args:
        step: training step of the average.
        ema: its relative width.
        loss: its mean loss on the rows kept aside.
        last: that of the last average, for comparison.
        of: step at which the choice was made: a run that went on has to choose again.
        stays: whether it is the model of its run until another choice is made.
    """

    step: int
    ema: float
    loss: float
    last: float
    of: int
    stays: bool = False

    def words(self, rows: int) -> str:
        """What is said of the choice by so many rows kept aside."""
        if not self.stays:
            return (
                f"of the averages along the training that of step {self.step} (ema {self.ema:g}) has the least loss on "
                f"the {rows} rows kept aside, {self.loss:.4g} (the last one: {self.last:.4g}): it is the model"
            )
        if self.step == self.of:
            return f"loss on the {rows} rows kept aside: {self.loss:.4g}"
        return (
            f"loss on the {rows} rows kept aside: {self.last:.4g}, and {self.loss:.4g} of step {self.step}, where the "
            "training had ended before: that stays the model"
        )


def holdout_split(data: Data, share: float) -> tuple[Data, Data | None]:
    """What is learned from, and what is kept aside: a fixed random share of each class.

    Args:
        data: all rows.
        share: how much of them is kept aside, in [0, 1); 0: nothing.

    Raises:
        ConfigError: too few rows would be left to learn from.
    """
    if not share:
        return data, None
    y, count = None if data.y is None else data.y.numpy(), max(2, round(share * len(data)))
    if len(data) - count < 10:
        raise ConfigError(
            f"fit.holdout = {share} keeps {count} of {len(data)} rows aside, and the rest are too few to learn from: "
            "give more data, or leave it at 0"
        )
    mask = torch.from_numpy(holdout(len(data), y, count))
    if not mask.any():
        raise ConfigError(f"fit.holdout = {share} would empty classes, which have one row each: leave it at 0")
    return data.subset(~mask), replace(data.subset(mask), augment=None)


@torch.no_grad()
def losses(training: TrainingState, candidates: list[Tensors], batches: Batches, config: FitConfig) -> np.ndarray:
    """Mean loss (candidates,) of the one player of `training` with other weights; its own are left as they were."""
    (player,) = training.players.values()
    present = {k: p.detach().clone() for k, p in averaged_tensors(player.module).items()}
    count, part = max(SAMPLES, len(batches.data)), at_once(batches.data.shape, 256)
    noise = Noise(config.seed).fork("aside")
    means = []
    try:
        with evaluating([player.module]):
            for weights in candidates:
                put(player.module, {k: v.to(present[k]) for k, v in weights.items()})
                total = 0.0
                for first in range(0, count, part):
                    n = min(part, count - first)
                    (turn,) = training.objective.turns(batches(first, n), noise.shift(first))
                    total += turn.loss.double().sum().item()
                means.append(total / count)
    finally:
        put(player.module, present)
    return np.asarray(means)


def average(group: Tensors, player: str, width: float) -> Tensors:
    """The average of a player of this width, of a group "player/width/name"."""
    prefix = f"{player}/{width}/"
    return {k.removeprefix(prefix): v for k, v in group.items() if k.startswith(prefix)}


class Patience:
    """The end of a training whose averages become no better on the rows kept aside.

    What it finds depends on the weights alone, so that a training that is resumed ends where it would have ended.

    Args:
        training: the one player's training, as it begins or goes on.
        folder: where earlier averages are.
        batches: of the rows kept aside.
        config: with `patience`, the factor.
    """

    def __init__(self, training: TrainingState, folder: Folder, batches: Batches, config: FitConfig):
        self.training, self.batches, self.config = training, batches, config
        ((self.name, self.player),) = training.players.items()
        earlier = folder.snapshots(training.step)
        self.best = (LEAST, np.inf)
        for step, loss in zip(
            (int(group[f"{self.name}/clock"]) for group in earlier), self._losses(earlier), strict=True
        ):
            self._seen(step, loss)

    def _losses(self, groups: list[Tensors]) -> np.ndarray:
        width = self.player.config.ema[0]
        found = [average(group, self.name, width) for group in groups]
        return losses(self.training, found, self.batches, self.config) if found else np.zeros(0)

    def _seen(self, step: int, loss: float) -> None:
        if loss < self.best[1]:
            self.best = (max(step, LEAST), float(loss))

    def ended(self) -> str:
        """Why the training ends with this step, whose averages are kept; "" where it goes on."""
        step, factor = self.player.updates, self.config.patience
        self._seen(step, self._losses([self.training.averages()])[0])
        if factor is None or step < factor * self.best[0]:
            return ""
        return f"nothing better on {len(self.batches.data)} rows kept aside since step {self.best[0]}"


def choose(training: TrainingState, folder: Folder, batches: Batches, config: FitConfig) -> Choice:
    """Judge every weight average that there is, and write the best to the run directory."""
    ((name, player),) = training.players.items()
    kept = [] if player.anneals else folder.snapshots(training.step - 1)
    stored = [(int(group[f"{name}/clock"]), group) for group in kept]
    places: list[tuple[int, float]] = []
    candidates: list[Tensors] = []
    if config.patience is not None:
        stored = [(step, group) for step, group in stored if step >= LEAST]
    for step, group in [*stored, (player.updates, training.averages())]:
        for width in player.config.ema:
            places.append((step, width))
            candidates.append(average(group, name, width))
    newest = len(places) - len(player.config.ema)
    if player.anneals and (before := load_choice(folder, training.step)) is not None:
        places.append((before[0].step, before[0].ema))
        candidates.append({k.removeprefix(f"{name}/"): v for k, v in before[1].items()})
    means = losses(training, candidates, batches, config)
    best = int(means.argmin())
    choice = Choice(*places[best], float(means[best]), float(means[newest]), training.step, player.anneals)
    content = {f"{name}/{k}": v.contiguous() for k, v in candidates[best].items()}
    files.write(folder.path / "chosen.safetensors", checkpoint.to_bytes(content))
    files.write_json(folder.path / "chosen.json", asdict(choice))
    return choice


def load_choice(folder: Folder, step: int) -> tuple[Choice, Tensors] | None:
    """The choice that holds at `step`, the end of the training so far, and its weights "player/name"; None: none."""
    try:
        choice = Choice(**json.loads((folder.path / "chosen.json").read_bytes()))
        weights = safetensors.torch.load((folder.path / "chosen.safetensors").read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    return (choice, weights) if choice.stays or choice.of == step else None
