"""The statements of docs/theory/derivations.md, checked with NumPy and SciPy alone, on laws whose densities are known.

A test whose name begins with `test_a1` is the check that the page marks [chk a1]. Nothing here uses the library: these
are checks of the mathematics, and the other tests of this folder hold the library to it. Tolerances come from the order
of the method: h² for central differences and for the grid, round-off (about 1e-16/h) for differences of step h, and
1.95/√n for the Kolmogorov-Smirnov distance of n samples (exceeded once in a thousand draws; the seeds are fixed).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad, solve_ivp
from scipy.linalg import solve_banded
from scipy.optimize import brentq
from scipy.stats import norm

Array = NDArray[np.float64]
Clock = Callable[[float], float]


def sig(d: Array) -> Array:
    return 1 / (1 + np.exp(-d))


def softplus(d: Array) -> Array:
    return np.logaddexp(0, d)


ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "theory" / "derivations.md"


def test_every_check_of_the_page_is_a_test() -> None:
    page = PAGE.read_text()
    marked = set(re.findall(r"\b[a-f]\d+[a-z]?\b", " ".join(re.findall(r"\[chk ([^\]]+)\]", page))))
    tests = set(re.findall(r"(?<=_)[a-f]\d+[a-z]?(?=_)", " ".join(f for f in globals() if f.startswith("test_"))))
    assert marked - tests == set()
    assert tests - marked <= {"b2", "b3"}  # all rows of the table: [chk b]
    assert re.findall(r"\\tag\{(\d+)\}", page) == [str(n) for n in range(1, 15)]


def test_what_the_code_cites_is_on_the_page() -> None:
    page, sources = PAGE.read_text(), [p for d in ("src", "tests", "benchmarks") for p in (ROOT / d).rglob("*.py")]
    numbered = {"7": "## 7. ", "9": "## 9. "}  # sections that are lists: 7.9 is an item
    items = {f"{k}.{n}" for k, h in numbered.items() for n in re.findall(r"^(\d+)\. ", page.split(h)[1], flags=re.M)}
    sections = set(re.findall(r"^(?:#+ |\*\*)(\d(?:\.\d+)?)", page, flags=re.M)) | items
    equations = set(re.findall(r"\\tag\{(\d+)\}", page))
    text = "\n".join(p.read_text() for p in sources if p != Path(__file__))
    cited = re.findall(r"derivations\.md,?\s+(?:section )?(\d+(?:\.\d+)?)", text)
    assert len(cited) > 30
    assert set(cited) <= sections
    assert set(re.findall(r"derivations\.md\s+eqs?\. \(?(\d+)", text)) <= equations


class Mixture:
    """A mixture of Gaussians on the line: weights, means, variances."""

    def __init__(self, weights: object, means: object, variances: object) -> None:
        self.w, self.mu, self.v = (np.asarray(a, float) for a in (weights, means, variances))

    def noised(self, u: float, sigma: float) -> Mixture:
        """The law of (Y + sigma eps) / u, of density u q(u x; sigma)."""
        return Mixture(self.w, self.mu / u, (self.v + sigma**2) / u**2)

    def parts(self, x: Array) -> tuple[Array, Array]:
        """Log-density of every component (k, *x.shape), and mu - x."""
        shape = (-1,) + (1,) * np.ndim(x)
        w, mu, v = (a.reshape(shape) for a in (self.w, self.mu, self.v))
        return np.log(w) - 0.5 * np.log(2 * np.pi * v) - (x - mu) ** 2 / (2 * v), (mu - x) / v

    def log_prob(self, x: Array) -> Array:
        return np.logaddexp.reduce(self.parts(np.asarray(x, float))[0], axis=0)

    def score(self, x: Array) -> Array:
        logs, toward = self.parts(np.asarray(x, float))
        return (np.exp(logs - np.logaddexp.reduce(logs, axis=0)) * toward).sum(0)

    def cdf(self, x: Array) -> Array:
        return sum(w * norm.cdf(x, m, np.sqrt(v)) for w, m, v in zip(self.w, self.mu, self.v, strict=True))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        k = rng.choice(len(self.w), n, p=self.w)
        return self.mu[k] + np.sqrt(self.v[k]) * rng.standard_normal(n)


def gaussian(mean: float, variance: float) -> Mixture:
    return Mixture([1.0], [mean], [variance])


def kolmogorov_smirnov(x: Array, cdf: Callable[[Array], Array]) -> float:
    values, n = cdf(np.sort(x)), len(x)
    return float(max(np.abs(values - np.arange(1, n + 1) / n).max(), np.abs(values - np.arange(n) / n).max()))


def slope(f: Callable[[float], float], t: float, h: float = 1e-5) -> float:
    return (f(t + h) - f(t - h)) / (2 * h)


class Line:
    """Equation (3) on a grid: conservative fluxes J = F p - D dp/dx, none through the ends; error of order h²."""

    def __init__(self, half_width: float = 11.0, n: int = 1101) -> None:
        self.x = np.linspace(-half_width, half_width, n)
        self.h = self.x[1] - self.x[0]
        self.between = 0.5 * (self.x[1:] + self.x[:-1])

    def step(self, p: Array, dt: float, drift: Array, diffusion: Array, implicit: float = 0.5) -> Array:
        """The density after dt; drift F and diffusion D between the nodes, constant over the step."""
        h = self.h
        lower, upper = (drift / 2 + diffusion / h) / h, (-drift / 2 + diffusion / h) / h
        diagonal = np.zeros(len(p))
        diagonal[:-1] -= lower
        diagonal[1:] -= upper
        rate = diagonal * p
        rate[1:] += lower * p[:-1]
        rate[:-1] += upper * p[1:]
        bands = np.zeros((3, len(p)))
        bands[0, 1:] = -implicit * dt * upper
        bands[1] = 1 - implicit * dt * diagonal
        bands[2, :-1] = -implicit * dt * lower
        return np.maximum(solve_banded((1, 1), bands, p + (1 - implicit) * dt * rate), 1e-300)

    def integral(self, y: Array) -> float:
        return float(y.sum() * self.h)

    def kl(self, p: Array, log_r: Array) -> float:
        return self.integral(p * (np.log(p) - log_r))

    def fisher(self, p: Array, log_r: Array, weight: Array | float = 1.0) -> float:
        """E_p[weight |d/dx log(p/r)|²], the weight between the nodes."""
        return float((weight * 0.5 * (p[1:] + p[:-1]) * (np.diff(np.log(p) - log_r) / self.h) ** 2).sum() * self.h)

    def cdf(self, p: Array) -> Callable[[Array], Array]:
        mass = np.concatenate([[0.0], np.cumsum(0.5 * (p[1:] + p[:-1]))])
        return lambda x: np.interp(x, self.x, mass / mass[-1])


DATA = Mixture([0.3, 0.45, 0.25], [-1.5, 0.4, 2.0], [0.09, 0.04, 0.16])
SPEEDS: dict[str, Callable[[Array], Array]] = {
    "kl": np.ones_like,
    "saturating": sig,
    "non-saturating": lambda d: sig(-d),
}


# ------------------------------------------------------------------------------------------- section 2: the rows


@dataclass(frozen=True)
class Row:
    """A row of the table of section 2, and the drift and squared noise that its textbook writes for it."""

    name: str
    horizon: float
    f: Clock  # f(x, t) = f(t) x
    beta: Clock
    u: Clock
    sigma: Clock
    g2: Clock
    lam2: Clock
    drift: Callable[[Array, float, Array], Array]  # of x, t, S = grad log r_t
    noise2: Clock

    def target(self, t: float) -> Mixture:
        return DATA.noised(self.u(t), self.sigma(t))

    def general(self, x: Array, t: float, score_r: Array, score_p: Array) -> tuple[Array, float]:
        """Drift and squared noise of equation (1)."""
        drift = self.f(t) * x + self.beta(t) * (score_r - score_p) + 0.5 * self.g2(t) * score_p
        return drift, self.g2(t) - self.lam2(t)


def zero(t: float) -> float:
    return 0.0


def one(t: float) -> float:
    return 1.0


def edm(t: float) -> float:
    return 5.0 - t


RATIO = np.log(5.0 / 0.02)


def geometric(t: float) -> float:
    return 0.02 * np.exp(RATIO * (1 - t))


def geometric_g2(t: float) -> float:
    return 2 * RATIO * geometric(t) ** 2


def b(t: float) -> float:
    return 0.1 + 11.9 * (1 - t)


def big_b(t: float) -> float:
    return 0.1 * (1 - t) + 0.5 * 11.9 * (1 - t) ** 2


def vp_u(t: float) -> float:
    return np.exp(0.5 * big_b(t))


def vp_sigma(t: float) -> float:
    return np.sqrt(np.expm1(big_b(t)))


def sub_sigma(t: float) -> float:
    return 2 * np.sinh(0.5 * big_b(t))


def sub_g2(t: float) -> float:
    return b(t) * -np.expm1(-2 * big_b(t))


def half_b(t: float) -> float:
    return 0.5 * b(t)


CHI = 0.8
ON_SCHEDULE = [
    Row("VE, EDM form", 4.98, zero, lambda t: 2 * edm(t), one, edm, lambda t: 4 * edm(t), lambda t: 2 * edm(t),
        lambda x, t, S: 2 * edm(t) * S, lambda t: 2 * edm(t)),
    Row("VE PF-ODE, EDM form", 4.98, zero, edm, one, edm, lambda t: 2 * edm(t), lambda t: 2 * edm(t),
        lambda x, t, S: edm(t) * S, zero),
    Row("EDM churn", 4.98, zero, lambda t: edm(t) + CHI * edm(t) ** 2, one, edm,
        lambda t: 2 * edm(t) + 2 * CHI * edm(t) ** 2, lambda t: 2 * edm(t),
        lambda x, t, S: (edm(t) + CHI * edm(t) ** 2) * S, lambda t: 2 * CHI * edm(t) ** 2),
    Row("VE general", 1.0, zero, geometric_g2, one, geometric, lambda t: 2 * geometric_g2(t), geometric_g2,
        lambda x, t, S: geometric_g2(t) * S, geometric_g2),
    Row("VE general PF-ODE", 1.0, zero, lambda t: geometric_g2(t) / 2, one, geometric, geometric_g2, geometric_g2,
        lambda x, t, S: 0.5 * geometric_g2(t) * S, zero),
    Row("VP SDE", 0.999, half_b, b, vp_u, vp_sigma, lambda t: 2 * b(t), b,
        lambda x, t, S: 0.5 * b(t) * x + b(t) * S, b),
    Row("VP PF-ODE", 0.999, half_b, half_b, vp_u, vp_sigma, b, b, lambda x, t, S: 0.5 * b(t) * (x + S), zero),
    Row("sub-VP SDE", 0.999, half_b, sub_g2, vp_u, sub_sigma, lambda t: 2 * sub_g2(t), sub_g2,
        lambda x, t, S: 0.5 * b(t) * x + sub_g2(t) * S, sub_g2),
    Row("sub-VP PF-ODE", 0.999, half_b, lambda t: sub_g2(t) / 2, vp_u, sub_sigma, sub_g2, sub_g2,
        lambda x, t, S: 0.5 * b(t) * x + 0.5 * sub_g2(t) * S, zero),
    Row("Diffusion-GAN on VP", 0.999, half_b, lambda t: 1.7 * b(t), vp_u, vp_sigma, lambda t: 2.2 * b(t), b,
        lambda x, t, S: 0.5 * b(t) * x + 1.1 * b(t) * S, lambda t: 1.2 * b(t)),
]  # fmt: skip
LANGEVIN = Row("Langevin", 14.0, zero, lambda t: 0.7, one, lambda t: 0.5, lambda t: 1.4, zero,
               lambda x, t, S: 0.7 * S, lambda t: 1.4)  # fmt: skip
VP = ON_SCHEDULE[5]
EACH = pytest.mark.parametrize("row", ON_SCHEDULE, ids=lambda r: r.name)
POINTS = np.linspace(-3, 3, 50)


@EACH
def test_b1_f_and_lam2_are_those_of_the_schedule(row: Row) -> None:
    """f = -(u'/u) x and lam2 = -2 sigma sigma' / u² (equation 4)."""
    for t in np.linspace(0.02, 0.97, 9) * row.horizon:
        assert row.f(t) == pytest.approx(-slope(row.u, t) / row.u(t), rel=1e-7, abs=1e-9)
        assert row.lam2(t) == pytest.approx(-2 * row.sigma(t) * slope(row.sigma, t) / row.u(t) ** 2, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("row", [LANGEVIN, *ON_SCHEDULE], ids=lambda r: r.name)
def test_b2_the_general_equation_is_the_textbook_one(row: Row) -> None:
    """Equations (1) and (2) with the row's coefficients; where g2 = 2 beta the score of p drops out, whatever it is."""
    rng = np.random.default_rng(0)
    for t in np.linspace(0.05, 0.9, 7) * row.horizon:
        score_r = row.target(t).score(POINTS)
        cancels = row.g2(t) == pytest.approx(2 * row.beta(t), rel=1e-12)
        score_p = 10 * rng.standard_normal(POINTS.size) if cancels else score_r
        drift, noise2 = row.general(POINTS, t, score_r, score_p)
        mixed = row.f(t) * POINTS + (row.beta(t) - row.g2(t) / 2) * (score_r - score_p) + row.g2(t) / 2 * score_r
        wanted = row.drift(POINTS, t, score_r)
        scale = np.abs(score_p).max() * row.g2(t) + np.abs(wanted).max()
        assert np.abs(drift - wanted).max() <= 1e-14 * scale
        assert np.abs(mixed - wanted).max() <= 1e-14 * scale
        assert noise2 == pytest.approx(row.noise2(t), rel=1e-12, abs=1e-14 * row.g2(t))


@EACH
def test_b3_the_target_path_solves_the_fokker_planck_equation_of_the_row(row: Row) -> None:
    """d/dt log r = -div v - v . grad log r with v = drift - noise²/2 grad log r, on a mixture of three (equation 3)."""
    h = 1e-4
    for t in np.linspace(0.05, 0.95, 7) * row.horizon:

        def velocity(x: Array, t: float = t) -> Array:
            score = row.target(t).score(x)
            return row.drift(x, t, score) - 0.5 * row.noise2(t) * score

        dt = h * min(1.0, row.horizon - t)
        rate = (row.target(t + dt).log_prob(POINTS) - row.target(t - dt).log_prob(POINTS)) / (2 * dt)
        divergence = (velocity(POINTS + h) - velocity(POINTS - h)) / (2 * h)
        transport = velocity(POINTS) * row.target(t).score(POINTS)
        scale = np.abs(divergence).max() + np.abs(transport).max()
        smallest = min(row.target(t).v.min(), 1.0)  # two more derivatives are of the order of 1/variance each
        assert np.abs(rate + divergence + transport).max() <= 10 * h**2 / smallest**2 * scale


def test_b3_langevin_keeps_its_target() -> None:
    """One level, or the levels of annealed Langevin dynamics each by itself: the velocity of the law vanishes."""
    for sigma in np.geomspace(5, 0.05, 8):
        beta, score = 0.15 * sigma**2, DATA.noised(1.0, sigma).score(POINTS)
        assert np.abs(beta * score - 0.5 * (2 * beta) * score).max() == 0
    drift, noise2 = LANGEVIN.general(POINTS, 1.0, score := LANGEVIN.target(1.0).score(POINTS), score)
    assert np.abs(drift - 0.5 * noise2 * score).max() <= 1e-15 * np.abs(drift).max()


def test_b4_noise_that_is_raised_by_a_factor_is_churn_at_a_rate() -> None:
    """Raising sigma by 1 + gamma adds the variance sigma²((1+gamma)² - 1), to first order 2 chi sigma² |d sigma|."""
    sigma, step = 1.3, 0.7
    for gamma in (1e-3, 1e-5):
        chi = sigma**2 * ((1 + gamma) ** 2 - 1) / (2 * sigma**2 * step)
        assert chi == pytest.approx(gamma / step, rel=gamma)


def test_b5_scores_of_the_scaled_law_carry_the_factor_u() -> None:
    """Proposition 1 and the chain rule: grad_x log q(u x; sigma) = u (grad log q)(u x; sigma), VP's own score."""
    t, h = 0.3, 1e-5
    u, sigma = VP.u(t), VP.sigma(t)
    q = DATA.noised(1.0, sigma)
    forward = Mixture(DATA.w, DATA.mu / u, DATA.v / u**2 + 1 - 1 / u**2)  # mean scale m = 1/u, noise variance 1 - m²
    by_chain = u * q.score(u * POINTS)
    by_difference = (q.log_prob(u * (POINTS + h)) - q.log_prob(u * (POINTS - h))) / (2 * h)
    np.testing.assert_allclose(forward.score(POINTS), VP.target(t).score(POINTS), rtol=1e-12)
    np.testing.assert_allclose(by_chain, VP.target(t).score(POINTS), rtol=1e-12)
    np.testing.assert_allclose(by_difference, by_chain, atol=1e-8)


# ------------------------------------------------------------------------- section 1: g is a gauge, lambda is not

MEAN, COV, EYE = np.array([1.0, -0.5]), np.array([[0.8, 0.3], [0.3, 0.4]]), np.eye(2)
START = np.concatenate([[-2.0, 1.0], np.array([[2.0, -0.5], [-0.5, 1.5]]).ravel()])


def rate(t: float) -> float:
    return -0.3 + 0.4 * t


def beta(t: float) -> float:
    return 1 + 0.5 * np.sin(3 * t)


def lam2(t: float) -> float:
    return 0.6 + 0.3 * t


def moving_target(t: float) -> tuple[Array, Array]:
    u, sigma = 1.5 - 0.4 * t, 1.2 - 0.8 * t
    return MEAN / u, (COV + sigma**2 * EYE) / u**2


def moments_with_noise(g2: Clock) -> Array:
    """Mean and covariance at t = 1 by equation (1), linear as p_t is Gaussian: m' = A m + b, C' = A C + C A' + c² I."""

    def rates(t: float, y: Array) -> Array:
        m, C = y[:2], y[2:].reshape(2, 2)
        mean, S = moving_target(t)
        precision_r, precision_p = np.linalg.inv(S), np.linalg.inv(C)
        A = rate(t) * EYE - beta(t) * precision_r + (beta(t) - g2(t) / 2) * precision_p
        shift = beta(t) * precision_r @ mean - (beta(t) - g2(t) / 2) * precision_p @ m
        return np.concatenate([A @ m + shift, (A @ C + C @ A.T + (g2(t) - lam2(t)) * EYE).ravel()])

    return solve_ivp(rates, (0, 1), START, rtol=1e-9, atol=1e-11).y[:, -1]


def moments_without_g(lam2: Clock) -> Array:
    """The same by equation (9)."""

    def rates(t: float, y: Array) -> Array:
        m, C = y[:2], y[2:].reshape(2, 2)
        mean, S = moving_target(t)
        P = np.linalg.inv(S)
        growth = 2 * rate(t) * C - beta(t) * (P @ C + C @ P) + (2 * beta(t) - lam2(t)) * EYE
        return np.concatenate([rate(t) * m - beta(t) * P @ (m - mean), growth.ravel()])

    return solve_ivp(rates, (0, 1), START, rtol=1e-9, atol=1e-11).y[:, -1]


GAUGES: dict[str, Clock] = {
    "no noise": lam2,
    "some": lambda t: beta(t) + 0.9,
    "no log-ratio": lambda t: 2 * beta(t),
    "much": lambda t: 8.0,
}


@pytest.mark.parametrize("gauge", GAUGES)
def test_a1_the_law_does_not_depend_on_g(gauge: str) -> None:
    """Proposition 2 with everything else moving in time, by moments, without samples."""
    np.testing.assert_allclose(moments_with_noise(GAUGES[gauge]), moments_without_g(lam2), atol=1e-7)


def test_a1b_the_law_does_depend_on_lambda() -> None:
    difference = moments_without_g(zero)[2:] - moments_without_g(lam2)[2:]
    assert np.abs(difference).max() > 0.05


@pytest.mark.parametrize("speed", SPEEDS)
def test_a2_particles_follow_the_equation_without_g(speed: str) -> None:
    """Prop. 2 for three GANs: particles at three values of g against equation (3) on a grid, which has no g."""
    line, n, steps = Line(n=701), 10_000, 250
    dt, q, start = 1.0 / steps, DATA.noised(1.0, 0.6), gaussian(-1.0, 2.25)
    log_q, score_q, between = q.log_prob(line.x), q.score(line.x), q.score(line.between)
    p = np.exp(start.log_prob(line.x))
    clouds = {g2: start.sample(n, np.random.default_rng(k)) for k, g2 in enumerate((0.0, 1.0, 3.0))}
    rng = np.random.default_rng(9)
    for _ in range(steps):
        weight = SPEEDS[speed](np.clip(log_q - np.log(p), -40, 40))
        score_p = np.gradient(np.log(p), line.h)
        for g2, x in clouds.items():
            drift = np.interp(x, line.x, weight * (score_q - score_p) + 0.5 * g2 * score_p)
            clouds[g2] = x + drift * dt + np.sqrt(g2 * dt) * rng.standard_normal(n)
        half = 0.5 * (weight[1:] + weight[:-1])
        p = line.step(p, dt, half * between, half)
    for x in clouds.values():
        assert kolmogorov_smirnov(x, line.cdf(p)) < 1.95 / np.sqrt(n) + dt


@pytest.mark.parametrize("multiple", [0.5, 1.0, 3.0])
def test_a3_on_a_schedule_the_law_is_the_target_for_every_beta(multiple: float) -> None:
    """The schedule theorem: f and lam2 of equation (4) and an exact start give p_t = r_t."""
    mu, v = 0.7, 0.3

    def target(t: float) -> Array:
        return np.array([mu / VP.u(t), (v + VP.sigma(t) ** 2) / VP.u(t) ** 2])

    def rates(t: float, y: Array) -> list[float]:
        (mean, S), pull = target(t), multiple * VP.beta(t)
        return [
            VP.f(t) * y[0] - pull * (y[0] - mean) / S,
            2 * VP.f(t) * y[1] - 2 * pull * y[1] / S + 2 * pull - VP.lam2(t),
        ]

    end = solve_ivp(rates, (0, 0.999), target(0.0), rtol=1e-9, atol=1e-11).y[:, -1]
    np.testing.assert_allclose(end, target(0.999), atol=1e-7)


@pytest.mark.parametrize("constant", [0.6, -0.8])
def test_a4_constant_lambda_tempers_the_law(constant: float) -> None:
    """Without schedule the particles come to rest on q^(beta / (beta - lam2/2)); lam2 < 0 flattens."""
    line, q = Line(n=701), DATA.noised(1.0, 0.6)
    drift, diffusion = q.score(line.between), np.full(line.between.size, 1 - constant / 2)
    p = np.exp(gaussian(0.0, 4.0).log_prob(line.x))
    for _ in range(200):
        p = line.step(p, 0.5, drift, diffusion, implicit=1.0)
    tempered = np.exp(q.log_prob(line.x) / (1 - constant / 2))
    tempered /= line.integral(tempered)
    assert line.integral(np.abs(p - tempered)) < line.h**2
    assert line.integral(np.abs(p - np.exp(q.log_prob(line.x)))) > 0.05


# ------------------------------------------------------------------------------- section 4: dissipation and rates


def kl_gaussian(m: Array, C: Array, mean: Array, S: Array) -> float:
    P = np.linalg.inv(S)
    logs = np.linalg.slogdet(S)[1] - np.linalg.slogdet(C)[1]
    return 0.5 * (np.trace(P @ C) + (mean - m) @ P @ (mean - m) - len(m) + logs)


def fisher_gaussian(m: Array, C: Array, mean: Array, S: Array) -> float:
    P, v = np.linalg.inv(S), np.linalg.inv(S) @ (mean - m)
    A = np.linalg.inv(C) - P
    return np.trace(A @ C @ A) + v @ v


@pytest.mark.parametrize("kappa", [0.0, 0.4, 2.0])
def test_c1_kl_falls_by_kappa_times_fisher_on_a_schedule(kappa: float) -> None:
    """Equation (5), and Theorem 2's bound (7), for Gaussians that start beside the target."""
    mu, cov = np.array([0.6, -0.4]), np.array([[0.5, 0.2], [0.2, 0.3]])

    def target(t: float) -> tuple[Array, Array]:
        return mu / VP.u(t), (cov + VP.sigma(t) ** 2 * EYE) / VP.u(t) ** 2

    def rates(t: float, y: Array) -> Array:
        m, C = y[:2], y[2:].reshape(2, 2)
        mean, S = target(t)
        P, pull = np.linalg.inv(S), 0.5 * VP.lam2(t) + kappa
        growth = 2 * VP.f(t) * C - pull * (P @ C + C @ P) + (2 * pull - VP.lam2(t)) * EYE
        return np.concatenate([VP.f(t) * m - pull * P @ (m - mean), growth.ravel()])

    start = np.concatenate([[1.0, 0.5], np.array([[1.8, -0.3], [-0.3, 0.6]]).ravel()])
    path = solve_ivp(rates, (0, 0.95), start, method="DOP853", rtol=1e-10, atol=1e-12, dense_output=True).sol

    def kl(t: float) -> float:
        return kl_gaussian(path(t)[:2], path(t)[2:].reshape(2, 2), *target(t))

    for t in np.linspace(0.05, 0.9, 12):
        loss = kappa * fisher_gaussian(path(t)[:2], path(t)[2:].reshape(2, 2), *target(t))
        assert slope(kl, t, 1e-3) == pytest.approx(-loss, rel=2e-4, abs=2e-6)
    decay = quad(lambda t: kappa / np.linalg.eigvalsh(target(t)[1]).max(), 0, 0.95)[0]
    assert kl(0.95) <= kl(0.0) * np.exp(-2 * decay) * (1 + 1e-7)


@pytest.mark.parametrize("speed", ["constant", "saturating", "non-saturating"])
def test_c2_kl_falls_by_beta_times_fisher_for_a_fixed_target(speed: str) -> None:
    """Lemma 1, for a speed that depends on x as well, on a mixture."""
    line, dt, q = Line(), 2e-3, DATA.noised(1.0, 0.6)
    log_q, between = q.log_prob(line.x), q.score(line.between)
    p = np.exp(gaussian(-1.0, 2.25).log_prob(line.x))
    kl, loss = [], []
    for _ in range(200):
        d = np.clip(log_q - np.log(p), -40, 40)
        weight = 0.7 * np.ones_like(d) if speed == "constant" else SPEEDS[speed](d)
        half = 0.5 * (weight[1:] + weight[:-1])
        kl.append(line.kl(p, log_q))
        loss.append(line.fisher(p, log_q, half))
        p = line.step(p, dt, half * between, half)
    falls = (np.array(kl[2:]) - kl[:-2]) / (2 * dt)
    assert np.abs(falls + loss[1:-1])[5:].max() < 0.01 * max(loss)  # the first steps smooth the start; then dt and h²


def test_c3_the_rate_of_theorem_2_is_sharp_for_a_shifted_gaussian() -> None:
    """KL(t) = KL(0) exp(-2 rho beta t) with rho = 1/S."""
    S, pull, times = 1.7, 0.8, np.linspace(0, 3, 7)
    path = solve_ivp(
        lambda t, y: [-pull * y[0] / S, -2 * pull * y[1] / S + 2 * pull],
        (0, 3), [1.1, S], t_eval=times, rtol=1e-10, atol=1e-12,
    ).y  # fmt: skip
    kl = 0.5 * (path[1] / S + path[0] ** 2 / S - 1 + np.log(S / path[1]))
    np.testing.assert_allclose(kl, kl[0] * np.exp(-2 * pull * times / S), atol=1e-9)


def decay_to(q: Mixture, start: Mixture, dt: float, steps: int) -> tuple[Array, Array, Line]:
    """KL after every step of the flow with beta = 1, and the last density."""
    line = Line(n=701)
    p, log_q, drift = np.exp(start.log_prob(line.x)), q.log_prob(line.x), q.score(line.between)
    kl = [line.kl(p, log_q)]
    for _ in range(steps):
        p = line.step(p, dt, drift, np.ones_like(drift))
        kl.append(line.kl(p, log_q))
    return np.array(kl), p, line


def test_c3b_a_target_of_bounded_support_has_a_log_sobolev_constant_where_sigma_exceeds_its_radius() -> None:
    """rho >= (sigma² - R²)/sigma⁴: as a bound of the curvature of -log q, and of the rate of KL."""
    sigma = 1.3
    q, rho, h, dt = Mixture([0.35, 0.65], [-1.0, 1.0], [sigma**2] * 2), (sigma**2 - 1) / sigma**4, 1e-4, 6e-3
    x = np.linspace(-11, 11, 1101)
    curvature = -(q.score(x + h) - q.score(x - h)) / (2 * h)
    assert curvature.min() >= rho - 1e-7
    kl, _, _ = decay_to(q, gaussian(2.0, 0.5), dt, 500)
    assert np.all(np.log(kl / kl[0]) + 2 * rho * dt * np.arange(len(kl)) <= 1e-6)


def test_c3c_c3d_two_modes_have_a_tiny_constant_and_theorem_1_holds_all_the_same() -> None:
    """sigma < R: the bound with exp(-4R²/sigma²) is not violated, and total variation falls to zero."""
    sigma, dt = 0.7, 0.02
    q = Mixture([0.35, 0.65], [-1.0, 1.0], [sigma**2] * 2)
    rho = 1 / (6 * (4 + sigma**2) * np.exp(4 / sigma**2))
    kl, p, line = decay_to(q, gaussian(-1.5, 0.5), dt, 1000)
    assert np.all(np.log(kl / kl[0]) + 2 * rho * dt * np.arange(len(kl)) <= 1e-6)
    assert line.integral(np.abs(p - np.exp(q.log_prob(line.x)))) < 2e-3
    assert np.all(np.diff(kl)[kl[1:] > line.h**4] <= 0)  # below that the grid's own resting law is seen


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_c4_lemma_2_bounds_the_log_density(sigma: float) -> None:
    """Equation (6), for three masses outside the ball."""
    q, x = DATA.noised(1.0, sigma), np.linspace(-40, 40, 4001)
    constant = 0.5 * np.log(2 * np.pi * sigma**2)
    assert np.all(-q.log_prob(x) >= constant - 1e-12)
    for outside in (0.5, 0.1, 1e-3):
        radius = brentq(lambda r, outside=outside: DATA.cdf(r) - DATA.cdf(-r) - (1 - outside), 0, 50)
        upper = (x**2 + radius**2) / sigma**2 + constant - np.log(1 - outside)
        assert np.all(-q.log_prob(x) <= upper + 1e-12)


DIVERGENCES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "KL(p|q)": (lambda w: w * np.log(w), np.ones_like),
    "KL(q|p)": (lambda w: -np.log(w), np.exp),
    "chi2(p|q)": (lambda w: (w - 1) ** 2, lambda d: 2 * np.exp(-d)),
    "chi2(q|p)": (lambda w: (w - 1) ** 2 / w, lambda d: 2 * np.exp(2 * d)),
    "2 JS": (lambda w: w * np.log(w) - (1 + w) * np.log((1 + w) / 2), sig),
    "2 KL((p+q)/2|q)": (lambda w: (1 + w) * np.log((1 + w) / 2), lambda d: sig(-d)),
    "Hellinger": (lambda w: (np.sqrt(w) - 1) ** 2, lambda d: 0.5 * np.exp(d / 2)),
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_c5_speeds_along_the_log_ratio_are_gradient_flows(name: str) -> None:
    """Item 7.1: moving p along phi changes D_f by -E_p[phi beta(d) grad d], beta = w f''(w) at w = p/q."""
    f, speed = DIVERGENCES[name]
    p, q = Mixture([0.5, 0.5], [-0.8, 1.0], [0.6, 0.9]), Mixture([0.4, 0.6], [-0.3, 0.8], [0.9, 0.7])
    x = np.linspace(-8, 8, 8001)
    phi, phi_slope, h, eps = np.sin(x) + 0.3 * x, np.cos(x) + 0.3, x[1] - x[0], 1e-5

    def divergence(e: float) -> float:
        """D_f of p pushed along e phi, as an integral over the pushed points."""
        y, jacobian = x + e * phi, 1 + e * phi_slope
        log_p, log_q = p.log_prob(x) - np.log(jacobian), q.log_prob(y)
        return float((np.exp(log_q) * f(np.exp(log_p - log_q)) * jacobian).sum() * h)

    d, gradient = q.log_prob(x) - p.log_prob(x), q.score(x) - p.score(x)
    predicted = -float((np.exp(p.log_prob(x)) * phi * speed(d) * gradient).sum() * h)
    assert (divergence(eps) - divergence(-eps)) / (2 * eps) == pytest.approx(predicted, rel=2e-3)


# --------------------------------------------------------------------------------------------- section 5: likelihood

RATE, END, CUT = 1.0, 3.0, 1e-3  # a VP process dY = -Y/2 ds + dB from s = CUT to s = END
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
_legendre, _legendre_weights = np.polynomial.legendre.leggauss(80)
TIMES = np.exp(0.5 * np.log(END / CUT) * (_legendre + 1) + np.log(CUT))  # Gauss-Legendre in log s
TIME_WEIGHTS = 0.5 * np.log(END / CUT) * _legendre_weights * TIMES
STARTS = (-2.0, -0.5, 0.3, 1.7)
PAIR = Mixture([0.4, 0.6], [-1.0, 0.8], [0.5, 0.3])
Drift = Callable[[Array, float], Array]


def shrink(s: float) -> float:
    return np.exp(-0.5 * RATE * s)


def spread(s: float) -> float:
    return 1 - np.exp(-RATE * s)


def at(law: Mixture, s: float) -> Mixture:
    """The law at noising time s."""
    return Mixture(law.w, law.mu * shrink(s), law.v * shrink(s) ** 2 + spread(s))


def mean_over_kernel(x: float, s: float, f: Callable[[Array], Array]) -> float:
    """E f(y), y ~ k_s(. | x), by Gauss-Hermite quadrature."""
    return float((WEIGHTS * f(shrink(s) * x + np.sqrt(spread(s)) * NODES)).sum())


def kappa(x: float, s: float, y: Array) -> Array:
    """grad_y log k_s(y | x)."""
    return -(y - shrink(s) * x) / spread(s)


def bound(x: float, M: Drift, c2: float, log_p0: Callable[[Array], Array]) -> float:
    """The right side of equation (11), with h0 = -y/2, div h0 = -1/2 and G² = 1."""
    total = mean_over_kernel(x, END, log_p0)
    for s, w in zip(TIMES, TIME_WEIGHTS, strict=True):

        def inside(y: Array, s: float = s) -> Array:
            k = kappa(x, s, y)
            return -((M(y, s) - 0.5 * (c2 + RATE) * k) ** 2) / (2 * c2) + 0.5 * RATE * k**2 - 0.5 * RATE

        total += w * mean_over_kernel(x, s, inside)
    return total


@pytest.mark.parametrize("x", STARTS)
def test_d1_the_bound_is_tight_for_the_exact_reverse_sde(x: float) -> None:
    exact = mean_over_kernel(x, CUT, at(PAIR, CUT).log_prob)
    value = bound(x, lambda y, s: RATE * at(PAIR, s).score(y), RATE, at(PAIR, END).log_prob)
    assert value == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("x", STARTS)
@pytest.mark.parametrize("share", [0.3, 2.5])
def test_d2_elsewhere_the_gap_is_the_stated_integral(x: float, share: float) -> None:
    """c² = share G²: the gap is the integral of (c² - G²)²/(8c²) E|kappa - grad log r|², and positive."""
    c2 = share * RATE
    exact = mean_over_kernel(x, CUT, at(PAIR, CUT).log_prob)
    value = bound(x, lambda y, s: 0.5 * (c2 + RATE) * at(PAIR, s).score(y), c2, at(PAIR, END).log_prob)

    def difference(s: float) -> float:
        return mean_over_kernel(x, s, lambda y: (kappa(x, s, y) - at(PAIR, s).score(y)) ** 2)

    weight = (c2 - RATE) ** 2 / (8 * c2)
    predicted = sum(w * weight * difference(s) for s, w in zip(TIMES, TIME_WEIGHTS, strict=True))
    assert exact - value == pytest.approx(predicted, abs=1e-8)
    assert predicted > 0.01


@pytest.mark.parametrize(("beta_share", "g2_share"), [(1.0, 2.0), (1.6, 1.8), (0.9, 3.0)])
def test_d3_a_wrong_score_and_a_wrong_discriminator_still_give_a_bound(beta_share: float, g2_share: float) -> None:
    """Equations (10) to (12), linear networks: the gap to the model's own density is 1/2 int E|a - c grad log p|²."""
    data = gaussian(0.6, 0.4)
    pull, g2 = beta_share * RATE, g2_share * RATE
    c2, prior = g2 - RATE, (0.1, 1.2)

    def M(y: Array, s: float) -> Array:
        score = 0.85 * at(data, s).score(y) + 0.15 * np.cos(s)
        return (pull - 0.5 * g2) * (0.2 - 0.1 * y) + 0.5 * g2 * score

    def drift(y: Array, s: float) -> Array:
        return 0.5 * RATE * y + M(y, s)

    def line(s: float) -> tuple[float, float]:
        """Slope and value at zero of the drift, which is linear."""
        zero, one = (float(drift(np.array(v), s)) for v in (0.0, 1.0))
        return one - zero, zero

    def rates(t: float, y: Array) -> list[float]:
        a, shift = line(END - t)
        return [a * y[0] + shift, 2 * a * y[1] + c2]

    path = solve_ivp(rates, (0, END), prior, method="DOP853", rtol=1e-10, atol=1e-12, dense_output=True).sol

    def model(s: float) -> Mixture:
        return gaussian(*path(END - s))

    for x in STARTS:
        exact = mean_over_kernel(x, CUT, model(CUT).log_prob)
        value = bound(x, M, c2, gaussian(*prior).log_prob)
        raw, gap = mean_over_kernel(x, END, gaussian(*prior).log_prob), 0.0
        for s, w in zip(TIMES, TIME_WEIGHTS, strict=True):

            def a(y: Array, s: float = s, x: float = x) -> Array:
                h = -0.5 * RATE * y + 0.5 * (c2 - RATE) * kappa(x, s, y)
                return (h + drift(y, s)) / np.sqrt(c2)

            raw -= w * mean_over_kernel(x, s, lambda y, s=s, a=a: 0.5 * a(y) ** 2 + line(s)[0])
            gap += w * mean_over_kernel(x, s, lambda y, s=s, a=a: 0.5 * (a(y) - np.sqrt(c2) * model(s).score(y)) ** 2)
        assert value == pytest.approx(raw, abs=1e-9)
        assert exact - value == pytest.approx(gap, abs=1e-6)
        assert gap > 0


@pytest.mark.parametrize("x", STARTS)
def test_d4_the_probability_flow_gives_the_likelihood(x: float) -> None:
    """Equation (13) for diffusion: log p(x) = log p_0 + int div v along the flow, on a mixture."""
    h = 1e-4

    def rates(s: float, y: Array) -> list[float]:
        law = at(PAIR, s)
        divergence = (law.score(y[0] + h) - law.score(y[0] - h)) / (2 * h)
        return [-0.5 * RATE * (y[0] + float(law.score(y[0]))), -0.5 * RATE * (1 + float(divergence))]

    end, change = solve_ivp(rates, (CUT, END), [x, 0.0], method="DOP853", rtol=1e-8, atol=1e-9).y[:, -1]
    assert at(PAIR, END).log_prob(end) + change == pytest.approx(float(at(PAIR, CUT).log_prob(x)), abs=1e-6)


def test_d5_with_a_discriminator_the_velocity_without_g_gives_the_likelihood() -> None:
    """Equation (13) with the log-ratio of the process' own law, from a prior beside the target."""
    mu, v, pull = 0.6, 0.4, 1.4 * RATE
    start = gaussian(0.8, 2.0)

    def target(t: float) -> tuple[float, float]:
        s = END - t
        return mu * shrink(s), v * shrink(s) ** 2 + spread(s)

    def moments(t: float, y: Array) -> list[float]:
        mean, S = target(t)
        return [0.5 * RATE * y[0] - pull * (y[0] - mean) / S, RATE * y[1] - 2 * pull * y[1] / S + 2 * pull - RATE]

    sharp = {"method": "DOP853", "rtol": 1e-11, "atol": 1e-12}
    path = solve_ivp(moments, (0, END - CUT), [0.8, 2.0], dense_output=True, **sharp).sol
    for x in STARTS:

        def rates(t: float, y: Array) -> list[float]:
            (mean, S), (m, C) = target(t), path(t)
            score_r, score_p = -(y[0] - mean) / S, -(y[0] - m) / C
            velocity = 0.5 * RATE * y[0] + (pull - RATE / 2) * (score_r - score_p) + 0.5 * RATE * score_r
            return [velocity, 0.5 * RATE + (pull - RATE / 2) * (1 / C - 1 / S) - 0.5 * RATE / S]

        end, change = solve_ivp(rates, (END - CUT, 0), [x, 0.0], **sharp).y[:, -1]
        exact = gaussian(*path(END - CUT)).log_prob(x)
        assert start.log_prob(end) + change == pytest.approx(float(exact), abs=1e-8)


def test_d6_bits_per_dimension_in_other_units_and_the_bound_of_dequantisation() -> None:
    """[-1, 1) costs 7 bits more than grey levels, and E_u log p(k + u) <= log P(k)."""
    q = Mixture([0.4, 0.6], [-0.3, 0.35], [0.02, 0.03])
    y = np.arange(60, 200)[:, None] + (np.arange(400) + 0.5) / 400
    scaled = q.log_prob(y / 128 - 1)
    pixels = scaled - np.log(128.0)
    assert -pixels.mean() / np.log(2) == pytest.approx(-scaled.mean() / np.log(2) + 7, abs=1e-12)
    assert np.all(pixels.mean(1) <= np.log(np.exp(pixels).mean(1)) + 1e-12)


def test_d7_random_signs_give_the_trace() -> None:
    """E[e' J e] = tr J for Rademacher e: exactly, over all sign vectors of five coordinates."""
    J = np.random.default_rng(0).normal(size=(5, 5))
    signs = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 5), -1).reshape(-1, 5)
    assert np.einsum("ni,ij,nj->n", signs, J, signs).mean() == pytest.approx(np.trace(J), abs=1e-14)


