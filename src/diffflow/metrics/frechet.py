r"""Frechet distance between the features of samples and of data, and how sure a classifier is of what it sees.

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

from .base import Metric, admitted, finite, pick, points
from .classifier import Classifier, unit

Features = Callable[[Tensor], Tensor]


def gaussian_frechet(m1: Tensor, c1: Tensor, m2: Tensor, c2: Tensor) -> float:
    """Frechet distance of two Gaussians, the square of their Wasserstein-2 distance.

    Args:
        m1: mean of the first (d,).
        c1: covariance of the first (d, d), positive semi-definite; may be singular.
        m2: mean of the second (d,).
        c2: covariance of the second (d, d).

    Returns:
        |m1 - m2|^2 + tr c1 + tr c2 - 2 tr (c1 c2)^(1/2), computed in float64; rounding may leave -1e-15.

    References:
        Dowson and Landau 1982, "The Frechet distance between multivariate normal distributions".
    """
    a1, a2 = _matrix_root(c1.double()), _matrix_root(c2.double())
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
    """Frechet distance of samples to real data in the feature space of a classifier: FID where it is Inception's.

    Args:
        x: samples (n, *shape).
        y: real points (m, *shape), in the same units; used whole.
        other: held-out real points for the floor, as many of them used as samples, or None.
        features: a Classifier (what its last layer reads), or a callable (n, *shape) -> (n, k); None compares the
            points themselves.
        limit: most samples used.
        seed: of which are used.

    Returns:
        `frechet`, in squared units of the features. With fewer points than features the covariances are singular and
        the distance is far too large; the metric's `note` says so.

    Raises:
        ValueError: for fewer than two points in a set, features that are not finite, and sets that cannot be compared
            (`base.admitted`).

    References:
        Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium"; Chong
        and Forsyth 2020, "Effectively unbiased FID and Inception score".
    """
    x, y, *more = admitted(x, y, other)
    other = more[0] if more else None
    n = min(limit, len(x), *(() if other is None else (len(other),)))
    if n < 2 or len(y) < 2:
        raise ValueError(f"a covariance needs at least two points in each set, got {n} and {len(y)}")
    see = embedding(features) if isinstance(features, Classifier) else features
    a, b = _seen(pick(x, n, seed), see), _seen(y, see)
    value, variance = _frechet(a, b)
    floor = None if other is None else _frechet(_seen(pick(other, n, seed, 2), see), b)[0]
    least, k = min(n, len(y)), a.shape[1]
    note = f"{least} points are fewer than {k} features, so the distance is far too large: take more" * (least < k)
    return Metric("frechet", value, variance**0.5, floor, "lower", n, note)


def embedding(judge: Classifier, batch: int = 512) -> Features:
    """Features of a classifier: what its last layer reads.

    Args:
        judge: the classifier. A net's own method `features` is used where it has one (LeNet-5: 84 of them), else every
            layer of a Sequential but the last.
        batch: events seen at a time.

    Returns:
        A function of events (n, *shape), images uint8 or floats in [0, 1], or vectors, to features (n, k) on the CPU.
        It raises ValueError for other images.

    Raises:
        ValueError: for a classifier that shows no features.
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
        (x,) = admitted(x, unit=True)
        device = next(judge.net.parameters()).device
        return torch.cat([net(unit(part).to(device)).flatten(1).cpu() for part in x.split(batch)])

    return see


def confidence(x: Tensor, classifier: Classifier, real: Tensor | None = None) -> Metric:
    """Confidence of a classifier in samples: the mean of its largest class probability.

    Not an accuracy: a sample that shows another class than it was asked for can be quite clear.

    Args:
        x: samples (n, *shape), images uint8 or floats in [0, 1].
        classifier: the judge.
        real: held-out data (m, *shape), for the floor, or None.

    Returns:
        `confidence`, between 1 / classes and 1.

    Raises:
        ValueError: for sets that cannot be judged (`base.admitted`).
    """
    x, *more = admitted(x, real, unit=True)
    real = more[0] if more else None
    sure = classifier.logits(x).double().softmax(1).amax(1)
    floor = None if real is None else float(classifier.logits(real).double().softmax(1).amax(1).mean())
    return Metric("confidence", float(sure.mean()), float(sure.std()) / len(x) ** 0.5, floor, "higher", len(x))


def _seen(x: Tensor, see: Features | None) -> Tensor:
    return points(x if see is None else finite(see(x), "features"))


def _matrix_root(c: Tensor) -> Tensor:
    """A with A A^T = c, (d, d) positive semi-definite: its negative eigenvalues are rounding and count as 0."""
    values, axes = torch.linalg.eigh(c)
    return axes * values.clamp_min(0.0).sqrt()


def _mean_and_covariances(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (k,), unbiased covariance (k, k) and centred points of x (n, k)."""
    mean = x.mean(0)
    x = x - mean
    return mean, x.T @ x / (len(x) - 1), x


def _frechet(x: Tensor, y: Tensor) -> tuple[float, float]:
    """FD of the Gaussians fitted to x (n, k) and y (m, k), and the variance of that estimate."""
    x, y = _in_their_span(x, y)
    (mx, cx, x), (my, cy, y) = _mean_and_covariances(x), _mean_and_covariances(y)
    phi, psi = _quadratic_potential(x, mx - my, cx, cy), _quadratic_potential(y, my - mx, cy, cx)
    return gaussian_frechet(mx, cx, my, cy), float(phi.var() / len(x) + psi.var() / len(y))


def _in_their_span(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Points x (n, k) and y (m, k) in coordinates of the space that they span, where that has fewer than k dimensions.

    A rotation changes no distance: all that is asked of covariances (k, k) is asked of smaller ones.
    """
    if len(x) + len(y) >= x.shape[1]:
        return x, y
    centre = y.mean(0)
    both = torch.cat([x, y]) - centre
    both = both @ torch.linalg.qr(both.mT).Q
    return both[: len(x)], both[len(x) :]


def _quadratic_potential(x: Tensor, shift: Tensor, c1: Tensor, c2: Tensor) -> Tensor:
    """Potential phi at centred points x (n, k) of the first law; a direction in which they do not vary adds nothing."""
    values, axes = torch.linalg.eigh(c1)
    width = values.clamp_min(0.0).sqrt()
    alive = width > 1e-7 * width[-1]  # below, float64 rounding: C1 keeps 16 digits of a variance
    width, axes = width[alive], axes[:, alive]
    # in white coordinates z the map is (A^T C2 A)^(1/2), with A A^T = C1
    values, turn = torch.linalg.eigh((axes * width).T @ c2 @ (axes * width))
    moved = x @ (axes / width) @ (turn * values.clamp_min(0.0).pow(0.25))
    return 2.0 * x @ shift + x.square().sum(1) - moved.square().sum(1)
