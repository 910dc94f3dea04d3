"""A mixture as a denoiser's skip: exact where the net is silent, fitted as theory says, kept with the weights."""

import itertools
import math

import pytest
import torch

import diffflow as df
from diffflow.models.diffusion import ModelConfig
from diffflow.models.presets import preset
from diffflow.models.settings.networks import MLPConfig, UNetConfig
from diffflow.models.settings.serialise import ConfigError
from diffflow.networks.backbones.mlp import MLP
from diffflow.networks.denoiser import FORMS
from diffflow.networks.mixture_fit import Mixture, climbed, fit_mixture, gaussian
from diffflow.networks.mixture_skip import NUMBERS, WIDEST, MixtureDenoiser, MixtureSkip, room
from diffflow.runs.density import choose_end, choose_form

F64 = torch.float64


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def law(k: int, d: int, seed: int = 0) -> df.GaussianMixture:
    """Components as far from each other as they are wide, with variances from about 1e-2 to 1."""
    factors = drawn(k, d, d, seed=seed) / math.sqrt(d)
    covariances = 0.3 * factors @ factors.mT + 0.01 * torch.eye(d, dtype=F64)
    return df.GaussianMixture(drawn(k, d, seed=seed + 1), weights=torch.arange(1, k + 1), covariances=covariances)


def skip_of(q: df.GaussianMixture, components: int | None = None) -> MixtureSkip:
    skip = MixtureSkip(q.means.shape[1], components or len(q.means))
    skip.hold(q.weights, q.means, q.covariances())
    return skip


def denoiser(q: df.GaussianMixture, seed: int = 0) -> MixtureDenoiser:
    d = q.means.shape[1]
    torch.manual_seed(seed)
    return MixtureDenoiser(MLP(d, width=16, depth=1, embed=8, beside=d), skip_of(q), 1.0)


# -- the posterior mean -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 1), (4, 3), (20, 6)])
def test_the_skip_is_the_posterior_mean_at_every_noise(k, d):
    q = law(k, d)
    skip = skip_of(q, components=k + 3)  # with room to spare
    sigma = torch.logspace(-3, 2, 200, dtype=F64)
    clean = q.sample(200, df.Noise(1))
    y = clean + sigma[:, None] * drawn(200, d, seed=2)
    wanted = q.denoise(y, sigma)
    size = wanted.abs().amax()
    assert (skip.double()(y, sigma) - wanted).abs().max() < 1e-6 * size  # buffers that were float32
    assert (skip.float()(y.float(), sigma.float()) - wanted).abs().max() < 1e-5 * max(1.0, sigma.max()) * size
    one = torch.tensor(0.3, dtype=F64)
    torch.testing.assert_close(skip.double()(y, one), skip(y, one.expand(200)), rtol=1e-12, atol=1e-12)


def test_in_float32_nothing_cancels_at_small_noise():
    q = law(20, 6)
    y = (q.sample(500, df.Noise(1)) + 1e-3 * drawn(500, 6)).float()
    skip = skip_of(q)
    near, far = skip(y, torch.tensor(1e-3)), skip.double()(y.double(), torch.tensor(1e-3, dtype=F64))
    assert (near - far).abs().max() < 1e-5


def test_before_a_mixture_is_put_in_it_is_the_gaussian_of_the_plain_form():
    d, s = 3, torch.logspace(-2, 1, 50)
    y = drawn(50, d).float()
    a = FORMS["edm"].at(s, 0.7).a
    torch.testing.assert_close(MixtureSkip(d, 5, std=0.7)(y, s), a[:, None] * y)


def test_the_law_that_it_tells_is_the_one_that_was_put_in():
    q = law(4, 3)
    kept = skip_of(q, components=9).law()
    x = drawn(50, 3)
    torch.testing.assert_close(kept.log_prob(x), q.log_prob(x), rtol=1e-4, atol=1e-4)  # float32, 1/variance is 100
    assert len(kept.means) == 4


# -- the denoiser -----------------------------------------------------------------------------------------------------
def test_with_a_silent_net_the_denoiser_is_the_mixtures_and_so_is_its_density():
    q = law(3, 2)
    model = denoiser(q).double()  # the last layer of an MLP begins at zero
    schedule = df.EDM(sigma_min=0.05, sigma_max=20.0)
    y, sigma = drawn(30, 2), torch.tensor(0.4, dtype=F64)
    torch.testing.assert_close(model(y, sigma), model.skip(y, sigma), rtol=0, atol=0)
    exact = q.noised(1.0, 20.0)
    sde = df.at(schedule, schedule.score(model), start=exact)
    x = q.noised(1.0, 0.05).sample(20, df.Noise(3))
    found = df.log_prob(sde, x, tol=1e-7).value
    wanted = q.noised(1.0, 0.05).log_prob(x)
    assert (found - wanted).abs().max() < 1e-3  # the float32 buffers: 1e-7 of a variance of 1e-2, times ln(400)


