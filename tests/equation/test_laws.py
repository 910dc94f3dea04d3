"""Laws answer exactly: densities integrate to one, scores are their gradients, sampling agrees with both, noising is
convolution."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffflow as df

F64 = torch.float64


def random_mixture(seed: int, d: int, k: int, form: str) -> df.GaussianMixture:
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(k, d, generator=g, dtype=F64)
    weights = torch.rand(k, generator=g, dtype=F64) + 0.2
    if form == "full":
        a = torch.randn(k, d, d, generator=g, dtype=F64)
        return df.GaussianMixture(means, weights=weights, covariances=a @ a.mT / d + 0.05 * torch.eye(d, dtype=F64))
    if form == "factors":
        return df.GaussianMixture(means, 0.3, weights, factors=torch.randn(k, d, min(2, d), generator=g, dtype=F64))
    return df.GaussianMixture(means, torch.rand(k, generator=g, dtype=F64) + 0.1, weights)


MIXTURES = st.builds(
    random_mixture,
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from(["isotropic", "full", "factors"]),
)


@given(q=MIXTURES, sigma=st.floats(0.01, 10), scale=st.floats(0.05, 3))
@settings(max_examples=40, deadline=None)
def test_against_dense_gaussians(q, sigma, scale):
    """The low-rank algebra equals torch's dense multivariate normals, noised and scaled."""
    d = q.means.shape[1]
    covariance = scale**2 * (q.covariances() + sigma**2 * torch.eye(d, dtype=F64))
    dense = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(q.weights), torch.distributions.MultivariateNormal(scale * q.means, covariance)
    )
    r = q.noised(scale, sigma)
    x = r.sample(8, df.Noise(1)) * 1.3
    assert torch.allclose(r.log_prob(x), dense.log_prob(x), atol=1e-8)
    x.requires_grad_(True)
    assert torch.allclose(r.score(x), torch.autograd.grad(r.log_prob(x).sum(), x)[0], atol=1e-7)