# ------------------------------------------------------------------- sections 3, 6 and 7: generators and related flows


class Net:
    """A generator of one hidden layer, and a discriminator with a known gradient."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.shapes = [(7, 2), (7,), (3, 7), (3,)]
        self.ends = np.cumsum([np.prod(s) for s in self.shapes])
        self.theta = 0.5 * rng.normal(size=self.ends[-1])
        self.z = rng.normal(size=(64, 2))
        self.B, self.a = rng.normal(size=(6, 3)), rng.normal(size=6)

    def generate(self, theta: Array) -> Array:
        W1, b1, W2, b2 = (p.reshape(s) for p, s in zip(np.split(theta, self.ends[:-1]), self.shapes, strict=True))
        return np.tanh(self.z @ W1.T + b1) @ W2.T + b2

    def d(self, x: Array) -> Array:
        return np.tanh(x @ self.B.T) @ self.a

    def slope_of_d(self, x: Array) -> Array:
        return ((1 - np.tanh(x @ self.B.T) ** 2) * self.a) @ self.B

    def derivative(self, f: Callable[[Array], Array], h: float = 1e-5) -> Array:
        """d f / d theta, the parameters last; error h²."""
        steps = h * np.eye(self.theta.size)
        return np.stack([(f(self.theta + e) - f(self.theta - e)) / (2 * h) for e in steps], -1)


NET = Net()
LOSSES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "saturating": (lambda d: -softplus(d), sig),
    "non-saturating": (lambda d: softplus(-d), lambda d: sig(-d)),
    "linear": (lambda d: -d, np.ones_like),
    "least squares": (lambda d: 0.5 * (d - 1) ** 2, lambda d: 1 - d),
    "sum of both logistic ones": (lambda d: softplus(-d) - softplus(d), np.ones_like),
    "exponential": (lambda d: np.exp(-d), lambda d: np.exp(-d)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_e1_a_gan_step_is_a_regression_step_toward_moved_particles(name: str) -> None:
    """Section 3.1: grad 1/2|G - (x + eta beta grad d)|² = eta grad l(d(G)), with beta = -l'(d)."""
    loss, speed = LOSSES[name]
    x, eta = NET.generate(NET.theta), 0.37
    moved = x + eta * speed(NET.d(x))[:, None] * NET.slope_of_d(x)
    gan = NET.derivative(lambda theta: loss(NET.d(NET.generate(theta))).mean())
    regression = NET.derivative(lambda theta: 0.5 * ((NET.generate(theta) - moved) ** 2).sum(1).mean())
    np.testing.assert_allclose(regression, eta * gan, atol=1e-8)


