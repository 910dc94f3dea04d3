"""Distillation measured: distance to the data and seconds of samples in 1, 2 and 4 network evaluations.

A trained denoiser is sampled by its default solver, with noise and without, by calibrated plans and, where --peers asks
for it, by the best configuration of other libraries (solvers/peers.py), chosen with hindsight by the distance of 300
samples. Its sampler of 1, 2 and 4 steps is trained into a generator (`diffflow distill`) by

    endpoints   the fine solutions of the same noise: plain distillation, the control
    score       the difference of two scores
    ratio       the log-ratio of a discriminator
    both        the two together

from several seeds and for the same time of training: --updates (one for each of --steps) are those of the score
difference, and the others get as many as take as long, by the time of single updates that are measured in turns before
anything else, on one thread (so that a machine that is slower later changes nothing). Distance: Frechet distance in the
features of a judge, of n samples, classes as often as in the data, to the training data; beside it precision and recall
in the same features, the distance to the nearest training image over that of held-out ones (0 for copies), and seconds
per 1000 samples, all networks included (a generator has one, as the solver; discriminator and second denoiser only
train): the least of many draws that take turns when all else is done, in one process on one thread. A generator that
--work does not have any more keeps the time it had.

    python benchmarks/keep.py results/mnist-edm runs/mnist-edm        (or train it: likelihood/README.md)
    diffflow calibrate runs/mnist-edm --steps 1 2 3 4 6 8
    python benchmarks/few_steps/distill.py runs/mnist-edm --data path/to/mnist --features lenet=lenet.pth --out x

writes x.json and x.png. Cells that x.json has are kept, so the command goes on where it stopped, and other --seeds can
be added later, for some of --steps and --by, too; the times are taken anew. The picture shows generators of --longer
files beside.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import diffflow as df
from diffflow import figures, files
from diffflow.metrics import embedding, extractor, frechet
from diffflow.metrics.neighbours import nearest, prdc
from diffflow.models.base import TrainConfig
from diffflow.models.presets import DATA_SCALES, scale_for
from diffflow.models.presets.by_model import distilled
from diffflow.models.settings.common import Dials
from diffflow.models.settings.serialise import ConfigError, load_yaml, replace
from diffflow.runs.frontier import Point, plot_frontier
from diffflow.training.batches import Batches
from diffflow.training.distributed import Process, find_device
from diffflow.training.loop import fit
from diffflow.training.state import TrainingState
from diffflow.training.train import train

sys.path.append(str(Path(__file__).parents[1] / "solvers"))  # peers.py, imported where --peers asks for it

SCREENED = 300  # samples by which the best peer is chosen
TIMED = 64  # samples that a setting is timed with
Labels = torch.Tensor | None
Draw = Callable[[int, Labels, df.Noise], torch.Tensor]
MOVERS = ("endpoints", "score", "ratio", "both")
TITLES = {
    "solver": "solver",
    "noisy": "solver with noise",
    "plan": "solver, calibrated plan",
    "peer": "best solver of other libraries",
    "endpoints": "distillation (control)",
    "score": "score difference",
    "ratio": "log-ratio",
    "both": "score difference and log-ratio",
}


@dataclass(frozen=True)
class Cell:
    """One setting: how (solver, plan or a mover), with how many evaluations, from which seed."""

    how: str
    steps: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.how} {self.steps} {self.seed}"


class Judge:
    """The training data in a judge's features, once for all cells of a process."""

    def __init__(self, run: df.Run, source: str | None, features: str, n: int):
        ask = run.config.data if source is None else replace(run.config.data, {"source": source})
        self.data, self.held, self.n = ask.load(), ask.load("test") if run.data["split"] == "train" else None, n
        self.see = embedding(extractor(features, self.data, 0))
        self.real = self.see(self.data.x)
        other = self.data.x if self.held is None else self.held.x
        self.other = self.see(other)

    def __call__(self, x: torch.Tensor) -> dict[str, Any]:
        bytes_ = (x * 255).round().byte()
        seen = self.see(bytes_)
        found = frechet(seen, self.real, limit=self.n)
        scores = {m.name: m for m in prdc(seen, self.real, self.other, limit=2000)}
        held = None if self.held is None else self.held.x
        copies = {m.name: m for m in nearest(bytes_, self.data.x, held, limit=1000)}
        return {
            "frechet": found.value,
            "stderr": found.stderr,
            "precision": scores["precision"].value,
            "recall": scores["recall"].value,
            "nearest_ratio": copies["nearest_ratio"].value,
        }


