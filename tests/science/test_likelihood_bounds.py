"""Theorem 3: below the log-likelihood always, equal to it for the reverse SDE of an exact score, and short of it by the
stated integral elsewhere; sharper with more paths, by Jensen."""

import math

import pytest
import torch

import diffflow as df
from diffflow.likelihood.elbo import Quadrature, ReferenceKernel, Stratified, blended, elbo
from diffflow.likelihood.importance import importance

F64 = torch.float64
Q = df.GaussianMixture(torch.tensor([[-1.0], [0.8]], dtype=F64), [0.5, 0.3], [0.4, 0.6])
X = torch.tensor([[-2.0], [-0.5], [0.3], [1.7]], dtype=F64)
EXACT = Quadrature(64, 60)
SCHEDULES = [df.EDM(0.03, 20.0), df.VE(0.03, 20.0), df.VP(sigma_min=0.03), df.SubVP(sigma_min=0.03)]
SCHEDULES += [df.Cosine(0.03, 50.0), df.RectifiedFlow(0.03, 50.0)]


def average(x, f, mean, std, count=60):
    """E f(mean x + std eps) by Gauss-Hermite, (n,)."""
    eps, w = Quadrature(2, count)._grid(x)
    y = mean * x + std * eps
    return (w[:, None] * f(y.reshape(-1, 1)).reshape(len(eps), len(x))).sum(0)


def noised(s, law, x):
    """E log p_T(scale (x + sigma_min eps)), what the bound bounds."""
    scale = s.scale(s.horizon).item()
    return average(x, law.log_prob, scale, scale * s.sigma(s.horizon).item())


@pytest.mark.parametrize("s", SCHEDULES, ids=lambda s: type(s).__name__)
def test_tight_for_the_reverse_sde_of_an_exact_score(s):
    sde = df.reverse_sde(s, s.score(Q))
    left = noised(s, s.law(Q, s.horizon), X)
    for gamma in (1.0, lambda t: torch.ones_like(t), blended(sde)):
        assert (elbo(sde, X, rule=EXACT, reference=gamma).value - left).abs().max() < 1e-6


