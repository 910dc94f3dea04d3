"""Discriminators: each game's optimum minimises its critic loss, its speed is minus the slope of its generator loss,
and the flow it names is the one its particles follow; penalties have closed forms; a ratio is the gradient of d."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffflow as df
from diffflow.networks.backbones.discriminator import ConvDiscriminator, Down, MLPDiscriminator, Stages
from diffflow.networks.discriminator import Discriminator, DiscriminatorRatio
from diffflow.networks.games import GAMES, STEEP, Penalty, game_signals

F64 = torch.float64
ROWS = pytest.mark.parametrize("game", GAMES.values(), ids=list(GAMES))


# -- the games --------------------------------------------------------------------------------------------------------
@ROWS
def test_the_speed_is_minus_the_slope_of_the_generator_loss(game):
    d = torch.linspace(-3 * STEEP, 3 * STEEP, 601, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(game.generator(d).sum(), d)
    # torch's softplus is the identity beyond 20, where its slope is off by e^-20
    torch.testing.assert_close(game.beta(d), -slope, rtol=1e-12, atol=3e-9)
    assert torch.equal(game.speed(d), game.beta(d))


@ROWS
@given(log_ratio=st.floats(-4, 4).filter(lambda u: abs(u) > 0.05))
@settings(deadline=None, max_examples=40)
def test_the_optimum_minimises_the_critic_loss_at_every_ratio(game, log_ratio):
    q, p, zero = math.exp(log_ratio), 1.0, torch.zeros((), dtype=F64)
    if game.paired:  # over pairs (y, x) ~ q p of a law with two points the risk is flat at log q/p, and at any shift
        q, p = torch.tensor([0.5, 0.5], dtype=F64), torch.tensor([0.0, log_ratio], dtype=F64).softmax(0)
        for shift in (0.0, 3.0):
            d = ((q / p).log() + shift).requires_grad_(True)
            pairs = game.discriminator(d[:, None], d[None, :]) * q[:, None] * p[None, :]
            (slope,) = torch.autograd.grad(pairs.sum(), d)
            assert slope.abs().max() < 1e-12
        return
    if game.optimum is None:  # an IPM: linear in d, so only a constraint stops it
        d = torch.tensor([-1.0, 0.0, 1.0], dtype=F64)
        assert game.discriminator(d, d).abs().max() == 0
        assert (game.discriminator(d, -d) == -2 * d).all()
        return

    def risk(d):  # the loss is a sum over the two kinds of samples, so each part can be weighed on its own
        return q * game.discriminator(d, zero) + p * game.discriminator(zero, d)

    best = game.optimum(torch.tensor(log_ratio, dtype=F64))
    grid = torch.cat([torch.linspace(-60, 60, 4001, dtype=F64), best + torch.linspace(-1, 1, 2001, dtype=F64)])
    assert risk(best) <= risk(grid).min() + 1e-12 * risk(best).abs()
    assert (risk(best + torch.tensor([-0.02, 0.02], dtype=F64)) > risk(best)).all()


def _kl(p, q):
    return p * (p / q).log()


# F(p) by name, as integrands of (p, q): what the table says each game's particles descend
TEN = "vanilla saturating kl chi2 hinge lsgan ipm fgan-kl fgan-pearson relativistic".split()
FUNCTIONALS = {
    "2 KL((p+q)/2 | q)": lambda p, q: 2 * _kl((p + q) / 2, q),
    "2 JS(p, q)": lambda p, q: _kl(p, (p + q) / 2) + _kl(q, (p + q) / 2),
    "KL(p | q)": _kl,
    "1/2 chi2(p | q)": lambda p, q: 0.5 * (p - q) ** 2 / q,
    "chi2(p | q)": lambda p, q: (p - q) ** 2 / q,
    "2 TV(p, q)": lambda p, q: (p - q).abs(),
    "int q f(p/q), f'(w) = 2 w^2/(1+w)^2": lambda p, q: q * 2 * (p / q - q / (p + q) - 2 * (1 + p / q).log()),
}


@pytest.mark.parametrize(
    "game", [g for g in GAMES.values() if g.optimum], ids=[n for n, g in GAMES.items() if g.optimum]
)
def test_the_particles_follow_the_flow_that_the_table_names(game):
    """beta(d) d' at the optimal d is minus the slope of the first variation of F, both on a 1-D grid."""
    law_q = df.GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.7)
    law_p = df.GaussianMixture(torch.tensor([[-0.6], [1.5]], dtype=F64), 0.8, weights=torch.tensor([0.7, 0.3]))
    x = torch.linspace(-2, 2.5, 20_001, dtype=F64, requires_grad=True)
    h = (x[1] - x[0]).item()
    d = game.optimum(law_q.log_prob(x[:, None]) - law_p.log_prob(x[:, None]))
    (slope,) = torch.autograd.grad(d.sum(), x, allow_unused=True)
    velocity = game.beta(d.detach()) * slope
    q, p = (law.log_prob(x.detach()[:, None]).exp() for law in (law_q, law_p))
    p.requires_grad_(True)
    (variation,) = torch.autograd.grad((game.integrand or FUNCTIONALS[game.flow])(p, q).sum(), p)
    expected = -(variation[2:] - variation[:-2]) / (2 * h)
    smooth = torch.ones(len(expected), dtype=torch.bool)
    if game.name == "hinge":  # the variation jumps where p = q
        crossing = ((p > q)[1:] != (p > q)[:-1]).nonzero().flatten()
        for i in crossing.tolist():
            smooth[max(0, i - 3) : i + 3] = False
    scale = max(expected[smooth].abs().max().item(), 1.0)
    assert (velocity[1:-1] - expected)[smooth].abs().max() < 50 * h**2 * scale  # central differences: order 2