def planned(run: df.Run, steps: int) -> df.Plan | None:
    """The run's own plan of so many steps without churn or guidance, if there is one."""
    return run.plan(Dials(steps))


def best_peer(run: df.Run, labels: Labels, judge: Judge, steps: int) -> str:
    """The name of the peer that does best on few samples."""
    from peers import peers

    def distance(peer: Any) -> float:
        try:
            x = peer.draw(run, SCREENED, labels, df.Noise(7), steps)
            found = frechet(judge.see((x * 255).round().byte()), judge.real, limit=SCREENED).value
        except (ValueError, IndexError, ZeroDivisionError, RuntimeError):  # too few steps for this method
            return float("inf")
        return found if found == found else float("inf")

    return min((p for p in peers() if p.least <= steps), key=distance).name


def home(cell: Cell, options: argparse.Namespace) -> Path:
    """Where a generator is trained."""
    return Path(options.work) / cell.name.replace(" ", "-")


def drawn(run: df.Run, cell: Cell, options: argparse.Namespace, setting: str = "") -> Draw:
    """How a cell draws n samples of these classes. setting: the peer's name, where it is one."""
    if cell.how == "peer":
        from peers import peers

        peer = next(p for p in peers() if p.name == setting)
        return lambda n, labels, noise: peer.draw(run, n, labels, noise, cell.steps)
    how: dict[str, Any] = {}
    if cell.how in MOVERS:
        run = df.load(home(cell, options), device=options.device)
    else:
        how = {"steps": cell.steps, "churn": 1.0 if cell.how == "noisy" else 0.0, "plans": cell.how == "plan"}
    return lambda n, labels, noise: run.sample(n, labels, noise=noise, **how).last


def clocked(
    run: df.Run, rows: list[dict[str, Any]], labels: Labels, options: argparse.Namespace, rounds: int = 20
) -> dict[str, float]:
    """Seconds per 1000 samples, by "how steps": the least of many short draws, the settings taking turns."""
    ready: dict[str, Draw] = {}
    for row in rows:
        cell = Cell(row["how"], row["steps"], row["seed"])
        if cell.how not in MOVERS or home(cell, options).exists():
            ready.setdefault(f"{cell.how} {cell.steps}", drawn(run, cell, options, row.get("setting", "")))
    found = dict.fromkeys(ready, float("inf"))
    for k, (name, draw) in itertools.product(range(rounds + 1), ready.items()):
        begun = time.perf_counter()
        draw(TIMED, None if labels is None else labels[:TIMED], df.Noise(k))
        if k:  # the first one warms up
            found[name] = min(found[name], 1000 * (time.perf_counter() - begun) / TIMED)
    return found


def settled(run: df.Run, cell: Cell, options: argparse.Namespace) -> TrainConfig:
    """The settings that train a cell."""
    settings = {
        "fit.minutes": None,
        "fit.seed": cell.seed,
        "fit.sample_minutes": 1e6,
        "fit.tensorboard": False,
        "data.source": options.data or run.config.data.source,
    }
    scale = DATA_SCALES[scale_for(settings["data.source"])]
    return replace(distilled(scale, cell.how, cell.steps, planned(run, cell.steps)).after(run.config), settings)


def paces(run: df.Run, options: argparse.Namespace, rounds: int = 3) -> dict[str, float]:
    """Seconds of an update, by "how steps": the least of a few, the settings taking turns."""
    place = Process(find_device(options.device))
    ready: dict[str, tuple[TrainingState, Batches, TrainConfig]] = {}
    for how, steps in itertools.product(options.by, options.steps):
        config = settled(run, Cell(how, steps, 0), options)
        data = config.data.load()
        modules = {k: module.to(place.device) for k, module in config.build(data.meta()).items()}
        training = TrainingState(config.objective(modules, data.meta()), config.players())
        ready[f"{how} {steps}"] = training, Batches(data, 0, place.device, config.data.dequantise), config
    found = dict.fromkeys(ready, float("inf"))
    for k, (name, (training, feed, config)) in itertools.product(range(1, rounds + 2), ready.items()):
        begun = time.perf_counter()
        fit(training, feed, dataclasses.replace(config.fit, steps=k, minutes=None), place)
        if k > 1:  # the first one warms up
            found[name] = min(found[name], time.perf_counter() - begun)
    return found