@pytest.mark.parametrize("churn", [0.3, 2.5])
@pytest.mark.parametrize("s", SCHEDULES[:3], ids=lambda s: type(s).__name__)
def test_the_gap_is_the_stated_integral(s, churn):
    """int (c2 - G2)^2 / (8 c2) E |kappa - grad log r|^2 dt (derivations.md 5.1), an integral of its own here."""
    left = noised(s, s.law(Q, s.horizon), X)
    got = left - elbo(df.at(s, s.score(Q), churn=churn), X, rule=EXACT).value
    low, high, predicted = math.log(s.sigma_min), math.log(s.sigma(0.0).item()), 0.0
    at, weights = (torch.from_numpy(v) for v in __import__("numpy").polynomial.legendre.leggauss(80))
    for u, w in zip(low + (high - low) * 0.5 * (at + 1), 0.5 * (high - low) * weights, strict=True):
        t = s.time(u.exp())
        scale, sigma, G2 = s.scale(t).item(), s.sigma(t).item(), s.lam2(t).item()
        law, v = s.law(Q, t), (scale * sigma) ** 2

        def error(y, law=law, v=v, scale=scale):
            x = X.repeat(len(y) // len(X), 1)
            return (-(y - scale * x) / v - law.score(y)).square().sum(1)

        rate = (churn - 1) ** 2 / (8 * churn) * G2 / -s.log_sigma_rate(t).item()
        predicted = predicted + w * rate * average(X, error, scale, scale * sigma)
    assert (got > 0).all()
    torch.testing.assert_close(got, predicted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("churn", "gan"), [(1.0, 0.0), (0.4, 0.0), (0.6, 0.7), (2.0, 0.5)])
def test_never_above_the_likelihood_of_a_wrong_model(churn, gan):
    """Wrong score, wrong ratio, wrong start, all linear: p_T is Gaussian, by its own differential equation."""
    s = df.VP(sigma_min=0.05)
    wrong = df.Gaussian(torch.tensor([0.4], dtype=F64), 0.7)
    start = df.Gaussian(torch.tensor([0.2], dtype=F64), 1.3)
    ratio = df.LawRatio(
        lambda t: df.Gaussian(torch.tensor([0.1], dtype=F64), 1.0),
        lambda t: df.Gaussian(torch.tensor([0.3], dtype=F64), 0.9),
    )
    sde = df.at(s, s.score(wrong), ratio, gan=gan, churn=churn, start=start)
    steps, rates = 200, []
    for t in torch.linspace(0, s.horizon, 2 * steps + 1, dtype=F64).tolist():
        b, one = sde.drift(torch.tensor([[0.0], [1.0]], dtype=F64), t).flatten()
        A, c2 = one - b, torch.as_tensor(sde.noise(t)) ** 2
        rates.append((torch.stack([A, 2 * A]), torch.stack([b, c2])))  # dm = A m + b, dC = 2 A C + c2
    h, p = s.horizon / steps, torch.tensor([0.2, 1.3**2], dtype=F64)
    for (A0, b0), (A1, b1), (A2, b2) in zip(rates[:-1:2], rates[1::2], rates[2::2], strict=True):
        k1 = A0 * p + b0  # Runge-Kutta 4: mean and variance to 1e-8, tried with twice as many steps
        k2 = A1 * (p + h / 2 * k1) + b1
        k3 = A1 * (p + h / 2 * k2) + b1
        k4 = A2 * (p + h * k3) + b2
        p = p + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    law = df.Gaussian(p[:1], p[1].sqrt().item())
    left = noised(s, law, X)
    for gamma in (0.5, 1.0, churn, blended(sde, 0.6)):
        gap = left - elbo(sde, X, rule=EXACT, reference=gamma).value
        assert (gap > -1e-6).all(), gamma


@pytest.mark.parametrize("churn", [0.3, 2.5])
def test_the_blended_reference_is_closer_than_both_of_its_ends(churn):
    s = df.EDM(0.03, 20.0)
    sde = df.at(s, s.score(Q), churn=churn)
    values = [elbo(sde, X, rule=EXACT, reference=g).value.mean() for g in (1.0, churn, blended(sde))]
    assert values[2] > max(values[:2])


@pytest.mark.parametrize("gamma", [0.7, lambda t: 1 + 0.5 * t / 20])
def test_the_variance_of_the_reference_solves_its_equation(gamma):
    """d(V/scale^2)/d sigma^2 = gamma, from sigma_min^2."""
    s = df.EDM(0.03, 20.0)
    kernel = ReferenceKernel(df.reverse_sde(s, s.score(Q)), gamma)
    sigma = torch.tensor([0.03, 0.1, 1.0, 7.0, 20.0], dtype=F64)
    rate = (lambda t: torch.full_like(t, gamma)) if isinstance(gamma, float) else gamma
    for v in sigma:
        u = torch.linspace(0.03**2, float(v) ** 2, 20_001, dtype=F64)
        expected = 0.03**2 + torch.trapezoid(rate(s.time(u.sqrt().clamp(0.03, 20.0))), u)
        torch.testing.assert_close(kernel.variance(s.time(v)), expected, rtol=1e-6, atol=0)


def test_random_evaluation_is_unbiased_within_its_error():
    s = df.EDM(0.03, 20.0)
    x = Q.sample(400, df.Noise(0))
    sde = df.reverse_sde(s, s.score(Q))
    got, exact = elbo(sde, x, rule=Stratified(32, df.Noise(3))), elbo(sde, x, rule=EXACT).value
    error = got.value - exact
    assert abs(error.mean()) < 4.5 * error.std() / math.sqrt(400)
    # the mean square of the error is the mean of stderr^2, or less (strata differ in their means): 400 rows tell 20 %
    assert 0.6 < (error.square().mean() / got.stderr.square().mean()).sqrt() < 1.2


def test_every_row_may_have_its_own_condition():
    class Two:
        """Two laws as one denoiser."""

        cost, classes, principal_std = 1, 2, 1.0

        def given(self, cond):
            return Chosen(torch.as_tensor(cond))

        def __call__(self, y, sigma):
            raise AssertionError("which of the two?")

    class Chosen:
        cost, principal_std = 1, 1.0

        def __init__(self, cond):
            self.cond = cond

        def __call__(self, y, sigma):
            a, b = (df.Gaussian(torch.tensor([m], dtype=F64), 0.7).denoise(y, sigma) for m in (-1.0, 1.0))
            return torch.where((self.cond == 0).reshape(-1, 1), a, b)

    s = df.EDM(0.03, 20.0)
    start = s.prior((1,), 0.0, 1.0).to(F64)
    sde, cond = df.at(s, s.score(Two()), churn=1.0, start=start), torch.tensor([0, 1, 1, 0])
    x = torch.tensor([[-1.0], [0.5], [1.0], [0.0]], dtype=F64)
    whole = elbo(sde, x, rule=EXACT, cond=cond).value
    for k in range(4):
        torch.testing.assert_close(elbo(sde, x[k : k + 1], rule=EXACT, cond=cond[k]).value, whole[k : k + 1])
    assert elbo(sde, x, rule=Stratified(4), cond=cond).nfe == 8  # eps and -eps at every level


def test_more_paths_never_give_less_and_many_short_steps_give_the_bound():
    s = df.EDM(0.03, 20.0)
    sde = df.at(s, s.score(Q), churn=1.0)
    paths = importance(sde, X, draws=32, steps=100, noise=df.Noise(1))
    bounds = torch.stack([paths.bound(k) for k in (1, 2, 4, 8, 16, 32)])
    assert (bounds.diff(dim=0) >= -1e-12).all()  # Jensen, draw by draw
    one, err = paths.bound(1), paths.weights.std(0) / math.sqrt(32)
    exact = elbo(sde, X, rule=EXACT).value
    # the slack of 100 log-uniform steps: a step of ratio r freezes D* (order 1), measured to halve with their length
    coarse = importance(sde, X, draws=32, steps=50, noise=df.Noise(1)).bound(1)
    assert ((exact - one) < 0.6 * (exact - coarse) + 3 * err).all()
    assert (one < exact + 4.5 * err).all()


def test_what_has_no_bound_says_so():
    s = df.EDM()
    with pytest.raises(ValueError, match="raise churn, or use log_prob"):
        elbo(df.probability_flow(s, s.score(Q)), X)
    with pytest.raises(ValueError, match="needs a point of a noise schedule"):
        elbo(df.langevin(Q, start=Q), X)
    with pytest.raises(ValueError, match="starts from a density"):
        elbo(df.reverse_sde(s, s.score(lambda y, sigma: y)), X)
    for gamma in (0.0, -1.0, math.inf, lambda t: 0 * t):
        with pytest.raises(ValueError, match="gamma must be positive"):
            elbo(df.reverse_sde(s, s.score(Q)), X, reference=gamma)
    with pytest.raises(ValueError, match="too many: take Stratified"):
        elbo(df.reverse_sde(s, s.score(df.Gaussian(torch.zeros(4), 1.0))), torch.zeros(2, 4), rule=Quadrature())
