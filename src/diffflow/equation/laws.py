r"""Laws: distributions with exact samples, density, score and posterior mean, which scaling and noising keep exact.

Every law here is a Gaussian mixture

    q = sum_k w_k N(mu_k, U_k diag(a_k) U_k^T + s_k^2 I),        U_k (d, r) orthonormal,

isotropic (r = 0), full (r = d) or low-rank (r << d): one representation, since scaling and noising keep it: the law of
scale * (Y + sigma eps) has means scale mu_k, a_k -> scale^2 a_k and s_k^2 -> scale^2 (s_k^2 + sigma^2). With v_k =
s_k^2 + sigma^2 and responsibilities rho_k(y),

    score(y)      = sum_k rho_k [ -(y - mu_k)/v_k + U_k diag(a_k / (v_k (a_k + v_k))) U_k^T (y - mu_k) ]
    denoise(y)    = E[Y | Y + sigma eps = y] = y + sigma^2 score(y)                                (Tweedie)

Shapes: means (k, *shape), x (n, *shape) -> log_prob (n,), score (n, *shape). The 2-D toys (toys.py) are mixtures too,
curves as fine mixtures, so that "a model learned the two moons" has an exact meaning.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .noise import Noise, as_noise
from .times import Time, wants_gradient


class Law(Protocol):
    """A distribution with exact answers, as the equation needs it.

    Attributes:
        shape: event shape of a draw.
    """

    shape: tuple[int, ...]

    def sample(self, n: int, noise: Noise = ...) -> Tensor:
        """Independent draws (n, *shape), draw i from stream i of `noise`."""
        ...

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats: (n, *shape) -> (n,)."""
        ...

    def score(self, x: Tensor, sigma: Time = 0.0) -> Tensor:
        """Gradient of the log density of Y + sigma eps: (n, *shape) -> (n, *shape)."""
        ...

    def denoise(self, y: Tensor, sigma: Time) -> Tensor:
        """Posterior mean E[Y | Y + sigma eps = y]: (n, *shape) -> (n, *shape)."""
        ...

    def noised(self, scale: float, sigma: float) -> Law:
        """The law of scale * (Y + sigma eps)."""
        ...

    @property
    def principal_std(self) -> float:
        """Largest principal standard deviation, data units."""
        ...

    @property
    def narrowest(self) -> float:
        """Smallest standard deviation of any part, data units."""
        ...


def _floating(values: Tensor | Sequence) -> Tensor:
    """Values as a floating tensor: lists become float32, floating tensors keep their type."""
    x = torch.as_tensor(values)
    return x if x.is_floating_point() else x.to(torch.float32)


_TENSORS = ("means", "log_weights", "floor", "axes", "extra")  # what a mixture is made of


def as_particles(x: Tensor, law: Law) -> Tensor:
    """The tensor x as particles of a law, (n, *shape) in a floating type.

    Args:
        x: particles (n, *shape).
        law: the law whose event shape they must have.

    Returns:
        x, in the default floating type where it was none.

    Raises:
        ValueError: particles of another width than the law's, before any work.
    """
    shape = tuple(getattr(law, "shape", x.shape[1:]))
    if x.ndim == 0 or x.numel() != len(x) * math.prod(shape):
        raise ValueError(
            f"particles of shape {tuple(x.shape)} for a law of shape {shape}: "
            f"(n, {', '.join(map(str, shape))}) is wanted"
            + (", one particle is x[None]" if tuple(x.shape) == shape else "")
        )
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


