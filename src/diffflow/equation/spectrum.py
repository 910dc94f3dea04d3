r"""The spectrum: every named model as one line of coefficients.

On a noise schedule (f = rate x, lam2 = -2 scale^2 sigma sigma') two dials choose the model; with exact fields the law
p_t = r_t is the same for all:

    churn z:  g2 = (1 + z) lam2            0 the probability-flow ODE, 1 the reverse SDE, more is over-damped
    gan k:    beta = g2/2 + k lam2/2       weight of the log-ratio; 0 needs no discriminator

On a fixed target (f = lam2 = 0) one dial leads from the DiffODE of a GAN (churn 0: grad log r/p alone) to Langevin
dynamics (churn 1: score and noise). Particle flows (f = g2 = lam2 = 0) have no score at all: the log-ratio, whose
logit may set the speed, is a discriminator that is told the time, or a field of the cloud alone (kernels/).

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

from dataclasses import replace
from typing import Any

from .algebra import as_field
from .dials import Annealed, Churn, Dial, Multiple, SpectrumPoint, checked_dial
from .fields import Field, LawScore, Ratio, ScoreField
from .laws import Law
from .schedule import Levels, Schedule
from .sde import Coefficient, DiffFlow, Speed


def _on(s: Any, score: Any, ratio: Any = None) -> Schedule:
    """The schedule s, once it is known to be one, and score and ratio to be fields on it.

    Raises:
        TypeError: s is no schedule, or score or ratio no field.
        ValueError: a score on another schedule.
    """
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
    """The exact start r_0, where the score knows its law."""
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
    """The point (gan, churn) of the noise-schedule spectrum, of which every diffusion model is one.

    Args:
        s: the noise schedule.
        score: the score on it, grad log r_t.
        ratio: the gradient of the log-ratio, grad log r_t/p_t; None where gan = 0.
        gan: weight k of the log-ratio, beta = g2/2 + k lam2/2: a float >= 0 or a function of t.
        churn: stochasticity z, g2 = (1 + z) lam2: 0 is the probability-flow ODE, 1 the reverse SDE; a float >= 0 or a
            function of t.
        start: law of the particles at t = 0; None: the exact r_0 where the score knows its law.

    Returns:
        The equation.

    Raises:
        TypeError: s is no schedule, or score or ratio no field.
        ValueError: a dial that is negative or not finite, gan without a ratio, or a score on another schedule.
    """
    point = SpectrumPoint(_on(s, score, ratio), checked_dial("gan", gan), checked_dial("churn", churn))
    if ratio is None and (callable(gan) or gan != 0):
        raise ValueError(f"gan={gan} weighs grad log r/p, which needs a ratio field: pass ratio=, or gan=0")
    papers = ("song2021", *(("kim2023",) if ratio is not None else ()))
    return DiffFlow(
        score,
        ratio,
        s.drift,
        point.beta,
        point.g2,
        s.lam2,
        s,
        _exact_start(s, score) if start is None else start,
        s.horizon,
        papers=papers,
    )


def probability_flow(s: Schedule, score: Field) -> DiffFlow:
    """Probability-flow ODE, which carries r_0 to r_T: beta = lam2/2, g2 = lam2.

    Args:
        s: the noise schedule.
        score: the score on it.

    Returns:
        The equation; its start is the exact r_0 where the score knows its law.

    References:
        Song et al. 2021, "Score-based generative modeling through stochastic differential equations".
    """
    return at(s, score, churn=0.0)


def reverse_sde(s: Schedule, score: Field, churn: Dial = 1.0) -> DiffFlow:
    """Reverse SDE: the time reversal of the noising process (churn 1), or another stochasticity of the same marginals.

    Args:
        s: the noise schedule.
        score: the score on it.
        churn: stochasticity z, g2 = (1 + z) lam2: a float >= 0 or a function of t.

    Returns:
        The equation; its start is the exact r_0 where the score knows its law.

    References:
        Anderson 1982, "Reverse-time diffusion equation models"; Song et al. 2021, "Score-based generative modeling
        through stochastic differential equations".
    """
    return at(s, score, churn=churn)


def edm_churn(s: Schedule, score: Field, *, rate: Dial) -> DiffFlow:
    """EDM's sampler in continuous time: Langevin churn beside the ODE, noise sqrt(2 chi) sigma scale.

    Args:
        s: the noise schedule.
        score: the score on it.
        rate: churn chi per unit of time, a float >= 0 or a function of t.

    Returns:
        The equation (derivations.md section 2).

    References:
        Karras et al. 2022, "Elucidating the design space of diffusion-based generative models".
    """
    churn = Churn(_on(s, score), checked_dial("rate", rate))
    return replace(at(s, score, churn=churn), papers=("song2021", "karras2022"))


def slcd(s: Schedule, score: Field, *, g2: Coefficient, lam2: Coefficient | None = None) -> DiffFlow:
    """Score-based Langevin-churned dynamics: g2 = 2 beta free, lam2 in [0, g2].

    Args:
        s: the noise schedule, whose drift f it has.
        score: the score on it.
        g2: stochasticity, a float or a function of t.
        lam2: entropy that noising took away, likewise; None: the schedule's own, for which p_t = r_t.

    Returns:
        The equation.

    References:
        Zhang et al. 2023, arXiv 2307.02159.
    """
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
    """Dynamics toward a fixed target, from the DiffODE of a GAN (churn 0) to Langevin dynamics (churn 1).

    The coefficients are g2 = 2 churn beta and lam2 = 0.

    Args:
        score: a Law or its score field; None where churn = 0.
        ratio: gradient of the log-ratio of target and particles; None where churn = 1.
        churn: the dial, in [0, 1].
        beta: speed, positive, in squared units of x per unit of time.
        horizon: time at which the particles are samples, positive.
        start: law of the particles at t = 0, or None.

    Returns:
        The equation.

    Raises:
        ValueError: a churn outside [0, 1], or a beta or horizon that is not positive.
        TypeError: score or ratio is no field.
    """
    if not 0 <= churn <= 1:
        raise ValueError(f"churn={churn}: on a fixed target the dial runs from 0 (DiffODE) to 1 (Langevin)")
    if not (beta > 0 and horizon > 0):
        raise ValueError(f"beta={beta} and horizon={horizon} must be positive")
    field: Any = LawScore(score) if hasattr(score, "noised") and not isinstance(score, type) else score
    papers = ("roberts1996",) if churn == 1 else ("goodfellow2014", "roberts1996")
    return DiffFlow(field, ratio, None, beta, 2 * churn * beta, 0.0, None, start, horizon, papers=papers)


def langevin(q: Any, beta: float = 1.0, horizon: float = 20.0, start: Law | None = None) -> DiffFlow:
    """Langevin dynamics dX = beta grad log q dt + sqrt(2 beta) dW, whose stationary law is q.

    Args:
        q: a Law or its score field.
        beta: speed, positive, in squared units of x per unit of time.
        horizon: time at which the particles are samples.
        start: law of the particles at t = 0, or None.

    Returns:
        The equation.
    """
    return static(q, None, churn=1.0, beta=beta, horizon=horizon, start=start)


def annealed_langevin(levels: Levels, score: ScoreField, *, rate: float = 0.2) -> DiffFlow:
    """Annealed Langevin dynamics: falling noise levels, unit-time steps with beta = rate sigma_k^2.

    A step moves x the fraction `rate` of the way to its denoised value; in NCSN's symbols epsilon = 2 rate sigma_min^2.
    Steps of unit time end each level; a last denoising step ends the run (derivations.md section 2).

    Args:
        levels: the staircase of noise levels.
        score: the score on it.
        rate: fraction of the way per step, in (0, 2); 0.05 to 0.4 is usual.

    Returns:
        The equation, with its grid.

    Raises:
        ValueError: a rate outside (0, 2), or a score on another schedule.
        TypeError: levels that are no `Levels`.

    References:
        Song & Ermon 2019, "Generative modeling by estimating gradients of the data distribution".
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
    """GAN flow (DiffODE), the flow that a GAN's generator amortises: dx = beta grad log(r/p) dt, f = g2 = lam2 = 0.

    beta = 1 descends KL(p|r); a generator loss l(d) is the speed Speed(-l') (derivations.md 3.1).

    Args:
        ratio: a discriminator's ratio, or any field of the cloud, which then is the velocity itself.
        beta: speed: a float, a function of t, or a Speed (a function of the logit).
        horizon: time at which the particles are samples, positive.
        start: law of the particles at t = 0, or None.

    Returns:
        The equation.

    Raises:
        ValueError: a horizon that is not positive.

    References:
        Goodfellow et al. 2014, "Generative adversarial nets".
    """
    if not horizon > 0:
        raise ValueError(f"horizon={horizon} must be positive")
    return DiffFlow(None, ratio, None, beta, 0.0, 0.0, None, start, horizon, papers=("goodfellow2014",))


