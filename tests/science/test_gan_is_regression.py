"""A GAN step is a regression toward moved particles; the logistic optimum is the log-ratio; the score difference is the
gradient of the KL divergence, summed over noise levels."""

import math

import pytest
import torch
from torch import nn

import diffflow as df
from diffflow.networks.backbones.discriminator import MLPDiscriminator
from diffflow.networks.backbones.generator import MLPGenerator
from diffflow.networks.discriminator import Discriminator
from diffflow.networks.games import GAMES, Penalty
from diffflow.networks.generator import Generator
from diffflow.objectives.base import Batch
from diffflow.objectives.follow_velocity import FollowVelocity
from diffflow.objectives.movers.adversarial import DiscriminatorMover
from diffflow.objectives.movers.score_difference import KarrasLevels, LogUniformLevels, ScoreDifference, ScoreGAN

F64 = torch.float64


class Recorded(nn.Module):
    """A net that remembers what it was asked when gradients were on."""

    def __init__(self, net):
        super().__init__()
        self.net, self.latent_shape, self.classes = net, net.latent_shape, net.classes

    def forward(self, z, cond):
        if torch.is_grad_enabled():
            self.z = z
        return self.net(z, cond)


def woken(net):
    for p in net.parameters():
        nn.init.normal_(p, std=0.4)
    return net


def gradients(module, loss):
    grads = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in grads if g is not None])


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("game", GAMES.values(), ids=list(GAMES))
def test_one_regression_step_is_the_gan_step(game, classes):
    """grad 1/2 |G - (x + eta beta grad d)|^2 = eta grad l(d(G(z))), for every game (derivations.md 3.1)."""
    torch.manual_seed(0)
    net = Recorded(woken(MLPGenerator(3, 2, classes, width=8, depth=1)).double())
    generator = Generator(net, (2,))
    d = Discriminator(woken(MLPDiscriminator(2, classes, width=8, depth=1, embed=4, timed=False)).double())
    x = torch.randn(64, 2, dtype=F64)
    cond = torch.arange(64) % classes if classes else None
    for eta in (1.0, 0.3):
        objective = FollowVelocity(generator, DiscriminatorMover(d, game), eta=eta)
        discriminator, turn = objective.turns(Batch(x, cond, torch.arange(64)), df.Noise(5))
        assert (discriminator.player, turn.player) == ("discriminator", "generator")
        mse = gradients(generator, turn.loss.mean())
        logit = d(generator(net.z, cond), 0.0, cond)
        if game.paired:  # a sample's logit is read against its real partner's
            logit = logit - d(x, 0.0, cond)
        gan = gradients(generator, game.generator(logit).mean())
        assert gan.norm() > 1e-3
        assert (mse - eta * gan).norm() < 1e-6 * eta * gan.norm()


