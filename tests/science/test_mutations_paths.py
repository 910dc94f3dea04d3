"""Would a slip be noticed where every particle has a clock of its own? Steps, real samples and what a discriminator is
told are run with the clock reversed, the levels inverted or the ends swapped; some law must break.
"""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

import diffflow as df
from diffflow.equation.times import clock
from diffflow.networks.discriminator import Discriminator
from diffflow.networks.games import GAMES
from diffflow.objectives import discriminator_path as ratios
from diffflow.objectives.base import Batch
from diffflow.objectives.discriminator_path import PathDiscriminator
from diffflow.objectives.paths import ParticlePath, SchedulePath
from diffflow.sampling.exponential import step_per_particle

F64 = torch.float64


# -- the laws, small --------------------------------------------------------------------------------------------------
class Known(torch.nn.Module):
    """d = a x (1 + time), and a record of what it was shown."""

    classes, timed = 0, True

    def __init__(self, a: float, dials: int):
        super().__init__()
        self.a, self.dials, self.idle = a, dials, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, time, cond=None, dials=None):
        self.seen = x.detach(), time, dials
        return self.a * (1 + time) * x.sum(1) + 0 * self.idle


def each_on_a_schedule() -> None:
    """Six particles at six times, the target N(0, 0.36), against the frozen step written out in textbook terms."""
    s, v = df.VP(), 0.36
    sigma0, sigma1 = torch.linspace(0.5, 3.0, 6, dtype=F64), torch.linspace(0.2, 2.0, 6, dtype=F64)
    a0, a1 = 1 / (1 + sigma0**2).sqrt(), 1 / (1 + sigma1**2).sqrt()
    x, xi = (df.Noise(k).normal(6, (1,), dtype=F64) for k in (0, 1))
    sde = df.at(s, s.score(df.Gaussian(torch.zeros(1, dtype=F64), math.sqrt(v))), churn=0.7)
    r, y = (sigma1 / sigma0)[:, None], x / a0[:, None]
    d = y * v / (v + sigma0[:, None] ** 2)
    want = d + (y - d) * r**1.7 + sigma1[:, None] * (1 - r**1.4).sqrt() * xi
    got = ratios.step_per_particle(sde, x, s.time(sigma0), s.time(sigma1), xi)
    assert torch.allclose(got, a1[:, None] * want, rtol=1e-6, atol=1e-8)


def each_without_a_schedule() -> None:
    """Euler with beta = 1 + t, grad d = (1 + t)/2 and noise 0.5 dW, each particle at its own time."""
    sde = df.continued(df.gan_flow(Discriminator(Known(0.5, 0)).ratio(), lambda t: 1 + t, horizon=1.0), -0.25)
    t0, h = torch.linspace(0, 0.7, 6, dtype=F64), torch.linspace(0.05, 0.3, 6, dtype=F64)
    x, xi = (df.Noise(k).normal(6, (1,), dtype=F64) for k in (0, 1))
    want = x + (h * (1 + t0) ** 2 / 2)[:, None] + 0.5 * h.sqrt()[:, None] * xi
    assert torch.allclose(ratios.step_per_particle(sde, x, t0, t0 + h, xi), want, rtol=1e-5)


def shown(path: SchedulePath | ParticlePath, dials: int, n: int = 6000):
    """What the discriminator sees in the first update on data that are all 0: real, fake (n, 2), t (n,), dials."""
    net = Known(0.0, dials)
    objective = PathDiscriminator(Discriminator(net), path, GAMES["kl"], size=n)
    next(objective.turns(Batch(torch.zeros(n, 2), None, torch.arange(n)), df.Noise(3)))
    x, t, told = net.seen
    return x[:n], x[n:], t[:n], told


def spreads(t: torch.Tensor, x: torch.Tensor, wanted: Callable[[float], float], steps: int) -> None:
    """At each of the times the points have the spread wanted, within 4.5 standard errors."""
    assert len(t.unique()) == steps
    for u in t.unique():
        own = x[t == u]
        assert abs(own.std().item() / wanted(u.item()) - 1) < 4.5 / math.sqrt(2 * own.numel())