def test_steep_exponentials_are_finite_and_stay_convex():
    d = torch.tensor([-1e4, -100.0, -STEEP - 1, -STEEP, 0.0])
    chi2, kl = GAMES["chi2"], GAMES["fgan-kl"]
    for value in (chi2.generator(d), kl.discriminator(d, torch.zeros(5))):
        assert value.isfinite().all()
        assert (value.diff() < 0).all()
    torch.testing.assert_close(chi2.generator(d[2:3]), torch.tensor([2 * math.exp(STEEP)]))  # one beyond: the tangent


def test_which_logits_are_log_ratios():
    honest, known = {"vanilla", "saturating", "kl", "chi2"}, {*GAMES} & {*TEN}
    assert known == {*TEN}
    assert {name for name in known if GAMES[name].log_ratio} == honest
    assert {name for name in known if GAMES[name].additive} == honest | {"fgan-kl"}
    assert {name for name in known if not GAMES[name].balanced} == {"ipm", "relativistic", "fgan-kl"}
    assert all(game.additive for game in GAMES.values() if game.log_ratio)


def test_the_clock_of_a_discriminator_is_exact_near_the_end_of_a_schedule():
    """t of one number is kept in float64: a noise level 80 - t of 0.005 is 0.005, as for the times of a batch."""
    told = []

    class Ear(nn.Module):
        timed, classes, dials = True, 0, 0

        def forward(self, x, time, cond=None, dials=None):
            told.append(time)
            return x.sum(1)

    discriminator, x = Discriminator(Ear(), time=lambda t: 80 - t), torch.zeros(2, 2, dtype=F64)
    for t in (79.995, torch.tensor(79.995, dtype=F64), torch.full((2,), 79.995, dtype=F64)):
        discriminator(x, t)
    for time in told:
        torch.testing.assert_close(time, torch.full((2,), 0.005, dtype=F64), rtol=1e-9, atol=0)


