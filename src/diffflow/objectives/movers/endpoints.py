"""Endpoint distillation: a generator learns to reach in one evaluation where a slower one brings the same noise.

The teacher F solves an equation from z in many steps (a denoiser with a plan, `networks.generator.FewSteps`), so that
every sample x = G(z) has one place to go, whatever the others do:

    v(x) = F(z) - x

and the regression descends E_z |G(z) - F(z)|^2. On the probability flow, a deterministic map of z, its minimum is that
map; on noisy steps it would be their mean.

Shapes: z (n, *latent_shape), x, v (n, *shape), cond int64 (n,) or None.

References:
    Luhman & Luhman 2021, "Knowledge distillation in iterative generative models", arXiv:2101.02388.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...equation.noise import Noise
from ...networks.generator import Generator
from ..base import Batch, Turn
from .base import DrawFake


@dataclass(frozen=True)
class EndpointDistillation:
    """Mover by endpoints, v(x) = F(z) - x: to where a teacher brings the same z, with fresh z in every step.

    The tensors of the teacher are the state of the objective, so that a checkpoint needs no other file.

    Args:
        teacher: the generator F, frozen here, with latents like those of the generator that follows.

    Raises:
        ValueError: for latents of another shape, or none.

    References:
        Luhman & Luhman 2021, arXiv:2101.02388.
    """

    teacher: Generator

    def __post_init__(self) -> None:
        self.teacher.requires_grad_(False).eval()

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """No players: the teacher does not learn."""
        return {}

    @property
    def classes(self) -> int:
        """Number of classes of the teacher."""
        return self.teacher.classes

    def learn(self, batch: Batch, draw_fake: DrawFake, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        """No turns."""
        return iter(())

    @torch.no_grad()
    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        """Velocity F(z) - x, one run of the teacher."""
        if z is None or tuple(z.shape[1:]) != self.teacher.latent_shape:
            raise ValueError(
                f"endpoints are those of z of shape {self.teacher.latent_shape}, and the generator's are "
                f"{None if z is None else tuple(z.shape[1:])}"
            )
        return self.teacher(z, cond) - x.detach()

    def state(self) -> dict[str, Tensor]:
        """Tensors of the teacher, under "fine/..."."""
        return {f"fine/{k}": v for k, v in self.teacher.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a saved teacher. Raises ValueError where tensors are missing."""
        if missing := sorted(self.state().keys() - state.keys()):
            raise ValueError(f"the checkpoint lacks the fine generator ({len(missing)} tensors, such as {missing[0]})")
        self.teacher.load_state_dict({k.removeprefix("fine/"): v for k, v in state.items()})