def test_e2_a_generator_moves_by_its_tangent_kernel() -> None:
    """Equation (14): gradient flow of the parameters moves G(z) by E_z'[K(z, z') V(G(z'))], K = J J'."""
    J = NET.derivative(NET.generate)  # (n, d, parameters)
    x = NET.generate(NET.theta)
    V = sig(-NET.d(x))[:, None] * NET.slope_of_d(x)
    velocity = np.einsum("nip,ni->p", J, V) / len(V)
    h = 1e-6
    moved = (NET.generate(NET.theta + h * velocity) - NET.generate(NET.theta - h * velocity)) / (2 * h)
    kernel = np.einsum("nip,mjp->nmij", J, J)
    np.testing.assert_allclose(moved, np.einsum("nmij,mj->ni", kernel, V) / len(V), atol=1e-7)


P, Q = gaussian(0.0, 1.0), Mixture([0.5, 0.5], [-1.0, 1.0], [0.5, 0.5])
FINE = np.linspace(-12, 12, 4801)
FINE_STEP = FINE[1] - FINE[0]


def test_e3_the_best_logistic_classifier_is_the_log_ratio() -> None:
    x, d = np.linspace(-3, 3, 31), np.linspace(-12, 12, 48001)
    loss = np.exp(Q.log_prob(x))[:, None] * softplus(-d) + np.exp(P.log_prob(x))[:, None] * softplus(d)
    np.testing.assert_allclose(d[loss.argmin(1)], Q.log_prob(x) - P.log_prob(x), atol=d[1] - d[0])


