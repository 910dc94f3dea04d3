r"""Diagnosis of the learned fields: a denoiser against its target, a discriminator against its odds.

Nothing says of a denoiser that D(y, sigma) = E[Y | y]: its mean square error E|D - Y|^2 never falls below the
conditional variance of Y, which nobody knows. Two things can be known: what the best *linear* denoiser achieves, from
the covariance of the data,

    e_lin(sigma) = 1/d sum_i  v_i sigma^2 / (v_i + sigma^2),        v_i the eigenvalues of the covariance,

which a good one undercuts at every sigma (a Gaussian is all that the other sees), and whether the error on data that
were not trained on is larger: the gap is memory. The odds of a discriminator can be checked outright (`reliability`),
at every time of the path on which it was trained.

Shapes: x (n, *shape), levels (k,) -> errors (k,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..equation.conditions import Cond
from ..equation.conditions import rows as rows_of
from ..equation.fields import Ratio
from ..equation.noise import Noise, as_noise
from ..equation.times import per_particle
from ..networks.discriminator import Discriminator
from ..networks.generator import Generator
from .run import Run


@dataclass(frozen=True)
class Errors:
    """Errors of a denoiser per noise level, and those of the best linear one.

    Args:
        levels: noise levels (k,).
        error: mean square error per dimension (k,), in model units.
        stderr: its standard error (k,).
        linear: the error of the best linear denoiser (k,).
    """

    levels: Tensor
    error: Tensor
    stderr: Tensor
    linear: Tensor


@torch.no_grad()
def denoising_errors(
    denoiser: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    x: Tensor,
    levels: Tensor,
    cond: Cond = None,
    noise: Noise | int = Noise(0),
    covariance_of: Tensor | None = None,
    batch: int = 256,
) -> Errors:
    """Errors of a denoiser at noise levels, one noise an example and level.

    Args:
        denoiser: (y, sigma, cond) -> E[Y | y].
        x: clean data (n, *shape), in model units.
        levels: noise levels (k,).
        cond: conditions of the examples as networks are told them, or None.
        noise: streams, one an example; or an integer seed.
        covariance_of: data (m, *shape) whose covariance the linear denoiser knows, as many as there are; default: x.
        batch: examples that are computed together.
    """
    reference = (x if covariance_of is None else covariance_of).flatten(1).double()
    centred = reference - reference.mean(0)
    small = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    v = (torch.linalg.eigvalsh(small) / len(centred)).clamp_min(0).cpu()  # the others are zero
    d, noise = x[0].numel(), as_noise(noise)
    means, errs = [], []
    for k, sigma in enumerate(levels.tolist()):
        rows = []
        for first in range(0, len(x), batch):
            y = x[first : first + batch]
            eps = noise.fork("level", k).shift(first).normal(len(y), tuple(y.shape[1:]), dtype=y.dtype, device=y.device)
            level = torch.tensor(sigma, dtype=y.dtype, device=y.device)
            D = denoiser(y + sigma * eps, level, rows_of(cond, slice(first, first + batch)))
            rows.append((D - y).square().flatten(1).mean(1))
        error = torch.cat(rows).double().cpu()
        means.append(error.mean())
        errs.append(error.std() / len(error) ** 0.5)
    sigma2 = levels.double().cpu()[:, None] ** 2
    linear = (v * sigma2 / (v + sigma2)).sum(1) / d
    return Errors(levels, torch.stack(means), torch.stack(errs), linear)


@torch.no_grad()
def logits_along(
    run: Run, x: Tensor, cond: Cond = None, noise: Noise | int = Noise(0), times: int = 4
) -> Iterator[tuple[float | None, Tensor, Tensor]]:
    """Logits of a run's discriminator where it was trained, at some times of the particles' path.

    The real samples at t are the data noised as the run's schedule says, the generated ones its own particles then.

    Args:
        run: a run with a discriminator.
        x: data (n, *shape), in model units.
        cond: conditions of the examples as networks are told them, or None.
        noise: streams, one a sample; or an integer seed.
        times: about how many times.

    Yields:
        The time t (None where there is no path: a GAN), logits on real samples (n,), logits on generated ones (n,).

    Raises:
        TypeError: the run's discriminator is of no known kind.
    """
    discriminator = run.players["discriminator"]
    if not isinstance(discriminator, Discriminator):
        raise TypeError(f"the discriminator of {run.path} is a {type(discriminator).__name__}, not a df.Discriminator")
    dials, noise = run.dials, as_noise(noise)
    n = len(x)
    if isinstance(generator := run.players.get("generator"), Generator):
        fake = generator.draw(n, noise.fork("start"), cond)
        classes = cond if discriminator.classes else None
        t = torch.zeros((), dtype=torch.float64)
        yield None, discriminator(x, t, classes).cpu(), discriminator(fake, t, classes).cpu()
        return
    kept = run.config.draw(run.players, run.data, n, dials, cond, noise, keep=max(1, dials.steps // times)).kept
    sde = run.sde(gan=dials.gan or None, churn=dials.churn, cond=cond if discriminator.classes else None)
    if not isinstance(sde.ratio, Ratio):
        return
    for t, fake in kept:
        if not 0 <= t < sde.horizon:  # at the end nothing moves any more, and nothing was learned
            continue
        real = x
        if sde.schedule is not None:
            now = torch.tensor(float(t), dtype=torch.float64, device=x.device)
            eps = noise.fork("real").normal(n, tuple(x.shape[1:]), dtype=x.dtype, device=x.device)
            real = per_particle(sde.schedule.scale(now), x) * (x + per_particle(sde.schedule.sigma(now), x) * eps)
        on_real, on_fake = (sde.ratio.value_and_grad(v, float(t))[0].cpu() for v in (real, fake))
        yield float(t), on_real, on_fake
