"""Training: settings in, a run directory out, which `diffflow.load` opens.

`train` reads as its own table of contents: refuse what cannot work, find the checkpoint to go on from, load the data,
assemble the players, prepare the directory, fit. Nothing is written before everything that can be refused was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from .. import files
from ..console import Console, say, to_stderr
from ..data import Data
from ..data.coder import same_space
from ..data.conditions import from_meta, named
from ..data.readers.pixels import refuse_dim
from ..equation.algebra import gradients
from ..models.base import TrainConfig
from ..models.settings.serialise import ConfigError, changed, check_round_trip, flat, to_dict
from ..objectives.base import Objective
from . import checkpoint
from .batches import Batches, refuse_augmentation, refuse_cells, training_batches
from .distributed import Process, find_process
from .early_stopping import Patience, choose, holdout_split
from .hooks import Hooks, say_unused
from .lock import Lock, Locked, holder
from .loop import Interrupted, NonFinite, fit
from .memory_plan import as_begun, asked, plan
from .own_nets import check_own_nets
from .pace import Pace
from .preparation import prepare
from .previews import grid_sampler, mode_counter
from .recorder import Recorder
from .run_folder import Folder, RunError, environment
from .speed_probe import aim
from .state import TrainingState
from .trackers import Trackers
from .weights import start_weights

SPARE = 0.06  # of a budget of time, for what follows the last step, where the last step is known before
EXAMPLES = 256  # rows of the training data's conditions that a run keeps


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
    hooks: Hooks | None = None,
) -> Path:
    """Train the players of `config` and write the run directory, which `diffflow.load` opens.

    Steps and minutes count the whole training, so resuming a finished run with a larger budget extends it.

    Args:
        config: all settings of the training.
        run_dir: directory to write.
        resume: None: the directory must be new. "auto": go on from the newest checkpoint that verifies (or start, if
            there is none). A path: go on from that checkpoint.
        init_from: run directory whose averaged weights the training starts from.
        device: where to compute, such as "cuda:1"; default: the best there is.
        data: use this instead of loading `config.data`.
        console: where progress goes; default: standard error.
        hooks: code of the caller's that takes part: optimizer, learning rate, callbacks, trackers.

    Returns:
        The path of the run directory.

    Raises:
        ConfigError: settings that cannot be meant, contradict each other, or differ from those of the run.
        DataError: data that are not there or cannot be read.
        RunError: a directory that is in the way, of other data, or on a full disk.
        Locked: a directory that another process is training.
        WriteError: a directory that cannot be written.
        CheckpointError: no usable checkpoint, or one that could not be written.
        NonFinite: too many losses or gradients that are not finite.
        OutOfMemory: a device whose memory is too small; the message says what to change.
        Interrupted: a signal, after a checkpoint was written.
    """
    process, folder = find_process(device), Folder(Path(run_dir))
    console, hooks = console or to_stderr(), hooks or Hooks()
    with Lock(folder.path) as lock:
        refuse_settings(config, process)
        refuse_directory(folder, resume, init_from)
        config = as_begun(config, folder)
        if process.rank == 0 and folder.path.is_dir():
            lock.take()
        refuse_other_run(folder, config, resume)
        hooks.refuse_other(folder)
        saved = checkpoint_to_resume(folder, resume, console)
        data = load_data(config, folder) if data is None else data
        refuse_dim(data.name, data.x.numpy())
        holdout_split(data, config.fit.holdout)  # too few rows are refused before anything is written
        meta = data.meta()
        refuse_other_data(folder, meta)
        refuse_conditions(config, meta)
        refuse_cells(config, meta)
        refuse_augmentation(config, data)
        memory = plan(config, meta, process, keep_batch=folder.begun)
        config = memory.config
        if memory.sentence and process.rank == 0:
            say(console, f"memory   {memory.sentence}")
        training = assemble(config, meta, saved, init_from, process, console, hooks)
        about = describe(folder, meta, process, training) | hooks.names() | asked(folder, memory)
        trackers = hooks.followers(config.fit.tensorboard, console) if process.rank == 0 else Trackers()
        if process.rank == 0:
            for k, line in enumerate(data.describe()):
                say(console, f"{'' if k else 'data':9}{line}")
        process.wait()  # nobody may find the directory that the first process makes
        try:
            if process.rank == 0:
                folder.path.mkdir(parents=True, exist_ok=True)
                lock.take()
                trackers.start(folder.path, training.step, flat(to_dict(config)), about)
                prepare_folder(folder, config, about, training, resume, init_from, console)
            rest = data, console, about, hooks, trackers, memory.at_once
            return fit_and_record(training, config, process, folder, *rest)
        except OSError as e:
            if e.errno not in files.FULL:
                raise
            problem = e if isinstance(e, files.WriteError) else f"{folder.path}: {files.reason(folder.metrics, e)}"
            raise RunError(f"{problem}. Then continue with --resume auto") from e


def refuse_settings(config: TrainConfig, process: Process) -> None:
    """Raise ConfigError for settings that cannot be trained on so many processes, or could not be read back."""
    if config.fit.steps is None and config.fit.minutes is None and config.fit.cpu_minutes is None:
        raise ConfigError("when to stop? give --steps, --minutes or --cpu-minutes (fit.steps, ...)")
    check_round_trip(config)
    if config.fit.holdout and not config.selects:
        raise ConfigError(
            f"fit.holdout = {config.fit.holdout}: the loss of this model, a game of several players or of changing "
            "targets, does not say which average is best; leave it at 0"
        )
    if config.whole_batch and process.world * config.fit.accumulate > 1:
        raise ConfigError(
            f"{config.whole_batch}: train it in one process with --fit.accumulate 1, not in {process.world} x "
            f"{config.fit.accumulate} parts"
        )


def refuse_directory(folder: Folder, resume: str | Path | None, init_from: str | Path | None) -> None:
    """Raise for a directory that is in the way or cannot be written, and for two places to start from."""
    if resume is None:
        refuse_existing(folder)
    if resume is not None and init_from is not None:
        raise ConfigError("--resume and --init-from exclude each other: a resumed run has its own weights")
    files.check_folder(folder.path, "the run directory")


def refuse_existing(folder: Folder) -> None:
    """Raise Locked where a run is being written, RunError where anything else is in the way of a new one."""
    if not folder.path.exists() or (folder.path.is_dir() and not folder.names()):
        return
    if (writer := holder(folder.path)) is not None and writer.pid != os.getpid():
        raise Locked(f"{folder.path} is being trained by {writer}: choose another directory (--out)")
    raise RunError(
        f"{folder.path} exists already: go on with the run in it (--resume auto), or choose another directory (--out)"
    )


def refuse_other_run(folder: Folder, config: TrainConfig, resume: str | Path | None) -> None:
    """Raise RunError for a directory that holds no run to resume, ConfigError for a run of other settings."""
    if (
        not folder.begun
        and resume is not None
        and folder.path.is_dir()
        and set(folder.names()) - {"run.json", "checkpoints"}
    ):
        raise RunError(f"{folder.path} is not empty and holds no run to resume: choose another directory (--out)")
    if folder.begun and (differing := changed(folder.config(), config)):
        raise ConfigError(
            f"{folder.path} was trained with other settings: {', '.join(differing)} differ. Give the same ones, or "
            f"start a new run from its weights (--init-from {folder.path}; init_from in Python)"
        )


def checkpoint_to_resume(folder: Folder, resume: str | Path | None, console: Console) -> checkpoint.Checkpoint | None:
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
    newest, skipped = checkpoint.latest(folder.checkpoints)
    for line in skipped:
        say(console, line)
    return None if newest is None else checkpoint.load(newest)


def load_data(config: TrainConfig, folder: Folder) -> Data:
    """The data that the settings name. Raises ConfigError where they name none."""
    if not config.data.source and folder.begun:
        raise ConfigError(
            f"{folder.path} was trained on data from Python: go on there, df.train(data, {str(folder.path)!r}, "
            "resume=True), or say where the same data are (diffflow train SOURCE --resume auto --out RUN)"
        )
    if not config.data.source:
        raise ConfigError("data.source is empty: name a toy, 'digits', or a path to the data (--data.source)")
    if folder.begun and config.data.source == folder.config().data.source:
        config.data.refuse_moved(folder.path, f"diffflow train SOURCE --resume auto --out {folder.path}")
    return config.data.load()


def refuse_other_data(folder: Folder, meta: dict[str, Any]) -> None:
    """Raise RunError where the run in the directory began with other data."""
    if folder.begun and (before := folder.about()["data"]["fingerprint"]) != meta["fingerprint"]:
        raise RunError(
            f"the data have changed since {folder.path} began (fingerprint {before[:12]}, now "
            f"{meta['fingerprint'][:12]}): restore them, or start a new run"
        )
    if folder.begun and folder.about()["data"].get("cond") != meta.get("cond"):
        raise RunError(
            f"{folder.path} began with other conditions of its data: give the same, in Python, "
            f"df.train(data.with_cond(c), {str(folder.path)!r}, resume=True)"
        )
    if folder.begun and not same_space(told := folder.about()["data"].get("latent"), meta.get("latent")):
        where = "where its data do" if told is None else f"in latents of {told.get('path', told['class'])}"
        raise RunError(
            f"the model of {folder.path} lives {where}, and not in the space that is given now: go on with the same "
            "coder, scale and shift (--latent PATH; in Python data.with_coder), or start a new run"
        )


def refuse_conditions(config: TrainConfig, meta: dict[str, Any]) -> None:
    """Raise ConfigError for a condition that this family of models cannot be told."""
    if "cond" in meta and not config.any_condition:
        kinds = ", ".join(c.kind for _, c in named(from_meta(meta)))
        raise ConfigError(
            f"{type(config).__name__} is conditioned on classes only, and these data have another condition ({kinds}): "
            "train a diffusion model, or give the data without it"
        )


def assemble(
    config: TrainConfig,
    meta: dict[str, Any],
    saved: checkpoint.Checkpoint | None,
    init_from: str | Path | None,
    process: Process,
    console: Console,
    hooks: Hooks,
) -> TrainingState:
    """The players and their objective on the device, with the weights they start or go on from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.fit.seed)
        modules = {name: module.to(process.device) for name, module in config.build(meta).items()}
        check_own_nets(modules, meta, config, process, console)
        objective = config.objective(modules, meta)
    if init_from is not None:
        begin_from(config, objective, meta, init_from)
    elif saved is None and config.needs_start:
        raise ConfigError(f"{config.needs_start}: name a run of it with --init-from RUN (init_from in Python)")
    training = TrainingState(objective, config.players(), hooks.optimizer, hooks.learning_rate)
    if process.rank == 0:
        say_unused(training.players, console)
    if saved is not None:
        training.restore(saved)
    if config.fit.compile:
        compile_players(training, process, console)
    return training


