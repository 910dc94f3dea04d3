"""Schedules: consistent derivatives, exact ends, inverses, textbook identities."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffflow as df
from diffflow.equation.schedule_base import REMEMBERED

F64 = torch.float64
sigmas = st.tuples(st.floats(1e-3, 0.05), st.floats(5.0, 300.0))


@pytest.mark.parametrize("name", df.SCHEDULES)
@given(ends=sigmas, u=st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_consistency(name, ends, u):
    """rate and lam2 are the derivatives derivations.md eq. (4) says, sigma falls, time inverts sigma, the ends are the
    arguments."""
    lo, hi = ends
    s = df.SCHEDULES[name](sigma_min=lo, sigma_max=hi)
    assert s.sigma(0.0).item() == pytest.approx(hi, rel=1e-9)
    assert s.sigma(s.horizon).item() == pytest.approx(lo, rel=1e-9)
    assert s.sigma(s.clean_time).item() == 0
    assert s.scale(s.clean_time).item() == 1
    assert s.clean_time > s.horizon
    level = hi ** (1 - u) * lo**u
    t = s.time(level)
    assert s.sigma(t).item() == pytest.approx(level, rel=1e-7)
    h = 1e-5 * min(t.item(), s.horizon - t.item(), abs(1 / s.log_sigma_rate(t).item()))
    sigma, scale = (lambda v: s.sigma(v).item()), (lambda v: s.scale(v).item())
    slope = (sigma(t + h) - sigma(t - h)) / (2 * h)
    assert slope < 0
    assert s.lam2(t).item() == pytest.approx(-2 * scale(t) ** 2 * sigma(t) * slope, rel=1e-4)
    assert s.rate(t).item() == pytest.approx(
        (math.log(scale(t + h)) - math.log(scale(t - h))) / (2 * h), rel=1e-4, abs=1e-6 / h
    )
    assert s.log_sigma_rate(t).item() == pytest.approx(slope / sigma(t), rel=1e-4)
    assert s.logsnr(t).item() == pytest.approx(-2 * math.log(sigma(t)))


@given(u=st.floats(0.0, 1.0))
def test_textbook_identities(u):
    """VP and Cosine preserve variance; sub-VP has std 1 - scale^2; a rectified flow interpolates; EDM and VE only add
    noise; VP's lam2 is b(s)."""
    for s in (df.VP(), df.Cosine()):
        t = u * s.horizon
        assert (s.scale(t) ** 2 * (1 + s.sigma(t) ** 2)).item() == pytest.approx(1, rel=1e-9)
    s = df.SubVP()
    assert (s.scale(u * s.horizon) * s.sigma(u * s.horizon)).item() == pytest.approx(
        1 - s.scale(u * s.horizon).item() ** 2, rel=1e-8, abs=1e-12
    )
    s = df.RectifiedFlow()
    assert (s.scale(u * s.horizon) * (1 + s.sigma(u * s.horizon))).item() == pytest.approx(1, rel=1e-9)
    for s in (df.EDM(), df.VE()):
        assert s.scale(u * s.horizon).item() == 1
    s = df.VP()
    assert s.lam2(u * s.horizon).item() == pytest.approx(0.1 + 19.9 * (1 - u * s.horizon), rel=1e-6)
    assert df.EDM().lam2(u * 79).item() == pytest.approx(2 * (80 - u * 79), rel=1e-9)


@pytest.mark.parametrize("name", df.SCHEDULES)
def test_one_time_or_one_per_particle(name):
    s = df.SCHEDULES[name](sigma_min=0.002, sigma_max=80.0)
    t = torch.linspace(0.1, 0.9, 5, dtype=F64) * s.horizon
    for f in (s.sigma, s.scale, s.rate, s.lam2, s.logsnr):
        many = f(t)
        assert many.dtype == F64
        assert many.shape == (5,)
        assert torch.equal(many, torch.stack([f(v) for v in t]))
        assert f(t[0].item()).shape == ()


@given(
    n=st.integers(1, 300),
    ends=sigmas,
    rule=st.sampled_from([df.karras, df.log_uniform, df.snr_grid]),
    name=st.sampled_from(list(df.SCHEDULES)),
)
@settings(max_examples=60, deadline=None)
def test_grids_fall_from_sigma_max_to_zero(n, ends, rule, name):
    s = df.SCHEDULES[name](sigma_min=ends[0], sigma_max=ends[1])
    t = rule(s, n)
    assert len(t) == n + 1
    assert t.dtype == F64
    assert t[0] == 0
    assert t[-1] == s.clean_time
    assert (t.diff() > 0).all()


def test_prior_is_the_noised_gaussian():
    for s in (df.EDM(), df.VP(), df.RectifiedFlow()):
        p = s.prior((1, 2, 2), 0.3, 0.5)
        assert p.shape == (1, 2, 2)
        a = s.scale(0.0).item()
        assert p.means[0, 0].item() == pytest.approx(0.3 * a, rel=1e-6)
        assert p.floor[0].item() == pytest.approx(a**2 * (0.25 + s.sigma(0.0).item() ** 2), rel=1e-5)


def test_levels_are_a_staircase():
    s = df.Levels((3.0, 1.0, 0.1), steps=4)
    assert s.horizon == 12
    assert [s.sigma(t).item() for t in (0, 3.9, 4, 7.9, 8, 12)] == [
        3,
        3,
        1,
        1,
        pytest.approx(0.1),
        pytest.approx(0.1),
    ]
    assert s.lam2(5.0).item() == 0
    assert s.sigma(s.clean_time).item() == 0
    g = df.Levels.geometric(10.0, 0.1, 5)
    assert g.sigmas[0] == 10
    assert g.sigmas[-1] == pytest.approx(0.1)
    assert len(g.sigmas) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: df.EDM(0.1, 0.05), "sigma_min"),
        (lambda: df.VP(sigma_min=-1.0), "sigma_min"),
        (lambda: df.VP(beta_min=3.0, beta_max=1.0), "beta_min"),
        (lambda: df.Levels((1.0, 2.0)), "falling"),
        (lambda: df.Levels((1.0, 0.5), steps=0), "steps=0"),
        (lambda: df.Levels((1.0,)).time(0.5), "no inverse"),
        (lambda: df.EDM().score(3), "Law, a Denoiser"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_values_at_numbers_are_kept_and_no_other():
    """A number and a tensor give the same; what was kept inside inference mode can be used where gradients are; other
    settings have other values; the store is bounded."""
    s, t = df.VP(), 0.37
    with torch.inference_mode():
        inside = s.sigma(t)
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (inside * x).sum().backward()
    for name in ("sigma", "scale", "lam2"):
        f = getattr(s, name)
        assert f(t) is f(t)
        assert torch.equal(f(t), f(torch.tensor(t, dtype=torch.float64)))
        assert not torch.equal(f(t), getattr(dataclasses.replace(s, beta_max=10.0), name)(t))
    assert s.time(0.7) is s.time(0.7)
    for k in range(REMEMBERED + 10):
        s.sigma(k / 1e6)
    assert len(s.__dict__["_known"]) <= REMEMBERED
    assert s == df.VP()
