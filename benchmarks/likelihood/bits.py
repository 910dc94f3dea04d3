"""Bits per dimension of image models measured, and the share of them that tells foreign images from known ones.

    likelihood  every run of --runs on the test set of its own data: the likelihood of the ODE model beside the bound of
                the reverse SDE, with uniform and with variational dequantisation; the same images, cells and noise for
                every run, so that differences are surer than values
    foreign     the run --foreign on the test sets of its own data and of --other: which is more likely? Beside it what
                a compressor needs for the same images (PNG), whose share of the likelihood is the images' plainness and
                not their origin, and the difference of the two (Serra et al. 2020)

    python benchmarks/likelihood/bits.py --runs runs/mnist-edm runs/mnist-likelihood
    python benchmarks/likelihood/bits.py --foreign runs/fashion-likelihood --other path/to/mnist

The runs are made by

    diffflow train path/to/mnist --preset mnist --config benchmarks/likelihood/bits.yaml --steps 9000

(and without `loss` in that file for the first: the preset's own).
"""

from __future__ import annotations

import argparse
import io
import json
import math
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

import diffflow as df
from diffflow import figures, files
from diffflow.cli.likelihood import auc
from diffflow.data import Data
from diffflow.metrics.base import pick


def images(data: Data, n: int) -> Tensor:
    """The same n of the test images for every run."""
    return data.x[pick(torch.arange(len(data)), n, 0)]


def bits(nats: Tensor, dims: int) -> Tensor:
    return -nats / (dims * math.log(2))


def mean(v: Tensor) -> dict[str, float]:
    return {"value": v.mean().item(), "stderr": (v.std() / math.sqrt(len(v))).item()}


def measure(run: df.Run, x: Tensor, train: Tensor, steps: int, fit: int, say: Console) -> dict[str, Tensor]:
    """Bits per dimension of every image (n,), four ways."""
    q, dims, noise = run.dequantiser(train, fit), math.prod(run.shape), df.Noise(0)
    found = {}
    for name, how in {
        "ode": {"steps": steps},
        "ode, variational": {"steps": steps, "dequantiser": q},
        "bound": {"churn": 1.0, "times": 64},
        "bound, variational": {"churn": 1.0, "times": 64, "dequantiser": q},
    }.items():
        got = run.log_likelihood(x, noise=noise.fork(name.split(",")[0]), **how)
        found[name] = bits(got.value, dims)
        say.print(f"{run.path.name}: {name} {found[name].mean():.4f}, {got.nfe} evaluations", highlight=False)
    return found


def likelihoods(paths: list[Path], n: int, steps: int, fit: int) -> dict[str, Any]:
    """Every run on the same images of its test set, and the differences from the first run."""
    say, found, record = Console(stderr=True), {}, {}
    for path in paths:
        run = df.load(path)
        data, train = run.config.data.load("test"), run.config.data.load()
        x = images(data, n)
        found[path.name] = measure(run, x, train.x, steps, fit, say)
        fine = run.log_likelihood(x[:50], noise=df.Noise(0).fork("ode"), steps=2 * steps).value
        off = (bits(fine, math.prod(run.shape)) - found[path.name]["ode"][:50]).abs().mean().item()
        record[path.name] = {
            "data": f"{data.name}, {len(x)} of its test images",
            "loss": vars(run.config.loss) | {"type": type(run.config.loss).__name__},
            "step": run.step,
            "bits_per_dim": {k: mean(v) for k, v in found[path.name].items()},
            "solver_error": off,
        }
    first, *others = found
    less = {f"{b} - {first}": {k: mean(found[b][k] - found[first][k]) for k in found[first]} for b in others}
    return {"runs": record, "differences": less}


def packed(x: Tensor) -> Tensor:
    """Bits per dimension of a PNG file of each image (n, 1, h, w), header and all."""
    sizes = []
    for picture in x[:, 0].numpy():
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
        sizes.append(8 * len(buffer.getvalue()) / picture.size)
    return torch.tensor(sizes, dtype=torch.float64)


def foreign(run: df.Run, other: str, n: int, steps: int, out: Path) -> dict[str, Any]:
    """A model's own test images and foreign ones: bits, compressed size, and what each tells apart."""
    own = run.config.data.load("test")
    sets = {own.name: images(own, n), Path(other).name: images(df.data.load(other, "test"), n)}
    model = {k: bits(run.log_likelihood(x, steps=steps).value, math.prod(run.shape)) for k, x in sets.items()}
    png = {k: packed(x) for k, x in sets.items()}
    (a, b), fig = tuple(sets), figures.figure(8.4, 3.2)
    fig.set_layout_engine("constrained")
    panels = {
        "bits/dim of the model": model,
        "bits/dim of a PNG file": png,
        "difference": {k: model[k] - png[k] for k in sets},
    }
    record: dict[str, Any] = {"run": run.path.name, "n": n, "auc": {}, "means": {}}
    for ax, (title, values) in zip(fig.subplots(1, 3), panels.items(), strict=True):
        low, high = (f(torch.cat(list(values.values()))).item() for f in (torch.min, torch.max))
        for colour, (name, v) in zip(figures.COLOURS, values.items(), strict=False):
            ax.hist(v.numpy(), bins=np.linspace(low, high, 41), color=colour, alpha=0.55, label=name)
        record["auc"][title] = auc(-values[a], -values[b])
        record["means"][title] = {k: mean(v) for k, v in values.items()}
        ax.set_title(f"{title}\nAUC {record['auc'][title]:.3f}", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    fig.axes[0].legend(frameon=False, fontsize=8)
    record["black"] = {k: (x == 0).double().mean().item() for k, x in sets.items()}
    record["correlation"] = {k: torch.corrcoef(torch.stack([model[k], png[k]]))[0, 1].item() for k in sets}
    files.write(out.with_suffix(".png"), figures.png(fig))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="*", default=[], type=Path, help="runs on one and the same source")
    parser.add_argument("--foreign", type=Path, help="a run, for the second part")
    parser.add_argument("--other", help="where the foreign images are")
    parser.add_argument("--n", type=int, default=500, help="test images")
    parser.add_argument("--steps", type=int, default=48, help="Runge-Kutta steps of the solve")
    parser.add_argument("--fit", type=int, default=500, help="steps of training of the dequantiser")
    parser.add_argument("--out", type=Path, help="default: results/bits.json, results/foreign.json")
    args = parser.parse_args()
    if bool(args.runs) == bool(args.foreign):
        parser.error("either --runs or --foreign, one part at a time")
    out = args.out or Path("results") / ("bits.json" if args.runs else "foreign.json")
    record: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/likelihood/bits.py", *sys.argv[1:]]),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("diffflow", "torch")},
    }
    if args.foreign:
        record |= foreign(df.load(args.foreign), args.other, args.n, args.steps, out)
    else:
        record |= likelihoods(args.runs, args.n, args.steps, args.fit)
    files.write_json(out, record)
    if args.foreign:
        print(json.dumps(record, indent=1))
        return
    table = Table("run", "ode", "bound", "ode, variational", "bound, variational", box=None, padding=(0, 2, 0, 0))
    for name, entry in record["runs"].items():
        cells = (entry["bits_per_dim"][c.header] for c in table.columns[1:])
        table.add_row(name, *(f"{c['value']:.3f} ± {c['stderr']:.3f}" for c in cells))
    Console().print(table)


if __name__ == "__main__":
    main()
