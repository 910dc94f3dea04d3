"""Settings fitted to a budget: what `train` takes for pictures where nobody names a preset, or one by model.

The ladder of nets of `presets.budget` is climbed: a few steps of each are timed here and thrown away, a denoiser's
first in both precisions, until the budget would not suffice for the next one. Games stay in full precision: what moves
their samples is a gradient or a small difference. Where the narrowest is too slow for them, the batch is halved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from ..data import Data
from ..data.augment import augment_by_default
from ..data.readers.pixels import refuse_dim
from ..models.base import TrainConfig, of_kind
from ..models.diffusion import ScoreConfig
from ..models.presets import budget, sized
from ..models.settings.serialise import replace as put
from ..training.distributed import Process, find_process
from ..training.memory import OutOfMemory
from ..training.memory_plan import plan
from ..training.speed_probe import Speed, probe

TRYING = 0.05  # of a budget of time that may be spent on trying nets
SURE = 0.6  # of real ones a GAN's discriminator may be, before few pictures are changed (game.augment)
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
    refuse_dim(data.name, data.x.numpy())
    process, meta, wanted = find_process(device), data.meta(), override(start)
    channels, height, width = meta["shape"]
    pictures = budget.Pictures(len(data), (channels, height, width), len(data.classes or ()), meta["std"])
    limits = budget.Budget(wanted.fit.minutes, wanted.fit.cpu_minutes, wanted.fit.steps)
    begun = time.monotonic()

    def rung(name: str, machine: budget.Machine, augment: float = 0.0, batch: int | None = None) -> TrainConfig:
        more: dict[str, object] = {"data": start.data}
        if preset == PRESET:
            config: TrainConfig = budget.settings(pictures, name, machine, batch)
            more = {"data": replace(start.data, augment=augment)}
        else:
            config = sized.settings(preset, pictures, name, machine, batch)
            if augment and config.adapts:
                more["game.augment"] = SURE
        fit = replace(config.fit, minutes=start.fit.minutes, cpu_minutes=None, steps=None, **budget.cadence(limits))
        return override(put(config, more | {"fit": fit}))

    def augmented(steps: float, config: TrainConfig) -> tuple[float, str]:
        if data.space is not None:
            return 0.0, "no augmentation: latents cannot be turned"
        passes = steps * config.fit.batch / len(data)
        return augment_by_default(len(data), channels == 1, pictures.side <= 32, passes)

    if preset == PRESET:
        machine, costs, reasons = climbed(rung, limits, data, process, say)
        best = budget.widest(limits, {name: speed.cost for name, speed in costs.items()})
        augment, why = augmented(limits.steps_at(*costs[best].cost), rung(best, machine))
        config = of_kind(rung(best, machine, augment), ScoreConfig)
        if config.data.augment != augment:
            why = f"augmentation as you say, each kind with probability {config.data.augment:g}"
        lines = budget.reasons(pictures, limits, config, costs[best].cost)
        return budget.Choice(config, (*reasons, *lines, f"copies  {why}"))

    enough, batch = wanted.least_steps, None
    machine, costs, reasons = climbed(rung, limits, data, process, say, budget.PRECISIONS[:1], enough, 1)
    best = budget.widest(limits, {name: speed.cost for name, speed in costs.items()}, enough, 1)
    config, speed = rung(best, machine), costs[best]
    while not limits.by_steps and limits.steps_at(*speed.cost) < enough and in_time(begun, limits):
        smaller = rung(best, machine, batch=config.fit.batch // 2)
        if smaller == config or smaller.fit.batch < sized.LEAST_BATCH:
            break
        config, batch = smaller, smaller.fit.batch
        speed = probe(plan(smaller, meta, process).config, data, process)
        say(f"tried {batch} samples a step: {speed.wall:.3g} s a step")
    augment, why = augmented(limits.steps_at(*speed.cost), config)
    if not config.adapts:
        why = "no augmentation: this model would make changed pictures, too"
    config = rung(best, machine, augment, batch)
    lines = sized.reasons(pictures, limits, config, speed.cost, speed.parameters)
    return budget.Choice(config, (*reasons, *lines, f"copies  {why}"), sized.unfit(limits, config, speed.cost))


def in_time(begun: float, limits: budget.Budget) -> bool:
    """Whether there is time to try more, where trying began then."""
    return time.monotonic() - begun <= TRYING * 60 * limits.least


def climbed(
    rung: Rung,
    limits: budget.Budget,
    data: Data,
    process: Process,
    say: Callable[[str], None],
    precisions: Sequence[Literal["fp32", "bf16"]] = budget.PRECISIONS,
    enough: int = budget.ENOUGH,
    growth: int = budget.GROWTH,
) -> tuple[budget.Machine, dict[str, Speed], list[str]]:
    """The machine, and the cost of a step of each net that is in reach.

    Args:
        rung: a name of the ladder and a machine to settings.
        limits: the budget.
        data: what is learned.
        process: where.
        say: where to tell what is being tried.
        precisions: what is tried.
        enough: steps that the second net of the ladder needs to be worth its cost (`budget.needed`).
        growth: how many times as many each further one needs.

    Returns:
        machine: with the faster precision.
        costs: of a step, by rung.
        reasons: what was measured, in words.
    """
    begun, accelerator = time.monotonic(), process.device.type != "cpu"
    ladder = budget.rungs(budget.Machine(accelerator))
    first = budget.STEADY if limits.by_steps else ladder[0]
    if limits.by_steps:  # such settings must be the same whatever the machine is doing now
        precisions = precisions[-1:] if accelerator else precisions[:1]
    meta = data.meta()
    tried: dict[Literal["fp32", "bf16"], Speed] = {
        p: probe(plan(rung(first, budget.Machine(accelerator, p)), meta, process).config, data, process)
        for p in precisions
    }
    fastest = min(precisions, key=lambda p: tried[p].wall)
    gain = max(speed.wall for speed in tried.values()) / tried[fastest].wall
    machine = budget.Machine(accelerator, fastest)
    reasons = [f"{fastest}    {gain:.2g} times as fast here as the other precision"] if len(tried) > 1 else []
    if limits.by_steps:
        reasons.append(f"{fastest}    and one net: a budget of steps has the same settings on every machine")
    costs = {first: tried[fastest]}
    for name in () if limits.by_steps else ladder[1:]:
        last, speed = next(reversed(costs.items()))
        if limits.steps_at(*speed.cost) < budget.needed(len(costs), enough, growth):  # a wider one is slower still
            break
        if not in_time(begun, limits):
            reasons.append("time    no wider net was tried: the budget is short")
            break
        config = rung(name, machine)
        if config == rung(last, machine):  # the user has chosen the net
            break
        try:
            speed = probe(plan(config, meta, process).config, data, process)
        except OutOfMemory as error:
            reasons.append(f"memory  no wider net: {error}")
            break
        costs[name] = speed
        say(f"tried a net of {sum(speed.parameters.values()):,} weights: {speed.wall:.3g} s a step")
    return machine, costs, reasons