# -- penalties --------------------------------------------------------------------------------------------------------
@given(w=st.tuples(*[st.floats(0.1, 3)] * 3), centre=st.floats(0, 2), slope=st.tuples(*[st.floats(-2, 2)] * 3))
@settings(deadline=None, max_examples=30)
def test_penalties_of_a_linear_logit(w, centre, slope):
    """d = <a, x>: the gradient is a everywhere, so all three points agree, and so does the penalty's own gradient."""
    a = torch.tensor(slope, dtype=F64, requires_grad=True)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    got = Penalty(*w, centre)(lambda y, real: y @ a, x[0], x[1], df.Noise(0))
    norm = a.detach().norm()
    torch.testing.assert_close(got, torch.full((5,), float(sum(w) * (norm - centre) ** 2), dtype=F64))
    (grad,) = torch.autograd.grad(got.mean(), a)
    expected = 2 * sum(w) * (norm - centre) * a.detach() / norm if norm > 0 else torch.zeros(3, dtype=F64)
    torch.testing.assert_close(grad, expected)


def test_penalties_look_at_the_points_they_name():
    """d = |x|^2/2: the gradient at x is x itself."""
    real, fake = torch.full((4000, 2, 1), 3.0, dtype=F64), torch.zeros(4000, 2, 1, dtype=F64)

    def logit(x, real):
        assert torch.equal(real, x.flatten(1)[:, 0] > 1.5)  # the nearer end, whose class a point belongs to
        return 0.5 * x.flatten(1).square().sum(1)

    norm2, half = 18.0, math.sqrt(18.0) - 1
    torch.testing.assert_close(Penalty(real=0.5)(logit, real, fake, df.Noise(0)), torch.full((4000,), 9.0, dtype=F64))
    assert torch.equal(Penalty(fake=0.5)(logit, real, fake, df.Noise(0)).detach(), torch.zeros(4000, dtype=F64))
    torch.testing.assert_close(
        Penalty(real=1.0, centre=1.0)(logit, real, fake, df.Noise(0)), torch.full((4000,), half**2, dtype=F64)
    )
    u2 = (
        Penalty(between=1.0)(logit, real, fake, df.Noise(0)).detach() / norm2
    )  # the square of a uniform place on the segment
    assert 0 < float(u2.min()) <= float(u2.max()) < 1
    assert abs(float(u2.sqrt().mean()) - 0.5) < 4.5 * math.sqrt(1 / 12 / 4000)
    one = Penalty(between=1.0)(logit, real[:1], fake[:1], df.Noise(0).shift(7)) / norm2
    assert one[0] == u2[7]  # place i belongs to sample i


def test_penalties_without_weight_cost_nothing_and_a_flat_logit_has_a_gradient():
    def never(x, real):
        raise AssertionError("nothing to penalise")

    x = torch.zeros(3, 2)
    assert torch.equal(Penalty()(never, x, x, df.Noise(0)), torch.zeros(3))
    a = torch.zeros(2, requires_grad=True)
    Penalty(1.0, 1.0, 1.0, 0.5)(lambda y, real: y @ a, x, x, df.Noise(0)).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"Penalty\(fake=-1"):
        Penalty(fake=-1.0)


# -- the ratio --------------------------------------------------------------------------------------------------------
class Bowl(nn.Module):
    """d = <a, x>^2 time + C[cond] + <dials, 1>, with everything visible."""

    classes, timed, dials = 3, True, 2

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.5, -1.0], dtype=F64))
        self.c = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 0.0], dtype=F64))

    def forward(self, x, time, cond, dials):
        assert time.shape == (len(x),)
        label = torch.full((len(x),), 3) if cond is None else cond
        return (x @ self.a).square() * time + self.c[label] + dials.sum(1)


def test_the_ratio_is_d_and_its_gradient():
    d = Discriminator(Bowl(), time=lambda t: 1 + t, precondition=lambda t: 2 * t)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    dials = torch.tensor([0.25, 0.5])
    a = torch.tensor([0.5, -1.0], dtype=F64)
    for t in (0.3, torch.tensor(0.3, dtype=F64), torch.full((4,), 0.3, dtype=F64)):
        with torch.no_grad():
            logit, grad = d.ratio(torch.tensor([0, 1, 2, -1]), dials).value_and_grad(x, t)
        assert not logit.requires_grad
        assert not grad.requires_grad
        inner = 0.6 * (x @ a)
        expected = inner**2 * 1.3 + torch.tensor([1.0, 2.0, 3.0, 0.0], dtype=F64) + 0.75
        torch.testing.assert_close(logit, expected)
        torch.testing.assert_close(grad, 2 * inner[:, None] * 1.3 * 0.6 * a)  # the chain rule through precondition
        torch.testing.assert_close(d.ratio(dials=dials)(x, t), grad)


