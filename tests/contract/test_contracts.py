"""What every Field, Solver, Law and Objective of the house promises: shapes, types, purity, conditions,
differentiability, whose turn it is and where randomness comes from."""

import copy
import math

import pytest
import torch

import diffflow as df
from diffflow.equation import kernels
from diffflow.networks.backbones.discriminator import MLPDiscriminator, Stages
from diffflow.networks.backbones.generator import MLPGenerator
from diffflow.networks.backbones.mlp import MLP
from diffflow.networks.discriminator import Discriminator
from diffflow.networks.games import GAMES, Penalty
from diffflow.networks.generator import FewSteps, Generator
from diffflow.objectives.base import Batch, InTurn
from diffflow.objectives.discriminator_path import PathDiscriminator
from diffflow.objectives.follow_velocity import FollowVelocity
from diffflow.objectives.movers.adversarial import DiscriminatorMover
from diffflow.objectives.movers.base import TeacherFirst, WeightedSum
from diffflow.objectives.movers.cloud import CloudMover
from diffflow.objectives.movers.endpoints import EndpointDistillation
from diffflow.objectives.movers.score_difference import DMD, ScoreDifference, SiD
from diffflow.objectives.paths import ParticlePath, SchedulePath
from diffflow.objectives.score_matching import ScoreMatching

F64 = torch.float64
Q = df.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=F64), 0.3)
P = df.GaussianMixture(torch.tensor([[-0.5, 0.0]], dtype=F64), 0.8)
S = df.VP()


class Toy:
    """A conditional denoiser: the class moves the mean."""

    cost, principal_std = 1, 1.0

    def __init__(self, cond=None):
        self.cond = cond

    def given(self, cond):
        return Toy(cond)

    def __call__(self, y, sigma):
        shift = 0.0 if self.cond is None else self.cond.to(y)[:, None]
        v = sigma.to(y).reshape(-1, 1) ** 2
        return (y * 0.25 + shift * v) / (0.25 + v)


def discriminator(classes=0, dials=0, timed=True):
    torch.manual_seed(0)
    return Discriminator(MLPDiscriminator(2, classes, width=8, depth=1, embed=8, timed=timed, dials=dials))


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
    "critic": discriminator().double().ratio(),
    "critic of a class": discriminator(classes=3).double().ratio(cond=1),
    "critic with dials": discriminator(dials=2).double().ratio(dials=torch.tensor([0.5, 1.0])),
    "svgd": kernels.SVGD(df.LawScore(Q)),
    "mmd": kernels.MMD(Q.sample(9, df.Noise(1))),
    "ksd": kernels.KSD(df.LawScore(Q)),
    "sliced wasserstein": kernels.SlicedWasserstein(Q.sample(9, df.Noise(1)), 8),
    "drifting": kernels.Drifting(Q.sample(9, df.Noise(1))),
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


@pytest.mark.parametrize("name", ["law", "denoiser", "ratio", "weighted", "piecewise", "critic"])
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
    assert q.principal_std > 0
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


# -- objectives -------------------------------------------------------------------------------------------------------
VANILLA = GAMES["vanilla"]
R1 = Penalty(real=0.1, between=0.1)
POINTS = torch.zeros(2, 2)


def denoiser(classes):
    made = df.Denoiser(MLP(2, classes, 8, 1, 8), 1.0, 1.0)
    with torch.no_grad():  # a fresh net ends in zeros: any two of them agree
        for p in made.parameters():
            p += 0.1 * torch.randn_like(p)
    return made


def generate(classes, mover, steps=1):
    return FollowVelocity(Generator(MLPGenerator(3, 2, classes, 8, 1), (2,)), mover, 0.5, steps)


def on_schedule(classes, score=None):
    path = SchedulePath(df.EDM(0.01, 5.0), score or denoiser(classes), df.Gaussian(POINTS[0], 5.0), (2, 4))
    return PathDiscriminator(discriminator(classes, dials=3), path, VANILLA, R1, size=12)


def flow(ratio):
    return df.discriminator_flow(ratio, VANILLA.speed, 1.0, df.Gaussian(POINTS[0]))


def cooled(ratio):
    return df.continued(df.improved_gan(df.VE(0.1, 1.0), ratio, 1.0, df.Gaussian(POINTS[0])), -0.1)


def joint(classes):
    score = denoiser(classes)
    return InTurn([ScoreMatching(score), on_schedule(classes, score)])


def from_denoiser(classes):
    start = FewSteps(denoiser(classes), df.Plan.multistep([2.0]), (2,))
    return FollowVelocity(Generator(start, (2,)), ScoreDifference(denoiser(classes), denoiser(classes), updates=2))


def distilled(classes):
    net = FewSteps(denoiser(classes), df.Plan.multistep([2.0, 0.5]), (2,))
    ends = EndpointDistillation(
        Generator(FewSteps(denoiser(classes), df.Plan.multistep([4.0, 1.0, 0.1], 2), (2,)), (2,))
    )
    both = WeightedSum(
        [
            (1.0, ScoreDifference(denoiser(classes), denoiser(classes))),
            (0.1, DiscriminatorMover(discriminator(classes, timed=False), GAMES["relativistic"], R1)),
        ]
    )
    return FollowVelocity(Generator(net, (2,)), TeacherFirst(ends, 1, both))