def begin_from(config: TrainConfig, objective: Objective, meta: dict[str, Any], init_from: str | Path) -> None:
    """Put the averaged weights of another run into the players. Raises RunError for a run of unfitting data."""
    start = start_weights(init_from)
    origin = Folder(Path(init_from)).about()["data"]
    if config.needs_start and origin["fingerprint"] != meta["fingerprint"]:
        raise RunError(
            f"{config.needs_start}, but {init_from} learned {origin['name']} ({origin['split']}, fingerprint "
            f"{origin['fingerprint'][:12]}), and these data are {meta['name']} ({meta['split']}, fingerprint "
            f"{meta['fingerprint'][:12]}): give that run's data, or a run of these"
        )
    if config.needs_start and not same_space(origin.get("latent"), meta.get("latent")):
        raise RunError(f"{config.needs_start}, but {init_from} lives in another space: give the same coder (or none)")
    before, now = from_meta(origin), from_meta(meta)
    if ("cond" in origin or "cond" in meta) and before != now:
        words = [" and ".join(c.describe() for _, c in named(c)) or "no condition" for c in (before, now)]
        raise RunError(f"{init_from} is told {words[0]}, and a model of these data {words[1]}: start from a like run")
    config.begin(objective, start, str(init_from))


def compile_players(training: TrainingState, process: Process, console: Console) -> None:
    """Compile every network but the discriminator (torch.compile)."""
    for name, player in training.players.items():
        if name != "discriminator":
            player.module.compile()
        elif process.rank == 0:
            say(
                console,
                "The discriminator stays uncompiled: penalties of its gradient need second derivatives, which "
                "torch.compile does not have.",
            )