@pytest.mark.parametrize("name", ["vanilla", "lsgan"])
def test_the_critics_turn_is_its_games_loss(name):
    """The discriminator's turn descends the loss between the batch and samples of the generator: at the optimum of that
    loss over a family that holds it, d is the game's optimum. The family: a + b x + c x^2 (times tanh's inverse)."""
    game, x = GAMES[name], torch.linspace(-12, 12, 8001, dtype=F64)
    q, p = df.Gaussian(torch.tensor([1.0], dtype=F64), 0.8), df.Gaussian(torch.tensor([-0.5], dtype=F64), 1.3)
    wq, wp = (law.log_prob(x[:, None]).exp() * (x[1] - x[0]) for law in (q, p))
    zero = torch.zeros((), dtype=F64)

    def logit(coefficients):
        line = coefficients[0] + coefficients[1] * x + coefficients[2] * x.square()
        return line if game.log_ratio else (0.5 * line).tanh()

    def risk(coefficients):
        d = logit(coefficients)
        return (wq * game.discriminator(d, zero) + wp * game.discriminator(zero, d)).sum()

    c = torch.zeros(3, dtype=F64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [c], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = risk(c)
        loss.backward()
        return loss

    optimizer.step(closure)
    a, b = 1 / 0.8**2, 1 / 1.3**2
    exact = torch.tensor(
        [math.log(1.3 / 0.8) - 0.5 * (a * 1.0 - b * 0.25), a * 1.0 + b * 0.5, 0.5 * (b - a)], dtype=F64
    )
    torch.testing.assert_close(c.detach(), exact, rtol=1e-5, atol=1e-6)
    assert game.optimum is not None
    torch.testing.assert_close(logit(exact), game.optimum(q.log_prob(x[:, None]) - p.log_prob(x[:, None])))


class Quadratic(nn.Module):
    """d = <c, (1, x, x^2)>: holds the log-ratio of two Gaussians on the line."""

    classes, timed, dials = 0, False, 0

    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(torch.zeros(3, dtype=F64))

    def forward(self, x, time, cond, dials):
        return self.c[0] + self.c[1] * x[:, 0] + self.c[2] * x[:, 0].square()


class Line(nn.Module):
    """G(z) = A z + b."""

    classes = 0

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)
        self.latent_shape = (len(b),)

    def forward(self, z, cond):
        return z @ self.a.T + self.b


def test_logistic_regression_on_the_samples_finds_the_log_ratio():
    """The turn itself, descended by Newton: its root is the log-ratio within the error of n samples, which is
    H^-1 Cov(gradient) H^-1 / n."""
    n = 40_000
    q = df.Gaussian(torch.tensor([1.0], dtype=F64), 0.8)
    generator = Generator(Line(torch.tensor([[1.3]], dtype=F64), torch.tensor([-0.5], dtype=F64)), (1,))
    d = Discriminator(Quadratic())
    objective = FollowVelocity(generator, DiscriminatorMover(d, GAMES["kl"]))
    batch = Batch(q.sample(n, df.Noise(1)), None, torch.arange(n))
    for _ in range(12):
        loss = next(objective.turns(batch, df.Noise(2))).loss
        (g,) = torch.autograd.grad(loss.mean(), d.net.c, create_graph=True)
        hessian = torch.stack([torch.autograd.grad(v, d.net.c, retain_graph=True)[0] for v in g])
        d.net.c.data -= torch.linalg.solve(hessian, g.detach())
    assert g.norm() < 1e-10
    each = torch.autograd.grad(
        next(objective.turns(batch, df.Noise(2))).loss, d.net.c, torch.eye(n, 200, dtype=F64).T, is_grads_batched=True
    )[0]  # gradients of 200 of the samples: enough for their covariance
    inverse = torch.linalg.inv(hessian)
    error = (inverse @ each.T.cov() @ inverse / n).diagonal().sqrt()
    a, b = 1 / 0.8**2, 1 / 1.3**2
    exact = torch.tensor([math.log(1.3 / 0.8) - 0.5 * (a - 0.25 * b), a + 0.5 * b, 0.5 * (b - a)], dtype=F64)
    assert ((d.net.c.detach() - exact).abs() < 5 * error).all()
    x = torch.tensor([[-0.7], [0.4]], dtype=F64)
    torch.testing.assert_close(d.ratio()(x, 0.0), d.net.c[1].detach() + 2 * d.net.c[2].detach() * x)


# -- score difference -------------------------------------------------------------------------------------------------
class OfLaw(nn.Module):
    """The exact denoiser of a law, in a Denoiser's clothes."""

    classes, sigma_data = 0, 1.0

    def __init__(self, law):
        super().__init__()
        self.law = law

    def forward(self, y, sigma, cond=None):
        return self.law.denoise(y, sigma)


def kl(m, c, mu, s):
    """KL(N(m, c) | N(mu, s))."""
    inverse = torch.linalg.inv(s)
    gap = mu - m
    return 0.5 * ((inverse @ c).trace() + gap @ inverse @ gap - len(m) + s.logdet() - c.logdet())


