"""Generators moved by fields: whose turn it is, what must survive a restart, classes, and that regression steps close
in on the moved particles at their exact rate."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import diffflow as df
from diffflow.equation.kernels import MMD, Drifting, GaussianKernel, Injected
from diffflow.networks.backbones.discriminator import MLPDiscriminator
from diffflow.networks.backbones.generator import MLPGenerator
from diffflow.networks.backbones.mlp import MLP
from diffflow.networks.denoiser import Denoiser
from diffflow.networks.discriminator import Discriminator, DiscriminatorOutput
from diffflow.networks.games import GAMES, Penalty
from diffflow.networks.generator import FewSteps, Generator
from diffflow.objectives.base import Batch
from diffflow.objectives.follow_velocity import FollowVelocity
from diffflow.objectives.movers.adversarial import DiscriminatorMover
from diffflow.objectives.movers.base import TeacherFirst, WeightedSum
from diffflow.objectives.movers.cloud import CloudMover
from diffflow.objectives.movers.endpoints import EndpointDistillation
from diffflow.objectives.movers.score_difference import (
    DMD,
    KarrasLevels,
    LogUniformLevels,
    ScoreDifference,
    ScoreGAN,
    SiD,
)

F64 = torch.float64


def awake(net):
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return net


def a_generator(classes=0):
    torch.manual_seed(1)
    return Generator(awake(MLPGenerator(3, 2, classes, width=8, depth=1)), (2,))


def a_discriminator(classes=0, **settings):
    torch.manual_seed(2)
    net = MLPDiscriminator(2, classes, width=8, depth=1, embed=4, timed=False)
    return DiscriminatorMover(
        Discriminator(awake(net)), GAMES["vanilla"], Penalty(real=0.1, fake=0.1, between=0.1), **settings
    )


def a_denoiser(seed, classes=0):
    torch.manual_seed(seed)
    return Denoiser(awake(MLP(2, classes, width=8 + seed, depth=1)), 0.5)


def a_difference(classes=0, **settings):
    return ScoreDifference(a_denoiser(0, classes), a_denoiser(1, classes), **settings)


def a_batch(n=12, classes=0, dtype=torch.float32):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(3), dtype=dtype)
    return Batch(x, torch.arange(n) % classes if classes else None, torch.arange(n))


MOVERS = {
    "critic": lambda c: a_discriminator(c, updates=2),
    "blurred critic": lambda c: a_discriminator(c, sigma=0.3),
    "critic of noised samples": lambda c: a_discriminator(c, updates=2, instance_noise=0.3),
    "critic of clipped samples": lambda c: a_discriminator(c, updates=2, data_range=0.5),
    "score difference": lambda c: a_difference(c, updates=2, label_dropout=0.3 if c else 0.0),
    "guided": lambda c: a_difference(c, guidance=2.0 if c else 1.0),
    "DMD": lambda c: a_difference(c, pull=DMD()),
    "SiD": lambda c: a_difference(c, pull=SiD(), levels=LogUniformLevels()),
    "together": lambda c: WeightedSum([(1.0, a_difference(c)), (0.05, a_discriminator(c))]),
}
every_mover = pytest.mark.parametrize("make", MOVERS.values(), ids=list(MOVERS))


@pytest.mark.parametrize("classes", [0, 3])
@every_mover
def test_turns_and_streams(make, classes):
    """Movers' turns come first; a sample's loss is the same in any batch; every turn trains its own player only."""
    objective = FollowVelocity(a_generator(classes), make(classes), eta=0.5, steps=2)
    batch, noise = a_batch(12, classes), df.Noise(7)
    turns = list(objective.turns(batch, noise))
    names = [turn.player for turn in turns]
    assert set(names) == set(objective.players)
    assert names[-2:] == ["generator", "generator"]
    assert names.count("generator") == 2
    part = Batch(batch.x[5:9], None if batch.cond is None else batch.cond[5:9], batch.rows[5:9])
    for whole, some in zip(turns, objective.turns(part, noise.shift(5)), strict=True):
        assert whole.loss.shape == (12,)
        torch.testing.assert_close(some.loss, whole.loss[5:9], rtol=1e-4, atol=1e-5)
        own = list(objective.players[whole.player].parameters())
        torch.autograd.backward(whole.loss.mean(), inputs=own)
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in own)
    assert {"displacement", "std_ratio"} == set(turns[-1].log)


@every_mover
def test_velocities_are_detached_and_work_without_gradients(make):
    mover, batch = make(0), a_batch()
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(4), requires_grad=True)
    v = mover.velocity(x, None, batch, df.Noise(0))
    assert v.shape == x.shape
    assert not v.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(mover.velocity(x, None, batch, df.Noise(0)), v)
    assert all(p.grad is None for m in mover.players.values() for p in m.parameters())


def test_each_update_sees_fresh_samples():
    seen = []
    objective = FollowVelocity(a_generator(), a_discriminator(updates=3))
    net = objective.generator.net
    objective.generator.net = Spy(net, seen)
    list(objective.turns(a_batch(), df.Noise(0)))
    assert len(seen) == 4  # one per update, one for the generator's own turn
    assert len({tuple(z.flatten().tolist()) for z in seen}) == 4


def test_reused_samples_are_those_that_move_and_their_step_is_that_of_fresh_ones():
    """The generator runs once. Where its mover learns nothing, fresh samples and reused ones are the same step."""
    seen, given = [], []
    discriminator = a_discriminator(updates=3)
    objective = FollowVelocity(a_generator(), discriminator, reuse=True)
    objective.generator.net = Spy(objective.generator.net, seen)
    discriminator.discriminator.register_forward_pre_hook(lambda m, args: given.append(args[0].detach().clone()))
    list(objective.turns(a_batch(), df.Noise(0)))
    assert len(seen) == 1
    (z,) = seen
    with torch.no_grad():
        x = objective.generator(z, None)
    assert sum(torch.equal(g, x) for g in given) >= 4  # by each of three turns, and by the velocity

    fresh, reused = (
        [t.loss.detach() for t in FollowVelocity(a_generator(), Wind(), reuse=r).turns(a_batch(), df.Noise(0))]
        for r in (False, True)
    )
    assert all(map(torch.equal, fresh, reused))


class Spy(nn.Module):
    def __init__(self, net, seen):
        super().__init__()
        self.net, self.seen = net, seen

    def forward(self, z, cond):
        self.seen.append(z)
        return self.net(z, cond)


class Table(nn.Module):
    """G(z) = b: every step of gradient descent is exact."""

    latent_shape, classes = (1,), 0

    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.tensor([0.3, -0.2], dtype=F64))

    def forward(self, z, cond):
        return self.b.expand(len(z), 2)


class Wind:
    """A constant velocity."""

    classes = None

    def __init__(self):
        self.players = {}

    def learn(self, batch, fake, cond, noise):
        return iter(())

    def velocity(self, x, cond, batch, noise, z=None):
        return torch.tensor([2.0, -1.0], dtype=F64).expand_as(x)

    def state(self):
        return {}

    def load_state(self, state):
        assert not state


def test_regression_steps_close_in_on_moved_particles_that_stand_still():
    """b_k - target = (1 - lr)^k (b_0 - target), target = b_0 + eta v, for k steps of one turn sequence."""
    objective = FollowVelocity(Generator(Table(), (2,)), Wind(), eta=0.25, steps=6)
    b, rate = objective.generator.net.b, 0.3
    start = b.detach().clone()
    goal = start + 0.25 * torch.tensor([2.0, -1.0], dtype=F64)
    for k, turn in enumerate(objective.turns(a_batch(dtype=F64), df.Noise(0))):
        torch.testing.assert_close(b.detach() - goal, (1 - rate) ** k * (start - goal))
        torch.testing.assert_close(turn.loss.detach(), (0.5 * (b.detach() - goal).square().sum()).expand(12))
        assert float(turn.log["displacement"]) == pytest.approx(0.25 * (2.5**0.5))
        (grad,) = torch.autograd.grad(turn.loss.mean(), b)
        b.data -= rate * grad
    torch.testing.assert_close(b.detach() - goal, (1 - rate) ** 6 * (start - goal))


def test_the_log_tells_how_far_and_how_wide():
    batch = a_batch()
    wide = Batch(4 * batch.x, None, batch.rows)
    logs = [list(FollowVelocity(a_generator(), Wind()).turns(b, df.Noise(0)))[-1].log for b in (batch, wide)]
    assert float(logs[0]["std_ratio"]) == pytest.approx(4 * float(logs[1]["std_ratio"]), rel=1e-5)
    fixed = list(FollowVelocity(Generator(Table(), (2,)), Wind()).turns(batch, df.Noise(0)))[-1].log
    assert float(fixed["std_ratio"]) == pytest.approx(0.0, abs=1e-7)  # collapsed to a point


# -- score differences ------------------------------------------------------------------------------------------------
def test_the_data_denoiser_is_frozen_and_survives_a_restart():
    objective = FollowVelocity(a_generator(), WeightedSum([(1.0, a_discriminator()), (2.0, a_difference())]))
    state = {k: v.clone() for k, v in objective.state().items()}
    before = copy.deepcopy(state)
    for turn in objective.turns(a_batch(), df.Noise(0)):
        turn.loss.mean().backward()
    data = objective.mover.parts[1][1].data
    assert not any(p.requires_grad for p in data.parameters())
    for k, v in objective.state().items():
        assert torch.equal(v, before[k])
    with torch.no_grad():
        for p in data.parameters():
            p.zero_()
    objective.load_state(state)
    assert all(torch.equal(v, before[k]) for k, v in objective.state().items())
    with pytest.raises(ValueError, match="lacks the data's denoiser"):
        objective.load_state({})
    with pytest.raises(ValueError, match="of another objective"):
        FollowVelocity(a_generator(), a_discriminator()).load_state(state)


@pytest.mark.parametrize(
    ("pull", "power"), [(ScoreGAN(), 0), (ScoreGAN(2.0), 1), (ScoreGAN(0.0, 0.7, 1.3), -1), (DMD(), 0), (SiD(), 0)]
)
def test_pulls_change_with_units_as_they_should(pull, power):
    """In units c times smaller x, sigma and denoisers grow by c; a velocity of dimension length^power by c^power."""
    g = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 6, 3, generator=g, dtype=F64)
    sigma = torch.rand(6, generator=g, dtype=F64) + 0.2
    c, out = 3.0, []
    for scale in (1.0, c):
        laws = [df.Gaussian(scale * m * torch.ones(3, dtype=F64), scale * s) for m, s in ((0.5, 0.8), (-0.2, 1.1))]
        at, s = scale * x, scale * sigma
        out.append(pull(at, at + s[:, None] * eps, s, *(lambda y, q=q, s=s: q.denoise(y, s) for q in laws)))
    torch.testing.assert_close(out[1], c**power * out[0])


def test_score_gan_is_a_difference_of_scores_and_dmd_gives_every_sample_the_same_pull():
    q, p = (df.Gaussian(m * torch.ones(3, dtype=F64), s) for m, s in ((0.5, 0.8), (-0.2, 1.1)))
    g = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 6, 3, generator=g, dtype=F64)
    sigma = torch.rand(6, generator=g, dtype=F64) + 0.2
    y, s = x + sigma[:, None] * eps, sigma
    D, G = (lambda y: q.denoise(y, s)), (lambda y: p.denoise(y, s))
    torch.testing.assert_close(ScoreGAN()(x, y, s, D, G), s[:, None] * (q.score(y, s) - p.score(y, s)))
    torch.testing.assert_close(
        ScoreGAN(2.0, 0.5, 3.0)(x, y, s, D, G), s[:, None] ** 2 * (0.5 * q.score(y, s) - 3.0 * p.score(y, s))
    )
    v = DMD()(x, y, s, D, lambda y: y * 0 + x)  # a fake denoiser that knows x: the pull's mean size is one
    torch.testing.assert_close(v.abs().mean(1), torch.ones(6, dtype=F64))
    assert ((v * (D(y) - x)).sum(1) > 0).all()


@pytest.mark.parametrize("alpha", [0.5, 1.2])
def test_sid_descends_its_loss_through_the_noised_sample(alpha):
    q, p = (df.GaussianMixture(torch.tensor([[-1.0], [m]], dtype=F64), s) for m, s in ((1.0, 0.6), (0.4, 0.9)))
    x, eps = torch.randn(2, 9, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    sigma = torch.full((9,), 0.7, dtype=F64)

    def loss(z):
        y = z + sigma[:, None] * eps
        D, G = q.denoise(y, sigma), p.denoise(y, sigma)
        return (1 - alpha) * (D - G) ** 2 + (D - G) * (G - z)

    h = 1e-5
    slope = (loss(x + h) - loss(x - h)) / (2 * h)
    y = x + sigma[:, None] * eps
    size = (x - q.denoise(y, sigma)).abs()
    got = SiD(alpha)(x, y, sigma, lambda y: q.denoise(y, sigma), lambda y: p.denoise(y, sigma))
    torch.testing.assert_close(got, -slope / size, rtol=1e-6, atol=1e-7)


def test_samples_are_noised_at_the_levels_before_the_denoisers_see_them():
    n, seen = 4000, {}

    def probe(x, y, sigma, data, fake):
        seen.update(sigma=sigma, eps=(y - x) / sigma[:, None])
        return torch.zeros_like(x)

    batch = a_batch(n, dtype=F64)
    a_difference(pull=probe, levels=LogUniformLevels(0.1, 10.0)).velocity(batch.x, None, batch, df.Noise(0))
    u = (seen["sigma"] / 0.1).log() / math.log(100.0)
    assert abs(float(u.mean()) - 0.5) < 4.5 * math.sqrt(1 / 12 / n)
    assert abs(float(seen["eps"].mean())) < 4.5 / math.sqrt(2 * n)
    assert abs(float(seen["eps"].square().mean()) - 1) < 4.5 / math.sqrt(n)
    assert abs(float((seen["eps"].square().sum(1) * (u - 0.5)).mean())) < 4.5 * math.sqrt(8 / 12 / n)  # independent


def test_levels_have_the_laws_they_name():
    u = (torch.arange(1000, dtype=F64) + 0.5) / 1000
    levels = LogUniformLevels(0.1, 10.0)
    steps = levels.sigma(u).log().diff()
    torch.testing.assert_close(steps, steps[:1].expand(999))
    grid = KarrasLevels(0.002, 80.0)
    nodes = df.EDM().sigma(df.karras(df.EDM(), 8))[:8]  # the ninth is clean
    torch.testing.assert_close(grid.sigma(torch.linspace(0, 1, 8, dtype=F64)), nodes, rtol=1e-9, atol=0)
    for each in (levels, grid):
        assert float(each.sigma(torch.tensor(0.0, dtype=F64))) == pytest.approx(each.sigma_max)
        assert float(each.sigma(torch.tensor(1.0, dtype=F64))) == pytest.approx(each.sigma_min)
    with pytest.raises(ValueError, match="sigma_min"):
        KarrasLevels(1.0, 0.5)


def test_guidance_weighs_the_class_of_the_data():
    plain, guided = a_difference(3), a_difference(3, guidance=3.0)
    x, cond = a_batch().x, torch.arange(12) % 3
    pulls = [m.velocity(x, cond, a_batch(), df.Noise(0)) for m in (plain, guided)]
    y_sigma = plain.levels.sigma(df.Noise(0).fork("sigma").uniform(12))
    y = x + y_sigma[:, None] * df.Noise(0).fork("eps").normal(12, (2,))
    extra = 2.0 * (plain.data(y, y_sigma, cond) - plain.data(y, y_sigma)) / y_sigma[:, None]
    torch.testing.assert_close(pulls[1] - pulls[0], extra.detach(), rtol=1e-3, atol=1e-5)


def test_movers_together_add_up_with_their_weights_each_with_its_own_randomness():
    discriminator, difference = a_discriminator(sigma=0.3), a_difference()
    x, batch, noise = a_batch().x, a_batch(), df.Noise(4)
    sum_ = WeightedSum([(2.0, discriminator), (-0.5, difference)]).velocity(x, None, batch, noise)
    parts = [mover.velocity(x, None, batch, noise.fork(j)) for j, mover in enumerate((discriminator, difference))]
    torch.testing.assert_close(sum_, 2.0 * parts[0] - 0.5 * parts[1])


@pytest.mark.parametrize("classes", [0, 3])
def test_a_penalty_at_a_share_of_the_samples_is_the_same_in_expectation(classes):
    """Mean over 600 draws of the share within 4.5 standard errors of the penalty at all samples."""
    batch = a_batch(classes=classes)
    made = batch.x.flip(0) - 0.3
    full, part = (
        replace(a_discriminator(classes, penalty_share=1.0), penalty=Penalty(real=0.3, fake=0.2)),
        replace(a_discriminator(classes, penalty_share=1.0), penalty=Penalty(real=0.3, fake=0.2), penalty_share=0.3),
    )
    exact = full._penalised(batch.x, made, batch.cond, df.Noise(0)).detach()
    drawn = torch.stack([part._penalised(batch.x, made, batch.cond, df.Noise(k)).detach() for k in range(600)])
    assert ((drawn.mean(0) - exact).abs() < 4.5 * drawn.std(0) / math.sqrt(600)).all()
    assert abs((drawn > 0).float().mean() - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / drawn.numel())
    at = drawn[0] > 0  # a sample's own number decides, in any batch
    half = part._penalised(batch.x[6:], made[6:], None if batch.cond is None else batch.cond[6:], df.Noise(0, 6))
    torch.testing.assert_close(half, drawn[0][6:])
    torch.testing.assert_close(drawn[0][at], exact[at] / 0.3)
    with pytest.raises(ValueError, match="not between them"):
        replace(a_discriminator(penalty_share=1.0), penalty_share=0.5)
    with pytest.raises(ValueError, match=r"share = 0"):
        a_discriminator(penalty_share=0.0)


class Bowl(torch.nn.Module):
    """d(x) = a |x|^2 / 2."""

    classes, timed, dials = 0, False, 0

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, time, cond, dials):
        return 0.5 * self.a * x.square().sum(1)


def test_instance_noise_is_on_real_and_generated_samples_alike_and_where_the_slope_is_read():
    """d = |x|^2/2 in 2-D: noise of variance s^2 adds s^2 to the mean of either logit, nothing to the difference where
    both samples are the same, and its velocity is x + s xi. n = 20,000, 4.5 standard errors."""
    n, s = 20_000, 0.7
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(5))
    discriminator = DiscriminatorMover(Discriminator(Bowl()), GAMES["ipm"], instance_noise=s)
    (turn,) = discriminator.learn(Batch(x, None, torch.arange(n)), lambda noise: x, None, df.Noise(1))
    mean, variance = x.square().sum(1).mean() / 2, s**2 * x.square().sum(1).mean() + s**4  # of a logit, given x
    for name in ("logit_real", "logit_fake"):
        assert abs(turn.log[name] - mean - s**2) < 4.5 * math.sqrt(variance / n)
    assert abs(turn.loss.mean()) < 4.5 * math.sqrt(2 * variance / n)
    torch.testing.assert_close(turn.loss.var(), 2 * variance, rtol=0.1, atol=0)
    xi = (discriminator.velocity(x, None, Batch(x, None, torch.arange(n)), df.Noise(2)) - x) / s
    assert (xi.mean(0).abs() < 4.5 / math.sqrt(n)).all()
    assert ((xi.var(0) - 1).abs() < 4.5 * math.sqrt(2 / n)).all()
    for bad in (-0.1, math.inf):
        with pytest.raises(ValueError, match=f"instance_noise = {bad}"):
            replace(discriminator, instance_noise=bad)


class Tables(nn.Module):
    """x = 0 or 1: a logit, and twin classifiers that are tables of x."""

    timed, classes, dials = False, 2, 0

    def __init__(self):
        super().__init__()
        self.logit, self.real, self.made = (nn.Parameter(torch.zeros(2, 2)) for _ in range(3))

    def forward(self, x, time, cond=None, dials=None):
        at = x[:, 0].long()
        real, made = self.real[at].log_softmax(1), self.made[at].log_softmax(1)
        return DiscriminatorOutput(self.logit[at, cond] + (real - made).gather(1, cond[:, None])[:, 0], real, made)


def test_twin_classifiers_learn_from_one_law_each():
    """At the bottom of the loss they are the shares of the classes among real and among generated samples of the same
    x, counted; and the logit is that of log r(x|c)/p(x|c), whatever they say."""
    cond = torch.tensor([0] * 8 + [1] * 8)
    real = torch.tensor([0] * 6 + [1] * 2 + [0] * 3 + [1] * 5)[:, None].float()
    made = torch.tensor([0] * 4 + [1] * 4 + [0] * 7 + [1] * 1)[:, None].float()
    net = Tables()
    discriminator = DiscriminatorMover(Discriminator(net), GAMES["vanilla"])
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def loss():
        optimizer.zero_grad()
        (turn,) = discriminator.learn(Batch(real, cond, torch.arange(16)), lambda noise: made, cond, df.Noise(0))
        turn.loss.mean().backward()
        return turn.loss.mean()

    optimizer.step(loss)
    share = torch.tensor
    torch.testing.assert_close(net.real.softmax(1), share([[6 / 9, 3 / 9], [2 / 7, 5 / 7]]), atol=2e-3, rtol=0)
    torch.testing.assert_close(net.made.softmax(1), share([[4 / 11, 7 / 11], [4 / 5, 1 / 5]]), atol=2e-3, rtol=0)
    d = discriminator.discriminator(share([[0.0], [1.0], [0.0], [1.0]]), 0.0, share([0, 0, 1, 1]))
    torch.testing.assert_close(d, share([6 / 4, 2 / 4, 3 / 7, 5 / 1]).log(), atol=2e-3, rtol=0)


def test_what_is_cut_off_is_never_shown_and_nothing_moves_further_out():
    """d = a |x|^2 / 2, a > 0: the velocity a x points outwards everywhere, with a < 0 inwards. In the box it is that of
    no box; beyond it the slope is read at the wall, and kept only where it leads back."""
    x = torch.tensor([[0.3, -0.9], [1.7, -0.2], [-4.0, 1.01]])
    batch, wall = Batch(x, None, torch.arange(3)), x.clamp(-1, 1)
    bowl = Bowl()
    free, boxed = (DiscriminatorMover(Discriminator(bowl), GAMES["ipm"], data_range=edge) for edge in (math.inf, 1.0))
    beyond = x.abs() > 1
    assert torch.equal(boxed.velocity(x, None, batch, df.Noise(0)), torch.where(beyond, 0.0, x))
    assert torch.equal(free.velocity(x, None, batch, df.Noise(0)), x)
    (turn,) = boxed.learn(Batch(2 * x, None, torch.arange(3)), lambda noise: x, None, df.Noise(1))
    at_wall = (wall.square().sum(1) - (2 * x).clamp(-1, 1).square().sum(1)) / 2
    torch.testing.assert_close(turn.loss, at_wall)  # the ipm loss d(made) - d(real), both of what is shown
    bowl.a.data.fill_(-1.0)
    assert torch.equal(boxed.velocity(x, None, batch, df.Noise(0)), -wall)
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"data_range = {bad}"):
            replace(boxed, data_range=bad)


# -- a finer solution -------------------------------------------------------------------------------------------------
def a_fine(classes=0):
    return Generator(FewSteps(a_denoiser(0, classes), df.Plan.multistep([4.0, 1.0, 0.2], 2), (2,)), (2,))


def test_endpoints_bring_a_generator_to_the_fine_solution_of_the_same_noise():
    """With eta = 1 the target is the solution itself, where the velocity is zero."""
    fine, noise = a_fine(), df.Noise(0)
    mover, z = EndpointDistillation(fine), noise.normal(8, (2,))
    ends = fine(z)
    x = a_batch(8).x
    torch.testing.assert_close(x + mover.velocity(x, None, a_batch(8), noise, z), ends)
    assert mover.velocity(ends, None, a_batch(8), noise, z).abs().max() == 0
    for wrong in (None, torch.zeros(8, 3)):
        with pytest.raises(ValueError, match=r"of z of shape \(2,\)"):
            mover.velocity(x, None, a_batch(8), noise, wrong)


def test_a_lead_hands_over_after_its_samples():
    first, then = EndpointDistillation(a_fine()), a_difference()
    mover, x, z = TeacherFirst(first, 24, then), a_batch().x, df.Noise(1).normal(12, (2,))

    def moves(mover, number):
        """Of the 12 samples of the training from this number on."""
        return mover.velocity(x, None, a_batch(), df.Noise(4, number), z)

    for number, expected in ((0, first), (12, first), (18, first), (24, then), (30, then)):
        assert torch.equal(moves(mover, number), moves(expected, number)), number
    assert not torch.equal(moves(first, 0), moves(then, 0))
    saved = {k: v.clone() for k, v in mover.state().items()}
    again = TeacherFirst(EndpointDistillation(copy.deepcopy(first.teacher)), 24, then)
    with torch.no_grad():
        for p in again.teacher.teacher.parameters():
            p.zero_()
    again.load_state(saved)
    assert torch.equal(moves(again, 12), moves(first, 12))
    assert mover.players.keys() == {"fake"}
    with pytest.raises(ValueError, match="the mover that leads has players"):
        TeacherFirst(then, 24, then)
    with pytest.raises(ValueError, match="lacks the fine generator"):
        first.load_state({})


# -- clouds -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "field",
    [
        MMD(torch.zeros(1, 2), GaussianKernel(0.7)),
        Drifting(torch.zeros(1, 2), leave_one_out=False),
        Injected(MMD(torch.zeros(1, 2)), 0.1),
    ],
)
def test_a_cloud_field_sees_the_batch_as_its_data_and_acts_within_classes(field):
    batch, x = a_batch(12), torch.randn(12, 2, generator=torch.Generator().manual_seed(9))
    mover = CloudMover(field)
    at_data = mover.velocity(batch.x, None, batch, df.Noise(0))
    assert at_data.abs().max() < 1e-5 or isinstance(field, Injected)  # nothing moves a cloud that is the data
    cond = torch.tensor([0] * 7 + [1] * 4 + [2])
    labelled = Batch(batch.x, cond, batch.rows)
    v = mover.velocity(x, cond, labelled, df.Noise(0))
    for label, at in enumerate((slice(0, 7), slice(7, 11))):
        own = df.Noise(0).fork("class", label)
        alone = mover.velocity(x[at], None, Batch(batch.x[at], None, batch.rows[at]), own)
        torch.testing.assert_close(v[at], alone)
    assert (v[11] == 0).all()  # alone of its class


class Drawn(MMD):
    """A field that is nothing but its own random numbers."""

    def __call__(self, x, t):
        return self.noise.normal(len(x), tuple(x.shape[1:]))


def test_classes_have_random_numbers_of_their_own():
    cond = torch.tensor([0] * 6 + [1] * 6)
    v = CloudMover(Drawn(torch.zeros(1, 2))).velocity(a_batch(12).x, cond, a_batch(12), df.Noise(0))
    assert not torch.isclose(v[:6], v[6:]).any()


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_partners_are_the_real_samples_of_the_game(sigma):
    """d(x) - d(y) with y noised as the discriminator's own real samples are: for a linear d the speeds tell y."""

    class Linear(torch.nn.Module):
        timed, classes, dials = False, 0, 0

        def __init__(self):
            super().__init__()
            self.a = torch.nn.Parameter(torch.tensor([0.7, -0.4]))

        def forward(self, x, time, cond=None, dials=None):
            return x @ self.a

    game, batch, n = GAMES["relativistic"], a_batch(4000), 4000
    batch = Batch(0 * batch.x, None, batch.rows)
    v = DiscriminatorMover(Discriminator(Linear()), game, sigma=sigma).velocity(0 * batch.x, None, batch, df.Noise(3))
    gap = -(v[:, 0] / 0.7).logit()  # beta(d) = sigmoid(-d), d = d(x) - d(y)
    assert abs(gap.std().item() - sigma * math.hypot(0.7, 0.4)) <= 4.5 * sigma / math.sqrt(2 * n)


