"""`df.train`: data in, a trained run out.

    run = df.train("moons", minutes=1)
    run = df.train(data, "runs/mine", model="gan", steps=20_000, settings={"generator.lr": 1e-4})
    run = df.train("moons", minutes=2, resume=True)                          # another minute of the first one

The presets, settings, progress and run directory are those of `diffflow train` on the command line, whose flags have
the names of `settings`.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..console import say, to_stderr
from ..data import Data
from ..equation.toys import TOYS
from ..models.base import TrainConfig
from ..models.presets import BY_MODEL, diffusion_preset, fitting, preset
from ..models.settings.networks import NetConfig
from ..models.settings.own_net import OwnNetConfig, handing, register
from ..models.settings.serialise import ConfigError, replace
from ..training.hooks import Hooks
from ..training.learning_rates import LearningRate
from ..training.loop import Interrupted
from ..training.optimisers import MakeOptimizer
from ..training.run_folder import Folder, RunError
from ..training.trackers import Tracker
from ..training.train import train as train_into
from .fitted import PRESET, fitted
from .load import load
from .run import Run
from .sampler import ends_with_its_budget, fit_sampler

# of the settings of the data, what a Data in memory does not decide
STILL_FREE = ("data.dequantise", "data.augment", "data.augment_by")


def train(
    data_or_config: str | Path | Data | TrainConfig,
    out: str | Path | None = None,
    *,
    model: str | None = None,
    minutes: float | None = None,
    cpu_minutes: float | None = None,
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    net: nn.Module | Callable[..., nn.Module] | None = None,
    net_arguments: Mapping[str, Any] | None = None,
    form: str | None = None,
    optimizer: MakeOptimizer | Mapping[str, MakeOptimizer] | None = None,
    learning_rate: LearningRate | Mapping[str, LearningRate] | None = None,
    on_log: Callable[[dict[str, Any]], object] | None = None,
    on_checkpoint: Callable[[Path, int], object] | None = None,
    trackers: Sequence[str | Tracker] = (),
) -> Run:
    """Train a model and open its run. Progress goes to standard error.

    Ctrl-C ends the step that is going on, saves, and returns the run so far; a second one stops at once.

    Args:
        data_or_config: the data: a toy's name, "digits", the path of a folder or file, or a `Data`; or a TrainConfig,
            all settings of a training, the source of its data among them.
        out: run directory; default runs/SOURCE, or runs/SOURCE-MODEL where `model` names a kind of model.
        model: preset, as `--preset` of the command line ("gan", "discriminator-flow", "mnist", ...); default: a
            diffusion model in the size that fits the data, and for pictures also the budget and this machine.
        minutes: train for so long, resumed parts included; replaces the preset's budget.
        cpu_minutes: likewise, of the processor's time, of all threads.
        steps: train until this step, likewise; with `minutes`, whichever comes first.
        settings: further settings by dotted name, as on the command line: {"denoiser.lr": 5e-4, "fit.batch": 64}.
        resume: go on with the run in `out`, by its own settings where no `model` is named; where there is none, start.
        net: a denoiser's network of your own: a torch module of (x, t) or (x, t, cond) that returns what is like x, t
            (n,) being 0.25 ln sigma (or `settings={"model.net.time": ...}`); its class or a function that makes it,
            which is called with `net_arguments`; or an instance, which is trained in place and must be handed back to
            `df.load(path, net=...)` in another process. An attribute `null` says what it is told for no condition.
        net_arguments: what `net`, a class or function, is called with: plain values by name.
        form: what the network predicts: "edm" (the default, good for a plain network), "eps", "v", "x0", "flow",
            "score".
        optimizer: a function of the parameters that makes a torch optimizer, in place of Adam, such as
            `functools.partial(torch.optim.SGD, lr=0.1)`; for every player, or a dict by the player's name. Its own
            learning rate holds where no `learning_rate` is given; gradients are clipped before it as ever
            (`denoiser.clip`). Code is no setting: whoever resumes the run hands it in again.
        learning_rate: a function of the update, counted from 1, in place of the warm-up and decay of the settings;
            likewise.
        on_log: called with each line of metrics.jsonl, as a dict. Where it returns True, the training stops after
            that step as at the end of its budget.
        on_checkpoint: called with the path and the step of each checkpoint.
        trackers: where numbers and pictures go as well: "wandb", "mlflow", "trackio" (each an extra of the
            installation) or "tensorboard", or trackers of one's own (`df.Tracker`).

    Returns:
        The run at the end of the budget, or where it was stopped, with its averaged weights, on the best device there
        is.

    Raises:
        ConfigError: settings that are unknown (the nearest is named), contradict each other or cannot be meant.
        DataError: data that are not there or cannot be read.
        RunError: a directory that is in the way, or holds a run of other data.
        TypeError: something else than data or settings.
    """
    if not isinstance(data_or_config, str | Path | Data | TrainConfig):
        raise TypeError(
            f"data_or_config is of type {type(data_or_config).__name__}: give the name of a toy, the path of a folder "
            "or file, a df.Data (df.data.of makes it of arrays and data sets), or settings such as df.ScoreConfig(...)"
        )
    if not isinstance(resume, bool):
        raise TypeError(f"resume = {resume!r} must be True (go on from the newest checkpoint) or False")
    hooks = Hooks(optimizer, learning_rate, on_log, on_checkpoint, trackers)
    data = data_or_config if isinstance(data_or_config, Data) else None
    sized = False
    changes = _changes(settings, minutes, cpu_minutes, steps, data_or_config)
    if form is not None:
        if "model.form" in changes:
            raise ConfigError(f"form = {form!r} and settings model.form are one setting: give one")
        changes["model.form"] = form
    if net_arguments is not None and (net is None or isinstance(net, nn.Module)):
        raise ConfigError("net_arguments go with a class or function as net")
    if isinstance(data_or_config, TrainConfig):
        config = data_or_config
        if model is not None:
            raise ConfigError(
                f"model = {model!r}, but these settings are a {type(config).__name__} already: give data and a model, "
                "or settings alone"
            )
        source = replace(config, changes).data.source
        if not source:
            raise ConfigError(
                'these settings say no source of the data: df.replace(config, {"data.source": "moons"}) would'
            )
        folder = Path(out or default_folder(source, seed=replace(config, changes).fit.seed))
    else:
        wanted, seed = None if out is None else Path(out), changes.get("fit.seed")
        own = net is not None
        config, folder, sized = _starting_point(data_or_config, wanted, model, resume, seed, changes, own)
        if not isinstance(data_or_config, Data):
            changes["data.source"] = _source(data_or_config)
    if net is not None:
        config = with_own_net(config, net, net_arguments)
    start, config = config, replace(config, changes)
    goes_on = resume and Folder(folder).begun
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(
            f"{folder} exists already: go on with the run in it (resume=True), or choose another directory (out=...)"
        )
    if sized and not config.needs_start:
        data = config.data.load() if data is None else data
        choice = fitted(start, data, lambda c: replace(c, changes), preset=model or PRESET)
        config = choice.config
        say(to_stderr(), "\n".join([*choice.reasons, *([choice.unfit] if choice.unfit else [])]))
    if config.needs_start and not goes_on:
        raise ConfigError(
            f"{config.needs_start}, to start from: `diffflow train SOURCE --preset NAME --init-from RUN`, or in Python "
            "diffflow.training.train.train(config, out, init_from=RUN)"
        )
    whole = True
    try:
        with handing(net):
            train_into(config, folder, resume="auto" if resume else None, data=data, hooks=hooks)
    except Interrupted as stop:
        if stop.code != 128 + signal.SIGINT:
            raise
        whole = False
        line = f"interrupted: a checkpoint is written. Go on with df.train(..., {str(folder)!r}, resume=True)"
        say(to_stderr(), line)
    own = data.space.coder if data is not None and data.space is not None and not data.space.path else None
    run = load(folder, net=net, coder=own)
    if not whole or not ends_with_its_budget(run.config) or (data is None and not run.config.data.source):
        return run
    data = run.config.data.load() if data is None else data
    return fit_sampler(run, data, lambda line: say(to_stderr(), line))


def with_own_net(
    config: TrainConfig, net: nn.Module | Callable[..., nn.Module], arguments: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Settings whose denoiser has a network of the user's. Raises ConfigError for a family that has no denoiser."""
    if not isinstance(getattr(getattr(config, "model", None), "net", None), NetConfig):
        raise ConfigError(f"net is a denoiser's network, and {type(config).__name__} has none: train a diffusion model")
    own = register(net, dict(arguments or {}))
    before = getattr(config, "model").net  # noqa: B009  a family's settings, known to have a net
    if isinstance(before, OwnNetConfig):  # a run that goes on keeps what it told the network
        own = dataclasses.replace(own, time=before.time, arguments=own.arguments if arguments else before.arguments)
    return replace(config, {"model.net": own})


