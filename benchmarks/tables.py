"""Densities of small tables: diffusion beside flows made for densities, in equal time.

UCI tables with fixed splits (airfoil, energy, protein, wine; folder --data with NAME.data.csv.gz and
NAME.test_mask.csv.gz). Columns are standardised by the training rows; since many are discrete and some rows are
duplicated, where any density is unbounded, all rows get one fixed draw of N(0, .05^2) in these units, the same for
every model. A tenth of the training rows (at most 2000) decides on settings and early stopping, for every model;
at most 2000 test rows are scored.

    diffusion   the preset `table` of this package; likelihood by the probability flow, exact trace, at the noise where
                the path ends: .03 to .1, by the validation rows
    nsf, maf    zuko's neural spline flow and masked autoregressive flow, 5 transforms of 2 x 128 hidden units
    gmm         Gaussian mixtures with full covariances (scikit-learn), 1 to 128 components

Each trained model gets the same wall time on one thread, half of it for each of two weight decays (.05 and .3 for the
diffusion, .15 and .5 for the flows); the mixture as much as it needs, at most that. Samples of the diffusion model
are compared with real rows: a classifier's accuracy in telling them apart (1/2 is perfect), the root mean square of
the columns' W2, and the median distance to the closest training row over that of test rows, each beside its floor,
real rows against real rows.

A cell is one (table, split, model), a JSON file under --cells; finished cells are skipped.

    python benchmarks/tables.py --data path/to/uci --out results/tables.json           (about two hours on one core)
    python benchmarks/tables.py --data path/to/uci --quick --out build/tables.json     (minutes; numbers mean nothing)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import diffflow as df
from diffflow.training.config import replace
from diffflow.training.fit import train as fit
from diffflow.training.select import part

TABLES = {"airfoil": 120.0, "energy": 120.0, "wine": 120.0, "protein": 240.0}  # seconds of each trained model
MODELS = ("gmm", "maf", "nsf", "diffusion")
DECAYS = {"diffusion": (0.05, 0.3), "nsf": (0.15, 0.5), "maf": (0.15, 0.5)}
NOISE = 0.05
ENDS = (0.03, 0.04, 0.05, 0.065, 0.08, 0.1)


def rows(home: Path, name: str, split: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training, validation and test rows in standardised units, noised, float32 (n, d)."""
    x, mask = (np.genfromtxt(home / f"{name}.{kind}.csv.gz", delimiter=",") for kind in ("data", "test_mask"))
    test = mask[:, split].astype(bool)
    random = np.random.RandomState(split)
    x = (x - x[~test].mean(0)) / x[~test].std(0) + NOISE * random.randn(*x.shape)
    train, order = x[~test], random.permutation((~test).sum())
    k = min(len(train) // 10, 2000)
    return tuple(torch.from_numpy(v).float() for v in (train[order[k:]], train[order[:k]], x[test][:2000]))  # type: ignore


def mixture(train: Tensor, aside: Tensor, test: Tensor, seconds: float) -> tuple[Tensor, dict[str, Any]]:
    from sklearn.mixture import GaussianMixture

    best, begun = None, time.perf_counter()
    for k in (1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128):
        if 3 * k > len(train) or time.perf_counter() - begun > seconds:
            break
        for floor in (1e-3, 3e-4):
            law = GaussianMixture(k, reg_covar=floor, random_state=0, max_iter=300).fit(train.numpy())
            value = float(law.score(aside.numpy()))
            if best is None or value > best[0]:
                best = value, law, {"components": k, "floor": floor, "validation": value}
    assert best is not None
    return torch.from_numpy(best[1].score_samples(test.numpy())), best[2]


def flow(kind: str, train: Tensor, aside: Tensor, test: Tensor, seconds: float) -> tuple[Tensor, dict[str, Any]]:
    import zuko

    make, best, decays = {"nsf": zuko.flows.NSF, "maf": zuko.flows.MAF}[kind], None, DECAYS[kind]
    for decay in decays:
        torch.manual_seed(0)
        model, begun, step = make(train.shape[1], transforms=5, hidden_features=(128, 128)), time.perf_counter(), 0
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=decay)
        while time.perf_counter() - begun < seconds / len(decays):
            loss = -model().log_prob(train[torch.randint(len(train), (256,))]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            step += 1
            if step % 50 == 0:
                with torch.no_grad():
                    value = model().log_prob(aside).mean().item()
                if best is None or value > best[0]:
                    with torch.no_grad():
                        best = value, model().log_prob(test), {"decay": decay, "step": step, "validation": value}
    assert best is not None
    return best[1].double(), best[2]


def diffusion(
    home: Path, train: Tensor, aside: Tensor, test: Tensor, seconds: float
) -> tuple[Tensor, dict[str, Any], dict[str, Any]]:
    """Two trainings by the package's own loop; the one with the least loss on the rows aside is scored."""
    both = torch.cat([train, aside])
    np.savetxt(home / "rows.csv", both.numpy(), delimiter=",", fmt="%.9g")
    data = df.data.load(home / "rows.csv", "all", columns=df.data.Columns(discrete="keep"))
    share, found, decays = len(aside) / len(both), [], DECAYS["diffusion"]
    for decay in decays:
        config = replace(
            df.recipes.recipe("table").config,
            {
                "data.source": str(home / "rows.csv"),
                "denoiser.weight_decay": decay,
                "fit.minutes": 0.94 * seconds / len(decays) / 60,  # the rest is for choices
                "fit.holdout": share,
                "fit.tensorboard": False,
                "fit.sample_minutes": 1e4,
                "fit.checkpoint_minutes": 1e4,
            },
        )
        path = home / f"decay-{decay}"
        fit(config, path, data=data, console=Console(quiet=True))
        found.append((json.loads((path / "chosen.json").read_text())["loss"], decay, path))
    _, decay, path = min(found)
    levels, run, (_, kept) = {}, df.load(path), part(data, share)
    assert kept is not None
    for sigma in ENDS:  # the path may end at any noise: by the density there of the rows that the run kept aside
        levels[sigma] = scored(ended(run, sigma), kept.x[:200]).mean().item()
    sigma = max(levels, key=lambda s: levels[s])
    run = ended(run, sigma)
    nats = scored(run, test)
    real, other = both[: len(both) // 2], both[len(both) // 2 :]
    x = run.sample(min(2000, len(both) // 2)).last
    told = df.metrics.c2st(x, real, other)
    columns = df.metrics.marginal_w2(x, real, other)
    nearest = df.metrics.nearest(x, both, test)
    about = {
        "decay": decay,
        "sigma_min": sigma,
        "validation": levels,
        "step": run.step,
        "parameters": sum(p.numel() for p in run.denoiser.parameters()),
    }
    return nats, about, {m.name: m.to_dict() for m in (told, columns, *nearest)}


def ended(run: df.Run, sigma: float) -> df.Run:
    """The same fields, followed down to another noise."""
    return dataclasses.replace(run, config=replace(run.config, {"sampling.sigma_min": sigma}))


def scored(run: df.Run, x: Tensor) -> Tensor:
    """Log-density of rows in the units of their file, at the noise where the path ends (n,)."""
    return torch.cat([run.log_prob(part).value.double() for part in x.split(500)]) + run.transform.log_units(x)


def cell(task: tuple[str, int, str, float, str, str]) -> None:
    """One measurement, written to its file."""
    name, split, model, seconds, data, cells = task
    torch.set_num_threads(1)
    where = Path(cells) / f"{name}-{split}-{model}.json"
    if where.exists():
        return
    train, aside, test = rows(Path(data), name, split)
    begun, extra = time.perf_counter(), {}
    if model == "gmm":
        nats, about = mixture(train, aside, test, seconds)
    elif model == "diffusion":
        home = Path(cells) / f"{name}-{split}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        nats, about, extra = diffusion(home, train, aside, test, seconds)
    else:
        nats, about = flow(model, train, aside, test, seconds)
    record = {
        "table": name,
        "split": split,
        "model": model,
        "rows": [len(train), len(aside), len(test)],
        "nats": nats.mean().item(),
        "stderr": (nats.std() / math.sqrt(len(nats))).item(),
        "seconds": time.perf_counter() - begun,
        "about": about,
        "samples": extra,
    }
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps(record, indent=1))
    print(f"{name} {split} {model}: {record['nats']:.3f} +- {record['stderr']:.3f} {about}", flush=True)


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over splits; the error of a mean is that of its splits' test rows. A model is as good as the best where the
    mean difference, split by split, is within one standard error of the best one's mean."""
    out: dict[str, Any] = {}
    for name in TABLES:
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
        for row in rows.values():
            row["level"] = bool(rows[best]["nats"] - row["nats"] <= rows[best]["stderr"])
        samples = [c["samples"] for c in mine if c["samples"]]
        found = {
            metric: {k: sum(s[metric][k] for s in samples) / len(samples) for k in ("value", "stderr", "floor")}
            for metric in (samples[0] if samples else ())
        }
        out[name] = {"models": rows, "best": best, "samples": found}
    return out


def show(found: dict[str, Any]) -> None:
    table = Table("table", *MODELS, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name, entry in found.items():
        values = (entry["models"].get(m) for m in MODELS)
        table.add_row(
            name, *("" if v is None else f"{v['nats']:.2f} ± {v['stderr']:.2f}{' *' * v['level']}" for v in values)
        )
    print("test log-likelihood, nats per row; * best, or within its standard error")
    Console().print(table)
    for name, entry in found.items():
        said = (f"{k} {v['value']:.3f} (floor {v['floor']:.3f})" for k, v in entry["samples"].items())
        print(f"{name}: {', '.join(said)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with NAME.data.csv.gz and NAME.test_mask.csv.gz")
    parser.add_argument("--out", type=Path, default=Path("results/tables.json"))
    parser.add_argument("--cells", help="where finished measurements are kept (default: build/tables)")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--workers", type=int, default=1, help="measurements at a time, one thread each")
    parser.add_argument("--quick", action="store_true", help="six seconds a model, one split")
    args = parser.parse_args()
    args.cells = args.cells or ("build/tables-quick" if args.quick else "build/tables")
    tasks = [
        (name, split, model, 6.0 if args.quick else TABLES[name], args.data, args.cells)
        for split in range(1 if args.quick else args.splits)
        for name in args.tables
        for model in args.models
    ]
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(args.workers, maxtasksperchild=1) as pool:
        for _ in pool.imap_unordered(cell, tasks):
            pass
    done = [json.loads(p.read_text()) for p in sorted(Path(args.cells).glob("*.json"))]
    packages = ("diffflow", "torch", "zuko", "scikit-learn")
    record = {
        "command": " ".join(["python", "benchmarks/tables.py", *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "seconds": 6.0 if args.quick else TABLES,
        "tables": summary(done),
        "cells": done,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1))
    show(record["tables"])
    print(args.out)


if __name__ == "__main__":
    main()
