"""Trackers: where else the numbers and pictures of a training go: TensorBoard, Weights & Biases, MLflow, trackio.

    df.train("moons", trackers=["wandb"])                                  # diffflow train moons --trackers wandb
    df.train("moons", trackers=[df.TRACKERS["wandb"](project="mine"), MyTracker()])

The run directory has everything anyway, so a tracker that fails while training is a warning and never the end of it.
Accounts, servers and folders are the programs' own affair: their environment variables and logins hold.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..models.settings.serialise import ConfigError
from ..registry import Registry


class Tracker(Protocol):
    """What follows a training: it is started once, told numbers and pictures by their step, and finished."""

    def start(self, about: dict[str, Any]) -> None:
        """Begin, before the first step.

        Args:
            about: `name`, `path` and `step` (0, or where a resumed training goes on) of the run, its `settings` by
                dotted name, and `run`, the content of run.json.
        """
        ...

    def log(self, values: dict[str, float], step: int) -> None:
        """Take the numbers of a line of metrics.jsonl, by names such as "loss/denoiser"."""
        ...

    def picture(self, image: Image.Image, step: int) -> None:
        """Take a grid of samples: raw weights left, averaged ones right."""
        ...

    def finish(self) -> None:
        """End, whether the training has come to its end or was stopped."""
        ...


@dataclass
class TensorBoard:
    """Writes tensorboard/ in the run directory; settings with fit.tensorboard have it by themselves."""

    def __post_init__(self) -> None:
        self.module = imported("torch.utils.tensorboard", "pip install tensorboard")

    def start(self, about: dict[str, Any]) -> None:
        """Remember where to write: the file begins with the first number."""
        self.place, self.begin, self.board = os.path.join(about["path"], "tensorboard"), about["step"], None

    def writer(self) -> Any:
        """The file, which forgets what an interrupted training wrote of later steps."""
        if self.board is None:
            self.board = self.module.SummaryWriter(self.place, purge_step=self.begin + 1)
        return self.board

    def log(self, values: dict[str, float], step: int) -> None:
        """Add a scalar for each number."""
        for name, value in values.items():
            self.writer().add_scalar(name, value, step)

    def picture(self, image: Image.Image, step: int) -> None:
        """Add the picture."""
        self.writer().add_image("samples", np.array(image), step, dataformats="HWC")

    def finish(self) -> None:
        """Close the file."""
        if self.board is not None:
            self.board.close()


@dataclass
class WandB:
    """Logs to Weights & Biases: to the run that is active, which stays open, or to one of its own.

    Args:
        project: its project; default: that of WANDB_PROJECT, else "diffflow".
    """

    project: str | None = None

    def __post_init__(self) -> None:
        self.module = imported("wandb", "pip install 'diffflow[wandb]'")

    def start(self, about: dict[str, Any]) -> None:
        """Begin a run of the directory's name, or join the active one."""
        self.active = self.module.run
        if self.active is None:
            project = self.project or os.environ.get("WANDB_PROJECT", "diffflow")
            self.run = self.module.init(project=project, name=about["name"], config=about["settings"])
        else:
            self.run = self.active
            self.run.config.update(about["settings"], allow_val_change=True)

    def log(self, values: dict[str, float], step: int) -> None:
        """Log the numbers."""
        self.run.log(values, step=step)

    def picture(self, image: Image.Image, step: int) -> None:
        """Log the picture."""
        self.run.log({"samples": self.module.Image(image)}, step=step)

    def finish(self) -> None:
        """Finish the run, if it is of our own."""
        if self.active is None:
            self.run.finish()


@dataclass
class MLflow:
    """Logs to MLflow: to the run that is active, which stays open, or to one of its own.

    Args:
        experiment: its experiment; default: that of MLFLOW_EXPERIMENT_NAME, else MLflow's own.
    """

    experiment: str | None = None

    def __post_init__(self) -> None:
        self.module = imported("mlflow", "pip install 'diffflow[mlflow]'")

    def start(self, about: dict[str, Any]) -> None:
        """Begin a run of the directory's name, with the settings as its parameters, or join the active one.

        The parameters of an active run are its owner's, and none can be set twice.
        """
        self.active = self.module.active_run()
        if self.active is not None:
            return
        if self.experiment is not None:
            self.module.set_experiment(self.experiment)
        self.module.start_run(run_name=about["name"])
        settings = list(about["settings"].items())
        for k in range(0, len(settings), 100):  # as many as a server takes at once, and as long
            self.module.log_params({name: str(value)[:500] for name, value in settings[k : k + 100]})

    def log(self, values: dict[str, float], step: int) -> None:
        """Log the numbers as metrics."""
        self.module.log_metrics(values, step=step)

    def picture(self, image: Image.Image, step: int) -> None:
        """Log the picture as an artifact, samples/NNNNNN.png."""
        self.module.log_image(image, artifact_file=f"samples/{step:06d}.png")

    def finish(self) -> None:
        """End the run, if it is of our own."""
        if self.active is None:
            self.module.end_run()


