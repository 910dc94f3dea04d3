"""Doors: own networks, own data and conditions of every kind, each trained in one process and used in another.

    dit        a DiT of digits, `df.train(net=...)`: class accuracy, exact W2 and its floor
    signal     a 1-D UNet of float signals (n, 2, 128): power in eight bands, and marginals
    volume     a 3-D UNet of volumes of 16^3: radial power, and marginals
    vector     a law whose mean and standard deviation are known functions of a vector: five conditions
    sequence   points whose place is a known function of a sequence of eight tokens, their order among it
    guidance   two conditions with a weight each: samples beside those of the exact guided score
    picture    a dict of picture and label: the lower half of a digit, given its upper half and its class
    latent     a model that lives in 24 principal components of the digits' 64 pixels

Each cell is a training (a fixed number of steps) and a measurement in a fresh process, a JSON file under --cells;
finished cells are skipped. The summary is written to --out.

    python benchmarks/networks/doors.py --out results/doors.json          (all: about an hour and a half of one core)
    python benchmarks/networks/doors.py --quick --out build/doors.json    (a minute: shows that it runs)
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import diffflow as df
from diffflow import files

N = 2000  # samples of a measurement, unless it says otherwise


# -- networks of one's own ---------------------------------------------------------------------------------------------


class Conditional(nn.Module):
    """A perceptron of (x, t, cond) as a user would write it: cond a vector, or a dict of vectors, joined to x."""

    def __init__(self, dim: int, sizes: dict[str, int] | int, width: int = 128, depth: int = 3):
        super().__init__()
        total = sizes if isinstance(sizes, int) else sum(sizes.values())
        self.null: Any = torch.full((total,), -4.0)  # farther out than standardised conditions reach
        if isinstance(sizes, dict):
            self.null = {name: torch.full((k,), -4.0) for name, k in sizes.items()}
        widths = [dim + 8 + total, *[width] * depth]
        layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """The prediction (n, dim)."""
        c = torch.cat([cond[name] for name in sorted(cond)], 1) if isinstance(cond, dict) else cond
        angle = t[:, None] * torch.tensor([1.0, 2.0, 4.0, 8.0], device=t.device)
        return self.layers(torch.cat([x, angle.cos(), angle.sin(), c], 1))


class Principal:
    """A coder of digits: their first k principal components."""

    scale, shift = 1.0, 0.0

    def __init__(self, x: Tensor, k: int = 24):
        flat = x.flatten(1)
        self.mean = flat.mean(0)
        self.basis = torch.linalg.svd(flat - self.mean, full_matrices=False)[2][:k]
        self.shape = tuple(x.shape[1:])

    def encode(self, x: Tensor) -> Tensor:
        """Components (n, k) of images in model units."""
        return (x.flatten(1) - self.mean) @ self.basis.T

    def decode(self, z: Tensor) -> Tensor:
        """Images in model units of components."""
        return (z @ self.basis + self.mean).reshape(-1, *self.shape)


# -- data whose laws are known -----------------------------------------------------------------------------------------


def signals(n: int, seed: int) -> Tensor:
    """Two-channel signals (n, 2, 128): a tone of random pitch, size and phase, late in the second channel, in coloured
    noise; in unlike units."""
    g = torch.Generator().manual_seed(seed)
    time_ = torch.arange(128) / 128
    pitch, phase = 3 + 4 * torch.rand(n, 1, generator=g), 2 * math.pi * torch.rand(n, 1, generator=g)
    size = 0.5 + torch.rand(n, 1, generator=g)
    tone, late = (size * torch.sin(2 * math.pi * pitch * (time_ - delay) + phase) for delay in (0.0, 0.04))
    white = torch.randn(n, 128, generator=g)
    frequency = torch.fft.rfftfreq(128, 1 / 128)
    coloured = torch.fft.irfft(torch.fft.rfft(white) / (1 + (frequency / 6) ** 2), n=128)
    return torch.stack([tone + coloured, 20 * (late - 0.5 * coloured) + 3], 1)


def volumes(n: int, seed: int) -> Tensor:
    """Volumes (n, 1, 16, 16, 16): three soft balls of random place and size."""
    g = torch.Generator().manual_seed(seed)
    axis = torch.arange(16.0)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    out = torch.zeros(n, 16, 16, 16)
    for _ in range(3):
        centre, width = 3 + 10 * torch.rand(n, 3, 1, 1, 1, generator=g), 1.5 + torch.rand(n, 1, 1, 1, generator=g)
        out += torch.exp(-((grid - centre) ** 2).sum(1) / (2 * width**2))
    return out[:, None]


def conditional_law(c: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (n, 2) of x given a vector c (n, 3)."""
    mean = torch.stack([1.5 * torch.sin(c[:, 0]) + 0.5 * c[:, 1], 0.5 * c[:, 0] * c[:, 2]], 1)
    return mean, torch.stack([0.5 + 0.4 * torch.sigmoid(2 * c[:, 2]), 0.8 + 0.3 * torch.tanh(c[:, 1])], 1)