def default_folder(source: str, model: str = "", seed: int = 0) -> Path:
    """The directory of a run that was given none.

    It is called after its source, after its model where the preset names one, and after its seed where that is not 0;
    the demo after itself.

    Args:
        source: as `DataConfig.source`, or the name of data in memory.
        model: the preset's name; "": none.
        seed: as `FitConfig.seed`: two seeds never meet in one directory.
    """
    name = Path(source).resolve().name.split(".")[0] if source else ""
    if model == "demo" or not name:
        name = model or "run"
    elif model in BY_MODEL:
        name = f"{name}-{model}"
    return Path("runs") / with_seed(name, seed)


def with_seed(name: str, seed: int) -> str:
    """The default name of a run directory, which tells seeds apart: digits, digits-seed1, digits-seed2, ..."""
    return name if seed == 0 else f"{name}-seed{seed}"


def budget(minutes: float | None, steps: int | None, cpu_minutes: float | None = None) -> dict[str, Any]:
    """The settings of a budget: what is given replaces all of the preset's.

    "For 10 minutes" means 10 minutes, whatever number of steps the preset has in mind.
    """
    limits = {"fit.minutes": minutes, "fit.cpu_minutes": cpu_minutes, "fit.steps": steps}
    return {} if all(limit is None for limit in limits.values()) else limits