def test_the_net_sees_what_the_mixture_says_and_gradients_flow_to_it_alone():
    q = law(3, 2)
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x, time, cond=None):
            seen.append(x)
            return torch.zeros_like(x[:, :2])

    y, s = drawn(7, 2).float(), torch.full((7,), 0.3)
    spied = MixtureDenoiser(Spy(), skip_of(q), 1.0)
    clean = spied(y, s)
    torch.testing.assert_close(seen[0], torch.cat([y / math.hypot(1, 0.3), (clean - y) / 0.3], 1))
    model = denoiser(q)
    before = {k: v.clone() for k, v in model.skip.state_dict().items()}
    torch.nn.init.normal_(model.net.leave.weight)
    model(y, s).square().sum().backward()
    assert all(p.grad is not None for p in model.net.parameters())
    assert not list(model.skip.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.skip.state_dict().items())


def test_the_forms_factor_of_the_net_holds():
    q, s = law(2, 2), torch.tensor([0.1, 1.0, 10.0])
    model = denoiser(q)
    torch.nn.init.ones_(model.net.leave.bias)  # F = 1
    y = drawn(3, 2).float()
    torch.testing.assert_close(model(y, s) - model.skip(y, s), (s / (1 + s * s).sqrt())[:, None].expand(3, 2))


def test_half_precision_leaves_the_mixture_alone():
    q = law(3, 2)
    model, y = denoiser(q), drawn(9, 2).float()
    whole = model(y, torch.tensor(0.02))
    with torch.autocast("cpu", torch.bfloat16):
        half = model(y, torch.tensor(0.02))
    torch.testing.assert_close(half, whole, rtol=0, atol=0)  # the net is silent


# -- the fit ----------------------------------------------------------------------------------------------------------
def test_a_fit_to_draws_is_as_likely_as_the_law_within_its_error():
    q = df.GaussianMixture(torch.tensor([[-2.0, 0.0], [1.0, 1.5], [1.0, -2.0]]), [0.3, 0.5, 0.4], [0.5, 0.3, 0.2])
    n = 3000
    x, aside, test = (q.sample(m, df.Noise(seed)).double() for seed, m in enumerate((n, 1000, 4000)))
    best, found = fit_mixture(x, aside, 16)
    gap = q.to(F64).log_prob(test).mean().item() - best.score(test)
    # by Wilks, the expected loss of p fitted numbers is p/2n; p = 6 k - 1, and k = 4 is the nearest power of two.
    # Choosing by the rows aside costs a few standard errors of a difference of close laws; five times p/2n holds both
    assert gap < 5 * (6 * len(best.weights) - 1) / (2 * n)
    assert len(best.weights) <= 8
    assert found[4] > found[1] + 0.5


def test_a_round_of_expectation_maximisation_never_makes_the_rows_less_likely():
    x = torch.cat([drawn(150, 3), 0.2 * drawn(100, 3, seed=1) + 2])
    mixture, values = gaussian(x, 0.0).cut().cut(), []
    for _ in range(12):
        mixture, value = mixture.improved(x, 0.0)
        values.append(value)
    assert all(b >= a - 1e-10 for a, b in itertools.pairwise(values))
    assert mixture.score(x) == pytest.approx(law_of(mixture).log_prob(x).mean().item(), abs=1e-9)


def law_of(mixture: Mixture) -> df.GaussianMixture:
    return df.GaussianMixture(mixture.means, weights=mixture.weights, covariances=mixture.covariances)


