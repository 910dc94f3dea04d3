"""The peers of pictures.py: two libraries' own recipes on one core for so many minutes of CPU time, resumed if killed.

    ddpm        denoising-diffusion-pytorch: its Unet (1, 2, 4), its GaussianDiffusion (v, sigmoid schedule) and its
                Trainer's loop: Adam (.9, .99), constant rate, gradients clipped to 1, average of .995 every 10 steps
    diffusers   its script of unconditional generation: UNet2DModel (1, 2, 4) with attention before the last level,
                DDPMScheduler, epsilon, AdamW (.95, .999), warm-up and cosine, gradients clipped to 1, its average

Both see batches of 16 of the same array. What is kinder to them than their defaults: the rate is screened, bf16 is
taken where its first steps are faster, the warm-up is 5 % of the budget where 500 steps would be more, the cosine ends
with the budget, nothing is mirrored, and diffusers' DDIM starts where the noise does (`trailing`). Samples are drawn in
the precision of the training.

    python benchmarks/models/pictures_peers.py train ddpm images.npy --minutes 15 --lr 1e-3 --width 32 --out runs/ddpm
    python benchmarks/models/pictures_peers.py sample ddpm images.npy --n 1000 --out runs/ddpm

`images.npy` holds bytes (n, 3, h, w). Run by an interpreter that has the peers (models/README.md); pictures.py does so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import sys
import time
import types
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH = 16
EVALUATIONS = 18
SAVE = 120.0  # CPU seconds between checkpoints


@dataclass
class Peer:
    """One library's network, loss, optimiser, average and sampler.

    Args:
        net: what is trained.
        loss: of pictures in [-1, 1], (n, 3, h, w).
        optimiser: of the net's parameters.
        rate: factor of the learning rate by the share of the budget that is spent and the steps done.
        average: of the weights; has `state_dict` and `load_state_dict`.
        update: takes the weights of now into the average, after each step.
        averaged: copies the average into the net.
        sample: pictures (n, 3, h, w) in [0, 1] by so many evaluations.
    """

    net: nn.Module
    loss: Callable[[Tensor], Tensor]
    optimiser: torch.optim.Optimizer
    rate: Callable[[float, int], float]
    average: Any
    update: Callable[[], None]
    averaged: Callable[[], object]
    sample: Callable[[int, int], Tensor]


def ddpm(size: int, lr: float, width: int) -> Peer:
    """denoising-diffusion-pytorch, as its Trainer trains."""
    if importlib.util.find_spec("torchvision") is None:  # wanted by its data set and its grids alone
        for name in ("torchvision", "torchvision.transforms", "torchvision.utils"):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__spec__ = ModuleSpec(name, None)
        sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # pyright: ignore
        sys.modules["torchvision"].utils = sys.modules["torchvision.utils"]  # pyright: ignore
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    def diffusion(steps: int) -> Any:
        return GaussianDiffusion(net, image_size=size, timesteps=1000, sampling_timesteps=steps)

    net = Unet(dim=width, dim_mults=(1, 2, 4))
    training = diffusion(EVALUATIONS)
    ema = EMA(net, beta=0.995, update_every=10, include_online_model=False)
    return Peer(
        net,
        lambda x: training((x + 1) / 2),
        torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99)),
        lambda spent, step: 1.0,
        ema,
        ema.update,
        lambda: net.load_state_dict(ema.ema_model.state_dict()),
        lambda n, steps: diffusion(steps).sample(batch_size=n),
    )


def diffusers(size: int, lr: float, width: int) -> Peer:
    """diffusers' train_unconditional.py."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel  # pyright: ignore
    from diffusers.training_utils import EMAModel  # pyright: ignore

    net = UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(width, 2 * width, 4 * width),
        norm_num_groups=math.gcd(32, width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )
    noise = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
    ema = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def loss(x: Tensor) -> Tensor:
        z, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        return F.mse_loss(net(noise.add_noise(x, z, t), t).sample.float(), z)  # pyright: ignore

    def rate(spent: float, step: int) -> float:
        warm = max(min(step / 500, 1.0), min(spent / 0.05, 1.0))
        return warm * 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))

    def sample(n: int, steps: int) -> Tensor:
        ddim = DDIMScheduler.from_config(noise.config, timestep_spacing="trailing")
        ddim.set_timesteps(steps)
        x = torch.randn(n, 3, size, size)
        for t in ddim.timesteps:
            x = ddim.step(net(x, t).sample, t, x).prev_sample  # pyright: ignore
        return (x / 2 + 0.5).clamp(0, 1)

    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    return Peer(
        net, loss, optimiser, rate, ema,
        lambda: ema.step(net.parameters()), lambda: ema.copy_to(net.parameters()), sample,
    )  # fmt: skip


PEERS: dict[str, Callable[[int, float, int], Peer]] = {"ddpm": ddpm, "diffusers": diffusers}