def describe(folder: Folder, meta: dict[str, Any], process: Process, training: TrainingState) -> dict[str, Any]:
    """The content of run.json while the training goes on: versions, data, device, sizes of the players."""
    about = (folder.about() if folder.begun else {}) | {"finished": False}
    about.pop("stopped", None)  # by a callback, of which it goes on now
    about |= environment() | {"data": meta, "device": str(process.device), "processes": process.world}
    sizes = {name: sum(p.numel() for p in player.parameters) for name, player in training.players.items()}
    return about | {"parameters": sizes}


def prepare_folder(
    folder: Folder,
    config: TrainConfig,
    about: dict[str, Any],
    training: TrainingState,
    resume: str | Path | None,
    init_from: str | Path | None,
    console: Console,
) -> None:
    """Write settings and description into the directory, which is locked, and set aside what is later than `training`.

    Raises Locked or RunError where another process has been faster.
    """
    if resume is None:
        refuse_existing(folder)
    if init_from is not None:  # from now on these weights are the run's own, to which --resume auto goes back
        checkpoint.save(folder.checkpoints, 0, training.tensors(), training.state(), config.fit.keep)
    folder.write(config, about)
    folder.rewind(training.step)
    for line in checkpoint.set_aside(folder.checkpoints, training.step):
        say(console, line)


