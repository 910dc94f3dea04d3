"""Models of MNIST compared under one protocol: LeNet-5 features, 10,000 samples, floors beside every number.

For each run directory: the Frechet distance in LeNet-5's features against the whole training set (floor: the test set),
the share of samples that LeNet-5 sees as the class asked for (models with classes; floor: the test set) and its mean
confidence, evaluations per sample, seconds of sampling, what training took and on what, and a grid of pictures.

    python benchmarks/models/mnist.py path/to/mnist --lenet path/to/lenet.pth --runs runs/mnist-edm runs/mnist-gan

The JSON gains one entry a run. Runs that are in it already, at the step and with the settings of now, are skipped
(--again measures them anew).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import diffflow as df
from diffflow import figures, files, metrics
from diffflow.models.settings.serialise import to_dict


def portable(words: list[str]) -> list[str]:
    """A command line without the folders of the machine it ran on."""
    return [Path(w).name if Path(w).is_absolute() else w for w in words]


def bytes_of(x: Tensor) -> Tensor:
    """Images in [0, 1] as they would be saved."""
    return (x * 255.0).round().to(torch.uint8)


def asked(run: df.Run, n: int, seed: int) -> dict[str, Any]:
    """What decides an entry, in its JSON form."""
    settings = {"step": run.step, "config": to_dict(run.config), "samples": n, "seed": seed}
    return json.loads(json.dumps(settings))


def measure(
    run: df.Run, judge: metrics.Classifier, real: df.data.Data, held: df.data.Data, n: int, seed: int
) -> tuple[dict[str, Any], Tensor]:
    """The entry of one run, and its samples (n, c, h, w), uint8."""
    labels = torch.arange(n) % len(run.classes) if run.classes else None
    begun = time.perf_counter()
    path = run.sample(n, cond=labels, noise=df.Noise(seed), batch=500)
    seconds = time.perf_counter() - begun
    x = bytes_of(path.last)
    found = [
        metrics.frechet(x, real.x, held.x, features=judge, limit=n),
        metrics.confidence(x, judge, held.x),
        *([] if labels is None else [metrics.accuracy(x, labels, judge, held.x, held.y)]),
    ]
    dials = run.dials
    about = run.versions
    last = run.metrics()[-1] if run.metrics() else {}
    entry = {
        "asked": asked(run, n, seed),
        "metrics": [m.to_dict() for m in found],
        "evaluations": path.nfe,
        "dials": {"steps": dials.steps, "gan": dials.gan, "churn": dials.churn, "guidance": dials.guidance},
        "sampling_seconds": round(seconds, 2),
        "training": {
            "steps": run.step,
            "seconds": last.get("seconds"),
            "device": about.get("device"),
            "processes": about.get("processes"),
            "platform": about.get("platform"),
            "command": portable(about.get("command", [])),
            "parameters": about.get("parameters"),
        },
        "classifier": judge.card(),
    }
    return entry, x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of MNIST's idx files")
    parser.add_argument("--lenet", required=True, help="LeNet-5 weights, a torch state dict")
    parser.add_argument("--runs", nargs="+", required=True, type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("results/mnist-models"))
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=None)
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()

    judge = metrics.load_lenet(args.lenet)
    real, held = df.data.load(args.data), df.data.load(args.data, split="test")
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "mnist.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"runs": {}}
    for path in args.runs:
        run = df.load(path, device=args.device)
        if record["runs"].get(path.name, {}).get("asked") == asked(run, args.n, args.seed) and not args.again:
            continue
        entry, x = measure(run, judge, real, held, args.n, args.seed)
        files.write(args.out / f"{path.name}.png", figures.png(figures.grid(x[:100] / 255.0, columns=10)))
        record["runs"][path.name] = entry
        record |= {
            "command": portable(["python", *sys.argv]),
            "samples": args.n,
            "seed": args.seed,
            "torch": torch.__version__,
        }
        record |= {"machine": platform.platform(), "reference": {"name": real.name, "sha256": real.fingerprint}}
        files.write(file, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    show(record)


def show(record: dict[str, Any]) -> None:
    table = Table(title=f"MNIST, {record['samples']} samples, LeNet-5")
    for head in ("run", "Frechet", "accuracy", "confidence", "evaluations", "minutes of training", "on"):
        table.add_column(head)
    for name, entry in record["runs"].items():
        of = {m["name"]: m for m in entry["metrics"]}
        cells = [
            f"{of[k]['value']:.4g} ± {of[k]['stderr']:.1g} ({of[k]['floor']:.4g})" if k in of else "–"
            for k in ("frechet", "accuracy", "confidence")
        ]
        seconds = entry["training"]["seconds"]
        minutes = "–" if seconds is None else f"{seconds / 60:.1f}"
        table.add_row(name, *cells, str(entry["evaluations"]), minutes, str(entry["training"]["device"]))
    Console().print(table)


if __name__ == "__main__":
    main()
