"""Laws of the fields that need no training: each is minus the gradient of its functional, taken here by brute force
(derivations.md section 7, checks c5, e5, e6, e8, e9, e10)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffflow as df
from diffflow.equation.kernels import (
    KSD,
    MMD,
    SVGD,
    Drifting,
    EnergyKernel,
    GaussianKernel,
    Injected,
    InverseMultiquadric,
    Kernel,
    LaplaceKernel,
    SlicedWasserstein,
)
from diffflow.models.flows import MONOFLOWS

F64 = torch.float64
Q = df.GaussianMixture(
    torch.tensor([[-1.0, 0.2], [0.8, 0.5], [0.1, -1.0]], dtype=F64), [0.5, 0.4, 0.6], [0.5, 0.3, 0.2]
)
SMOOTH = [GaussianKernel(0.7), InverseMultiquadric(0.9)]
KERNELS = [*SMOOTH, LaplaceKernel(0.6), EnergyKernel()]


def points(n: int, seed: int, d: int = 2) -> torch.Tensor:
    return df.Noise(seed).normal(n, (d,), dtype=F64)


def value(kernel: Kernel, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """k(x_i, y_j), each kernel written out."""
    s = (x[:, None] - y[None]).square().sum(-1)
    r = torch.where(s > 0, torch.where(s > 0, s, 1.0).sqrt(), 0.0)
    if isinstance(kernel, GaussianKernel):
        return (-s / (2 * kernel.h**2)).exp()
    if isinstance(kernel, InverseMultiquadric):
        return 1 / (1 + s / kernel.h**2).sqrt()
    return (-r / kernel.h).exp() if isinstance(kernel, LaplaceKernel) else -r


def steepest(functional, x: torch.Tensor) -> torch.Tensor:
    """-n dF/dx_i: the velocity of a Wasserstein flow of F, of n particles."""
    y = x.clone().requires_grad_()
    return -len(x) * torch.autograd.grad(functional(y), y)[0]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_derivatives_of_kernels(kernel):
    s = torch.linspace(0.05, 4, 30, dtype=F64)
    orders = 3 if kernel in SMOOTH else 1
    found = kernel.derivatives(s, orders)
    x = torch.stack([s.sqrt(), torch.zeros_like(s)], 1)
    assert torch.allclose(found[0], value(kernel, x, torch.zeros(1, 2, dtype=F64))[:, 0], rtol=1e-12)
    if not isinstance(kernel, EnergyKernel):
        assert torch.allclose(kernel.log(s), found[0].log(), atol=1e-12)
    for k in range(orders):
        y = s.clone().requires_grad_()
        slope = torch.autograd.grad(kernel.derivatives(y, k)[k].sum(), y)[0]
        assert torch.allclose(found[k + 1], slope, rtol=1e-9), k


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_mmd_flow_is_the_gradient_of_half_mmd2(kernel):
    x, y = points(9, 0), points(14, 1) * 0.8 + 0.5

    def half_mmd2(x):
        return 0.5 * (value(kernel, x, x).mean() - 2 * value(kernel, x, y).mean() + value(kernel, y, y).mean())

    assert torch.allclose(MMD(y, kernel).observe(x, 0.0)(x, 0.0), steepest(half_mmd2, x), atol=1e-12)


@pytest.mark.parametrize("d", [2, 10])
@pytest.mark.parametrize("kernel", SMOOTH, ids=lambda k: type(k).__name__)
def test_ksd_flow_is_the_gradient_of_half_ksd2(kernel, d):
    """The Stein kernel term by term by automatic differentiation of k."""
    q = df.GaussianMixture(points(3, 5, d), [0.5, 0.4, 0.6])
    x = points(6, 2, d)

    def stein(a, b):  # k_q of two points
        a, b = (v if v.requires_grad else v.clone().requires_grad_() for v in (a, b))
        k = value(kernel, a[None], b[None]).sum()
        ka, kb = torch.autograd.grad(k, (a, b), create_graph=True)
        trace = sum(torch.autograd.grad(ka[i], b, create_graph=True)[0][i] for i in range(d))
        sa, sb = q.score(a[None])[0], q.score(b[None])[0]
        return sa @ sb * k + sa @ kb + sb @ ka + trace

    def half_ksd2(x):
        rows = [stein(x[i], x[j] if i != j else x[j].clone()) for i in range(len(x)) for j in range(len(x))]
        return 0.5 * torch.stack(rows).mean()

    field = KSD(df.LawScore(q), kernel).observe(x, 0.0)
    assert torch.allclose(field(x, 0.0), steepest(half_ksd2, x), rtol=1e-8, atol=1e-9)


def test_ksd_of_an_exact_sample_is_small():
    """KSD^2 of n exact draws is E k_q(x, x) / n in the mean (the V-statistic of a degenerate kernel), and of order 1
    for another law. For q = N(0, I): k_q = x.y k + 2 s k' - 4 k' - 4 s k''."""
    kernel, n = InverseMultiquadric(1.0), 1500

    def stein(x):
        s = (x[:, None] - x[None]).square().sum(-1)
        k = kernel.derivatives(s, 2)
        return x @ x.T * k[0] + 2 * s * k[1] - 4 * k[1] - 4 * s * k[2]

    x = points(n, 0)
    right, wrong = stein(x), stein(0.7 * x)
    assert right.mean() < 3 * right.diagonal().mean() / n
    assert wrong.mean() > 10 * right.mean()


@pytest.mark.parametrize("m", [12, 5, 31])
def test_sliced_wasserstein_flow_is_the_gradient_of_half_sw2(m):
    """W2^2 of projections with unequal numbers of points by the whole coupling, cut at both laws' jumps."""
    x, y = points(12, 3), points(m, 4) + 0.7
    field = SlicedWasserstein(y, 6, df.Noise(1)).observe(x, 0.25)
    theta = field.axes(x, 0.25)
    cuts = torch.unique(torch.cat([torch.arange(13, dtype=F64) / 12, torch.arange(m + 1, dtype=F64) / m]))
    mass, mid = cuts.diff(), (cuts[1:] + cuts[:-1]) / 2

    def half_sw2(x):
        a, b = (x @ theta).sort(0).values, (y @ theta).sort(0).values
        gap = a[(mid * 12).floor().long()] - b[(mid * m).floor().long()]
        return 0.5 * (mass[:, None] * gap.square()).sum(0).mean()

    assert torch.allclose(field(x, 0.25), steepest(half_sw2, x), atol=1e-12)
    assert torch.allclose(field(x.clone(), 0.25), field(x, 0.25), atol=1e-12)  # T by interpolation is T at the knots


