"""The training loop, one for every objective: players take gradient steps in turns, on any number of processes.

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
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..equation.noise import Noise
from ..models.settings.common import FitConfig
from ..models.settings.serialise import ConfigError
from ..objectives.base import Batch, Turn
from .distributed import Process, collected_signals
from .memory import OutOfMemory, advice, hold_memory, out_of_memory
from .pace import Pace
from .state import Outcome, TrainingState


class NonFinite(RuntimeError):
    """Too many steps gave infinite or undefined numbers.

    Args:
        message: fit for a user.
        batch: which samples were in the last skipped step, for a file.
    """

    def __init__(self, message: str, batch: dict[str, Any]):
        super().__init__(message)
        self.batch = batch

    def __reduce__(self) -> tuple[type[NonFinite], tuple[str, dict[str, Any]]]:
        return type(self), (str(self), self.batch)  # so that it comes back whole from a worker process


class Interrupted(RuntimeError):
    """A signal stopped the training after a checkpoint was written.

    Args:
        message: fit for a user.
        code: the exit status that the signal asks for.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[Interrupted], tuple[str, int]]:
        return type(self), (str(self), self.code)


class Votes(NamedTuple):
    """Reasons to stop: what this process votes for, and after the all-reduce what any process has voted for."""

    out_of_time: bool
    interrupted: bool


class StepObserver(Protocol):
    """What else happens between steps: log, checkpoint, sample grids."""

    def after(self, training: TrainingState, outcomes: list[Outcome]) -> bool | None:
        """Called after every step with the outcomes of its turns; True stops the training."""
        ...


def fit(
    training: TrainingState,
    batches: Callable[[int, int], Batch],
    config: FitConfig,
    process: Process,
    observer: StepObserver | None = None,
    whole_batch: bool = False,
    pace: Pace | None = None,
) -> int:
    """Train until the budget is spent, the observer stops it, or a process gets a signal.

    Args:
        training: players, objective and counters; all of it changes.
        batches: (first, n) -> samples first ... first + n - 1 of the whole training.
        config: `steps`, `minutes` and `cpu_minutes` are those of the whole training, resumed parts included.
        process: this process and its device.
        observer: called after every step.
        whole_batch: the objective bears no micro-batches, so none are advised where memory runs out.
        pace: the clocks, already aimed at an end; None: those of `config`.

    Returns:
        The signal's number (SIGTERM where another process got it), else 0.

    Raises:
        NonFinite: 3 skipped turns in a row, or more than 1 % of them (of the first 300: more than 3).
        OutOfMemory: with what to change.
        ConfigError: a batch that does not divide, or rates that follow a budget of time that nobody turned into steps.
    """
    share = config.accumulate * process.world
    if config.batch % share:
        raise ConfigError(
            f"fit.batch = {config.batch} must be a multiple of accumulate x processes = "
            f"{config.accumulate} x {process.world}"
        )
    micro = config.batch // share
    noise = Noise(config.seed).fork("objective")
    if pace is None:
        pace = Pace(config, training, process)
        pace.aim()
    if pace.spent and training.step:  # a budget too short for anything is one step: without any there is no model
        return 0
    if process.device.type == "cpu":
        hold_memory()
    devices = [process.device] if process.device.type == "cuda" else []
    stopped = False
    with collected_signals() as received, torch.random.fork_rng(devices):
        while pace.goes_on:
            votes = Votes(stopped or pace.spent, len(received) > 0)
            # what draws from torch's own generator (dropout) draws the same in a resumed run
            torch.manual_seed(noise.fork("torch", training.step, process.rank).seed)
            try:
                outcomes, votes = take_step(training, batches, micro, noise, config, process, votes)
            except (RuntimeError, MemoryError) as e:
                if not out_of_memory(e):
                    raise
                raise OutOfMemory(advice(micro, config, process, whole_batch)) from e
            training.step += 1
            pace.tick()
            if observer is not None:
                stopped = observer.after(training, outcomes) is True
            pace.look()
            if votes.interrupted:
                return received[0] if received else signal.SIGTERM
            if votes.out_of_time or (stopped and process.world == 1):  # the others learn of it in the next step
                break
    return 0


