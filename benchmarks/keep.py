"""Trained runs packed into a megabyte or two, and unpacked, so that a benchmark goes on with the very same weights.

Kept are the averaged weights in half precision, a file for each player, settings and plans.

    python benchmarks/keep.py runs/mnist-edm results/mnist-edm        keep them
    python benchmarks/keep.py results/mnist-edm runs/mnist-edm        a run directory of them, to sample and to measure

What training needs beside (raw weights, the optimizer's moments) is not kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import safetensors.torch

from diffflow.training import checkpoint
from diffflow.training.run_folder import Folder
from diffflow.training.weights import default_profiles, load_averaged

BESIDE = ("config.yaml", "plans.json", "quality.json")
LOCAL = ("command", "platform", "git")  # of the machine that trained


def pack(run: Path, out: Path) -> None:
    folder = Folder(run)
    found, step = load_averaged(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name, own in found.items():
        half = {f"{name}/{k}": v.half() if v.is_floating_point() else v for k, v in own.items()}
        (out / f"{name}.safetensors").write_bytes(checkpoint.to_bytes(half))
    about = {k: v for k, v in folder.about().items() if k not in LOCAL} | {"step": step}
    (out / "run.json").write_text(json.dumps(about, indent=1))
    copy(run, out)


def unpack(kept: Path, run: Path) -> None:
    if run.exists():
        raise SystemExit(f"{run} is there: choose another directory")
    files = sorted(kept.glob("*.safetensors"))
    if not files:
        raise SystemExit(f"{kept} is neither a run (it has no checkpoints) nor a kept one (it has no weights)")
    flat = {
        k: v.float() if v.is_floating_point() else v
        for file in files
        for k, v in safetensors.torch.load(file.read_bytes()).items()
    }
    run.mkdir(parents=True)
    copy(kept, run)
    about = json.loads((kept / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(about, indent=1))
    ema, profiles = {}, default_profiles(Folder(run).config())
    for key, v in flat.items():
        name, k = key.split("/", 1)
        ema[f"{name}/{profiles[name]}/{k}"] = v
    state = {"step": about["step"], "updates": dict.fromkeys((k.split("/")[0] for k in flat), about["step"])}
    checkpoint.save(run / "checkpoints", about["step"], {"players": flat, "ema": ema}, state)


def copy(source: Path, target: Path) -> None:
    for name in BESIDE:
        if (source / name).exists():
            shutil.copy(source / name, target / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    (pack if (options.source / "checkpoints").exists() else unpack)(options.source, options.target)


if __name__ == "__main__":
    main()
