"""Log-likelihood of four tables measured: diffusion beside normalizing flows and Gaussian mixtures, in equal time.

UCI tables with fixed splits (airfoil, energy, protein, wine; folder --data with NAME.data.csv.gz and
NAME.test_mask.csv.gz). Columns are standardised by the training rows; since many are discrete and some rows are
duplicated, where any density is unbounded, all rows get one fixed draw of N(0, .05^2) in these units, the same for
every model. A tenth of the training rows (at most 2000), the same for every model, decides on settings and early
stopping; at most 2000 test rows are scored, once, at the end.

    diffusion   the preset `table` of this package; likelihood by the probability flow, exact trace, at the noise where
                the path ends: .05 to .1
    nsf, maf    zuko's neural spline flow and masked autoregressive flow, 5 transforms of 2 x 128 hidden units
    gmm         Gaussian mixtures with full covariances (scikit-learn), 1 to 256 components

Each trained model gets the same wall time on one thread for training and choosing, evenly for every weight decay: .05
and .3 for the diffusion, .15, .5 and 2 for the flows. The mixture gets as much as it needs; no larger one is begun
after that time. Samples of the diffusion model are compared with real rows: a classifier's accuracy in telling them
apart (1/2 is perfect), the root mean square of the columns' W2, and the median distance to the closest training row
over that of test rows, each beside its floor, real rows against real rows.

A cell is one (table, split, model), a JSON file under --cells; cells that were finished with these settings are
skipped.

    python benchmarks/likelihood/tables.py --data path/to/uci --workers 2 --out results/tables.json   (45 minutes)
    python benchmarks/likelihood/tables.py --data path/to/uci --quick --out build/tables.json   (minutes; only a try)
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
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import diffflow as df
from diffflow.data.prepare import holdout
from diffflow.models.presets import preset
from diffflow.models.settings.serialise import replace
from diffflow.training.early_stopping import holdout_split
from diffflow.training.train import train as fit

TABLES = {"airfoil": 100.0, "energy": 100.0, "wine": 100.0, "protein": 120.0}  # seconds of each trained model
MODELS = ("gmm", "maf", "nsf", "diffusion")
DECAYS = {"diffusion": (0.05, 0.3), "nsf": (0.15, 0.5, 2.0), "maf": (0.15, 0.5, 2.0), "gmm": ()}
NOISE = 0.05
ENDS = (0.05, 0.065, 0.08, 0.1)


def rows(home: Path, name: str, split: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training, validation and test rows in standardised units, noised, float32 (n, d)."""
    x, mask = (np.genfromtxt(home / f"{name}.{kind}.csv.gz", delimiter=",") for kind in ("data", "test_mask"))
    test = mask[:, split].astype(bool)
    random = np.random.RandomState(split)
    x = (x - x[~test].mean(0)) / x[~test].std(0) + NOISE * random.randn(*x.shape)
    train, order = x[~test], random.permutation((~test).sum())
    k = min(len(train) // 10, 2000)
    return tuple(torch.from_numpy(v).float() for v in (train[order[k:]], train[order[:k]], x[test][:2000]))  # type: ignore


Scored = tuple[Callable[[Tensor], Tensor], dict[str, Any]]  # rows (n, d) -> log-density (n,), and what was chosen


def mixture(train: Tensor, aside: Tensor, seconds: float) -> Scored:
    from sklearn.mixture import GaussianMixture

    best, begun = None, time.perf_counter()
    for k in (1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256):
        if 3 * k > len(train) or time.perf_counter() - begun > seconds:
            break
        for floor in (1e-3, 3e-4):
            law = GaussianMixture(k, reg_covar=floor, random_state=0, max_iter=300).fit(train.numpy())
            value = float(law.score(aside.numpy()))
            if best is None or value > best[0]:
                best = value, law, {"components": k, "floor": floor, "validation": value}
    assert best is not None
    law, about = best[1:]
    return lambda x: torch.from_numpy(law.score_samples(x.numpy())), about


def flow(kind: str, train: Tensor, aside: Tensor, seconds: float) -> Scored:
    import zuko

    make, best, decays = {"nsf": zuko.flows.NSF, "maf": zuko.flows.MAF}[kind], None, DECAYS[kind]
    for decay in decays:
        torch.manual_seed(0)
        begun, step = time.perf_counter(), 0
        model = make(train.shape[1], transforms=5, hidden_features=(128, 128))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=decay)
        while time.perf_counter() - begun < seconds / len(decays):
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
    """A training by the package's own loop for every decay; the one with the least loss on the rows aside is it."""
    both, mask = (
        torch.empty(len(train) + len(aside), train.shape[1]),
        holdout(len(train) + len(aside), None, len(aside)),
    )
    both[mask], both[~mask] = aside, train  # where `fit.holdout` will look for them
    np.savetxt(home / "rows.csv", both.numpy(), delimiter=",", fmt="%.9g")
    data = df.data.load(home / "rows.csv", "all", columns=df.data.Columns(discrete="keep"))
    share, found, decays = len(aside) / len(both), [], DECAYS["diffusion"]
    kept = holdout_split(data, share)[1]
    assert kept is not None
    assert torch.equal(kept.x, aside)
    for decay in decays:
        config = replace(
            preset("table").config,
            {
                "data.source": str(home / "rows.csv"),
                "denoiser.weight_decay": decay,
                "fit.minutes": 0.8 * seconds / len(decays) / 60,  # the rest is for choices
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
    levels, run = {}, df.load(path)
    for sigma in ENDS:  # the path may end at any noise
        levels[sigma] = density(ended(run, sigma), aside[:100]).mean().item()
    sigma = max(levels, key=lambda s: levels[s])
    about = {"decay": decay, "sigma_min": sigma, "validation": levels, "step": run.step}
    run = ended(run, sigma)
    return (lambda x: density(run, x), about | {"parameters": sum(p.numel() for p in run.denoiser.parameters())}), run


def compared(run: df.Run, train: Tensor, test: Tensor) -> dict[str, Any]:
    """Samples beside real rows."""
    real, other = train[: len(train) // 2], train[len(train) // 2 :]
    x = run.sample(min(2000, len(real)), noise=0).last
    found = (df.metrics.c2st(x, real, other), df.metrics.marginal_w2(x, real, other))
    return {m.name: m.to_dict() for m in (*found, *df.metrics.nearest(x, train, test))}


def ended(run: df.Run, sigma: float) -> df.Run:
    """The same fields, followed down to another noise."""
    return dataclasses.replace(run, config=replace(run.config, {"sampling.sigma_min": sigma}))


def density(run: df.Run, x: Tensor) -> Tensor:
    """Log-density of rows in the units of their file, at the noise where the path ends (n,)."""
    return torch.cat([run.log_prob(part).value.double() for part in x.split(500)]) + run.transform.log_units(x)


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
    begun, run = time.perf_counter(), None
    if model == "gmm":
        score, about = mixture(train, aside, seconds)
    elif model == "diffusion":
        home = Path(cells) / f"{name}-{split}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        (score, about), run = diffusion(home, train, aside, seconds)
    else:
        score, about = flow(model, train, aside, seconds)
    took, nats = time.perf_counter() - begun, score(test)
    record = {
        "table": name,
        "split": split,
        "model": model,
        "settings": settings,
        "rows": [len(train), len(aside), len(test)],
        "nats": nats.mean().item(),
        "stderr": (nats.std() / math.sqrt(len(nats))).item(),
        "seconds": took,
        "about": about,
        "samples": {} if run is None else compared(run, torch.cat([train, aside]), test),
    }
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps(record, indent=1))
    print(f"{name} {split} {model}: {record['nats']:.3f} +- {record['stderr']:.3f} {took:.0f} s {about}", flush=True)


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
        "command": " ".join(["python", "benchmarks/likelihood/tables.py", *sys.argv[1:]]),
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