def take_step(
    training: TrainingState,
    batches: Callable[[int, int], Batch],
    micro: int,
    noise: Noise,
    config: FitConfig,
    process: Process,
    votes: Votes,
) -> tuple[list[Outcome], Votes]:
    """One step, all turns that the objective yields: their outcomes, and what any process has voted for.

    Micro-batches of `micro` samples run in lockstep, one generator of turns each.
    """
    first = training.step * config.batch + process.rank * micro * config.accumulate
    starts = range(first, first + micro * config.accumulate, micro)
    parts = [batches(k, micro) for k in starts]
    turns = [training.objective.turns(part, noise.shift(k)) for part, k in zip(parts, starts, strict=True)]
    outcomes: list[Outcome] = []
    decided = votes
    while (result := take_turn(turns, parts, training, config, process, votes)) is not None:
        outcome, decided = result
        outcomes.append(outcome)
    return outcomes, decided


def take_turn(
    turns: list[Iterator[Turn]],
    parts: list[Batch],
    training: TrainingState,
    config: FitConfig,
    process: Process,
    votes: Votes,
) -> tuple[Outcome, Votes] | None:
    """One player's turn over all micro-batches and processes: its outcome, and what any process has voted for.

    None when the step is over.
    """
    losses: list[Tensor] = []
    logs: list[Tensor] = []
    turn: Turn | None = None
    for part in turns:
        with torch.autocast(process.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            following = next(part, None)
        if following is None:
            continue  # the others must end too: what follows their last turn (a pool moves on) is theirs to do
        turn = following
        player = training.players[turn.player]
        torch.autograd.backward(turn.loss.float().mean() / len(turns), inputs=player.parameters)
        losses.append(turn.loss.detach().float())
        entries = [losses[-1].mean(), *votes, *turn.log.values()]
        logs.append(torch.stack([torch.as_tensor(v, device=process.device).detach().float() for v in entries]))
    if turn is None:
        return None
    player = training.players[turn.player]
    grads, numbers = player.gradients(), torch.stack(logs).mean(0)
    process.average([*grads, numbers])
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    grad, loss, out_of_time, interrupted, *log = torch.cat([norm.view(1), numbers]).tolist()
    finite = math.isfinite(loss) and math.isfinite(grad)
    training.turns += 1
    if finite:
        player.step(norm, training.share(player))
        training.streak = 0
    else:
        training.skipped += 1
        training.streak += 1
    player.optimizer.zero_grad(set_to_none=True)
    if training.streak >= 3 or training.skipped > 0.01 * max(training.turns, 300):
        raise NonFinite(*complaint(training, turn.player, loss, grad, parts, losses, process))
    lr = float(player.optimizer.param_groups[0]["lr"])
    outcome = Outcome(turn.player, loss, grad, lr, not finite, dict(zip(turn.log, log, strict=True)))
    return outcome, Votes(out_of_time > 0, interrupted > 0)


def complaint(
    training: TrainingState,
    player: str,
    loss: float,
    grad: float,
    parts: list[Batch],
    losses: list[Tensor],
    process: Process,
) -> tuple[str, dict[str, Any]]:
    """The message of NonFinite, and the batch that caused the last skip.

    It holds the samples of all processes, since the bad one may be anybody's.
    """
    mine = zip(torch.cat([part.rows for part in parts]).tolist(), torch.cat(losses).tolist(), strict=True)
    samples = process.gather(list(mine))
    batch = {
        "step": training.step,
        "player": player,
        "loss": str(loss),
        "gradient_norm": str(grad),
        "rows": [row for row, _ in samples],
        "rows_with_nonfinite_loss": [row for row, sample_loss in samples if not math.isfinite(sample_loss)],
    }
    skips = f"{training.streak} turns in a row and {training.skipped} of {training.turns} in all were skipped"
    message = (
        f"step {training.step}: the loss of {player!r} is {loss}, its gradient norm {grad}; {skips}, which is past the "
        "limit (3 in a row, or 1 %). The batch is written to nonfinite.json in the run directory. Look for broken "
        f"values in those rows of the data; else lower --{player}.lr or --{player}.clip, or use --fit.precision fp32"
    )
    return message, batch
