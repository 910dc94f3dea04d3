"""`diffflow runs`: the runs of a folder, how far they are, and how good.

Only files are read (run.json, config.yaml as plain YAML, the last line of metrics.jsonl, evaluation.json or
frontier.json, the sizes of the newest checkpoint): nothing is loaded and nothing that a file names is imported, so a
folder of strangers' runs can be listed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from diffflow.cli import UsageError, parse
from diffflow.console import plus_minus, table, to_stdout
from diffflow.training import lock

WIDTH = 100  # columns of the table where no terminal has fewer
HEADLINES = ("frechet", "marginal_w2", "sliced_w2", "w2")  # the first that was measured stands for a run
PROBLEMS = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError)


@dataclass(frozen=True)
class Runs:
    """List the runs of a folder: data, model, training so far, best metric, and whether they can be used.

    A run is running, finished, interrupted (go on with `diffflow train --out RUN --resume auto`), or damaged, and then
    the reason stands below. Nothing is loaded: files are looked at.

    Examples:
        diffflow runs
        diffflow runs path/to/runs
        diffflow runs path/to/runs --json
    """

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = "runs"
    """Folder that holds run directories; or one of these."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON instead of a table."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        home = Path(self.folder)
        try:
            runs = [look(path) for path in ([home] if is_run(home) else filter(is_run, home.iterdir()))]
        except FileNotFoundError:
            raise UsageError(
                f"there is no folder {home} here: name the folder that holds the runs, or make one (`diffflow demo`, "
                "`diffflow train SOURCE`)."
            ) from None
        except OSError as e:
            raise UsageError(f"{home} cannot be listed: {e.strerror}. Name the folder that holds the runs.") from None
        runs.sort(key=lambda run: natural(run["name"]))
        if self.json:
            print(json.dumps(runs, indent=1))
        elif runs:
            print_runs(runs)
        else:
            print(f"no runs in {home}")
        return 0


def is_run(path: Path) -> bool:
    """Whether this folder is a run, or what is left of one."""
    return any((path / name).exists() for name in ("run.json", "config.yaml", "checkpoints", lock.NAME))


def natural(name: str) -> list[Any]:
    """A key that sorts run-2 before run-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def look(path: Path) -> dict[str, Any]:
    """One run as plain values; what is not known is None. `reason`: why it is damaged."""
    run: dict[str, Any] = {"name": path.name or path.resolve().name, "path": str(path), "state": "damaged"}
    run |= dict.fromkeys(("data", "model", "steps", "minutes", "metric", "writer", "reason"))
    writer = lock.holder(path)
    try:
        about = mapping(path / "run.json", json.loads)
        config = mapping(path / "config.yaml", yaml.safe_load)
        if not isinstance(about.get("data"), dict):
            raise ValueError("run.json does not say what the data are")
        run["data"] = str(about["data"].get("name", "?"))
        run["model"] = kind(str(config.get("type", "ScoreConfig")))
        run |= training_so_far(path, about)
        run["state"] = "finished" if about.get("finished") else "interrupted"
        problem = missing_weights(path)
        if problem is not None and not any(path.glob("*.safetensors")):
            run |= {"state": "damaged", "reason": problem}
        run["metric"] = headline(path)
    except PROBLEMS as e:
        run["reason"] = " ".join(str(e).split()) or type(e).__name__
    if writer is not None:
        run |= {"state": "running", "writer": str(writer), "reason": None}
    return run


def mapping(file: Path, read: Any) -> dict[str, Any]:
    """The table in a file. Raises ValueError, naming the file, for anything else."""
    try:
        content = read(file.read_text())
    except FileNotFoundError:
        raise ValueError(f"there is no {file.name}") from None
    except PROBLEMS as e:
        raise ValueError(f"{file.name} cannot be read: {e}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no settings")
    return content


def kind(name: str) -> str:
    """The family of models in words: DiscriminatorFlowConfig is a discriminator flow."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name.rpartition(":")[2].removesuffix("Config"))
    return " ".join(word if word.isupper() else word.lower() for word in words) or name


def training_so_far(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Steps and minutes of training so far, from the last whole line of the log."""
    try:
        with open(path / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - (1 << 16)))
            lines = file.read().splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        try:
            last = json.loads(line)
            return {"steps": int(last["step"]), "minutes": round(float(last["seconds"]) / 60, 2)}
        except PROBLEMS:
            continue
    return {"steps": about.get("step")}


def missing_weights(path: Path) -> str | None:
    """Why there are no weights to use, as far as names and sizes of files tell; None: there are."""
    reason = "it holds no checkpoint"
    saved = [p for p in (path / "checkpoints").glob("*") if p.name.isdecimal()]
    for checkpoint in sorted(saved, key=lambda p: int(p.name), reverse=True):
        try:
            manifest = mapping(checkpoint / "manifest.json", json.loads)
            short = [name for name, entry in manifest.items() if (checkpoint / name).stat().st_size != entry["bytes"]]
        except PROBLEMS as e:
            reason = f"checkpoint {checkpoint.name} is not whole: {e}"
            continue
        if not short:
            return None
        reason = f"checkpoint {checkpoint.name} is not whole: {', '.join(short)} has another size than was written"
    return reason


def headline(path: Path) -> dict[str, Any] | None:
    """The metric that stands for a run: of its evaluation, else the least distance of its frontier."""
    try:
        metrics = {m["name"]: m for m in mapping(path / "evaluation.json", json.loads)["metrics"]}
        best = metrics[next((name for name in HEADLINES if name in metrics), next(iter(metrics)))]
        return {"name": str(best["name"]), "value": float(best["value"]), "stderr": float(best["stderr"])}
    except (*PROBLEMS, StopIteration):
        pass
    try:
        frontier = mapping(path / "frontier.json", json.loads)
        best = min(frontier["points"], key=lambda p: p["distance"])
        return {"name": str(frontier["distance"]), "value": float(best["distance"]), "stderr": float(best["stderr"])}
    except PROBLEMS:
        return None


def print_runs(runs: Sequence[Mapping[str, Any]]) -> None:
    """Print the runs as a table, and below it what is wrong with those that are damaged, or who is training."""
    rows = table("run", "data", "model", "steps", "minutes", "best metric", "state")
    rows.columns[0].overflow = rows.columns[1].overflow = "fold"
    for k in (3, 4):
        rows.columns[k].justify = "right"
    for run in runs:
        m, steps, minutes = run["metric"], run["steps"], run["minutes"]
        best = "-" if m is None else f"{m['name']} {plus_minus(m['value'], m['stderr'])}"
        numbers = ("-" if steps is None else f"{steps:,}", "-" if minutes is None else f"{minutes:.3g}")
        rows.add_row(run["name"], run["data"] or "-", run["model"] or "-", *numbers, best, run["state"])
    out = to_stdout()
    width = min(out.width, WIDTH) if out.is_terminal else WIDTH
    to_stdout(width).print(rows)
    for run in runs:
        if note := run["reason"] or (run["writer"] and f"trained by {run['writer']}"):
            print(f"{run['name']}: {note}")


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Runs, args).main()
