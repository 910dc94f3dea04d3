"""Prediction forms are mutual inverses, mean what they say, and a denoiser keeps its arithmetic in float32."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffflow.equation.laws import Gaussian
from diffflow.networks.backbones.mlp import MLP
from diffflow.networks.denoiser import FORMS, Denoiser, quarter_log

sigmas = st.floats(math.log(0.002), math.log(500.0)).map(math.exp)
seeds = st.integers(0, 2**31)
EPS = torch.finfo(torch.float64).eps


def triple(seed: int, sigma: float, d: float):
    """Data Y ~ N(0, d^2), eps and y = Y + sigma eps, float64 (5, 2, 3)."""
    g = torch.Generator().manual_seed(seed)
    Y, eps = (
        d * torch.randn(5, 2, 3, generator=g, dtype=torch.float64),
        torch.randn(5, 2, 3, generator=g, dtype=torch.float64),
    )
    return Y, eps, Y + sigma * eps


@pytest.mark.parametrize("name", FORMS)
@settings(deadline=None)
@given(seeds, sigmas, st.floats(0.05, 5.0))
def test_the_two_directions_are_mutual_inverses(name, seed, sigma, d):
    form, s = FORMS[name], torch.tensor(sigma, dtype=torch.float64)
    D, out, y = triple(seed, sigma, d)
    a, b = (float(k.abs()) for k in form.at(s, d)[1:])
    # one rounding for each of: product, sum, (and back) difference, quotient, and of each coefficient
    slack = 16 * EPS * (a * y.abs() + D.abs() + b * out.abs())
    assert ((form.denoised(form.predicted(D, y, s, d), y, s, d) - D).abs() <= slack).all()
    assert ((form.predicted(form.denoised(out, y, s, d), y, s, d) - out).abs() <= slack / b).all()


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_any_form_leads_to_any_other_and_back(first, second):
    d, sigma = 0.5, torch.logspace(-2.5, 2, 5, dtype=torch.float64)
    _, out, y = triple(3, 1.0, d)
    there = FORMS[second].predicted(FORMS[first].denoised(out, y, sigma, d), y, sigma, d)
    back = FORMS[first].predicted(FORMS[second].denoised(there, y, sigma, d), y, sigma, d)
    b = torch.stack([FORMS[k].at(sigma, d).b.abs() for k in (first, second)]).min(0).values
    slack = 64 * EPS * (1 + y.abs() + out.abs() * (1 + sigma[:, None, None] ** 2)) / b[:, None, None].clamp(max=1.0)
    assert ((back - out).abs() <= slack).all()


@settings(deadline=None)
@given(seeds, sigmas)
def test_each_form_predicts_what_the_literature_says(seed, sigma):
    Y, eps, y = triple(seed, sigma, 1.0)
    s = torch.tensor(sigma, dtype=torch.float64)
    r = math.sqrt(1 + sigma**2)
    alpha, noise = 1 / r, sigma / r  # the variance-preserving pair, alpha^2 + noise^2 = 1
    predictions = {
        "eps": eps,
        "v": alpha * eps - noise * Y,  # Salimans & Ho 2022
        "x0": Y,
        "flow": eps - Y,  # d/du of (1-u) Y + u eps
        "score": -(y - Y) / sigma**2,
        "edm": (Y - y / (1 + sigma**2)) / noise,
    }
    inputs = {"eps": alpha * Y + noise * eps, "flow": (Y + sigma * eps) / (1 + sigma), "score": y}
    assert predictions.keys() == FORMS.keys()
    for name, out in predictions.items():
        form = FORMS[name]
        a, b = (float(k.abs()) for k in form.at(s, 1.0)[1:])
        slack = 16 * EPS * (a * y.abs() + Y.abs() + b * out.abs() + y.abs() * (name == "score"))
        assert ((form.denoised(out, y, s) - Y).abs() <= slack).all(), name
        if name in inputs:
            torch.testing.assert_close(form.at(s, 1.0).c * y, inputs[name], rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(sigmas, st.floats(0.05, 5.0))
def test_edm_preconditioning_has_unit_variance_inputs_and_targets(sigma, d):
    c, a, b = (float(k) for k in FORMS["edm"].at(torch.tensor(sigma, dtype=torch.float64), d))
    assert c**2 * (sigma**2 + d**2) == pytest.approx(1, rel=1e-12)
    assert ((1 - a) ** 2 * d**2 + a**2 * sigma**2) / b**2 == pytest.approx(1, rel=1e-12)  # Var of (Y - a y)/b


@pytest.mark.parametrize("name", FORMS)
def test_a_net_of_any_form_becomes_the_exact_denoiser(name):
    law = Gaussian(torch.tensor([0.3, -0.2], dtype=torch.float64), 0.7)
    form, d = FORMS[name], 0.7

    def net(x, time, cond):
        sigma = torch.exp(4 * time)
        y = x / form.at(sigma, d).c[:, None]
        return form.predicted(law.denoise(y, sigma), y, sigma, d)

    denoiser = Denoiser(net, d, form=form, time=quarter_log)
    sigma = torch.tensor([0.01, 0.5, 20.0], dtype=torch.float64)
    y = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (1 + sigma[:, None])
    for i in range(3):
        torch.testing.assert_close(
            denoiser(y, sigma)[i : i + 1], law.denoise(y[i : i + 1], sigma[i]), rtol=1e-9, atol=1e-9
        )
        torch.testing.assert_close(
            denoiser(y[i : i + 1], sigma[i]), denoiser(y, sigma)[i : i + 1], rtol=1e-12, atol=1e-12
        )


def test_arithmetic_stays_in_float32_when_the_net_does_not():
    net = MLP(4, width=16, depth=1)
    torch.nn.init.normal_(net.leave.weight, std=0.1)
    y, sigma = torch.randn(64, 4, generator=torch.Generator().manual_seed(1)), torch.tensor(1e-3)
    D = Denoiser(net, 0.5)
    exact = D(y, sigma)
    with torch.autocast("cpu", torch.bfloat16):
        cast = D(y, sigma)
    low = Denoiser(net.bfloat16(), 0.5)(y, sigma)
    # Where sigma is small D is y almost exactly: in bfloat16 it would be off by |y|/256, here only the net's term b F
    # may be.
    b = float(FORMS["edm"].at(sigma, 0.5).b)
    for D_low in (cast, low):
        assert D_low.dtype == torch.float32
        assert (D_low - exact).abs().max() < 0.1 * b
    assert not torch.equal(low, exact)


def test_the_net_is_told_the_time_as_a_float_tensor_per_particle():
    seen = []

    def net(x, time, cond):
        seen.append(time)
        return x

    Denoiser(net, 1.0)(torch.zeros(3, 2), torch.tensor(10.7, dtype=torch.float64))
    assert seen[0].shape == (3,)
    assert seen[0].dtype == torch.float32
    assert float(seen[0][0]) == pytest.approx(0.25 * math.log(10.7), rel=1e-6)


def test_given_binds_a_condition_and_shares_the_weights():
    D = Denoiser(MLP(2, classes=3, width=8, depth=1), 1.0, principal_std=2.0)
    torch.nn.init.normal_(D.net.leave.weight)
    y, sigma = torch.randn(4, 2), torch.tensor(0.5)
    labels = torch.tensor([0, 2, -1, 1])
    mixed = D.given(labels)(y, sigma)
    for i, k in enumerate(labels.tolist()):
        torch.testing.assert_close(D.given(k)(y, sigma)[i], mixed[i])
    torch.testing.assert_close(D.given(-1)(y, sigma), D(y, sigma))
    assert D.given(None) is D
    assert D.given(1).given(None) is D
    assert (D.given(1).principal_std, D.given(1).sigma_data, D.given(1).cost) == (2.0, 1.0, 1)
    with torch.no_grad():
        D.net.leave.bias += 1
    assert not torch.equal(D.given(labels)(y, sigma), mixed)


def test_what_cannot_be_meant_is_refused():
    D = Denoiser(MLP(2, classes=3, width=8, depth=1), 1.0)
    with pytest.raises(ValueError, match=r"\[3\].*0\.\.2"):
        D.given(torch.tensor([3]))
    with pytest.raises(ValueError, match="2 conditions for 4 particles"):
        D.given(torch.tensor([0, 1]))(torch.zeros(4, 2), torch.tensor(1.0))
    with pytest.raises(ValueError, match="without a condition"):
        Denoiser(MLP(2, width=8, depth=1), 1.0).given(0)
    with pytest.raises(ValueError, match="sigma_data = 0"):
        Denoiser(MLP(2, width=8, depth=1), 0.0)


def test_a_net_of_another_shape_and_a_noise_of_none_are_refused():
    """Before: (n, 1) was broadcast to (n, 2), twice the channels ended in torch's words, sigma <= 0 gave numbers."""
    y = torch.ones(4, 2)
    for net in (lambda x, t, c: x[:, :1], lambda x, t, c: torch.cat([x, x], 1), lambda x, t, c: x.sum()):
        with pytest.raises(ValueError, match=r"the net of this denoiser returned shape .* of shape \(4, 2\)"):
            Denoiser(net, 1.0)(y, torch.tensor(0.5))
    good = Denoiser(lambda x, t, c: x, 1.0)
    for sigma in (0.0, -1.0, float("nan"), torch.tensor([1.0, 1.0, 0.0, 1.0])):
        with pytest.raises(ValueError, match="a denoiser needs sigma > 0"):
            good(y, torch.as_tensor(sigma))
    with pytest.raises(ValueError, match=r"sigma has shape \(3,\) for 4 particles"):
        good(y, torch.ones(3))
    with torch.device("meta"):  # stands for an accelerator: no number may be read there
        assert good(torch.ones(4, 2), torch.ones(4)).shape == (4, 2)