def test_e4_the_score_gan_gradient_is_that_of_the_summed_kl() -> None:
    """Section 6.3: E[J' (score_p - score_q)] over levels = grad of sum_sigma KL(p_theta * k | q * k), x = a + b z."""
    q, levels, x = Mixture([0.5, 0.5], [-1.0, 1.2], [0.3, 0.4]), (0.3, 1.0, 2.5), np.linspace(-14, 14, 6001)

    def kl(a: float, b: float) -> float:
        total = 0.0
        for s in levels:
            log_p, log_r = gaussian(a, b * b + s * s).log_prob(x), q.noised(1.0, s).log_prob(x)
            total += float((np.exp(log_p) * (log_p - log_r)).sum() * (x[1] - x[0]))
        return total

    a, b, h = 0.7, 0.6, 1e-4
    by_difference = np.array([kl(a + h, b) - kl(a - h, b), kl(a, b + h) - kl(a, b - h)]) / (2 * h)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    z, eps = np.meshgrid(nodes, nodes, indexing="ij")
    weight = np.outer(weights, weights) / weights.sum() ** 2
    gradient = np.zeros(2)
    for s in levels:
        y = a + b * z + s * eps
        gap = q.noised(1.0, s).score(y) - gaussian(a, b * b + s * s).score(y)
        gradient -= [(weight * gap).sum(), (weight * gap * z).sum()]
    np.testing.assert_allclose(by_difference, gradient, atol=1e-6)


