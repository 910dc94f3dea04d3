"""Which law do particles have when the discriminator is exact? Gaussian targets and starts keep everything Gaussian,
so that p_t solves two ordinary equations (derivations.md eq. 9) and every claim can be checked by moments, without
samples.

The drift of the code is linear in x here; its matrix and offset are read off by probing it, and the moments of the
process it defines follow from  dm = A m + b,  dC = A C + C A' + noise^2 I.
"""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import diffflow as df
from diffflow.equation.spectrum import diffusion_gan, discriminator_flow, gan_flow, improved_gan
from diffflow.sampling.exponential import step_per_particle

F64 = torch.float64
Q = df.Gaussian(torch.tensor([0.4, -0.7], dtype=F64), covariance=torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=F64))
WRONG = df.Gaussian(torch.tensor([1.5, 1.0], dtype=F64), covariance=torch.tensor([[2.0, -0.6], [-0.6, 0.9]], dtype=F64))
SCHEDULES = [df.EDM(0.05, 2.0), df.VP(sigma_min=0.05, sigma_max=2.0)]
IDS = [type(s).__name__ for s in SCHEDULES]
STEPS = 60
Moments = tuple[Tensor, Tensor]


def law(moments: Moments) -> df.Gaussian:
    return df.Gaussian(moments[0], covariance=moments[1])


def moments(q: df.GaussianMixture) -> Moments:
    return q.mean, q.covariances()[0]


def kl(p: Moments, r: Moments) -> float:
    (m, C), (mu, S) = p, r
    inverse = torch.linalg.inv(S)
    gap = (mu - m) @ inverse @ (mu - m)
    return 0.5 * ((inverse @ C).trace() + gap - len(m) + torch.logdet(S) - torch.logdet(C)).item()


def fisher(p: Moments, r: Moments) -> float:
    """E_p |grad log p/r|^2."""
    (m, C), (mu, S) = p, r
    D = torch.linalg.inv(C) - torch.linalg.inv(S)
    return ((D @ C @ D).trace() + (torch.linalg.inv(S) @ (mu - m)).square().sum()).item()


def of_sde(sde: df.DiffFlow, t: float, p: Moments) -> Moments:
    """(dm, dC) at moments p of the process that the code's drift and noise define."""
    probe = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.3, -2.1]], dtype=F64)
    at = sde.drift(probe, t)
    b, A = at[0], (at[1:3] - at[0]).T
    torch.testing.assert_close(at[3], A @ probe[3] + b)  # linear indeed
    return A @ p[0] + b, A @ p[1] + p[1] @ A.T + sde.noise(t) ** 2 * torch.eye(2, dtype=F64)


def evolve(rate, p: Moments, times: Tensor) -> list[Moments]:
    """Runge-Kutta of order 4 for the moments: their values at all times."""
    out, step = [p], lambda p, d, h: (p[0] + h * d[0], p[1] + h * d[1])
    for t0, t1 in pairwise(times.tolist()):
        h, mid = t1 - t0, 0.5 * (t0 + t1)
        k1 = rate(t0, p)
        k2 = rate(mid, step(p, k1, h / 2))
        k3 = rate(mid, step(p, k2, h / 2))
        k4 = rate(t1, step(p, k3, h))
        p = step(p, tuple((a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True)), h)
        out.append(p)
    return out


def kl_rate(s: df.Schedule, t: float, p: Moments, d: Moments) -> float:
    """d KL(p_t | r_t)/dt where the moments move at the rate d: a central difference, exact to h^2 = 1e-8."""
    h = 1e-4 / abs(s.log_sigma_rate(t).item())
    ahead = kl((p[0] + h * d[0], p[1] + h * d[1]), moments(s.law(Q, t + h)))
    behind = kl((p[0] - h * d[0], p[1] - h * d[1]), moments(s.law(Q, t - h)))
    return (ahead - behind) / (2 * h)


