"""Would a slip be noticed? Every coefficient and every step is run with its clock reversed, its levels inverted or
its ends swapped; some law must break.

A mutation that changes nothing (1/scale where scale = 1, an autonomous coefficient reversed in time) is recognised by
comparing values and left out.
"""

import math
from collections.abc import Callable

import pytest
import torch

import diffflow as df
from diffflow.equation import schedule as schedules

F64 = torch.float64
CLASSES = [df.EDM, df.VE, df.VP, df.SubVP, df.Cosine, df.RectifiedFlow]
Q = df.GaussianMixture(torch.tensor([[-0.6, 0.1], [0.7, 0.4]], dtype=F64), [0.3, 0.2], [0.4, 0.6])


# -- the laws, small --------------------------------------------------------------------------------------------------
def consistency(s: df.Schedule) -> None:
    """Ends, derivatives and inverse of the schedule; its textbook identity."""
    assert math.isclose(s.sigma(0.0).item(), s.sigma_max, rel_tol=1e-6)
    assert math.isclose(s.sigma(s.horizon).item(), s.sigma_min, rel_tol=1e-6)
    for u in (0.2, 0.45, 0.9):
        t, h = u * s.horizon, 1e-6 * s.horizon
        assert math.isclose(s.time(s.sigma(t)).item(), t, rel_tol=1e-6)
        slope = (s.sigma(t + h) - s.sigma(t - h)) / (2 * h)
        assert torch.isclose(s.lam2(t), -2 * s.scale(t) ** 2 * s.sigma(t) * slope, rtol=1e-4)
        assert torch.isclose(s.rate(t), (s.scale(t + h).log() - s.scale(t - h).log()) / (2 * h), rtol=1e-4, atol=1e-4)
        assert torch.isclose(s.log_sigma_rate(t), slope / s.sigma(t), rtol=1e-4)
        assert torch.isclose(s.logsnr(t), -2 * s.sigma(t).log())
        x = torch.ones(1, 2, dtype=F64)
        assert torch.allclose(s.drift(x, t), s.rate(t) * x)


IDENTITY = {
    df.EDM: lambda a, b: a - 1,
    df.VE: lambda a, b: a - 1,
    df.VP: lambda a, b: a**2 * (1 + b**2) - 1,
    df.SubVP: lambda a, b: a * b + a**2 - 1,
    df.Cosine: lambda a, b: a**2 * (1 + b**2) - 1,
    df.RectifiedFlow: lambda a, b: a * (1 + b) - 1,
}


def identity(s: df.Schedule) -> None:
    for u in (0.1, 0.5, 0.8):
        assert abs(IDENTITY[type(s)](s.scale(u * s.horizon), s.sigma(u * s.horizon)).item()) < 1e-7


def equation(s: df.Schedule) -> None:
    """Drift, noise and velocity against eq. (1) and (13) written out, with r != p."""
    p = df.GaussianMixture(Q.means * 0.6 + 0.2, 0.5)
    sde = df.at(s, s.score(Q), df.LawRatio(lambda t: s.law(Q, t), lambda t: s.law(p, t)), gan=0.6, churn=0.8)
    for u in (0.3, 0.8):
        t = u * s.horizon
        h = 1e-6 * s.horizon
        a, b = s.scale(t), s.sigma(t)
        slope = (s.sigma(t + h) - s.sigma(t - h)) / (2 * h)
        G2, rate = -2 * a**2 * b * slope, (s.scale(t + h).log() - s.scale(t - h).log()) / (2 * h)
        x = Q.noised(a.item(), b.item()).sample(4, df.Noise(0))
        lr, lp = Q.noised(a.item(), b.item()).score(x), p.noised(a.item(), b.item()).score(x)
        paper = rate * x + 0.5 * (1.8 + 0.6) * G2 * (lr - lp) + 0.9 * G2 * lp
        size = paper.abs().max().item()
        assert torch.allclose(sde.drift(x, t), paper, rtol=1e-3, atol=1e-3 * size)
        assert torch.allclose(sde.noise(t) ** 2, 0.8 * G2, rtol=1e-3)
        assert torch.allclose(sde.velocity(x, t), paper - 0.4 * G2 * lp, rtol=1e-3, atol=1e-3 * size)
        # D* = y + sigma^2 [grad_y log r + k/(1+z) grad_y log(r/p)], and grad_y = scale grad_x
        d = x / a + b**2 * a * (lr + 0.6 / 1.8 * (lr - lp))
        assert torch.allclose(sde.denoised(x, t), d, rtol=1e-6, atol=1e-6 * d.abs().max().item())