CLOUD_RNG = np.random.default_rng(5)
XS, YS = CLOUD_RNG.normal(size=(40, 2)), CLOUD_RNG.normal(size=(50, 2)) + 1
WIDTH = 0.8


def kernel(a: Array, b: Array) -> Array:
    return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * WIDTH**2))


def test_e5_the_drifting_field_is_a_difference_of_kernel_scores() -> None:
    """Item 7.8, Gaussian kernel of width h: V = h² (grad log q_h - grad log p_h)."""
    x, h = CLOUD_RNG.normal(size=(10, 2)), 1e-5

    def mean_shift(y: Array) -> Array:
        k = kernel(x, y)[..., None]
        return (k * (y - x[:, None])).sum(1) / k.sum(1)

    def log_ratio(at: Array) -> Array:
        return np.log(kernel(at, YS).mean(1)) - np.log(kernel(at, XS).mean(1))

    gradient = np.stack([(log_ratio(x + e) - log_ratio(x - e)) / (2 * h) for e in h * np.eye(2)], 1)
    np.testing.assert_allclose(mean_shift(YS) - mean_shift(XS), WIDTH**2 * gradient, atol=1e-8)


def test_e6_svgd_is_the_kernel_mean_of_the_log_ratio() -> None:
    """Item 7.3: E_p[k s_q + grad_y k] = E_p[k grad log(q/p)], by parts."""
    p, k = np.exp(P.log_prob(FINE)), np.exp(-((FINE - 0.4) ** 2) / 2)
    by_stein = (p * (k * Q.score(FINE) - (FINE - 0.4) * k)).sum() * FINE_STEP
    by_ratio = (p * k * (Q.score(FINE) - P.score(FINE))).sum() * FINE_STEP
    assert by_stein == pytest.approx(by_ratio, abs=1e-12)


