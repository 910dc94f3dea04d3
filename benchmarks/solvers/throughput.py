"""Sampling throughput measured: images a second by precision, memory format, compilation and CUDA graphs.

Every variant draws the same images by the same steps from the same noise, one after the other; reported are images a
second over those of plain float32, and how far the images are from its own (root mean square, in [0, 1]: it is no gain
to be fast and wrong).

    float32          as it is                        channels last    the same, convolutions in NHWC
    bf16             autocast to bfloat16            compiled         torch.compile of the network, bf16 and NHWC
    CUDA graphs      compiled with mode "reduce-overhead" (on a GPU only)

    python benchmarks/solvers/throughput.py runs/cifar --device cuda --batch 500 --out results/throughput.json
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import diffflow as df
from diffflow import files

PLAIN = "float32"


def variants(run: df.Run, device: str) -> dict[str, Callable[[], None]]:
    """How to prepare the run's network for each variant, one after the other: they add up."""
    net = run.denoiser.net

    def nothing() -> None:
        pass

    def last() -> None:
        net.to(memory_format=torch.channels_last)

    found = {PLAIN: nothing, "channels last": last, "bf16": nothing, "compiled": net.compile}
    if device.startswith("cuda"):
        found["CUDA graphs"] = lambda: net.compile(mode="reduce-overhead")
    return found


def draw(run: df.Run, o: argparse.Namespace, half: bool) -> tuple[Tensor, float]:
    """Images, and seconds."""
    labels = torch.arange(o.batch) % len(run.classes) if run.classes else None
    if o.device.startswith("cuda"):
        torch.cuda.synchronize()
    begun = time.perf_counter()
    with torch.autocast(o.device.split(":")[0], torch.bfloat16, enabled=half):
        x = run.sample(o.batch, labels, steps=o.steps, batch=o.batch, noise=0).last
    return x, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], help="variants to try besides plain float32; default: all")
    parser.add_argument("--out", default="results/throughput.json")
    o = parser.parse_args()
    run, rows, plain = df.load(o.run, device=o.device), [], torch.empty(0)
    table = Table("variant", "images/s", "over float32", "distance", box=None)
    for name, prepare in variants(run, o.device).items():
        if o.only and name not in (PLAIN, *o.only):
            continue
        prepare()
        half = name not in (PLAIN, "channels last")
        x, _ = draw(run, o, half)  # warms up, compiles
        seconds = statistics.median(draw(run, o, half)[1] for _ in range(o.repeats))
        plain = x if name == PLAIN else plain
        row: dict[str, Any] = {"variant": name, "rate": o.batch / seconds}
        row |= {"ratio": row["rate"] / (rows[0]["rate"] if rows else row["rate"])}
        row |= {"distance": (x - plain).square().mean().sqrt().item()}
        rows.append(row)
        table.add_row(name, f"{row['rate']:.1f}", f"{row['ratio']:.2f}", f"{row['distance']:.1e}")
    record = {
        "command": " ".join(["python", *sys.argv]),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("diffflow", "torch")},
        "device": torch.cuda.get_device_name() if o.device.startswith("cuda") else platform.processor() or "cpu",
        "steps": o.steps,
        "batch": o.batch,
        "rows": rows,
    }
    files.write_json(Path(o.out), record)
    Console().print(table)


if __name__ == "__main__":
    main()