def churns(s: df.Schedule) -> None:
    """edm_churn adds 2 chi sigma^2 scale^2; slcd and annealed_langevin keep g2 = 2 beta."""
    t = 0.7 * s.horizon
    a, b = s.scale(t).item(), s.sigma(t).item()
    chi = lambda t: 0.3 + 0.1 * float(t) / s.horizon
    sde = df.edm_churn(s, s.score(Q), rate=chi)
    assert math.isclose(sde.noise(t).item() ** 2, 2 * chi(t) * a**2 * b**2, rel_tol=1e-9)
    sde = df.slcd(s, s.score(Q), g2=lambda t: 2 * s.lam2(t), lam2=lambda t: 0.5 * s.lam2(t))
    assert math.isclose(sde.noise(t).item() ** 2, 1.5 * s.lam2(t).item(), rel_tol=1e-9)
    assert not sde.needs(t).ratio
    levels = df.Levels((3.0, 1.0, 0.2), steps=2)
    sde = df.annealed_langevin(levels, levels.score(Q), rate=0.25)
    for t, sigma in ((0.0, 3.0), (1.0, 3.0), (2.0, 1.0), (5.0, 0.2)):
        assert math.isclose(sde.noise(t).item() ** 2, 2 * 0.25 * sigma**2, rel_tol=1e-9)
        assert torch.allclose(
            sde.drift(torch.ones(1, 2, dtype=F64), t),
            0.25 * sigma**2 * Q.noised(1.0, sigma).score(torch.ones(1, 2, dtype=F64)),
        )


