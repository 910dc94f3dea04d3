"""Fields of the cloud: mean shift by brute force, and Lemma 1: the flow of the kernel ratio lowers KL at the rate of
the Fisher divergence."""

import itertools
import math

import pytest
import torch

import diffflow as df
from diffflow.equation import kernels
from diffflow.equation.kernels import kernel as pairs
from diffflow.models import flows

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


# -- contracts of the cloud fields ------------------------------------------------------------------------------------
POINTS = torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
LAW = df.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=F64), 0.4)
FIELDS = {
    "svgd": kernels.SVGD(df.LawScore(LAW)),
    "ksd": kernels.KSD(df.LawScore(LAW)),
    "mmd": kernels.MMD(POINTS),
    "mmd laplace": kernels.MMD(POINTS, kernels.LaplaceKernel()),
    "sliced": kernels.SlicedWasserstein(POINTS, 5),
    "drifting": kernels.Drifting(POINTS),
    "ratio": df.KernelRatio(POINTS, lambda t: 0.5 - 0.2 * float(t)),
    "injected": kernels.Injected(kernels.MMD(POINTS), 0.2),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_the_cloud_keeps_its_promises(name):
    f = FIELDS[name]
    x = LAW.sample(6, df.Noise(0))
    with pytest.raises(RuntimeError, match="observe"):
        f(x, 0.5)
    seen = f.observe(x, 0.5)
    v = seen(x, 0.5)
    assert f.cloud
    assert (v.shape, v.dtype) == (x.shape, x.dtype)
    assert torch.equal(v, seen(x, torch.tensor(0.5, dtype=F64)))  # a function of x and t, no hidden state
    with torch.no_grad():
        assert torch.equal(v, seen(x, 0.5))
    y = (x + 0.3).requires_grad_()  # away from the cloud, where every kernel is smooth
    slope = torch.autograd.grad(seen(y, 0.5).sum(), y)[0]
    e = torch.zeros_like(x)
    e[2, 1] = 1e-6
    ahead, behind = seen(x + 0.3 + e, 0.5), seen(x + 0.3 - e, 0.5)
    assert slope[2, 1].item() == pytest.approx((ahead - behind).sum().item() / 2e-6, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["mmd", "mmd laplace", "sliced", "drifting", "injected"])
def test_single_precision_is_kept(name):
    x = LAW.sample(6, df.Noise(0))
    z = x.float()
    single = FIELDS[name].observe(z, 0.5)(z, 0.5)
    assert single.dtype == torch.float32
    if name not in ("sliced", "injected"):  # whose random numbers differ with the type
        assert torch.allclose(single.double(), FIELDS[name].observe(x, 0.5)(x, 0.5), atol=1e-4)


@pytest.mark.parametrize("name", ["mmd", "sliced", "drifting", "ratio", "injected"])
def test_on_puts_other_points_in_the_place_of_the_target(name):
    f, x = FIELDS[name], LAW.sample(6, df.Noise(0))
    other = POINTS + 2
    moved = f.on(other, df.Noise(3)).observe(x, 0.0)(x, 0.0)
    assert torch.equal(moved, f.on(other, df.Noise(3)).observe(x, 0.0)(x, 0.0))
    assert not torch.allclose(moved, f.observe(x, 0.0)(x, 0.0))
    if name in ("sliced", "injected"):
        assert not torch.allclose(moved, f.on(other, df.Noise(4)).observe(x, 0.0)(x, 0.0))
    assert torch.equal(FIELDS["svgd"].on(other).observe(x, 0.0)(x, 0.0), FIELDS["svgd"].observe(x, 0.0)(x, 0.0))


def test_blocks_change_the_memory_and_not_the_field(monkeypatch):
    x = LAW.sample(6, df.Noise(0))
    whole = {name: f.observe(x, 0.3)(x, 0.3) for name, f in FIELDS.items()}
    monkeypatch.setattr(pairs, "PAIRS", 20)
    for name, f in FIELDS.items():
        assert torch.allclose(f.observe(x, 0.3)(x, 0.3), whole[name], atol=1e-12), name


def test_the_median_heuristic():
    """On the line 0, 1, 2, 3, 4 the median of the ten distances is 2: h^2 = 4 / (2 log 6)."""
    line = torch.arange(5, dtype=F64)[:, None]
    assert kernels.median_bandwidth(line) == pytest.approx(2 / math.sqrt(2 * math.log(6)))
    assert kernels.GaussianKernel().fitted(3 * line).h == pytest.approx(6 / math.sqrt(2 * math.log(6)))
    assert kernels.GaussianKernel(lambda t: 2 - float(t)).fitted(line, 0.5).h == 1.5
    with pytest.raises(ValueError, match="apart"):
        kernels.median_bandwidth(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: kernels.GaussianKernel(0.0), "bandwidth=0"),
        (lambda: kernels.GaussianKernel().h, "fitted"),
        (lambda: kernels.MMD(LAW), "law.sample"),
        (lambda: kernels.MMD(torch.zeros(0, 2)), r"\(0, 2\)"),
        (lambda: kernels.SlicedWasserstein(POINTS, 0), "directions=0"),
        (lambda: kernels.MMD(POINTS).observe(torch.zeros(3, 4), 0.0)(torch.zeros(3, 4), 0.0), "cannot go"),
        (lambda: FIELDS["drifting"].observe(POINTS[:1], 0.0), "at least two"),
        (lambda: kernels.Drifting(POINTS, kernels.EnergyKernel()).observe(POINTS, 0.0), "EnergyKernel"),
        (lambda: kernels.KSD(df.LawScore(LAW), kernels.LaplaceKernel(1.0)).observe(POINTS, 0.0), "not smooth"),
    ],
)
def test_what_cannot_be_meant(make, words):
    def ask():
        field = make()
        field(field.particles, 0.0)

    with pytest.raises(ValueError, match=words):
        ask()