@pytest.mark.parametrize(
    ("levels", "power"),
    [(LogUniformLevels(0.2, 3.0), 1.0), (LogUniformLevels(0.2, 3.0), 2.0), (KarrasLevels(0.1, 20.0, 5.0), 1.0)],
)
def test_the_score_gan_gradient_is_that_of_the_summed_kl(levels, power):
    """G(z) = A z + b with exact denoisers of both sides: the gradient in (A, b) is that of E_sigma [sigma^power
    KL(p_sigma | q_sigma)], p = N(b, A A^T), within 4.5 standard errors of the Monte Carlo mean, entry by entry."""
    n, eye = 200_000, torch.eye(2, dtype=F64)
    a = torch.tensor([[0.9, 0.3], [-0.2, 0.6]], dtype=F64)
    b, mu = torch.tensor([0.5, -0.4], dtype=F64), torch.tensor([-0.3, 0.2], dtype=F64)
    s = torch.tensor([[0.8, 0.3], [0.3, 0.5]], dtype=F64)
    net = Recorded(Line(a.clone(), b.clone()))
    fake = OfLaw(df.Gaussian(b, covariance=a @ a.T))
    mover = ScoreDifference(OfLaw(df.Gaussian(mu, covariance=s)), fake, ScoreGAN(power), levels)  # type: ignore[arg-type]
    objective = FollowVelocity(Generator(net, (2,)), mover)
    turn = list(objective.turns(Batch(torch.zeros(n, 2, dtype=F64), None, torch.arange(n)), df.Noise(3)))[-1]
    got = gradients(objective.generator, turn.loss.mean())

    root, shift = a.clone().requires_grad_(), b.clone().requires_grad_()
    u = (torch.arange(400, dtype=F64) + 0.5) / 400
    total = torch.zeros((), dtype=F64)
    for sigma in levels.sigma(u):
        noise = sigma**2 * eye
        total = total + sigma**power * kl(shift, root @ root.T + noise, mu, s + noise) / len(u)
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(total, [root, shift])])

    with torch.no_grad():
        x = objective.generator(net.z)
        v = mover.velocity(x, None, Batch(x, None, torch.arange(n)), df.Noise(3).fork("velocity"))
        each = torch.cat([(v[:, :, None] * net.z[:, None, :]).flatten(1), v], 1)
    torch.testing.assert_close(got, -each.mean(0))  # the regression gradient is the inner product with the field
    error = each.std(0) / math.sqrt(n)
    assert ((got - exact).abs() < 4.5 * error).all()
    assert (exact.abs() > 10 * error).any()


def test_at_the_data_the_score_difference_vanishes():
    law = df.GaussianMixture(torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=F64), 0.3)
    mover = ScoreDifference(OfLaw(law), OfLaw(law))  # type: ignore[arg-type]
    x = law.sample(50, df.Noise(0))
    assert mover.velocity(x, None, Batch(x, None, torch.arange(50)), df.Noise(1)).abs().max() < 1e-9


def test_an_unpenalised_step_and_a_penalised_one_move_the_generator_alike():
    """The penalty is the discriminator's business alone."""
    torch.manual_seed(0)
    generator = Generator(MLPGenerator(3, 2, width=8, depth=1).double(), (2,))
    d = Discriminator(woken(MLPDiscriminator(2, width=8, depth=1, embed=4, timed=False)).double())
    batch, losses = Batch(torch.randn(16, 2, dtype=F64), None, torch.arange(16)), []
    for penalty in (Penalty(), Penalty(1.0, 1.0, 1.0, 1.0)):
        losses.append(
            [
                t.loss.detach()
                for t in FollowVelocity(generator, DiscriminatorMover(d, GAMES["ipm"], penalty)).turns(
                    batch, df.Noise(0)
                )
            ]
        )
    assert torch.equal(losses[0][1], losses[1][1])
    assert (losses[1][0] > losses[0][0]).all()
