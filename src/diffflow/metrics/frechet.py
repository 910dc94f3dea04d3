r"""How far are samples from data as a classifier sees them, and how sure is it of what it sees?

    FD = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)              squared W2 distance of N(m1, C1) and N(m2, C2)

(Frechet 1957; Dowson and Landau 1982) between the Gaussians fitted to features of samples and of data (Heusel et al.
2017 with Inception's features). With C = A A^T the last trace is the sum of the singular values of A1^T A2, which needs
no square root of a matrix that is not symmetric. Only first and second moments of the features are seen.

The estimate is too large by about c/n (Chong and Forsyth 2020), so the floor takes as many held-out points as there are
samples, against the same reference. Standard error by the delta method: FD moves with its first law as the mean of

    phi(x) = 2 (m1 - m2).(x - m1) + (x - m1)^T (I - T) (x - m1),      T the optimal map from N(0, C1) to N(0, C2)

(the dual potential of the transport), and Var = Var phi(X)/n + Var psi(Y)/m. Under equal laws the first-order term
vanishes and what is estimated is sqrt 2 times the spread. It is about the mean at this n.

    confidence   mean largest probability of the classifier; floor: on held-out data
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .base import Metric, pick, points
from .classifier import Classifier, unit

Features = Callable[[Tensor], Tensor]


def gaussian_frechet(m1: Tensor, c1: Tensor, m2: Tensor, c2: Tensor) -> float:
    """FD of N(m1, c1) and N(m2, c2): means (d,), covariances (d, d). Computed in float64; rounding may leave -1e-15."""
    a1, a2 = _root(c1.double()), _root(c2.double())
    overlap = torch.linalg.svdvals(a1.mT @ a2).sum()
    return float((m1 - m2).double().square().sum() + c1.double().trace() + c2.double().trace() - 2.0 * overlap)


def frechet(
    x: Tensor,
    y: Tensor,
    other: Tensor | None = None,
    *,
    features: Classifier | Features | None = None,
    limit: int = 10_000,
    seed: int = 0,
) -> Metric:
    """Frechet distance of samples x to real y, (n, *shape), in the feature space of a classifier.

    features: a Classifier (what its last layer reads), or a callable (n, *shape) -> (n, k); None compares the points
    themselves. At most `limit` samples are used and as many of `other`, the held-out points of the floor; y is used
    whole. Raises ValueError with fewer than two points in a set.
    """
    n = min(limit, len(x), *(() if other is None else (len(other),)))
    if n < 2 or len(y) < 2:
        raise ValueError(f"a covariance needs at least two points in each set, got {n} and {len(y)}")
    see = embedding(features) if isinstance(features, Classifier) else features
    a, b = _seen(pick(x, n, seed), see), _seen(y, see)
    value, variance = _frechet(a, b)
    floor = None if other is None else _frechet(_seen(pick(other, n, seed, 2), see), b)[0]
    return Metric("frechet", value, variance**0.5, floor, "lower", n)


def embedding(judge: Classifier, batch: int = 512) -> Features:
    """What the last layer of the classifier reads: images uint8 or in [0, 1], or vectors, to (n, k), on the CPU.

    A net's own `features`, where it has them (LeNet-5: 84 of them); else every layer of a Sequential but the last.
    """
    net: Features | None = getattr(judge.net, "features", None)
    if net is None and isinstance(judge.net, nn.Sequential):
        net = judge.net[:-1]
    if net is None:
        raise ValueError(
            f"the classifier {judge.name!r} shows no features: give its net a method `features`, or pass a callable"
        )

    @torch.no_grad()
    def see(x: Tensor) -> Tensor:
        device = next(judge.net.parameters()).device
        return torch.cat([net(unit(part).to(device)).flatten(1).cpu() for part in x.split(batch)])

    return see


def confidence(x: Tensor, classifier: Classifier, real: Tensor | None = None) -> Metric:
    """Mean of the largest class probability over samples x (n, *shape); real: held-out data, for the floor.

    Not an accuracy: a sample that shows another class than it was asked for can be quite clear.
    """
    sure = classifier.logits(x).double().softmax(1).amax(1)
    floor = None if real is None else float(classifier.logits(real).double().softmax(1).amax(1).mean())
    return Metric("confidence", float(sure.mean()), float(sure.std()) / len(x) ** 0.5, floor, "higher", len(x))


def _seen(x: Tensor, see: Features | None) -> Tensor:
    return points(x if see is None else see(x.detach().cpu()))


def _root(c: Tensor) -> Tensor:
    """A with A A^T = c, (d, d) positive semi-definite: its negative eigenvalues are rounding and count as 0."""
    values, axes = torch.linalg.eigh(c)
    return axes * values.clamp_min(0.0).sqrt()


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (k,), unbiased covariance (k, k) and centred points of x (n, k)."""
    mean = x.mean(0)
    x = x - mean
    return mean, x.T @ x / (len(x) - 1), x


def _frechet(x: Tensor, y: Tensor) -> tuple[float, float]:
    """FD of the Gaussians fitted to x (n, k) and y (m, k), and the variance of that estimate."""
    (mx, cx, x), (my, cy, y) = _moments(x), _moments(y)
    variance = _potential(x, mx - my, cx, cy).var() / len(x) + _potential(y, my - mx, cy, cx).var() / len(y)
    return gaussian_frechet(mx, cx, my, cy), float(variance)


def _potential(x: Tensor, shift: Tensor, c1: Tensor, c2: Tensor) -> Tensor:
    """phi at centred points x (n, k) of the first law; a direction in which they do not vary adds nothing."""
    values, axes = torch.linalg.eigh(c1)
    width = values.clamp_min(0.0).sqrt()
    alive = width > 1e-7 * width[-1]  # below, float64 rounding: C1 keeps 16 digits of a variance
    width, axes = width[alive], axes[:, alive]
    # in white coordinates z the map is (A^T C2 A)^(1/2), with A A^T = C1
    values, turn = torch.linalg.eigh((axes * width).T @ c2 @ (axes * width))
    moved = x @ (axes / width) @ (turn * values.clamp_min(0.0).pow(0.25))
    return 2.0 * x @ shift + x.square().sum(1) - moved.square().sum(1)
