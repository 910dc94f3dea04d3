"""What does a network have to say for the flow to use it? One thing: the denoiser D(y, sigma).

    y = Y + sigma * eps,    D(y, sigma) = E[Y | y],    score of y's law = (D(y, sigma) - y) / sigma^2

Every prediction form in use is affine in what the net returns, so all of them are rows of ONE table:

    D = a(sigma) y + b(sigma) F,    F = net(c(sigma) y, time(sigma), cond)

    form    c               a               b                      F predicts
    eps     1/sqrt(1+s^2)   1               -s                     eps
    v       1/sqrt(1+s^2)   1/(1+s^2)       -s/sqrt(1+s^2)         (eps - s Y)/sqrt(1+s^2)
    x0      1/sqrt(1+s^2)   0               1                      Y
    flow    1/(1+s)         1/(1+s)         -s/(1+s)               eps - Y
    score   1               1               s^2                    (Y - y)/s^2
    edm     1/sqrt(s^2+d^2) d^2/(s^2+d^2)   s d/sqrt(s^2+d^2)      a unit-variance target (Karras et al. 2022)

d = sigma_data. No row knows a schedule: a variance-preserving net sees y/sqrt(1+s^2), a rectified flow sees y/(1+s),
whatever path the particles take.
Shapes: y (n, *shape); sigma 0-d or (n,); cond None or int64 (n,), -1 = no class; D like y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..equation.algebra import recordable_net


class Coefficients(NamedTuple):
    """The three numbers per sigma that tie a net to the denoiser: it sees `c y` and D = a y + b F."""

    c: Tensor
    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class Form:
    """A prediction form: `at(sigma, sigma_data) -> Coefficients`, each shaped like sigma."""

    at: Callable[[Tensor, float], Coefficients]

    def denoised(self, out: Tensor, y: Tensor, sigma: Tensor, sigma_data: float = 1.0) -> Tensor:
        """D from what a net of this form returned at (y, sigma). Shapes: out and y (n, *shape)."""
        _, a, b = (per_particle(k, y) for k in self.at(sigma, sigma_data))
        return a * y + b * out

    def predicted(self, D: Tensor, y: Tensor, sigma: Tensor, sigma_data: float = 1.0) -> Tensor:
        """What a net of this form returns at (y, sigma) when its denoiser is D: the inverse of `denoised`."""
        _, a, b = (per_particle(k, y) for k in self.at(sigma, sigma_data))
        return (D - a * y) / b


def per_particle(k: Tensor, y: Tensor) -> Tensor:
    """k of shape () or (n,), in y's dtype and device, shaped to multiply y of shape (n, *shape)."""
    k = k.to(y.device, y.dtype)
    return k.reshape(-1, *[1] * (y.dim() - 1)) if k.dim() else k


def _eps(s: Tensor, d: float) -> Coefficients:
    return Coefficients((1 + s * s).rsqrt(), torch.ones_like(s), -s)


def _v(s: Tensor, d: float) -> Coefficients:
    r = (1 + s * s).rsqrt()
    return Coefficients(r, r * r, -s * r)


def _x0(s: Tensor, d: float) -> Coefficients:
    return Coefficients((1 + s * s).rsqrt(), torch.zeros_like(s), torch.ones_like(s))


def _flow(s: Tensor, d: float) -> Coefficients:
    u = 1 / (1 + s)
    return Coefficients(u, u, -s * u)


def _score(s: Tensor, d: float) -> Coefficients:
    return Coefficients(torch.ones_like(s), torch.ones_like(s), s * s)


def _edm(s: Tensor, d: float) -> Coefficients:
    r = (s * s + d * d).rsqrt()
    return Coefficients(r, (d * r) ** 2, s * d * r)


FORMS: dict[str, Form] = {
    "eps": Form(_eps),
    "v": Form(_v),
    "x0": Form(_x0),
    "flow": Form(_flow),
    "score": Form(_score),
    "edm": Form(_edm),
}


def quarter_log(sigma: Tensor) -> Tensor:
    """EDM's noise conditioning 0.25 ln sigma (Karras et al. 2022, table 1)."""
    return 0.25 * sigma.log()