def test_directions_come_in_orthonormal_sets_and_change_with_time():
    x = points(4, 0, 3)
    field = SlicedWasserstein(x, 8, df.Noise(1)).observe(x, 0.0)
    theta = field.axes(x, 0.5)
    assert theta.shape == (3, 8)
    for k in (0, 3):
        assert torch.allclose(theta[:, k : k + 3].T @ theta[:, k : k + 3], torch.eye(3, dtype=F64), atol=1e-12)
    assert torch.equal(theta, field.axes(x, torch.tensor(0.5, dtype=F64)))
    assert not torch.allclose(theta, field.axes(x, 0.6))
    assert not torch.allclose(theta, SlicedWasserstein(x, 8).on(x, df.Noise(2)).axes(x, 0.5))


def test_svgd_is_the_kernel_mean_of_score_and_repulsion():
    x, kernel = points(7, 6), GaussianKernel(0.8)
    got = SVGD(df.LawScore(Q), kernel).observe(x, 0.0)(x, 0.0)
    for j in range(7):
        y = x.clone().requires_grad_()
        k = value(kernel, y, x[j : j + 1])[:, 0]
        repulsion = torch.autograd.grad(k.sum(), y)[0]
        assert torch.allclose(got[j], (k.detach()[:, None] * Q.score(x) + repulsion).mean(0), atol=1e-12)


def test_svgd_at_the_target_is_zero_in_the_mean():
    """Stein's identity: E_q [k(x, .) s(x) + grad_x k(x, .)] = 0, within 4.5 standard errors at every place and axis."""
    n, at = 40_000, points(5, 7)
    x, kernel = Q.sample(n, df.Noise(8)), GaussianKernel(0.8)
    k = value(kernel, x, at)
    terms = k[..., None] * (Q.score(x)[:, None] - (x[:, None] - at) / kernel.h**2)
    got = SVGD(df.LawScore(Q), kernel).observe(x, 0.0)(at, 0.0)
    assert torch.allclose(got, terms.mean(0), atol=1e-10)
    assert (got.abs() < 4.5 * terms.std(0) / math.sqrt(n)).all()
    shifted = SVGD(df.LawScore(Q), kernel).observe(x + 0.3, 0.0)(at, 0.0)
    assert (shifted.abs() > 4.5 * terms.std(0) / math.sqrt(n)).any()


