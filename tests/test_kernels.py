"""Fields of the cloud: mean shift by brute force, and Lemma 1: the flow of the kernel ratio lowers KL at the rate of
the Fisher divergence."""

import itertools
import math

import pytest
import torch

import diffflow as df

F64 = torch.float64


def test_kernel_score_is_mean_shift_leaving_oneself_out():
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    h = 0.7
    got = df.KernelScore(h, leave_one_out=True).observe(x, 0.0)(x, 0.0)
    for i in range(7):
        others = torch.cat([x[:i], x[i + 1 :]])
        assert torch.allclose(got[i], df.Empirical(others).noised(1.0, h).score(x[i : i + 1])[0], atol=1e-10)
    blurred = df.Empirical(x).noised(1.0, h)
    assert torch.allclose(df.KernelScore(h).observe(x, 0.0)(x, 0.0), blurred.score(x), atol=1e-10)
    elsewhere = x + 0.1  # points that are not the cloud: nobody is left out
    assert torch.allclose(
        df.KernelScore(h, leave_one_out=True).observe(x, 0.0)(elsewhere, 0.0), blurred.score(elsewhere), atol=1e-10
    )


def test_an_unseen_cloud_is_an_error():
    with pytest.raises(RuntimeError, match="observe"):
        df.KernelScore(0.3)(torch.zeros(2, 2), 0.0)
    with pytest.raises(ValueError, match="bandwidth=0"):
        df.KernelScore(0.0)


def test_sums_forward_the_door():
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    total = 0.5 * df.KernelScore(0.4) - df.LawScore(df.Gaussian(torch.zeros(2, dtype=F64)))
    assert total.cloud
    assert torch.allclose(total.observe(x, 0.0)(x, 0.0), 0.5 * df.KernelScore(0.4).observe(x, 0.0)(x, 0.0) + x)


def test_lemma_1_on_particles():
    """dKL/dt = -beta I between the blurred laws' Gaussians. With kernels of width h, Gaussians stay Gaussian: m' =
    -m/(1+h^2), C' = 2 C (1/(C+h^2) - 1/(1+h^2)) for the target N(0, 1): the cloud follows that closed form, and its
    KL falls all the way."""
    h, n, horizon = 0.3, 1500, 1.0
    q, start = df.Gaussian(torch.zeros(1, dtype=F64), 1.0), df.Gaussian(torch.tensor([1.5], dtype=F64), 0.6)
    sde = df.static(None, df.KernelRatio(q, h), churn=0.0, horizon=horizon, start=start)
    tr = df.sample(sde, n, 40, solver=df.Heun(), noise=df.Noise(1), keep=4)
    m, c, kls = 1.5, 0.36, []
    fine = 400
    for t, x in tr.kept:
        mean, var = x.mean().item(), x.var().item()
        if t == 0:
            m, c = mean, var  # the closed form starts from the drawn cloud: no sampling error enters at the start
        kls.append(0.5 * (var + mean**2 - 1 - math.log(var)))
        if t < horizon - 1e-9:
            for _ in range(fine // 10):
                dt = horizon / fine
                m, c = m - dt * m / (1 + h**2), c + dt * 2 * c * (1 / (c + h**2) - 1 / (1 + h**2))
            expected = (m, c)
    assert abs(mean - expected[0]) < 0.03
    assert abs(var - expected[1]) < 0.06
    assert all(b < a for a, b in itertools.pairwise(kls)), kls
    assert kls[-1] < 0.3 * kls[0]


def test_the_gan_dial_works_with_a_kernel_ratio():
    """On a schedule from a wrong start, the score alone keeps a trace of the error; gan > 0 with the cloud's own
    ratio removes part of it."""
    q, s = df.Gaussian(torch.zeros(2, dtype=F64), 0.5), df.EDM(sigma_min=0.2, sigma_max=1.0)
    wrong = df.Gaussian(torch.tensor([1.0, 0.0], dtype=F64), 1.1)
    x0 = wrong.sample(800, df.Noise(0))
    grid = lambda s, n: df.log_uniform(s, n)[:-1]
    bias = []
    for gan in (0.0, 2.0):
        sde = df.at(s, s.score(q), df.KernelRatio(lambda t: s.law(q, t), 0.15), gan=gan)
        bias.append(df.sample(sde, x0, 40, grid=grid, solver=df.Heun()).last[:, 0].mean().item())
    # exact: the gap of the means shrinks by sqrt(v1/v0) on the ODE and by its cube at gan = 2 (kappa = lam2), v =
    # 0.25 + sigma^2
    phi = math.sqrt(0.29 / 1.25)
    assert bias[0] == pytest.approx(phi * x0[:, 0].mean().item(), abs=0.01)
    assert bias[1] < 0.45 * bias[0]