def _source(given: str | Path) -> str:
    """As `DataConfig.source`, where a name wins over a path: a Path is never a name."""
    name = str(given)
    return f"./{name}" if isinstance(given, Path) and (name in TOYS or name == "digits") else name


def _starting_point(
    given: str | Path | Data,
    folder: Path | None,
    model: str | None,
    resume: bool,
    seed: int | None,
    changes: Mapping[str, Any],
    own_net: bool,
) -> tuple[TrainConfig, Path, bool]:
    """Settings before they are changed, the run directory, and whether the settings are still to be sized to a budget.

    The settings are the preset's, or those of the run to go on with.
    """
    kind = changes.get("data.kind")
    sized = model == PRESET and not own_net
    by_itself = resume and model is None  # the run's own settings hold
    if folder is None or not (by_itself and Folder(folder).begun):
        source = given if isinstance(given, Data) else _source(given)
        if model is None:
            model = diffusion_preset(source, kind)
            sized = model == PRESET and not own_net  # a network of one's own has a size already
            model = fitting(source, kind) if model == PRESET and own_net else model
        made = preset(model, source, kind)
        config, sized = made.config, sized or (made.scale == PRESET and not own_net)
        if own_net:
            config = replace(config, {"data.flip": False})
        if isinstance(source, Data):
            said = {"data.source": "", "data.split": source.split, "data.flip": source.flip}
            if source.kind != "vector" and not source.transform.of_bytes:
                said["data.kind"] = source.kind  # as a file of the same rows needs it
            if source.space is not None and source.space.path:
                said["data.latent"] = source.space.path
            config = replace(config, said)
        name = source.name if isinstance(source, Data) else source
        if folder is None:
            folder = default_folder(name, model, config.fit.seed if seed is None else seed)
        if not (by_itself and Folder(folder).begun):
            return config, folder, sized
    return Folder(folder).config(), folder, False


def _changes(
    settings: Mapping[str, Any] | None,
    minutes: float | None,
    cpu_minutes: float | None,
    steps: int | None,
    given: object,
) -> dict[str, Any]:
    """What the caller sets, by dotted name. Raises ConfigError for what is said twice."""
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(f'settings = {settings!r} must be a dict by dotted name, such as {{"fit.batch": 64}}')
    changes = {str(name).replace("-", "_"): value for name, value in (settings or {}).items()}
    for name, value in (("minutes", minutes), ("cpu_minutes", cpu_minutes), ("steps", steps)):
        if value is not None and f"fit.{name}" in changes:
            raise ConfigError(
                f"{name} = {value!r} and settings fit.{name} = {changes[f'fit.{name}']!r} are one setting: give one"
            )
    if not isinstance(given, TrainConfig):
        decided = [name for name in changes if name == "data" or name.startswith("data.")]
        if not isinstance(given, Data):
            decided = [name for name in decided if name == "data.source"]
        if wrong := [name for name in decided if name not in STILL_FREE]:
            why = "is the first argument" if wrong == ["data.source"] else "was decided where the Data was made"
            raise ConfigError(f"settings {wrong[0]} = {changes[wrong[0]]!r}: that {why}; leave it out")
    return budget(minutes, steps, cpu_minutes) | changes
