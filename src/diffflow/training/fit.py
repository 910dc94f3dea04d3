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
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import files
from ..console import Console, say, to_stderr
from ..data import Data
from ..noise import Noise
from ..objectives.objective import Batch, Turn
from . import checkpoint
from .config import ConfigError, FitConfig, TrainConfig, changed
from .draw import counter, painter
from .feed import Feed
from .folder import Folder, RunError, environment
from .lock import Lock, Locked, holder
from .place import OutOfMemory, Place, advice, find_place, hold_memory, out_of_memory, signals
from .players import Outcome, Training
from .record import Recorder
from .select import choose, part, start_weights


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

    def after(self, training: Training, outcomes: list[Outcome]) -> None: ...


def fit(
    training: Training,
    feed: Callable[[int, int], Batch],
    config: FitConfig,
    place: Place,
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
    training: Training,
    config: FitConfig,
    place: Place,
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
    training: Training,
    player: str,
    loss: float,
    grad: float,
    batches: list[Batch],
    losses: list[Tensor],
    place: Place,
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


def train(
    config: TrainConfig,
    run_dir: str | Path,
    *,
    resume: str | Path | None = None,
    init_from: str | Path | None = None,
    device: str | None = None,
    data: Data | None = None,
    console: Console | None = None,
) -> Path:
    """Train the players of `config` and write the run directory, which `diffflow.load` opens. Returns its path.

    resume     None: the directory must be new. "auto": go on from the newest checkpoint that verifies (or start, if
               there is none). A path: go on from that checkpoint
    init_from  start from the averaged weights of another run
    device     default: the best there is
    data       use this instead of loading `config.data`
    console    where progress goes (default: standard error)

    Steps and minutes count the whole training, so resuming a finished run with a larger budget extends it.

    Raises ConfigError, DataError, RunError, Locked, WriteError, CheckpointError, NonFinite, OutOfMemory, Interrupted:
    each message is fit for a user.
    """
    place, folder, console = find_place(device), Folder(Path(run_dir)), console or to_stderr()
    with Lock(folder.path) as lock:
        return _train(config, folder, place, lock, resume, init_from, data, console)


def _train(
    config: TrainConfig,
    folder: Folder,
    place: Place,
    lock: Lock,
    resume: str | Path | None,
    init_from: str | Path | None,
    data: Data | None,
    console: Console,
) -> Path:
    """`train`, in a directory that this process alone writes once it has taken the lock."""
    if config.fit.steps is None and config.fit.minutes is None:
        raise ConfigError("when to stop? give --steps or --minutes (fit.steps or fit.minutes)")
    if config.fit.holdout and not config.selects:
        raise ConfigError(
            f"fit.holdout = {config.fit.holdout}: the loss of this model, a game of several players or of changing "
            "targets, does not say which average is best; leave it at 0"
        )
    if config.whole_batch and place.world * config.fit.accumulate > 1:
        raise ConfigError(
            f"{config.whole_batch}: train it in one process with --fit.accumulate 1, not in {place.world} x "
            f"{config.fit.accumulate} parts"
        )
    if resume is None:
        refuse_existing(folder)
    if resume is not None and init_from is not None:
        raise ConfigError("--resume and --init-from exclude each other: a resumed run has its own weights")
    files.check_folder(folder.path, "the run directory")
    if place.rank == 0 and folder.path.is_dir():
        lock.take()
    going_on = (folder.path / "config.yaml").exists()
    if (
        not going_on
        and resume is not None
        and folder.path.is_dir()
        and set(folder.names()) - {"run.json", "checkpoints"}
    ):
        raise RunError(f"{folder.path} is not empty and holds no run to resume: choose another directory (--out)")
    if going_on and (differing := changed(folder.config(), config)):
        raise ConfigError(
            f"{folder.path} was trained with other settings: {', '.join(differing)} differ. Give the same ones, or "
            f"start a new run from its weights (--init-from {folder.path}; init_from in Python)"
        )
    saved = chosen(folder, resume, console)
    if data is None:
        if not config.data.source:
            raise ConfigError("data.source is empty: name a toy, 'digits', or a path to the data (--data.source)")
        data = config.data.load()
    part(data, config.fit.holdout)  # too few rows are refused before anything is written
    meta = data.meta()
    if going_on and (before := folder.about()["data"]["fingerprint"]) != meta["fingerprint"]:
        raise RunError(
            f"the data have changed since {folder.path} began (fingerprint {before[:12]}, now "
            f"{meta['fingerprint'][:12]}): restore them, or start a new run"
        )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.fit.seed)
        modules = {name: module.to(place.device) for name, module in config.build(meta).items()}
        objective = config.objective(modules, meta)
    if init_from is not None:
        start = start_weights(init_from)
        theirs = Folder(Path(init_from)).about()["data"]
        if config.needs_start and theirs["fingerprint"] != meta["fingerprint"]:
            raise RunError(
                f"{config.needs_start}, but {init_from} learned {theirs['name']} ({theirs['split']}, fingerprint "
                f"{theirs['fingerprint'][:12]}), and these data are {meta['name']} ({meta['split']}, fingerprint "
                f"{meta['fingerprint'][:12]}): give that run's data, or a run of these"
            )
        config.begin(objective, start, str(init_from))
    elif saved is None and config.needs_start:
        raise ConfigError(f"{config.needs_start}: name a run of it with --init-from RUN (init_from in Python)")
    training = Training(objective, config.players())
    if saved is not None:
        training.restore(saved)
    if config.fit.compile:
        for name, player in training.players.items():
            if name != "discriminator":
                player.module.compile()
            elif place.rank == 0:
                say(
                    console,
                    "The discriminator stays uncompiled: penalties of its gradient need second derivatives, which "
                    "torch.compile does not have.",
                )

    about = (folder.about() if going_on else {}) | {"finished": False}
    about |= environment() | {"data": meta, "device": str(place.device), "processes": place.world}
    about |= {"parameters": {n: sum(p.numel() for p in player.parameters) for n, player in training.players.items()}}
    place.wait()  # nobody may find the directory that the first process makes
    try:
        if place.rank == 0:
            folder.path.mkdir(parents=True, exist_ok=True)
            lock.take()
            if resume is None:
                refuse_existing(folder)  # another process may have been faster
            if init_from is not None:  # from now on these weights are the run's own, to which --resume auto goes back
                checkpoint.save(folder.checkpoints, 0, training.tensors(), training.state(), config.fit.keep)
            folder.write(config, about)
            folder.rewind(training.step)
            for line in checkpoint.set_aside(folder.checkpoints, training.step):
                say(console, line)
        return run(training, config, place, folder, data, console, about)
    except OSError as e:
        if e.errno not in files.FULL:
            raise
        said = e if isinstance(e, files.WriteError) else f"{folder.path}: {files.reason(folder.metrics, e)}"
        raise RunError(f"{said}. Then continue with --resume auto") from e


