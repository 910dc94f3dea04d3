"""Every model of `diffflow.models.catalogue` measured on two toys and on digits: the table of docs/guides/models.md.

A cell is (model, dataset, seed): train within a stated budget, or move particles, then sample and measure. Its outcome
is one JSON file under --out (with a picture beside it: of digits, and of 25 Gaussians at seed 0), so the script can be
stopped at any time. Finished cells are skipped as long as the settings that are stored with them are those of now;
unfinished runs go on from their checkpoint. Models that need a data score share one denoiser per dataset and seed,
trained once, under --runs. `--table` only writes docs/guides/models.md from the JSON files; a missing cell is shown as
missing.

    python benchmarks/models/models.py --workers 2
    python benchmarks/models/models.py --only gan hinge --dataset 25gaussians
    python benchmarks/models/models.py --only gan score-gan discriminator-flow --dataset digits --minutes 5
    python benchmarks/models/models.py --table
    python benchmarks/models/models.py --quick --out /tmp/quick       every cell in seconds, to see that it works

Measured: on toys, 2000 samples against as many exact draws of the law (the floor: other exact draws); on digits, 500
samples against the 500 held-out images (the floor: 500 training images), k = 5, in pixels of 8 bits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mnist import portable
from model_table import write_page
from rich.console import Console
from torch import Tensor

import diffflow as df
from diffflow import figures, files, metrics
from diffflow.models import flows
from diffflow.models.base import TrainConfig
from diffflow.models.catalogue import MODELS
from diffflow.models.presets import preset
from diffflow.models.score_gan import ScoreGANConfig
from diffflow.models.settings.serialise import replace, to_dict, to_yaml
from diffflow.training.run_folder import environment
from diffflow.training.train import train

MINUTES = {"25gaussians": 3.0, "checkerboard": 1.0, "digits": 4.0}  # of training, on one thread
DATASETS = tuple(MINUTES)
GROUPS = {"25gaussians": None, "checkerboard": torch.arange(8).repeat_interleave(100)}  # components of a mode
SILENT = Console(quiet=True)


@dataclass(frozen=True)
class Budget:
    """Minutes of training (`override` for all datasets, or their own MINUTES) and numbers of samples."""

    override: float | None
    toy_samples: int
    digits_samples: int
    device: str | None
    quick: bool

    def minutes(self, dataset: str) -> float:
        return MINUTES[dataset] if self.override is None else self.override

    def samples(self, dataset: str) -> int:
        return self.digits_samples if dataset == "digits" else self.toy_samples


@dataclass(frozen=True)
class Cell:
    model: str
    dataset: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.model}--{self.dataset}--{self.seed}"


def seeds(dataset: str, quick: bool) -> range:
    return range(1 if dataset == "digits" or quick else 3)


@dataclass(frozen=True)
class Drawn:
    """Samples in data units, network evaluations each, the runs that they rest on, in the order of their training, and
    the classes asked for."""

    x: Tensor
    nfe: int
    runs: Sequence[df.Run] = ()
    labels: Tensor | None = None


DIALS: dict[str, dict[str, Any]] = {  # rows that sample the shared denoiser on its schedule
    "score-sde": {"steps": 50, "churn": 1.0},
    "score-ode": {"steps": 20, "churn": 0.0},
    "edm-churn": {"steps": 25, "churn": 0.5, "solver": df.NoiseRaising()},
    "slcd": {"steps": 50, "churn": 0.5},
}


def option(model: str, flag: str) -> str | None:
    """The word after a flag in a model's last command: the preset that trains it, or the flow that it is."""
    words = MODELS[model].commands[-1].split()
    return words[words.index(flag) + 1] if flag in words else None


def needs_denoiser(cell: Cell) -> bool:
    name, flow = option(cell.model, "--preset"), option(cell.model, "--model")
    if name is not None:
        return bool(preset(name, cell.dataset).config.needs_start)
    return flow is None or (cell.dataset == "digits" and flows.FLOWS[flow].needs_score)


# -- what a cell is ----------------------------------------------------------------------------------------------------
def trainer(name: str, dataset: str, seed: int, budget: Budget) -> TrainConfig:
    """The settings of a preset on a dataset."""
    config = preset(name, dataset).config
    if isinstance(config, ScoreGANConfig):
        config = config.after(scorer(dataset, seed, budget))
    minutes = budget.minutes(dataset)
    settings = {"data.source": dataset, "fit.seed": seed, "fit.minutes": minutes, "fit.steps": None}
    return replace(config, settings | {"fit.sample_minutes": 1e6, "fit.tensorboard": False})


def scorer(dataset: str, seed: int, budget: Budget) -> TrainConfig:
    """The settings of the score model that all score-based rows of a dataset and seed share."""
    return trainer("demo" if dataset == "digits" else "toy", dataset, seed, budget)


def flow_steps(flow: str, budget: Budget) -> int:
    return 10 if budget.quick else flows.FLOWS[flow].steps


