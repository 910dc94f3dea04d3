"""Overhead of a sampling run measured: its time over that of the bare network calls in it.

    images    16 images of 3 x 32 x 32 under a UNet of 1.1 million parameters
    points    100,000 points of the plane under a perceptron of three hidden layers of 128

Each as a denoiser with EDM's preconditioning: the probability flow by the default solver, the reverse SDE with a noise
stream for every particle, and a sampling plan (its table is made up: only its cost counts). Untrained, since
only time is measured. The network's time is taken in two ways, and of each the median over --repeats turns is reported:

    within    what the network calls of the run took
    bare      what as many bare calls took, one after each call of the run, on the same tensors and not counted as
              part of the run: also tells what the run does to the speed of its calls (caches)

Both see the same machine as the run, whose speed wanders by several percent from one second to the next.
On one thread the clock is the thread's own, which stands still while the machine does something else; on several it
is the wall's.

    OMP_NUM_THREADS=1 python benchmarks/solvers/overhead.py --out results/overhead.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import diffflow as df
from diffflow.networks.backbones.unet import UNet


class Perceptron(nn.Module):
    """(n, 2) and a time (n,) to (n, 2)."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        layers = [nn.Linear(3, width), nn.SiLU(), *(f for _ in range(2) for f in (nn.Linear(width, width), nn.SiLU()))]
        self.body = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.body(torch.cat([x, time[:, None]], 1))


class Clocked(nn.Module):
    """A network that adds up the seconds spent in it, and in a second, bare call after each."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.within, self.bare = net, 0.0, 0.0

    def forward(self, x: Tensor, when: Tensor, cond: Tensor | None = None) -> Tensor:
        start = clock()
        out = self.net(x, when, cond)
        middle = clock()
        self.net(x, when, cond)
        self.within += middle - start
        self.bare += clock() - middle
        return out


def clock() -> float:
    """Seconds: of this thread where there is but one, else of the wall."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def cases() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    unet = UNet((3, 32, 32), widths=(32, 64, 64))
    return {"16 images": (unet, (16, 3, 32, 32)), "100,000 points": (Perceptron(), (100_000, 2))}


def runs(sde: Callable[[float], df.DiffFlow], x: Tensor, steps: int) -> dict[str, Callable[[], df.Trajectory]]:
    levels = df.EDM().sigma(df.snr_grid(df.EDM(), steps))[:-1].tolist()
    ratios = [b / a for a, b in zip(levels, [*levels[1:], 0.0], strict=True)]
    rows = [(0.7 * (1 - r), 0.2 * (1 - r), 0.1 * (1 - r))[: i + 1] for i, r in enumerate(ratios)]
    rows = [(*row[:-1], 1 - r - sum(row[:-1])) for row, r in zip(rows, ratios, strict=True)]
    plan = df.Plan(tuple(levels), tuple(rows))
    return {
        "flow": lambda: df.sample(sde(0.0), x, steps=steps, noise=0),
        "reverse SDE": lambda: df.sample(sde(1.0), x, steps=steps, noise=df.Noise(1)),
        "plan": lambda: df.sample(sde(0.0), x, plan=plan, noise=0),
    }


@torch.no_grad()
def measure(net: nn.Module, shape: tuple[int, ...], steps: int, repeats: int) -> dict[str, dict]:
    s, x = df.EDM(), 80 * torch.randn(shape)
    clocked = Clocked(net.eval())
    denoiser = df.Denoiser(clocked, sigma_data=0.5)

    def turn(run: Callable[[], df.Trajectory]) -> tuple[float, float, float]:
        """Seconds of the run without the bare calls, of the network calls in it, and of the bare calls."""
        clocked.within, clocked.bare, start = 0.0, 0.0, clock()
        run()
        return clock() - start - clocked.bare, clocked.within, clocked.bare

    found = {}
    for name, run in runs(lambda churn: df.at(s, s.score(denoiser), churn=churn), x, steps).items():
        turns = [turn(run) for _ in range(repeats + 1)][1:]  # the first warms up
        row = {"within": [a / b for a, b, _ in turns], "bare": [a / c for a, _, c in turns]}
        found[name] = {how: {"ratio": statistics.median(v), "ratios": v} for how, v in row.items()}
        found[name]["network_seconds"] = statistics.median(seconds for _, seconds, _ in turns)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="where to write the numbers as JSON")
    args = parser.parse_args()
    table = Table(title=f"whole run over its network calls, {args.steps} steps, {torch.get_num_threads()} thread(s)")
    for head in ("", "sampler", "within", "bare"):
        table.add_column(head)
    results = {}
    for name, (net, shape) in cases().items():
        size = sum(p.numel() for p in net.parameters())
        results[name] = {"parameters": size, "samplers": measure(net, shape, args.steps, args.repeats)}
        for sampler, row in results[name]["samplers"].items():
            both = [row["within"], row["bare"]]
            cells = [f"{m['ratio']:.3f} ({min(m['ratios']):.3f}-{max(m['ratios']):.3f})" for m in both]
            table.add_row(name, sampler, *cells)
    Console().print(table)
    if args.out is not None:
        head = {"command": ["python", *sys.argv], "python": platform.python_version(), "torch": torch.__version__}
        head |= {"threads": torch.get_num_threads(), "steps": args.steps, "results": results}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(head, indent=1) + "\n")


if __name__ == "__main__":
    main()
