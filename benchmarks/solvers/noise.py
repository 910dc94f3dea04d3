"""Cost of per-particle noise measured: the share of a sampling run that goes into drawing its Brownian increments.

Two runs of the reverse SDE on the EDM schedule, each with the default solver: 100k points of the plane under the
exact score of eight Gaussians (cheap to evaluate, so the worst case for the noise), and 64 images of 1 x 28 x 28 under
a small UNet2DModel (untrained: only its cost matters). The noise is wrapped in a clock; beside it stands the same
amount of torch.randn, which gives particle i other numbers in every batch. Medians over --repeats runs.

    python benchmarks/solvers/noise.py --out results/noise.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import diffflow as df
from diffflow.networks.backbones.unet import unet2d

SMALL = {"block_out_channels": (32, 64, 64), "layers_per_block": 1, "norm_num_groups": 8}
BLOCKS = {"down_block_types": ("DownBlock2D",) * 3, "up_block_types": ("UpBlock2D",) * 3}


class Clocked:
    """A Noise that adds up the seconds it took."""

    def __init__(self, noise: df.Noise) -> None:
        self.noise, self.seconds, self.calls = noise, 0.0, 0

    def increment(self, k: int, t0: float, t1: float, x: Tensor) -> Tensor:
        start = time.perf_counter()
        out = self.noise.increment(k, t0, t1, x)
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return out


def points(n: int) -> tuple[df.DiffFlow, Tensor]:
    s, law = df.EDM(), df.TOYS["8gaussians"]()
    return df.reverse_sde(s, s.score(law)), law.noised(1.0, s.sigma(0.0).item()).sample(n, noise=0)


def images(n: int) -> tuple[df.DiffFlow, Tensor]:
    torch.manual_seed(0)
    net = unet2d()(sample_size=28, in_channels=1, out_channels=1, **SMALL, **BLOCKS).eval()

    def denoise(y: Tensor, sigma: Tensor) -> Tensor:
        return net(y / (1 + sigma**2).sqrt(), 0.25 * sigma.log().expand(len(y))).sample

    s = df.EDM()
    return df.reverse_sde(s, s.score(denoise)), s.sigma(0.0).item() * df.Noise(0).normal(n, (1, 28, 28))


@torch.no_grad()
def measure(sde: df.DiffFlow, x0: Tensor, steps: int, repeats: int) -> dict[str, float]:
    """Medians of: seconds in all, seconds of noise, their ratio, and noise over torch.randn for the same numbers."""
    rows = []
    for i in range(repeats + 1):  # the first run warms up
        noise = Clocked(df.Noise(i))
        start = time.perf_counter()
        df.sample(sde, x0, steps=steps, noise=noise)
        total = time.perf_counter() - start
        start = time.perf_counter()
        for _ in range(noise.calls):
            torch.randn(x0.shape)
        plain = time.perf_counter() - start
        rows.append((total, noise.seconds, noise.seconds / total, noise.seconds / plain))
    names = ("seconds", "noise_seconds", "share", "over_randn")
    return {name: statistics.median(column) for name, column in zip(names, zip(*rows[1:], strict=True), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None, help="where to write the numbers as JSON")
    args = parser.parse_args()

    threads = torch.get_num_threads()
    table = Table(title=f"per-particle noise in {args.steps} steps of the reverse SDE, {threads} thread(s)")
    for head in ("run", "total", "noise", "share of the time", "noise / torch.randn"):
        table.add_column(head, justify="left" if head == "run" else "right")
    runs = {
        f"{args.particles} points of the plane": points(args.particles),
        f"{args.images} images of 28 x 28": images(args.images),
    }
    results = {}
    for name, (sde, x0) in runs.items():
        r = results[name] = measure(sde, x0, args.steps, args.repeats)
        share, ratio = f"{100 * r['share']:.2f} %", f"{r['over_randn']:.1f} x"
        table.add_row(name, f"{r['seconds']:.3f} s", f"{r['noise_seconds']:.4f} s", share, ratio)
    Console().print(table)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        settings = {"command": ["python", *sys.argv], "torch": torch.__version__, "threads": threads}
        settings |= {"steps": args.steps, "repeats": args.repeats, "results": results}
        args.out.write_text(json.dumps(settings, indent=1) + "\n")


if __name__ == "__main__":
    main()