@pytest.mark.parametrize("spectral", [False, True])
def test_the_ratio_of_a_net_has_its_derivatives(spectral):
    torch.manual_seed(0)
    d = (
        Discriminator(MLPDiscriminator(2, classes=2, width=16, depth=2, embed=8, dials=1, spectral=spectral))
        .double()
        .eval()
    )
    for p in d.parameters():
        nn.init.normal_(p, std=0.3)  # the branches start at zero: wake them
    ratio = d.ratio(1, torch.tensor([0.5], dtype=F64))
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=F64, requires_grad=True)
    torch.autograd.gradcheck(lambda y: d(y, 0.4, torch.ones(3, dtype=torch.int64), torch.full((3, 1), 0.5)), x)
    torch.autograd.gradcheck(lambda y: ratio(y, 0.4), x)  # differentiable in x, the field itself
    (through,) = torch.autograd.grad(ratio(x, 0.4).square().sum(), next(iter(d.parameters())))
    assert through.abs().sum() > 0  # and in the parameters
    with torch.no_grad():
        assert not ratio(x, 0.4).requires_grad


def test_a_float32_discriminator_serves_float64_particles_at_float64_times():
    d = Discriminator(MLPDiscriminator(2, width=8, depth=1))
    logit, grad = d.ratio().value_and_grad(torch.randn(3, 2, dtype=F64), torch.tensor(0.5, dtype=F64))
    assert logit.dtype == grad.dtype == F64
    assert df.sample(
        df.static(None, d.ratio(), churn=0.0, horizon=1.0, start=df.Gaussian(torch.zeros(2))), 3, 2
    ).last.shape == (3, 2)


def test_wrong_use_is_named():
    plain = Discriminator(MLPDiscriminator(2, width=8, depth=1, timed=False))
    assert not plain.timed
    x, dials = torch.zeros(4, 2), torch.zeros(2)
    assert torch.equal(plain(x, 0.0), plain(x, 0.9))
    with pytest.raises(ValueError, match="knows no classes"):
        plain(x, 0.0, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="knows no classes"):
        plain.ratio(1)
    with pytest.raises(ValueError, match="takes 0 dials"):
        plain(x, 0.0, None, dials)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        Discriminator(MLPDiscriminator(2, classes=1))
    full = Discriminator(Bowl())
    with pytest.raises(ValueError, match="takes 2 dials per particle, got none"):
        full(x, 0.0)
    with pytest.raises(ValueError, match=r"classes from 3 to 3, but there are only 0..2 \(or -1"):
        full.ratio(3)
    with pytest.raises(ValueError, match="2 conditions for 4 particles"):
        DiscriminatorRatio(full, dials, torch.tensor([0, 1]))(x, 0.0)

    class Column(nn.Linear):
        classes, timed, dials = 0, False, 0

        def forward(self, x, time, cond, dials):  # type: ignore[override]
            return super().forward(x)

    with pytest.raises(ValueError, match=r"one logit per particle, \(4,\): got \(4, 1\)"):
        Discriminator(Column(2, 1))(x, 0.0)


def test_signals_tell_an_honest_logit_from_a_boastful_one():
    n = 20_000
    g = torch.Generator().manual_seed(0)
    real, fake = (m + torch.randn(n, generator=g, dtype=F64) for m in (0.5, -0.5))
    vanilla = GAMES["vanilla"]
    honest = game_signals(vanilla, real, fake)  # log q/p of N(1/2, 1) and N(-1/2, 1) is x itself
    boast = game_signals(vanilla, 3 * real, 3 * fake)
    phi = 0.5 * (1 + math.erf(0.5 / math.sqrt(2)))
    assert abs(float(honest["accuracy"]) - phi) < 4.5 * math.sqrt(phi * (1 - phi) / (2 * n))
    assert float(honest["calibration"]) < 2 * 0.9 / math.sqrt(n)
    assert float(boast["calibration"]) > 0.1
    assert float(boast["accuracy"]) == float(honest["accuracy"])
    assert float(honest["logit_real"]) == pytest.approx(float(real.mean()), rel=1e-5)
    assert float(honest["logit_fake"]) == pytest.approx(float(fake.mean()), rel=1e-5)