def equation_nine(s: df.Schedule, beta, t: float, p: Moments) -> Moments:
    """derivations.md eq. (9) with lam2 the schedule's own: free of g, of scores and of samples."""
    (m, C), (mu, S) = p, moments(s.law(Q, t))
    a, lam2, inverse, eye = s.rate(t), s.lam2(t), torch.linalg.inv(S), torch.eye(2, dtype=F64)
    dC = 2 * a * C - beta(t) * (inverse @ C + C @ inverse) + (2 * beta(t) - lam2) * eye
    return a * m - beta(t) * inverse @ (m - mu), dC


def times(s: df.Schedule) -> Tensor:
    """Equal ratios of sigma down to sigma_min."""
    return df.log_uniform(s, STEPS + 1)[:-1]


def halved(grid: Tensor) -> Tensor:
    """The grid with the midpoints that Runge-Kutta visits."""
    out = torch.empty(2 * len(grid) - 1, dtype=F64)
    out[::2], out[1::2] = grid, 0.5 * (grid[:-1] + grid[1:])
    return out


def exact_path(s: df.Schedule, total: float, grid: Tensor) -> dict[float, Moments]:
    """p_t of eq. (9) from the wrong start with gan + churn = total, at the times of `halved(grid)`."""
    rate = partial(equation_nine, s, lambda t: 0.5 * (1 + total) * s.lam2(t))
    return dict(zip(halved(grid).tolist(), evolve(rate, moments(WRONG), halved(grid)), strict=True))


def exact_ratio(s: df.Schedule, path: dict[float, Moments]) -> df.LawRatio:
    return df.LawRatio(lambda t: s.law(Q, t), lambda t: law(path[float(t)]))


@pytest.mark.parametrize("s", SCHEDULES, ids=IDS)
@pytest.mark.parametrize("total", [0.0, 1.0, 3.0])
def test_equal_gan_plus_churn_is_an_equal_law(s, total):
    """Whatever part of the sum is the log-ratio's and whatever the noise's; and d KL/dt = -(beta - lam2/2) I (eq. 5).
    KL therefore stays as it is at 0."""
    grid = times(s)
    path = exact_path(s, total, grid)
    end, ratio = path[grid[-1].item()], exact_ratio(s, path)
    # order 4; the fastest rate is that of d log C, (1 + total) per unit of log sigma
    error = ((1 + total) * math.log(2.0 / 0.05) / STEPS) ** 4
    for gan, churn in {(total, 0.0), (total / 2, total / 2), (0.0, total)}:
        sde = df.at(s, s.score(Q), ratio, gan=gan, churn=churn)
        for a, b in zip(evolve(partial(of_sde, sde), moments(WRONG), grid)[-1], end, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=error)
        for t in grid[5::25].tolist():
            p, r = path[t], moments(s.law(Q, t))
            fall = 0.5 * total * s.lam2(t).item() * fisher(p, r)
            assert math.isclose(kl_rate(s, t, p, of_sde(sde, t, p)), -fall, rel_tol=1e-4, abs_tol=1e-6)


@pytest.mark.parametrize("s", SCHEDULES, ids=IDS)
def test_more_gan_plus_churn_forgets_a_wrong_start_sooner(s):
    grid, target = times(s), moments(s.law(Q, s.horizon))
    left = [kl(exact_path(s, total, grid)[grid[-1].item()], target) for total in (0.0, 1.0, 2.0, 4.0)]
    assert all(b < 0.75 * a for a, b in pairwise(left)), left