def asked(cell: Cell, budget: Budget) -> dict[str, Any]:
    """The settings that decide a cell's outcome, kept with it, in their JSON form. The numbers of a flow without
    training are code, and not among them: whoever changes flows.py deletes the flow's cells."""
    name, flow = option(cell.model, "--preset"), option(cell.model, "--model")
    settings: dict[str, Any] = {"samples": budget.samples(cell.dataset)}
    if flow is not None:
        settings |= {"flow": flow, "steps": flow_steps(flow, budget)}
    if name is not None:
        settings |= {"config": to_dict(trainer(name, cell.dataset, cell.seed, budget))}
    if needs_denoiser(cell):
        settings |= {"denoiser": to_dict(scorer(cell.dataset, cell.seed, budget))}
    settings |= {"dials": {k: str(v) for k, v in DIALS.get(cell.model, {}).items()}}
    return json.loads(json.dumps(settings))


def current(cell: Cell, budget: Budget, out: Path) -> bool:
    """Whether the cell is finished, with the settings of now."""
    file = out / f"{cell.name}.json"
    return file.exists() and json.loads(file.read_text())["settings"] == asked(cell, budget)


# -- a cell ------------------------------------------------------------------------------------------------------------
def fitted(config: TrainConfig, label: str, budget: Budget, runs: Path, begin: df.Run | None = None) -> df.Run:
    """The run of these settings, trained to the end of the budget (resumed where it stopped).

    label  what its directory is called, before a hash of the settings: others make another run
    begin  the run to start from, where the model needs one
    """
    text = to_yaml(config) + (to_yaml(begin.config) if begin is not None else "")
    out = runs / f"{label}--{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    resume = "auto" if out.exists() else None
    start = None if resume or begin is None else begin.path
    train(config, out, resume=resume, init_from=start, device=budget.device, console=SILENT)
    return df.load(out, device=budget.device)


def denoiser(dataset: str, seed: int, budget: Budget, runs: Path) -> df.Run:
    """The score model that all score-based rows of a dataset and seed share."""
    return fitted(scorer(dataset, seed, budget), f"denoiser--{dataset}--{seed}", budget, runs)


def draw(cell: Cell, budget: Budget, runs: Path) -> Drawn:
    """Samples of a cell."""
    n, noise = budget.samples(cell.dataset), df.Noise(cell.seed).fork("samples")
    begin = denoiser(cell.dataset, cell.seed, budget, runs) if needs_denoiser(cell) else None
    behind = [] if begin is None else [begin]
    flow = option(cell.model, "--model")
    if flow is not None:
        return move(flow, cell, behind, n, noise, budget)
    name, dials = option(cell.model, "--preset"), DIALS.get(cell.model, {})
    if name is not None:
        behind.append(fitted(trainer(name, cell.dataset, cell.seed, budget), cell.name, budget, runs, begin))
    run = behind[-1]
    labels = torch.arange(n) % len(run.classes) if run.classes else None
    path = run.sample(n, cond=labels, noise=noise, **dials)
    return Drawn(path.last, path.nfe, behind, labels)


def move(flow: str, cell: Cell, behind: list[df.Run], n: int, noise: df.Noise, budget: Budget) -> Drawn:
    """The flow toward the law of a toy, or toward the training images with the learned score."""
    steps = flow_steps(flow, budget)
    if cell.dataset in df.TOYS:
        sde, x0, steps = flows.build(flow, df.TOYS[cell.dataset](), particles=n, steps=steps, noise=noise)
        path = df.sample(sde, x0, steps, noise=noise)
        return Drawn(path.last, path.nfe)
    data, run = df.data.load(cell.dataset), behind[-1] if behind else None
    score = None if run is None else run.denoiser
    sde, x0, steps = flows.build(flow, data.encode(data.x), score=score, particles=n, steps=steps, noise=noise)
    # particles that do not see each other can have classes of their own
    labels = None if sde.cloud or run is None or not run.classes else torch.arange(n) % len(run.classes)
    path = df.sample(sde, x0, steps, noise=noise, cond=labels)
    return Drawn(data.decode(path.last), path.nfe, behind, labels)


def trained(runs: Sequence[df.Run]) -> dict[str, Any]:
    """What the training behind a cell took: `minutes` in all, of which `denoiser_minutes` where it began from one."""
    if not runs:
        return {}
    minutes = [run.metrics()[-1]["seconds"] / 60 for run in runs]
    found = {"run": runs[-1].path.name, "steps": runs[-1].step, "minutes": round(sum(minutes), 3)}
    return found if len(runs) == 1 else found | {"denoiser_minutes": round(minutes[0], 3)}


def picture(cell: Cell, drawn: Drawn) -> bytes | None:
    """A hundred digits, class by column where there are classes, or the cloud on 25 Gaussians at the first seed."""
    if cell.dataset == "digits":
        return figures.png(figures.grid(drawn.x[:100], columns=10))
    if (cell.dataset, cell.seed) == ("25gaussians", 0):
        return figures.png(figures.scatter(drawn.x, truth=df.TOYS[cell.dataset]().sample(len(drawn.x), noise=0)))
    return None