def discriminator_flow(ratio: Ratio, speed: Speed, eta: float = 1.0, start: Law | None = None) -> DiffFlow:
    """Discriminator Flow dx = -eta l'(d) grad d dt on [0, 1], where d(x, t) knows the particles' law at every t.

    Args:
        ratio: the discriminator's ratio, told the time.
        speed: -l', the speed of the generator loss l as a function of the logit.
        eta: factor of the speed, positive.
        start: law of the particles at t = 0, or None.

    Returns:
        The equation (derivations.md 6.4).

    Raises:
        ValueError: an eta that is not positive.

    References:
        Franceschi et al. 2023, "Unifying GANs and score-based diffusion as generative particle models".
    """
    if not eta > 0:
        raise ValueError(f"eta={eta}: the particles move at a positive speed")
    return replace(gan_flow(ratio, Speed(Multiple(eta, speed)), start=start), papers=("franceschi2023",))


def improved_gan(s: Schedule, ratio: Field, beta: Coefficient | Speed = 1.0, start: Law | None = None) -> DiffFlow:
    """Improved GAN: the flow dx = beta grad log(r_t/p_t) dt toward data whose noise falls, lam2 = 0.

    The particles follow r_t with a lag that falls with beta (derivations.md 3.2).

    Args:
        s: schedule of the data's noise, of scale 1 and a small sigma_max, such as VE(0.01, 1).
        ratio: gradient of the log-ratio log r_t/p_t.
        beta: speed: a float, a function of t, or a Speed (a function of the logit).
        start: law of the particles at t = 0, or None.

    Returns:
        The equation.

    Raises:
        ValueError: a schedule whose scale at t = 0 is not 1.
        TypeError: s is no schedule, or ratio no field.

    References:
        Zhang et al. 2023, arXiv 2307.02159, Algorithms 2 and 3.
    """
    if _on(s, None, ratio).scale(0.0).item() != 1:
        raise ValueError(f"{type(s).__name__} shrinks the data at t = 0; the improved GAN noises them only: use df.VE")
    return replace(gan_flow(ratio, beta, horizon=s.horizon, start=start), schedule=s, papers=())