def fit_and_record(
    training: TrainingState,
    config: TrainConfig,
    process: Process,
    folder: Folder,
    data: Data,
    console: Console,
    about: dict[str, Any],
    hooks: Hooks,
    trackers: Trackers,
    at_once: int | None,
) -> Path:
    """Fit to the end of the budget, recording into `folder` (grids `at_once` at a time), and choose an average."""
    main = process.rank == 0
    if main and data.conditions is not None:
        folder.keep_conditions(data.sample_conditions(EXAMPLES))
    learned, held_out = holdout_split(data, config.fit.holdout)
    prepare(training, config, learned, held_out, process, console)
    batches = training_batches(learned, config, process.device)
    draw = grid_sampler(training, config, data, process.device, at_once)
    ended = None
    how = config.fit.seed, process.device, config.data.dequantise
    aside = None if held_out is None else Batches(held_out, *how)
    if config.fit.patience is not None and aside is not None and main:
        ended = Patience(training, folder, aside, config.fit).ended
    recorder = Recorder(
        folder, config.fit, draw, console, main, training.step, mode_counter(data), hooks, trackers, ended
    )
    pace = Pace(config.fit, training, process, recorder.say, SPARE if training.anneals else 0.0)
    try:
        aim(pace, training, config, learned, process)
        received = fit(training, batches, config.fit, process, recorder, bool(config.whole_batch), pace)
        recorder.save(training)
        process.wait()  # no process leaves, and is taken for dead, while the first one writes
        if received:
            raise Interrupted(
                f"signal {received} after step {training.step}: a checkpoint is written, go on with --resume auto",
                128 + received,
            )
        if main:
            recorder.finish(training)
            if aside is not None:
                recorder.say(choose(training, folder, aside, config.fit).words(len(aside.data)))
            why = {"stopped": recorder.stopped} if recorder.stopped else {}
            folder.write(config, about | {"finished": True} | why)
    except NonFinite as e:
        if main:
            files.write_json(folder.path / "nonfinite.json", e.batch)
        raise
    finally:
        recorder.close()
    process.wait()
    return folder.path
