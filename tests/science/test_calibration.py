"""Calibration: what a plan promises on starts that it has not seen, in closed form where there is one."""

import dataclasses
import itertools
import math

import pytest
import torch

import diffflow as df
from diffflow.sampling.teacher import default_starts, scaled_equation, teach

F64 = torch.float64


def ring(n: int = 8) -> df.GaussianMixture:
    a = torch.arange(n, dtype=F64) * 2 * math.pi / n
    return df.GaussianMixture(0.7 * torch.stack([a.cos(), a.sin()], 1), 0.03)


def flow(q: df.Law, s: df.Schedule | None = None) -> df.DiffFlow:
    s = s or df.EDM()
    return df.probability_flow(s, s.score(q))


def starts(n: int, d: int, seed: int) -> torch.Tensor:
    return 80 * df.Noise(seed).normal(n, (d,), dtype=F64)


def test_the_teacher_is_the_closed_form_of_a_gaussian():
    """y(sigma) = y0 sqrt((tau^2 + sigma^2) / (tau^2 + sigma_max^2)), between its nodes too."""
    tau, y0 = 0.6, starts(20, 2, 0)
    known = teach(flow(df.Gaussian(torch.zeros(2, dtype=F64), tau)), y0)
    for sigma in (80.0, 31.4, 2.0, 0.77, 0.05, 0.002):
        exact = y0 * math.sqrt((tau**2 + sigma**2) / (tau**2 + 80**2))
        assert (known.at(sigma) - exact).norm() < 1e-5 * exact.norm()
    answer = y0 * math.sqrt(tau**2 + 0.002**2) / math.sqrt(tau**2 + 80**2) * tau**2 / (tau**2 + 0.002**2)
    assert (known.at(0.0) - answer).norm() < 1e-5 * answer.norm()


@pytest.mark.parametrize(("steps", "factor"), [(5, 1.0), (8, 1.5), (12, 1.5), (20, 2.0)])
def test_a_plan_beats_the_default_on_fresh_starts(steps, factor):
    """By this factor at least in root mean square, and no start is worse than another mode of the ring."""
    q, fresh = ring(), starts(1000, 2, 7)
    sde = flow(q)
    exact = teach(sde, fresh).at(0.0)
    plan = df.calibrate(sde, steps, starts=starts(512, 2, 1), rounds=15)

    def error(x):
        return (x - exact).square().sum(1).mean().sqrt().item()

    mine = df.sample(sde, fresh, plan=plan)
    assert mine.nfe == steps == plan.steps
    assert factor * error(mine.last) < error(df.sample(sde, fresh, steps=steps).last)
    assert (mine.last - exact).norm(dim=1).max() < 1.5  # the diameter


def test_more_evaluations_are_more_exact():
    sde = flow(ring())
    known = teach(sde, starts(128, 2, 1))
    errors = [df.calibrate(sde, n, teacher=known, rounds=0).about["error"] for n in (1, 2, 3, 5, 10, 20)]
    assert all(a > b for a, b in itertools.pairwise(errors)), errors


def test_one_evaluation_is_the_mean_of_the_data():
    q = df.GaussianMixture(torch.tensor([[1.0, 2.0], [3.0, 0.0]], dtype=F64), 0.2)
    x = df.sample(flow(q), starts(5, 2, 0), plan=df.calibrate(flow(q), 1, starts=starts(16, 2, 1))).last
    assert (x - torch.tensor([2.0, 1.0])).abs().max() < 0.05  # sigma_max is 80, not infinite


@pytest.mark.parametrize("churn", [0.5, 1.0])
def test_with_churn_the_law_stays_the_mixtures(churn):
    """Ring of 8 at 20 evaluations: weights within 4.5 standard errors, std ratio within 3 %."""
    q, n = ring(), 8000
    s = df.EDM()
    sde = df.reverse_sde(s, s.score(q), churn=churn)
    plan = df.calibrate(sde, 20, starts=starts(64, 2, 1), rounds=0)
    assert plan.noisy
    x = df.sample(sde, starts(n, 2, 5), plan=plan, noise=df.Noise(9)).last
    off = torch.cdist(x, q.means)
    mode = off.argmin(1)
    assert ((mode.bincount(minlength=8) - n / 8).abs() < 4.5 * math.sqrt(n * 7 / 64)).all()
    spread = (x - q.means[mode]).square().mean().sqrt().item() / 0.03
    assert abs(spread - 1) < 0.03