# -- the nets ---------------------------------------------------------------------------------------------------------
def awake(net):
    """Branches start at zero; give them something to say."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return net


NETS = [
    (lambda **k: MLPDiscriminator(5, width=16, depth=2, embed=8, **k), (5,)),
    (lambda **k: MLPDiscriminator(2, width=16, depth=1, embed=8, waves=4, **k), (2,)),
    (lambda **k: ConvDiscriminator((1, 8, 8), widths=(8, 8), embed=8, **k), (1, 8, 8)),
    (lambda **k: ConvDiscriminator((3, 7, 10), widths=(4, 6, 6), embed=8, **k), (3, 7, 10)),
    (lambda **k: ConvDiscriminator((1, 1, 1), widths=(4,), embed=8, **k), (1, 1, 1)),
    (lambda **k: ConvDiscriminator((3, 7, 10), widths=(4, 6), embed=8, stem=2, **k), (3, 7, 10)),
]


def test_pixels_of_a_place_begin_alike():
    """A new discriminator moves all pixels of a place as one, and sees plain pictures as large as they are."""
    torch.manual_seed(0)
    net = ConvDiscriminator((3, 8, 12), widths=(8, 8), timed=False, stem=2)
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (grad,) = torch.autograd.grad(net(x, torch.zeros(2)).sum(), x)
    places = torch.nn.functional.interpolate(grad[..., ::2, ::2], scale_factor=2)
    torch.testing.assert_close(grad, places)
    wide, plain = ConvDiscriminator((3, 8, 8), widths=(512,), stem=4), torch.randn(200, 3, 1, 1).expand(200, 3, 16, 16)
    seen = wide.enter(torch.nn.functional.pixel_unshuffle(plain, 4))[..., 1:-1, 1:-1]
    assert seen.var().item() == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize(("make", "shape"), NETS)
def test_a_logit_depends_on_its_own_particle_time_class_and_dials(make, shape, spectral):
    torch.manual_seed(0)
    net = awake(make(classes=3, dials=2, spectral=spectral)).eval()
    g = torch.Generator().manual_seed(0)
    x, t, c, k = torch.randn(6, *shape, generator=g), torch.rand(6, generator=g), torch.arange(6) % 3, torch.rand(6, 2)
    d = net(x, t, c, k)
    assert d.shape == (6,)
    torch.testing.assert_close(net(x[2:3], t[2:3], c[2:3], k[2:3]), d[2:3], rtol=1e-4, atol=1e-5)
    for other in (net(x + 1, t, c, k), net(x, t + 0.1, c, k), net(x, t, (c + 1) % 3, k), net(x, t, c, k + 1)):
        assert (other != d).all()
    assert torch.equal(net(x, t, None, k), net(x, t, torch.full((6,), -1), k))  # no class has a row of its own


def test_wrong_shapes_and_sizes_are_named():
    with pytest.raises(ValueError, match=r"takes \(n, 5\)"):
        MLPDiscriminator(5)(torch.zeros(2, 4), torch.zeros(2))
    with pytest.raises(ValueError, match=r"takes \(n, 1, 8, 8\)"):
        ConvDiscriminator((1, 8, 8))(torch.zeros(2, 1, 8, 9), torch.zeros(2))
    for wrong in (
        lambda: MLPDiscriminator(0),
        lambda: ConvDiscriminator((1, 8, 8), widths=()),
        lambda: MLPDiscriminator(2, embed=7),
    ):
        with pytest.raises(ValueError, match="positive"):
            wrong()


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_spectral_normalisation_bounds_every_matrix(make, shape):
    torch.manual_seed(0)
    net = make(classes=3, spectral=True)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(7.0)  # whatever the weights
        for _ in range(200):  # power iterations, one per training call
            net(torch.zeros(2, *shape), torch.zeros(2))
    matrices = [m.weight for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Embedding)]
    norms = torch.stack([torch.linalg.matrix_norm(w.detach().flatten(1), 2) for w in matrices])
    assert len(norms) >= 8
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=2e-2, atol=0)


def test_stages_route_by_time():
    torch.manual_seed(0)
    nets = [awake(MLPDiscriminator(2, width=8, depth=1, timed=False)) for _ in range(4)]
    for i, net in enumerate(nets):
        net.head.out.bias.data.fill_(100.0 * i)
    stages = Stages(nets)
    t = torch.tensor([0.0, 0.24, 0.25, 0.5, 0.74, 0.75, 0.99, 1.0])
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    d = Discriminator(stages)
    assert d.timed
    for i, k in enumerate([0, 0, 1, 2, 2, 3, 3, 3]):
        torch.testing.assert_close(d(x, t)[i : i + 1], nets[k](x[i : i + 1], t[i : i + 1]))
    d(x[:2], t[:2]).sum().backward()
    assert all(p.grad is None for p in nets[3].parameters())
    assert (nets[0].enter.weight.grad != 0).any()
    with pytest.raises(ValueError, match="same classes"):
        Stages([MLPDiscriminator(2), MLPDiscriminator(2, classes=2)])


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_every_time_of_an_equal_grid_begins_its_own_stage(dtype):
    class Number(nn.Module):
        classes = dials = 0

        def __init__(self, k):
            super().__init__()
            self.k = k

        def forward(self, x, time, cond=None, dials=None):
            return x.new_full((len(x),), float(self.k))

    for count in range(1, 65):
        stages = Stages([Number(k) for k in range(count)])
        k = torch.arange(count)
        for times in ((k / count).to(dtype), torch.linspace(0, 1, count + 1, dtype=F64)[:-1].to(dtype)):
            assert torch.equal(stages(torch.zeros(count, 2), times), k.float())
            inside = times + 0.999 / count  # just before the next one
            assert torch.equal(stages(torch.zeros(count, 2), inside), k.float())


@ROWS
def test_signals_are_those_that_a_game_s_logit_can_be_read_for(game):
    """Odds where the optimum is log q/p, sides where it vanishes at q = p and nowhere else (hinge, lsgan)."""
    found = game_signals(game, torch.ones(3), torch.zeros(3)).keys()
    assert ("calibration" in found) == game.log_ratio
    assert ("accuracy" in found) == game.balanced
    assert {"logit_real", "logit_fake"} <= found


def test_signals_of_broken_numbers_are_broken_numbers():
    """The loop skips such a step and counts it; the log must not stop it first."""
    found = game_signals(GAMES["vanilla"], torch.tensor([1.0, float("nan")]), torch.tensor([float("inf"), -1.0]))
    assert math.isnan(found["calibration"])
    assert math.isnan(found["logit_real"])


def test_halving_an_image_weighs_all_its_pixels_alike():
    """Unit filters: the gradient counts the taps that meet a pixel, 2 x 2 each inside, where 3 x 3 filters of stride 2
    meet 1, 2 or 4."""
    down, seen = Down(1, 1, 2, zero=True), []
    torch.nn.init.ones_(down.inner.weight)
    down.inner.register_forward_hook(lambda module, args, out: seen.append(out))
    for height, width in ((8, 8), (8, 9), (7, 4), (9, 9)):
        x = torch.zeros(1, 1, height, width, requires_grad=True)
        assert down(x, torch.zeros(1, 2)).shape[2:] == (math.ceil(height / 2), math.ceil(width / 2))
        (grad,) = torch.autograd.grad(seen[-1].sum(), x)
        slope = 0.5  # of silu at 0
        torch.testing.assert_close(grad[..., 1:-1, 1:-1], torch.full((1, 1, height - 2, width - 2), 4.0 * slope))