def diffusion_path() -> None:
    """The target a point: D* = 0, so a step keeps std = sigma exactly at any churn; EDM's sigma is sigma_max - t."""
    point = df.Gaussian(torch.zeros(2), 1e-9)
    path = SchedulePath(df.EDM(0.05, 2.0), point, df.Gaussian(torch.zeros(2), 2.0), (3, 3), gan=4.0, churn=0.5)
    real, fake, t, told = shown(path, 3)
    assert t.min() == 0
    for x in (real, fake):
        spreads(t, x, lambda u: 2.0 - u, 3)
    assert 3.5 < told[:, 0].max() < 4.0  # gan
    assert 0.4 < told[:, 1].max() < 0.5  # churn
    assert torch.allclose(told[:, 2], torch.tensor(3.0).log2())


def improved_path() -> None:
    """VE noise falls in equal ratio along t; particles that nothing moves stay as they began."""
    start = df.Gaussian(torch.zeros(2), 1.5)
    path = ParticlePath(lambda d: df.improved_gan(df.VE(0.1, 1.0), d, 1.0, start), 4)
    real, fake, t, _ = shown(path, 0)
    spreads(t, real, lambda u: 0.1**u, 4)
    spreads(t, fake, lambda u: 1.5, 4)


EACH = [each_on_a_schedule, each_without_a_schedule, diffusion_path, improved_path]


def each_broken() -> str | None:
    for law in EACH:
        try:
            law()
        except (AssertionError, ValueError, ArithmeticError, RuntimeError):
            return law.__name__
    return None


# -- the mutations ----------------------------------------------------------------------------------------------------
def reverse(f: Callable) -> Callable:
    return lambda self, t: f(self, self.horizon - clock(t))


def invert(f: Callable) -> Callable:
    return lambda self, t: 1 / f(self, t)


def slipped(s: df.Schedule | None, mutate: Callable) -> df.Schedule | None:
    """The schedule with a mutated sigma."""
    if s is None:
        return None
    other = type("Slipped", (type(s),), {"sigma": mutate(type(s).sigma)})
    return other(s.sigma_min, s.sigma_max) if isinstance(s, df.EDM | df.VE) else other()


STEPS = {
    "t0 and t1": lambda sde, x, t0, t1, xi: step_per_particle(sde, x, t1, t0, xi),
    "horizon - t": lambda sde, x, t0, t1, xi: step_per_particle(sde, x, sde.horizon - t0, sde.horizon - t1, xi),
    "late": lambda sde, x, t0, t1, xi: step_per_particle(sde, x, t1, t1 + (t1 - t0), xi),
    "sigma reversed": lambda sde, x, t0, t1, xi: step_per_particle(
        dataclasses.replace(sde, schedule=slipped(sde.schedule, reverse)), x, t0, t1, xi
    ),
    "1/sigma": lambda sde, x, t0, t1, xi: step_per_particle(
        dataclasses.replace(sde, schedule=slipped(sde.schedule, invert)), x, t0, t1, xi
    ),
    "-xi's size": lambda sde, x, t0, t1, xi: step_per_particle(sde, x, t0, t1, xi / 2),
}


def test_the_laws_of_each_hold():
    assert each_broken() is None


@pytest.mark.parametrize("name", STEPS)
def test_a_slip_in_a_step_of_each_is_noticed(monkeypatch, name):
    monkeypatch.setattr(ratios, "step_per_particle", STEPS[name])
    assert each_broken() is not None


@pytest.mark.parametrize("mutate", [reverse, invert], ids=["horizon - t", "inverse"])
@pytest.mark.parametrize("law", [diffusion_path, improved_path])
def test_a_slip_in_the_noise_of_real_samples_is_noticed(monkeypatch, law, mutate):
    plain = PathDiscriminator.__init__

    def slip(self, *args, **settings):
        plain(self, *args, **settings)
        self.schedule = slipped(self.schedule, mutate)  # read for the real samples only

    monkeypatch.setattr(PathDiscriminator, "__init__", slip)
    with pytest.raises(AssertionError):
        law()


@pytest.mark.parametrize("law", [diffusion_path, improved_path])
def test_a_slip_in_the_clocks_of_the_pool_is_noticed(monkeypatch, law):
    plain = PathDiscriminator.times
    monkeypatch.setattr(PathDiscriminator, "times", lambda self, k, dials: self.grids[0][-1] - plain(self, k, dials))
    with pytest.raises((AssertionError, RuntimeError)):
        law()


def test_a_slip_in_what_the_discriminator_is_told_is_noticed(monkeypatch):
    plain = SchedulePath.dial_inputs
    monkeypatch.setattr(SchedulePath, "dial_inputs", lambda self, dials: plain(self, dials)[..., [1, 0, 2]])
    with pytest.raises(AssertionError):
        diffusion_path()