def test_a_generator_that_follows_a_cloud_field_arrives_at_the_data():
    """No player but the generator: its mean ends at the data's, where MMD's field has no mean part left."""
    torch.manual_seed(0)
    objective = FollowVelocity(a_generator(), CloudMover(MMD(torch.zeros(1, 2))))
    assert list(objective.players) == ["generator"]
    optimizer = torch.optim.Adam(objective.generator.parameters(), 3e-3)
    law = df.Gaussian(torch.tensor([1.0, -1.0]), 0.5)
    for k in range(250):
        batch = Batch(law.sample(64, df.Noise(k)), None, torch.arange(64))
        for turn in objective.turns(batch, df.Noise(1).fork(k)):
            optimizer.zero_grad()
            turn.loss.mean().backward()
            optimizer.step()
    with torch.no_grad():
        x = objective.generator.draw(4000, df.Noise(5))
    assert (x.mean(0) - torch.tensor([1.0, -1.0])).abs().max() < 0.1
    assert 0.3 < float(x.std()) / float(law.sample(4000, noise=0).std()) < 1.2


# -- wrong use --------------------------------------------------------------------------------------------------------
def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="the data have none"):
        list(FollowVelocity(a_generator(3), a_discriminator(3)).turns(a_batch(), df.Noise(0)))
    with pytest.raises(ValueError, match="makes 3 classes, but what moves it tells 0 apart"):
        FollowVelocity(a_generator(3), a_discriminator())
    with pytest.raises(ValueError, match="makes 0 classes, but what moves it tells 3 apart"):
        FollowVelocity(a_generator(), a_difference(3))
    for settings, name in (({"steps": 0}, "steps"), ({"eta": 0.0}, "eta"), ({"eta": float("inf")}, "eta")):
        with pytest.raises(ValueError, match=name):
            FollowVelocity(a_generator(), a_discriminator(), **settings)
    with pytest.raises(ValueError, match="updates = 0"):
        a_discriminator(updates=0)
    with pytest.raises(ValueError, match="sigma = -1"):
        a_discriminator(sigma=-1.0)
    with pytest.raises(ValueError, match="has no dials"):
        DiscriminatorMover(Discriminator(MLPDiscriminator(2, dials=2)), GAMES["ipm"])
    with pytest.raises(ValueError, match="guidance ="):
        a_difference(0, guidance=2.0)
    shared = a_denoiser(0)
    with pytest.raises(ValueError, match="share weights"):
        ScoreDifference(shared, shared)
    with pytest.raises(ValueError, match="knows 3 classes, the other 0"):
        ScoreDifference(a_denoiser(0, 3), a_denoiser(1))
    with pytest.raises(ValueError, match="different names"):
        WeightedSum([(1.0, a_discriminator()), (1.0, a_discriminator())])
    with pytest.raises(ValueError, match="they must agree"):
        WeightedSum([(1.0, a_discriminator()), (1.0, a_difference(3))])
    data = a_denoiser(0)
    with pytest.raises(ValueError, match="shares weights with a frozen network"):
        FollowVelocity(
            Generator(FewSteps(data, df.Plan.multistep([1.0]), (2,)), (2,)), ScoreDifference(data, a_denoiser(1))
        )