@dataclass
class Trackio:
    """Logs to trackio.

    Args:
        project: its project.
    """

    project: str = "diffflow"

    def __post_init__(self) -> None:
        self.module = imported("trackio", "pip install 'diffflow[trackio]'")

    def start(self, about: dict[str, Any]) -> None:
        """Begin a run of the directory's name, or go on with it where the training goes on."""
        resume = "allow" if about["step"] else "never"
        self.module.init(project=self.project, name=about["name"], config=about["settings"], resume=resume)

    def log(self, values: dict[str, float], step: int) -> None:
        """Log the numbers."""
        self.module.log(values, step=step)

    def picture(self, image: Image.Image, step: int) -> None:
        """Log the picture."""
        self.module.log({"samples": self.module.Image(image)}, step=step)

    def finish(self) -> None:
        """Finish the run."""
        self.module.finish()


TRACKERS: Registry[Callable[[], Tracker]] = Registry(
    "tracker", {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio}
)


def imported(name: str, remedy: str) -> Any:
    """The module of a tracker. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"the tracker {name.rpartition('.')[2]!r} cannot be used ({error}): {remedy}") from error


def made(trackers: Sequence[str | Tracker]) -> tuple[Tracker, ...]:
    """Trackers, of which some are named.

    Raises:
        ConfigError: an unknown name (the nearest is named), a program that is not installed, or no tracker.
    """
    if isinstance(trackers, str) or not isinstance(trackers, Sequence):
        raise ConfigError(f'trackers = {trackers!r} must be a list, such as ["wandb"]')
    return tuple(_made(tracker) for tracker in trackers)


def _made(tracker: str | Tracker) -> Tracker:
    if isinstance(tracker, str):
        if tracker not in TRACKERS:
            raise ConfigError(TRACKERS.unknown(tracker))
        return TRACKERS[tracker]()
    lacking = [name for name in ("start", "log", "picture", "finish") if not callable(getattr(tracker, name, None))]
    if lacking or isinstance(tracker, type):
        why = "is a class: give an instance of it" if isinstance(tracker, type) else f"has no {', '.join(lacking)}"
        raise ConfigError(f"the tracker {tracker!r} {why}; a tracker has start, log, picture and finish (df.Tracker)")
    return tracker


class Trackers:
    """Several trackers as one that ends no training: one that fails is named in a warning, once.

    Args:
        each: the trackers.
        say: where warnings go.
    """

    def __init__(self, each: Sequence[Tracker] = (), say: Callable[[str], None] = print) -> None:
        self.each, self.say = each, say
        self.failed: list[Tracker] = []

    def start(self, path: Path, step: int, settings: dict[str, Any], run: dict[str, Any]) -> None:
        """Start every one; see `Tracker.start`. Raises ConfigError where one does not: nothing is trained yet."""
        about = {"name": path.resolve().name, "path": str(path), "step": step, "settings": settings, "run": run}
        for k, tracker in enumerate(self.each):
            try:
                tracker.start(about)
            except Exception as error:
                Trackers(self.each[:k], self.say).finish()
                raise ConfigError(
                    f"the tracker {type(tracker).__name__} does not start ({type(error).__name__}: {error}): mend it, "
                    "or train without it"
                ) from error

    def log(self, values: dict[str, float], step: int) -> None:
        """Tell every one the numbers of a step."""
        self._tell(lambda tracker: tracker.log(values, step))

    def picture(self, image: Image.Image, step: int) -> None:
        """Show every one the samples of a step."""
        self._tell(lambda tracker: tracker.picture(image, step))

    def finish(self) -> None:
        """Finish every one."""
        self._tell(lambda tracker: tracker.finish())

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for tracker in self.each:
            try:
                what(tracker)
            except Exception as error:
                if tracker not in self.failed:
                    self.failed.append(tracker)
                    self.say(
                        f"warning: the tracker {type(tracker).__name__} fails ({type(error).__name__}: {error}); the "
                        "training goes on, and the run directory has everything"
                    )