def vectors(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (n, 2) and the vectors (n, 3) that say their law."""
    g = torch.Generator().manual_seed(seed)
    c = torch.randn(n, 3, generator=g).clamp(-2.5, 2.5)
    mean, std = conditional_law(c)
    return mean + std * torch.randn(n, 2, generator=g), c


EMBEDDING = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))  # of five tokens, as a text encoder's


def place(tokens: Tensor) -> Tensor:
    """Where points of a sequence of eight tokens lie (n, 2): their sum, and how much later ones exceed earlier ones."""
    value = tokens.double() - 2
    weight = torch.linspace(-1, 1, 8, dtype=torch.float64)
    return torch.stack([value.sum(1) / 3, (value * weight).sum(1)], 1).float()


def sequences(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (n, 2) and tokens (n, 8)."""
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 5, (n, 8), generator=g)
    return place(tokens) + 0.3 * torch.randn(n, 2, generator=g), tokens


STD = 0.7  # of a point around the sum of its two conditions


def sums(n: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Points (n, 1) around the sum of two standard normal conditions."""
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(n, 1, generator=g), torch.randn(n, 1, generator=g)
    return a + b + STD * torch.randn(n, 1, generator=g), {"a": a, "b": b}


class ExactSums:
    """The exact denoiser of `sums` in data units, for any of the two conditions known: E[Y | y, what is known]."""

    conditional, cost, principal_std = True, 1, 1.6

    def __init__(self, cond: Any = None):
        self.cond = cond

    def given(self, cond: Any) -> ExactSums:
        """The same under a condition; a part that is NaN is not known."""
        return ExactSums(cond)

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """D(y, sigma) of y (n, 1)."""
        mean, variance = torch.zeros_like(y), torch.full_like(y, STD**2)
        for part in (self.cond or {"a": None, "b": None}).values():
            known = torch.zeros_like(y).bool() if part is None else ~part.isnan()
            mean = mean + (0.0 if part is None else torch.where(known, part.nan_to_num(), 0.0))
            variance = variance + torch.where(known, 0.0, 1.0)
        return mean + variance / (variance + sigma**2) * (y - mean)


def halves(data: df.Data) -> Tensor:
    """The upper halves of digits (n, 1, 8, 8), the lower ones black."""
    x = data.x.clone()
    x[:, :, 4:] = 0
    return x


# -- measurements ------------------------------------------------------------------------------------------------------


def w2(x: Tensor, y: Tensor, other: Tensor) -> dict[str, float]:
    """Sliced W2 of samples (n, c, ...) to real ones with its error and floor, in units of each channel's deviation."""
    axes = [0, *range(2, y.ndim)]
    mean, std = y.mean(axes, keepdim=True), y.std(axes, keepdim=True)
    a, b, c = (((v - mean) / std).flatten(1) for v in (x, y, other))
    found = df.metrics.sliced_w2(a, b, c)
    return {"sliced_w2": found.value, "stderr": found.stderr, "floor": found.floor or math.nan}


def power(x: Tensor, bands: int = 8) -> Tensor:
    """Mean power (channels, bands) of signals in equal bands of frequency."""
    spectrum = torch.fft.rfft(x.double()).abs().square().mean(0)[:, 1:]
    return torch.stack([part.mean(1) for part in spectrum.chunk(bands, 1)], 1)


def signal_metrics(run: df.Run, quick: bool) -> dict[str, Any]:
    """Log-power by band, and marginals of the samples of signals."""
    n = 200 if quick else N
    x, y, other = run.sample(n, noise=1, batch=500).last, signals(n, 1), signals(n, 2)
    ours, real, again = power(x), power(signals(20_000, 3)), power(other)
    counted = real >= 1e-3 * real.max(1, keepdim=True).values
    apart = ((ours / real).log().abs() * counted).max().item()
    floor = ((again / real).log().abs() * counted).max().item()
    return {"n": n, "bands": int(counted.sum()), "log_power": apart, "log_power_floor": floor} | w2(x, y, other)


def volume_metrics(run: df.Run, quick: bool) -> dict[str, Any]:
    """Radial log-power, and marginals of the samples of volumes."""
    n = 20 if quick else 500
    x, y, other = run.sample(n, noise=1, batch=100).last, volumes(n, 1), volumes(n, 2)

    def radial(v: Tensor) -> Tensor:
        spectrum = torch.fft.fftn(v.double(), dim=(2, 3, 4)).abs().square().mean((0, 1))
        f = torch.fft.fftfreq(16, 1 / 16)
        radius = (f[:, None, None] ** 2 + f[None, :, None] ** 2 + f[None, None, :] ** 2).sqrt().round().long()
        return torch.stack([spectrum[radius == k].mean() for k in range(1, 7)])

    real = radial(volumes(2000, 3))
    return {
        "n": n,
        "log_power": (radial(x) / real).log().abs().max().item(),
        "log_power_floor": (radial(other) / real).log().abs().max().item(),
    } | w2(x, y, other)


def digit_metrics(run: df.Run, quick: bool) -> dict[str, Any]:
    """Class accuracy and exact W2 of samples of digits, by the judge that the evaluation trains."""
    found = run.evaluate("digits" if run.config.data.source == "" else None, n=100 if quick else N)
    keep = ("w2", "accuracy", "frechet")
    return {m.name: {"value": m.value, "stderr": m.stderr, "floor": m.floor} for m in found if m.name in keep}


def vector_metrics(run: df.Run, quick: bool) -> dict[str, Any]:
    """Means and standard deviations at five conditions, 4000 samples each, beside the true ones."""
    n = 200 if quick else 4000
    conditions = [[0, 0, 0], [1, -1, 0.5], [-1.5, 0.5, 1], [0.7, 1.2, -1.2], [-0.5, -1, -0.8]]
    rows = []
    for k, c in enumerate(torch.tensor(conditions, dtype=torch.float32)):
        x = run.sample(n, cond=c, steps=30, noise=k).last.double()
        mean, std = (v[0].double() for v in conditional_law(c[None]))
        off, ratio = ((x.mean(0) - mean) / std).tolist(), (x.std(0) / std).tolist()
        rows.append({"condition": c.tolist(), "mean_off_in_std": off, "std_ratio": ratio})
    return {
        "n": n,
        "rows": rows,
        "worst_mean": max(abs(v) for row in rows for v in row["mean_off_in_std"]),
        "std_ratios": [min(v for r in rows for v in r["std_ratio"]), max(v for r in rows for v in r["std_ratio"])],
    }


def sequence_metrics(run: df.Run, quick: bool) -> dict[str, Any]:
    """How well samples lie where their sequences say, those of a sequence and of its reverse among them."""
    n = 200 if quick else N
    _, tokens = sequences(n, 1)
    x = run.sample(n, cond=EMBEDDING[tokens], noise=1).last
    back = run.sample(n, cond=EMBEDDING[tokens.flip(1)], noise=1).last
    error = (x - place(tokens)).double()
    moved, wanted = (back - x)[:, 1].double(), (place(tokens.flip(1)) - place(tokens))[:, 1].double()
    slope = float((moved * wanted).sum() / wanted.square().sum())
    none = run.sample(n, noise=2).last.double()
    return {
        "n": n,
        "rms_in_std": float(error.square().mean().sqrt() / 0.3),  # 1 for the law itself
        "bias_in_std": (error.mean(0) / 0.3).tolist(),
        "slope_of_the_reversed": slope,  # 1 for the law itself
        "std_without_condition": none.std(0).tolist(),
        "std_of_the_data": sequences(20_000, 3)[0].double().std(0).tolist(),
    }


def guidance_metrics(run: df.Run, quick: bool) -> dict[str, Any]:
    """Mean and deviation of guided samples beside those of the exact guided score, at pairs of weights."""
    n = 200 if quick else N
    rows = []
    schedule = df.EDM()
    one = {"a": torch.tensor([1.0]), "b": torch.tensor([-0.6])}
    exact = {k: v.expand(n, 1).double() for k, v in one.items()}
    for weights in ({"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 2.5}, {"a": 0.0, "b": 1.0}):
        x = run.sample(n, cond=one, guidance=weights, steps=30, noise=1).last.double()
        score = df.guide(schedule.score(ExactSums()), weights)
        start = schedule.prior((1,), 0.0, 1.6)
        y = df.sample(df.at(schedule, score.given(exact), start=start), n, 60, noise=1).last.double()
        rows.append(
            {"weights": weights, "mean": [x.mean().item(), y.mean().item()], "std": [x.std().item(), y.std().item()]}
        )
    worst = max(abs(r["mean"][0] - r["mean"][1]) / r["std"][1] for r in rows)
    return {"n": n, "rows": rows, "worst_mean_in_std": worst}


def picture_metrics(run: df.Run, quick: bool) -> dict[str, Any]:
    """Whether digits end the halves that they were given, and are of the class that was asked for."""
    test = df.data.load("digits", "test")
    judge = df.metrics.extractor("own", df.data.load("digits"))
    x = run.sample(len(test), cond={"upper": halves(test), "label": test.y}, noise=1).last
    seen = test.x.float()[:, :, :4] / 255
    other = (test.y + 3) % 10
    changed = run.sample(len(test), cond={"upper": halves(test), "label": other}, noise=1).last
    return {
        "n": len(test),
        "rms_of_the_given_half": (x[:, :, :4] - seen).square().mean().sqrt().item(),
        "rms_of_another_digit_s_half": (seen.roll(1, 0) - seen).square().mean().sqrt().item(),
        "accuracy": df.metrics.accuracy(x, test.y, judge).value,
        "accuracy_of_real_digits": df.metrics.accuracy(test.x, test.y, judge).value,
        "share_of_the_other_label_where_it_was_asked_for": df.metrics.accuracy(changed, other, judge).value,
    }


# -- cells -------------------------------------------------------------------------------------------------------------

UNET_ND = {"widths": [32, 48, 64]}


@dataclass(frozen=True)
class Cell:
    """A training and its measurement.

    Args:
        data: what is learned.
        steps: of the training.
        measure: what is said of the run.
        net: an own network, and what it is called with; none: the library's own for such data.
        settings: further settings.
        coder: a latent space, made of the data.
        rate: a learning rate that falls to zero as a cosine; none: the preset's.
    """

    data: Callable[[], df.Data]
    steps: int
    measure: Callable[[df.Run, bool], dict[str, Any]]
    net: tuple[Any, dict[str, Any]] | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    coder: Callable[[df.Data], Any] | None = None
    rate: float | None = None


def conditioned(x: Tensor, cond: Any, name: str) -> df.Data:
    """All rows as training data, with their conditions."""
    return df.data.of(x, name=name, split="all").with_cond(cond)


def sequence_data() -> df.Data:
    """Points told the embeddings of their tokens."""
    x, tokens = sequences(50_000, 0)
    return conditioned(x, EMBEDDING[tokens], "sequences")


def picture_data() -> df.Data:
    """Digits told their upper half and their class."""
    data = df.data.load("digits")
    assert data.y is not None
    return data.with_cond({"upper": halves(data), "label": data.y})


def digits_coder(data: df.Data) -> Principal:
    """Principal components of the training digits."""
    return Principal(data.encode(data.x))


CELLS: dict[str, Cell] = {
    "dit": Cell(
        lambda: df.data.load("digits"), 1500, digit_metrics, (df.DiT, {"shape": [1, 8, 8], "classes": 10}),
        rate=2e-3,
    ),
    "signal": Cell(
        lambda: df.data.of(signals(20_000, 0), kind="signal", name="signals", split="all"), 4000, signal_metrics,
        rate=3e-3,
    ),
    "volume": Cell(lambda: df.data.of(volumes(2000, 0), name="volumes", split="all"), 1000, volume_metrics),
    "vector": Cell(
        lambda: conditioned(*vectors(1_000_000, 0), "vectors"), 12_000, vector_metrics,
        (Conditional, {"dim": 2, "sizes": 3}),
        (("fit.batch", 2048), ("fit.holdout", 0.0), ("model.label_dropout", 0.0)),
        rate=2e-3,
    ),
    "sequence": Cell(sequence_data, 8000, sequence_metrics, None, (("fit.batch", 256),)),
    "guidance": Cell(
        lambda: conditioned(*sums(100_000, 0), "sums"), 10_000, guidance_metrics,
        (Conditional, {"dim": 1, "sizes": {"a": 1, "b": 1}}), (("fit.batch", 512), ("fit.holdout", 0.0)), rate=2e-3,
    ),
    "picture": Cell(picture_data, 1500, picture_metrics, rate=2e-3),
    "latent": Cell(lambda: df.data.load("digits"), 8000, digit_metrics, None, (), digits_coder),
}  # fmt: skip


def train(name: str, out: Path, quick: bool) -> None:
    """Train a cell's run (in a process of its own)."""
    cell = CELLS[name]
    data = cell.data()
    if cell.coder is not None:
        data = data.with_coder(cell.coder(data))
    settings = {"fit.tensorboard": False, "fit.sample_minutes": 1e6} | dict(cell.settings)
    net, arguments = cell.net or (None, None)
    steps, peak = 5 if quick else cell.steps, cell.rate
    rate = None if peak is None else lambda k: peak * min(1.0, k / 100) * 0.5 * (1 + math.cos(math.pi * k / steps))
    df.train(data, out, net=net, net_arguments=arguments, steps=steps, settings=settings, learning_rate=rate)


def measure(name: str, out: Path, quick: bool) -> dict[str, Any]:
    """Measure a cell's run (in another process)."""
    cell = CELLS[name]
    how = {} if cell.coder is None else {"coder": cell.coder(cell.data())}
    run = df.load(out, modules=[__file__], **how)
    parameters = sum(p.numel() for p in run.denoiser.parameters())
    return {"step": run.step, "parameters": parameters, "seconds": run.metrics()[-1]["seconds"]} | cell.measure(
        run, quick
    )


def cell_in_processes(name: str, home: Path, quick: bool) -> dict[str, Any]:
    """A cell, its training and its measurement each in a fresh process."""
    run, found = home / "runs" / name, home / f"{name}.json"
    flags = ["--quick"] if quick else []
    begun = time.monotonic()
    resume = run / "run.json"
    if not (resume.exists() and json.loads(resume.read_text()).get("finished")):
        subprocess.run([sys.executable, __file__, "--train", name, "--cells", str(home), *flags], check=True)
    subprocess.run([sys.executable, __file__, "--measure", name, "--cells", str(home), *flags], check=True)
    result = json.loads(found.with_suffix(".measured").read_text()) | {"wall": round(time.monotonic() - begun, 1)}
    found.with_suffix(".measured").unlink()
    files.write_json(found, result)
    return result


def main() -> int:
    """Run the cells that are missing and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"which cells: {', '.join(CELLS)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("results/doors.json"))
    parser.add_argument("--cells", type=Path, default=Path("runs/doors"), help="folder of the cells and their runs")
    parser.add_argument("--quick", action="store_true", help="a few steps and samples: shows that it runs")
    parser.add_argument("--train", choices=CELLS, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=CELLS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    home = args.cells / "quick" if args.quick and args.cells.name != "quick" else args.cells
    if args.train:
        train(args.train, home / "runs" / args.train, args.quick)
        return 0
    if args.measure:
        result = measure(args.measure, home / "runs" / args.measure, args.quick)
        files.write_json(home / f"{args.measure}.measured", result)
        return 0
    if unknown := set(args.names) - CELLS.keys():
        parser.error(f"no cell called {', '.join(unknown)}; there are {', '.join(CELLS)}")
    cells = {}
    for name in args.names or CELLS:
        path = home / f"{name}.json"
        cells[name] = json.loads(path.read_text()) if path.exists() else cell_in_processes(name, home, args.quick)
        print(name, json.dumps(cells[name]), flush=True)
    about = {"command": sys.argv, "torch": torch.__version__, "diffflow": version("diffflow"), "quick": args.quick}
    files.write_json(args.out, {"about": about, "cells": cells})
    return 0


if __name__ == "__main__":
    sys.exit(main())
