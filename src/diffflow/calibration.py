r"""Are the learned fields what they should be? A denoiser against its target, a discriminator against its odds.

A denoiser has no label that says D(y, sigma) = E[Y | y]: its mean square error E|D - Y|^2 never falls below the
conditional variance of Y, which nobody knows. Two things can be known: what the best *linear* denoiser achieves, from
the covariance of the data,

    e_lin(sigma) = 1/d sum_i  v_i sigma^2 / (v_i + sigma^2),        v_i the eigenvalues of the covariance,

which a good one undercuts at every sigma (a Gaussian is all that the other sees), and whether the error on data that
were not trained on is larger: the gap is memory. A discriminator can be checked outright: among samples to which it
gives odds e^d : 1, the share of real ones must be sigmoid(d) (`reliability`).

Shapes: x (n, *shape), levels (k,) -> errors (k,).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .critic import Discriminator
from .denoiser import Denoiser
from .noise import Noise


@dataclass(frozen=True)
class Errors:
    """Mean square errors per dimension at noise levels (k,), with standard errors, and the best linear denoiser's."""

    levels: Tensor
    error: Tensor
    stderr: Tensor
    linear: Tensor


@torch.no_grad()
def denoising_errors(
    denoiser: Denoiser,
    x: Tensor,
    levels: Tensor,
    cond: Tensor | None = None,
    noise: Noise = Noise(0),
    covariance_of: Tensor | None = None,
    batch: int = 256,
) -> Errors:
    """Errors on x (n, *shape), in model units, one noise each a level. The linear denoiser is that of `covariance_of`
    (default x itself): data as many as there are."""
    reference = (x if covariance_of is None else covariance_of).flatten(1).double()
    centred = reference - reference.mean(0)
    small = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    v = (torch.linalg.eigvalsh(small) / len(centred)).clamp_min(0).cpu()  # the others are zero
    d, means, errs = x[0].numel(), [], []
    for k, sigma in enumerate(levels.tolist()):
        rows = []
        for first in range(0, len(x), batch):
            y = x[first : first + batch]
            own = noise.fork("level", k).shift(first)
            eps = own.normal(len(y), tuple(y.shape[1:]), dtype=y.dtype, device=y.device)
            level = torch.tensor(sigma, dtype=y.dtype, device=y.device)
            D = denoiser(y + sigma * eps, level, None if cond is None else cond[first : first + batch])
            rows.append((D - y).square().flatten(1).mean(1))
        error = torch.cat(rows).double().cpu()
        means.append(error.mean())
        errs.append(error.std() / len(error) ** 0.5)
    sigma2 = levels.double().cpu()[:, None] ** 2
    linear = (v * sigma2 / (v + sigma2)).sum(1) / d
    return Errors(levels, torch.stack(means), torch.stack(errs), linear)


@dataclass(frozen=True)
class Reliability:
    """Bins of predicted probability of being real: mean prediction, share that is real, and how many samples (k,).
    `gap` is the expected calibration error, the mean |share - prediction| weighed by the samples."""

    predicted: Tensor
    real: Tensor
    count: Tensor

    @property
    def gap(self) -> float:
        full = self.count > 0
        gaps = (self.predicted - self.real).abs()[full] * self.count[full]
        return (gaps.sum() / self.count.sum()).item()


def reliability(logit_real: Tensor, logit_fake: Tensor, bins: int = 10) -> Reliability:
    """Odds against facts, from logits on as many real samples (n,) as generated ones (n,).

    Raises ValueError where their numbers differ: the odds of a balanced game would be off by their ratio."""
    if len(logit_real) != len(logit_fake):
        raise ValueError(f"{len(logit_real)} real and {len(logit_fake)} generated samples: give as many of each")
    p = torch.cat([logit_real, logit_fake]).double().sigmoid()
    real = torch.cat([torch.ones_like(logit_real), torch.zeros_like(logit_fake)]).double()
    k = (bins * p).long().clamp(0, bins - 1)
    count, predicted, share = (torch.zeros(bins, dtype=torch.float64, device=p.device) for _ in range(3))
    count.index_add_(0, k, torch.ones_like(p))
    predicted.index_add_(0, k, p)
    share.index_add_(0, k, real)
    some = count.clamp_min(1)
    return Reliability(predicted / some, share / some, count)


@torch.no_grad()
def logits(
    critic: Discriminator, x: Tensor, t: float, cond: Tensor | None = None, dials: Tensor | None = None
) -> Tensor:
    """d(x, t) in batches, (n,), on the CPU."""
    parts = []
    for first in range(0, len(x), 512):
        part = slice(first, first + 512)
        parts.append(critic(x[part], t, None if cond is None else cond[part], dials).cpu())
    return torch.cat(parts)
