"""Preparation: what is fitted to the data before the first step, and kept with the weights from then on.

A checkpoint or the weights of another run bring it along, so that a run which goes on does not fit again.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from ..console import Console, say
from ..data import Data
from ..models.base import TrainConfig
from ..networks.mixture_fit import most_rows
from ..networks.mixture_skip import MixtureSkip
from .batches import Batches
from .distributed import Process
from .state import TrainingState

SHARE = 0.3  # of a budget of time that it may take


def prepare(
    training: TrainingState,
    config: TrainConfig,
    learned: Data,
    held_out: Data | None,
    process: Process,
    console: Console,
) -> None:
    """Fit the mixtures of the players that were not fitted yet; the clocks of the training count it.

    Args:
        training: whose players' buffers change, in every process alike.
        config: its settings; of a budget of time `SHARE` may be used.
        learned: the rows to learn from.
        held_out: rows kept aside; None: there are none.
        process: this process.
        console: where to tell what was chosen.
    """
    players = training.players.values()
    parts = [part for player in players for part in player.module.modules() if isinstance(part, MixtureSkip)]
    parts = [part for part in parts if not part.fitted]
    if not parts:
        return
    begun, begun_cpu, how = time.monotonic(), time.process_time(), config.fit
    limits = [(how.cpu_minutes, time.process_time), (how.minutes, time.monotonic)]
    minutes, clock = next((limit for limit in limits if limit[0] is not None), (math.inf, time.monotonic))
    for part in parts:
        if process.rank == 0:
            aside = None if held_out is None else rows(held_out, config)
            seconds = SHARE * 60 * (minutes or math.inf) / len(parts)
            say(console, f"mixture   {part.fit(rows(learned, config), aside, seconds, clock)}")
        mine = [part.state_dict()] if process.rank == 0 else []
        (first,) = process.gather([{k: v.cpu() for k, v in state.items()} for state in mine])
        if process.rank:
            part.load_state_dict(first)
    training.seconds += time.monotonic() - begun
    training.cpu_seconds += time.process_time() - begun_cpu


def rows(data: Data, config: TrainConfig) -> Tensor:
    """Rows of data as the training sees them (n, d), in random order; as many as are used."""
    batches = Batches(data, config.fit.seed, torch.device("cpu"), config.data.dequantise)
    return batches(0, min(len(data), most_rows(math.prod(data.shape)))).x
