"""Settings fitted to a budget: what `train` takes for pictures where nobody names a preset.

The ladder of nets of `presets.budget` is climbed: a few steps of each are timed here and thrown away, the first in both
precisions, until the budget would not suffice for the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from ..data import Data
from ..data.augment import augment_by_default
from ..data.readers.pixels import refuse_dim
from ..models.diffusion import ScoreConfig
from ..models.presets import budget
from ..training.distributed import Process, find_process
from ..training.memory import OutOfMemory
from ..training.memory_plan import plan
from ..training.speed_probe import probe

TRYING = 0.05  # of a budget of time that may be spent on trying nets
PRESET = "pictures"  # the one whose settings depend on budget and machine

Override = Callable[[ScoreConfig], ScoreConfig]


def fitted(
    start: ScoreConfig,
    data: Data,
    override: Override = lambda config: config,
    device: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> budget.Choice:
    """The settings that fit pictures, machine and budget.

    Args:
        start: settings whose `data` and budget hold where the user says nothing.
        data: what is learned.
        override: puts what the user says into settings, the budget among it.
        device: where to compute; default: the best there is.
        say: where to tell what is being tried.

    Returns:
        The settings, with what the user says, and the reasons for each choice, in words.
    """
    refuse_dim(data.name, data.x.numpy())
    process, meta, wanted = find_process(device), data.meta(), override(start)
    channels, height, width = meta["shape"]
    pictures = budget.Pictures(len(data), (channels, height, width), len(data.classes or ()), meta["std"])
    limits = budget.Budget(wanted.fit.minutes, wanted.fit.cpu_minutes, wanted.fit.steps)

    def rung(name: str, machine: budget.Machine, augment: float = 0.0) -> ScoreConfig:
        config = budget.settings(pictures, name, machine)
        fit = replace(
            config.fit, minutes=start.fit.minutes, cpu_minutes=None, steps=None, **budget.cadence(limits)
        )
        return override(replace(config, data=replace(start.data, augment=augment), fit=fit))

    machine, costs, reasons = climbed(rung, limits, data, process, say)
    best = budget.widest(limits, costs)
    passes = limits.steps_at(*costs[best]) * rung(best, machine).fit.batch / len(data)
    augment, why = augment_by_default(len(data), channels == 1, pictures.side <= 32, passes)
    config = rung(best, machine, augment)
    if config.data.augment != augment:
        why = f"augmentation as you say, each kind with probability {config.data.augment:g}"
    lines = budget.reasons(pictures, limits, config, costs[best])
    return budget.Choice(config, (*reasons, *lines, f"copies  {why}"))


def climbed(
    rung: Callable[[str, budget.Machine], ScoreConfig],
    limits: budget.Budget,
    data: Data,
    process: Process,
    say: Callable[[str], None],
) -> tuple[budget.Machine, dict[str, tuple[float, float]], list[str]]:
    """The machine, and the cost of a step of each net that is in reach.

    Args:
        rung: a name of the ladder and a machine to settings.
        limits: the budget.
        data: what is learned.
        process: where.
        say: where to tell what is being tried.

    Returns:
        machine: with the faster precision.
        costs: seconds of the clock and of the processor for a step, by rung.
        reasons: what was measured, in words.
    """
    begun, accelerator = time.monotonic(), process.device.type != "cpu"
    ladder = budget.rungs(budget.Machine(accelerator))
    first = budget.STEADY if limits.by_steps else ladder[0]
    meta = data.meta()
    tried = {
        p: probe(plan(rung(first, budget.Machine(accelerator, p)), meta, process).config, data, process)
        for p in budget.PRECISIONS
    }
    fastest = min(budget.PRECISIONS, key=lambda p: tried[p].wall)
    gain = max(speed.wall for speed in tried.values()) / tried[fastest].wall
    machine = budget.Machine(accelerator, fastest)
    reasons = [f"{fastest}    {gain:.2g} times as fast here as the other precision"]
    costs = {first: (tried[fastest].wall, tried[fastest].cpu)}
    for name in () if limits.by_steps else ladder[1:]:
        last = next(reversed(costs))
        if limits.steps_at(*costs[last]) < budget.ENOUGH:  # a wider one is slower still
            break
        if time.monotonic() - begun > TRYING * 60 * limits.least:
            reasons.append("time    no wider net was tried: the budget is short")
            break
        config = rung(name, machine)
        if config.model.net == rung(last, machine).model.net:  # the user has chosen the net
            break
        try:
            speed = probe(plan(config, meta, process).config, data, process)
        except OutOfMemory as error:
            reasons.append(f"memory  no wider net: {error}")
            break
        costs[name] = speed.wall, speed.cpu
        say(f"tried a net of {sum(speed.parameters.values()):,} weights: {speed.wall:.3g} s a step")
    return machine, costs, reasons
