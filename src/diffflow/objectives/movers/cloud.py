"""Cloud mover."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...equation.kernels import CloudField, Injected
from ...equation.noise import Noise
from ..base import Batch, Stateless, Turn
from .base import Draw


# -- the cloud itself --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CloudMover(Stateless):
    """A field of the generated cloud itself (kernels/): drifting, MMD, sliced Wasserstein, ... with the batch as its
    target points; SVGD and KSD keep their score. Nothing learns beside the generator.

    For a conditional generator the field acts within classes: generated samples of a class see each other and the data
    of that class only. A sample that is alone of its class has no cloud, and rests.

    The cloud is the batch that it is handed, so the field of a step depends on how the batch is cut: this mover wants
    it whole, without micro-batches and in one process. Forces of data and cloud nearly cancel, so they are computed in
    full precision, under autocast too.
    """

    field: CloudField | Injected

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {}

    @property
    def classes(self) -> None:
        return None

    def learn(self, batch: Batch, fake: Draw, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        return iter(())

    @torch.no_grad()
    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._velocity(x.detach(), cond, batch, noise)

    def _velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise) -> Tensor:
        if cond is None:
            return self.field.on(batch.x, noise).observe(x, 0.0)(x, 0.0)
        v = torch.zeros_like(x)
        for label in cond.unique():
            at = cond == label
            cloud = x[at]
            if len(cloud) > 1:
                field = self.field.on(batch.x[at], noise.fork("class", int(label)))
                field = field.given(label) if field.conditional else field
                v[at] = field.observe(cloud, 0.0)(cloud, 0.0)
        return v
