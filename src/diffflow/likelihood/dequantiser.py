r"""Dequantisers: networks that put a discrete value where in its cell the model expects it (derivations.md 5.3).

    log P(v) = log int_cell p  >=  E_q[ log p(e + u w) - log q(u|v) ] + log w                  (Ho et al. 2019)

for every density q of u in [0, 1) given the whole sample v: q = 1 is uniform dequantisation, and q ~ p on the cell
makes it an equality. Coordinate by coordinate we take a logistic law in the logit,

    logit u = m(v) + s(v) logit r,   r ~ U(0, 1),      log q = log r(1-r) - log s - log u(1-u),

m, log s by a small network of v that starts at m = 0, s = 1: exactly uniform. It is trained after the model, which
stays as it is: the gradient of log p needs no likelihood, since it is the score. With y = encode(v, u) and the
smallest noise,

    minimise  E[ -y . stop(score(y)) + log q ].

Shapes: z (n, *shape), the values in model units; r, u (n, *shape); log q (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..equation.algebra import gradients
from ..equation.noise import Noise, as_noise


class Dequantiser(nn.Module):
    """The law q(u|v) of places in cells, from a net of two hidden layers.

    Args:
        shape: event shape of the samples, an image (c, h, w) or a vector (d,).
        discrete: (*shape), false for coordinates without cells, which take no part; None: all have cells.
        width: width of the hidden layers.

    Raises:
        ValueError: another shape, or a width below 1.
    """

    discrete: Tensor

    def __init__(self, shape: tuple[int, ...], discrete: Tensor | None = None, width: int = 32):
        super().__init__()
        if len(shape) not in (1, 3) or min(shape) < 1 or width < 1:
            raise ValueError(f"shape = {shape} must be (d,) or (channels, height, width), width = {width} positive")
        self.shape = shape
        self.register_buffer("discrete", torch.ones(shape) if discrete is None else discrete.float())

        def layer(a: int, b: int) -> nn.Module:
            return nn.Conv2d(a, b, 3, padding=1) if len(shape) == 3 else nn.Linear(a, b)

        last = layer(width, 2 * shape[0])
        for p in last.parameters():
            nn.init.zeros_(p)
        self.net = nn.Sequential(layer(shape[0], width), nn.SiLU(), layer(width, width), nn.SiLU(), last).float()

    def forward(self, z: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """A draw of the places in the cells.

        Args:
            z: values in model units (n, *shape).
            r: numbers uniform in (0, 1), (n, *shape).

        Returns:
            u in (0, 1), (n, *shape), and log q(u|v) in nats, (n,).
        """
        m, log_s = self.net(z).chunk(2, 1)
        log_s = log_s.clamp(-5, 5)
        base = r.clamp(1e-6, 1 - 1e-6).logit()
        logit = m + log_s.exp() * base
        # log r(1-r) = -|a| - 2 log(1 + e^-|a|) at the logit a, and likewise for u
        inner, outer = (-a.abs() - 2 * F.softplus(-a.abs()) for a in (base, logit))
        return logit.sigmoid(), (self.discrete * (inner - log_s - outer)).flatten(1).sum(1)


@gradients()
def fit_dequantiser(
    dequantiser: Dequantiser,
    score: Callable[[Tensor], Tensor],
    encode: Callable[[Tensor, Tensor | None], Tensor],
    x: Tensor,
    steps: int = 500,
    batch: int = 64,
    lr: float = 2e-3,
    noise: Noise | int = Noise(0),
    on_step: Callable[[int, float], None] | None = None,
) -> Dequantiser:
    """Training of a dequantiser under a model, which stays as it is.

    Args:
        dequantiser: the dequantiser, trained in place.
        score: the model's score at its smallest noise: model units (n, *shape) -> (n, *shape).
        encode: (rows, u or None) -> model units, as `Transform.encode`.
        x: discrete data (n, *shape), as loaded.
        steps: number of gradient steps.
        batch: rows in a batch.
        lr: learning rate at the start; it falls along half a cosine.
        noise: streams for batches and places, or an integer seed.
        on_step: called with the number of steps done and the mean of log q.

    Returns:
        The dequantiser.

    Raises:
        ValueError: data of another shape, or no steps.
    """
    if tuple(x.shape[1:]) != dequantiser.shape or steps < 1:
        raise ValueError(f"x has events of shape {tuple(x.shape[1:])}, q of {dequantiser.shape}; steps = {steps}")
    device, noise = next(dequantiser.parameters()).device, as_noise(noise)
    optimizer = torch.optim.Adam(dequantiser.parameters(), lr, betas=(0.9, 0.99))
    for k in range(steps):
        streams = noise.fork("fit", k)
        rows = x[streams.fork("rows").randint(batch, len(x))]
        z = encode(rows, None).to(device)
        u, log_q = dequantiser(z, streams.fork("r").uniform(batch, dequantiser.shape).to(device))
        low, high = (encode(rows, torch.full(rows.shape, v)).to(u) for v in (0.0, 1.0 - 2.0**-24))
        y = torch.lerp(low, high, u)
        with torch.no_grad():
            pull = score(y)
        loss = (log_q - (y * pull).flatten(1).sum(1)).mean()
        for group in optimizer.param_groups:  # half a cosine, to settle
            group["lr"] = 0.5 * lr * (1 + math.cos(math.pi * k / steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if on_step is not None:
            on_step(k + 1, log_q.mean().item())
    return dequantiser
