"""Endpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...equation.noise import Noise
from ...networks.generator import Generator
from ..base import Batch, Turn
from .base import Draw


# -- a finer solution --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class EndpointDistillation:
    """v(x) = F(z) - x, x = G(z): to where the generator `fine` brings the same z, whatever the cloud does. Of a fine
    solution of the probability flow this is plain distillation of the solver (Luhman & Luhman 2021), fresh z in every
    step. The tensors of `fine` are the state of the objective."""

    teacher: Generator

    def __post_init__(self) -> None:
        self.teacher.requires_grad_(False).eval()

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {}

    @property
    def classes(self) -> int:
        return self.teacher.classes

    def learn(self, batch: Batch, fake: Draw, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        return iter(())

    @torch.no_grad()
    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        if z is None or tuple(z.shape[1:]) != self.teacher.latent_shape:
            raise ValueError(
                f"endpoints are those of z of shape {self.teacher.latent_shape}, and the generator's are "
                f"{None if z is None else tuple(z.shape[1:])}"
            )
        return self.teacher(z, cond) - x.detach()

    def state(self) -> dict[str, Tensor]:
        return {f"fine/{k}": v for k, v in self.teacher.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if missing := sorted(self.state().keys() - state.keys()):
            raise ValueError(f"the checkpoint lacks the fine generator ({len(missing)} tensors, such as {missing[0]})")
        self.teacher.load_state_dict({k.removeprefix("fine/"): v for k, v in state.items()})
