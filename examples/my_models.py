"""A model family in one file: an energy, trained at one noise level, sampled by Langevin dynamics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import diffflow as df
from diffflow.objectives.objective import Batch, Stateless, Turn
from diffflow.training.config import DataConfig, Dials, FitConfig, PlayerConfig, TrainConfig


# 1. The network.
class Energy(nn.Module):
    """E(x), (n, d) -> (n,): low where data are likely. exp(-E) is their density, up to a constant."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        layers = [nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)]
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(1) + 0.5 * x.square().sum(1)  # rises far out, so that no particle gets lost


# 2. What it is to the equation.
class EnergyScore(df.Field):
    """grad log r(x) = -grad E(x): (n, d) -> (n, d), the same at all times."""

    cost = 2  # network evaluations: an input gradient counts two

    def __init__(self, energy: nn.Module) -> None:
        self.energy = energy

    def __call__(self, x: Tensor, t: Any) -> Tensor:
        training = torch.is_grad_enabled()  # then the score itself is differentiated
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            (grad,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=training)
        return -grad


# 3. What is minimised.
class DenoisingScoreMatching(Stateless):
    """E |sigma s(y + sigma eps) + eps|^2: at its minimum s is the score of the noised data (Vincent 2011)."""

    def __init__(self, energy: nn.Module, sigma: float) -> None:
        self.players = {"energy": energy}
        self.sigma = sigma

    def turns(self, batch: Batch, noise: df.Noise) -> Iterator[Turn]:
        eps = noise.normal(len(batch.x), tuple(batch.x.shape[1:])).to(batch.x)
        score = EnergyScore(self.players["energy"])(batch.x + self.sigma * eps, 0.0)
        yield Turn("energy", (self.sigma * score + eps).square().sum(1))  # one loss per sample


# 4. The settings, and what they build.
@dataclass(frozen=True)
class EnergySampling:
    """How samples are drawn when nobody says otherwise."""

    steps: int = 100
    """Steps of the solver."""
    horizon: float = 3.0
    """How long the particles move."""
    ema: float | None = None
    """Width of the weight average to use; none: the player's first."""


@dataclass(frozen=True)
class EnergyConfig(TrainConfig):
    """An energy, trained by denoising score matching and sampled by Langevin dynamics."""

    data: DataConfig = DataConfig()
    width: int = 64
    """Units of a layer."""
    sigma: float = 0.3
    """Noise of the data that are learned, in standard deviations of the data."""
    energy: PlayerConfig = PlayerConfig(lr=3e-3, warmup=20)
    fit: FitConfig = FitConfig(steps=300)
    sampling: EnergySampling = EnergySampling()

    def players(self) -> dict[str, PlayerConfig]:
        return {"energy": self.energy}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        (dim,) = meta["shape"]
        return {"energy": Energy(dim, self.width)}

    def objective(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> DenoisingScoreMatching:
        return DenoisingScoreMatching(modules["energy"], self.sigma * meta["std"])

    @property
    def dials(self) -> Dials:
        return Dials(steps=self.sampling.steps)

    def sde(self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials) -> df.DiffFlow:
        start = df.Gaussian(torch.zeros(meta["shape"]), meta["std"])
        return df.langevin(EnergyScore(modules["energy"]), horizon=self.sampling.horizon, start=start)