def test_e7_the_denoiser_is_the_score() -> None:
    """Section 0: grad log q(y; sigma) = (E[Y | Y + sigma eps = y] - y) / sigma²."""
    sigma, y = 0.9, np.linspace(-4, 4, 20)
    joint = np.exp(Q.log_prob(FINE)) * np.exp(-((y[:, None] - FINE) ** 2) / (2 * sigma**2))
    denoised = (joint * FINE).sum(1) / joint.sum(1)
    np.testing.assert_allclose((denoised - y) / sigma**2, Q.noised(1.0, sigma).score(y), atol=1e-10)


def test_e8_the_mmd_flow_descends_half_the_squared_mmd() -> None:
    """Item 7.4: the velocity is -n dF/dx_i."""
    n, h = len(XS), 1e-5
    step = np.zeros_like(XS)
    step[3, 1] = h

    def half_squared_mmd(x: Array) -> float:
        return 0.5 * (kernel(x, x).mean() - 2 * kernel(x, YS).mean())

    def pull(y: Array) -> Array:
        return -((XS[:, None] - y[None]) / WIDTH**2 * kernel(XS, y)[..., None]).mean(1)

    velocity = (pull(YS) - pull(XS))[3, 1]
    descent = -n * (half_squared_mmd(XS + step) - half_squared_mmd(XS - step)) / (2 * h)
    assert velocity == pytest.approx(descent, abs=1e-8)


