"""Speed probe: what a step of a training costs here, found by steps that are thrown away."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import torch

from ..data import Data
from ..models.base import TrainConfig
from .batches import training_batches
from .distributed import Process
from .loop import fit
from .pace import Pace
from .state import TrainingState

STEPS = 3  # of which the first warms up
FEW = 100  # steps in which nothing is learned


@dataclass(frozen=True)
class Speed:
    """What a step costs.

    Args:
        wall: seconds of the clock.
        cpu: seconds of the processor, of all threads.
        parameters: numbers that are learned, by player.
    """

    wall: float
    cpu: float
    parameters: dict[str, int]

    @property
    def cost(self) -> tuple[float, float]:
        """Seconds of the clock and of the processor."""
        return self.wall, self.cpu


def probe(config: TrainConfig, data: Data, process: Process, steps: int = STEPS) -> Speed:
    """Time the first steps of a training, which leaves nothing behind.

    Args:
        config: its settings; the budget is not read.
        data: what is learned.
        process: where.
        steps: how many steps, the first of which does not count.

    Returns:
        The cost of a step, in this process.

    Raises:
        OutOfMemory: with what to change.
        ConfigError: settings that do not fit the data.
    """
    meta = data.meta()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.fit.seed)
        modules = {name: module.to(process.device) for name, module in config.build(meta).items()}
        training = TrainingState(config.objective(modules, meta), config.players())
    batches = training_batches(data, config, process.device)
    costs: list[tuple[float, float]] = []
    for k in range(steps):
        wall, cpu = time.perf_counter(), time.process_time()
        one = dataclasses.replace(config.fit, steps=k + 1, minutes=None, cpu_minutes=None)
        fit(training, batches, one, process, whole_batch=bool(config.whole_batch))
        if process.device.type == "cuda":
            torch.cuda.synchronize(process.device)
        costs.append((time.perf_counter() - wall, time.process_time() - cpu))
    counted = costs[1:] or costs
    sizes = {name: sum(p.numel() for p in player.parameters) for name, player in training.players.items()}
    return Speed(min(w for w, _ in counted), min(c for _, c in counted), sizes)


def aim(pace: Pace, training: TrainingState, config: TrainConfig, data: Data, process: Process) -> None:
    """Say at which step a training ends whose rates follow a budget of time: by the speed that is measured now.

    A training that goes on knows its speed; its end stays where it is unless the budget has changed.
    """
    by_time = config.fit.minutes is not None or config.fit.cpu_minutes is not None
    if not training.anneals or not by_time:
        pace.aim()
    elif training.step:
        cost = training.seconds / training.step, training.cpu_seconds / training.step
        if training.horizon.end is None or pace.moved(*cost) is not None:
            pace.aim(*cost)
    else:
        speed = probe(config, data, process)
        cost = torch.tensor([speed.wall, speed.cpu], device=process.device)
        process.average([cost])
        pace.aim(*cost.tolist())
        end = training.horizon.end or 0
        short = "; that is very few: give it more minutes, or a narrower net" if end < FEW else ""
        each = f"{cost[0]:.3g} s" if config.fit.cpu_minutes is None else f"{cost[1]:.3g} s of the processor"
        pace.say(
            f"{end:,} steps of {each} fit the budget{short}. By time two runs of one seed may differ: "
            f"--config RUN/config.yaml --steps N repeats one to the bit"
        )
