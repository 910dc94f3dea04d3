"""Training throughput and memory beside diffusers' example loop for unconditional images, on the same network.

Both train diffusers' UNet2DModel on the same random bytes of 3 x 32 x 32 at the same batch, with AdamW, clipping of the
gradient and weight averages (two of them here, one there, as each comes by default). The peer is the loop of diffusers'
train_unconditional.py, written down here: accelerate, a DataLoader over a tensor, DDPMScheduler.add_noise, the mean
square error of eps, EMAModel, one loss read back per step. Ours is `training.fit.fit` with the recipe's loss. Every
measurement is a process of its own, so that its peak of memory is its own; the two take turns, and the ratio of each
pair counts.

    python benchmarks/training.py --out results/training.json
    python benchmarks/training.py --device cuda --precision fp32 bf16 --widths 128 256 256 --batch 256 --out ...
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from diffflow import figures
from diffflow.nets.unet import UNet, unet2d
from diffflow.training.config import DataConfig, FitConfig, ModelConfig, ScoreConfig, UNetConfig
from diffflow.training.feed import Feed
from diffflow.training.fit import fit
from diffflow.training.place import Place
from diffflow.training.players import Training

WARMUP = 3  # steps that are not timed


def finished(device: torch.device, begun: float, steps: int, batch: int) -> dict[str, float]:
    """Images a second, and the peak of memory in MiB."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"rate": steps * batch / (time.perf_counter() - begun), "memory": peak}


def ours(o: argparse.Namespace, precision: str, source: str) -> dict[str, float]:
    torch.manual_seed(0)
    device = torch.device(o.device)
    config = ScoreConfig(
        DataConfig(source=source, split="all"),
        ModelConfig(UNetConfig(widths=tuple(o.widths), layers=o.layers)),
        fit=FitConfig(batch=o.batch, precision=precision, compile=o.compile),
    )
    data, place = config.data.load(), Place(device)
    meta = data.meta()
    modules = {name: module.to(device) for name, module in config.build(meta).items()}
    training = Training(config.objective(modules, meta), config.players())
    if o.compile:
        for player in training.players.values():
            player.module.compile()
    feed = Feed(data, 0, device, False)
    begun = 0.0
    for k in (WARMUP, WARMUP + o.updates):
        begun = time.perf_counter()
        settings = FitConfig(batch=o.batch, precision=precision, steps=k)
        fit(training, feed, settings, place)
    return finished(device, begun, o.updates, o.batch)


def theirs(o: argparse.Namespace, precision: str, source: str) -> dict[str, float]:
    unet2d()  # first, for what it says of torchvision
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    torch.manual_seed(0)
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=o.device == "cpu")
    model = UNet((3, 32, 32), widths=tuple(o.widths), layers=o.layers).unet
    average = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)
    schedule = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    images = torch.from_numpy(np.load(source))
    pictures = images.float() / 127.5 - 1  # as its transforms leave them, ahead of time
    loader = torch.utils.data.DataLoader(pictures, batch_size=o.batch, shuffle=True, drop_last=True)
    rate = get_scheduler("cosine", optimizer=optimizer, num_warmup_steps=500, num_training_steps=10_000)
    model, optimizer, loader, rate = accelerator.prepare(model, optimizer, loader, rate)
    average.to(accelerator.device)
    begun, step = 0.0, 0
    while step < WARMUP + o.updates:
        model.train()
        for clean in loader:
            if step == WARMUP:
                if o.device == "cuda":
                    torch.cuda.synchronize()
                begun = time.perf_counter()
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
            step += 1
            if step == WARMUP + o.updates:
                break
    return finished(torch.device(o.device), begun, o.updates, o.batch)


def work(task: tuple[str, argparse.Namespace, str, str]) -> dict[str, float]:
    side, options, precision, source = task
    torch.set_num_threads(options.threads)
    return {"ours": ours, "theirs": theirs}[side](options, precision, source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 64])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--updates", type=int, default=15, help="timed steps")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile ours, too")
    parser.add_argument("--out", default="results/training.json")
    o = parser.parse_args()
    rows: list[dict[str, Any]] = []
    table = Table("precision", "images/s", "diffusers", "ratio (spread)", "memory MiB", "diffusers", box=None)
    with tempfile.TemporaryDirectory() as home:
        source = f"{home}/bytes.npy"
        np.save(source, np.random.default_rng(0).integers(0, 256, (2048, 3, 32, 32), np.uint8))
        context = multiprocessing.get_context("spawn")
        for precision in o.precision:
            pairs = []
            for k in range(o.repeats):
                sides = ("ours", "theirs") if k % 2 == 0 else ("theirs", "ours")
                found = {}
                for side in sides:
                    with context.Pool(1) as pool:
                        found[side] = pool.map(work, [(side, o, precision, source)])[0]
                pairs.append(found)
            ratios = [p["ours"]["rate"] / p["theirs"]["rate"] for p in pairs]
            middle = {
                f"{side}_{key}": statistics.median(p[side][key] for p in pairs)
                for side in ("ours", "theirs")
                for key in ("rate", "memory")
            }
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
        "rows": rows,
    }
    figures.save(Path(o.out), json.dumps(record, indent=1).encode())
    Console().print(table)


if __name__ == "__main__":
    main()
