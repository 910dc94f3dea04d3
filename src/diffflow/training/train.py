"""Training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from .. import files
from ..console import Console, say, to_stderr
from ..data import Data
from ..equation.algebra import gradients
from ..models.base import TrainConfig
from ..models.settings.serialise import ConfigError, changed, check_round_trip
from . import checkpoint
from .batches import Batches
from .distributed import Process, find_process
from .early_stopping import choose, holdout_split
from .lock import Lock, Locked, holder
from .loop import Interrupted, NonFinite, fit
from .previews import counter, painter
from .recorder import Recorder
from .run_folder import Folder, RunError, environment
from .state import TrainingState
from .weights import start_weights


@gradients()
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
    place, folder, console = find_process(device), Folder(Path(run_dir)), console or to_stderr()
    with Lock(folder.path) as lock:
        return _train(config, folder, place, lock, resume, init_from, data, console)


def _train(
    config: TrainConfig,
    folder: Folder,
    place: Process,
    lock: Lock,
    resume: str | Path | None,
    init_from: str | Path | None,
    data: Data | None,
    console: Console,
) -> Path:
    """`train`, in a directory that this process alone writes once it has taken the lock."""
    if config.fit.steps is None and config.fit.minutes is None:
        raise ConfigError("when to stop? give --steps or --minutes (fit.steps or fit.minutes)")
    check_round_trip(config)
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
        if not config.data.source and going_on:
            raise ConfigError(
                f"{folder.path} was trained on data from Python: go on there, df.train(data, {str(folder.path)!r}, "
                "resume=True), or say where the same data are (diffflow train SOURCE --resume auto --out RUN)"
            )
        if not config.data.source:
            raise ConfigError("data.source is empty: name a toy, 'digits', or a path to the data (--data.source)")
        data = config.data.load()
    holdout_split(data, config.fit.holdout)  # too few rows are refused before anything is written
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
    training = TrainingState(objective, config.players())
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
    training: TrainingState,
    config: TrainConfig,
    place: Process,
    folder: Folder,
    data: Data,
    console: Console,
    about: dict[str, Any],
) -> Path:
    """Fit, recording into `folder`, to the end of the budget."""
    main, (learned, aside) = place.rank == 0, holdout_split(data, config.fit.holdout)
    feed, kept = (
        None if d is None else Batches(d, config.fit.seed, place.device, config.data.dequantise)
        for d in (learned, aside)
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
