"""Cloud movers: a field made of the generated cloud and the data themselves moves the samples; nothing is learned.

With x_1..x_n the generated samples of a batch and y_1..y_n its data, the velocity is a field of equation/kernels/
that has observed the cloud,

    v(x) = field(x; x_1..x_n, y_1..y_n),    for instance  mean_j grad_x k(x, y_j) - mean_i grad_x k(x, x_i)   (MMD)

so a generator that follows it is that particle flow, amortised: generative moment matching, drifting models, sliced
Wasserstein flows (derivations.md 6.1).

Shapes: x, v (n, *shape), cond int64 (n,) or None.

References:
    Arbel et al. 2019, arXiv:1906.04370 (MMD flow). Liutkus et al. 2019, arXiv:1806.08141 (sliced Wasserstein).
    Deng et al. 2026, arXiv:2602.04770 (drifting).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...equation.kernels import CloudField, Injected
from ...equation.noise import Noise
from ..base import Batch, Stateless, Turn
from .base import DrawFake


@dataclass(frozen=True)
class CloudMover(Stateless):
    """Mover by a field of the generated cloud itself, with the batch as its target points.

    Nothing learns beside the generator.

    For a conditional generator the field acts within classes: generated samples of a class see each other and the data
    of that class only. A sample that is alone of its class has no cloud, and rests.

    The cloud is the batch that it is handed, so the field of a step depends on how the batch is cut: this mover wants
    it whole, without micro-batches and in one process. Forces of data and cloud nearly cancel, so they are computed in
    full precision, under autocast too.

    Args:
        field: a field of equation/kernels/: drifting, MMD, sliced Wasserstein, ...; its target points are replaced by
            those of the batch. SVGD and KSD keep their score.
    """

    field: CloudField | Injected

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """No players."""
        return {}

    @property
    def classes(self) -> None:
        """None: it acts within whatever classes it is given."""
        return None

    def learn(self, batch: Batch, draw_fake: DrawFake, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        """No turns."""
        return iter(())

    @torch.no_grad()
    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        """The field at each sample, with its cloud as it is."""
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