def refuse_existing(folder: Folder) -> None:
    """Raises Locked where a run is being written, RunError where anything else is in the way of a new one."""
    if not folder.path.exists() or (folder.path.is_dir() and not folder.names()):
        return
    if (who := holder(folder.path)) is not None and who.pid != os.getpid():
        raise Locked(f"{folder.path} is being trained by {who}: choose another directory (--out)")
    raise RunError(
        f"{folder.path} exists already: go on with the run in it (--resume auto), or choose another directory (--out)"
    )


def run(
    training: Training,
    config: TrainConfig,
    place: Place,
    folder: Folder,
    data: Data,
    console: Console,
    about: dict[str, Any],
) -> Path:
    """Fit, recording into `folder`, to the end of the budget."""
    main, (learned, aside) = place.rank == 0, part(data, config.fit.holdout)
    feed, kept = (
        None if d is None else Feed(d, config.fit.seed, place.device, config.data.dequantise) for d in (learned, aside)
    )
    assert feed is not None
    draw, judge = painter(training, config, data, place.device), counter(data)
    recorder = Recorder(folder, config.fit, draw, console, main, training.step, judge)
    try:
        received = fit(training, feed, config.fit, place, recorder, bool(config.whole_batch))
        recorder.save(training)
        place.wait()  # no process leaves, and is taken for dead, while the first one writes
        if received:
            raise Interrupted(
                f"signal {received} after step {training.step}: a checkpoint is written, go on with --resume auto",
                128 + received,
            )
        if main:
            recorder.finish(training)
            if kept is not None:
                best = choose(training, folder, kept, config.fit)
                recorder.say(
                    f"of the averages along the training that of step {best.step} (ema {best.ema:g}) has the least "
                    f"loss on the {len(kept.data)} rows kept aside, {best.loss:.4g} (the last one: {best.last:.4g}): "
                    "it is the model"
                )
            folder.write(config, about | {"finished": True})
    except NonFinite as e:
        if main:
            files.write_json(folder.path / "nonfinite.json", e.batch)
        raise
    finally:
        recorder.close()
    place.wait()
    return folder.path


def chosen(folder: Folder, resume: str | Path | None, console: Console) -> checkpoint.Checkpoint | None:
    """The checkpoint to go on from, or None to start."""
    if resume is None:
        return None
    if resume != "auto":
        path = Path(resume)
        if path.resolve().parent != folder.checkpoints.resolve():
            raise RunError(
                f"--resume {resume} is no checkpoint of {folder.path}: give one under {folder.checkpoints}, or auto; "
                "for another run's weights use --init-from RUN"
            )
        return checkpoint.load(path)
    found, skipped = checkpoint.latest(folder.checkpoints)
    for line in skipped:
        say(console, line)
    return None if found is None else checkpoint.load(found)