@given(q=MIXTURES, sigma=st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_tweedie(q, sigma):
    """D = y + sigma^2 score, for one sigma or one per row; noising twice is noising once."""
    y = q.noised(1.0, sigma).sample(6, df.Noise(2))
    d = q.denoise(y, sigma)
    assert torch.allclose(d, y + sigma**2 * q.score(y, sigma), atol=1e-9 * sigma**2 + 1e-9)
    assert torch.allclose(d, q.denoise(y, torch.full((6,), sigma, dtype=F64)), atol=1e-12)
    assert torch.allclose(
        q.noised(2.0, 0.3).noised(0.5, 0.2).log_prob(y), q.noised(1.0, math.hypot(0.3, 0.1)).log_prob(y), atol=1e-9
    )


def test_many_narrow_components_keep_their_density_in_float32():
    """The fast branch for large mixtures cancels nothing: float32 against float64, std .002 in 64-D."""
    means = torch.randn(100, 64, generator=torch.Generator().manual_seed(0), dtype=F64)
    q = df.GaussianMixture(means, 0.002)
    x = q.to(torch.float32).sample(20, df.Noise(0))
    exact = df.GaussianMixture(means.float().double(), 0.002).log_prob(x.double())
    assert (
        q.to(torch.float32).log_prob(x).double() - exact
    ).abs().max() < 1e-2  # float32's own 1e-7 of differences / std


@given(q=MIXTURES)
@settings(max_examples=20, deadline=None)
def test_spread_and_narrowest_are_the_extreme_principal_stds(q):
    m = q.means - q.mean
    covariance = torch.einsum("k,kd,ke->de", q.weights, m, m) + torch.einsum("k,kde->de", q.weights, q.covariances())
    assert q.principal_std == pytest.approx(torch.linalg.eigvalsh(covariance)[-1].sqrt().item(), rel=1e-9)
    assert q.narrowest == pytest.approx(torch.linalg.eigvalsh(q.covariances()).min().sqrt().item(), rel=1e-6)


@pytest.mark.parametrize("form", ["isotropic", "full", "factors"])
def test_samples_have_the_moments(form):
    q, n = random_mixture(3, 3, 3, form), 40000
    x = q.sample(n, df.Noise(5))
    m = q.means - q.mean
    covariance = torch.einsum("k,kd,ke->de", q.weights, m, m) + torch.einsum("k,kde->de", q.weights, q.covariances())
    assert ((x.mean(0) - q.mean).abs() < 4.5 * (covariance.diagonal() / n).sqrt()).all()
    products = (x - q.mean)[:, :, None] * (x - q.mean)[:, None, :]
    assert ((products.mean(0) - covariance).abs() < 4.5 * products.std(0) / math.sqrt(n)).all()


@pytest.mark.parametrize("name", df.TOYS)
def test_toys_are_densities_on_the_plane(name):
    """Each integrates to one, its samples have the entropy of its density, and it fits the usual window."""
    q = df.TOYS[name]().to(F64)
    h = 0.015 if q.narrowest < 0.04 else 0.04  # the lattice rule's error decays like exp(-2 (pi std / h)^2)
    a = torch.arange(-3.2, 3.2, h, dtype=F64)
    p = torch.cat([q.log_prob(torch.cartesian_prod(b, a)).exp() for b in a.split(40)])
    assert abs(p.sum().item() * h**2 - 1) < 1e-3
    entropy = -(torch.xlogy(p, p)).sum().item() * h**2
    logs = q.log_prob(q.sample(4000, df.Noise(0)))
    assert abs(logs.mean().item() + entropy) < 4.5 * logs.std().item() / math.sqrt(4000) + 2e-3
    assert 0.5 < q.principal_std < 2


def test_25_gaussians_is_the_papers_lattice():
    q = df.TOYS["25gaussians"]()
    assert len(q.means) == 25
    assert q.floor.sqrt()[0].item() == pytest.approx(0.05 / 2.828)
    assert torch.cdist(q.means, q.means).fill_diagonal_(9).min().item() == pytest.approx(2 / 2.828, rel=1e-6)


def test_checkerboard_is_flat_inside_and_empty_outside():
    q = df.TOYS["checkerboard"]().to(F64)
    inside = torch.tensor([[-1.5, -1.5], [0.5, 0.5], [0.3, 0.6], [1.4, -0.5]], dtype=F64)
    assert torch.allclose(q.log_prob(inside).exp(), torch.full((4,), 1 / 8, dtype=F64), rtol=0.01)
    assert q.log_prob(torch.tensor([[0.5, -0.5], [-0.5, 0.5]], dtype=F64)).max() < -8


def test_empirical_is_its_points():
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0]])
    q = df.Empirical(points)
    x = q.sample(500, df.Noise(0))
    assert set(map(tuple, x.tolist())) == set(map(tuple, points.tolist()))
    with pytest.raises(ValueError, match="no density"):
        q.log_prob(points)
    assert torch.allclose(q.noised(1.0, 0.01).score(points), torch.zeros(3, 2), atol=1e-3)


def test_event_shapes_are_kept():
    q = df.Empirical(torch.rand(7, 1, 4, 4))
    assert q.sample(3).shape == (3, 1, 4, 4)
    assert q.denoise(torch.rand(5, 1, 4, 4), 0.3).shape == (5, 1, 4, 4)
    assert q.noised(0.5, 0.1).log_prob(torch.rand(5, 1, 4, 4)).shape == (5,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: df.GaussianMixture(torch.zeros(3)), "shape"),
        (lambda: df.GaussianMixture(torch.zeros(2, 2), -0.1), "negative"),
        (lambda: df.GaussianMixture(torch.zeros(2, 2), 0.1, [1.0, -1.0]), "weights"),
        (
            lambda: df.GaussianMixture(torch.zeros(1, 2), covariances=torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])),
            "positive definite",
        ),
        (lambda: df.GaussianMixture(torch.zeros(1, 2), factors=torch.zeros(1, 3, 1)), "factors"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
