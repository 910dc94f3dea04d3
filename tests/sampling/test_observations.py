"""Samples given coordinates: rounds draw the exact conditional of a mixture, where replacement is far from it; a
particle depends on its own stream alone; what is known comes back to the bit."""

import math

import pytest
import torch

import diffflow as df
from diffflow.sampling.observations.exact import Conditional
from diffflow.sampling.observations.observation import Observation
from diffflow.sampling.observations.resampling import METHODS, Langevin, RePaint

F64 = torch.float64
KNOWN = torch.tensor([True, False, True])


def mixture() -> df.GaussianMixture:
    """Three correlated components of three columns, mean about 0 and std about 1."""
    means = torch.tensor([[-1.0, -0.9, 0.4], [0.9, -0.2, -0.8], [0.3, 1.1, 0.5]], dtype=F64)
    roots = torch.tensor(
        [
            [[0.5, 0.0, 0.0], [0.3, 0.4, 0.0], [0.0, 0.2, 0.4]],
            [[0.4, 0.0, 0.0], [-0.3, 0.3, 0.0], [0.1, 0.0, 0.5]],
            [[0.5, 0.0, 0.0], [0.1, 0.4, 0.0], [-0.2, 0.2, 0.4]],
        ],
        dtype=F64,
    )
    return df.GaussianMixture(means, weights=[0.3, 0.4, 0.3], covariances=roots @ roots.mT)


def equation(law: df.GaussianMixture) -> df.DiffFlow:
    s = df.EDM(0.01, 40.0)
    return df.at(s, s.score(law), churn=1.0)


def draws(
    law: df.GaussianMixture, seen: Observation, m: int, inner: int, steps: int = 20, method: str = "langevin"
) -> torch.Tensor:
    """Rows (n, m, d) given what is seen of each of n."""
    each, noise = seen.repeated(m), df.Noise(5)
    solver = METHODS[method](each, noise, inner)
    return df.sample(equation(law), len(each.values), steps, solver=solver, noise=noise).last.reshape(-1, m, 3)


def test_the_exact_conditional_is_the_joint_law_over_the_marginal():
    law = mixture()
    y = law.sample(50, 1)
    c = Conditional.of(law, y, KNOWN)
    mean, cov = c.means[:, :, 0], c.covariances[:, 0, 0]
    inside = torch.distributions.Normal(mean, cov.sqrt()).log_prob(y[:, 1:2])
    given_known = (c.weights.log() + inside).logsumexp(1)
    marginal = df.GaussianMixture(
        law.means[:, KNOWN], weights=law.weights, covariances=law.covariances()[:, KNOWN][:, :, KNOWN]
    )
    torch.testing.assert_close(given_known + marginal.log_prob(y[:, KNOWN]), law.log_prob(y), rtol=1e-9, atol=1e-9)


def test_the_excess_score_of_a_shifted_normal_is_its_closed_form_and_that_of_exact_draws_is_zero():
    n, shift = 4000, 0.8
    c = Conditional(torch.ones(n, 1, dtype=F64), torch.zeros(n, 1, 1, dtype=F64), torch.ones(1, 1, 1, dtype=F64))
    exact = c.sample(4, df.Noise(0))
    root = math.sqrt(2) * torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(shift / math.sqrt(2), dtype=F64))
    normal = math.exp(-(shift**2) / 4) / math.sqrt(math.pi)
    # E|X - Y| of X - Y ~ N(shift, 2), less E|X - X'| = 2/sqrt(pi)
    expected = shift * (math.sqrt(2) * root - 1) + 2 * normal - 2 / math.sqrt(math.pi)
    for draw, value in ((exact, 0.0), (exact + shift, float(expected))):
        excess = c.excess_score(draw)[:, 0]
        assert abs(float(excess.mean()) - value) < 4.5 * float(excess.std()) / math.sqrt(n)
    torch.testing.assert_close(c.least_score(), torch.full((n, 1), 1 / math.sqrt(math.pi), dtype=F64))


@pytest.mark.parametrize(("method", "inner"), [("langevin", 12), ("repaint", 20)])
def test_rounds_come_within_two_percent_of_the_exact_conditional_and_replacement_does_not(method, inner):
    """The excess is unbiased for any number of draws; its error is that of the mean over independent rows."""
    law, n = mixture(), 60
    x = law.sample(n, 2)
    c = Conditional.of(law, x, KNOWN)
    least = float(c.least_score().mean())
    mixed, replacement = (
        c.excess_score(draws(law, Observation(x, KNOWN), 32, rounds, method=method)[..., 1:2])[:, 0]
        for rounds in (inner, 1)
    )
    error = float(mixed.std()) / math.sqrt(n)
    assert float(mixed.mean()) < 0.02 * least + 3 * error
    assert error < 0.01 * least  # else the line above says little
    assert float(replacement.mean()) > 0.1 * least


def test_langevin_rounds_keep_the_law_of_a_gaussian_however_long_the_step():
    """At one level, h = sigma^2, nothing known: u <- D(u) + half-shared noise has exactly the noised law's variance;
    with noise of its own for each round it would not."""
    sigma, std, n = 0.8, 0.7, 40_000
    s = df.EDM(0.01, 40.0)
    law = df.Gaussian(torch.zeros(1, dtype=F64), std)
    sde = df.at(s, s.score(law), churn=1.0)
    t = s.time(sigma).item()
    nothing = Observation(torch.zeros(1, dtype=F64), torch.tensor([False]))
    x = law.noised(1.0, sigma).sample(n, 0)
    solver = Langevin(nothing, df.Noise(1), 30)
    down = s.time(sigma * 0.999).item()  # next to no step: the law at the level itself
    y = solver.rounds(sde, s, x, t, down, nothing, df.Noise(2))
    variance = std**2 + sigma**2
    assert abs(float(y.var()) / variance - 1) < 4.5 * math.sqrt(2 / n) + 0.003