OBJECTIVES = {  # classes -> objective
    "score": lambda k: ScoreMatching(denoiser(k)),
    "discriminator flow": lambda k: PathDiscriminator(discriminator(k), ParticlePath(flow, 4), VANILLA, R1, size=12),
    "improved gan": lambda k: PathDiscriminator(
        Discriminator(Stages([MLPDiscriminator(2, k, 8, 1, timed=False) for _ in range(3)])),
        ParticlePath(cooled, 3), GAMES["kl"], size=6,
    ),
    "ratio on a schedule": on_schedule,
    "diffusion gan": joint,
    "gan": lambda k: generate(k, DiscriminatorMover(discriminator(k, timed=False), VANILLA, R1, updates=2), steps=2),
    "relativistic": lambda k: generate(k, DiscriminatorMover(discriminator(k, timed=False), GAMES["relativistic"],
    sigma=0.1)), "score gan": from_denoiser,
    "distilled": distilled,
    "dmd": lambda k: generate(k, ScoreDifference(denoiser(k), denoiser(k), DMD(), guidance=2.0 if k else 1.0)),
    "sid": lambda k: generate(k, ScoreDifference(denoiser(k), denoiser(k), SiD())),
    "drifting": lambda k: generate(k, CloudMover(kernels.Drifting(POINTS))),
    "mmd": lambda k: generate(k, CloudMover(kernels.MMD(POINTS))),
    "sliced wasserstein": lambda k: generate(k, CloudMover(kernels.SlicedWasserstein(POINTS, 8))),
    "together": lambda k: generate(k, WeightedSum([
        (1.0, ScoreDifference(denoiser(k), denoiser(k))), (0.1, DiscriminatorMover(discriminator(k, timed=False),
    VANILLA)), ])),
}  # fmt: skip


def batch(step, classes):
    rows = torch.arange(6 * step, 6 * step + 6)
    return Batch(df.Noise(5, 6 * step).normal(6, (2,)), rows % classes if classes else None, rows)


def turns(objective, step, classes, seed=3):
    """The players, losses and logs of a step, as the loop asks for them, with nobody moving."""
    return [
        (turn.player, turn.loss.detach(), {k: float(v) for k, v in turn.log.items()})
        for turn in objective.turns(batch(step, classes), df.Noise(seed, 6 * step))
    ]


def alike(a, b):
    return len(a) == len(b) and all(
        p == q and torch.equal(x, y) and m == n for (p, x, m), (q, y, n) in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name, classes):
    torch.manual_seed(1)
    objective = OBJECTIVES[name](classes)
    twin, before = copy.deepcopy(objective), torch.get_rng_state()
    steps = [turns(objective, k, classes) for k in range(4)]
    assert torch.equal(torch.get_rng_state(), before)  # no randomness but the noise it is given
    order = [[player for player, _, _ in step] for step in steps]
    assert set(order[0]) == objective.players.keys()
    assert order == [order[0]] * 4  # the same players in the same order
    for step in steps:
        for _, loss, log in step:
            assert (loss.shape, loss.dtype) == ((6,), torch.float32)
            assert torch.isfinite(loss).all()
            assert all(math.isfinite(v) for v in log.values())
    for k in range(4):
        assert alike(turns(twin, k, classes), steps[k])  # the same noise, the same turns
    assert not alike(turns(copy.deepcopy(objective), 4, classes), turns(copy.deepcopy(objective), 4, classes, seed=4))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_goes_on_from_its_state(name):
    torch.manual_seed(1)
    objective = OBJECTIVES[name](3)
    for k in range(3):
        turns(objective, k, 3)
    kept = {k: v.clone() for k, v in objective.state().items()}
    assert all(v.dtype == torch.float32 for k, v in kept.items() if v.is_floating_point() and not k.endswith("dials"))
    torch.manual_seed(2)  # other weights: whatever is not a player's must come from the state
    other = OBJECTIVES[name](3)
    for player, module in objective.players.items():
        other.players[player].load_state_dict(module.state_dict())
    other.load_state(kept)
    assert other.state().keys() == kept.keys()
    assert all(torch.equal(v, other.state()[k]) for k, v in kept.items())
    assert alike(turns(other, 3, 3), turns(objective, 3, 3))
    with pytest.raises(ValueError, match="checkpoint"):
        other.load_state({} if kept else {"pool/x": torch.zeros(3)})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_turn_s_loss_reaches_its_player(name):
    """Every player learns from its own turn; the loop moves nobody else in it."""
    torch.manual_seed(1)
    objective = OBJECTIVES[name](0)
    moved = set()
    for k in range(2):
        for turn in objective.turns(batch(k, 0), df.Noise(3, 6 * k)):
            own = list(objective.players[turn.player].parameters())
            grads = torch.autograd.grad(turn.loss.mean(), own, allow_unused=True, retain_graph=True)
            if any(g is not None and (g != 0).any() for g in grads):
                moved.add(turn.player)
    assert moved == objective.players.keys()