@pytest.mark.parametrize("s", SCHEDULES, ids=IDS)
@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_the_gan_dial_suppresses_the_error_of_a_wrong_score(s, churn):
    """With a score of the wrong law and the exact ratio of the process's own law, KL falls as the dial rises, within
    the bound d KL/dt <= -kappa I/2 + E|delta|^2 / (2 kappa) (eq. 8)."""
    lie = df.Gaussian(torch.tensor([0.9, -0.2], dtype=F64), covariance=0.8 * torch.eye(2, dtype=F64))
    grid, left = times(s), []
    for gan in (0.5, 2.0, 8.0):

        def rate(t: float, p: Moments, gan: float = gan) -> Moments:
            ratio = df.LawRatio(lambda t: s.law(Q, t), lambda t: law(p))
            return of_sde(diffusion_gan(s, s.score(lie), ratio, gan=gan, churn=churn), t, p)

        path = evolve(rate, moments(s.law(Q, 0.0)), grid)
        left.append(kl(path[-1], moments(s.law(Q, s.horizon))))
        for i in range(5, STEPS, 25):
            t, p, r, wrong = grid[i].item(), path[i], moments(s.law(Q, grid[i])), moments(s.law(lie, grid[i]))
            # kappa = beta - lam2/2; delta = g2/2 (wrong score - score), linear in x
            kappa, half = 0.5 * (gan + churn) * s.lam2(t).item(), 0.5 * (1 + churn) * s.lam2(t).item()
            P, R = torch.linalg.inv(wrong[1]), torch.linalg.inv(r[1])
            offset = P @ (wrong[0] - p[0]) - R @ (r[0] - p[0])
            delta2 = half**2 * (((R - P) @ p[1] @ (R - P).T).trace() + offset.square().sum()).item()
            bound = -0.5 * kappa * fisher(p, r) + delta2 / (2 * kappa)
            assert kl_rate(s, t, p, rate(t, p)) <= bound + 1e-6 * abs(bound)
    assert all(b < a for a, b in pairwise(left)), left
    assert left[-1] < 0.1 * left[0]


@pytest.mark.parametrize("s", SCHEDULES, ids=IDS)
def test_particles_of_the_sampler_have_that_law(s):
    """10000 particles stepped by Heun with the exact ratio end in the moments of eq. (9), within their own error."""
    n, grid = 10_000, df.log_uniform(s, 61)[:-1]
    path = exact_path(s, 1.0, grid)
    (m, C), ratio = path[grid[-1].item()], exact_ratio(s, path)
    std = C.diagonal().sqrt()
    for gan, churn in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0)):
        sde = diffusion_gan(s, s.score(Q), ratio, gan=gan, churn=churn) if gan else df.at(s, s.score(Q), churn=churn)
        x = df.sample(sde, WRONG.sample(n, df.Noise(3)), grid=grid, solver=df.Heun(), noise=df.Noise(4)).last
        # 4.5 standard errors, and Heun's weak error of order 2 with steps of log(40)/60 in log sigma
        assert ((x.mean(0) - m).abs() < 4.5 * std / math.sqrt(n) + 2e-3).all()
        assert ((x.std(0) / std - 1).abs() < 4.5 / math.sqrt(2 * n) + 2e-3).all()


# -- the rows without a schedule --------------------------------------------------------------------------------------
class Linear(df.Ratio):
    """logit = a x - b |x|^2/2 + c t, so that all particles move linearly at unit speed."""

    def __init__(self, a: float = 0.7, b: float = 1.5, c: float = 0.3) -> None:
        self.a, self.b, self.c = a, b, c

    def value_and_grad(self, x, t):
        flat = x.reshape(len(x), -1)
        t = torch.as_tensor(t, dtype=x.dtype)
        return (self.a * flat - 0.5 * self.b * flat**2).sum(1) + self.c * t, self.a - self.b * x


