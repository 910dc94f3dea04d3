"""What every Field, Solver and Law of the house promises: shapes, types, purity, conditions, differentiability."""

import pytest
import torch

import diffflow as df

F64 = torch.float64
Q = df.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=F64), 0.3)
P = df.GaussianMixture(torch.tensor([[-0.5, 0.0]], dtype=F64), 0.8)
S = df.VP()


class Toy:
    """A conditional denoiser: the class moves the mean."""

    cost, spread = 1, 1.0

    def __init__(self, cond=None):
        self.cond = cond

    def given(self, cond):
        return Toy(cond)

    def __call__(self, y, sigma):
        shift = 0.0 if self.cond is None else self.cond.to(y)[:, None]
        v = sigma.to(y).reshape(-1, 1) ** 2
        return (y * 0.25 + shift * v) / (0.25 + v)


FIELDS = {
    "law": S.score(Q),
    "denoiser": S.score(Toy()),
    "static": df.LawScore(Q),
    "ratio": df.LawRatio(lambda t: Q, lambda t: P),
    "guided": df.guide(S.score(Toy()), 2.0),
    "sum": 0.5 * S.score(Q) - df.LawScore(P),
    "weighted": (lambda t: 1 + t) * S.score(Q),
    "piecewise": df.Piecewise([0.0, 0.5, 1.0], [df.LawScore(Q), df.LawScore(P)]),
    "kernel": df.KernelScore(0.4),
    "kernel ratio": df.KernelRatio(Q, 0.4),
}
LAWS = {
    "mixture": Q,
    "gaussian": df.Gaussian(torch.zeros(3)),
    "image": df.Gaussian(torch.zeros(1, 2, 2), 0.5),
    "points": df.Empirical(torch.rand(5, 2)).noised(1.0, 0.1),
    **{k: f() for k, f in df.TOYS.items()},
}
SOLVERS = [
    df.Euler(),
    df.Heun(),
    df.NoiseRaising(),
    *(df.Exponential(k) for k in (1, 2, 3, 4)),
    df.Exponential(4, selfstart=True),
]


@pytest.mark.parametrize("name", FIELDS)
def test_field(name):
    f = FIELDS[name]
    x = Q.sample(6, df.Noise(0))
    before = x.clone()
    seen = f.observe(x, 0.5)
    v = seen(x, 0.5)
    assert v.shape == x.shape
    assert v.dtype == x.dtype
    assert torch.isfinite(v).all()
    assert torch.equal(v, seen(x, 0.5))
    assert torch.equal(x, before)
    assert torch.equal(v, seen(x, torch.tensor(0.5, dtype=F64)))
    y = x.clone().requires_grad_(True)
    assert torch.autograd.grad(f.observe(x, 0.5)(y, 0.5).sum(), y)[0].shape == x.shape  # differentiable in x
    assert isinstance(f.given(None), df.Field)
    assert isinstance(f.cost, int)
    if not f.cloud:
        assert torch.allclose(v[2:5], seen(x[2:5], 0.5))  # particles do not see each other


@pytest.mark.parametrize("name", ["law", "denoiser", "ratio", "weighted", "piecewise"])
def test_fields_take_one_time_per_particle(name):
    x, t = Q.sample(4, df.Noise(0)), torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=F64)
    assert torch.allclose(FIELDS[name](x, t), torch.cat([FIELDS[name](x[i : i + 1], t[i]) for i in range(4)]))


def test_conditions_reach_the_denoiser_and_guidance_extrapolates():
    x, labels = Q.sample(4, df.Noise(0)), torch.tensor([0, 1, 2, 3])
    free, cond = S.score(Toy())(x, 0.5), S.score(Toy()).given(labels)(x, 0.5)
    assert torch.allclose(df.guide(S.score(Toy()), 1.0).given(labels)(x, 0.5), cond)
    assert torch.allclose(df.guide(S.score(Toy()), 0.0).given(labels)(x, 0.5), free)
    assert torch.allclose(df.guide(S.score(Toy()), 3.0).given(labels)(x, 0.5), free + 3 * (cond - free))
    assert df.guide(S.score(Toy()), 3.0).cost == 2
    assert (
        df.sample(df.at(S, S.score(Toy())), x, 5, cond=labels).last != df.sample(df.at(S, S.score(Toy())), x, 5).last
    ).any()