def test_e9_the_stein_kernel_has_mean_zero_under_its_law() -> None:
    """Item 7.5: E_q k_q(., y) = 0."""
    y, width = 0.37, 0.8
    D, s_x, s_y = FINE - y, Q.score(FINE), float(Q.score(np.array(y)))
    k = np.exp(-(D**2) / (2 * width**2))
    stein = s_x * s_y * k + s_x * D / width**2 * k - s_y * D / width**2 * k + (1 / width**2 - D**2 / width**4) * k
    assert abs((np.exp(Q.log_prob(FINE)) * stein).sum() * FINE_STEP) < 1e-12
    assert abs((np.exp(P.log_prob(FINE)) * stein).sum() * FINE_STEP) > 0.01  # and not under another


def test_e10_the_sliced_wasserstein_velocity_descends() -> None:
    """Item 7.6: with fixed directions the velocity is -n dF/dx_i of F = SW²/2."""
    x, y, angles, h = XS, 0.7 * YS[:40] + 1, CLOUD_RNG.uniform(0, np.pi, 50), 1e-6
    U = np.stack([np.cos(angles), np.sin(angles)], 1)

    def half_squared(x: Array) -> float:
        return 0.5 * ((np.sort(x @ U.T, 0) - np.sort(y @ U.T, 0)) ** 2).mean()

    ranks = (x @ U.T).argsort(0).argsort(0)
    velocity = (np.take_along_axis(np.sort(y @ U.T, 0), ranks, 0) - x @ U.T) @ U / len(U)
    step = np.zeros_like(x)
    step[5, 0] = h
    descent = -len(x) * (half_squared(x + step) - half_squared(x - step)) / (2 * h)
    assert velocity[5, 0] == pytest.approx(descent, abs=1e-7)