def test_the_quiet_equation_has_the_same_denoiser_and_no_noise():
    """With churn and a log-ratio D* depends on beta/g2 only, and that is kept."""
    s, q, p = df.VP(), ring(), df.GaussianMixture(torch.tensor([[0.1, 0.0]], dtype=F64), 0.5)
    ratio = df.LawRatio(lambda t: s.law(q, t), lambda t: s.law(p, t))
    sde = df.at(s, s.score(q), ratio, gan=0.7, churn=1.3)
    quiet, x = scaled_equation(sde, None).quiet, df.Noise(0).normal(30, (2,), dtype=F64)
    assert quiet.on_schedule
    for t in (0.1, 0.6, 0.95):
        assert quiet.noise(t) == 0
        assert sde.noise(t) > 0
        assert (quiet.denoised(x, t) - sde.denoised(x, t)).abs().max() < 1e-12


def test_the_law_of_a_plan_is_the_law_of_its_seeds():
    """The same starts, the same plan; other noise streams with churn are other plans of like error."""
    sde = flow(ring())
    a, b = (df.calibrate(sde, 6, starts=256, noise=df.Noise(k), rounds=5) for k in (1, 1))
    assert a == b
    assert a.about == b.about
    other = df.calibrate(sde, 6, starts=256, noise=df.Noise(2), rounds=5)
    assert other != a
    assert other.about["error"] < 3 * a.about["error"]


def test_calibration_on_any_schedule():
    for s in (df.VP(), df.Cosine(), df.RectifiedFlow(), df.SubVP(), df.VE()):
        sde = flow(ring(), s)
        plan = df.calibrate(sde, 8, starts=64, rounds=0)
        assert plan.about["error"] < 0.03, s
        assert df.sample(sde, 100, plan=plan).nfe == 8


def test_labels_go_to_the_fields():
    class Two:
        """One of two points, by the label."""

        spread, cost = 1.0, 1

        def __init__(self, cond=None):
            self.cond = cond

        def given(self, cond):
            return Two(cond)

        def __call__(self, y, sigma):
            assert self.cond is not None
            assert len(self.cond) == len(y)
            return (2.0 * self.cond - 1).to(y)[:, None].expand_as(y)

    s = df.EDM()
    sde, cond = dataclasses.replace(df.probability_flow(s, s.score(Two()))), torch.arange(32) % 2
    plan = df.calibrate(sde, 3, starts=starts(32, 2, 0), cond=cond, rounds=2)
    x = df.sample(sde, starts(32, 2, 1), plan=plan, cond=cond).last
    assert torch.equal(x, (2.0 * cond - 1).double()[:, None].expand_as(x))


def test_requests_that_cannot_be_met():
    sde = flow(ring())
    for steps in (0, -1, 2.5):
        with pytest.raises(ValueError, match="whole number"):
            df.calibrate(sde, steps)
    with pytest.raises(ValueError, match="at least 8"):
        df.calibrate(sde, 4, starts=5)
    with pytest.raises(ValueError, match="noise schedule"):
        df.calibrate(df.langevin(ring()), 4)
    with pytest.raises(ValueError, match="not set"):
        df.calibrate(dataclasses.replace(sde, start=None), 4)
    s = df.EDM()
    broken = df.probability_flow(s, s.score(lambda y, sigma: y * float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        df.calibrate(broken, 4, starts=starts(16, 2, 0))
    assert default_starts((2,)) == 4096
    assert default_starts((3, 32, 32)) == 128
    assert default_starts((1, 28, 28)) == 167