def test_drifting_with_a_gaussian_kernel_is_the_score_difference():
    x, y, h = points(9, 0), points(14, 1), 0.6
    got = Drifting(y, GaussianKernel(h), leave_one_out=False).observe(x, 0.0)(x, 0.0)
    scores = (df.Empirical(y).noised(1.0, h).score(x), df.Empirical(x).noised(1.0, h).score(x))
    assert torch.allclose(got, h**2 * (scores[0] - scores[1]), atol=1e-12)
    assert torch.allclose(got, h**2 * df.KernelRatio(y, h).observe(x, 0.0)(x, 0.0), atol=1e-12)
    others = Drifting(y, GaussianKernel(h)).observe(x, 0.0)(x, 0.0)  # the other generated samples alone
    for i in range(9):
        rest = df.Empirical(torch.cat([x[:i], x[i + 1 :]])).noised(1.0, h).score(x[i : i + 1])[0]
        assert torch.allclose(others[i], h**2 * (scores[0][i] - rest), atol=1e-12)


@pytest.mark.parametrize("kernel", [GaussianKernel(0.7), LaplaceKernel(0.4)], ids=lambda k: type(k).__name__)
def test_drifting_is_antisymmetric_and_rests_at_the_target(kernel):
    p, q, at = points(8, 0), points(11, 1) + 1, points(5, 2)
    there, back = Drifting(q, kernel).observe(p, 0.0)(at, 0.0), Drifting(p, kernel).observe(q, 0.0)(at, 0.0)
    assert torch.allclose(there, -back, atol=1e-12)
    assert torch.allclose(Drifting(p, kernel).observe(p, 0.0)(at, 0.0), torch.zeros_like(at), atol=1e-12)
    weights = value(kernel, at, q)
    pull = (weights[..., None] * (q[None] - at[:, None])).sum(1) / weights.sum(1, keepdim=True)
    push = value(kernel, at, p)
    push = (push[..., None] * (p[None] - at[:, None])).sum(1) / push.sum(1, keepdim=True)
    assert torch.allclose(there, pull - push, atol=1e-12)


# -- MonoFlow ---------------------------------------------------------------------------------------------------------
F = {  # D_f(p | q) = int q f(p / q)
    "kl": lambda w: w * w.log(),
    "reverse-kl": lambda w: -w.log(),
    "chi2": lambda w: (w - 1) ** 2,
    "reverse-chi2": lambda w: (w - 1) ** 2 / w,
    "js": lambda w: w * (2 * w / (w + 1)).log() + (2 / (w + 1)).log(),
    "mid": lambda w: (w + 1) * ((w + 1) / 2).log(),
    "hellinger": lambda w: (w.sqrt() - 1) ** 2,
}


@pytest.mark.parametrize("name", MONOFLOWS)
def test_monoflow_is_minus_the_gradient_of_the_first_variation(name):
    """v = -grad f'(p/q), by automatic differentiation of f and of the densities."""
    p = df.GaussianMixture(Q.means * 0.7 + 0.2, 0.7)
    x = points(20, 3).requires_grad_()
    w = (p.log_prob(x) - Q.log_prob(x)).exp()
    prime = torch.autograd.grad(F[name](w).sum(), w, create_graph=True)[0]
    exact = -torch.autograd.grad(prime.sum(), x)[0]
    sde = df.DiffFlow(None, df.LawRatio(lambda t: Q, lambda t: p), None, MONOFLOWS[name])
    assert torch.allclose(sde.drift(x.detach(), 0.0), exact, rtol=1e-9, atol=1e-12)


# -- flows ------------------------------------------------------------------------------------------------------------
def descend(field: df.Field, x: torch.Tensor, horizon: float, steps: int) -> list[torch.Tensor]:
    sde = df.DiffFlow(None, field, None, 1.0, horizon=horizon)
    return [state for _, state in df.sample(sde, x, steps, keep=1).kept]


def test_mmd_falls_along_its_flow():
    y, kernel = points(60, 1) * 0.5 + torch.tensor([1.0, 0.0], dtype=F64), GaussianKernel(1.0)

    def mmd2(x):
        return value(kernel, x, x).mean() - 2 * value(kernel, x, y).mean() + value(kernel, y, y).mean()

    heights = [mmd2(x).item() for x in descend(MMD(y, kernel), points(50, 0), 12.0, 60)]
    assert all(b < a for a, b in itertools.pairwise(heights))
    assert heights[-1] < 0.1 * heights[0]


def test_sliced_wasserstein_falls_along_its_flow():
    y = points(60, 1) * 0.5 + torch.tensor([1.0, 0.0], dtype=F64)
    theta = torch.stack([torch.tensor([math.cos(a), math.sin(a)], dtype=F64) for a in torch.linspace(0, 3.1, 60)], 1)

    def sw2(x):
        return ((x @ theta).sort(0).values - (y @ theta).sort(0).values).square().mean()

    heights = [sw2(x).item() for x in descend(SlicedWasserstein(y, 64), points(60, 0), 8.0, 40)]
    assert all(b < a for a, b in itertools.pairwise(heights[:20]))
    assert heights[-1] < 0.01 * heights[0]  # a shift alone would fall by exp(-2 * 8 / d) = 3e-4


