"""Hooks: code of the caller's that takes part in a training, beside the settings, which are plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..console import Console, say
from ..models.settings.serialise import ConfigError
from .learning_rates import LearningRate
from .optimisers import MakeOptimizer, called
from .run_folder import Folder
from .state import Player
from .trackers import TensorBoard, Tracker, Trackers, made

RECORDED = ("optimizer", "learning_rate")  # in run.json: they decide the weights


@dataclass(frozen=True)
class Hooks:
    """Code that takes part in a training; `df.train` says what each of them is.

    Args:
        optimizer: parameters -> optimizer, for every player or by the player's name; None: Adam of the settings.
        learning_rate: update (counted from 1) -> learning rate, likewise.
        on_log: told each line of metrics.jsonl; True stops the training.
        on_checkpoint: told the path and the step of each checkpoint.
        trackers: names of `TRACKERS`, or trackers.

    Raises:
        ConfigError: what cannot be called, or a tracker that is unknown or not installed.
    """

    optimizer: MakeOptimizer | Mapping[str, MakeOptimizer] | None = None
    learning_rate: LearningRate | Mapping[str, LearningRate] | None = None
    on_log: Callable[[dict[str, Any]], object] | None = None
    on_checkpoint: Callable[[Path, int], object] | None = None
    trackers: Sequence[str | Tracker] = ()

    def __post_init__(self) -> None:
        for name, what in (
            ("optimizer", "give one of the parameters, such as functools.partial(torch.optim.SGD, lr=0.1)"),
            ("learning_rate", "give one of the update, which is counted from 1"),
            ("on_log", "give one of a line of the log, a dict"),
            ("on_checkpoint", "give one of the path and the step of a checkpoint"),
        ):
            given = getattr(self, name)
            each = given.values() if isinstance(given, Mapping) and name in RECORDED else (given,)
            if wrong := [code for code in each if not (code is None and given is None) and not callable(code)]:
                raise ConfigError(f"{name} is a {type(wrong[0]).__name__}, not a function: {what}")
        object.__setattr__(self, "trackers", made(self.trackers))

    def names(self) -> dict[str, Any]:
        """What run.json records of the code that decides the weights."""
        given = {name: code for name in RECORDED if (code := getattr(self, name)) is not None}
        return {
            name: {player: called(c) for player, c in code.items()} if isinstance(code, Mapping) else called(code)
            for name, code in given.items()
        }

    def refuse_other(self, folder: Folder) -> None:
        """Raise ConfigError where the run in the directory was begun with other code."""
        if not folder.begun:
            return
        now, before = self.names(), {name: code for name, code in folder.about().items() if name in RECORDED}
        if now == before:
            return
        if not before:
            raise ConfigError(
                f"{folder.path} was begun by its settings alone: go on without {_words(now)}, or start a new run"
            )
        arguments = "".join(f", {name}=..." for name in before)
        instead = f", not with {_words(now)}" if now else ""
        raise ConfigError(
            f"{folder.path} was begun with {_words(before)}, which is code and no setting: go on with the same"
            f"{instead} (df.train(..., {str(folder.path)!r}, resume=True{arguments}))"
        )

    def followers(self, tensorboard: bool, console: Console) -> Trackers:
        """The trackers, and TensorBoard's file where the settings want it and it is installed."""
        each = list(made(self.trackers))
        if tensorboard and not any(isinstance(tracker, TensorBoard) for tracker in each):
            with suppress(ConfigError):
                each.insert(0, TensorBoard())
        return Trackers(each, lambda text: say(console, text))


def say_unused(players: Mapping[str, Player], console: Console) -> None:
    """Say which settings an optimizer or a learning rate of one's own leaves without a use."""
    for name, player in players.items():
        if not player.own and player.rate == player.config.rate:
            continue
        kind, rate = type(player.optimizer).__name__, float(player.optimizer.param_groups[0]["lr"])
        rates = f"its own learning rate, {rate:g}" if player.rate is None else "the learning rate of your function"
        unused = ("lr", "warmup", "decay", *(("betas", "weight_decay") if player.own else ()))
        names = ", ".join(f"{name}.{setting}" for setting in unused)
        say(console, f"{name} is trained by {kind} with {rates}; the settings {names} have no use")


def _words(names: Mapping[str, Any]) -> str:
    """What run.json records, in words."""
    return " and ".join(f"{name} = {code}" for name, code in names.items())
