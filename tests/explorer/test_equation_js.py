"""The page's formulas are the library's: schedules, laws, kernels, and drift and noise of every landmark, to 1e-6."""

import math

import pytest
import torch

import diffflow as df
from diffflow.equation.kernels import KernelRatio

F64 = torch.float64
G = torch.Generator().manual_seed(0)
X = torch.randn(24, 2, generator=G, dtype=F64) * 1.5
SCHEDULES = ("EDM", "VE", "VP", "SubVP", "Cosine", "RectifiedFlow")
TIMES = (0.03, 0.4, 0.8, 0.99)


def exact(toy: str) -> df.GaussianMixture:
    """A toy in float64, from the means that float32 knows."""
    return df.TOYS[toy]().to(F64)


def close(found, expected: torch.Tensor, rel: float = 1e-6) -> None:
    found = torch.tensor(found, dtype=F64).reshape(expected.shape)
    torch.testing.assert_close(found, expected.to(F64), rtol=rel, atol=rel * float(expected.abs().max().clamp_min(1)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(ask, name: str) -> None:
    s = getattr(df, name)()
    times = [u * s.horizon for u in (0.0, *TIMES, 1.0)] + [s.clean_time]
    code = """const s = new E.SCHEDULES[given.name]();
        return { ends: [s.horizon, s.clean, s.sigmaMin, s.sigmaMax], at: given.times.map((t) => [s.sigma(t), s.scale(t), s.rate(t), s.lam2(t)]),
                 back: given.sigmas.map((v) => s.time(v)) };"""
    sigmas = [s.sigma_max, 3.0, 0.5, 0.01, s.sigma_min, 0.0]
    found = ask(code, {"name": name, "times": times[:-1], "sigmas": sigmas})
    close(found["ends"], torch.tensor([s.horizon, s.clean_time, s.sigma_min, s.sigma_max], dtype=F64), 1e-12)
    rows = [[float(f(t)) for f in (s.sigma, s.scale, s.rate, s.lam2)] for t in times[:-1]]
    for mine, theirs in zip(found["at"], rows, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    assert found["back"] == pytest.approx([float(s.time(v)) for v in sigmas], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("toy", sorted(df.TOYS))
def test_toys_are_the_same_laws(ask, toy: str) -> None:
    """The library's means are float32, whose rounding of 1e-7 a component of width s turns into 1e-7 |x - mean| / s^2."""
    q = exact(toy)
    code = """const q = T.TOYS[given.toy].make();
        return { means: [...q.means], cov: [...q.cov], weights: [...q.weights], spread: q.spread, narrowest: q.narrowest, mean: q.mean };"""
    found = ask(code, {"toy": toy})
    close(found["means"], q.means, 1e-6)
    c = q.covariances()
    close(found["cov"], torch.stack([c[:, 0, 0], c[:, 0, 1], c[:, 1, 1]], 1), 1e-6)
    close(found["weights"], q.weights, 1e-6)
    assert [found["spread"], found["narrowest"]] == pytest.approx([q.principal_std, q.narrowest], rel=1e-5)


LAW = "const q = new E.Mixture(given.means, given.cov, given.weights);"


def told(q: df.GaussianMixture) -> dict:
    c = q.covariances()
    cov = torch.stack([c[:, 0, 0], c[:, 0, 1], c[:, 1, 1]], 1)
    return {"means": q.means.flatten().tolist(), "cov": cov.flatten().tolist(), "weights": q.weights.tolist()}


@pytest.mark.parametrize("toy", ["8gaussians", "pinwheel", "checkerboard"])
@pytest.mark.parametrize(("scale", "sigma"), [(1.0, 0.0), (0.6, 0.3), (0.2, 5.0)])
def test_density_and_score(ask, toy: str, scale: float, sigma: float) -> None:
    q = exact(toy)
    r = q.noised(scale, sigma)
    code = (
        LAW + "const r = q.noised(given.scale, given.sigma); return [[...r.logProb(given.x)], [...r.score(given.x)]];"
    )
    found = ask(code, told(q) | {"scale": scale, "sigma": sigma, "x": X.flatten().tolist()})
    close(found[0], r.log_prob(X))
    close(found[1], r.score(X))


@pytest.mark.parametrize("h", [0.05, 0.4, 3.0])
def test_the_ratio_by_kernels(ask, h: float) -> None:
    """Kernels beyond 6 widths are left out, which is e^-18 = 1.5e-8 of a peak; a lone point has its nearest particle
    alone, where the sum has its neighbours as well: those are compared within the cloud only."""
    q, cloud = exact("8gaussians"), torch.randn(300, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    ratio = KernelRatio(q, h).observe(cloud, 0.0)
    logit, grad = ratio.value_and_grad(cloud, 0.0)
    code = (
        LAW
        + """const n = given.x.length, x = Float64Array.from(given.x), g = new Float64Array(n), l = new Float64Array(n / 2), p = new Float64Array(n), m = new Float64Array(n / 2);
        q.noised(1, given.h).evaluate(x, g, l);
        E.kernelDensity(x, x, given.h, p, m);
        return [[...l].map((v, i) => v - m[i]), [...g].map((v, i) => v - p[i])];"""
    )
    found = ask(code, told(q) | {"x": cloud.flatten().tolist(), "h": h})
    close(found[0], logit)
    close(found[1], grad)
    far = torch.tensor([[40.0, 0.0]], dtype=F64)
    code = (
        LAW
        + "const g = new Float64Array(2), l = new Float64Array(1); E.kernelDensity([40, 0], Float64Array.from(given.x), 0.05, g, l); return [...g, ...l];"
    )
    near = cloud[(cloud - far).norm(dim=1).argmin()]
    expected = torch.cat(
        [
            (near - far[0]) / 0.05**2,
            (-((near - far[0]).square().sum()) / (2 * 0.05**2) - math.log(300) - math.log(2 * math.pi * 0.05**2))[None],
        ]
    )
    close(ask(code, told(q) | {"x": cloud.flatten().tolist()}), expected)


# -- every landmark: the same setting by the library and by the page ---------------------------------------------------
def landmarks() -> dict:
    q = exact("8gaussians")
    p = df.GaussianMixture(torch.tensor([[0.3, -0.2], [-1.0, 0.5]], dtype=F64), torch.tensor([0.7, 1.1], dtype=F64))
    found = {}
    for name in SCHEDULES:
        s = getattr(df, name)()
        new = f"new E.{name}()"
        score, ratio = s.score(q), df.LawRatio(lambda t, s=s: s.law(q, t), lambda t: p)
        found |= {
            f"{name} probability flow": (df.probability_flow(s, score), f"E.probabilityFlow({new})"),
            f"{name} reverse SDE": (df.reverse_sde(s, score), f"E.reverseSDE({new})"),
            f"{name} EDM churn": (df.edm_churn(s, score, rate=0.7), f"E.edmChurn({new}, 0.7)"),
            f"{name} SLCD": (df.slcd(s, score, g2=lambda t, s=s: 1.5 * s.lam2(t)), f"((s) => E.slcd(s, (t) => 1.5 * s.lam2(t)))({new})"),
            f"{name} guided": (df.at(s, score, ratio, gan=1.0), f"E.at({new}, {{ gan: 1 }})"),
            f"{name} Diffusion-GAN": (df.diffusion_gan(s, score, ratio, gan=0.6, churn=0.8), f"E.diffusionGAN({new}, {{ gan: 0.6, churn: 0.8 }})"),
            f"{name} continued": (df.continued(df.at(s, score, ratio, gan=1.0, churn=0.5), -0.3), f"E.continued(E.at({new}, {{ gan: 1, churn: 0.5 }}), -0.3)"),
        }  # fmt: skip
    levels = df.Levels.geometric(3.0, 0.03, 5, 4)
    js = f"new E.Levels({list(levels.sigmas)}, 4)"
    fixed, cooled = df.LawRatio(lambda t: q, lambda t: p), df.VE(0.05, 1.0)
    moving = df.LawRatio(lambda t: cooled.law(q, t), lambda t: p)
    found |= {
        "Langevin": (df.langevin(q, 0.8, 5.0), "E.langevin({ beta: 0.8, horizon: 5 })"),
        "NCSN": (df.annealed_langevin(levels, levels.score(q)), f"E.annealedLangevin({js})"),
        "NCSN, continued": (df.continued(df.annealed_langevin(levels, levels.score(q)), -0.2), f"E.continued(E.annealedLangevin({js}), -0.2)"),
        "DiffODE": (df.gan_flow(fixed, 1.3), "E.ganFlow({ beta: 1.3 })"),
        "GAN": (df.gan_flow(fixed, df.Speed(lambda d: (-d).sigmoid())), 'E.ganFlow({ speed: E.SPEEDS["non-saturating"] })'),
        "GAN, saturating": (df.gan_flow(fixed, df.Speed(torch.sigmoid)), "E.ganFlow({ speed: E.SPEEDS.saturating })"),
        "Discriminator Flow": (df.discriminator_flow(fixed, df.Speed(lambda d: (-d).sigmoid()), 2.0), 'E.discriminatorFlow(E.SPEEDS["non-saturating"], 2)'),
        "improved GAN": (df.improved_gan(cooled, moving, 2.0), "E.improvedGAN(new E.VE(0.05, 1), 2)"),
        "between": (df.static(q, fixed, churn=0.3, beta=1.2, horizon=4.0, start=None), "E.fixed({ churn: 0.3, beta: 1.2, horizon: 4 })"),
        "between, continued": (df.continued(df.static(q, fixed, churn=0.3, horizon=4.0, start=None), -0.4), "E.continued(E.fixed({ churn: 0.3, horizon: 4 }), -0.4)"),
    }  # fmt: skip
    return {k: (q, p, sde, code) for k, (sde, code) in found.items()}


LANDMARKS = landmarks()


@pytest.mark.parametrize("name", sorted(LANDMARKS))
def test_drift_and_noise(ask, name: str) -> None:
    q, p, sde, js = LANDMARKS[name]
    times = [u * sde.horizon for u in TIMES]
    code = (
        LAW
        + f"""const sde = {js}, p = new E.Mixture(given.p.means, given.p.cov, given.p.weights), x = Float64Array.from(given.x);
        const r = (t) => sde.schedule ? q.noised(sde.schedule.scale(t), sde.schedule.sigma(t)) : q;
        const fields = {{ score: (x, t) => r(t).score(x), ratio: (x, t) => {{
            const a = new Float64Array(x.length), b = new Float64Array(x.length), la = new Float64Array(x.length / 2), lb = new Float64Array(x.length / 2);
            r(t).evaluate(x, a, la); p.evaluate(x, b, lb);
            return {{ grad: a.map((v, i) => v - b[i]), logit: la.map((v, i) => v - lb[i]) }};
        }} }};
        return given.times.map((t) => {{
            const parts = {{}}, drift = sde.drift(x, t, fields, parts);
            const sum = Object.values(parts).reduce((a, v) => a.map((s, i) => s + v[i]), new Float64Array(x.length));
            return [[...drift], sde.noise(t), [...sum], sde.needs(t)];
        }});"""
    )
    found = ask(code, told(q) | {"p": told(p), "x": X.flatten().tolist(), "times": times})
    for t, (drift, noise, parts, needs) in zip(times, found, strict=True):
        expected = sde.drift(X, t)
        close(drift, expected)
        close(parts, expected)  # the arrows of one particle add up to its drift
        assert noise == pytest.approx(float(sde.noise(t)), rel=1e-6, abs=1e-12)
        assert (needs["score"], needs["ratio"]) == tuple(sde.needs(t))


def test_a_noise_that_is_not_real_is_refused(ask) -> None:
    code = "try { new E.DiffFlow({ g2: () => 1, lam2: () => 2 }).noise(0.5); return null; } catch (e) { return e.message; }"
    assert "raise g2" in ask(code)


def test_equal_streams_give_equal_numbers_and_normal_ones(ask) -> None:
    code = """const a = new E.Random(3, 7).normals(20000), b = new E.Random(3, 7).normals(20000), c = new E.Random(3, 8).normals(20000);
        const mean = (v) => v.reduce((s, x) => s + x, 0) / v.length;
        return [a.every((v, i) => v === b[i]), mean(a), mean(a.map((v) => v * v)), mean(a.map((v, i) => v * c[i])), mean(a.map((v) => v ** 4))];"""
    same, mean, square, product, fourth = ask(code)
    assert same
    error = 4.5 / math.sqrt(20000)  # standard deviations of these averages: 1, sqrt 2, 1, sqrt 96
    assert abs(mean) < error
    assert abs(square - 1) < error * math.sqrt(2)
    assert abs(product) < error
    assert abs(fourth - 3) < error * math.sqrt(96)


@pytest.mark.parametrize(("spread", "h"), [(0.02, 0.12), (1.0, 0.12), (1.0, 0.3), (4.0, 1.2)])
def test_the_fast_density_is_the_exact_sum(ask, spread: float, h: float) -> None:
    """A grid of spacing h/4 errs by some (1/4)^2/6 = 1 % of second derivatives before its kernel is narrowed, by less
    after; most at a particle that is alone with its kernel."""
    cloud = torch.randn(2000, 2, generator=torch.Generator().manual_seed(2), dtype=F64) * spread
    cloud[:400] += 1.5
    at = torch.cat([cloud, cloud[:200] + 0.5 * h, torch.tensor([[30.0, -30.0]], dtype=F64)])
    code = """const { binnedDensity } = await import("/density.js"), x = Float64Array.from(given.x), at = Float64Array.from(given.at);
        return [binnedDensity, E.kernelDensity].map((f) => { const g = new Float64Array(at.length), l = new Float64Array(at.length / 2); f(at, x, given.h, g, l); return [[...g], [...l]]; });"""
    (g, l), (grad, logs) = ask(code, {"x": cloud.flatten().tolist(), "at": at.flatten().tolist(), "h": h})
    g, l, grad, logs = (torch.tensor(v, dtype=F64) for v in (g, l, grad, logs))
    assert (l - logs).square().mean().sqrt() < 0.01
    assert (l - logs).abs().max() < 0.06
    near = slice(0, -2)
    assert (g[near] - grad[near]).square().mean().sqrt() < 0.03 * grad[near].square().mean().sqrt()
    assert torch.equal(g[-2:], grad[-2:])  # far from everybody: the exact sum itself
