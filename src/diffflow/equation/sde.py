r"""The equation. Every model of this library is a value of it (derivations.md eq. 2):

    dX = [ f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r ] dt + sqrt(g2 - lam2) dW

r_t is the target law at time t, p_t the law of the particles; t runs from 0 (prior) to `horizon` (data). Two fields
can enter, the data score grad log r_t and the gradient of the log-ratio grad log r_t/p_t. What each coefficient does:

    f, beta, lam2   decide the law p_t (eq. 3):
                    d/dt p = -div(p [f + beta grad log(r/p)]) - (lam2/2) Laplace p
    g2              is a gauge (Proposition 2): how noisy each path is, not where the cloud goes
    lam2            is signed; negative is the analytic continuation, extra entropy

p_t is needed only where g2 != 2 beta, the data score only where g2 != 0: a field whose weight is zero is never
evaluated. The cloud's own velocity, free of g2, gives likelihoods (eq. 13):

    v = f + (beta - lam2/2) grad log(r/p) + (lam2/2) grad log r

Shapes: x (n, *shape), t float64 0-d (or (n,)), drift and velocity (n, *shape), noise 0-d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .fields import Cond, Field, Ratio, ScoreField
from .laws import Law
from .papers import bibtex
from .schedule import Levels, Schedule
from .times import Time, clock, per_particle

NEGLIGIBLE = 1e-12  # relative size below which a weight is zero; decided in float64


@dataclass(frozen=True)
class Speed:
    """A speed beta that depends on the logit d = log r/p: a GAN with generator loss l moves its particles at beta =
    -l'(d) (derivations.md 3.1)."""

    of_logit: Callable[[Tensor], Tensor]

    def __call__(self, logit: Tensor) -> Tensor:
        return self.of_logit(logit)


Coefficient = float | Tensor | Callable[[Time], float | Tensor]


class Needs(NamedTuple):
    """Which fields the drift evaluates at a time."""

    score: bool
    ratio: bool


@dataclass
class Tally:
    """Network evaluations per particle so far."""

    nfe: int = 0


def value_of(c: Coefficient, t: Time) -> Tensor:
    """A coefficient at time t, float64."""
    return torch.as_tensor(c(t) if callable(c) else c, dtype=torch.float64)


