"""Run directory: where a run keeps what, readable without this library.

config.yaml             the resolved settings
run.json                versions, git revision, data, command
metrics.jsonl           one line a log step
samples/NNNNNN.png      raw weights left, averaged right
checkpoints/NNNNNNNN/   everything to go on from step N
ema/                    snapshots of the averages at geometric steps
plans.json              sampling plans, where some were calibrated
conditions.safetensors  examples of conditions of the training data, where these are more than classes
sampler.json            where the sampler ends and its churn, where pictures kept aside chose them
quality.json            the settings called fast, balanced and best, where the frontier was swept
tensorboard/            scalars, where installed
nonfinite.json          the batch that broke the numbers, if one did
.training.lock          who is training here, while somebody is
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from .. import files
from ..equation.conditions import Cond, leaves
from ..models.base import TrainConfig
from ..models.settings import aliases
from ..models.settings.common import Dials
from ..models.settings.serialise import load_yaml, suggest, to_yaml
from ..sampling.plan import Plan
from . import checkpoint, lock
from .checkpoint import Checkpoint, Tensors
from .ema import FORGET


class RunError(RuntimeError):
    """A run directory that is missing, in the way, or of another run."""


@dataclass(frozen=True)
class Folder:
    """Reads and writes the run directory `path`, which need not exist yet."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The log, a line of JSON each `log_every` steps."""
        return self.path / "metrics.jsonl"

    @property
    def begun(self) -> bool:
        """Whether it holds a run to go on with."""
        return (self.path / "config.yaml").is_file()

    def names(self) -> list[str]:
        """Names in the directory, without the lock of whoever writes it and what a dead writer left half done."""
        return [name for name in os.listdir(self.path) if name != lock.NAME and not files.is_hidden(name)]

    def config(self) -> TrainConfig:
        """The settings. Raises ConfigError where they cannot be read."""
        with warnings.catch_warnings():  # an old run's file has the names of its time
            warnings.simplefilter("ignore", aliases.OldName)
            return load_yaml(self.path / "config.yaml")

    def about(self) -> dict[str, Any]:
        """The content of run.json. Raises RunError, with the nearest run's name for a misspelt one."""
        if not self.path.exists():
            runs = [p.parent.name for p in self.path.parent.glob("*/run.json")]
            near = suggest(self.path.name, runs) if runs else ""
            raise RunError(f"{self.path} is not a readable run directory: it does not exist{near}")
        try:
            about = json.loads((self.path / "run.json").read_bytes())
            if isinstance(about.get("data"), dict):
                about["data"] = {aliases.META.get(k, k): v for k, v in about["data"].items()}
            return about
        except (OSError, ValueError) as e:
            raise RunError(f"{self.path} is not a readable run directory: run.json: {e}") from e

    def write(self, config: TrainConfig, about: Mapping[str, Any]) -> None:
        """Write run.json and config.yaml, which marks the directory as a run."""
        files.write_json(self.path / "run.json", about)
        files.write_text(self.path / "config.yaml", to_yaml(config))  # last: it marks the directory

    def lines(self) -> list[dict[str, Any]]:
        """metrics.jsonl; a last line that a crash cut short is left out."""
        out = []
        for line in self.metrics.read_text(errors="replace").splitlines() if self.metrics.exists() else []:
            try:
                out.append(_present(json.loads(line)))
            except ValueError:
                break
        return out

    def rewind(self, step: int) -> None:
        """Forget what was logged after `step`: a resumed training logs it again."""
        self.keep([line for line in self.lines() if line["step"] <= step])

    def keep(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Let these be the lines of metrics.jsonl."""
        files.write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in lines))

    def newest(self) -> Checkpoint:
        """The newest checkpoint that verifies. Raises RunError or CheckpointError when there is none."""
        path, _ = checkpoint.latest(self.checkpoints)
        if path is None:
            raise RunError(f"{self.path} holds no checkpoint: is it a run directory, and has it trained for a moment?")
        return checkpoint.load(path)

    def plans(self, weights: str) -> dict[Dials, Plan]:
        """The sampling plans made for these weights, by dials. Raises RunError where the file is damaged."""
        return self._read(
            "plans.json", weights, lambda d: {_dials(k["dials"]): Plan.from_dict(k["plan"]) for k in d["plans"]}
        )

    def keep_plan(self, weights: str, dials: Dials, plan: Plan) -> None:
        """Keep a sampling plan for these weights and dials; those of other weights go."""
        with lock.Lock(self.path, ".plans.lock") as writing:  # two calibrations of one run lose nothing
            writing.take()
            kept = self.plans(weights) | {dials: plan}
            entries = [{"dials": asdict(d), "plan": p.to_dict()} for d, p in kept.items()]
            content = {"weights": weights, "plans": entries}
            files.write_json(self.path / "plans.json", content)

    def sampler(self, weights: str) -> dict[str, float] | None:
        """Where the sampler of these weights ends (sigma_min) and its churn; None where nothing chose them."""
        try:
            content = json.loads((self.path / "sampler.json").read_bytes())
            chosen = {name: float(content["chosen"][name]) for name in ("sigma_min", "churn")}
            return chosen if content["weights"] == weights else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_sampler(self, content: Mapping[str, Any]) -> None:
        """Keep what was chosen for some weights, with what it was chosen from."""
        files.write_json(self.path / "sampler.json", content)

    def keep_conditions(self, cond: Cond) -> None:
        """Keep examples of conditions, in data units: what samples are asked for where nobody says it."""
        content = {f"cond.{name}" if name else "cond": leaf.contiguous() for name, leaf in leaves(cond)}
        files.write(self.path / "conditions.safetensors", checkpoint.to_bytes(content))

    def example_conditions(self, n: int, first: int = 0) -> Cond:
        """The kept examples in turn: n rows, of which the first is number `first`. Raises RunError where none are."""
        path = self.path / "conditions.safetensors"
        try:
            kept = safetensors.torch.load(path.read_bytes())
        except (OSError, safetensors.SafetensorError) as e:
            raise RunError(f"{path} is missing or damaged ({e!r}): give cond for each sample") from e
        kept = {name: leaf[torch.arange(first, first + n) % len(leaf)] for name, leaf in kept.items()}
        return kept.get("cond", {name.removeprefix("cond."): leaf for name, leaf in kept.items()})

    def qualities(self, weights: str) -> dict[str, tuple[Dials, bool]]:
        """Dials, and whether by a plan, by the name of a quality. Raises RunError where the file is damaged."""
        return self._read(
            "quality.json",
            weights,
            lambda d: {k: (_dials(v["dials"]), bool(v["plan"])) for k, v in d["presets"].items()},
        )

    def keep_qualities(self, weights: str, qualities: Mapping[str, tuple[Dials, bool]]) -> None:
        """Keep dials, and whether by a plan, by the name of a quality, for these weights."""
        named = {name: {"dials": asdict(dials), "plan": plan} for name, (dials, plan) in qualities.items()}
        content = {"weights": weights, "presets": named}
        files.write_json(self.path / "quality.json", content)

    def _read(self, name: str, weights: str, parse: Callable[[Any], dict[Any, Any]]) -> dict[Any, Any]:
        """What a file keeps for these weights; nothing where it is not there, or is of other ones."""
        file = self.path / name
        try:
            content = json.loads(file.read_bytes()) if file.exists() else {"weights": ""}
            return parse(content) if content["weights"] == weights else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise RunError(f"{file} is damaged ({e!r}): delete it, and make it again") from e

    # -- averages ------------------------------------------------------------------------------------------------------

    def snapshot(self, step: int, averages: Tensors, clocks: Mapping[str, int], forget: bool = True) -> None:
        """Keep the averages of this step, and drop those that no longer matter to later averages."""
        home = self.path / "ema"
        content = averages | {f"{name}/clock": torch.tensor(clock) for name, clock in clocks.items()}
        files.write(home / f"{step:08d}.safetensors", checkpoint.to_bytes(content))
        for old in home.glob("*.safetensors") if forget else ():
            if int(old.stem) < step / FORGET:
                old.unlink()

    def snapshots(self, step: int) -> list[Tensors]:
        """Snapshots up to `step`, oldest first."""
        kept = sorted(p for p in (self.path / "ema").glob("[0-9]*.safetensors") if int(p.stem) <= step)
        return [safetensors.torch.load(p.read_bytes()) for p in kept]


def _present(line: dict[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl with the present names of what it logs."""
    log = line.get("log") if isinstance(line, dict) else None
    if isinstance(log, dict) and any(key.rpartition("/")[2] in aliases.LOGS for key in log):
        split = ((*key.rpartition("/"), value) for key, value in log.items())
        line["log"] = {f"{player}{slash}{aliases.LOGS.get(key, key)}": value for player, slash, key, value in split}
    return line


def _dials(d: Mapping[str, Any]) -> Dials:
    guidance = d["guidance"]
    guidance = tuple(map(tuple, guidance)) if isinstance(guidance, list) else float(guidance)
    return Dials(int(d["steps"]), float(d["gan"]), float(d["churn"]), guidance)


def environment() -> dict[str, Any]:
    """Versions, machine, command line and git revision (of the working directory), for run.json."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("diffflow", "torch", "numpy", "diffusers", "accelerate", "safetensors"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions | {"command": sys.argv, "git": git_revision()}


def git_revision() -> str | None:
    """The commit of the working directory, with "+" when files differ from it; None outside a repository."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        return head + ("+" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return None