def transport(s: df.Schedule) -> None:
    """Every solver carries r_0 to r_T along the flow: against a fine solve of the plain velocity by Runge-Kutta 4 in
    log sigma."""
    lo, hi, n = math.log(0.4), math.log(2.5), 120
    start = s.time(math.exp(hi)).item()
    x0 = s.law(Q, start).sample(6, df.Noise(0))
    sde = df.probability_flow(s, s.score(Q))

    def exact(x: torch.Tensor, t: float) -> torch.Tensor:  # textbook PF-ODE dy/dlog sigma = -sigma^2 score, in y
        b = math.exp(t)
        return -(b**2) * Q.score(x, b)

    y, h = x0 / Q_scale(s, math.exp(hi)), (lo - hi) / n
    for i in range(n):
        t = hi + i * h
        k1 = exact(y, t)
        k2 = exact(y + h / 2 * k1, t + h / 2)
        k3 = exact(y + h / 2 * k2, t + h / 2)
        k4 = exact(y + h * k3, t + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    want = y * Q_scale(s, math.exp(lo))
    for solver, steps, tol in (
        (df.Exponential(1), 60, 0.1),
        (df.Exponential(3), 24, 0.02),
        (df.Heun(), 48, 0.01),
        (df.NoiseRaising(), 48, 0.01),
        (df.Euler(), 60, 0.15),
    ):
        grid = s.time(torch.linspace(hi, lo, steps + 1, dtype=F64).exp())
        assert (df.sample(sde, x0, grid=grid, solver=solver).last - want).abs().max() < tol * want.abs().max(), solver


def Q_scale(s: df.Schedule, sigma: float) -> float:
    """scale at a noise level from the textbook identity, not from the schedule."""
    return {
        df.EDM: 1.0,
        df.VE: 1.0,
        df.RectifiedFlow: 1 / (1 + sigma),
        df.SubVP: 0.5 * (math.sqrt(sigma**2 + 4) - sigma),
    }.get(type(s), 1 / math.hypot(1, sigma))


def diffusion(s: df.Schedule) -> None:
    """The noise of each solver: one step of an equation whose score is that of a very narrow law at 0 has a known
    variance (D* = 0)."""
    point = df.Gaussian(torch.zeros(1, dtype=F64), 1e-9)
    sde = df.reverse_sde(s, s.score(point), churn=0.7)
    t0, t1 = s.time(1.0).item(), s.time(0.97).item()
    n = 4000
    x0 = torch.zeros(n, 1, dtype=F64)
    want = s.scale(t1).item() * 0.97 * math.sqrt(1 - 0.97**1.4)
    for solver in (df.Exponential(1), df.Heun(), df.NoiseRaising(), df.Euler()):
        got = df.sample(sde, x0, grid=[t0, t1], solver=solver, noise=df.Noise(1)).last.std().item()
        assert abs(got / want - 1) < 4.5 / math.sqrt(2 * n) + 0.06, solver  # 0.06: first order in a 3 % step


def tables(s: df.Schedule) -> None:
    """A plan of the flow of a Gaussian against its closed form, and the noise of one that raises it (D* = 0)."""
    tau, top, low = 0.6, s.sigma(0.0).item(), s.sigma_min
    levels = torch.linspace(math.log(top), math.log(low), 40, dtype=F64).exp().tolist()
    y0 = top * df.Noise(0).normal(6, (2,), dtype=F64)
    sde = df.probability_flow(s, s.score(df.Gaussian(torch.zeros(2, dtype=F64), tau)))
    got = df.sample(sde, s.scale(0.0).item() * y0, plan=df.Plan.multistep([top, *levels[1:]], 2, tau)).last
    want = y0 * tau / math.hypot(tau, top)
    assert (got - want).abs().max() < 0.02 * want.abs().max()

    sde = df.reverse_sde(s, s.score(df.Gaussian(torch.zeros(1, dtype=F64), 1e-9)), churn=0.7)
    raised = df.Plan((top, 1.0, 0.97), ((1 - 1 / top,), (1 - 0.97 / 1.05,), (1.0,)), (top, 1.05, 0.97))
    x0, n = torch.zeros(4000, 1, dtype=F64), 4000
    kept = df.sample(sde, x0, plan=raised, keep=1, noise=df.Noise(1)).kept
    want = 0.97 / 1.05 * math.sqrt(1.05**2 - 1) * Q_scale(s, 0.97)
    assert abs(kept[2][1].std().item() / want - 1) < 4.5 / math.sqrt(2 * n)


def density(s: df.Schedule) -> None:
    x = Q.sample(3, df.Noise(0))
    assert (
        df.log_prob(df.probability_flow(s, s.score(Q)), x).value
        - Q.noised(Q_scale(s, s.sigma_min), s.sigma_min).log_prob(x)
    ).abs().max() < 1e-4


LAWS = [consistency, identity, equation, churns, transport, diffusion, tables, density]


def broken(s: df.Schedule) -> str | None:
    """The first law that does not hold, by name."""
    for law in LAWS:
        try:
            law(s)
        except (AssertionError, ValueError, ArithmeticError, RuntimeError, OverflowError):
            return law.__name__
    return None


# -- the mutations ----------------------------------------------------------------------------------------------------
def reverse(f: Callable) -> Callable:
    return lambda self, t: f(self, self.horizon - schedules.clock(t))


def invert(f: Callable) -> Callable:
    return lambda self, t: 1 / f(self, t)


def swap(step: Callable) -> Callable:
    return lambda self, sde, x, t0, t1, dw, state: step(self, sde, x, t1, t0, dw, state)


def late(step: Callable) -> Callable:
    return lambda self, sde, x, t0, t1, dw, state: step(self, sde, x, t1, t1 + (t1 - t0), dw, state)


def reverse_x(f: Callable) -> Callable:
    return lambda self, x, t: f(
        self,
        x,
        (self.schedule.horizon if hasattr(self, "schedule") and self.schedule is not None else self.horizon)
        - schedules.clock(t),
    )


def reverse_sde(f: Callable) -> Callable:
    return lambda self, t: f(self, self.horizon - schedules.clock(t))


COEFFICIENTS = ["sigma", "scale", "rate", "lam2", "logsnr", "log_sigma_rate"]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_the_laws_hold(cls):
    assert broken(cls()) is None


def same(s: df.Schedule, old: Callable, new: Callable) -> bool:
    """A mutation without effect: the coefficient is constant."""
    t = torch.linspace(0.1, 0.9, 7, dtype=F64) * s.horizon
    return torch.allclose(old(s, t), new(s, t))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("mutate", [reverse, invert], ids=["horizon - t", "inverse"])
def test_a_slip_in_a_coefficient_is_noticed(monkeypatch, cls, name, mutate):
    s, old = cls(), getattr(cls, name)
    new = mutate(old)
    if same(s, old, new):
        return
    monkeypatch.setattr(cls, name, new)
    assert broken(s) is not None


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (df.DiffFlow, "noise"),
        (df.DiffFlow, "drift"),
        (df.DiffFlow, "velocity"),
        (df.DiffFlow, "denoised"),
        (df.ScoreField, "denoise"),
        (df.ScoreField, "__call__"),
        (df.Schedule, "drift"),
    ],
)
def test_a_slip_in_the_equation_is_noticed(monkeypatch, cls, owner, name):
    s, old = cls(), getattr(owner, name)
    if owner is df.Schedule:
        if same(s, cls.rate, reverse(cls.rate)):
            return
        monkeypatch.setattr(owner, name, lambda self, x, t: old(self, x, self.horizon - schedules.clock(t)))
    else:
        monkeypatch.setattr(owner, name, (reverse_sde if name == "noise" else reverse_x)(old))
    assert broken(s) is not None