@dataclass(frozen=True)
class DiffFlow:
    """The DiffFlow equation with its coefficients filled in (Zhang et al. 2023, arXiv 2307.02159; derivations.md eqs.
    1-3).

    Args:
        score: grad log r_t, a Field.
        ratio: grad log r_t/p_t, a Field; a `Ratio` if beta is a Speed.
        f: drift that does not depend on the laws, a callable (x, t) -> (n, *shape).
        beta: speed of the contraction toward r_t: a float, a function of t, or a Speed (a function of the logit).
        g2: stochasticity of the paths, a float or a function of t, at least lam2.
        lam2: entropy that noising took away, a signed float or a function of t.
        schedule: the noise schedule that r_t follows, if it does.
        start: the law of the particles at t = 0.
        horizon: the time at which the particles are samples.
        grid: default times of a solve, or the number of steps -> its times.
        papers: keys of `references.BIBTEX`.
    """

    score: Field | None = None
    ratio: Field | None = None
    f: Callable[[Tensor, Time], Tensor] | None = None
    beta: Coefficient | Speed = 0.0
    g2: Coefficient = 0.0
    lam2: Coefficient = 0.0
    schedule: Schedule | None = None
    start: Law | None = None
    horizon: float = 1.0
    grid: Sequence[float] | Callable[[int], Tensor] | None = None
    papers: tuple[str, ...] = ()
    tally: Tally | None = field(default=None, repr=False, compare=False)

    # -- coefficients -------------------------------------------------------------------------------------------------
    def noise(self, t: Time) -> Tensor:
        """sqrt(g2 - lam2), what multiplies dW ~ N(0, dt I). Raises where g2 < lam2: no real process has that noise."""
        g2, lam2 = value_of(self.g2, t), value_of(self.lam2, t)
        c2 = g2 - lam2
        zero = c2.abs() <= NEGLIGIBLE * (g2.abs() + lam2.abs())
        if bool(((c2 < 0) & ~zero).any()):
            raise ValueError(
                f"g2 - lam2 = {c2.min().item():.6g} < 0 at t={float(clock(t).max()):.6g} "
                f"(g2={g2.max().item():.6g}, lam2={lam2.max().item():.6g}): raise g2 to at least lam2"
            )
        return torch.where(zero, 0.0, c2).sqrt()

    def _weights(self, t: Time) -> tuple[Tensor | None, Tensor]:
        """(beta - g2/2, g2/2), exactly zero where negligible; the first is None when beta depends on the logit."""
        half = 0.5 * value_of(self.g2, t)
        if isinstance(self.beta, Speed):
            return None, half
        beta = value_of(self.beta, t)
        w = beta - half
        return torch.where(w.abs() <= NEGLIGIBLE * torch.maximum(beta.abs(), half.abs()), 0.0, w), half

    def needs(self, t: Time) -> Needs:
        """Which fields the drift evaluates at t: the score iff g2 != 0, the ratio iff g2 != 2 beta."""
        ratio, score = self._weights(t)
        return Needs(bool((score != 0).any()), ratio is None or bool((ratio != 0).any()))

    @property
    def on_schedule(self) -> bool:
        """True when f and lam2 are the schedule's own, so that p_t = r_t for every beta and g2 (derivations.md eq. 4)
        and solvers may step in y = x/scale."""
        s = self.schedule
        return s is not None and not isinstance(s, Levels) and self.f == s.drift and self.lam2 == s.lam2

    @property
    def cloud(self) -> bool:
        """True when a field is made of the particles themselves."""
        return any(f is not None and f.cloud for f in (self.score, self.ratio))

    # -- fields -------------------------------------------------------------------------------------------------------
    def _count(self, f: Field) -> None:
        if self.tally is not None:
            self.tally.nfe += f.cost

    def _score_at(self, x: Tensor, t: Time) -> Tensor:
        if self.score is None:
            raise ValueError(
                "this equation weighs the data score but has none: pass score=schedule.score(law or denoiser)"
            )
        self._count(self.score)
        return self.score(x, t)

    def _ratio_at(self, x: Tensor, t: Time) -> Tensor:
        if self.ratio is None:
            raise ValueError(
                "this equation weighs grad log r/p (g2 != 2 beta) but has no ratio: "
                "pass ratio=, or set g2 = 2 beta (gan=0)"
            )
        self._count(self.ratio)
        return self.ratio(x, t)

    def _combine(self, x: Tensor, t: Time, ratio_weight: Tensor | None, score_weight: Tensor, minus: Tensor) -> Tensor:
        """f + ratio_weight grad log r/p + score_weight grad log r; a weight of None is beta(logit) - minus."""
        out = torch.zeros_like(x) if self.f is None else self.f(x, t)
        if ratio_weight is None:
            assert isinstance(self.beta, Speed)
            if not isinstance(self.ratio, Ratio):
                raise ValueError(
                    "a speed that depends on the logit needs a Ratio, which gives the logit beside its gradient"
                )
            self._count(self.ratio)
            logit, grad = self.ratio.value_and_grad(x, t)
            speed = self.beta(logit) - minus.to(logit)
            out = out + speed.reshape(-1, *[1] * (x.ndim - 1)) * grad
        elif bool((ratio_weight != 0).any()):
            out = out + per_particle(ratio_weight, x) * self._ratio_at(x, t)
        if bool((score_weight != 0).any()):
            out = out + per_particle(score_weight, x) * self._score_at(x, t)
        return out

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r: (n, *shape) (derivations.md eq. 2)."""
        ratio, score = self._weights(t)
        return self._combine(x, t, ratio, score, minus=score)

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """f + (beta - lam2/2) grad log(r/p) + (lam2/2) grad log r: the cloud's own velocity, free of g2 (derivations.md
        eq. 13).

        On a schedule without a ratio p = r, so that term is zero. Without schedule and ratio there is no velocity to
        be had: ValueError.
        """
        half = 0.5 * value_of(self.lam2, t)
        if isinstance(self.beta, Speed):
            ratio = None
        elif self.on_schedule and self.ratio is None:
            ratio = torch.zeros_like(half)
        else:
            beta = value_of(self.beta, t)
            ratio = torch.where(
                (beta - half).abs() <= NEGLIGIBLE * torch.maximum(beta.abs(), half.abs()), 0.0, beta - half
            )
        return self._combine(x, t, ratio, half, minus=half)

    def denoised(self, x: Tensor, t: Time) -> Tensor:
        """The composite denoiser D* = D + sigma^2 scale (beta - g2/2)/(g2/2) grad_x log(r/p), in y = x/scale units:
        (n, *shape) (architecture.md, fact 7).

        With it the drift on a schedule is  f + (g2/2) (D* - y) / (scale sigma^2): solvers extrapolate D*, and the
        ratio comes along.
        """
        assert self.schedule is not None
        ratio, score = self._weights(t)
        if ratio is None:
            raise ValueError("a speed that depends on the logit has no composite denoiser: use Euler or Heun")
        if not bool((score != 0).all()):
            raise ValueError("D* needs g2 > 0: on a schedule use g2 >= lam2")
        scale, sigma = self.schedule.scale(t), self.schedule.sigma(t)
        if isinstance(self.score, ScoreField):
            self._count(self.score)
            d = self.score.denoise(x, t)
        else:
            d = x / per_particle(scale, x) + per_particle(scale * sigma**2, x) * self._score_at(x, t)
        if bool((ratio != 0).any()):
            d = d + per_particle(scale * sigma**2 * ratio / score, x) * self._ratio_at(x, t)
        return d

    # -- new equations from this one ----------------------------------------------------------------------------------
    def gauge(self, g2: Coefficient) -> DiffFlow:
        """The same law of particles with another stochasticity g2 (Proposition 2). Where g2 != 2 beta this needs a
        ratio."""
        return replace(self, g2=g2)

    def given(self, cond: Cond) -> DiffFlow:
        """Both fields conditioned on `cond`."""
        return replace(self, score=self.score and self.score.given(cond), ratio=self.ratio and self.ratio.given(cond))

    def observe(self, x: Tensor, t: Time) -> DiffFlow:
        """Both fields having seen the cloud x."""
        if not self.cloud:
            return self
        return replace(
            self, score=self.score and self.score.observe(x, t), ratio=self.ratio and self.ratio.observe(x, t)
        )

    def cite(self) -> str:
        """BibTeX of the papers behind this setting, the equation's own first."""
        return bibtex(*self.papers)