def diffusion_gan(
    s: Schedule, score: Field, ratio: Field, *, gan: Dial = 1.0, churn: Dial = 1.0, start: Law | None = None
) -> DiffFlow:
    """Diffusion-GAN: score and log-ratio together, 0 < g2 < 2 beta.

    Equal gan + churn is equal beta, hence with exact fields an equal law (derivations.md 3.3).

    Args:
        s: the noise schedule.
        score: the score on it.
        ratio: gradient of the log-ratio log r_t/p_t.
        gan: weight k of the log-ratio, positive, or a function of t.
        churn: stochasticity z, a float >= 0 or a function of t.
        start: law of the particles at t = 0; None: the exact r_0 where the score knows its law.

    Returns:
        The equation.

    Raises:
        ValueError: a gan that is not positive; otherwise as `at`.

    References:
        Zhang et al. 2023, arXiv 2307.02159, equations 29 and 30.
    """
    if not callable(gan) and not gan > 0:
        raise ValueError(f"gan={gan}: Diffusion-GAN weighs the log-ratio, gan > 0; without it this is reverse_sde")
    return replace(at(s, score, ratio, gan=gan, churn=churn, start=start), papers=("song2021", "goodfellow2014"))


def continued(sde: DiffFlow, lam2: Coefficient) -> DiffFlow:
    """Analytic continuation to lam2 < 0, which flattens the law.

    It adds noise sqrt(g2 - lam2) without drift to balance it (derivations.md section 1).

    Args:
        sde: the equation to continue.
        lam2: a negative float, or a function of t.

    Returns:
        The equation with this lam2.

    Raises:
        TypeError: sde is no equation.
        ValueError: a lam2 that is not negative.
    """
    if not isinstance(sde, DiffFlow):
        raise TypeError(f"an equation is continued, a DiffFlow: got {type(sde).__name__}")
    if not callable(lam2) and not float(lam2) < 0:
        raise ValueError(f"lam2={lam2}: the continuation needs lam2 < 0")
    return replace(sde, lam2=lam2)