class Denoiser(nn.Module):
    """D(y, sigma) = a y + b net(c y, time(sigma), cond), for a net of any form; the default is EDM preconditioning.

    net         module or callable (x (n, *shape), time (n,), cond int64 (n,) or None) -> (n, *shape)
    sigma_data  standard deviation of the data in model units, > 0
    spread      largest principal standard deviation of the data, for the default sampling grid (default: sigma_data)
    form, time  a row of `FORMS` and what the net is told about sigma

    `net.classes` (int, optional) is how many classes it knows. The affine arithmetic runs in at least float32,
    whatever the net runs in.
    """

    cost = 1

    def __init__(
        self,
        net: Callable[..., Tensor],
        sigma_data: float,
        principal_std: float | None = None,
        *,
        form: Form = FORMS["edm"],
        time: Callable[[Tensor], Tensor] = quarter_log,
    ):
        super().__init__()
        if isinstance(net, type) or not callable(net):
            name = f"the class {net.__name__}" if isinstance(net, type) else f"a {type(net).__name__}"
            raise TypeError(f"a denoiser is made of a net (x, time, cond) -> (n, *shape), an instance: got {name}")
        if not 0 < sigma_data < float("inf"):
            raise ValueError(
                f"sigma_data = {sigma_data} must be positive: the standard deviation of the data in model units"
            )
        self.net = net
        self.sigma_data = float(sigma_data)
        self.principal_std = float(sigma_data if principal_std is None else principal_std)
        self.form = form
        self.time = time

    @property
    def classes(self) -> int:
        """How many classes the net knows; 0 when it takes no condition."""
        return int(getattr(self.net, "classes", 0))

    def forward(self, y: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
        """D(y, sigma) in y's dtype. y (n, *shape); sigma 0-d or (n,), positive; cond None (no class) or int64 (n,).

        Raises ValueError for a sigma <= 0 (NaN comes back where sigma lies on an accelerator) or of another length,
        and for a net that returns another shape.
        """
        work = y.to(torch.promote_types(y.dtype, torch.float32))
        sigma = torch.as_tensor(sigma)
        if sigma.ndim > 1 or (sigma.ndim and len(sigma) != len(y)):
            raise ValueError(f"sigma has shape {tuple(sigma.shape)} for {len(y)} particles: one, or one for each")
        if sigma.device.type == "cpu" and not torch.compiler.is_compiling():
            if not (low := sigma.min().item() if sigma.numel() else 1.0) > 0:
                raise ValueError(f"a denoiser needs sigma > 0, got {low:.6g}: at 0 the data are known")
        else:  # to look would wait for the device: no number comes back for a sigma that is none
            sigma = torch.where(sigma > 0, sigma, torch.nan)
        sigma = sigma.to(y.device)
        inner = next((p.dtype for p in self.parameters() if p.is_floating_point()), work.dtype)
        c = per_particle(self.form.at(sigma, self.sigma_data).c, work)
        # A tensor of shape (n,), never a float: diffusers' UNet2DModel casts a python float to an integer.
        time = self.time(sigma).to(inner).expand(len(y))
        out = recordable_net(self.net)((c * work).to(inner), time, cond)
        if out.shape != y.shape:
            raise ValueError(
                f"the net of this denoiser returned shape {tuple(out.shape)} for noisy data of shape {tuple(y.shape)}: "
                "a net (x, time, cond) returns what it predicts, of the shape of x"
            )
        # Autocast would redo the affine part in half precision only for matmuls; the cast makes the sum float32 in
        # any case.
        return self.form.denoised(out.to(work.dtype), work, sigma, self.sigma_data).to(y.dtype)

    def given(self, cond: Tensor | int | None) -> Denoiser | Given:
        """This denoiser with the class fixed: int or 0-d for all particles, (n,) one each, None for no class."""
        return self if cond is None else Given(self, cond)


class Given:
    """A denoiser with its condition bound: the same protocol as `Denoiser`, sharing its weights."""

    def __init__(self, source: Denoiser, cond: Tensor | int):
        if not source.classes:
            raise ValueError("cond was given, but this denoiser was trained without classes: leave cond out")
        cond = torch.as_tensor(cond)
        if cond.dtype.is_floating_point or (
            cond.numel() and not -1 <= int(cond.min()) <= int(cond.max()) < source.classes
        ):
            raise ValueError(
                f"cond = {cond.tolist()} must be integer classes 0..{source.classes - 1} (or -1 for no class)"
            )
        self.source, self.cond = source, cond.long()
        self.cost, self.principal_std, self.sigma_data, self.classes = (
            source.cost,
            source.principal_std,
            source.sigma_data,
            source.classes,
        )

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        cond = self.cond.to(y.device)
        if cond.dim() and len(cond) != len(y):
            raise ValueError(
                f"{len(cond)} conditions for {len(y)} particles: give one per particle, or a single one for all"
            )
        return self.source(y, sigma, cond.expand(len(y)))

    def given(self, cond: Tensor | int | None) -> Denoiser | Given:
        return self.source.given(cond)