class GaussianMixture:
    """A Gaussian mixture sum_k w_k N(means_k, covariance_k).

    Args:
        means: (k, *shape).
        stds: isotropic standard deviations, a float or (k,).
        weights: (k,), positive; normalised here. Equal when None.
        covariances: (k, d, d) full covariances, instead of `stds`.
        factors: (k, d, r) low-rank factors: covariance_k = factors_k factors_k^T + stds_k^2 I.

    Raises:
        ValueError: another shape than these, weights that are not positive, negative stds, covariances that are not
            positive definite, or covariances and factors together.
    """

    def __init__(
        self,
        means: Tensor | Sequence,
        stds: float | Tensor | Sequence = 0.1,
        weights: Tensor | Sequence | None = None,
        *,
        covariances: Tensor | Sequence | None = None,
        factors: Tensor | Sequence | None = None,
    ) -> None:
        means = _floating(means)
        if means.ndim < 2:
            raise ValueError(
                f"means must have shape (k, *shape), got {tuple(means.shape)}; one component of dimension d is (1, d)"
            )
        self.shape = tuple(means.shape[1:])
        self.means = means.reshape(len(means), -1)
        k, d = self.means.shape
        w = torch.ones(k) if weights is None else _floating(weights)
        if w.shape != (k,) or not bool((w > 0).all()):
            raise ValueError(f"weights must be {k} positive numbers, got {w.tolist()}")
        self.log_weights = w.to(means).log() - w.to(means).sum().log()
        if covariances is not None:
            if factors is not None:
                raise ValueError("give covariances or factors, not both")
            c = _floating(covariances).to(means)
            if c.shape != (k, d, d):
                raise ValueError(f"covariances must have shape {(k, d, d)}, got {tuple(c.shape)}")
            values, self.axes = torch.linalg.eigh(c)
            floor = values[:, :1]
            if not bool((floor > 0).all()):
                raise ValueError(
                    f"covariances must be positive definite; the smallest eigenvalue is {floor.min().item():.3g}"
                )
            self.floor, self.extra = floor[:, 0], values - floor
            return
        s = torch.as_tensor(stds, dtype=means.dtype, device=means.device).expand(k)
        if not bool((s >= 0).all()):
            raise ValueError(f"stds must not be negative, got {s.tolist()}")
        self.floor = s**2
        if factors is None:
            self.axes, self.extra = means.new_zeros(k, d, 0), means.new_zeros(k, 0)
        else:
            f = _floating(factors).to(means)
            if f.ndim != 3 or f.shape[:2] != (k, d):
                raise ValueError(f"factors must have shape ({k}, {d}, r), got {tuple(f.shape)}")
            self.axes, singular, _ = torch.linalg.svd(f, full_matrices=False)
            self.extra = singular**2

    # -- the mixture as a thing ---------------------------------------------------------------------------------------
    @property
    def weights(self) -> Tensor:
        """Weights of the components (k,), of sum 1."""
        return self.log_weights.exp()

    def to(self, target: torch.device | torch.dtype | str) -> GaussianMixture:
        """The same law on another device or in another floating type."""
        return self._map(lambda v: v.to(target))

    def _map(self, change: Callable[[Tensor], Tensor]) -> GaussianMixture:
        other = copy.copy(self)
        for name in _TENSORS:
            setattr(other, name, change(getattr(self, name)))
        return other

    def __eq__(self, other: object) -> bool:
        """Whether `other` is the same mixture, number for number, in the same type and on the same device."""
        if not isinstance(other, GaussianMixture) or self.shape != other.shape:
            return False
        pairs = [(getattr(self, name), getattr(other, name)) for name in _TENSORS]
        return all(a is b or ((a.dtype, a.device) == (b.dtype, b.device) and torch.equal(a, b)) for a, b in pairs)

    def __hash__(self) -> int:
        return hash((self.shape, len(self.means)))

    def __repr__(self) -> str:
        k = len(self.means)
        return f"{type(self).__name__}({k} component{'s' * (k > 1)} of shape {self.shape})"

    def noised(self, scale: float, sigma: float) -> GaussianMixture:
        """The law of scale * (Y + sigma * eps), Y from this law.

        Args:
            scale: factor, without units.
            sigma: noise level, data units.

        Returns:
            The noised mixture, exact.
        """
        other = copy.copy(self)
        other.means = self.means * scale
        other.floor = (self.floor + sigma**2) * scale**2
        other.extra = self.extra * scale**2
        return other

    def covariances(self) -> Tensor:
        """Covariances of the components as dense matrices (k, d, d)."""
        eye = torch.eye(self.means.shape[1]).to(self.means)
        return torch.einsum("kdr,kr,ker->kde", self.axes, self.extra, self.axes) + self.floor[:, None, None] * eye

    @property
    def mean(self) -> Tensor:
        """Mean of the whole mixture, (*shape)."""
        return (self.weights @ self.means).reshape(self.shape)

    @property
    def principal_std(self) -> float:
        """Largest principal standard deviation of the whole mixture, data units."""
        w, centred = self.weights, self.means - self.weights @ self.means
        rows = [
            w.sqrt()[:, None] * centred,
            ((w[:, None] * self.extra).sqrt()[:, :, None] * self.axes.mT).flatten(0, 1),
        ]
        a = torch.cat(
            rows
        ).double()  # covariance = a^T a + sum w floor I; the smaller Gram matrix has the same largest eigenvalue
        gram = a @ a.T if a.shape[0] < a.shape[1] else a.T @ a
        return math.sqrt(torch.linalg.eigvalsh(gram)[-1].clamp_min(0).item() + (w * self.floor).sum().item())

    @property
    def narrowest(self) -> float:
        """Smallest standard deviation of any component in any direction, data units.

        It decides how small a Langevin step must be.
        """
        full = self.axes.shape[2] == self.axes.shape[1]
        v = self.floor + (self.extra.min(dim=1).values if full else 0.0)
        return v.min().sqrt().item()

    def sample(self, n: int, noise: Noise | int | None = None) -> Tensor:
        """Independent draws; draw i uses stream i of `noise` alone.

        Args:
            n: number of draws.
            noise: streams, or an integer seed. None: a fresh seed from torch's generator.

        Returns:
            (n, *shape), data units.

        Raises:
            TypeError: noise that is none.
        """
        noise = as_noise(noise)
        kind = {"dtype": self.means.dtype, "device": self.means.device}
        u = noise.fork("component").uniform(n, **kind)
        k = torch.searchsorted(self.weights.cumsum(0), u).clamp_max(len(self.means) - 1)
        eps = noise.fork("isotropic").normal(n, (self.means.shape[1],), **kind)
        y = self.means[k] + self.floor.sqrt()[k, None] * eps
        if self.axes.shape[2]:
            z = noise.fork("axes").normal(n, (self.axes.shape[2],), **kind) * self.extra.sqrt()[k]
            for j in range(len(self.means)):  # one component at a time: gathering the axes would need (n, d, r)
                members = k == j
                y[members] += z[members] @ self.axes[j].T
        return y.reshape(n, *self.shape)

    # -- density and score --------------------------------------------------------------------------------------------
    def _beside(self, x: Tensor) -> tuple[GaussianMixture, Tensor]:
        """This law and x as flat points (n, d), in the wider of their two floating types.

        Raises:
            ValueError: points of another width.
        """
        x = as_particles(x, self)
        kind = torch.promote_types(x.dtype, self.means.dtype)
        law, y = self if self.means.dtype == kind else self.to(kind), x.reshape(len(x), self.means.shape[1]).to(kind)
        if wants_gradient(y) and law.means.is_inference():  # tensors of inference mode cannot take part in gradients
            law = law._map(torch.clone)
        return law, y

    def _components(self, y: Tensor, sigma: Time) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The parts of density and score of each component, for flat y (n, d) and noise sigma.

        Returns:
            log(w_k N_k(y)) (n, k), v (n or 1, k), a / (a + v) (n or 1, k, r) and U^T (y - mu) (n, k, r).
        """
        noise2 = torch.as_tensor(sigma, dtype=torch.float64).to(y).reshape(-1, 1) ** 2
        v = self.floor + noise2
        if not bool((v > 0).all()):
            raise ValueError("a law made of points has no density; ask for .noised(scale, sigma) with sigma > 0")
        d = y.shape[1]
        if self.means.numel() <= 4096:
            square = ((y[:, None, :] - self.means) ** 2).sum(-1)
        else:  # products are the faster, and cancel: in float64
            a, b = y.double(), self.means.double()
            square = (a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)).clamp_min(0).to(y)
        along = torch.einsum("nd,kdr->nkr", y, self.axes) - torch.einsum("kd,kdr->kr", self.means, self.axes)
        share = self.extra / (self.extra + v[:, :, None])
        quad = (square - (along**2 * share).sum(-1)) / v
        log_det = d * v.log() + torch.log1p(self.extra / v[:, :, None]).sum(-1)
        return self.log_weights - 0.5 * (quad + log_det + d * math.log(2 * math.pi)), v, share, along

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats: (n, *shape) -> (n,)."""
        law, y = self._beside(x)
        return law._components(y, 0.0)[0].logsumexp(1)

    def score(self, x: Tensor, sigma: Time = 0.0) -> Tensor:
        """Score: the gradient of the log density of Y + sigma eps.

        Args:
            x: points (n, *shape).
            sigma: noise level, a float, 0-d or (n,), data units.

        Returns:
            (n, *shape).

        Raises:
            ValueError: points of another width, or a law without density (stds = 0 and sigma = 0).
        """
        law, y = self._beside(x)
        logits, v, share, along = law._components(y, sigma)
        r = logits.softmax(1) / v
        pull = torch.einsum("nkr,kdr->nd", r[:, :, None] * share * along, law.axes)
        return (r @ law.means - r.sum(1, keepdim=True) * y + pull).reshape(x.shape)

    def denoise(self, y: Tensor, sigma: Time) -> Tensor:
        """Posterior mean E[Y | Y + sigma eps = y], written so that large sigma cancels nothing.

        Args:
            y: noised points (n, *shape).
            sigma: noise level, a float, 0-d or (n,), data units.

        Returns:
            (n, *shape), data units.

        Raises:
            ValueError: as `score`.
        """
        law, flat = self._beside(y)
        logits, v, share, along = law._components(flat, sigma)
        rho, noise2 = logits.softmax(1), v - law.floor
        keep = (rho * law.floor / v).sum(1, keepdim=True)
        part = rho * noise2 / v
        pull = torch.einsum("nkr,kdr->nd", part[:, :, None] * share * along, law.axes)
        return (keep * flat + part @ law.means + pull).reshape(y.shape)


class Gaussian(GaussianMixture):
    """A Gaussian law N(mean, std^2 I), or N(mean, covariance) for a vector mean.

    Args:
        mean: mean, of the event shape (*shape).
        std: standard deviation of every coordinate, data units.
        covariance: (d, d), instead of `std`.
    """

    def __init__(self, mean: Tensor | Sequence, std: float = 1.0, covariance: Tensor | Sequence | None = None) -> None:
        m = _floating(mean)
        super().__init__(m[None], std, covariances=None if covariance is None else _floating(covariance)[None])


class Empirical(GaussianMixture):
    """The empirical law of a data set: equal mass on each of its points. It has a density only once noised.

    Args:
        points: (k, *shape).
    """

    def __init__(self, points: Tensor | Sequence) -> None:
        super().__init__(points, 0.0)