def test_ksd_falls_along_its_flow():
    q, kernel = df.Gaussian(torch.tensor([0.5, 0.0], dtype=F64), 1.0), InverseMultiquadric(1.0)
    states = descend(KSD(df.LawScore(q), kernel), points(60, 0) * 0.4 - 1.0, 6.0, 60)
    assert (states[-1].mean(0) - q.mean).norm() < 0.1 * (states[0].mean(0) - q.mean).norm()
    assert 0.6 < states[-1].std() < 1.1  # from 0.4 (n = 60 particles settle a little inside)


def test_injected_noise_shifts_the_argument_and_nothing_else():
    y, x = points(30, 1), points(6, 0)
    field = Injected(MMD(y, GaussianKernel(0.5)), lambda t: 0.3 * (1 - t), df.Noise(5)).observe(x, 0.5)
    plain = MMD(y, GaussianKernel(0.5)).observe(x, 0.5)
    assert torch.equal(field(x, 0.5), field(x, 0.5))  # a function of (x, t)
    assert not torch.allclose(field(x, 0.5), plain(x, 0.5))
    assert torch.equal(field(x, 1.0), plain(x, 1.0))
    # its mean over the noise is the field of the convolved kernel: h^2 -> h^2 + level^2, (h^2 / (h^2 + l^2))^(d/2)
    n, level = 20_000, 0.15
    many = x[:1].expand(n, 2).contiguous()
    got = field(many, 0.5)
    wide = MMD(y, GaussianKernel(math.sqrt(0.25 + level**2))).observe(x, 0.5)(x[:1], 0.5)[0]
    assert ((got.mean(0) - wide * 0.25 / (0.25 + level**2)).abs() < 4.5 * got.std(0) / math.sqrt(n)).all()


# -- symmetries -------------------------------------------------------------------------------------------------------
def fields(y: torch.Tensor, shift: torch.Tensor | float = 0.0) -> dict[str, df.Field]:
    q = df.GaussianMixture(Q.means + shift, [0.5, 0.4, 0.6], [0.5, 0.3, 0.2])
    return {
        "svgd": SVGD(df.LawScore(q)),
        "ksd": KSD(df.LawScore(q)),
        "mmd": MMD(y + shift),
        "mmd-gaussian": MMD(y + shift, GaussianKernel()),
        "sliced": SlicedWasserstein(y + shift, 4),
        "drifting": Drifting(y + shift, LaplaceKernel(0.5)),
        "ratio": df.KernelRatio(y + shift, 0.5),
        "score": df.KernelScore(0.5, leave_one_out=True),
    }


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**20), shift=st.tuples(st.floats(-3, 3), st.floats(-3, 3)), n=st.integers(2, 12))
def test_fields_follow_permutations_and_translations(seed, shift, n):
    x, y, by = points(n, seed), points(7, seed + 1), torch.tensor(shift, dtype=F64)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved = fields(y, by)
    for name, field in fields(y).items():
        v = field.observe(x, 0.0)(x, 0.0)
        z = x[order]
        assert torch.allclose(field.observe(z, 0.0)(z, 0.0), v[order], atol=1e-9), name
        z = x + by
        assert torch.allclose(moved[name].observe(z, 0.0)(z, 0.0), v, atol=1e-7), name


def test_images_are_flattened():
    x, y = points(6, 0, 4), points(8, 1, 4)
    law = df.Gaussian(torch.zeros(4, dtype=F64))
    image = df.Gaussian(torch.zeros(1, 2, 2, dtype=F64))
    pairs = [
        (SVGD(df.LawScore(law)), SVGD(df.LawScore(image))),
        (KSD(df.LawScore(law)), KSD(df.LawScore(image))),
        *((make(y), make(y.reshape(8, 1, 2, 2))) for make in (MMD, SlicedWasserstein, Drifting)),
        (df.KernelRatio(y, 0.5), df.KernelRatio(y.reshape(8, 1, 2, 2), 0.5)),
    ]
    for flat, tall in pairs:
        z = x.reshape(6, 1, 2, 2)
        v = tall.observe(z, 0.0)(z, 0.0)
        assert v.shape == z.shape
        assert torch.allclose(v.flatten(1), flat.observe(x, 0.0)(x, 0.0), atol=1e-12)
