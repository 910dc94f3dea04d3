"""Training throughput and memory compared with diffusers' example loop for unconditional images, on the same network.

Both train diffusers' UNet2DModel on the same random bytes of 3 x 32 x 32 at the same batch, with AdamW, clipping of the
gradient and weight averages (two of them here, one there, as each comes by default). The peer is the loop of diffusers'
train_unconditional.py, written down here: accelerate, a DataLoader over a tensor, DDPMScheduler.add_noise, the mean
square error of eps, EMAModel, one loss read back per step. Ours is `diffflow.training.loop.fit` with the preset's loss.
Each side is a process of its own, so that its peak of memory is its own; the two take turns, update by update, while
the other one waits, since a processor's speed wanders by several percent from one second to the next. The time of
--updates of theirs over that of as many of ours is one ratio; medians of --repeats pairs of processes are reported. On
one thread of a CPU a second is one of the process, else one of the wall.

Ours keeps freed memory (`training.memory.hold_memory`), as `diffflow train` does on a CPU; their loop does not. With
MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ in the environment both have it.

    python benchmarks/training/training.py --out results/training.json
    python benchmarks/training/training.py --device cuda --precision fp32 bf16 --widths 128 256 256 --batch 256 --out x
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from diffflow import files
from diffflow.models.diffusion import ModelConfig, ScoreConfig
from diffflow.models.settings.common import DataConfig, FitConfig
from diffflow.models.settings.networks import UNetConfig
from diffflow.networks.backbones.unet import UNet, unet2d
from diffflow.training.batches import Batches
from diffflow.training.distributed import Process
from diffflow.training.loop import fit
from diffflow.training.state import TrainingState

WARMUP = 3  # updates that are not timed


def ours(o: argparse.Namespace, precision: str, source: str) -> Iterator[None]:
    """One update at each step."""
    torch.manual_seed(0)
    device = torch.device(o.device)
    config = ScoreConfig(
        DataConfig(source=source, split="all"),
        ModelConfig(UNetConfig(widths=tuple(o.widths), layers=o.layers)),
        fit=FitConfig(batch=o.batch, precision=precision, compile=o.compile),
    )
    data, place = config.data.load(), Process(device)
    meta = data.meta()
    modules = {name: module.to(device) for name, module in config.build(meta).items()}
    training = TrainingState(config.objective(modules, meta), config.players())
    if o.compile:
        for player in training.players.values():
            player.module.compile()
    feed = Batches(data, 0, device, False)
    for k in itertools.count(1):
        fit(training, feed, FitConfig(batch=o.batch, precision=precision, steps=k), place)
        yield


def theirs(o: argparse.Namespace, precision: str, source: str) -> Iterator[None]:
    """One update at each step."""
    unet2d()  # first, for what it says of torchvision
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    torch.manual_seed(0)
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision, cpu=torch.device(o.device).type == "cpu"
    )
    model = UNet((3, 32, 32), widths=tuple(o.widths), layers=o.layers).unet
    average = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)
    schedule = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    images = torch.from_numpy(np.load(source))
    loader = torch.utils.data.DataLoader(images, batch_size=o.batch, shuffle=True, drop_last=True)
    rate = get_scheduler("cosine", optimizer=optimizer, num_warmup_steps=500, num_training_steps=10_000)
    model, optimizer, loader, rate = accelerator.prepare(model, optimizer, loader, rate)
    average.to(accelerator.device)
    while True:
        model.train()
        for raw in loader:
            clean = raw.float() / 127.5 - 1  # what its transforms do
            noise = torch.randn(clean.shape, device=clean.device)
            times = torch.randint(0, 1000, (len(clean),), device=clean.device).long()
            noisy = schedule.add_noise(clean, noise, times)
            with accelerator.accumulate(model):
                loss = torch.nn.functional.mse_loss(model(noisy, times).sample.float(), noise.float())
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                rate.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                average.step(model.parameters())
            loss.detach().item()
            yield


SIDES = {"ours": ours, "theirs": theirs}


def clock(device: str) -> float:
    """Seconds: of this process where one thread does everything, else of the wall."""
    accelerated = torch.device(device).type == "cuda"
    if accelerated:
        torch.cuda.synchronize(device)
    return time.process_time() if not accelerated and torch.get_num_threads() == 1 else time.perf_counter()


def work(side: str, o: argparse.Namespace, precision: str, source: str, line: Connection) -> None:
    """A process: an update whenever the line asks for one, answered by its seconds; at the end its peak of MiB."""
    torch.set_num_threads(o.threads)
    updates = SIDES[side](o, precision, source)
    while line.recv():
        begun = clock(o.device)
        next(updates)
        line.send(clock(o.device) - begun)
    if torch.device(o.device).type == "cuda":
        line.send(torch.cuda.max_memory_allocated(o.device) / 2**20)
    else:  # macOS counts bytes, Linux KiB
        line.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))


def measure(o: argparse.Namespace, precision: str, source: str) -> tuple[dict[str, float], dict[str, float]]:
    """Of two fresh processes: seconds of o.updates updates of either side, and MiB of memory."""
    context = multiprocessing.get_context("spawn")
    lines: dict[str, Connection] = {}
    for side in SIDES:
        lines[side], other = context.Pipe()
        context.Process(target=work, args=(side, o, precision, source, other), daemon=True).start()
        other.close()  # the child holds it now: where it dies, `recv` ends

    def ask(side: str, more: bool = True) -> float:
        lines[side].send(more)
        return lines[side].recv()

    def block(updates: int) -> dict[str, float]:
        spent = dict.fromkeys(SIDES, 0.0)
        for k in range(updates):
            for side in sorted(SIDES, reverse=k % 2 == 1):  # neither is always the first
                spent[side] += ask(side)
        return spent

    block(WARMUP)
    return block(o.updates), {side: ask(side, more=False) for side in SIDES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 64])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--updates", type=int, default=8, help="timed updates of each side in a pair")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of processes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile ours, too")
    parser.add_argument("--out", default="results/training.json")
    o = parser.parse_args()
    rows: list[dict[str, Any]] = []
    table = Table("precision", "images/s", "diffusers", "ratio (spread)", "memory MiB", "diffusers", box=None)
    with tempfile.TemporaryDirectory() as home:
        source = f"{home}/bytes.npy"
        np.save(source, np.random.default_rng(0).integers(0, 256, (2048, 3, 32, 32), np.uint8))
        for precision in o.precision:
            found = [measure(o, precision, source) for _ in range(o.repeats)]
            ratios = [s["theirs"] / s["ours"] for s, _ in found]
            middle = {f"{k}_rate": statistics.median(o.updates * o.batch / s[k] for s, _ in found) for k in SIDES}
            middle |= {f"{k}_memory": statistics.median(m[k] for _, m in found) for k in SIDES}
            rows.append({"precision": precision, "ratio": statistics.median(ratios), "ratios": ratios} | middle)
            table.add_row(
                precision,
                f"{middle['ours_rate']:.1f}",
                f"{middle['theirs_rate']:.1f}",
                f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                f"{middle['ours_memory']:.0f}",
                f"{middle['theirs_memory']:.0f}",
            )
    record = {
        "command": " ".join(["python", *sys.argv]),
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("diffflow", "torch", "diffusers", "accelerate")},
        "settings": vars(o),
        "environment": {k: v for k, v in os.environ.items() if k.startswith(("OMP_", "MALLOC_", "GLIBC_"))},
        "rows": rows,
    }
    files.write_json(Path(o.out), record)
    Console().print(table)


if __name__ == "__main__":
    main()
