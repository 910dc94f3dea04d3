"""The pool is the path: every slot an exact simulation of it, whatever the batch, the accumulation or a restart."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffflow as df
from diffflow.networks.backbones.discriminator import MLPDiscriminator, Stages
from diffflow.networks.backbones.mlp import MLP
from diffflow.networks.discriminator import Discriminator
from diffflow.networks.games import GAMES, Penalty
from diffflow.objectives.base import Batch, InTurn
from diffflow.objectives.discriminator_path import PathDiscriminator
from diffflow.objectives.paths import ParticlePath, SchedulePath
from diffflow.objectives.score_matching import ScoreMatching

F64 = torch.float64
VANILLA = GAMES["vanilla"]
START = df.Gaussian(torch.zeros(2))


class Known(torch.nn.Module):
    """d = a x - b |x|^2/2, growing with time by 1 + t; a parameter that changes nothing."""

    def __init__(self, dials: int = 0, classes: int = 0, timed: bool = True, a: float = 0.8, b: float = 1.2) -> None:
        super().__init__()
        self.dials, self.classes, self.timed, self.a, self.b = dials, classes, timed, a, b
        self.idle = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple] = []

    def forward(self, x, time, cond=None, dials=None):
        self.seen.append((x.detach(), time, cond, dials))
        flat = x.flatten(1)
        return (1 + time) * (self.a * flat - 0.5 * self.b * flat**2).sum(1) + 0 * self.idle


def unit(ratio, entropy=0.0, eta=1.5):
    sde = df.gan_flow(ratio, eta, start=START)
    return df.continued(sde, -entropy) if entropy else sde


def batch(n: int, first: int = 0, classes: int = 0) -> Batch:
    cond = torch.arange(first, first + n) % classes if classes else None
    return Batch(df.Noise(1, first).normal(n, (2,)), cond, torch.arange(first, first + n))


def train(objective, steps: int, n: int = 64, parts: int = 1, begin: int = 0, lr: float = 1e-2, classes: int = 0):
    """`fit` in small: steps of n samples in `parts` micro-batches, in lockstep, each player on plain gradients."""
    turns = []
    for k in range(begin, begin + steps):
        m, noise = n // parts, df.Noise(7)
        firsts = range(k * n, (k + 1) * n, m)
        rounds = [objective.turns(batch(m, i, classes), noise.shift(i)) for i in firsts]
        while here := [turn for r in rounds if (turn := next(r, None)) is not None]:
            player = objective.players[here[0].player]
            for turn in here:
                turn.loss.mean().div(parts).backward(inputs=list(player.parameters()))
            with torch.no_grad():
                for p in player.parameters():
                    p -= lr * (p.grad if p.grad is not None else 0)
                    p.grad = None
            turns.append(here)
    return turns


def discriminator(seed: int = 0, classes: int = 0, dials: int = 0, time=None) -> Discriminator:
    torch.manual_seed(seed)
    return Discriminator(MLPDiscriminator(2, classes, width=16, depth=1, embed=8, dials=dials), time=time)


# -- a discriminator that stands still --------------------------------------------------------------------------------
@pytest.mark.parametrize("entropy", [0.0, 0.4])
def test_the_pool_at_each_step_is_the_simulated_law(entropy):
    """Linear motion: x1 = x0 + h s (a - b x0) + noise, so means and variances of every step are known; the slots at
    step k must show them, from the first visit on."""
    N, size, eta = 6, 6000, 1.5
    net = Known()
    path = ParticlePath(lambda ratio: unit(ratio, entropy, eta), N)
    objective = PathDiscriminator(Discriminator(net), path, VANILLA, size=size)
    moments, h = [(0.0, 1.0)], 1 / N
    for k in range(N - 1):
        m, v = moments[-1]
        pull = eta * h * (1 + k * h)
        moments.append((m + pull * (net.a - net.b * m), (1 - pull * net.b) ** 2 * v + entropy * h))
    # the very process of `sample`
    tr = df.sample(path.flow(Discriminator(net).ratio()), 4000, steps=N, keep=1, noise=df.Noise(8))
    for k, (_, x) in enumerate(tr.kept[:-1]):
        assert abs(x.mean().item() - moments[k][0]) < 4.5 * math.sqrt(moments[k][1] / x.numel())
    for step in range(3):
        train(objective, 1, size, begin=step)
        x, k = objective.pool.x, objective.pool.k
        assert set(k.tolist()) == set(range(N))
        for j, (m, v) in enumerate(moments):
            own = x[k == j]
            assert abs(len(own) / size - 1 / N) < 0.002  # the golden ratio spreads the slots evenly
            assert abs(own.mean().item() - m) < 4.5 * math.sqrt(v / own.numel())
            assert abs(own.var().item() / v - 1) < 4.5 * math.sqrt(2 / own.numel())


@settings(max_examples=20, deadline=None)
@given(N=st.integers(1, 6), n=st.integers(1, 8), size=st.integers(8, 24))
def test_every_slot_visits_every_step_and_is_judged_at_its_time(N, n, size):
    net, visits = Known(), {}
    objective = PathDiscriminator(Discriminator(net), ParticlePath(unit, N), VANILLA, size=size)
    for step in range(2 + math.ceil((N + 1) * size / n)):
        turns = objective.turns(batch(n, step * n), df.Noise(7, step * n))
        next(turns)
        x, t, _, _ = net.seen[-1]
        assert torch.equal(t[:n], t[n:])  # a real sample at each fake one's time
        assert torch.equal(x[:n], batch(n, step * n).x)  # and clean
        for i in range(n):
            slot = (step * n + i) % size
            visits.setdefault(slot, []).append(round(t[i].item() * N))
            if len(visits[slot]) > 1:  # where its last visit left it
                assert torch.equal(x[n + i], objective.pool.x[slot])
        assert next(turns, None) is None
    assert set(visits) == set(range(size))
    for seen in visits.values():
        assert all(b == (a + 1) % N for a, b in itertools.pairwise(seen))
        assert set(seen) == set(range(N))


def test_reals_are_noised_as_the_schedule_says():
    net, s, n = Known(), df.VE(0.05, 1.0), 4000
    flow = lambda ratio: df.improved_gan(s, ratio, 0.5, START)
    objective = PathDiscriminator(Discriminator(net), ParticlePath(flow, 4), VANILLA, size=n)
    y = Batch(torch.zeros(n, 2), None, torch.arange(n))
    next(objective.turns(y, df.Noise(7)))
    x, t, _, _ = net.seen[-1]
    for k in range(4):
        own, sigma = x[:n][(t[:n] * 4).round() == k], 1.0 * (0.05 / 1.0) ** (k / 4)
        assert abs(own.std().item() / sigma - 1) < 4.5 / math.sqrt(2 * own.numel())


# -- Diffusion-GAN's path ---------------------------------------------------------------------------------------------
Q = df.Gaussian(torch.tensor([0.3, -0.2]), 0.6)


def schedule_path(**change) -> SchedulePath:
    s = df.EDM(0.02, 3.0)
    return SchedulePath(s, **{"source": Q, "start": s.prior((2,)), "steps": (4, 7), "gan": 1.5, "churn": 1.0} | change)


def test_a_slot_on_a_schedule_is_the_process_that_sampler_samples():
    """Slots from the start of their path on, beside `sample` with their dials and the noise they had: same points."""
    n, rounds, checked = 12, 18, 0
    discriminator, path = Discriminator(Known(dials=3, a=0.5, b=0.4)), schedule_path()
    objective = PathDiscriminator(discriminator, path, VANILLA, size=n)
    films = []
    for step in range(rounds):
        train(objective, 1, n, begin=step)
        films.append(objective.pool.map(torch.clone))
    for j in range(n):
        begin = next(i for i, pool in enumerate(films) if pool.k[j] == 0)
        N, gan, churn = films[begin].dials[j].tolist()

        class Recorded:
            def increment(self, k, t0, t1, x, first=begin + 1, j=j):
                xi = df.Noise(7, (first + k) * n).fork("step").normal(n, (2,))[j]
                return xi[None] * math.sqrt(t1 - t0)

        sde, solver = path.sampler(discriminator, int(N), gan, churn)
        x0 = films[begin].x[j][None]
        kept = df.sample(sde, x0, steps=int(N), solver=solver, keep=1, noise=Recorded()).kept
        for pool, (_, x) in zip(films[begin : begin + int(N)], kept, strict=False):
            torch.testing.assert_close(pool.x[j], x[0], rtol=1e-4, atol=1e-4)
            checked += 1
    assert checked >= 4 * n


def test_dials_are_drawn_as_stated():
    n, path = 20_000, schedule_path()
    objective = PathDiscriminator(Discriminator(Known(dials=3)), path, VANILLA, size=1)
    dials = objective.draw_dials(n, df.Noise(3), torch.device("cpu"))
    assert set(dials[:, 0].tolist()) == {4.0, 5.0, 6.0, 7.0}
    for N in (4, 5, 6, 7):
        share, p = (dials[:, 0] == N).double().mean().item(), math.log((N + 1) / N) / math.log(2)
        assert abs(share - p) < 4.5 * math.sqrt(p * (1 - p) / n)
    for column, high in ((1, 1.5), (2, 1.0)):
        u = dials[:, column] / high
        assert 0 < u.min() < 0.01 < 0.99 < u.max() < 1
        assert abs(u.mean().item() - 0.5) < 4.5 / math.sqrt(12 * n)
    told = path.dial_inputs(dials)
    torch.testing.assert_close(told, torch.stack([dials[:, 1], dials[:, 2], dials[:, 0].log2()], 1).float())


# -- any batch, any cut, any restart ----------------------------------------------------------------------------------
def joint(seed: int = 0) -> InTurn:
    """A small Diffusion-GAN with classes."""
    torch.manual_seed(seed)
    denoiser, s = df.Denoiser(MLP(2, 3, width=16, depth=1), 1.0), df.EDM(0.02, 3.0)
    time = lambda t: 0.25 * s.sigma(t).log()
    path = schedule_path(source=denoiser)
    ratio = PathDiscriminator(discriminator(seed, 3, 3, time), path, VANILLA, Penalty(real=0.1, fake=0.1), size=128)
    return InTurn([ScoreMatching(denoiser), ratio])


def flow(seed: int = 0) -> PathDiscriminator:
    path = ParticlePath(lambda ratio: df.discriminator_flow(ratio, VANILLA.speed, 2.0, START), 7)
    return PathDiscriminator(discriminator(seed, 3), path, VANILLA, size=256)


@pytest.mark.parametrize("make", [flow, joint])
def test_accumulation_moves_the_same_particles(make):
    whole, parts = make(), make()
    train(whole, 4, 128, classes=3)
    train(parts, 4, 128, parts=2, classes=3)
    for name, v in whole.state().items():
        torch.testing.assert_close(parts.state()[name], v, rtol=1e-3, atol=1e-3)  # sums of other shapes, in float32
        if not v.is_floating_point():
            assert torch.equal(parts.state()[name], v)


@pytest.mark.parametrize("make", [flow, joint])
def test_a_restart_is_bit_identical(make):
    whole, first, second = make(), make(), make(1)
    train(whole, 6, 128, classes=3)
    train(first, 3, 128, classes=3)
    for name, player in first.players.items():
        second.players[name].load_state_dict(player.state_dict())
    second.load_state({k: v.clone() for k, v in first.state().items()})
    train(second, 3, 128, begin=3, classes=3)
    for name, v in whole.state().items():
        assert torch.equal(second.state()[name], v), name
    for name, player in whole.players.items():
        assert all(
            torch.equal(a, b) for a, b in zip(player.parameters(), second.players[name].parameters(), strict=True)
        )


def test_a_missing_or_foreign_pool_is_an_error():
    state = flow().state()
    with pytest.raises(ValueError, match="no particle pool"):
        flow().load_state({})
    with pytest.raises(ValueError, match=r"pool/k is missing"):
        flow().load_state({k: v for k, v in state.items() if k != "pool/k"})
    with pytest.raises(ValueError, match=r"pool/x has shape \(128, 2\).*needs \(256, 2\)"):
        flow().load_state({k: v[:128] for k, v in state.items()})
    with pytest.raises(ValueError, match="pool/x"):
        joint().load_state(state)
    with pytest.raises(ValueError, match="no particle pool"):
        joint().load_state({})


def test_a_path_has_the_steps_of_its_equation():
    def fixed(ratio):
        return replace(unit(ratio), grid=(0.0, 0.5, 1.0))

    assert PathDiscriminator(Discriminator(Known()), ParticlePath(fixed, 2), VANILLA, size=8).grids.shape == (1, 3)
    for steps in (1, 3):
        with pytest.raises(ValueError, match=f"a path of {steps} steps, but its equation has 2 of its own"):
            PathDiscriminator(Discriminator(Known()), ParticlePath(fixed, steps), VANILLA, size=8)


# -- labels, costs, learning ------------------------------------------------------------------------------------------
def test_a_particle_keeps_its_label_and_some_are_hidden():
    n, N, share = 2000, 4, 0.25
    net = Known(classes=3)
    objective = PathDiscriminator(Discriminator(net), ParticlePath(unit, N), VANILLA, size=n, label_dropout=share)
    for step in range(N + 2):
        before = objective.pool.cond
        train(objective, 1, n, begin=step, classes=3)
        real, fake = next(cond for _, _, cond, _ in net.seen[::-1] if len(cond) == 2 * n).split(n)
        hidden = (real == -1).float().mean().item()
        assert abs(hidden - share) < 4.5 * math.sqrt(share * (1 - share) / n)
        assert torch.equal(real[real >= 0], batch(n, step * n, 3).cond[real >= 0])
        if step:
            assert torch.equal(fake, before)
            kept = objective.pool.k > 0
            assert torch.equal(objective.pool.cond[kept], fake[kept])
        assert abs((fake == -1).float().mean().item() - share) < 4.5 * math.sqrt(share * (1 - share) / n)


def test_a_penalised_point_is_judged_as_the_class_of_its_nearer_end():
    n, net = 500, Known(classes=3)
    objective = PathDiscriminator(Discriminator(net), ParticlePath(unit, 4), VANILLA, Penalty(1.0, 1.0, 1.0), size=n)
    train(objective, 1, n, classes=3)
    at = next(i for i, (x, *_) in enumerate(net.seen) if len(x) == 2 * n)  # the game, then the penalties, then the move
    (real, fake), (real_cond, fake_cond) = (net.seen[at][i].split(n) for i in (0, 2))
    for (x, _, cond, _), share in zip(net.seen[at + 1 : at + 4], (1.0, 0.0, None), strict=True):
        u = (x - fake).norm(dim=1) / (real - fake).norm(dim=1)
        assert share is None or (u - share).abs().max() < 1e-5
        clear = (u - 0.5).abs() > 1e-3
        assert torch.equal(cond[clear], torch.where(u > 0.5, real_cond, fake_cond)[clear])


@pytest.mark.parametrize("penalty", [Penalty(), Penalty(real=0.1, between=0.1)])
def test_evaluations_are_what_was_called(penalty):
    """A backward pass or an input gradient doubles a call; both, a penalty, make four."""
    n, net = 32, Known()
    objective = PathDiscriminator(Discriminator(net), ParticlePath(unit, 5), VANILLA, penalty, size=n)
    for step in range(3):
        net.seen.clear()
        ((turn,),) = train(objective, 1, n, begin=step)
        births = 4 if step == 0 else 0
        assert turn.log["evaluations"] == 4 + 2 + 2 * births + 4 * (len(net.seen) - 2 - births)
        assert len(net.seen) == 2 + births + (2 if penalty.real else 0)
    gone = (objective.pool.x - net.seen[-1][0]).square().mean(1).sqrt()
    on = objective.pool.k > 0
    torch.testing.assert_close(objective.pool.moved[on], gone[on])


@pytest.mark.parametrize("stages", [False, True])
def test_a_discriminator_learns_to_carry_particles_to_data(stages):
    torch.manual_seed(0)
    nets = [MLPDiscriminator(2, width=24, depth=1, embed=8, timed=not stages) for _ in range(4 if stages else 1)]
    discriminator = Discriminator(Stages(nets) if stages else nets[0])
    path = ParticlePath(lambda ratio: df.discriminator_flow(ratio, VANILLA.speed, 3.0, START), 8)
    objective, target = PathDiscriminator(discriminator, path, VANILLA, size=128), torch.tensor([1.5, -1.0])
    optimizer = torch.optim.Adam(discriminator.parameters(), 5e-3)
    for step in range(250):
        noise = df.Noise(5, 128 * step)
        y = target + 0.5 * noise.fork("data").normal(128, (2,))
        turns = objective.turns(Batch(y, None, torch.arange(128)), noise)
        next(turns).loss.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert next(turns, None) is None
    x = df.sample(path.flow(discriminator.ratio()), 1000, steps=8, noise=df.Noise(9)).last
    assert (x.mean(0) - target).norm() < 0.3  # it began 1.8 away
    assert (x.std(0) - 0.5).abs().max() < 0.25  # and twice as wide


def test_joint_objectives_take_turns_and_keep_their_state_apart():
    objective = joint()
    assert list(objective.players) == ["denoiser", "discriminator"]
    turns = train(objective, 2, 128, classes=3)
    assert [t[0].player for t in turns] == ["denoiser", "discriminator"] * 2
    assert set(objective.state()) == {f"1/pool/{k}" for k in ("x", "k", "cond", "dials", "moved")}
    assert turns[3][0].log["evaluations"] == 4 + 8 + 3  # learning, two penalties, a step of score and log-ratio
    with pytest.raises(ValueError, match=r"discriminator.*two of the objectives"):
        InTurn([flow(), flow()])
    with pytest.raises(ValueError, match="none of the 2 objectives"):
        joint().load_state(objective.state() | {"2/x": torch.zeros(1)})


# -- bad input --------------------------------------------------------------------------------------------------------
def test_impossible_settings_are_refused_by_name():
    path = ParticlePath(unit, 5)
    with pytest.raises(ValueError, match="not told the time"):
        PathDiscriminator(Discriminator(Known(timed=False)), path, VANILLA, size=8)
    with pytest.raises(ValueError, match="takes 3 dials, the path tells it 0"):
        PathDiscriminator(Discriminator(Known(dials=3)), path, VANILLA, size=8)
    with pytest.raises(ValueError, match="takes 0 dials, the path tells it 3"):
        PathDiscriminator(Discriminator(Known()), schedule_path(), VANILLA, size=8)
    with pytest.raises(ValueError, match="a law to start from"):
        PathDiscriminator(Discriminator(Known()), ParticlePath(df.gan_flow), VANILLA, size=8)
    with pytest.raises(ValueError, match="size=0"):
        PathDiscriminator(Discriminator(Known()), path, VANILLA, size=0)
    with pytest.raises(ValueError, match="label_dropout = 2"):
        PathDiscriminator(Discriminator(Known()), path, VANILLA, size=8, label_dropout=2.0)
    small = PathDiscriminator(Discriminator(Known()), path, VANILLA, size=8)
    with pytest.raises(ValueError, match="batch of 9 samples does not fit into a pool of 8"):
        next(small.turns(batch(9), df.Noise(0)))
    with pytest.raises(ValueError, match=r"samples of shape \(3,\)"):
        next(small.turns(Batch(torch.zeros(4, 3), None, torch.arange(4)), df.Noise(0)))
    with pytest.raises(ValueError, match="data have no labels"):
        next(PathDiscriminator(Discriminator(Known(classes=3)), path, VANILLA, size=8).turns(batch(4), df.Noise(0)))
    with pytest.raises(ValueError, match="steps=0"):
        ParticlePath(unit, 0)
    for change, word in (({"steps": (9, 8)}, "steps"), ({"gan": 0.0}, "gan=0"), ({"churn": -1.0}, "churn=-1")):
        with pytest.raises(ValueError, match=word):
            schedule_path(**change)


@pytest.mark.parametrize(("dial", "values"), [("steps", (3, 8)), ("gan", (1.6,)), ("churn", (1.1,))])
def test_sampling_outside_the_trained_ranges_warns(dial, values):
    path, net, inside = schedule_path(), Discriminator(Known(dials=3)), {"steps": 5, "gan": 1.0, "churn": 0.5}
    for value in values:
        with pytest.warns(UserWarning, match=rf"{dial}={value:g} is outside"):
            path.sampler(net, **(inside | {dial: value}))
    sde, _ = path.sampler(net, **inside)
    assert df.sample(sde, 7, steps=5, solver=path.solver).nfe == 5 * 3


@pytest.mark.parametrize("step", [0, 3])
def test_a_lost_particle_starts_again_and_is_counted(step):
    """One that is no number, mid-path or after its last step: the loss of its next visit is finite, the pool whole."""
    n, N = 16, 3
    objective = PathDiscriminator(Discriminator(Known()), ParticlePath(unit, N), VANILLA, size=n)
    train(objective, 2, n)
    at = int((objective.pool.k == 1).nonzero()[0])
    objective.pool.x[at, 0] = float("nan") if step else float("inf")
    objective.pool.k[at] = step
    ((turn,),) = train(objective, 1, n, begin=2)
    assert torch.isfinite(turn.loss).all()
    assert turn.log["lost"] == 1 / n
    assert torch.isfinite(objective.pool.x).all()
    assert torch.isfinite(objective.pool.moved).all()
    assert objective.pool.k[at] == 1  # from the start, one step
    ((turn,),) = train(objective, 1, n, begin=3)
    assert turn.log["lost"] == 0
    assert torch.isfinite(turn.log["displacement"])


def test_a_step_that_loses_a_particle_costs_no_turn():
    """Whichever step it is that overflows, the last one too."""
    n, N = 16, 3

    class Breaking(Known):
        def forward(self, x, time, cond=None, dials=None):
            d = super().forward(x, time, cond, dials)
            return d if len(x) == 2 * n else d * torch.where(torch.arange(len(x)) == self.broken, math.inf, 1.0)

    net = Breaking()
    net.broken = -1
    objective = PathDiscriminator(Discriminator(net), ParticlePath(unit, N), VANILLA, size=n)
    train(objective, 1, n)
    for k in range(N):
        net.broken = int((objective.pool.k == k).nonzero()[0])
        train(objective, 1, n, begin=1 + 2 * k)
        net.broken = -1
        ((turn,),) = train(objective, 1, n, begin=2 + 2 * k)
        assert turn.log["lost"] == 1 / n
        assert torch.isfinite(turn.loss).all()
        assert math.isfinite(turn.log["displacement"])
