"""One stream per particle: the same bits in any batch, shard and order; and the right law."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import diffflow as df


@given(
    seed=st.integers(0, 2**63),
    first=st.integers(0, 2**40),
    n=st.integers(1, 70),
    batch=st.sampled_from([1, 7, 64]),
    m=st.integers(1, 9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60)
def test_bits_do_not_depend_on_the_batch(seed, first, n, batch, m, dtype):
    noise = df.Noise(seed, first)
    for draw in (
        lambda v, k: v.normal(k, (m,), dtype=dtype),
        lambda v, k: v.uniform(k, (m,), dtype=dtype),
        lambda v, k: v.randint(k, 10, (m,)),
    ):
        whole = draw(noise, n)
        parts = torch.cat([draw(noise.shift(i), min(batch, n - i)) for i in range(0, n, batch)])
        assert torch.equal(whole, parts)


def test_bits_do_not_depend_on_blocks_or_threads():
    """Large draws are made in blocks; one particle alone gives the same bits."""
    big = df.Noise(3).normal(5000, (3, 4, 5))
    for i in (0, 1, 272, 273, 274, 4999):
        assert torch.equal(big[i], df.Noise(3, first=i).normal(1, (3, 4, 5))[0])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(big, df.Noise(3).normal(5000, (3, 4, 5)))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_samples_do_not_depend_on_the_batch_or_the_shard(batch, churn):
    """Bit-identical noise; the particles agree to 1e-5 (sums inside a field may round differently with the batch)."""
    q, s = df.TOYS["8gaussians"](), df.EDM()
    sde = df.reverse_sde(s, s.score(q), churn=churn)
    whole = df.sample(sde, 64, 30, noise=df.Noise(5)).last
    parts = torch.cat(
        [df.sample(sde, min(batch, 64 - i), 30, noise=df.Noise(5, first=i)).last for i in range(0, 64, batch)]
    )
    assert (whole - parts).abs().max() < 1e-5


def test_normal_law():
    z = df.Noise(17).normal(200_000, (2,), dtype=torch.float64)
    for j in range(2):
        assert stats.kstest(z[:, j].numpy(), "norm").pvalue > 1e-5
    n = z.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean().item() - moment) < 4.5 * math.sqrt(variance / n)
    radius = z.square().sum(1)  # the two halves of one word are independent: an exponential radius
    assert stats.kstest(radius.numpy(), "expon", (0, 2)).pvalue > 1e-5
    assert abs((z[:, 0] * z[:, 1]).mean().item()) < 4.5 / math.sqrt(200_000)
    for lag in (1, 2, 7):
        assert abs((z[lag:] * z[:-lag]).mean().item()) < 4.5 / math.sqrt(n - 2 * lag)


def test_forks_are_independent_and_repeatable():
    a, b, c = (df.Noise(0).fork(*k).normal(50_000) for k in (("step", 0), ("step", 1), ("start",)))
    assert torch.equal(a, df.Noise(0).fork("step").fork(0).normal(50_000))
    for x, y in ((a, b), (a, c), (b, c)):
        assert abs((x * y).mean().item()) < 4.5 / math.sqrt(50_000)
    assert not torch.equal(df.Noise(0).fork(1).normal(5), df.Noise(0).fork("1").normal(5))


def test_uniform_is_open_and_uniform():
    for dtype in (torch.float32, torch.float64):
        u = df.Noise(1).uniform(300_000, dtype=dtype)
        assert u.min() > 0
        assert u.max() < 1
        assert stats.kstest(u.double().numpy(), "uniform").pvalue > 1e-5
    k = torch.bincount(df.Noise(1).randint(100_000, 7), minlength=7)
    assert stats.chisquare(k.numpy()).pvalue > 1e-5


def test_negative_first_is_refused():
    with pytest.raises(ValueError, match="first=-1"):
        df.Noise(0, first=-1)
