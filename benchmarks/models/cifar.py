"""CIFAR-10 measured in ten minutes of one GPU: training speed, then distance of samples by number of steps.

Trains the preset `cifar10` for --minutes (bf16 and torch.compile on a GPU), reports images/s and the TFLOP/s that the
network's matrix products and convolutions came to, draws --n samples for every number of steps, with and without
churn, and measures them by the Frechet distance in ResNet-20's features against the training images.

    python benchmarks/models/cifar.py path/to/cifar10 --weights path/to/resnet20-12fca82f.th --out results/cifar
    python benchmarks/models/cifar.py images.npy --small --device cpu --minutes 0.1 -n 50 --out small         (a try)

writes x.json, x-frontier.png and x-samples.png; the run itself goes to --work.
"""

from __future__ import annotations

import argparse
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

import diffflow as df
from diffflow import figures, files
from diffflow.metrics import embedding, extractor, frechet
from diffflow.metrics.base import pick
from diffflow.models.base import TrainConfig
from diffflow.models.presets import preset
from diffflow.models.settings.common import Dials
from diffflow.models.settings.serialise import replace
from diffflow.runs.frontier import plot_frontier, sweep
from diffflow.training.train import train

SMALL = {
    "model.net.widths": (16, 32),
    "model.net.layers": 1,
    "model.net.head": 16,
    "model.net.groups": 8,
    "fit.batch": 8,
}


def settings(o: argparse.Namespace) -> TrainConfig:
    """The preset, for a short training: faster averages, a rate that rises within it."""
    speed = {"fit.precision": "bf16", "fit.compile": True} if o.device.startswith("cuda") else {"fit.precision": "fp32"}
    budget = {"fit.minutes": o.minutes, "fit.steps": None, "fit.sample_minutes": 1e6, "fit.tensorboard": False}
    short = {"data.source": o.source, "denoiser.warmup": 200, "denoiser.decay": 2000, "fit.log_every": 20}
    return replace(preset("cifar10").config, speed | budget | short | (SMALL if o.small else {}))


def swift(run: df.Run) -> AbstractContextManager[Any]:
    """How samples are drawn on a GPU: in half precision, convolutions in NHWC (solvers/throughput.py tells what that is
    worth, and how far from float32 it is)."""
    if run.device.type != "cuda":
        return nullcontext()
    run.denoiser.net.to(memory_format=torch.channels_last)
    return torch.autocast("cuda", torch.bfloat16)


def flops(run: df.Run) -> float:
    """Of one training example: a forward pass, and twice that backward."""
    x, cond = torch.zeros(1, *run.shape, device=run.device), torch.zeros(1, dtype=torch.long, device=run.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run.denoiser(x, torch.tensor(1.0, device=run.device), cond if run.classes else None)
    return 3.0 * counter.get_total_flops()


def main(args: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--weights", help="file of ResNet-20; without it the judge trains itself")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 8, 12, 18, 30])
    parser.add_argument("--churn", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--work", default="runs/cifar")
    parser.add_argument("--out", default="results/cifar")
    o = parser.parse_args(args)
    config = settings(o)
    data = config.data.load()
    run = df.load(train(config, o.work, device=o.device, data=data, console=Console(stderr=True)), device=o.device)
    last = run.metrics()[-1]
    each = flops(run)
    features = f"resnet20={o.weights}" if o.weights else "own"
    see = embedding(extractor(features, data, 0))
    real = see(data.x)
    labels = data.labels(o.n) if run.classes else None
    asked = [(Dials(n, churn=churn), False) for churn in o.churn for n in o.steps]
    with swift(run):
        points = sweep(
            run,
            asked,
            lambda x: frechet(see((x * 255).round().byte()), real, limit=o.n),
            o.n,
            labels=labels,
            batch=o.batch,
        )
    half = pick(torch.arange(len(data)), len(data), 0)
    n = min(o.n, len(data) // 2)
    floor = frechet(real[half[:n]], real[half[n:]], limit=n).value
    record = {
        "command": " ".join(["python", *sys.argv]),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("diffflow", "torch")},
        "device": torch.cuda.get_device_name() if o.device.startswith("cuda") else "cpu",
        "data": {"name": data.name, "n": len(data), "sha256": data.fingerprint},
        "precision": {"training": config.fit.precision, "sampling": "bf16" if run.device.type == "cuda" else "fp32"},
        "updates": run.step,
        "images_per_second": last["images"] / last["seconds"],
        "tflops": each * last["images"] / last["seconds"] / 1e12,
        "features": features.partition("=")[0],
        "n": o.n,
        "floor": floor,
        "points": [p.to_dict() for p in points],
    }
    where = Path(o.out)
    files.write_json(where.with_suffix(".json"), record)
    name = f"Frechet distance@{o.n} ({record['features']})"
    files.write(where.with_name(f"{where.name}-frontier.png"), figures.png(plot_frontier(points, name, floor)))
    best = min(points, key=lambda p: p.distance).dials
    some = torch.arange(100) % len(run.classes) if run.classes else None
    with swift(run):
        x = run.sample(100, some, steps=best.steps, churn=best.churn, noise=0).last
    files.write(where.with_name(f"{where.name}-samples.png"), figures.png(figures.grid(x.numpy(), columns=10)))
    rate, speed = record["images_per_second"], record["tflops"]
    Console().print(
        f"{run.step} updates, {rate:,.0f} images/s, {speed:.3g} TFLOP/s; best {min(p.distance for p in points):.3f}"
    )
    return record


if __name__ == "__main__":
    main()
