"""One loop for every objective: how do several players learn in turns, on any number of processes, and survive what
happens to computers?

    for each step:                                     samples  step*batch ... step*batch + batch - 1
        for each turn the objective yields:            (player, loss per sample)
            backward through this player only          the others are frozen during it
            average                                    ONE all-reduce: gradients, loss, votes to stop
            finite?  clip, step, EMA : skip            the same decision everywhere: it is taken on averaged numbers

A sample's place in the data, its flip and its noise are functions of (seed, its number in the whole training). So
nothing of the loader needs saving, a resumed run is bit-identical to an uninterrupted one, and W processes see what
one process would see. With accumulation one generator per micro-batch runs in lockstep, so a turn's graph is freed
before the next micro-batch builds its own.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from ..equation.noise import Noise
from ..models.settings.common import FitConfig
from ..models.settings.serialise import ConfigError
from ..objectives.base import Batch, Turn
from .distributed import Process, signals
from .memory import OutOfMemory, advice, hold_memory, out_of_memory
from .state import Outcome, TrainingState


class NonFinite(RuntimeError):
    """Too many steps gave infinite or undefined numbers. `batch` says which samples, for a file."""

    def __init__(self, message: str, batch: dict[str, Any]):
        super().__init__(message)
        self.batch = batch

    def __reduce__(self) -> tuple[type[NonFinite], tuple[str, dict[str, Any]]]:
        return type(self), (str(self), self.batch)  # so that it comes back whole from a worker process


class Interrupted(RuntimeError):
    """A signal stopped the training after a checkpoint was written; `code` is the exit status that signal asks for."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[Interrupted], tuple[str, int]]:
        return type(self), (str(self), self.code)


class Watch(Protocol):
    """What else happens between steps: log, checkpoint, sample grids."""

    def after(self, training: TrainingState, outcomes: list[Outcome]) -> None: ...


def fit(
    training: TrainingState,
    feed: Callable[[int, int], Batch],
    config: FitConfig,
    place: Process,
    watch: Watch | None = None,
    whole_batch: bool = False,
) -> int:
    """Train until `config.steps` or `config.minutes` (of the whole training), or until a process gets a signal. Returns
    the signal's number (SIGTERM where another process got it), else 0. `whole_batch`: the objective bears no
    micro-batches, so none are advised where memory runs out.

    Raises NonFinite after 3 skipped turns in a row or more than 1 % of them (of the first 300: more than 3),
    OutOfMemory with what to change, and ConfigError for a batch that does not divide.
    """
    share = config.accumulate * place.world
    if config.batch % share:
        raise ConfigError(
            f"fit.batch = {config.batch} must be a multiple of accumulate x processes = "
            f"{config.accumulate} x {place.world}"
        )
    micro, noise = config.batch // share, Noise(config.seed).fork("objective")
    before, begun = training.seconds, time.monotonic()
    limit = float("inf") if config.minutes is None else 60 * config.minutes
    if training.seconds >= limit:
        return 0
    if place.device.type == "cpu":
        hold_memory()
    with signals() as received:
        while config.steps is None or training.step < config.steps:
            first = training.step * config.batch + place.rank * micro * config.accumulate
            starts = range(first, first + micro * config.accumulate, micro)
            votes = (time.monotonic() - begun + before >= limit, len(received) > 0)
            outcomes: list[Outcome] = []
            try:
                batches = [feed(k, micro) for k in starts]
                steps = [training.objective.turns(b, noise.shift(k)) for b, k in zip(batches, starts, strict=True)]
                while (done := take_turn(steps, batches, training, config, place, votes)) is not None:
                    outcome, out_of_time, interrupted = done
                    outcomes.append(outcome)
            except (RuntimeError, MemoryError) as e:
                if not out_of_memory(e):
                    raise
                raise OutOfMemory(advice(micro, config, place, whole_batch)) from e
            training.step += 1
            training.seconds = before + time.monotonic() - begun
            if watch is not None:
                watch.after(training, outcomes)
            if interrupted:
                return received[0] if received else signal.SIGTERM
            if out_of_time:
                break
    return 0


def take_turn(
    steps: list[Iterator[Turn]],
    batches: list[Batch],
    training: TrainingState,
    config: FitConfig,
    place: Process,
    votes: tuple[bool, bool],
) -> tuple[Outcome, bool, bool] | None:
    """One player's turn over all micro-batches and processes: its outcome and whether anybody voted yes, for each of
    the two votes; None when the step is over.
    """
    losses: list[Tensor] = []
    logs: list[Tensor] = []
    turn: Turn | None = None
    for turns in steps:
        with torch.autocast(place.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            own = next(turns, None)
        if own is None:
            continue  # the others must end too: what follows their last turn (a pool moves on) is theirs to do
        turn = own
        player = training.players[turn.player]
        torch.autograd.backward(turn.loss.float().mean() / len(steps), inputs=player.parameters)
        losses.append(turn.loss.detach().float())
        entries = [losses[-1].mean(), *votes, *turn.log.values()]
        logs.append(torch.stack([torch.as_tensor(v, device=place.device).detach().float() for v in entries]))
    if turn is None:
        return None
    name, grads, numbers = turn.player, player.gradients(), torch.stack(logs).mean(0)
    place.average([*grads, numbers])
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    grad, loss, out_of_time, interrupted, *log = torch.cat([norm.view(1), numbers]).tolist()
    ok = math.isfinite(loss) and math.isfinite(grad)
    training.turns += 1
    if ok:
        player.step(norm)
        training.streak = 0
    else:
        training.skipped += 1
        training.streak += 1
    player.optimizer.zero_grad(set_to_none=True)
    if training.streak >= 3 or training.skipped > 0.01 * max(training.turns, 300):
        raise NonFinite(*complaint(training, name, loss, grad, batches, losses, place))
    lr = player.optimizer.param_groups[0]["lr"]
    return (
        Outcome(name, loss, grad, lr, not ok, dict(zip(turn.log, log, strict=True))),
        out_of_time > 0,
        interrupted > 0,
    )


def complaint(
    training: TrainingState,
    player: str,
    loss: float,
    grad: float,
    batches: list[Batch],
    losses: list[Tensor],
    place: Process,
) -> tuple[str, dict[str, Any]]:
    """The message of NonFinite, and the batch that caused the last skip: the samples of all processes, since the bad
    one may be anybody's.
    """
    own = zip(torch.cat([b.rows for b in batches]).tolist(), torch.cat(losses).tolist(), strict=True)
    samples = place.gather(list(own))
    batch = {
        "step": training.step,
        "player": player,
        "loss": str(loss),
        "gradient_norm": str(grad),
        "rows": [row for row, _ in samples],
        "rows_with_nonfinite_loss": [row for row, each in samples if not math.isfinite(each)],
    }
    skips = f"{training.streak} turns in a row and {training.skipped} of {training.turns} in all were skipped"
    message = (
        f"step {training.step}: the loss of {player!r} is {loss}, its gradient norm {grad}; {skips}, which is past the "
        "limit (3 in a row, or 1 %). The batch is written to nonfinite.json in the run directory. Look for broken "
        f"values in those rows of the data; else lower --{player}.lr or --{player}.clip, or use --fit.precision fp32"
    )
    return message, batch