def test_unknown_coordinates_of_rows_from_the_law_have_its_marginal():
    """Known columns from the law and the others drawn given them: the joint law again, moment by moment."""
    law, n = mixture(), 1500
    x = law.sample(n, 3)
    y = draws(law, Observation(x, KNOWN), 1, 10)[:, 0]
    for power in (lambda v: v[:, 1], lambda v: v[:, 1] ** 2, lambda v: v[:, 1] * v[:, 0], lambda v: v[:, 1] * v[:, 2]):
        mine, theirs = power(y), power(law.sample(100_000, 4))
        # 5 % for the steps, as many as these are
        assert abs(float(mine.mean() - theirs.mean())) < 4.5 * float(theirs.std()) / math.sqrt(n) + 0.05


@pytest.mark.parametrize("method", METHODS)
def test_a_particle_depends_on_its_own_stream_alone_and_what_is_known_comes_back_to_the_bit(method):
    law, noise = mixture(), df.Noise(7)
    seen = Observation(law.sample(6, 5), torch.rand(6, 3, generator=torch.Generator().manual_seed(0)) < 0.5)
    whole = df.sample(equation(law), 6, 8, solver=METHODS[method](seen, noise, 3), noise=noise).last
    part = slice(2, 5)
    shifted = noise.shift(2)
    alone = df.sample(equation(law), 3, 8, solver=METHODS[method](seen.rows(part), shifted, 3), noise=shifted).last
    torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-10)
    assert torch.equal(whole[seen.known], seen.values[seen.known])


@pytest.mark.parametrize("method", METHODS)
def test_the_evaluations_are_what_the_page_says(method):
    law, noise = mixture(), df.Noise(0)
    for inner, steps in ((1, 5), (4, 6)):
        solver = METHODS[method](Observation(torch.zeros(3), KNOWN), noise, inner)
        assert df.sample(equation(law), 2, steps, solver=solver, noise=noise).nfe == (steps - 1) * inner + 1


def test_everything_known_is_the_value_and_nothing_known_is_the_law():
    law, noise = mixture(), df.Noise(1)
    x = law.sample(400, 6)
    every = Observation(x, torch.ones(3, dtype=torch.bool))
    assert torch.equal(df.sample(equation(law), 400, 4, solver=RePaint(every, noise, 2), noise=noise).last, x)
    none = Observation(torch.full((3,), math.nan), torch.zeros(3, dtype=torch.bool))
    y = df.sample(equation(law), 400, 30, solver=RePaint(none, noise, 4), noise=noise).last
    for power in (1, 2):
        gap = (y**power).mean(0) - (law.sample(100_000, 7) ** power).mean(0)
        assert (gap.abs() < 4.5 * (y**power).std(0) / 20 + 0.05).all()


def test_a_group_of_coordinates_is_known_as_a_whole():
    groups = torch.tensor([0, 0, 0, 1, 2, 2])
    seen = Observation.of_groups(torch.arange(12.0).reshape(2, 6), torch.tensor([[1, 0, 1], [0, 1, 0]]).bool(), groups)
    assert seen.known.int().tolist() == [[1, 1, 1, 0, 1, 1], [0, 0, 0, 1, 0, 0]]
    assert seen.values[0].tolist() == [0, 1, 2, 0, 4, 5]
    with pytest.raises(ValueError, match="one of 2 for each of 6 coordinates"):
        Observation.of_groups(torch.zeros(6), torch.tensor([True, False]), groups)


def test_rows_are_repeated_one_after_the_other():
    seen = Observation(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([True, False]))
    assert seen.repeated(2).values[:, 0].tolist() == [1, 1, 3, 3]
    assert seen.count == 2
    assert seen.rows(slice(1, 2)).values.tolist() == [[3, 0]]
    one = Observation(torch.tensor([1.0, 2.0]), torch.tensor([True, False]))
    assert (one.count, one.repeated(3).count, one.rows(slice(0, 1)).count) == (None, 3, None)


@pytest.mark.parametrize(
    ("values", "known", "message"),
    [
        (torch.zeros(3), torch.ones(3), "bool is wanted"),
        (torch.zeros(3), torch.ones(2, dtype=torch.bool), "do not fit together"),
        (torch.tensor([1.0, math.nan]), torch.ones(2, dtype=torch.bool), "1 of the known values"),
        (torch.zeros(2, 3, 4), torch.ones(4, dtype=torch.bool), r"is one for all, \(4,\)"),
    ],
)
def test_what_is_no_observation_is_refused(values, known, message):
    with pytest.raises(ValueError, match=message):
        Observation(values, known)


def test_what_cannot_be_drawn_is_refused():
    law, noise = mixture(), df.Noise(0)
    seen = Observation(torch.zeros(3), KNOWN)
    s = df.EDM(0.01, 40.0)
    with pytest.raises(ValueError, match="give churn = 1"):
        df.sample(df.probability_flow(s, s.score(law)), 2, 4, solver=RePaint(seen, noise), noise=noise)
    with pytest.raises(ValueError, match="need an equation on a noise schedule"):
        df.sample(df.langevin(df.LawScore(law)), torch.zeros(2, 3), 4, solver=RePaint(seen, noise), noise=noise)
    with pytest.raises(ValueError, match="at least one round"):
        RePaint(seen, noise, 0)
    with pytest.raises(ValueError, match="4 observations for 3 particles"):
        Observation(torch.zeros(4, 3), KNOWN).expanded(3)