def measure(cell: Cell, drawn: Drawn) -> list[metrics.Metric]:
    """The metrics of a cell's samples, each beside its floor."""
    x = drawn.x
    if cell.dataset == "digits":
        return measure_digits(x, drawn.labels)
    law = df.TOYS[cell.dataset]()
    real, other = (law.sample(len(x), df.Noise(10_000 * k + cell.seed)) for k in (1, 2))
    return [
        metrics.sliced_w2(x, real, other, seed=cell.seed),
        *metrics.modes(x, law, other, groups=GROUPS[cell.dataset]),
    ]


@cache
def digits_judge() -> tuple[df.data.Data, df.data.Data, metrics.Classifier]:
    """Training digits, held-out digits, and a classifier trained on the former."""
    real, held = df.data.load("digits"), df.data.load("digits", split="test")
    assert real.y is not None
    return real, held, metrics.fit_classifier(real.x, real.y)


def measure_digits(x: Tensor, labels: Tensor | None) -> list[metrics.Metric]:
    real, held, judge = digits_judge()
    x = (x * 255.0).round().to(torch.uint8)
    found = [*metrics.prdc(x, held.x, real.x, k=5), metrics.confidence(x, judge, held.x)]
    if labels is not None:
        found.append(metrics.accuracy(x, labels, judge, held.x, held.y))
    return found


def work(cell: Cell, budget: Budget, runs: Path, out: Path) -> str | None:
    """Do one cell and write its file; the error's text where it failed."""
    torch.set_num_threads(1)
    try:
        begun = time.perf_counter()
        drawn = draw(cell, budget, runs)
        seconds = time.perf_counter() - begun
        record = {
            "model": cell.model,
            "dataset": cell.dataset,
            "seed": cell.seed,
            "environment": environment() | {"command": portable(["python", *sys.argv])},
            "budget_minutes": budget.minutes(cell.dataset),
            "quick": budget.quick,
            "settings": asked(cell, budget),
            "trained": trained(drawn.runs),
            "seconds": round(seconds, 2),  # this time: of training, where it was not done before, and of sampling
            "evaluations": drawn.nfe,
            "samples": len(drawn.x),
            "metrics": [m.to_dict() for m in measure(cell, drawn)],
        }
        text, image = json.dumps(record, indent=1, allow_nan=False) + "\n", picture(cell, drawn)
    except Exception:
        return traceback.format_exc()
    if image is not None:
        files.write(out / f"{cell.name}.png", image)
    files.write(out / f"{cell.name}.json", text.encode())  # last: it marks the cell as finished
    return None


def prepare(dataset: str, seed: int, budget: Budget, runs: Path) -> str | None:
    """Train a shared denoiser before the cells that need it ask for it side by side."""
    torch.set_num_threads(1)
    try:
        denoiser(dataset, seed, budget, runs)
    except Exception:
        return traceback.format_exc()
    return None


def leave_with_parent() -> None:
    """A worker whose script was killed stops at once, instead of working on beside the next one."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


# -- all of them -------------------------------------------------------------------------------------------------------
def each(pool: ProcessPoolExecutor, job: Callable[..., str | None], asks: Iterable[tuple], console: Console) -> int:
    """Run jobs side by side, say how each went, and count the failures."""
    futures = [(ask, pool.submit(job, *ask)) for ask in asks]
    failed = 0
    for ask, future in futures:
        error = future.result()
        failed += error is not None
        name = ask[0].name if isinstance(ask[0], Cell) else f"denoiser {ask[0]} {ask[1]}"
        console.print(f"{name}: {'done' if error is None else error}", highlight=False, markup=False)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/models"), help="folder of the JSON files")
    parser.add_argument("--runs", type=Path, default=Path("runs/models"), help="folder of the trained runs")
    parser.add_argument("--page", type=Path, default=Path("docs/guides/models.md"))
    parser.add_argument("--only", nargs="*", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--dataset", nargs="*", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--minutes", type=float, help=f"of training, instead of {MINUTES}")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="seconds a cell: to see that it works")
    parser.add_argument("--table", action="store_true", help="only write the page")
    args = parser.parse_args()
    console, budget = Console(), Budget(args.minutes, 2000, 500, args.device, False)
    if args.quick:
        if args.minutes is not None:
            parser.error("--quick has minutes of its own: leave --minutes out")
        if args.out == parser.get_default("out"):
            parser.error("--quick measures nothing: give another --out, so that its files do not pass for results")
        budget = Budget(0.04, 500, 200, args.device, True)
        args.runs, args.page = args.out / "runs", args.out / "models.md"
    args.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    if not args.table:
        cells = [Cell(m, d, s) for d in args.dataset for s in seeds(d, args.quick) for m in args.only]
        cells = [c for c in cells if not current(c, budget, args.out)]
        shared = sorted({(c.dataset, c.seed) for c in cells if needs_denoiser(c)})
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(args.workers, context, leave_with_parent) as pool:
            failed += each(pool, prepare, [(d, s, budget, args.runs) for d, s in shared], console)
            failed += each(pool, work, [(c, budget, args.runs, args.out) for c in cells], console)
    write_page(args.page, args.out)
    console.print(f"{args.page}: {len(list(args.out.glob('*.json')))} cells", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