# --------------------------------------------------------------------- sections 3.3, 4 and 9: Diffusion-GAN and lag


def test_f1_diffusion_gan_from_a_wrong_prior() -> None:
    """A score and the log-ratio of the process' own law: particles at three values of g have the law of equation (3),
    which nears the target at the rate of equation (5)."""
    line, n, steps, kappa = Line(9.0, 1001), 10_000, 350, 1.5
    times = 0.93 * (1 - (1 - np.linspace(0, 1, steps + 1)) ** 1.6)
    start, rng = gaussian(0.8, 1.6), np.random.default_rng(5)

    def pull(t: float) -> float:
        return 0.5 * VP.lam2(t) + kappa

    gauges: dict[str, Clock] = {"none": VP.lam2, "reverse": lambda t: 2 * VP.lam2(t), "no ratio": lambda t: 2 * pull(t)}
    clouds = {k: start.sample(n, rng) for k in gauges}
    p, kl, fisher = np.exp(start.log_prob(line.x)), [], []
    for t, dt in zip(times, np.diff(times), strict=False):
        r = VP.target(t)
        log_r, score_r, score_p = r.log_prob(line.x), r.score(line.x), np.gradient(np.log(p), line.h)
        kl.append(line.kl(p, log_r))
        fisher.append(line.fisher(p, log_r))
        for name, g2 in gauges.items():
            x = clouds[name]
            drift = VP.f(t) * line.x + pull(t) * (score_r - score_p) + 0.5 * g2(t) * score_p
            noise = np.sqrt(max(g2(t) - VP.lam2(t), 0) * dt) * rng.standard_normal(n)
            clouds[name] = x + np.interp(x, line.x, drift) * dt + noise
        for k in (0.25, 0.75):
            now = t + k * dt
            drift = VP.f(now) * line.between + pull(now) * VP.target(now).score(line.between)
            p = line.step(p, dt / 2, drift, np.full(line.between.size, kappa))
    for x in clouds.values():
        assert kolmogorov_smirnov(x, line.cdf(p)) < 1.95 / np.sqrt(n) + np.diff(times).max()
    falls = np.diff(kl) / np.diff(times[:-1])
    loss = kappa * 0.5 * (np.array(fisher[1:]) + fisher[:-1])
    assert np.abs(falls + loss)[10:].max() < 0.015 * loss.max()
    assert kl[-1] < 0.1 * kl[0]


def test_f2_more_discrimination_suppresses_an_error_of_the_score() -> None:
    """Equation (8): KL(p|r) stays below B with B' = -rho kappa B + E|delta|²/(2 kappa), and falls as kappa grows."""
    mu, v, e0, e1, end = 0.6, 0.3, 0.3, -0.15, 0.95  # the score errs by e0 + e1 x

    def target(t: float) -> tuple[float, float]:
        return mu / VP.u(t), (v + VP.sigma(t) ** 2) / VP.u(t) ** 2

    def kl(m: float, C: float, mean: float, S: float) -> float:
        return 0.5 * (C / S + (m - mean) ** 2 / S - 1 + np.log(S / C))

    last = []
    for kappa in (0.25, 1.0, 4.0, 16.0):

        def rates(t: float, y: Array, kappa: float = kappa) -> list[float]:
            (mean, S), (m, C, bound) = target(t), y
            pull, g2 = 0.5 * VP.lam2(t) + kappa, 2 * VP.lam2(t)
            A = VP.f(t) - pull / S + (pull - 0.5 * g2) / C + 0.5 * g2 * e1
            shift = pull * mean / S - (pull - 0.5 * g2) * m / C + 0.5 * g2 * e0
            error = (0.5 * g2) ** 2 * ((e0 + e1 * m) ** 2 + e1**2 * C)
            return [A * m + shift, 2 * A * C + g2 - VP.lam2(t), -kappa / S * bound + error / (2 * kappa)]

        start = [0.0, 1.0, kl(0.0, 1.0, *target(0.0))]
        path = solve_ivp(rates, (0, end), start, method="LSODA", rtol=1e-9, atol=1e-11, dense_output=True).sol
        for t in np.linspace(0, end, 40):
            m, C, bound = path(t)
            assert kl(m, C, *target(t)) <= bound + 1e-8
        last.append(kl(*path(end)[:2], *target(end)))
    assert np.all(np.diff(last) < 0)
    np.testing.assert_allclose(last, [0.534, 0.120, 0.0023, 0.0], atol=1e-3)  # the figures of section 4


def test_f3_annealing_without_the_consistent_lambda_lags() -> None:
    """Remark 2: sigma = 5 - t and lam2 = 0 end at KL = 7e-3, 8e-6, 6e-8 for beta = 1, 10, 100, lam2 = 2 sigma at 0."""
    v, end = 0.09, 4.95

    def lag(pull: float, lam2: Clock) -> float:
        def rates(t: float, y: Array) -> list[float]:
            total = pull + 0.5 * lam2(t)
            return [-2 * total * y[0] / (v + (5 - t) ** 2) + 2 * total - lam2(t)]

        C = solve_ivp(rates, (0, end), [v + 25], method="LSODA", rtol=1e-9, atol=1e-12).y[0, -1]
        share = C / (v + (5 - end) ** 2)
        return 0.5 * (share - 1 - np.log(share))

    behind = [lag(pull, zero) for pull in (1.0, 10.0, 100.0)]
    np.testing.assert_allclose(behind, [7e-3, 8e-6, 6e-8], rtol=0.1)
    assert max(lag(pull, lambda t: 2 * (5 - t)) for pull in (1.0, 10.0, 100.0)) < 1e-12