@pytest.mark.parametrize("cls", [df.EDM, df.VP], ids=["EDM", "VP"])
@pytest.mark.parametrize(
    ("solver", "mutate"),
    [(c, swap) for c in (df.Euler, df.Heun, df.Exponential, df.NoiseRaising, df.Plan)]
    + [(c, late) for c in (df.Heun, df.Exponential, df.NoiseRaising, df.Plan)],
)
def test_a_slip_in_a_step_is_noticed(monkeypatch, cls, solver, mutate):
    """t0 and t1 exchanged; and a step evaluated one step late, which only a scheme of first order could afford."""
    monkeypatch.setattr(solver, "step", mutate(solver.step))
    assert broken(cls()) is not None


@pytest.mark.parametrize("cls", [df.EDM, df.VP], ids=["EDM", "VP"])
@pytest.mark.parametrize("name", ["kept", "at", "weights"])
def test_a_slip_in_a_plan_is_noticed(monkeypatch, cls, name):
    """Shares inverted, evaluations at the levels before raising, rows read backwards."""
    if name == "kept":
        old = df.Plan.kept
        monkeypatch.setattr(df.Plan, "kept", lambda self, i: 1 / (old(self, i) or 1))
    elif name == "at":
        monkeypatch.setattr(df.Plan, "at", property(lambda self: self.levels))
    else:
        import diffflow.sampling.plan as plan

        combine = plan.combine
        monkeypatch.setattr(plan, "combine", lambda w, past, start=None: combine(w[::-1], past, start))
    assert broken(cls()) is not None


@pytest.mark.parametrize("mutate", [reverse, invert], ids=["horizon - t", "inverse"])
def test_a_slip_in_the_staircase_is_noticed(monkeypatch, mutate):
    monkeypatch.setattr(df.Levels, "sigma", mutate(df.Levels.sigma))
    with pytest.raises(AssertionError):
        churns(df.EDM())


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("which", ["gan", "churn"])
def test_a_slip_in_a_dial_is_noticed(monkeypatch, cls, which):
    """The dials of the spectrum exchanged or doubled."""
    import diffflow.equation.spectrum as spectrum

    plain = spectrum.at
    if which == "gan":
        monkeypatch.setattr(df, "at", lambda s, f, r=None, *, gan=0.0, churn=0.0: plain(s, f, r, gan=churn, churn=gan))
    else:
        monkeypatch.setattr(
            df, "at", lambda s, f, r=None, *, gan=0.0, churn=0.0: plain(s, f, r, gan=gan, churn=2 * churn)
        )
    assert broken(cls()) is not None
