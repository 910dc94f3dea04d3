"""Peak memory of a training as estimated beforehand, compared with what its process takes.

Each cell is a training of a few steps on random pictures, in a process of its own, which asks for the estimate before
it builds anything (`training.memory_estimate`) and reads its peak of resident memory (VmHWM) at the end. Every cell is
written when it is done, and those of a file are not done again.

    python benchmarks/training/memory.py --out results/memory.json
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import diffflow as df
from diffflow import files
from diffflow.models.base import TrainConfig
from diffflow.models.presets import BY_MODEL, preset
from diffflow.models.settings import serialise
from diffflow.models.settings.networks import DiTConfig
from diffflow.models.settings.serialise import to_dict
from diffflow.training.batches import Batches
from diffflow.training.distributed import Process
from diffflow.training.loop import fit
from diffflow.training.memory import resident
from diffflow.training.memory_estimate import estimate
from diffflow.training.memory_plan import peak
from diffflow.training.state import TrainingState

UNET = {"model.net.widths": [32, 64, 96], "model.net.layers": 1, "model.net.head": 32}
CONV = {"model.generator.widths": [128, 64, 32], "model.discriminator.widths": [32, 64, 128]}
WIDE = {"model.net.widths": [64, 128, 128], "model.net.layers": 1, "model.net.head": 32}
# name: preset, its scale, channels and side of the pictures, batch, precision, changes
CELLS: dict[str, tuple[str, str, tuple[int, int], int, str, dict[str, Any]]] = {
    "denoiser-8": ("digits", "", (1, 8), 256, "fp32", {}),
    "denoiser-28": ("mnist", "", (1, 28), 128, "fp32", {}),
    "denoiser-28-bf16": ("mnist", "", (1, 28), 128, "bf16", {}),
    "denoiser-32": ("cifar10", "", (3, 32), 64, "fp32", UNET),
    "denoiser-32-bf16": ("cifar10", "", (3, 32), 64, "bf16", UNET),
    "denoiser-32-wide": ("cifar10", "", (3, 32), 32, "fp32", WIDE),
    "denoiser-32-accumulate": ("cifar10", "", (3, 32), 64, "fp32", UNET | {"fit.accumulate": 8}),
    "denoiser-64": ("cifar10", "", (3, 64), 32, "fp32", UNET),
    "denoiser-64-bf16": ("cifar10", "", (3, 64), 32, "bf16", UNET),
    "denoiser-64-bf16-wide": ("cifar10", "", (3, 64), 16, "bf16", WIDE),
    "preset-cifar10-bf16": ("cifar10", "", (3, 32), 8, "bf16", {}),
    "preset-cifar10-fp32": ("cifar10", "", (3, 32), 8, "fp32", {}),
    "dit-16": ("cifar10", "", (3, 16), 64, "fp32", {"model.net": DiTConfig()}),
    "pictures-32": ("pictures", "", (3, 32), 128, "fp32", {}),
    "pictures-32-bf16": ("pictures", "", (3, 32), 128, "bf16", {}),
    "pictures-64": ("pictures", "", (3, 64), 64, "fp32", {}),
    "pictures-64-bf16": ("pictures", "", (3, 64), 64, "bf16", {}),
    "gan-32": ("gan", "cifar10", (3, 32), 128, "fp32", CONV),
    "gan-32-bf16": ("gan", "cifar10", (3, 32), 128, "bf16", CONV),
    "relativistic-64": ("relativistic", "cifar10", (3, 64), 64, "fp32", CONV),
    "diffusion-gan-32": ("diffusion-gan", "cifar10", (3, 32), 64, "fp32", UNET),
    "discriminator-flow-28": ("discriminator-flow", "mnist", (1, 28), 128, "fp32", {}),
    "score-gan-28": ("score-gan", "mnist", (1, 28), 64, "fp32", {}),
    "drifting-28": ("drifting", "mnist", (1, 28), 256, "fp32", {}),
    "mmd-28": ("mmd-generator", "mnist", (1, 28), 256, "fp32", {}),
}


def settings(name: str) -> tuple[TrainConfig, tuple[int, int]]:
    """The settings of a cell, and channels and side of its pictures."""
    key, scale, (channels, side), batch, precision, changes = CELLS[name]
    config = BY_MODEL[key](scale).config if scale else preset(key).config
    common = {"fit.batch": batch, "fit.precision": precision, "fit.accumulate": 1}
    known = serialise.flat(to_dict(config))
    changes = {k: v for k, v in changes.items() if k in known or k == "model.net"}
    return serialise.replace(config, common | changes), (channels, side)


def measure(name: str, steps: int) -> dict[str, Any]:
    """The estimate of a cell and what its training took, bytes."""
    config, (channels, side) = settings(name)
    bytes_ = np.random.default_rng(0).integers(0, 256, (512, channels, side, side), np.uint8)
    data = df.data.of(bytes_, np.arange(512) % 10)
    meta, process = data.meta(), Process(torch.device("cpu"))
    gc.collect()
    base, began = resident(), time.perf_counter()
    guess = estimate(config, meta)
    seconds, after = time.perf_counter() - began, resident()
    if guess is None:
        raise SystemExit(f"{name}: no estimate")
    expected = peak(guess, config, process)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        training = TrainingState(config.objective(config.build(meta), meta), config.players())
    fit(training, Batches(data, 0, process.device), replace(config.fit, steps=steps, minutes=None), process)
    highest = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    micro = config.fit.batch // config.fit.accumulate
    return {
        "estimate": round(expected),
        "peak": highest,
        "before": base,
        "after_estimate": after,
        "step": round(guess.of_step(micro, config.fit.accumulate)),
        "parameters": guess.parameters,
        "seconds_of_estimate": round(seconds, 2),
        "precision": config.fit.precision,
        "batch": config.fit.batch,
        "micro": micro,
        "shape": [channels, side, side],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells", nargs="*", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--cell", choices=list(CELLS), help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.cell:
        print(json.dumps(measure(o.cell, o.steps)))
        return
    about = {
        "command": " ".join(["python", *sys.argv]),
        "versions": {p: version(p) for p in ("diffflow", "torch", "diffusers")} | {"python": platform.python_version()},
        "cpu": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    cells: dict[str, Any] = json.loads(o.out.read_text())["cells"] if o.out.exists() else {}
    for name in o.cells:
        if name not in cells:
            words = [sys.executable, __file__, "--out", str(o.out), "--cell", name, "--steps", str(o.steps)]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=os.environ, check=False)
            if done.returncode:
                print(f"{name:26} failed ({done.returncode})")
                continue
            cells[name] = json.loads(done.stdout.splitlines()[-1])
            files.write_json(o.out, about | {"cells": cells})
        c = cells[name]
        c["ratio"] = round(c["estimate"] / c["peak"], 3)
        print(
            f"{name:26} {c['precision']} {c['micro']:4} estimate {c['estimate'] / 2**30:5.2f} GiB, peak "
            f"{c['peak'] / 2**30:5.2f} GiB, ratio {c['ratio']:.2f}  ({c['seconds_of_estimate']:.1f} s)",
            flush=True,
        )
    files.write_json(o.out, about | {"cells": cells})


if __name__ == "__main__":
    main()