def begun_with(home: Path, config: TrainConfig) -> bool:
    """Whether a cell was begun there with these settings: then it goes on where it was interrupted."""
    try:
        return load_yaml(home / "config.yaml") == config
    except ConfigError:
        return False


def made(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """Train what must be trained, sample, and measure."""
    run = df.load(options.run, device=options.device)
    judge = Judge(run, options.data, options.features, options.n)
    labels = judge.data.labels(options.n) if run.classes else None
    row: dict[str, Any] = {"how": cell.how, "steps": cell.steps, "seed": cell.seed, "updates": 0}
    if cell.how in MOVERS:
        config = replace(settled(run, cell, options), {"fit.steps": options.budget[f"{cell.how} {cell.steps}"]})
        place = home(cell, options)
        if not begun_with(place, config):
            shutil.rmtree(place, ignore_errors=True)
        start = {"resume": "auto"} if place.exists() else {"init_from": options.run}
        quiet = Console(file=io.StringIO())
        train(config, place, device=options.device, data=judge.data, console=quiet, **start)
        row["updates"] = options.budget[f"{cell.how} {cell.steps}"]
    elif cell.how == "peer":
        row["setting"] = best_peer(run, labels, judge, cell.steps)
    draw = drawn(run, cell, options, row.get("setting", ""))
    return row | judge(draw(options.n, labels, df.Noise(1000 + cell.seed)))


def work(task: tuple[Cell, argparse.Namespace]) -> dict[str, Any]:
    torch.set_num_threads(1)
    return made(*task)


def summary(rows: list[dict[str, Any]], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Means over the seeds, with their standard errors, by how and steps; seconds: per 1000 samples, as far as known,
    by "how steps"."""
    found = []
    for (how, steps), group in itertools.groupby(
        sorted(rows, key=lambda r: (list(TITLES).index(r["how"]), r["steps"])), key=lambda r: (r["how"], r["steps"])
    ):
        cells = list(group)
        took = seconds.get(f"{how} {steps}")
        line: dict[str, Any] = {"how": how, "steps": steps, "seeds": len(cells), "seconds": took}
        for key in ("frechet", "precision", "recall", "nearest_ratio", "updates"):
            values = [c[key] for c in cells]
            line[key] = statistics.fmean(values)
            if key == "frechet":
                std = statistics.stdev(values) if len(values) > 1 else cells[0]["stderr"]
                line["stderr"] = std / len(values) ** 0.5
        found.append(line)
    pure = [line for line in found if line["how"] not in MOVERS]
    for line in found:
        cheap = [p for p in pure if p["steps"] <= line["steps"]]
        if line["how"] in MOVERS and cheap:
            best = min(cheap, key=lambda p: p["frechet"])
            line["over_pure"] = line["frechet"] / best["frechet"]
            line["recall_gain"] = line["recall"] - best["recall"]
            if line["seconds"] and best["seconds"]:
                line["seconds_over_pure"] = line["seconds"] / best["seconds"]
        control = [c for c in found if c["how"] == "endpoints" and c["steps"] == line["steps"]]
        if line["how"] in MOVERS[1:] and control:
            error = (line["stderr"] ** 2 + control[0]["stderr"] ** 2) ** 0.5
            line["better_than_control"] = (control[0]["frechet"] - line["frechet"]) / error if error else None
    return found


def show(lines: list[dict[str, Any]], floor: float) -> None:
    table = Table(
        "evaluations", "how", "Frechet", "over pure", "sigmas below control", "recall", "nearest ratio", "s per 1000",
        "over pure", "updates", box=None, title=f"held-out data {floor:.3f}",
    )  # fmt: skip
    for line in sorted(lines, key=lambda line: line["steps"]):
        over, better, took, equal = (
            "" if (v := line.get(key)) is None else f"{v:.2f}"
            for key in ("over_pure", "better_than_control", "seconds", "seconds_over_pure")
        )
        table.add_row(
            str(line["steps"]), line["how"], f"{line['frechet']:.3f} ± {line['stderr']:.3f}", over, better,
            f"{line['recall']:.3f}", f"{line['nearest_ratio']:.2f}", took, equal, f"{line['updates']:.0f}",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data")
    parser.add_argument("--features", default="own")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--updates", type=int, nargs="+", default=[300, 250, 200])
    parser.add_argument("--pure", type=int, nargs="*", default=[1, 2, 3, 4, 6, 8])
    parser.add_argument("--peers", type=int, nargs="*", default=[], help="evaluations at which to look for the best")
    parser.add_argument("--by", nargs="+", default=list(MOVERS), choices=MOVERS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--longer", nargs="*", default=[], help="files of other --updates, for the picture")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device")
    parser.add_argument("--work", default="runs/distill")
    parser.add_argument("--out", default="results/distill")
    options = parser.parse_args()
    if len(options.steps) != len(options.updates):
        parser.error("give --updates for each of --steps")
    torch.set_num_threads(1)
    where = Path(options.out).with_suffix(".json")
    asked = dict(zip(map(str, options.steps), options.updates, strict=True))
    protocol = {
        "run": Path(options.run).name,
        "n": options.n,
        "features": options.features.partition("=")[0],
        "updates": asked,
    }
    known = json.loads(where.read_text()) if where.exists() else {"cells": []} | protocol
    protocol["updates"] = known["updates"] | asked
    if any(known["updates"].get(steps, n) != n for steps, n in asked.items()):
        parser.error(f"{where} was measured with {known['updates']} --updates: choose another --out")
    if differing := [key for key in ("run", "n", "features") if known.get(key) != protocol[key]]:
        parser.error(f"{where} was measured with other {', '.join(differing)}: choose another --out")
    rows: list[dict[str, Any]] = known["cells"]
    done = {Cell(r["how"], r["steps"], r["seed"]) for r in rows}
    run = df.load(options.run, device=options.device)
    if "paces" not in known:
        known["paces"] = paces(run, options) if options.by else {}
    if unknown := [f"{how} {n}" for how in options.by for n in options.steps if f"{how} {n}" not in known["paces"]]:
        parser.error(f"{where} has no time of an update of {', '.join(unknown)}: choose another --out")
    base = {str(n): pace for n in options.steps if (pace := known["paces"].get(f"score {n}"))}
    options.budget = {
        name: round(protocol["updates"][steps] * base.get(steps, pace) / pace)
        for name, pace in known["paces"].items()
        for steps in [name.split()[1]]
    }
    plans = [n for n in options.pure if planned(run, n) is not None]
    cells = [Cell(how, n, s) for how in ("solver", "noisy") for n in options.pure for s in options.seeds]
    cells += [Cell("plan", n, s) for n in plans for s in options.seeds]
    cells += [Cell("peer", n, options.seeds[0]) for n in options.peers]
    cells += [Cell(how, n, s) for n in options.steps for s in options.seeds for how in options.by]
    todo = [cell for cell in cells if cell not in done]
    judge = Judge(run, options.data, options.features, options.n)
    floor = frechet(judge.other, judge.real, limit=options.n).value
    seconds: dict[str, float] = known.get("seconds", {})
    say = Console(stderr=True)

    def save() -> list[dict[str, Any]]:
        lines = summary(rows, seconds)
        record = {
            "command": " ".join(["python", *sys.argv]),
            "versions": {"python": platform.python_version()} | {p: version(p) for p in ("diffflow", "torch")},
            "floor": floor,
            "paces": known["paces"],
            "seconds": seconds,
            "summary": lines,
            "cells": rows,
        } | protocol
        files.write_json(where, record)
        return lines

    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(options.workers, maxtasksperchild=1) as pool:
        for count, row in enumerate(pool.imap_unordered(work, [(cell, options) for cell in todo]), 1):
            rows.append(row)
            save()
            say.print(f"{count}/{len(todo)} {row['how']} {row['steps']}: {row['frechet']:.3f}", highlight=False)
    labels = judge.data.labels(options.n) if run.classes else None
    seconds |= clocked(run, rows, labels, options)
    lines = save()
    shown = [(line, TITLES[line["how"]]) for line in lines]
    for path in options.longer:
        other = json.loads(Path(path).read_text())
        if any(other[key] != protocol[key] for key in ("run", "n", "features")):
            parser.error(f"--longer {path} was measured on another run, judge or number of samples")
        shown += [(x, f"{TITLES[x['how']]}, {x['updates']:.0f} updates") for x in other["summary"] if x["updates"]]
    points = [
        Point(Dials(p["steps"]), False, p["frechet"], p["stderr"], p["steps"], p["seconds"], title)
        for p, title in shown
        if p["seconds"]
    ]
    name = f"Frechet distance@{options.n} ({options.features.partition('=')[0]})"
    files.write(where.with_suffix(".png"), figures.png(plot_frontier(points, name, floor)))
    show(lines, floor)


if __name__ == "__main__":
    main()
