"""Where does a run keep what? One directory, readable without this library.

config.yaml             the resolved settings
run.json                versions, git revision, data, command
metrics.jsonl           one line a log step
samples/NNNNNN.png      raw weights left, averaged right
checkpoints/NNNNNNNN/   everything to go on from step N
ema/                    snapshots of the averages at geometric steps
plans.json              sampling plans, where some were calibrated
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from .. import files
from ..plan import Plan
from . import checkpoint, lock
from .checkpoint import Checkpoint, Tensors
from .config import Dials, TrainConfig, load_yaml, suggest, to_yaml
from .ema import FORGET, Profile, exponent, mixture


class RunError(RuntimeError):
    """A run directory that is missing, in the way, or of another run."""


@dataclass(frozen=True)
class Folder:
    """The run directory `path`."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def names(self) -> list[str]:
        """What is in the directory, without the lock of whoever writes it and what a dead writer left half done."""
        return [name for name in os.listdir(self.path) if name != lock.NAME and not files.is_hidden(name)]

    def config(self) -> TrainConfig:
        return load_yaml(self.path / "config.yaml")

    def about(self) -> dict[str, Any]:
        """The content of run.json. Raises RunError, with the nearest run's name for a misspelt one."""
        if not self.path.exists():
            runs = [p.parent.name for p in self.path.parent.glob("*/run.json")]
            near = suggest(self.path.name, runs) if runs else ""
            raise RunError(f"{self.path} is not a readable run directory: it does not exist{near}")
        try:
            return json.loads((self.path / "run.json").read_bytes())
        except (OSError, ValueError) as e:
            raise RunError(f"{self.path} is not a readable run directory: run.json: {e}") from e

    def write(self, config: TrainConfig, about: Mapping[str, Any]) -> None:
        files.write_json(self.path / "run.json", about)
        files.write_text(self.path / "config.yaml", to_yaml(config))  # last: it marks the directory

    def lines(self) -> list[dict[str, Any]]:
        """metrics.jsonl; a last line that a crash cut short is left out."""
        out = []
        for line in self.metrics.read_text(errors="replace").splitlines() if self.metrics.exists() else []:
            try:
                out.append(json.loads(line))
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
        found, _ = checkpoint.latest(self.checkpoints)
        if found is None:
            raise RunError(f"{self.path} holds no checkpoint: is it a run directory, and has it trained for a moment?")
        return checkpoint.load(found)

    def plans(self, weights: str) -> dict[Dials, Plan]:
        """The sampling plans made for these weights, by dials. Raises RunError where the file is damaged."""
        return self._read(
            "plans.json", weights, lambda d: {_dials(k["dials"]): Plan.from_dict(k["plan"]) for k in d["plans"]}
        )

    def keep_plan(self, weights: str, dials: Dials, plan: Plan) -> None:
        """Keep a plan; those of other weights go."""
        with lock.Lock(self.path, ".plans.lock") as writing:  # two calibrations of one run lose nothing
            writing.take()
            kept = self.plans(weights) | {dials: plan}
            entries = [{"dials": asdict(d), "plan": p.to_dict()} for d, p in kept.items()]
            content = {"weights": weights, "plans": entries}
            files.write_json(self.path / "plans.json", content)

    def presets(self, weights: str) -> dict[str, tuple[Dials, bool]]:
        """Dials, and whether by a plan, by the name of a preset. Raises RunError where the file is damaged."""
        return self._read(
            "quality.json",
            weights,
            lambda d: {k: (_dials(v["dials"]), bool(v["plan"])) for k, v in d["presets"].items()},
        )

    def keep_presets(self, weights: str, presets: Mapping[str, tuple[Dials, bool]]) -> None:
        named = {name: {"dials": asdict(dials), "plan": plan} for name, (dials, plan) in presets.items()}
        content = {"weights": weights, "presets": named}
        files.write_json(self.path / "quality.json", content)

    def _read(self, name: str, weights: str, parse: Callable[[Any], dict[Any, Any]]) -> dict[Any, Any]:
        """What a file keeps for these weights; nothing where it is not there, or is of other ones."""
        file = self.path / name
        try:
            found = json.loads(file.read_bytes()) if file.exists() else {"weights": ""}
            return parse(found) if found["weights"] == weights else {}
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


def _dials(d: Mapping[str, Any]) -> Dials:
    return Dials(int(d["steps"]), float(d["gan"]), float(d["churn"]), float(d["guidance"]))


def weights(folder: Folder, saved: Checkpoint, profiles: Mapping[str, float] | None) -> dict[str, Tensors]:
    """Weights by player at a checkpoint: raw where `profiles` is None, else averaged with a relative width per player.

    A width that was tracked is read; any other one is rebuilt from the snapshots by least squares (ema.py). Buffers
    are the raw ones.
    """
    players: dict[str, Tensors] = {}
    for key, v in saved.tensors["players"].items():
        name, k = key.split("/", 1)
        players.setdefault(name, {})[k] = v
    if profiles is None:
        return players
    stored = [*folder.snapshots(saved.state["step"] - 1), saved.tensors["ema"]]
    for name, own in players.items():
        clock, profile = saved.state["updates"][name], profiles[name]
        sources: list[tuple[Profile, Tensors]] = []
        for group in stored:
            t = int(group[f"{name}/clock"]) if f"{name}/clock" in group else clock
            widths: dict[float, Tensors] = {}
            for key, v in group.items():
                if key.startswith(f"{name}/") and key != f"{name}/clock":
                    _, width, k = key.split("/", 2)
                    widths.setdefault(float(width), {})[k] = v
            if group is saved.tensors["ema"] and profile in widths:
                sources = [(Profile(t, exponent(profile)), widths[profile])]
                break
            sources += [(Profile(t, exponent(s)), w) for s, w in widths.items()]
        parts = mixture([p for p, _ in sources], Profile(clock, exponent(profile)))
        for k in sources[0][1]:
            total = sum(float(x) * w[k].double() for x, (_, w) in zip(parts, sources, strict=True))
            own[k] = torch.as_tensor(total).to(own[k].dtype)
    return players


def default_profiles(config: TrainConfig) -> dict[str, float]:
    """The relative EMA widths that sampling uses when nobody says otherwise, by player."""
    return {name: config.sampling.ema or player.ema[0] for name, player in config.players().items()}


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
    """The commit checked out in the working directory, with "+" when files differ from it; None outside a
    repository.
    """
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