def update(peer: Peer, x: Tensor, bf16: bool) -> float:
    """One step on pictures x in [-1, 1]; its loss."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = peer.loss(x)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(peer.net.parameters(), 1.0)
    peer.optimiser.step()
    peer.optimiser.zero_grad()
    peer.update()
    return float(loss.detach())


def faster_in_half(peer: Peer, x: Tensor) -> bool:
    """Whether steps of bf16 take less CPU time than those of float32; what was trained by that is undone."""
    before = deepcopy((peer.net.state_dict(), peer.optimiser.state_dict(), peer.average.state_dict()))
    took = {}
    for bf16 in (False, True):
        update(peer, x, bf16)  # the first step allocates
        begun = time.process_time()
        for _ in range(3):
            update(peer, x, bf16)
        took[bf16] = time.process_time() - begun
    peer.net.load_state_dict(before[0])
    peer.optimiser.load_state_dict(before[1])
    peer.average.load_state_dict(before[2])
    return took[True] < took[False]


def batch(x: Tensor, step: int, seed: int) -> Tensor:
    """The pictures of a step, in [-1, 1]: each pass over the data in an order of its own, whatever was done before."""
    passes, place = divmod(step, max(1, len(x) // BATCH))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(100_003 * seed + passes))
    return x[order[place * BATCH : (place + 1) * BATCH]].float() / 127.5 - 1


def train(
    make: Callable[[int, float, int], Peer], x: Tensor, out: Path, minutes: float, lr: float, width: int, seed: int,
    at_most: float = 30.0,
) -> dict[str, Any]:  # fmt: skip
    """Train, or go on, until the minutes of CPU time are spent, or `at_most` of this process.

    Returns:
        What was done so far: steps, CPU seconds, precision, parameters, whether it is finished.
    """
    torch.manual_seed(seed)
    peer, path = make(x.shape[-1], lr, width), out / "checkpoint.pt"
    begun = time.process_time()  # imports are not counted; the choice of the precision is
    step, spent, logs = 0, 0.0, []
    if path.exists():
        state = torch.load(path, weights_only=False)
        peer.net.load_state_dict(state["net"])
        peer.optimiser.load_state_dict(state["optimiser"])
        peer.average.load_state_dict(state["average"])
        torch.set_rng_state(state["rng"])
        step, spent, bf16, logs = (state[k] for k in ("step", "seconds", "bf16", "logs"))
    else:
        out.mkdir(parents=True, exist_ok=True)
        bf16 = faster_in_half(peer, batch(x, 0, seed))
        spent = time.process_time() - begun
        begun = time.process_time()
    total, before, saved = 60 * minutes, spent, spent
    peer.net.train()

    def about() -> dict[str, Any]:
        parameters = sum(p.numel() for p in peer.net.parameters())
        return {
            "steps": step, "seconds": spent, "images": step * BATCH, "bf16": bf16, "parameters": parameters,
            "finished": spent >= total, "logs": logs, "lr": lr, "width": width, "seed": seed, "minutes": minutes,
        }  # fmt: skip

    def save() -> None:
        part = path.with_suffix(".part")
        state = {"net": peer.net.state_dict(), "optimiser": peer.optimiser.state_dict()}
        state |= {"average": peer.average.state_dict(), "rng": torch.get_rng_state()}
        torch.save(state | {"step": step, "seconds": spent, "bf16": bf16, "logs": logs}, part)
        os.replace(part, path)
        (out / "about.json").write_text(json.dumps(about(), indent=1))

    losses = list[float]()
    while step == 0 or (spent < total and spent - before < 60 * at_most):
        for group in peer.optimiser.param_groups:
            group["lr"] = lr * peer.rate(spent / total, step)
        losses.append(update(peer, batch(x, step, seed), bf16))
        step, spent = step + 1, before + time.process_time() - begun
        if len(losses) == 50:
            logs, losses = [*logs, [step, round(spent, 1), sum(losses) / 50]], []
        if spent - saved > SAVE:
            save()
            saved = spent
    save()
    return about()


@torch.no_grad()
def sample(
    make: Callable[[int, float, int], Peer], size: int, out: Path, weights: str, n: int, evaluations: int, seed: int
) -> Tensor:
    """Pictures, bytes (n, 3, h, w), by DDIM from raw or averaged weights, in the precision of the training."""
    about = json.loads((out / "about.json").read_text())
    peer = make(size, about["lr"], about["width"])
    state = torch.load(out / "checkpoint.pt", weights_only=False)
    peer.net.load_state_dict(state["net"])
    peer.average.load_state_dict(state["average"])
    if weights == "averaged":
        peer.averaged()
    peer.net.eval()
    torch.manual_seed(seed)
    with torch.autocast("cpu", torch.bfloat16, enabled=about["bf16"]):
        parts = [peer.sample(min(BATCH, n - k), evaluations).float() for k in range(0, n, BATCH)]
    return (torch.cat(parts) * 255).round().clamp(0, 255).byte()


def main() -> int:
    """Train or sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "sample"))
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0, help="of CPU time, earlier processes included")
    parser.add_argument("--at-most", type=float, default=30.0, help="minutes of CPU time in this process")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    o = parser.parse_args()
    torch.set_num_threads(1)
    x, make = torch.from_numpy(np.load(o.images)), PEERS[o.peer]
    if o.what == "train":
        print(json.dumps(train(make, x, o.out, o.minutes, o.lr, o.width, o.seed, o.at_most)))
        return 0
    for weights in ("raw", "averaged"):
        begun = time.process_time()
        found = sample(make, x.shape[-1], o.out, weights, o.n, o.evaluations, o.seed)
        np.save(o.out / f"samples-{weights}.npy", found.numpy())
        print(f"{weights}: {o.n} pictures in {time.process_time() - begun:.0f} CPU seconds", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
