"""A model family in one file: an energy, learned at one noise level."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import diffflow as df
from diffflow.models.base import TrainConfig
from diffflow.models.settings.common import DataConfig, Dials, FitConfig, PlayerConfig
from diffflow.objectives.base import Batch, Stateless, Turn


# 1. The network.
class Energy(nn.Module):
    """E(x), (n, d) -> (n,): low where data are likely, density exp(-E)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        first, second, last = nn.Linear(dim, width), nn.Linear(width, width), nn.Linear(width, 1)
        self.net = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        bowl = 0.5 * x.square().sum(1)  # rises far out, so that no particle gets lost
        return self.net(x).squeeze(1) + bowl


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
            total = self.energy(x).sum()
            (grad,) = torch.autograd.grad(total, x, create_graph=training)
        return -grad


# 3. What is minimised.
class DenoisingScoreMatching(Stateless):
    """E |sigma s(y + sigma eps) + eps|^2, least where s is the noised data's score.

    References: Vincent 2011, A Connection Between Score Matching and Denoising Autoencoders.
    """

    def __init__(self, energy: nn.Module, sigma: float) -> None:
        self.players = {"energy": energy}
        self.sigma = sigma

    def turns(self, batch: Batch, noise: df.Noise) -> Iterator[Turn]:
        eps = noise.normal(len(batch.x), tuple(batch.x.shape[1:])).to(batch.x)
        score = EnergyScore(self.players["energy"])(batch.x + self.sigma * eps, 0.0)
        loss = (self.sigma * score + eps).square().sum(1)  # (n,), one per sample
        yield Turn("energy", loss)


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
    """An energy, trained by denoising, sampled by Langevin dynamics."""

    data: DataConfig = DataConfig()
    width: int = 64
    """Units of a layer."""
    sigma: float = 0.3
    """Noise on the data that are learned, in their standard deviations."""
    energy: PlayerConfig = PlayerConfig(lr=3e-3, warmup=20)
    fit: FitConfig = FitConfig(steps=300)
    sampling: EnergySampling = EnergySampling()

    words = df.Words(
        "An energy",
        "New examples are particles that fall in it and are shaken: Langevin dynamics.",
    )

    def equation_rows(self) -> list[tuple[str, str]]:
        return [
            ("∇log <i>r</i>", "−∇<i>E</i>, the slope of the learned energy"),
            ("<i>g</i>²", "2<i>β</i>: Langevin dynamics"),
        ]

    @property
    def row(self) -> str:
        return "my_models:energy"

    def players(self) -> dict[str, PlayerConfig]:
        return {"energy": self.energy}

    def build(self, meta: Mapping[str, Any]) -> dict[str, nn.Module]:
        (dim,) = meta["shape"]
        return {"energy": Energy(dim, self.width)}

    def objective(
        self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any]
    ) -> DenoisingScoreMatching:
        return DenoisingScoreMatching(modules["energy"], self.sigma * meta["std"])

    @property
    def dials(self) -> Dials:
        return Dials(steps=self.sampling.steps)

    def sde(
        self, modules: Mapping[str, nn.Module], meta: Mapping[str, Any], dials: Dials
    ) -> df.DiffFlow:
        score = EnergyScore(modules["energy"])
        start = df.Gaussian(torch.zeros(meta["shape"]), meta["std"])
        return df.langevin(score, horizon=self.sampling.horizon, start=start)


# 5. What the commands know of it: a preset, and a row of the catalogue.
@df.for_model
def energy(scale: Any) -> EnergyConfig:
    """An energy, learned at one noise level; Langevin dynamics."""
    return EnergyConfig(DataConfig(scale.base.data.source))


df.models.MODELS["my_models:energy"] = df.models.Model(
    name="my_models:energy",
    title="Energy, learned at one noise level",
    page="theory/langevin.md",
    commands=("diffflow --import my_models.py train moons --preset my_models:energy",),
    beta="1",
    g2="2β",
    field="the slope of a learned energy",
    needs="score",
    evaluations="2 per step",
    papers=("roberts1996",),
)
