"""Coefficients: those equal to the schedule's by value are the schedule's, and gradients run through them, or are
refused. Every test here failed before the mending."""

import math

import pytest
import torch

import diffflow as df

F64 = torch.float64
Q = df.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=F64), [0.3, 0.2], [0.4, 0.6])
SCHEDULES = [df.EDM(), df.VP(), df.RectifiedFlow()]


def by_hand(s: df.Schedule, churn: float, **changes) -> df.DiffFlow:
    """The spectrum's point written out by a user."""
    plain = {
        "f": lambda x, t: s.rate(t).item() * x,
        "lam2": lambda t: -2 * s.scale(t) ** 2 * s.sigma(t) ** 2 * s.log_sigma_rate(t),
        "g2": lambda t: (1 + churn) * s.lam2(t).item(),
        "beta": lambda t: 0.5 * (1 + churn) * s.lam2(t).item(),
    }
    start = s.law(Q, 0.0)
    return df.DiffFlow(s.score(Q), schedule=s, start=start, horizon=s.horizon, **(plain | changes))


# -- the schedule's own, by value --------------------------------------------------------------------------------------
@pytest.mark.parametrize("s", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_an_equation_written_by_hand_is_solved_as_the_spectrum_point(s, churn):
    """Before: Euler on equal steps, errors of the size of sigma_max, a log-probability of -62 for -0.31."""
    mine, own = by_hand(s, churn), df.at(s, s.score(Q), churn=churn)
    assert mine.on_schedule
    a, b = (df.sample(sde, 64, 10, noise=df.Noise(0)) for sde in (mine, own))
    assert a.nfe == b.nfe
    assert torch.allclose(a.last, b.last, rtol=1e-6, atol=1e-8)
    x = Q.sample(4, df.Noise(1))
    want = s.law(Q, s.horizon).log_prob(s.scale(s.horizon) * x)
    assert torch.allclose(df.log_prob(mine, s.scale(s.horizon) * x, steps=60).value, want, atol=2e-2)


def test_no_f_is_the_drift_of_a_schedule_without_scale():
    assert by_hand(df.EDM(), 0.0, f=None).on_schedule
    assert by_hand(df.VE(), 0.0, f=None).on_schedule
    assert not by_hand(df.VP(), 0.0, f=None).on_schedule


@pytest.mark.parametrize("s", SCHEDULES, ids=lambda s: type(s).__name__)
def test_what_differs_is_not_the_schedules_own(s):
    assert not by_hand(s, 0.0, lam2=lambda t: 1.001 * s.lam2(t)).on_schedule
    assert not by_hand(s, 0.0, lam2=lambda t: s.lam2(t) * (1 if float(t) < 0.8 * s.horizon else 0.9)).on_schedule
    assert not by_hand(s, 0.0, f=lambda x, t: s.rate(t).item() * x + 0.01).on_schedule
    assert not by_hand(s, 0.0, f=lambda x, t: 1 / 0 * x if x.shape[1] == 3 else x).on_schedule
    assert not by_hand(s, 0.0, lam2=0.0).on_schedule


def test_the_answer_is_kept_for_one_solve_only():
    """Parameters may change between solves, not within one: a solve asks a few times, not at every step."""
    s, scale, asked = df.EDM(), [1.0], []

    def lam2(t):
        asked.append(t)
        return scale[0] * s.lam2(t)

    sde = by_hand(s, 0.0, lam2=lam2)
    assert sde.on_schedule
    scale[0] = 2.0
    assert not sde.on_schedule
    scale[0] = 1.0
    asked.clear()
    df.log_prob(sde, Q.sample(2), steps=40)
    few = len(asked)
    asked.clear()
    df.log_prob(sde, Q.sample(2), steps=80)
    assert len(asked) - few == 160  # v reads lam2 once an evaluation, and that is all that grows


# -- gradients ---------------------------------------------------------------------------------------------------------
def slope(f, a: float, h: float = 1e-5) -> float:
    return (f(torch.tensor(a + h, dtype=F64)).item() - f(torch.tensor(a - h, dtype=F64)).item()) / (2 * h)


def agree(f, a: float) -> None:
    """The gradient of f at a is that of finite differences, whose own error is about h^2 and eps/h."""
    theta = torch.tensor(a, dtype=F64, requires_grad=True)
    (got,) = torch.autograd.grad(f(theta), theta)
    want = slope(f, a)
    assert abs(want) > 1e-6
    assert got.item() == pytest.approx(want, rel=1e-5, abs=1e-8)


P = df.GaussianMixture(Q.means * 0.7 + 0.2, 0.5)
RATIO = df.LawRatio(lambda t: Q, lambda t: P)
START = df.Gaussian(torch.zeros(2, dtype=F64), 1.0)
SOLVERS = [None, df.Euler(), df.Heun(), df.Exponential(1, False)]


def energy(sde, steps: int = 6, solver=None, x0=None) -> torch.Tensor:
    x0 = START.sample(16, df.Noise(2)) if x0 is None else x0
    return df.sample(sde, x0, steps, solver=solver, noise=df.Noise(4)).last.square().mean()


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("s", [df.EDM(0.05, 3.0), df.VP()], ids=["EDM", "VP"])
def test_churn_carries_its_gradient(s, solver):
    """Before: silently none, for the noise became a number in every solver."""
    x0 = s.law(Q, 0.0).sample(16, df.Noise(2))
    agree(lambda z: energy(df.at(s, s.score(Q), churn=z), 6, solver, x0), 0.7)
    agree(lambda z: energy(df.at(s, s.score(Q), churn=lambda t: z * (1 + 0.1 * float(t))), 6, solver, x0), 0.7)


@pytest.mark.parametrize("solver", [None, df.Heun()], ids=["default", "Heun"])
def test_gan_and_the_weights_of_sums_carry_their_gradient(solver):
    s = df.EDM(0.05, 3.0)
    x0 = s.law(Q, 0.0).sample(16, df.Noise(2))
    ratio = df.LawRatio(lambda t: s.law(Q, t), lambda t: s.law(P, t))
    agree(lambda k: energy(df.at(s, s.score(Q), ratio, gan=k, churn=0.2), 6, solver, x0), 0.5)
    agree(lambda w: energy(df.at(s, w * s.score(Q), churn=0.2), 6, solver, x0), 0.9)
    agree(lambda w: energy(df.at(s, w * s.score(Q)), 6, solver, x0), 1.0)
    agree(lambda w: energy(df.at(s, (lambda t: w) * s.score(Q) + (lambda t: 1 - w) * s.score(P)), 6, solver, x0), 0.3)
    agree(lambda r: energy(df.edm_churn(s, s.score(Q), rate=r), 6, solver, x0), 0.4)


@pytest.mark.parametrize("solver", [df.Euler(), df.Heun()], ids=["Euler", "Heun"])
def test_every_coefficient_carries_its_gradient(solver):
    base = {"score": df.LawScore(Q), "ratio": RATIO, "beta": 0.4, "g2": 0.5, "lam2": 0.1, "horizon": 0.1}
    for name in ("beta", "g2", "lam2"):
        agree(lambda v, name=name: energy(df.DiffFlow(**(base | {name: v})), 6, solver), base[name])
        agree(lambda v, name=name: energy(df.DiffFlow(**(base | {name: lambda t: v})), 6, solver), base[name])
    agree(lambda v: energy(df.DiffFlow(**base, f=lambda x, t: v * x), 6, solver), 0.3)
    agree(lambda v: energy(df.DiffFlow(**(base | {"beta": df.Speed(lambda d: v * (-d).sigmoid())})), 6, solver), 0.3)
    agree(lambda v: energy(df.langevin(Q, v, horizon=0.05), 6, solver), 0.5)


def test_a_zero_weight_has_a_gradient_too():
    """d drift / d beta = grad log r/p even where beta = g2/2, and d drift / d g2 = (grad log r - grad log r/p)/2 even
    at g2 = 0; where the two are tied there is no derivative, and no ratio is asked for."""
    x, theta = Q.sample(3, df.Noise(0)), torch.tensor(0.25, dtype=F64, requires_grad=True)
    drift = df.DiffFlow(score=df.LawScore(Q), ratio=RATIO, beta=theta, g2=0.5).drift(x, 0.0)
    assert torch.allclose(torch.autograd.grad(drift.sum(), theta)[0], RATIO(x, 0.0).sum())
    zero = torch.tensor(0.0, dtype=F64, requires_grad=True)
    drift = df.DiffFlow(score=df.LawScore(Q), ratio=RATIO, beta=0.3, g2=zero).drift(x, 0.0)
    assert torch.allclose(torch.autograd.grad(drift.sum(), zero)[0], 0.5 * (Q.score(x) - RATIO(x, 0.0)).sum())
    with pytest.raises(ValueError, match="no ratio"):
        df.DiffFlow(score=df.LawScore(Q), beta=theta, g2=0.5).drift(x, 0.0)
    tied = df.DiffFlow(score=df.LawScore(Q), beta=theta, g2=lambda t: 2 * theta)
    assert not tied.needs(0.0).ratio
    assert torch.allclose(torch.autograd.grad(tied.drift(x, 0.0).sum(), theta)[0], Q.score(x).sum())


def test_the_closed_form_of_an_ornstein_uhlenbeck_step():
    """x1 = x0 - beta x0 h + sqrt(2 beta) dw: d x1 / d beta is known."""
    beta = torch.tensor(0.8, dtype=F64, requires_grad=True)
    law, x0, h = df.Gaussian(torch.zeros(2, dtype=F64), 1.0), START.sample(5, df.Noise(1)), 0.01
    x1 = df.sample(df.langevin(law, beta, horizon=h), x0, 1, noise=df.Noise(2)).last
    dw = df.Noise(2).increment(0, 0.0, h, x0)
    (got,) = torch.autograd.grad(x1.sum(), beta)
    assert torch.allclose(got, (-x0 * h + dw / (2 * 0.8) ** 0.5).sum())


def test_gradients_that_cannot_be_had_are_refused():
    s = df.EDM(0.05, 3.0)
    zero = torch.tensor(0.0, dtype=F64, requires_grad=True)
    x0 = s.law(Q, 0.0).sample(8, df.Noise(2))
    with pytest.raises(ValueError, match="its gradient is wanted: that of its root is infinite"):
        df.sample(df.at(s, s.score(Q), churn=zero), x0, 4)
    some = torch.tensor(0.5, dtype=F64, requires_grad=True)
    sde = df.at(s, s.score(Q), churn=some)
    with pytest.raises(ValueError, match="takes its noise as a number"):
        df.sample(sde, x0, 4, solver=df.NoiseRaising())
    plan = df.Plan.multistep([3.0, 0.5], 1)
    plan = df.Plan(plan.levels, plan.weights, plan.levels)
    with pytest.raises(ValueError, match="a plan is a table for one churn"):
        df.sample(sde, x0, plan=plan)
    with torch.no_grad():
        df.sample(sde, x0, plan=plan)
        df.sample(df.at(s, s.score(Q), churn=zero), x0, 4)
    with pytest.raises(ValueError, match="sigma_max requires a gradient"):
        df.EDM(0.002, torch.tensor(80.0, requires_grad=True))
    with pytest.raises(ValueError, match="horizon requires a gradient"):
        df.langevin(Q, horizon=torch.tensor(1.0, requires_grad=True))


def test_f_that_learns_is_not_replaced_by_the_schedules():
    """At theta = 1 f is the schedule's drift by value, and solvers that know it by heart would cut its gradient."""
    s = df.VP()
    theta = torch.tensor(1.0, dtype=F64, requires_grad=True)
    sde = by_hand(s, 0.0, f=lambda x, t: theta * s.rate(t).item() * x)
    assert not sde.on_schedule
    with torch.no_grad():
        assert sde.on_schedule
    x = torch.ones(2, 2, dtype=F64)
    assert torch.autograd.grad(sde.drift(x, 0.5).sum(), theta)[0].item() == pytest.approx(4 * s.rate(0.5).item())


def test_a_schedule_that_learns_is_computed_anew():
    class Learned(df.Schedule):
        sigma_min, sigma_max = 0.1, 2.0

        def __init__(self):
            self.bend = torch.nn.Parameter(torch.tensor(1.0, dtype=F64))

        def _sigma(self, s):
            return self.bend * s

        def _inverse(self, sigma):
            return (sigma / self.bend).detach()

    s = Learned()
    for value in (1.0, 1.5):
        with torch.no_grad():
            s.bend.fill_(value)
            s.__dict__.pop("_start", None)
            assert s.sigma(0.5).item() == pytest.approx(2.0 - 0.5 * value)
    assert s.sigma(0.5).requires_grad
    assert math.isclose(s.sigma(0.5).item(), 1.25)
