r"""The spectrum: every named model as one line of coefficients.

On a noise schedule (f = rate x, lam2 = -2 scale^2 sigma sigma') two dials choose the model; with exact fields the law
p_t = r_t is the same for all:

    churn z:  g2 = (1 + z) lam2            0 the probability-flow ODE, 1 the reverse SDE, more is over-damped
    gan k:    beta = g2/2 + k lam2/2       weight of the log-ratio; 0 needs no discriminator

On a fixed target (f = lam2 = 0) one dial leads from the DiffODE of a GAN (churn 0: grad log r/p alone) to Langevin
dynamics (churn 1: score and noise). Particle flows (f = g2 = lam2 = 0) have no score at all: the log-ratio, whose
logit may set the speed, is a discriminator that is told the time, or a field of the cloud alone (kernels.py).

| model                | f      | beta                  | g2             | lam2  | needs        |
|----------------------|--------|-----------------------|----------------|-------|--------------|
| probability_flow     | rate x | lam2/2                | lam2           | G2    | score        |
| reverse_sde(churn=1) | rate x | lam2                  | 2 lam2         | G2    | score        |
| edm_churn(rate=c)    | rate x | g2/2                  | G2 + 2 c sigma^2 scale^2 | G2 | score  |
| slcd(g2)             | rate x | g2/2                  | free           | free  | score        |
| at(gan=k, churn=z)   | rate x | g2/2 + k lam2/2       | (1+z) lam2     | G2    | score, ratio |
| langevin             | 0      | beta                  | 2 beta         | 0     | score        |
| annealed_langevin    | 0      | rate sigma_k^2        | 2 beta         | 0     | score        |
| static(churn=z)      | 0      | beta                  | 2 z beta       | 0     | score, ratio |
| gan_flow             | 0      | beta or -l'(d)        | 0              | 0     | ratio        |
| discriminator_flow   | 0      | -eta l'(d)            | 0              | 0     | ratio        |
| improved_gan         | 0      | beta, r_t noised      | 0              | 0     | ratio        |
| diffusion_gan(k, z)  | rate x | g2/2 + k lam2/2       | (1+z) lam2     | G2    | score, ratio |
| continued(lam2 < 0)  | as its parent |                |                | < 0   | as its parent |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .algebra import as_field
from .coefficients import EqualByValue, short
from .fields import Field, LawScore, Ratio, ScoreField
from .laws import Law
from .schedule import Levels, Schedule
from .sde import Coefficient, DiffFlow, Speed
from .times import Time

Dial = float | Tensor | Callable[[Time], float | Tensor]


def _checked(name: str, value: Dial) -> Dial:
    number = 0.0 if callable(value) else value.item() if isinstance(value, Tensor) else value
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name}={number}: a dial is a finite number >= 0")
    return value


def _read(dial: Dial, t: Time) -> float | Tensor:
    return dial(t) if callable(dial) else dial


# The coefficients that follow from others are values, and no nested functions: they compare, print and pickle.
@dataclass(frozen=True, eq=False)
class Dials(EqualByValue):
    """A point of the noise-schedule spectrum: its coefficients g2 and beta."""

    schedule: Schedule
    gan: Dial
    churn: Dial

    def g2(self, t: Time) -> Tensor:
        return (1 + _read(self.churn, t)) * self.schedule.lam2(t)

    def beta(self, t: Time) -> Tensor:
        return 0.5 * self.g2(t) + 0.5 * _read(self.gan, t) * self.schedule.lam2(t)

    def __str__(self) -> str:
        dials = {"gan": self.gan, "churn": self.churn}
        turned = [f"{name}={short(v)}" for name, v in dials.items() if callable(v) or v != 0]
        return f"at({', '.join([str(self.schedule), *turned])})"


@dataclass(frozen=True, eq=False)
class Churn(EqualByValue):
    """The dial churn whose noise is that of Langevin churn at the rate chi(t) (`edm_churn`)."""

    schedule: Schedule
    rate: Dial

    def __call__(self, t: Time) -> float | Tensor:
        return _read(self.rate, t) / -self.schedule.log_sigma_rate(t)

    def __str__(self) -> str:
        return f"Churn(rate={short(self.rate)})"


@dataclass(frozen=True, eq=False)
class Multiple(EqualByValue):
    """factor times a function: of t as a coefficient, of the logit as a speed."""

    factor: float
    of: Callable[[Any], Any]

    def __call__(self, at: Any) -> Any:
        return self.factor * self.of(at)

    def __str__(self) -> str:
        return f"{self.factor:g} {short(self.of)}"


@dataclass(frozen=True, eq=False)
class Annealed(EqualByValue):
    """beta = rate sigma_k^2 at the noise levels of a staircase."""

    levels: Levels
    rate: float

    def __call__(self, t: Time) -> Tensor:
        return self.rate * self.levels.sigma(t) ** 2

    def __str__(self) -> str:
        return f"{self.rate:g} sigma^2"


def _on(s: Any, score: Any, ratio: Any = None) -> Schedule:
    """The schedule s. Raises TypeError unless it is one and score and ratio are fields or callables, ValueError for a
    score on another schedule."""
    if not isinstance(s, Schedule):
        kind = f"the class {s.__name__}, not an instance" if isinstance(s, type) else f"a {type(s).__name__}"
        raise TypeError(f"the first argument is a Schedule such as EDM(), got {kind}: at(schedule, score)")
    if ratio is not None:
        as_field(ratio, "ratio")
    other = None if score is None else as_field(score, "score").schedule
    if other is not None and other != s:
        raise ValueError(f"the score is one on {other}, and the equation is on {s}: build it as schedule.score(source)")
    return s


def _exact_start(s: Schedule, score: Field | None) -> Law | None:
    """r_0, where the score knows its law."""
    return s.law(score.law, 0.0) if isinstance(score, ScoreField) and score.law is not None else None


def at(
    s: Schedule,
    score: Field,
    ratio: Field | None = None,
    *,
    gan: Dial = 0.0,
    churn: Dial = 0.0,
    start: Law | None = None,
) -> DiffFlow:
    """The point (gan, churn) of the noise-schedule spectrum. Dials are floats >= 0 or functions of t. `start`
    defaults to the exact r_0 when known."""
    dials = Dials(_on(s, score, ratio), _checked("gan", gan), _checked("churn", churn))
    if ratio is None and (callable(gan) or gan != 0):
        raise ValueError(f"gan={gan} weighs grad log r/p, which needs a ratio field: pass ratio=, or gan=0")
    papers = ("song2021", *(("kim2023",) if ratio is not None else ()))
    return DiffFlow(
        score,
        ratio,
        s.drift,
        dials.beta,
        dials.g2,
        s.lam2,
        s,
        _exact_start(s, score) if start is None else start,
        s.horizon,
        papers=papers,
    )


def probability_flow(s: Schedule, score: Field) -> DiffFlow:
    """The ODE that carries r_0 to r_T: beta = lam2/2, g2 = lam2 (Song et al. 2021)."""
    return at(s, score, churn=0.0)


def reverse_sde(s: Schedule, score: Field, churn: Dial = 1.0) -> DiffFlow:
    """The time reversal of the noising process (churn 1), or any other stochasticity with the same marginals
    (Anderson 1982; Song et al. 2021)."""
    return at(s, score, churn=churn)


def edm_churn(s: Schedule, score: Field, *, rate: Dial) -> DiffFlow:
    """EDM's sampler in continuous time: Langevin churn of rate chi(t) beside the ODE, noise sqrt(2 chi) sigma scale
    (Karras et al. 2022; derivations.md section 2)."""
    churn = Churn(_on(s, score), _checked("rate", rate))
    return replace(at(s, score, churn=churn), papers=("song2021", "karras2022"))


def slcd(s: Schedule, score: Field, *, g2: Coefficient, lam2: Coefficient | None = None) -> DiffFlow:
    """Score-based Langevin-churned dynamics: g2 = 2 beta free, lam2 in [0, g2]; lam2=None is the schedule's own, for
    which p_t = r_t."""
    beta: Coefficient = Multiple(0.5, g2) if callable(g2) else 0.5 * g2
    start = _exact_start(_on(s, score), score)
    return DiffFlow(
        score,
        None,
        s.drift,
        beta,
        g2,
        s.lam2 if lam2 is None else lam2,
        s,
        start,
        s.horizon,
        papers=("song2021", "karras2022"),
    )


def static(
    score: Any, ratio: Field | None, *, churn: float, beta: float = 1.0, horizon: float, start: Law | None
) -> DiffFlow:
    """A fixed target: g2 = 2 churn beta, lam2 = 0, churn in [0, 1]; 0 is the DiffODE (GAN), 1 is Langevin. `score`: a
    Field or a Law."""
    if not 0 <= churn <= 1:
        raise ValueError(f"churn={churn}: on a fixed target the dial runs from 0 (DiffODE) to 1 (Langevin)")
    if not (beta > 0 and horizon > 0):
        raise ValueError(f"beta={beta} and horizon={horizon} must be positive")
    field: Any = LawScore(score) if hasattr(score, "noised") and not isinstance(score, type) else score
    papers = ("roberts1996",) if churn == 1 else ("goodfellow2014", "roberts1996")
    return DiffFlow(field, ratio, None, beta, 2 * churn * beta, 0.0, None, start, horizon, papers=papers)


def langevin(q: Any, beta: float = 1.0, horizon: float = 20.0, start: Law | None = None) -> DiffFlow:
    """dX = beta grad log q dt + sqrt(2 beta) dW: q (a Law or a score Field) is its stationary law."""
    return static(q, None, churn=1.0, beta=beta, horizon=horizon, start=start)


def annealed_langevin(levels: Levels, score: ScoreField, *, rate: float = 0.2) -> DiffFlow:
    """Langevin dynamics at falling noise levels, unit-time steps with beta = rate sigma_k^2 (Song & Ermon 2019;
    derivations.md section 2).

    A step moves x the fraction `rate` of the way to its denoised value; in NCSN's symbols epsilon = 2 rate sigma_min^2.
    Steps of unit time end each level; a last denoising step ends the run.
    """
    if not 0 < rate < 2:
        raise ValueError(
            f"rate={rate}: a step moves x by rate (D - x), which is stable for 0 < rate < 2 only (0.05 to 0.4 is usual)"
        )
    if not isinstance(levels, Levels):
        raise TypeError(f"annealed Langevin dynamics runs on Levels, got a {type(levels).__name__}")
    beta = Annealed(levels, rate)
    grid = [float(k) for k in range(int(levels.horizon) + 1)] + [levels.clean_time]
    start = _exact_start(_on(levels, score), score)
    return DiffFlow(
        score, None, None, beta, Multiple(2, beta), 0.0, levels, start, levels.horizon, grid, papers=("song2019",)
    )


def gan_flow(
    ratio: Field, beta: Coefficient | Speed = 1.0, *, horizon: float = 1.0, start: Law | None = None
) -> DiffFlow:
    """DiffODE, the flow that a GAN's generator amortises: dx = beta grad log(r/p) dt, f = g2 = lam2 = 0 (Goodfellow et
    al. 2014; derivations.md 3.1).

    beta = 1 descends KL(p|r); a generator loss l(d) is the speed Speed(-l'). `ratio`: a discriminator's, or any field
    of the cloud, which then is the velocity itself.
    """
    if not horizon > 0:
        raise ValueError(f"horizon={horizon} must be positive")
    return DiffFlow(None, ratio, None, beta, 0.0, 0.0, None, start, horizon, papers=("goodfellow2014",))


def discriminator_flow(ratio: Ratio, speed: Speed, eta: float = 1.0, start: Law | None = None) -> DiffFlow:
    """Discriminator Flow: dx = -eta l'(d) grad d dt on [0, 1], where d(x, t) knows the law of the particles at every t
    and `speed` is -l' (Franceschi et al. 2023; derivations.md 6.4)."""
    if not eta > 0:
        raise ValueError(f"eta={eta}: the particles move at a positive speed")
    return replace(gan_flow(ratio, Speed(Multiple(eta, speed)), start=start), papers=("franceschi2023",))


def improved_gan(s: Schedule, ratio: Field, beta: Coefficient | Speed = 1.0, start: Law | None = None) -> DiffFlow:
    """The improved GAN: dx = beta grad log(r_t/p_t) dt toward data whose noise falls along `s` (a small sigma_max and
    scale 1, such as VE(0.01, 1)), lam2 = 0 (Zhang et al. 2023, Algorithms 2 and 3; derivations.md 3.2).

    The particles follow r_t with a lag that falls with beta.
    """
    if _on(s, None, ratio).scale(0.0).item() != 1:
        raise ValueError(f"{type(s).__name__} shrinks the data at t = 0; the improved GAN noises them only: use df.VE")
    return replace(gan_flow(ratio, beta, horizon=s.horizon, start=start), schedule=s, papers=())


def diffusion_gan(
    s: Schedule, score: Field, ratio: Field, *, gan: Dial = 1.0, churn: Dial = 1.0, start: Law | None = None
) -> DiffFlow:
    """Diffusion-GAN: score and log-ratio together, 0 < g2 < 2 beta (Zhang et al. 2023, equations 29 and 30;
    derivations.md 3.3). Equal gan + churn is equal beta, hence with exact fields an equal law."""
    if not callable(gan) and not gan > 0:
        raise ValueError(f"gan={gan}: Diffusion-GAN weighs the log-ratio, gan > 0; without it this is reverse_sde")
    return replace(at(s, score, ratio, gan=gan, churn=churn, start=start), papers=("song2021", "goodfellow2014"))


def continued(sde: DiffFlow, lam2: Coefficient) -> DiffFlow:
    """The analytic continuation: lam2 < 0 adds noise sqrt(g2 - lam2) without drift to balance it, so the law changes:
    it is flattened (derivations.md section 1)."""
    if not isinstance(sde, DiffFlow):
        raise TypeError(f"an equation is continued, a DiffFlow: got {type(sde).__name__}")
    if not callable(lam2) and not float(lam2) < 0:
        raise ValueError(f"lam2={lam2}: the continuation needs lam2 < 0")
    return replace(sde, lam2=lam2)
