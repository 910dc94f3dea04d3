r"""Gaussian mixtures as a denoiser's skip: what a mixture knows of the data is exact, and a network learns the rest.

A mixture q = sum_k w_k N(mu_k, U_k diag(lambda_k) U_k^T) with full covariances has the posterior mean

    D_q(y, s) = sum_k rho_k(y) [ mu_k + U_k diag(lambda_k / (lambda_k + s^2)) U_k^T (y - mu_k) ],
    rho_k(y) proportional to w_k N(y; mu_k, U_k diag(lambda_k + s^2) U_k^T)

at every noise s: two matrix products, 2 K d^2 multiply-adds a row. In place of the a y of a prediction form
(denoiser.py) it makes the denoiser

    D = D_q(y, s) + b(s) F,    F = net([c(s) y, (D_q - y)/s], time(s), cond)

which at F = 0 is the mixture's, density and all, and can only leave it for what fits the data better. A network is slow
to learn what is narrow in wide data; a mixture learns it in seconds.

The quadratic form is summed along the eigenvectors, where every term is positive: nothing cancels, so float32 does
(equation/laws.py, whose mixtures may have low rank, takes a difference there).

Shapes: y (n, d), s 0-d or (n,) -> (n, d).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..data.conditions import Conditions
from ..equation.algebra import recordable
from ..equation.conditions import Cond
from ..equation.laws import GaussianMixture
from .denoiser import FORMS, Denoiser, Form, _factor, quarter_log
from .mixture_fit import fit_mixture, fitting_components

WIDEST = 2048  # columns whose covariance is kept: 16 MB in float32
NUMBERS = 2**19  # of the covariances of all components together: what a row costs at each evaluation


def room(components: int, dim: int, rows: int) -> int:
    """Components to make room for: those that rows can determine and evaluations afford, at least one.

    Args:
        components: how many are wanted.
        dim: columns d.
        rows: how many there are.
    """
    return max(1, min(fitting_components(components, rows), NUMBERS // dim**2))


class MixtureSkip(nn.Module):
    """Exact denoiser of a Gaussian mixture with full covariances, which is kept with a network's weights.

    Until a mixture is put in (`hold`, `fit`) it is one Gaussian N(0, std^2 I), whose denoiser is EDM's skip.

    Args:
        dim: columns d.
        components: room for so many components.
        std: of each column before a mixture is put in, > 0.

    Attributes:
        live: components that there are, or will be at most; the room behind them costs nothing but memory.

    Raises:
        ValueError: for fewer than one column or component, more than `WIDEST` columns, or a std that is not positive.
    """

    log_weights: Tensor
    means: Tensor
    axes: Tensor
    variances: Tensor
    fitted: Tensor

    def __init__(self, dim: int, components: int, std: float = 1.0):
        super().__init__()
        if not 1 <= dim <= WIDEST or components < 1 or not 0 < std < math.inf:
            raise ValueError(
                f"MixtureSkip(dim={dim}, components={components}, std={std}): 1 to {WIDEST} columns, at least one "
                "component and a positive std are wanted: a component keeps a covariance of dim x dim"
            )
        self.dim, self.live = dim, components  # so that memory and speed, when tried before the fit, are the most
        self.register_buffer("log_weights", torch.full((components,), -math.inf))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("axes", torch.eye(dim)[:, None].repeat(1, components, 1))  # [:, k] are eigenvectors of k
        self.register_buffer("variances", torch.full((components, dim), float(std) ** 2))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.log_weights[0] = 0.0
        self.register_load_state_dict_post_hook(_count_loaded)

    def _count(self) -> None:
        """Count the components that there are: those of positive weight, which come first."""
        if self.fitted:
            self.live = int((self.log_weights > -math.inf).sum())

    # -- the mixture --------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def hold(self, weights: Any, means: Any, covariances: Any) -> None:
        """Put a mixture in.

        Args:
            weights: of sum 1 (k,), positive; k at most the room that there is.
            means: (k, d).
            covariances: (k, d, d), positive definite.

        Raises:
            ValueError: for more components than there is room for, other shapes, or a covariance that is not positive.
        """
        w, mu, c = (torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in (weights, means, covariances))
        k, most, d = len(w), len(self.log_weights), self.dim
        if not 1 <= k <= most or mu.shape != (k, d) or c.shape != (k, d, d):
            raise ValueError(
                f"a mixture of weights {tuple(w.shape)}, means {tuple(mu.shape)} and covariances {tuple(c.shape)}: "
                f"1 to {most} components of {d} columns are wanted"
            )
        values, axes = torch.linalg.eigh(c)
        if not bool((w > 0).all() & (values > 0).all()):
            raise ValueError(
                f"the smallest weight is {w.min().item():.3g} and the smallest variance along an axis "
                f"{values.min().item():.3g}: both must be positive; add a floor to the covariances"
            )
        self.log_weights.fill_(-math.inf)[:k] = w.log() - w.sum().log()
        self.means[:k], self.variances[:k], self.axes[:, :k] = mu, values, axes.transpose(0, 1)
        self.fitted.fill_(True)
        self._count()

    def law(self) -> GaussianMixture:
        """The mixture as a law with exact answers, in float64."""
        k = int((self.log_weights > -math.inf).sum())
        axes, values = self.axes[:, :k].double().transpose(0, 1), self.variances[:k].double()
        covariances = (axes * values[:, None]) @ axes.mT
        return GaussianMixture(
            self.means[:k].double(), weights=self.log_weights[:k].double().exp(), covariances=covariances
        )

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Posterior mean E[Y | Y + sigma eps = y].

        Args:
            y: noisy data (n, d).
            sigma: its noise level, positive, 0-d or (n,).

        Returns:
            D_q(y, sigma) in y's dtype, (n, d).

        Raises:
            ValueError: for rows of another length.
        """
        if y.dim() != 2 or y.shape[1] != self.dim:
            raise ValueError(f"y has shape {tuple(y.shape)}, this mixture is of (n, {self.dim})")
        k, d = self.live, self.dim
        # in half precision a product would lose what is narrow
        with torch.autocast(y.device.type, enabled=False):
            buffers = self.log_weights, self.means, self.variances, self.axes
            log_weights, means, variances, axes = (recordable(v).to(y.dtype) for v in buffers)
            means, variances = means[:k], variances[:k]
            turned = axes[:, :k].reshape(d, k * d)
            along = (y @ turned).view(-1, k, d) - torch.einsum("kd,dkr->kr", means, axes[:, :k])
            v = variances + _factor(sigma, y)[..., None] ** 2
            inside = along / v
            rho = (log_weights[:k] - 0.5 * ((along * inside).sum(-1) + v.log().sum(-1))).softmax(-1)
            pull = (rho[:, :, None] * variances * inside).reshape(-1, k * d)
            return rho @ means + pull @ turned.T

    # -- from data ----------------------------------------------------------------------------------------------------
    def fit(
        self,
        rows: Tensor,
        aside: Tensor | None = None,
        seconds: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> str:
        """Fit the mixture to rows by expectation-maximisation; its size is chosen on rows kept aside.

        How is said in mixture_fit.py.

        Args:
            rows: in model units (n, d), n >= 1.
            aside: rows kept aside (m, d); None: a tenth of `rows` is.
            seconds: what this may take.
            clock: seconds of what, the wall's by default.

        Returns:
            What was chosen, in words.

        Raises:
            ValueError: for rows of another length, no row, or numbers that are not finite.
        """
        begun = clock()
        x = _rows(rows, self.dim)
        if aside is None:
            share = len(x) // 10
            x, test = (x[share:], x[:share]) if share >= 2 else (x, x)
        else:
            test = _rows(aside, self.dim)
        best, found = fit_mixture(x, test, len(self.log_weights), seconds, clock)
        self.hold(*best)
        tried = ", ".join(f"{size} {value:.4g}" for size, value in found.items())
        return (
            f"a Gaussian mixture of {self.live} component{'s' * (self.live > 1)}, of {best.score(test):.4g} nats a row "
            f"on {len(test)} rows kept aside (tried: {tried}); fitted in {clock() - begun:.1f} s"
        )


def _count_loaded(skip: Any, keys: object) -> None:
    """Count the components that were loaded; a function of the module, for a run is pickled and copied."""
    skip._count()


def _rows(rows: Tensor, dim: int) -> Tensor:
    """Rows as float64 (n, d) on the CPU. Raises ValueError where they are no such rows."""
    x = rows.detach().to("cpu", torch.float64)
    if x.ndim != 2 or x.shape[1] != dim or not len(x) or not bool(x.isfinite().all()):
        raise ValueError(f"rows of shape {tuple(rows.shape)}: finite numbers (n, {dim}) are wanted, at least one row")
    return x


# -- the denoiser -----------------------------------------------------------------------------------------------------
class MixtureDenoiser(Denoiser):
    """Denoiser D = D_q(y, sigma) + b net([c y, (D_q - y)/sigma], time(sigma), cond), D_q the exact one of a mixture.

    Args:
        net: module or callable (x (n, 2 d), time (n,), cond) -> (n, d), otherwise as of `Denoiser`.
        skip: the mixture.
        sigma_data: standard deviation of the data in model units, > 0.
        principal_std: largest principal standard deviation of the data; default sigma_data.
        form: whose c and b hold, a row of `FORMS`; default EDM's.
        time: what the net is told about sigma, as of `Denoiser`.
        conditions: what the net is told of each sample, likewise.
        null: whether the net learns "no condition" too.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        skip: MixtureSkip,
        sigma_data: float,
        principal_std: float | None = None,
        *,
        form: Form = FORMS["edm"],
        time: Callable[[Tensor], Tensor] = quarter_log,
        conditions: Conditions | None = None,
        null: bool = True,
    ):
        super().__init__(net, sigma_data, principal_std, form=form, time=time, conditions=conditions, null=null)
        self.skip = skip

    @property
    def takes_known(self) -> bool:
        """False: a mixture's posterior mean is of rows of which nothing is known."""
        return False

    def estimate(self, y: Tensor, sigma: Tensor, cond: Cond, told: dict[str, Tensor]) -> Tensor:
        """D(y, sigma) of y in at least float32 (n, d), sigma already checked."""
        clean = self.skip(y, sigma)
        c, _, b = (_factor(k, y) for k in self.form.at(sigma, self.sigma_data))
        shown = torch.cat([c * y, (clean - y) / _factor(sigma, y)], 1)
        return clean + b * self.predict(shown, y.shape, sigma, cond, told)
