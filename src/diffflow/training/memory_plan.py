"""Memory is asked before anything is made: settings that fit into it, or a refusal that says what would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ..models.base import TrainConfig
from ..models.settings.common import DataConfig, FitConfig, PlayerConfig
from ..models.settings.serialise import ConfigError, flat, replace, to_dict
from .distributed import Process
from .memory import Limit, OutOfMemory, gibibytes, limit, resident
from .memory_estimate import Estimate, estimate
from .run_folder import Folder

SHARE = 0.6  # of the limit that a training may take
PICTURES = {"vector": 512}  # samples of a preview grid, by kind of the data
GRID = 40  # and of all others
# measured (benchmarks/training/memory.py): what a process takes for each byte of a step that lives, since freed blocks
# of other sizes lie between; in bf16 more, for oneDNN's copies
_SPREAD = {"fp32": 1.3, "bf16": 1.6}
_LIBRARIES = 60 << 20  # code and tables that are loaded with the first step
_SMALLEST = 16  # examples of which a field is still made, where a batch must stay whole
_EVIDENT = 1 << 20, 256  # bytes for each number of a batch, more than networks take of which no size is larger


@dataclass(frozen=True)
class MemoryPlan:
    """Settings whose training fits into memory.

    Args:
        config: the settings, with smaller parts of a batch where that was needed.
        sentence: what was changed and why; None: nothing.
        at_once: samples of a preview grid that are drawn at a time; None: all.
        bytes: what the process takes at its peak; None where that is evidently little, or not known.
        bound: what it may have; None where nothing says it.
        changed: the settings that were asked for and those that were taken, by dotted name.
    """

    config: TrainConfig
    sentence: str | None = None
    at_once: int | None = None
    bytes: float | None = None
    bound: Limit | None = None
    changed: Mapping[str, tuple[int, int]] | None = None


def fitted(config: TrainConfig, meta: Mapping[str, Any], process: Process) -> tuple[TrainConfig, str | None]:
    """The settings of a training that fits into memory, and a sentence about what was changed.

    Args:
        config: the settings that are asked for.
        meta: describes the data.
        process: this process and its device.

    Raises:
        OutOfMemory: nothing fits; the message says what would.
    """
    found = plan(config, meta, process)
    return found.config, found.sentence


def plan(
    config: TrainConfig,
    meta: Mapping[str, Any],
    process: Process,
    bound: Limit | None = None,
    keep_batch: bool = False,
) -> MemoryPlan:
    """Plan a training that takes no more than a share of the memory that there is, before anything of it is made.

    More micro-batches come first: they change nothing but the time. Where a batch must stay whole, it is halved.

    Args:
        config: the settings that are asked for.
        meta: describes the data.
        process: this process and its device; all processes decide alike.
        bound: the memory that this process may have; None: as the system says.
        keep_batch: never change the batch: the run has begun.

    Raises:
        OutOfMemory: nothing fits; the message says what would.
    """
    bound = bound or limit(process.device)
    if bound is None:
        return MemoryPlan(config)
    room = SHARE * bound.bytes / (process.world if process.device.type == "cpu" else 1)
    if _evident(config, meta, room) or (guess := estimate(config, meta)) is None:
        return MemoryPlan(config, bound=bound)
    taken = _Taken(guess, config.fit, process, resident() if process.device.type == "cpu" else 0.0)
    accumulate, batch = _fitting(config, taken, room, process.world, keep_batch)
    choices = process.gather([(accumulate, batch)])
    if any(None in choice for choice in choices):
        raise OutOfMemory(_refusal(config, meta, taken, room, bound, process))
    accumulate, batch = max(a for a, _ in choices), min(b for _, b in choices)
    changes = {
        key: (asked, took)
        for key, asked, took in (
            ("fit.accumulate", config.fit.accumulate, accumulate),
            ("fit.batch", config.fit.batch, batch),
        )
        if asked != took
    }
    new = replace(config, {key: took for key, (_, took) in changes.items()}) if changes else config
    grid = PICTURES.get(meta["kind"], GRID)
    pieces = next((n for n in _halves(grid) if taken.by_grid(n) <= room), 1)
    peak = max(taken.by_step(batch, accumulate), taken.by_grid(pieces))
    sentence = _sentence(config, meta, taken, room, bound, changes, accumulate, batch) if changes else None
    return MemoryPlan(new, sentence, None if pieces == grid else pieces, peak, bound, changes or None)


def as_begun(config: TrainConfig, folder: Folder) -> TrainConfig:
    """The settings with what the run in the folder took, for want of memory, in place of what was asked for as now."""
    taken = folder.about().get("fitted", {}) if folder.begun else {}
    present = flat(to_dict(config))
    return replace(config, {key: took for key, (wanted, took) in taken.items() if present.get(key) == wanted})


def asked(folder: Folder, memory: MemoryPlan) -> dict[str, Any]:
    """What run.json says of settings that were changed for want of memory, by name: what was asked for, and taken."""
    before = folder.about().get("fitted", {}) if folder.begun else {}
    now = {key: [before.get(key, values)[0], values[1]] for key, values in (memory.changed or {}).items()}
    return {"fitted": before | now} if before or now else {}


@dataclass(frozen=True)
class _Taken:
    """Bytes that a process takes, by what it does."""

    guess: Estimate
    fit: FitConfig
    process: Process
    before: float

    def by_step(self, batch: int, accumulate: int) -> float:
        """At the peak of a step."""
        return self._of(self.guess.of_step(max(1, batch // (accumulate * self.process.world)), accumulate))

    def by_grid(self, n: int) -> float:
        """At the peak of drawing n samples at a time."""
        return self._of(self.guess.of_grid(n))

    def _of(self, live: float) -> float:
        state = self.guess.of_step(0)  # weights, averages, moments and gradients: blocks that stay
        return self.before + _LIBRARIES + state + _SPREAD[self.fit.precision] * max(0.0, live - state)


def peak(guess: Estimate, config: TrainConfig, process: Process) -> float:
    """Bytes that this process takes at the peak of a step, with those that it has."""
    before = resident() if process.device.type == "cpu" else 0.0
    return _Taken(guess, config.fit, process, before).by_step(config.fit.batch, config.fit.accumulate)


def _evident(config: TrainConfig, meta: Mapping[str, Any], room: float) -> bool:
    """Whether a training is so small that it fits, whatever its networks are."""
    numbers = config.fit.batch
    for side in meta["shape"]:
        numbers *= side
    each, widest = _EVIDENT
    return resident() + each * numbers <= room and _largest(config) <= widest


def _largest(value: Any) -> int:
    """The largest whole number in settings, those of the data and the training left out."""
    if isinstance(value, DataConfig | FitConfig | PlayerConfig):
        return 0
    if is_dataclass(value):
        return max((_largest(getattr(value, f.name)) for f in fields(value)), default=0)
    if isinstance(value, tuple | list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int) else 0


def _halves(n: int) -> list[int]:
    return [n] if n == 1 else [n, *_halves(n // 2)]


def _fitting(
    config: TrainConfig, taken: _Taken, room: float, world: int, keep_batch: bool
) -> tuple[int, int] | tuple[None, None]:
    """The fewest micro-batches and the largest batch that fit; two Nones where none does."""
    batch, before = config.fit.batch, config.fit.accumulate
    if config.whole_batch:
        sizes = [batch] if keep_batch else [b for b in _halves(batch) if b == batch or b >= _SMALLEST]
        return next(((before, b) for b in sizes if taken.by_step(b, before) <= room), (None, None))
    shares = [k for k in range(before, batch + 1) if batch % (k * world) == 0]
    return next(((k, batch) for k in shares if taken.by_step(batch, k) <= room), (None, None))


def _shape(meta: Mapping[str, Any]) -> str:
    return "x".join(map(str, meta["shape"]))


def _may(room: float, bound: Limit, process: Process) -> str:
    share = f" for each of {process.world} processes" if process.world > 1 and process.device.type == "cpu" else ""
    return f"{gibibytes(room)} may be used{share} ({SHARE:g} of the {gibibytes(bound.bytes)} that {bound.what})"


def _sentence(
    config: TrainConfig,
    meta: Mapping[str, Any],
    taken: _Taken,
    room: float,
    bound: Limit,
    changes: Mapping[str, tuple[int, int]],
    accumulate: int,
    batch: int,
) -> str:
    """What was changed and why."""
    asked, micro = config.fit.batch, batch // (accumulate * taken.process.world)
    needs = taken.by_step(asked, config.fit.accumulate)
    took = (
        f"a step of {asked} is computed {micro} examples at a time, the same result (fit.accumulate = {accumulate})"
        if "fit.batch" not in changes
        else f"a step is of {batch} examples in place of {asked} (fit.batch = {batch}): here a batch must stay whole "
        f"({config.whole_batch})"
    )
    return (
        f"a batch of {asked} of {_shape(meta)} needs {gibibytes(needs)}, and {_may(room, bound, taken.process)}: "
        f"{took}, in {gibibytes(taken.by_step(batch, accumulate))}"
    )


def _refusal(
    config: TrainConfig, meta: Mapping[str, Any], taken: _Taken, room: float, bound: Limit, process: Process
) -> str:
    """What is needed, what there is, and what would fit."""
    least = _SMALLEST if config.whole_batch else 1
    smallest = taken.by_step(least * process.world, 1)
    how = f"{least} examples" if least > 1 else "one example at a time"
    narrower = _narrower(config, meta, room, process, least)
    smaller = ", or smaller pictures (--data.size)" if meta["kind"] == "image" and "latent" not in meta else ""
    return (
        f"the training needs {gibibytes(taken.by_step(config.fit.batch, config.fit.accumulate))} with a batch of "
        f"{config.fit.batch} of {_shape(meta)}; {_may(room, bound, process)}; even {how} needs {gibibytes(smallest)}: "
        f"take a narrower net{narrower}{smaller}"
    )


def _narrower(config: TrainConfig, meta: Mapping[str, Any], room: float, process: Process, least: int) -> str:
    """Flags of widths that fit, halved as often as needed; what may be tried, where none are known."""
    widths = {k: v for k, v in flat(to_dict(config)).items() if k.rpartition(".")[2] in ("widths", "width")}
    for times in (1, 2, 3):
        changes = {k: _divided(v, 2**times) for k, v in widths.items()}
        try:
            new = replace(config, changes)
        except ConfigError:
            break
        guess = estimate(new, meta) if changes else None
        if guess is None:
            break
        before = resident() if process.device.type == "cpu" else 0.0
        if _Taken(guess, new.fit, process, before).by_step(least * process.world, 1) <= room:
            return "".join(f" --{k} {' '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in changes.items())
    return f" ({', '.join(f'--{k}' for k in widths)})" if widths else ""


def _divided(value: Any, by: int) -> Any:
    """A width, or several, so many times narrower, as a multiple of 32 (8 below)."""
    if isinstance(value, list | tuple):
        return [_divided(v, by) for v in value]
    unit = 32 if value // by >= 32 else 8
    return max(unit, value // by // unit * unit)
