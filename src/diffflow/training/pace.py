"""Pace: when the budget of a training is spent, and at which step that will be.

Budgets are steps, minutes of the clock, and minutes of the processor (all threads of this process). Where rates follow
the budget (`PlayerConfig.anneal`), a budget of time is turned into a number of steps before the first one, by steps
that were timed and thrown away. After every twentieth of the training it is looked at again: where the steps that are
left would take more than a tenth longer or shorter than the time that is left, the end is moved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from ..models.settings.common import FitConfig
from ..models.settings.serialise import ConfigError
from .distributed import Process
from .horizon import OVER
from .state import TrainingState

LOOKS = 20  # times in a training that its pace is looked at
TOLERANCE = 0.1  # of the time that is left


class Pace:
    """Clocks of a training, and its end.

    Args:
        config: the budget, of the whole training, resumed parts included.
        training: whose clocks go on.
        process: this process; all look at the same clocks.
        say: where a moved end is told.
        spare: share of a budget of time that is kept for what follows the last step.
    """

    def __init__(
        self,
        config: FitConfig,
        training: TrainingState,
        process: Process,
        say: Callable[[str], None] = lambda text: None,
        spare: float = 0.0,
    ):
        self.config, self.training, self.process, self.say = config, training, process, say
        self.limits = (
            math.inf if config.minutes is None else 60 * config.minutes * (1 - spare),
            math.inf if config.cpu_minutes is None else 60 * config.cpu_minutes * (1 - spare),
        )
        self.before = training.seconds, training.cpu_seconds
        self.begun = time.monotonic(), time.process_time()
        self.seen = [(training.step, *self.before)]  # clocks at earlier looks
        self.looked = training.horizon.share(training.step) if training.horizon.legs else 0.0

    def tick(self) -> None:
        """Let the clocks of the training go on."""
        now = time.monotonic(), time.process_time()
        self.training.seconds, self.training.cpu_seconds = (
            b + t - t0 for b, t, t0 in zip(self.before, now, self.begun, strict=True)
        )

    @property
    def spent(self) -> bool:
        """Whether a budget of time is spent."""
        now = time.monotonic(), time.process_time()
        used = (b + t - t0 for b, t, t0 in zip(self.before, now, self.begun, strict=True))
        return any(u >= limit for u, limit in zip(used, self.limits, strict=True))

    @property
    def goes_on(self) -> bool:
        """Whether there are steps to take."""
        ends = [end for end in (self.config.steps, self.training.horizon.end) if end is not None]
        return all(self.training.step < end for end in ends)

    def steps_left(self, wall: float, cpu: float) -> float:
        """Steps for which the budgets of time suffice.

        Args:
            wall: seconds of the clock for one.
            cpu: seconds of the processor for one.
        """
        used = self.training.seconds, self.training.cpu_seconds
        return min((limit - u) / max(each, 1e-9) for limit, u, each in zip(self.limits, used, (wall, cpu), strict=True))

    def aim(self, wall: float = math.inf, cpu: float = math.inf) -> None:
        """Say at which step the training is to end, where rates follow that and it is not known yet, or has moved.

        Args:
            wall: seconds of the clock for a step, as measured; not read where the budget is of steps alone.
            cpu: likewise of the processor.

        Raises:
            ConfigError: a budget of time alone, without a measured speed.
        """
        if not self.training.anneals:
            return
        horizon, step = self.training.horizon, self.training.step
        end = self.config.steps
        if any(limit < math.inf for limit in self.limits) and min(wall, cpu) < math.inf:
            by_time = step + max(1, int(self.steps_left(wall, cpu)))
            end = by_time if end is None else min(end, by_time)
        if end is None and horizon.end is None:
            raise ConfigError("the learning rate falls to zero at the end of the training: give fit.steps")
        if end is not None and end > step and end != horizon.end:
            horizon.aim(step, end, OVER)

    def moved(self, wall: float, cpu: float) -> int | None:
        """The end that the budgets of time now allow; None where it is about the one in sight, or nothing is left.

        Args:
            wall: seconds of the clock for a step.
            cpu: seconds of the processor for a step.
        """
        step, end = self.training.step, self.training.horizon.end or 0
        possible, planned = self.steps_left(wall, cpu), max(0, end - step)
        if abs(possible - planned) <= max(TOLERANCE * planned, 0.01 * end) or possible < 1:
            return None
        new = min(step + int(possible), math.inf if self.config.steps is None else self.config.steps)
        return None if new in (step, end) else int(new)

    def look(self) -> None:
        """Move the end where the pace has changed; after a step, in every process alike."""
        horizon, step = self.training.horizon, self.training.step
        if horizon.end is None or step >= horizon.end or all(limit == math.inf for limit in self.limits):
            return
        share = horizon.share(step)
        if int(LOOKS * share) == int(LOOKS * self.looked):
            return
        self.looked = share
        # of the latter half of what was done: grids and other people's load come and go within a twentieth
        half = (self.seen[0][0] + step) / 2
        since, wall, cpu = [seen for seen in self.seen if seen[0] <= half][-1]
        used = torch.tensor([self.training.seconds - wall, self.training.cpu_seconds - cpu], device=self.process.device)
        numbers = used / max(1, step - since)
        self.process.average([numbers])
        self.seen.append((step, self.training.seconds, self.training.cpu_seconds))
        end = self.moved(*numbers.tolist())
        if end is None:
            return
        self.say(
            f"step {step}: the speed has changed, {numbers[0]:.3g} s a step: the training ends at step {end:,}, not "
            f"{horizon.end:,}"
        )
        horizon.aim(step, end)