def test_cutting_components_keeps_mean_and_covariance():
    mixture = Mixture(torch.tensor([0.3, 0.7], dtype=F64), drawn(2, 3), law(2, 3).covariances())

    def moments(m):
        mean = m.weights @ m.means
        second = torch.einsum("k,kde->de", m.weights, m.covariances + m.means[:, :, None] * m.means[:, None])
        return mean, second - mean[:, None] * mean

    for a, b in zip(moments(mixture), moments(mixture.cut()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_time_that_is_over_ends_the_fit():
    ticks = iter(range(10_000))
    x = drawn(400, 2)
    best, found = fit_mixture(x, x, 64, seconds=3, clock=lambda: float(next(ticks)))
    assert max(found) <= 4
    assert climbed(gaussian(x, 0.1), x, 0.1, lambda: True) is not None
    assert math.isfinite(best.score(x))


CONSTANT = torch.cat([drawn(200, 2), torch.full((200, 1), 3.0, dtype=F64)], 1)
STRANGE = {
    "two rows": drawn(2, 3),
    "one row": drawn(1, 3),
    "fewer rows than columns": drawn(12, 40),
    "a constant column": CONSTANT,
    "rows on a line": drawn(300, 1) @ torch.tensor([[1.0, -2.0, 0.5]], dtype=F64),
    "all rows alike": torch.ones(50, 2, dtype=F64),
    "few distinct rows": drawn(4, 2)[torch.arange(200) % 4],
    "one column": drawn(300, 1),
    "two hundred columns": drawn(100, 200),
    "a far outlier": torch.cat([drawn(200, 2), torch.tensor([[1e4, -1e4]], dtype=F64)]),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_rows_are_fitted_or_left_to_one_gaussian(name):
    x = STRANGE[name]
    skip = MixtureSkip(x.shape[1], room(64, x.shape[1], len(x)))
    said = skip.fit(x.float())
    assert "component" in said
    assert skip.fitted
    assert 1 <= skip.live <= max(1, len(x) // 3)
    y = (x + 0.05 * drawn(*x.shape, seed=3)).float()
    for sigma in (0.005, 0.05, 20.0):
        out = skip(y, torch.tensor(sigma))
        assert out.isfinite().all()
        assert (out - x).abs().max() <= (y - x).abs().max() + 2 * (x - x.mean(0)).abs().max() + 1


def test_room_is_for_what_rows_determine_and_evaluations_afford():
    assert room(128, 10, 10_000) == 128
    assert room(128, 10, 30) == 10
    assert room(128, 10, 1) == 1
    assert room(128, 200, 10_000) * 200**2 <= NUMBERS
    assert room(128, WIDEST, 10_000) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MixtureSkip(WIDEST + 1, 1), "columns"),
        (lambda: MixtureSkip(2, 0), "component"),
        (lambda: MixtureSkip(2, 2)(torch.zeros(3, 4), torch.tensor(1.0)), "shape"),
        (lambda: MixtureSkip(2, 1).hold([0.5, 0.5], torch.zeros(2, 2), torch.eye(2).repeat(2, 1, 1)), "1 to 1"),
        (lambda: MixtureSkip(2, 1).hold([1.0], torch.zeros(1, 2), torch.zeros(1, 2, 2)), "must be positive"),
        (lambda: MixtureSkip(2, 1).fit(torch.full((5, 2), math.nan)), "finite"),
    ],
)
def test_what_is_no_mixture_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# -- settings and training --------------------------------------------------------------------------------------------
META = {"shape": [2], "classes": None, "count": 500, "std": 1.0, "principal_std": 1.0}


def test_settings_refuse_what_it_is_not_for():
    ModelConfig(MLPConfig(), skip="mixture").build(META)
    with pytest.raises(ConfigError, match="vectors"):
        ModelConfig(MLPConfig(), skip="mixture").build(META | {"shape": [1, 8, 8]})
    with pytest.raises(ConfigError, match="UNetConfig"):
        ModelConfig(UNetConfig(), skip="mixture").build(META)
    with pytest.raises(ConfigError, match="beside"):
        ModelConfig(MLPConfig(beside=2)).build(META)
    with pytest.raises(ConfigError, match="components"):
        ModelConfig(MLPConfig(), components=0)


FAST = {
    "model.skip": "mixture", "model.components": 8, "model.net.width": 16, "model.net.depth": 1, "fit.batch": 32,
    "fit.tensorboard": False, "fit.sample_minutes": 1e6, "fit.holdout": 0.1, "fit.log_every": 2,
}  # fmt: skip


def test_a_run_is_fitted_once_and_its_mixture_travels_with_the_weights(tmp_path, capfd):
    q = law(2, 2)
    x = q.sample(400, df.Noise(0)).float()
    data = df.data.of(x, split="all")
    run = df.train(data, tmp_path / "run", steps=4, settings=FAST)
    said = capfd.readouterr().err
    assert said.count("a Gaussian mixture of") == 1
    assert run.denoiser.skip.fitted
    kept = {k: v.clone() for k, v in run.denoiser.skip.state_dict().items()}
    longer = df.train(data, tmp_path / "run", steps=8, resume=True)
    assert "a Gaussian mixture of" not in capfd.readouterr().err
    opened = df.load(tmp_path / "run")
    for other in (longer, opened):
        assert all(torch.equal(v, kept[k]) for k, v in other.denoiser.skip.state_dict().items())
        assert other.denoiser.skip.live == run.denoiser.skip.live
    # a few steps leave the net nearly silent: the run's density is about the mixture's, whatever the net is
    z = run.encode(x[:20])
    mixture = run.denoiser.skip.law().noised(1.0, run.config.sampling.sigma_min).log_prob(z.double())
    assert (run.log_prob(x[:20]).value.double() - mixture).abs().mean() < 0.5


def test_the_form_with_the_least_loss_goes_on_and_the_end_is_where_rows_aside_are_likeliest(tmp_path):
    q = law(4, 2, seed=3)
    data = df.data.of(q.sample(600, df.Noise(0)).float(), split="all")
    config = df.replace(
        preset("density").config,
        FAST | {"model.skip": "none", "loss.sigma_min": 0.015, "sampling.sigma_min": 0.015, "fit.minutes": 1.0},
    )
    lines = []
    best = choose_form(config, tmp_path, data, 0.2, say=lines.append)
    assert best.name == "mixture"  # after a fifth of a second the other knows nothing
    assert "mixture" in lines[0]
    assert "plain" in lines[0]
    run = choose_end(df.load(best.path), q.sample(60, df.Noise(9)).float(), (0.005, 0.015, 0.5), say=lines.append)
    assert run.config.sampling.sigma_min == 0.015  # .5 blurs, and .005 was never trained
    assert df.load(best.path).config.sampling.sigma_min == 0.015
    with pytest.raises(ConfigError, match="loss"):
        choose_form(config, tmp_path / "b", data, 0.2, {"low": {"loss.sigma_min": 0.05}})