# -- the table of flows -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", flows.FLOWS)
def test_every_flow_finds_a_plain_target(name):
    """Two modes with weights 0.3 and 0.7 in the plane: means and share within what 200 particles can show."""
    q = df.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.2, [0.3, 0.7])
    sde, x0, steps = flows.build(name, q, particles=200)
    assert flows.FLOWS[name].papers == sde.papers
    assert sde.cite()
    assert sde.cloud == (name not in ("langevin", "ncsn", "continuation"))
    x = df.sample(sde, x0, steps, noise=0).last
    assert x.isfinite().all()
    near = torch.cdist(x, q.means).min(1)
    assert near.values.mean() < (0.6 if name == "continuation" else 0.35)  # 0.25 for exact samples
    if name not in ("langevin", "ksd"):  # one stays in the nearest mode, the other cannot weigh modes that lie apart
        assert abs((near.indices == 0).float().mean().item() - 0.3) < 0.15


def test_a_staircase_of_levels_moves_a_step_by_its_pace():
    """Langevin at level sigma_k, time pace sigma_k^2: x + pace (D - x) + sqrt(2 pace) sigma_k xi."""
    cooling = flows.Cooling.geometric(2.0, 0.1, 5, 0.25, rest=0.4)
    assert cooling.sigmas == pytest.approx((2.0, 2 * 0.05**0.5, 0.1, 0.1, 0.1))
    for k, sigma in enumerate(cooling.sigmas):
        t0, t1 = cooling.grid[k : k + 2]
        assert t1 - t0 == pytest.approx(0.25 * sigma**2)
        assert cooling.sigma(t0).item() == cooling.sigma(0.5 * (t0 + t1)).item() == sigma
    x = LAW.sample(4, df.Noise(0))
    sde = df.static(cooling.score(LAW), None, churn=1.0, horizon=9.0, start=None)
    moved, _ = df.Euler().step(sde, x, 0.0, 1.0, None, None)  # without its noise
    assert torch.allclose(moved, x + 0.25 * (LAW.denoise(x, 2.0) - x))


def test_flows_that_cannot_be_built():
    with pytest.raises(ValueError, match="no flow called 'svdg'"):
        flows.build("svdg", LAW)
    with pytest.raises(ValueError, match="needs the score"):
        flows.build("svgd", POINTS)
    with pytest.raises(ValueError, match="particles=1"):
        flows.build("mmd", POINTS, particles=1)


def test_who_leaves_itself_out_needs_others_and_its_place():
    one = POINTS[:1]
    for field in (kernels.KernelScore(0.3, leave_one_out=True), kernels.KernelRatio(POINTS, 0.3, leave_one_out=True)):
        with pytest.raises(ValueError, match="needs at least two"):
            field.observe(one, 0.0)(one, 0.0)
    # shifted by noise a particle is none of the cloud: it would flee from its own place
    for field in (kernels.Drifting(POINTS), kernels.FieldSum([kernels.MMD(POINTS), kernels.Drifting(POINTS)])):
        with pytest.raises(ValueError, match="leave_one_out=False"):
            kernels.Injected(field, 0.1)
    kernels.Injected(kernels.Drifting(POINTS, leave_one_out=False), 0.1)


def test_directions_of_micro_batches_are_others():
    """A direction belongs to a step, not to a particle: neighbouring batches must not share all but a few of theirs."""
    x = torch.zeros(8, 8)
    first, second = (kernels.SlicedWasserstein(x, 64).on(x, df.Noise(1, k)).axes(x, 0.0) for k in (0, 8))
    cosines = (first.T @ second).abs()
    assert (cosines > 1 - 1e-6).sum() == 0