def test_the_same_sampler_for_a_law_and_its_denoiser():
    """A score from D(y, sigma) equals the score from the law that D belongs to."""
    for s in (df.EDM(), df.VP(), df.RectifiedFlow()):
        x, t = s.law(Q, 0.7 * s.horizon).sample(5, df.Noise(0)), 0.7 * s.horizon
        assert torch.allclose(s.score(lambda y, sigma: Q.denoise(y, sigma))(x, t), s.score(Q)(x, t), rtol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_solver(solver, dtype):
    q = Q.to(dtype)
    x = S.law(q, 0.0).sample(5, df.Noise(0))
    before = x.clone()
    for churn in (0.0, 1.0):
        sde = df.at(S, S.score(q), churn=churn)
        a = df.sample(sde, x, 9, solver=solver, noise=df.Noise(3), keep=3)
        b = df.sample(sde, x, 9, solver=solver, noise=df.Noise(3))
        assert torch.equal(a.last, b.last)
        assert torch.equal(x, before)
        assert a.last.shape == x.shape
        assert a.last.dtype == dtype
        assert torch.isfinite(a.last).all()
        assert a.times.dtype == F64
        assert [t for t, _ in a.kept] == a.times[[0, 3, 6, 9]].tolist()
    assert solver.order >= 1
    assert solver.weak_order >= 1


@pytest.mark.parametrize("name", LAWS)
def test_law(name):
    q = LAWS[name]
    x = q.sample(6, df.Noise(0))
    assert x.shape == (6, *q.shape)
    assert torch.equal(x[2:4], q.sample(2, df.Noise(0, first=2)))
    assert q.log_prob(x).shape == (6,)
    assert q.score(x).shape == x.shape
    assert q.denoise(x, 0.3).shape == x.shape
    assert q.noised(0.5, 0.2).sample(2).shape == (2, *q.shape)
    assert q.spread > 0
    assert q.narrowest > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda sde: df.sample(sde, 4, 0), "steps=0"),
        (lambda sde: df.sample(sde, 4, 2.5), "steps=2.5"),
        (lambda sde: df.sample(sde, 0, 4), "x0=0"),
        (lambda sde: df.sample(sde, 4, grid=[0.0, 0.5, 0.4]), "rising"),
        (lambda sde: df.sample(sde, 4, grid=[0.0, 5.0]), "outside"),
        (lambda sde: df.sample(sde, 4, 5, keep=0), "keep=0"),
        (lambda sde: df.sample(df.at(S, S.score(Toy())), 4, 5), "sde.start"),
        (lambda sde: df.sample(df.langevin(Q, start=Q), 4, 500, solver=df.Exponential()), "noise schedule"),
        (lambda sde: df.Exponential(5), "order=5"),
        (lambda sde: df.annealed_langevin(df.Levels((1.0, 0.5)), S.score(Q), rate=2.5), "rate=2.5"),
        (lambda sde: df.continued(sde, 0.1), "lam2 < 0"),
        (lambda sde: df.static(Q, None, churn=1.5, horizon=1.0, start=Q), "churn=1.5"),
    ],
)
def test_bad_calls_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(df.probability_flow(S, S.score(Q)))


def test_annealed_langevin_reaches_the_target():
    """Every level's stationary law is inflated by 1/(1 - rate/2) at most; the last denoising step removes the last
    level's noise."""
    levels = df.Levels.geometric(3.0, 0.02, 24, steps=40)
    sde = df.annealed_langevin(levels, levels.score(Q), rate=0.15)
    tr = df.sample(sde, 3000, noise=df.Noise(2))
    assert tr.nfe == 24 * 40 + 1
    r = tr.last - Q.means[torch.cdist(tr.last, Q.means).argmin(1)]
    assert (
        abs(r.std().item() / 0.3 - 1) < 0.05
    )  # (1 - rate/2)^(-1/2) = 1.04 on components narrower than the level; less here
    share = (torch.cdist(tr.last, Q.means).argmin(1) == 0).double().mean().item()
    assert abs(share - 0.5) < 0.08  # finite mixing between the two components
