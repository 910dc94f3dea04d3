"""The Frechet distance against its closed forms, its standard error against fresh draws, and the classifier's eye."""

from __future__ import annotations

import math
import multiprocessing

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor, nn

from diffflow.data import load
from diffflow.metrics import (
    Classifier,
    LeNet5,
    confidence,
    embedding,
    fit_classifier,
    frechet,
    gaussian_frechet,
    kid,
    prdc,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(d: int, seed: int) -> Tensor:
    a = normal(d, d, seed=seed)
    return a @ a.T + 0.1 * torch.eye(d, dtype=torch.float64)


@examples(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_gaussians_have_their_w2(d: int, seed: int) -> None:
    m1, m2, c1, c2 = normal(d, seed=seed), normal(d, seed=seed + 1), covariance(d, seed), covariance(d, seed + 2)
    # tr (C1 C2)^(1/2) from the eigenvalues of the product: another road to the same number
    overlap = torch.linalg.eigvals(c1 @ c2).real.clamp_min(0).sqrt().sum()
    expected = float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * overlap)
    assert gaussian_frechet(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert gaussian_frechet(m2, c2, m1, c1) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert abs(gaussian_frechet(m1, c1, m1, c1)) < 1e-12 * d * float(c1.trace())


def test_commuting_and_singular_covariances() -> None:
    a, b = torch.tensor([4.0, 1.0, 0.0]), torch.tensor([1.0, 9.0, 2.25])
    zero = torch.zeros(3)
    found = gaussian_frechet(zero, a.diag(), zero + 2.0, b.diag())
    assert found == pytest.approx(3 * 4.0 + float((a.sqrt() - b.sqrt()).square().sum()), rel=1e-12)
    # a point against a Gaussian: |m|^2 + tr C
    assert gaussian_frechet(zero, torch.zeros(3, 3), zero + 1.0, b.diag()) == pytest.approx(3.0 + 12.25, rel=1e-12)


def test_an_affine_copy_moves_by_its_transport() -> None:
    x = normal(400, 3)
    width, shift = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64), torch.tensor([1.0, 0.0, -3.0])
    q, _ = torch.linalg.qr(x - x.mean(0))
    x = q * math.sqrt(399)  # sample covariance exactly I, so that the fitted Gaussians are known
    expected = float(shift.square().sum() + (width - 1).square().sum())
    assert frechet(x * width + shift, x).value == pytest.approx(expected, rel=1e-10)
    # turned samples have the same Gaussian
    turn, _ = torch.linalg.qr(normal(3, 3, seed=4))
    assert abs(frechet(x @ turn, x).value) < 1e-10


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 1.5), (0.3, 0.7), (0.0, 1.0)])
def test_standard_error_is_the_spread_over_fresh_draws(shift: float, scale: float) -> None:
    n, repeats = 400, 150
    found = [frechet(normal(n, 4, seed=k) * scale + shift, normal(2 * n, 4, seed=10_000 + k)) for k in range(repeats)]
    values = torch.tensor([m.value for m in found])
    ratio = float(torch.tensor([m.stderr for m in found]).mean() / values.std())
    # the spread itself is known to 1/sqrt(2 repeats) = 6 %; under equal laws theory gives sqrt 2
    expected = math.sqrt(2) if (shift, scale) == (0.0, 1.0) else 1.0
    assert abs(ratio / expected - 1) < 4 * 0.06
    true = 4 * shift**2 + 4 * (scale - 1) ** 2
    assert float(values.mean()) > true  # the bias is upward ...
    # ... and of order 1/n: mean part 4 (s^2/n + 1/2n), covariance part of the same order
    assert float(values.mean()) - true < 4 * 4 * 1.5 * max(1.0, scale**2) / n + 4 * float(values.std()) / repeats**0.5


def test_floor_takes_as_many_points_as_there_are_samples() -> None:
    real, held, samples = normal(3000, 5, seed=1), normal(900, 5, seed=2), normal(500, 5, seed=3)
    m = frechet(samples, real, held)
    assert m.n == 500
    assert m.floor is not None
    assert abs(m.value - m.floor) < 4 * m.stderr  # both are draws of one statistic
    assert frechet(samples, real, held, limit=100).n == 100
    assert frechet(samples, real, held).value == m.value


def test_features_are_what_the_last_layer_reads() -> None:
    # every other pixel: a Frechet distance of 512 features takes an eighth of the time of 1024
    digits, test = load("digits"), load("digits", "test")
    real, held = digits.x[..., ::2, ::2], test.x[..., ::2, ::2]
    judge = fit_classifier(real, digits.y, steps=150)
    see = embedding(judge)
    assert isinstance(judge.net, nn.Sequential)
    torch.testing.assert_close(judge.net[-1](see(real[:50])), judge.logits(real[:50]))
    assert torch.equal(see(real[:50]), see(real[:50].float() / 255))
    m = frechet(held[:250], real, held[250:], features=judge)
    assert m.floor is not None
    assert abs(m.value - m.floor) < 4 * math.sqrt(2) * m.stderr
    noise = torch.rand(250, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert frechet(noise, real, features=judge).value > 10 * m.floor
    assert frechet(held[:250], real, features=see).value == m.value


def test_lenet_shows_its_84_features() -> None:
    net = LeNet5().eval()
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(embedding(Classifier(net, None, 10, "lenet5"))(x), net.features(x).detach())


def test_confidence_is_the_mean_largest_probability() -> None:
    class Says(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0], -x[:, 0]], 1) + self.bias  # P(class 0) = sig(2 x)

    judge = Classifier(Says(), (1,), 2, "known")
    x = torch.tensor([[0.0], [1.0], [-1.0], [-30.0]])
    sure = [0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-2)), 1.0]
    m = confidence(x, judge, torch.zeros(5, 1))
    assert m.value == pytest.approx(sum(sure) / 4, rel=1e-6)
    assert m.floor == pytest.approx(0.5)
    assert m.stderr == pytest.approx(float(torch.tensor(sure).std()) / 2, rel=1e-5)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="at least two points"):
        frechet(normal(1, 2), normal(5, 2))
    judge = Classifier(nn.Linear(2, 2), (2,), 2, "line")
    with pytest.raises(ValueError, match="'line' shows no features"):
        frechet(normal(5, 2), normal(5, 2), features=judge)
    broken = normal(5, 2)
    broken[3, 1] = math.inf
    with pytest.raises(ValueError, match="1 of 5 samples are not finite"):
        frechet(broken, normal(5, 2))


def judged(batch: int, threads: int) -> list[float]:
    """Feature metrics of the same images, seen in batches of a size, with so many threads."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    eyes = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)), None, 3, "tiny")
    g = torch.Generator().manual_seed(1)
    x, y = (torch.randint(0, 256, (150, 1, 4, 4), generator=g, dtype=torch.uint8) for _ in range(2))
    x = x // 2
    see = embedding(eyes, batch)
    metrics = [frechet(see(x), see(y)), kid(see(x), see(y)), *prdc(see(x), see(y))]
    return [v for m in metrics for v in (m.value, m.stderr)]


def test_numbers_depend_neither_on_the_size_of_a_batch_nor_on_the_process() -> None:
    here = judged(512, torch.get_num_threads())
    assert judged(7, torch.get_num_threads()) == pytest.approx(here, rel=1e-5)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for elsewhere in pool.starmap(judged, [(64, 1), (64, 2)]):
            assert elsewhere == pytest.approx(here, rel=1e-5)
