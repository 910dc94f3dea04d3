"""Settings fitted to a budget: what `train` takes for pictures where nobody names a preset, or one by model.

The ladder of nets of `presets.budget` is climbed: a few steps of each are timed here and thrown away, a denoiser's
first in both precisions, until the budget would not suffice for the next one. Games stay in full precision: what moves
their samples is a gradient or a small difference. Where the narrowest is too slow for them, the batch is halved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from ..data import Data
from ..models.base import TrainConfig, of_kind
from ..models.diffusion import ScoreConfig
from ..models.presets import budget, sized
from ..models.settings.serialise import replace as put
from ..training.distributed import Process, find_process
from ..training.speed_probe import Speed, probe

PRESET = "pictures"  # the one whose settings depend on budget and machine, and the scale of presets by model

Override = Callable[[TrainConfig], TrainConfig]
Rung = Callable[[str, budget.Machine], TrainConfig]


def fitted(
    start: TrainConfig,
    data: Data,
    override: Override = lambda config: config,
    device: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    preset: str = PRESET,
) -> budget.Choice:
    """The settings that fit pictures, machine and budget.

    Args:
        start: settings whose `data` and budget hold where the user says nothing.
        data: what is learned.
        override: puts what the user says into settings, the budget among it.
        device: where to compute; default: the best there is.
        say: where to tell what is being tried.
        preset: PRESET, or a preset by model.

    Returns:
        The settings, with what the user says, and the reasons for each choice, in words.
    """
    process, meta, wanted = find_process(device), data.meta(), override(start)
    channels, height, width = meta["shape"]
    pictures = budget.Pictures(len(data), (channels, height, width), len(data.classes or ()), meta["std"])
    limits = budget.Budget(wanted.fit.minutes, wanted.fit.cpu_minutes, wanted.fit.steps)

    def rung(name: str, machine: budget.Machine, batch: int | None = None) -> TrainConfig:
        config = (
            budget.settings(pictures, name, machine, batch)
            if preset == PRESET
            else sized.settings(preset, pictures, name, machine, batch)
        )
        fit = replace(
            config.fit, minutes=start.fit.minutes, cpu_minutes=None, steps=None, **budget.cadence(limits)
        )
        return override(put(config, {"data": start.data, "fit": fit}))

    if preset == PRESET:
        machine, costs, reasons = climbed(rung, limits, data, process, say)
        best = budget.widest(limits, {name: speed.cost for name, speed in costs.items()})
        config = of_kind(rung(best, machine), ScoreConfig)
        return budget.Choice(config, (*reasons, *budget.reasons(pictures, limits, config, costs[best].cost)))
    enough = wanted.least_steps
    machine, costs, _ = climbed(rung, limits, data, process, say, budget.PRECISIONS[:1], enough)
    best = budget.widest(limits, {name: speed.cost for name, speed in costs.items()}, enough)
    config, speed = rung(best, machine), costs[best]
    while not limits.by_steps and limits.steps_at(*speed.cost) < enough:
        smaller = rung(best, machine, config.fit.batch // 2)
        if smaller == config or smaller.fit.batch < sized.LEAST_BATCH:
            break
        config, speed = smaller, probe(smaller, data, process)
        say(f"tried {config.fit.batch} samples a step: {speed.wall:.3g} s a step")
    said = sized.reasons(pictures, limits, config, speed.cost, speed.parameters)
    return budget.Choice(
        config, (f"precision {config.fit.precision}", *said), sized.unfit(limits, config, speed.cost)
    )


def climbed(
    rung: Rung,
    limits: budget.Budget,
    data: Data,
    process: Process,
    say: Callable[[str], None],
    precisions: Sequence[Literal["fp32", "bf16"]] = budget.PRECISIONS,
    enough: int = budget.ENOUGH,
) -> tuple[budget.Machine, dict[str, Speed], list[str]]:
    """The machine, and the cost of a step of each net that is in reach.

    Args:
        rung: a name of the ladder and a machine to settings.
        limits: the budget.
        data: what is learned.
        process: where.
        say: where to tell what is being tried.
        precisions: what is tried.
        enough: steps that a wider net needs to be worth its cost.

    Returns:
        machine: with the faster precision.
        costs: of a step, by rung.
        reasons: what was measured, in words.
    """
    accelerator = process.device.type != "cpu"
    ladder = budget.rungs(budget.Machine(accelerator))
    first = budget.STEADY if limits.by_steps else ladder[0]
    tried: dict[Literal["fp32", "bf16"], Speed] = {
        p: probe(rung(first, budget.Machine(accelerator, p)), data, process) for p in precisions
    }
    fastest = min(tried, key=lambda p: tried[p].wall)
    gain = max(speed.wall for speed in tried.values()) / tried[fastest].wall
    machine, reasons = budget.Machine(accelerator, fastest), [f"precision {fastest}: {gain:.2g} times as fast here"]
    costs = {first: tried[fastest]}
    for name in () if limits.by_steps else ladder[1:]:
        last, speed = next(reversed(costs.items()))
        if limits.steps_at(*speed.cost) < enough:  # a wider one is slower still
            break
        config = rung(name, machine)
        if config == rung(last, machine):  # the user has chosen the net
            break
        costs[name] = speed = probe(config, data, process)
        say(f"tried a net of {sum(speed.parameters.values()):,} weights: {speed.wall:.3g} s a step")
    return machine, costs, reasons