def test_rows_of_particle_flows_are_their_coefficients():
    x, ratio, start = df.Noise(1).normal(5, (2,), dtype=F64), Linear(), WRONG
    logit, grad = ratio.value_and_grad(x, 0.4)
    sigmoid = df.Speed(lambda d: torch.sigmoid(-d))
    speed = torch.sigmoid(-logit)[:, None]
    s = df.VE(0.01, 1.0)
    rows = [
        (gan_flow(ratio, 0.8, horizon=3.0, start=start), 0.8 * grad, "goodfellow2014"),
        (gan_flow(ratio, sigmoid), speed * grad, "goodfellow2014"),
        (gan_flow(ratio, lambda t: 1 + 2 * t), 1.8 * grad, "goodfellow2014"),
        (discriminator_flow(ratio, sigmoid, 3.0, start), 3 * speed * grad, "franceschi2023"),
        (improved_gan(s, ratio, 1.7, start), 1.7 * grad, None),
        (improved_gan(s, ratio, sigmoid, start), speed * grad, None),
    ]
    for sde, drift, paper in rows:
        torch.testing.assert_close(sde.drift(x, 0.4), drift, rtol=1e-12, atol=0)
        torch.testing.assert_close(sde.velocity(x, 0.4), drift, rtol=1e-12, atol=0)
        assert sde.noise(0.4).item() == 0
        assert sde.needs(0.4) == (False, True)
        assert sde.papers == ((paper,) if paper else ())
        assert df.sample(sde, x, steps=7).nfe == 14  # a gradient counts twice
        loud = df.continued(sde, -0.09)
        torch.testing.assert_close(loud.drift(x, 0.4), drift, rtol=1e-12, atol=0)
        assert math.isclose(loud.noise(0.4).item(), 0.3)
    assert [sde.horizon for sde, _, _ in rows] == [3.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert rows[4][0].schedule == s
    assert not rows[4][0].on_schedule


def test_the_flow_at_unit_speed_descends_kl_at_the_rate_of_lemma_one():
    """gan_flow with the exact ratio of its own law: d KL/dt = -beta I, and the law is Langevin's."""
    r, grid, beta = moments(Q), torch.linspace(0, 1.5, 101, dtype=F64), 0.8

    def rate(t: float, p: Moments) -> Moments:
        return of_sde(gan_flow(df.LawRatio(lambda t: Q, lambda t: law(p)), beta, horizon=1.5), t, p)

    path = evolve(rate, moments(WRONG), grid)
    langevin = evolve(lambda t, p: of_sde(df.langevin(Q, beta, 1.5), t, p), moments(WRONG), grid)
    for a, b in zip(path[-1], langevin[-1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    I = torch.tensor([fisher(p, r) for p in path], dtype=F64)
    drop = beta * (grid[2] / 6 * (I[:-1:2] + 4 * I[1::2] + I[2::2])).sum().item()
    assert math.isclose(kl(path[0], r) - kl(path[-1], r), drop, rel_tol=1e-4)


def test_a_kernel_of_the_cloud_is_a_gan_flow_too():
    """Particles pushed by the kernel log-ratio alone reach a target they started apart from."""
    q = df.Gaussian(torch.tensor([1.0, -1.0], dtype=F64), 0.7)
    x0 = df.Noise(2).normal(400, (2,), dtype=F64) * 0.5
    sde = gan_flow(df.KernelRatio(q, 0.4), horizon=4.0)
    x = df.sample(sde, x0, steps=200).last
    assert (x.mean(0) - q.mean).abs().max() < 0.05
    assert sde.cloud
    assert sde.needs(0.0) == (False, True)


@pytest.mark.parametrize("name", ["slcd", "continued"])
def test_learned_scores_serve_slcd_and_the_continuation(name):
    """A network as the source of the score: same drift as written out, and a run that is finite and has the nfe it
    says."""
    from diffflow.networks.backbones.mlp import MLP

    torch.manual_seed(0)
    s, D = df.EDM(0.05, 2.0), df.Denoiser(MLP(2, width=16, depth=1), 0.8)
    torch.nn.init.normal_(D.net.leave.weight, std=0.3)
    score, x, t = s.score(D), df.Noise(1).normal(6, (2,)), 1.1
    g2 = lambda t: 1.5 * s.lam2(t)
    sde = (
        df.slcd(s, score, g2=g2)
        if name == "slcd"
        else df.continued(df.probability_flow(s, score), lambda t: -s.lam2(t))
    )
    with torch.no_grad():
        sigma = s.sigma(t).float()
        S = (D(x, sigma) - x) / sigma**2
        half = (0.75 if name == "slcd" else 0.5) * s.lam2(t).item()
        torch.testing.assert_close(sde.drift(x, t), half * S)
        assert math.isclose(
            sde.noise(t).item() ** 2, (0.5 if name == "slcd" else 2.0) * s.lam2(t).item(), rel_tol=1e-12
        )
        tr = df.sample(sde, 64, steps=10, noise=df.Noise(2)) if sde.start else df.sample(sde, 2 * x, steps=10)
    assert tr.nfe == 10
    assert tr.last.isfinite().all()


# -- particles with clocks of their own -------------------------------------------------------------------------------
@pytest.mark.parametrize("s", SCHEDULES, ids=IDS)
def test_a_step_of_each_is_the_exponential_step_of_all(s):
    """Scalar dials: step_per_particle at times (n,) is Exponential(order=1, correct=False), on to the clean data."""
    ratio = df.LawRatio(lambda t: Q.noised(1.0, 1.0), lambda t: WRONG)
    solver, grid, x = df.Exponential(order=1, correct=False), df.snr_grid(s, 9), WRONG.sample(6, df.Noise(1))
    for gan, churn in ((0.0, 0.0), (1.5, 0.0), (0.7, 0.6), (0.0, 1.0)):
        sde = df.at(s, s.score(Q), ratio, gan=gan, churn=churn)
        a, each = x, torch.arange(6) % 2 == 0
        for k in range(9):
            t0, t1 = grid[k].item(), grid[k + 1].item()
            xi = df.Noise(5).fork(k).normal(6, (2,), dtype=F64)
            dw = xi * math.sqrt(t1 - t0) if churn and k < 8 else None
            b, _ = solver.step(sde, a, t0, t1, dw, solver.init(sde, a, t0))
            one = torch.full((6,), t0, dtype=F64), torch.full((6,), t1, dtype=F64)
            torch.testing.assert_close(step_per_particle(sde, a, *one, xi), b, rtol=1e-11, atol=1e-11)
            # particles at other times do not matter, nor do dials given one by one
            other = torch.where(each, t0, grid[3]), torch.where(each, t1, grid[4])
            k_each, z_each = torch.full((6,), gan), torch.full((6,), churn)
            dials = df.at(s, s.score(Q), ratio, gan=lambda t, k=k_each: k, churn=lambda t, z=z_each: z)
            mixed = step_per_particle(dials, a, *other, xi)
            torch.testing.assert_close(mixed[each], b[each], rtol=1e-6, atol=1e-6)
            a = b


def test_a_step_of_each_is_eulers_without_a_schedule():
    sde = df.continued(gan_flow(Linear(), lambda t: 1 + t, horizon=2.0), -0.25)
    x, t0 = df.Noise(1).normal(6, (2,), dtype=F64), torch.linspace(0, 1.5, 6, dtype=F64)
    h, xi = torch.linspace(0.1, 0.4, 6, dtype=F64), df.Noise(2).normal(6, (2,), dtype=F64)
    out = step_per_particle(sde, x, t0, t0 + h, xi)
    for i in range(6):
        a, b = t0[i].item(), (t0 + h)[i].item()
        own, _ = df.Euler().step(sde, x[i : i + 1], a, b, xi[i : i + 1] * math.sqrt(b - a), None)
        torch.testing.assert_close(out[i : i + 1], own, rtol=1e-12, atol=1e-12)


def test_impossible_rows_are_refused_by_name():
    s, score, ratio = df.EDM(), df.EDM().score(Q), Linear()
    with pytest.raises(ValueError, match=r"eta=0"):
        discriminator_flow(ratio, df.Speed(torch.ones_like), 0.0)
    with pytest.raises(ValueError, match=r"horizon=-1"):
        gan_flow(ratio, horizon=-1.0)
    with pytest.raises(ValueError, match=r"gan=0.*reverse_sde"):
        diffusion_gan(s, score, ratio, gan=0.0)
    with pytest.raises(ValueError, match=r"VP shrinks the data"):
        improved_gan(df.VP(), ratio)
