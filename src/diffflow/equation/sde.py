r"""The equation: one stochastic differential equation, of which every model of this library is a value.

It is derivations.md eq. 2 (the equation numbers below are of that page, too):

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
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .algebra import Cond, Field, as_field, checked_shape, each_given
from .coefficients import (
    NEGLIGIBLE,
    Coefficient,
    equal_values,
    has_derivative,
    is_evaluated,
    ratio_weight,
    short,
    value_of,
)
from .fields import Ratio
from .laws import Law
from .papers import bibtex
from .schedule import Levels, Schedule
from .times import Time, clock, per_particle, wants_gradient


@dataclass(frozen=True)
class Speed:
    """A speed beta that depends on the logit d = log r/p.

    A GAN with generator loss l moves its particles at beta = -l'(d) (derivations.md 3.1).

    Args:
        of_logit: logits (n,) -> speeds (n,).
    """

    of_logit: Callable[[Tensor], Tensor]

    def __call__(self, logit: Tensor) -> Tensor:
        """The speeds (n,) at the logits (n,)."""
        return self.of_logit(logit)


class Needs(NamedTuple):
    """The fields that the drift evaluates at a time.

    Attributes:
        score: whether grad log r is.
        ratio: whether grad log r/p is.
    """

    score: bool
    ratio: bool


@dataclass
class Tally:
    """A count of network evaluations per particle, filled in during a solve."""

    nfe: int = 0


@dataclass(frozen=True)
class DiffFlow:
    """The DiffFlow equation with its coefficients filled in (derivations.md eqs. 1-3).

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
        papers: keys of `papers.BIBTEX`.
        tally: where a solve counts evaluations; set by `sample` and `log_prob`.

    Gradients run through coefficients that require them, tensors or functions of parameters, and through f. Equations
    built alike are equal (laws by value, networks and functions by identity), and pickle where their parts do:
    a function of your own must have a name at the top of a module.

    Raises:
        TypeError: a score or ratio that is no field, with what is wanted in its place; a start that is no law; a Speed
            with a ratio that gives no logit.
        ValueError: a horizon that requires a gradient.

    References:
        Zhang et al. 2023, "DiffFlow: a unified SDE framework for score-based diffusion models and generative
        adversarial networks", arXiv 2307.02159.
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

    def __post_init__(self) -> None:
        for name in ("score", "ratio"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Field):
                object.__setattr__(self, name, as_field(value, name))
        if self.start is not None and (isinstance(self.start, type) or not hasattr(self.start, "log_prob")):
            name = self.start.__name__ if isinstance(self.start, type) else type(self.start).__name__
            raise TypeError(f"start is the law of the particles at t = 0, such as Gaussian(mean, std): got {name}")
        if isinstance(self.beta, Speed) and self.ratio is not None and not isinstance(self.ratio, Ratio):
            raise TypeError(
                f"a speed that depends on the logit needs a Ratio, which gives the logit beside its gradient: got "
                f"{self.ratio!r}. A discriminator's is discriminator.ratio(); EnergyField(logit) makes one"
            )
        if isinstance(self.horizon, Tensor):
            if self.horizon.requires_grad:
                raise ValueError("horizon requires a gradient, and no gradient runs through it: give horizon.item()")
            object.__setattr__(self, "horizon", self.horizon.item())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DiffFlow):
            return NotImplemented
        return all(equal_values(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)

    def __hash__(self) -> int:
        return hash((type(self.score), type(self.ratio), self.schedule, float(self.horizon), self.papers))

    def __repr__(self) -> str:
        """The call at(EDM(0.002, 80), churn=0.5) for a point of the spectrum, else the settings that are not zero."""
        dials = getattr(self.beta, "__self__", None)
        if dials is not None and dials is getattr(self.g2, "__self__", None) and self.on_schedule:
            return str(dials)
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.repr and f.name not in ("papers", "grid")}
        settings = (f"{name}={short(v)}" for name, v in values.items() if isinstance(v, Tensor) or v not in (None, 0.0))
        return f"DiffFlow({', '.join(settings)})"

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    # -- coefficients -------------------------------------------------------------------------------------------------
    def noise(self, t: Time) -> Tensor:
        """Size of the noise, sqrt(g2 - lam2), which multiplies dW ~ N(0, dt I).

        Args:
            t: time, a float, 0-d or (n,).

        Returns:
            float64, 0-d or (n,).

        Raises:
            ValueError: g2 < lam2, for no real process has that noise; or a gradient wanted at g2 = lam2, where that of
                the root is infinite.
        """
        g2, lam2 = value_of(self.g2, t), value_of(self.lam2, t)
        c2 = g2 - lam2
        zero = c2.abs() <= NEGLIGIBLE * (g2.abs() + lam2.abs())
        if bool(((c2 < 0) & ~zero).any()):
            raise ValueError(
                f"g2 - lam2 = {c2.min().item():.6g} < 0 at t={float(clock(t).max()):.6g} "
                f"(g2={g2.max().item():.6g}, lam2={lam2.max().item():.6g}): raise g2 to at least lam2"
            )
        if wants_gradient(c2) and bool(zero.any()):
            if has_derivative(c2[zero], g2):
                raise ValueError(
                    f"g2 - lam2 = 0 at t={float(clock(t).max()):.6g}, and its gradient is wanted: that of its root is "
                    "infinite there. Start from a small positive churn, or from g2 > lam2"
                )
            return torch.where(zero, 0.0, torch.where(zero, 1.0, c2).sqrt())
        return torch.where(zero, 0.0, c2).sqrt()

    def _weights(self, t: Time) -> tuple[Tensor | None, Tensor]:
        """(beta - g2/2, g2/2), exactly zero where negligible; the first is None when beta depends on the logit."""
        half = 0.5 * value_of(self.g2, t)
        return (None if isinstance(self.beta, Speed) else ratio_weight(value_of(self.beta, t), half)), half

    def needs(self, t: Time) -> Needs:
        """The fields that the drift evaluates at t: the score iff g2 != 0, the ratio iff g2 != 2 beta.

        Args:
            t: time, a float, 0-d or (n,).

        Returns:
            Two booleans, `score` and `ratio`.
        """
        ratio, score = self._weights(t)
        return Needs(is_evaluated(score), ratio is None or is_evaluated(ratio))

    @property
    def on_schedule(self) -> bool:
        """True when f and lam2 are the schedule's own, by identity or by value.

        Then p_t = r_t for every beta and g2 (derivations.md eq. 4), and solvers may step in y = x/scale.
        """
        s = self.schedule
        if s is None or isinstance(s, Levels):
            return False
        if self.f == s.drift and self.lam2 == s.lam2:
            return True
        if self.tally is None:  # parameters of f and lam2 may change; within a solve they do not
            return self._by_value(s)
        if "_follows" not in self.__dict__:
            object.__setattr__(self, "_follows", self._by_value(s))
        return self.__dict__["_follows"]

    def _by_value(self, s: Schedule) -> bool:
        return s.matches(self.f, self.lam2, self.start or getattr(self.score, "law", None))

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
        return checked_shape(self.score(x, t), x, type(self.score).__name__)

    def _ratio_at(self, x: Tensor, t: Time) -> Tensor:
        if self.ratio is None:
            raise ValueError(
                "this equation weighs grad log r/p (g2 != 2 beta) but has no ratio: "
                "pass ratio=, or set g2 = 2 beta (gan=0)"
            )
        self._count(self.ratio)
        return checked_shape(self.ratio(x, t), x, type(self.ratio).__name__)

    def _combine(self, x: Tensor, t: Time, ratio_weight: Tensor | None, score_weight: Tensor, minus: Tensor) -> Tensor:
        """The sum f + ratio_weight grad log r/p + score_weight grad log r; a weight of None is beta(logit) - minus."""
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
        elif is_evaluated(ratio_weight):
            out = out + per_particle(ratio_weight, x) * self._ratio_at(x, t)
        if is_evaluated(score_weight):
            out = out + per_particle(score_weight, x) * self._score_at(x, t)
        return out

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """The drift f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r (derivations.md eq. 2).

        Args:
            x: particles (n, *shape).
            t: time, a float, 0-d or (n,).

        Returns:
            (n, *shape), units of x per unit of time.

        Raises:
            ValueError: a field that is weighed and is not there, or whose result has another shape than x.
        """
        ratio, score = self._weights(t)
        return self._combine(x, t, ratio, score, minus=score)

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """The cloud's own velocity f + (beta - lam2/2) grad log(r/p) + (lam2/2) grad log r, free of g2.

        It is that of derivations.md eq. 13. On a schedule without a ratio p = r, so that term is zero.

        Args:
            x: particles (n, *shape).
            t: time, a float, 0-d or (n,).

        Returns:
            (n, *shape), units of x per unit of time.

        Raises:
            ValueError: neither schedule nor ratio, so that the velocity is not known; otherwise as `drift`.
        """
        half = 0.5 * value_of(self.lam2, t)
        if isinstance(self.beta, Speed):
            ratio = None
        elif self.on_schedule and self.ratio is None:
            ratio = torch.zeros_like(half)
        else:
            ratio = ratio_weight(value_of(self.beta, t), half)
        return self._combine(x, t, ratio, half, minus=half)

    def denoised(self, x: Tensor, t: Time) -> Tensor:
        """The composite denoiser D* = D + sigma^2 scale (beta - g2/2)/(g2/2) grad_x log(r/p).

        With it the drift on a schedule is  f + (g2/2) (D* - y) / (scale sigma^2), y = x/scale: solvers extrapolate D*,
        and the ratio comes along.

        Args:
            x: particles (n, *shape).
            t: time, a float, 0-d or (n,).

        Returns:
            D* (n, *shape), in units of y, which are those of the data.

        Raises:
            ValueError: a speed that depends on the logit, or g2 = 0; otherwise as `drift`.
        """
        assert self.schedule is not None
        ratio, score = self._weights(t)
        if ratio is None:
            raise ValueError("a speed that depends on the logit has no composite denoiser: use Euler or Heun")
        if not bool((score != 0).all()):
            raise ValueError("D* needs g2 > 0: on a schedule use g2 >= lam2")
        scale, sigma = self.schedule.scale(t), self.schedule.sigma(t)
        if self.score is not None and self.score.schedule is not None:
            self._count(self.score)
            d = self.score.denoise(x, t)
        else:
            d = x / per_particle(scale, x) + per_particle(scale * sigma**2, x) * self._score_at(x, t)
        if is_evaluated(ratio):
            d = d + per_particle(scale * sigma**2 * ratio / score, x) * self._ratio_at(x, t)
        return d

    # -- new equations from this one ----------------------------------------------------------------------------------
    def gauge(self, g2: Coefficient) -> DiffFlow:
        """The same law of particles with paths of another stochasticity (Proposition 2).

        Args:
            g2: a float or a function of t, at least lam2. Where it is not 2 beta a ratio is needed.

        Returns:
            The equation with this g2.
        """
        return replace(self, g2=g2)

    def given(self, cond: Cond) -> DiffFlow:
        """The equation with its fields conditioned on `cond`, those that take a condition.

        Args:
            cond: what the networks take, such as labels (n,) int64.

        Returns:
            The conditioned equation.

        Raises:
            ValueError: no field takes a condition.
        """
        names = [name for name in ("score", "ratio") if getattr(self, name) is not None]
        return replace(self, **dict(zip(names, each_given([getattr(self, name) for name in names], cond), strict=True)))

    def observe(self, x: Tensor, t: Time) -> DiffFlow:
        """The equation whose fields have seen the cloud x (n, *shape) at t; itself where none looks at the cloud."""
        if not self.cloud:
            return self
        return replace(
            self, score=self.score and self.score.observe(x, t), ratio=self.ratio and self.ratio.observe(x, t)
        )

    def cite(self) -> str:
        """BibTeX of the papers behind this setting, the equation's own first."""
        return bibtex(*self.papers)
