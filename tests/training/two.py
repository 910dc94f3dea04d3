"""Trains under a launcher, for test_distributed.py: each process writes the weights it ends with.

torchrun --nproc-per-node 2 two.py OUT          (or `accelerate launch`, or plain python)
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

import diffflow as df
from diffflow.models.diffusion import ModelConfig, ScoreConfig
from diffflow.models.discriminator_flow import DiscriminatorFlowConfig, PathConfig, TimedDiscriminatorConfig
from diffflow.models.settings.common import DataConfig, FitConfig, PlayerConfig
from diffflow.models.settings.networks import MLPConfig, MLPDiscriminatorConfig
from diffflow.objectives.base import Batch
from diffflow.objectives.movers.moments import Moments
from diffflow.objectives.score_matching import ScoreMatching
from diffflow.training import checkpoint
from diffflow.training.batches import Batches
from diffflow.training.distributed import find_process
from diffflow.training.loop import NonFinite, fit
from diffflow.training.state import TrainingState
from diffflow.training.train import train

CONFIG = ScoreConfig(
    DataConfig("8gaussians"),
    ModelConfig(MLPConfig(width=16, depth=1, embed=8)),
    denoiser=PlayerConfig(lr=1e-3, warmup=5),
    fit=FitConfig(batch=32, accumulate=2, steps=12, log_every=4, tensorboard=False),
)
FLOW = DiscriminatorFlowConfig(
    DataConfig("8gaussians"),
    TimedDiscriminatorConfig(MLPDiscriminatorConfig(width=16, depth=1)),
    path=PathConfig(steps=3, eta=0.5),
    discriminator=PlayerConfig(lr=1e-3, betas=(0.9, 0.99), warmup=0),
    fit=replace(CONFIG.fit, steps=6),
)


class Log:
    def __init__(self):
        self.losses = []

    def after(self, training, outcomes):
        self.losses += [o.loss for o in outcomes]


def broken(place, data) -> dict:
    """What is written of a batch whose last sample, which the last process shows, is not a number."""
    feed = Batches(data, 0, place.device)

    def bad(first, n):
        batch = feed(first, n)
        if (first + n) % CONFIG.fit.batch == 0:
            batch.x[-1] = float("nan")
        return batch

    training = TrainingState(
        ScoreMatching(CONFIG.model.build(data.meta()), CONFIG.loss, 0.1), {"denoiser": CONFIG.denoiser}
    )
    try:
        fit(training, bad, CONFIG.fit, place, Log())
    except NonFinite as e:
        return e.batch
    raise SystemExit("a sample that is not a number was not noticed")


def moments(place) -> dict[str, torch.Tensor]:
    """What the moments keep of two steps of 32 samples, each process showing its share; and the velocities."""
    mover, share = Moments((2,), window=64.0), 32 // place.world
    for k in range(2):
        rows = slice(place.rank * share, (place.rank + 1) * share)
        x, real = (torch.randn(2, 32, 2, generator=torch.Generator().manual_seed(k)) * torch.tensor([1.0, 2.0]))[
            :, rows
        ]
        v = mover.velocity(x, None, Batch(real, None, torch.arange(share)), df.Noise(0))
    return mover.state() | {"velocity": v}


def main(out: Path) -> None:
    torch.set_num_threads(1)
    place, data, log = find_process("cpu"), df.data.load("8gaussians"), Log()
    torch.manual_seed(0)
    denoiser = CONFIG.model.build(data.meta())
    training = TrainingState(ScoreMatching(denoiser, CONFIG.loss, 0.1), {"denoiser": CONFIG.denoiser})
    reductions, original = [], torch.distributed.all_reduce
    torch.distributed.all_reduce = lambda *a, **k: (reductions.append(1), original(*a, **k))[1]
    fit(training, Batches(data, 0, place.device), CONFIG.fit, place, log)
    torch.distributed.all_reduce = original
    out.mkdir(exist_ok=True)
    tensors = training.tensors()
    checkpoint.write(out / f"{place.rank}.safetensors", checkpoint.to_bytes(tensors["players"] | tensors["ema"]))
    (out / f"{place.rank}.json").write_text(
        json.dumps(
            {
                "losses": log.losses,
                "reductions": len(reductions),
                "world": place.world,
                "broken": broken(place, data),
            }
        )
    )
    checkpoint.write(out / f"moments{place.rank}.safetensors", checkpoint.to_bytes(moments(place)))
    place.wait()
    train(CONFIG, out / "run", device="cpu", data=data)
    train(FLOW, out / "flow", device="cpu", data=data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # about one exit in fifteen ends in an abort of torch's threads, when all is done and written
