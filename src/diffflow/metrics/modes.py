r"""Mode coverage: whether every mode of a known mixture gets its share of the samples, and how many samples lie in one.

For a mixture sum_k w_k N(mu_k, C_k) and the distance r_k(x)^2 = (x - mu_k)^T C_k^-1 (x - mu_k), a sample belongs to the
component with the smallest r, and lies within it if r <= 3:

    within   share of samples within 3 standard deviations of their component
    modes    number of modes covered; a mode is covered when it holds, within 3 standard deviations, at least a fifth of
             its fair share w_k n of the n samples

An exact sample of well separated components lies within with the probability of a chi variable, P(r <= 3) = 1 - e^-4.5
= 98.9 % in the plane, and covers all. Several components can make one mode (a square of the checkerboard is a hundred
of them): `groups` says which.

Standard errors: of the share, binomial; of the count, sqrt(sum p_k (1 - p_k)) with p_k the chance that another n
samples would cover mode k, its count taken as normal with the variance of a Poisson one (plus 1: a mode never seen may
be rare).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..equation.laws import GaussianMixture
from .base import Metric, admitted, binomial_stderr, points

STDS = 3.0
FAIR = 0.2  # of a mode's fair share


def modes(
    x: Tensor, law: GaussianMixture, other: Tensor | None = None, *, groups: Tensor | None = None
) -> list[Metric]:
    """Modes covered by samples of a known mixture, and the share of samples within 3 standard deviations of one.

    Args:
        x: samples (n, *shape).
        law: the mixture of k components that they should have.
        other: exact samples (m, *shape), for the floor, or None. Equal sizes are up to the caller: a share is free of
            n but for noise.
        groups: the mode that each component belongs to, int64 (k,); None: each is its own.

    Returns:
        `modes`, a count, and `within`, a share.

    Raises:
        ValueError: for a component without width, for so few samples that a fifth of some mode's fair share is less
            than one, and for sets that cannot be compared (`base.admitted`).
    """
    x, *more = admitted(x, other, names=("samples", "exact samples"))
    other = more[0] if more else None
    kinds = torch.arange(len(law.means)) if groups is None else groups.cpu()
    if kinds.shape != (len(law.means),):
        raise ValueError(f"groups must name a mode for each of the {len(law.means)} components, got {len(kinds)}")
    fair = law.weights.double().cpu()
    fair = torch.zeros(int(kinds.max()) + 1, dtype=fair.dtype).index_add_(0, kinds, fair)
    (value, spread), (share, inside) = _counted(points(x), law, kinds, fair)
    floors = (None, None) if other is None else tuple(v for v, _ in _counted(points(other), law, kinds, fair))
    return [
        Metric("modes", value, spread, floors[0], "higher", len(x)),
        Metric("within", share, binomial_stderr(inside, len(x)), floors[1], "higher", len(x)),
    ]


def countable(law: GaussianMixture, n: int) -> bool:
    """Tell whether n samples are enough to look for every component: a fifth of its fair share is one or more."""
    return FAIR * float(law.weights.min()) * n >= 1.0


def _counted(
    x: Tensor, law: GaussianMixture, kinds: Tensor, fair: Tensor
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(modes, its standard error) and (share within, how many) of points x (n, d)."""
    need = FAIR * fair * len(x)
    if float(need.min()) < 1.0:
        raise ValueError(
            f"{len(x)} samples are too few to look for {len(fair)} modes: give at least "
            f"{int(len(x) / float(need.min())) + 1}"
        )
    distance, component = _nearest(x, law)
    inside = distance <= STDS
    counts = torch.bincount(kinds[component[inside]], minlength=len(fair)).double()
    p = torch.special.ndtr((counts - need) / (counts + 1.0).sqrt())
    value, stderr = float((counts >= need).sum()), float((p * (1.0 - p)).sum().sqrt())
    return (value, stderr), (float(inside.double().mean()), float(inside.sum()))


def _nearest(x: Tensor, law: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Distance (n,) in standard deviations to the nearest component, and which that is, for points x (n, d)."""
    narrow = law.narrowest
    if not narrow > 0.0:
        raise ValueError(f"a component of standard deviation {narrow} has no width to count by: noise the law first")
    law = law.to(torch.float64).to("cpu")
    # C^-1 = (I - U diag(a / (a + s^2)) U^T) / s^2
    parts = []
    for block in x.split(4096):
        offset = block[:, None, :] - law.means
        along = torch.einsum("nkd,kdr->nkr", offset, law.axes)
        share = law.extra / (law.extra + law.floor[:, None])
        square = (offset.square().sum(2) - (share * along.square()).sum(2)) / law.floor
        parts.append(square.min(1))
    return torch.cat([p.values for p in parts]).sqrt(), torch.cat([p.indices for p in parts])
