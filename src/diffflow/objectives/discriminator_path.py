r"""The discriminator along a path: how does one network d(x, t) learn log r_t/p_t at all times, when p_t is the law of
particles that d itself moves?

    fake   x_k at time t_k, moved there by  dX = [f + (beta - g2/2) grad d + (g2/2) score] dt + sqrt(g2 - lam2) dW
    real   scale(t_k) (Y + sigma(t_k) eps) on a noise schedule, else the clean Y
    d      descends an adversarial loss L(d(real, t_k), d(fake, t_k)); for the logistic one d -> log r_t/p_t

This is the whole training of Discriminator Flow (derivations.md 6.4), of the improved GAN (3.2; with a `Stages` net its
variant of independent discriminators) and of Diffusion-GAN (3.3). As written there, every update simulates the path
anew: 2 (N - 1) network evaluations per sample. Here a *pool* holds particles at all times of the path, each moves one
step after the update that saw it, and one that arrives starts again:

    slot j:    x_0 ~ start, x_1, ..., x_N;   sample number i of the training uses slot i mod size

so an update costs one step of its own particles, 2 evaluations, whatever N; the price is that a particle's past steps
were made by discriminators up to N visits old. Nothing of a pool is approximate but that: with a discriminator that
stands still each slot is an exact simulation. Slots are born on their first visit, simulated to staggered places of
the path, so that every batch shows all times.

Shapes: x (n, *shape), k int64 (n,), t float64 (n,), dials float64 (n, 3): steps, gan, churn.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..equation.fields import Ratio
from ..equation.laws import Law
from ..equation.noise import GOLDEN, Noise
from ..equation.schedule import Schedule
from ..equation.sde import DiffFlow
from ..equation.spectrum import diffusion_gan
from ..equation.times import Time, per_particle
from ..networks.discriminator import Discriminator
from ..networks.games import Game, Penalty, game_signals
from ..sampling.exponential import Exponential, step_per_particle
from ..sampling.sample import default_grid
from ..sampling.solvers import Solver
from .base import Batch, Turn, gather_rows


class Path(Protocol):
    """How particles move, and between which bounds (low, high) the dials of their motion are drawn."""

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Bounds of steps, gan and churn."""
        ...

    def sde(self, ratio: Ratio, dials: Tensor) -> DiffFlow:
        """The motion of particles with these dials (n, 3)."""
        ...

    def told(self, dials: Tensor) -> Tensor | None:
        """What a discriminator is told of the dials, (n, j) float32."""
        ...


@dataclass(frozen=True)
class ParticlePath:
    """N Euler steps of a particle flow without score, equal unless its equation has a grid: Discriminator Flow, the
    improved GAN.

    flow    the ratio -> its equation, with a start: for instance
            lambda ratio: discriminator_flow(ratio, game.speed, eta=5.0, start=Gaussian(torch.zeros(2)))
            lambda ratio: improved_gan(VE(0.01, 1.0), ratio, beta=4.0, start=...)
            either one `continued(..., -entropy)` for entropic noise
    steps   N; df.sample(path.flow(ratio), n, steps=N) is the same process
    """

    flow: Callable[[Ratio], DiffFlow]
    steps: int = 25

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: a path has at least one step")

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        return (self.steps, self.steps), (0.0, 0.0), (0.0, 0.0)

    def sde(self, ratio: Ratio, dials: Tensor) -> DiffFlow:
        return self.flow(ratio)

    def told(self, dials: Tensor) -> None:
        return None


@dataclass(frozen=True)
class SchedulePath:
    """Diffusion-GAN's process on a noise schedule: score and discriminator move the particles together, in exact steps
    with the composite D* frozen on the default grid of N steps, the last of which is the clean denoising.

    Every particle has dials of its own, kept along its path: gan uniform on [0, gan], churn uniform on [0, churn], N
    between steps[0] and steps[1] with log N uniform, so that a batch shows all N alike. The discriminator is told
    (gan, churn, log2 N), because the law of the particles, hence the ratio, depends on them. Its inputs are best told
    as a denoiser's are: Discriminator(net, time=log sigma(t) / 4, precondition=1 / (scale sqrt(sigma^2 + std^2))).

    The log-ratio weighs gan at small noise and fades as gan reach^2 / (reach^2 + sigma^2) above `reach`: there the laws
    hardly differ, while D* multiplies whatever error grad d has by sigma^2.

    source   what the score is made of: a Denoiser (which may be learning at the same time) or a Law
    start    law of the particles at t = 0, for instance schedule.prior(shape)
    """

    schedule: Schedule
    source: Any
    start: Law
    steps: tuple[int, int] = (8, 32)
    gan: float = 2.0
    churn: float = 1.0
    reach: float = math.inf

    solver = Exponential(order=1, correct=False)  # the steps of the pool, for `sample`

    def __post_init__(self) -> None:
        low, high = self.steps
        if not 1 <= low <= high:
            raise ValueError(f"steps={self.steps}: bounds (low, high) with 1 <= low <= high")
        if not (0 < self.gan < math.inf and 0 <= self.churn < math.inf):
            raise ValueError(f"gan={self.gan} must be positive and churn={self.churn} not negative, both finite")
        if not self.reach > 0:
            raise ValueError(f"reach={self.reach}: the noise level above which the log-ratio fades is positive")

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        return self.steps, (0.0, self.gan), (0.0, self.churn)

    def sde(self, ratio: Ratio, dials: Tensor) -> DiffFlow:
        gan, churn = dials[..., 1], dials[..., 2]

        def fading(t: Time) -> Tensor:
            return gan / (1 + (self.schedule.sigma(t) / self.reach) ** 2)

        score = self.schedule.score(self.source)
        return diffusion_gan(self.schedule, score, ratio, gan=fading, churn=lambda t: churn, start=self.start)

    def told(self, dials: Tensor) -> Tensor:
        return torch.stack([dials[..., 1], dials[..., 2], dials[..., 0].log2()], -1).float()

    def sampler(self, discriminator: Discriminator, steps: int, gan: float, churn: float) -> tuple[DiffFlow, Solver]:
        """The equation and solver for `sample(sde, n, steps, solver=solver)`: the very process that the discriminator
        was trained on. Warns outside the trained ranges, where its ratio is a guess; raises ValueError for values that
        no process has.
        """
        if not (steps >= 1 and 0 < gan < math.inf and 0 <= churn < math.inf):
            raise ValueError(
                f"steps={steps} must be at least 1, gan={gan} positive and churn={churn} not negative, both finite"
            )
        dials = torch.tensor([steps, gan, churn], dtype=torch.float64)
        names = ("steps", "gan", "churn")
        for name, value, (low, high) in zip(names, dials.tolist(), self.ranges, strict=True):
            if not low <= value <= high:
                warnings.warn(
                    f"{name}={value:g} is outside [{low:g}, {high:g}], where this discriminator was trained: it does "
                    "not know the particles of that process",
                    stacklevel=2,
                )
        return self.sde(discriminator.ratio(dials=self.told(dials)), dials), self.solver


class PathDiscriminator:
    """One player, "discriminator", trained between r_t and the particles that it moves, with a pool.

    discriminator   must be told the time, and as many dials as the path has
    path            how the particles move
    game, penalty   what the discriminator minimises (games.py)
    size            slots of the pool, at least the samples of a step; m times as many means that a particle moves at
                    every m-th step only, on a discriminator m updates further
    label_dropout   share of samples and particles whose class is hidden (-1), for a discriminator with classes

    A turn logs the discriminator's signals, `evaluations` (network evaluations per sample of this update; a backward
    pass or
    an input gradient doubles a call), `displacement` (root mean square of the particles' last step) and `lost` (share
    of particles whose last step was not finite: they start again at once, so that they cost the game no turn).
    """

    def __init__(
        self,
        discriminator: Discriminator,
        path: Path,
        game: Game,
        penalty: Penalty | None = None,
        *,
        size: int,
        label_dropout: float = 0.1,
    ):
        if not discriminator.timed:
            raise ValueError(
                "this discriminator is not told the time, but along a path the law of the particles changes with it: "
                "build its net with timed=True"
            )
        if game.paired:
            raise ValueError(
                f"the game {game.name!r} reads a particle's logit against a real partner, which particles on a path do "
                "not have: take another"
            )
        if size < 1:
            raise ValueError(f"size={size}: the pool needs at least as many slots as a step has samples")
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout = {label_dropout} must be between 0 and 1")
        self.discriminator, self.path, self.game = discriminator, path, game
        self.penalty = penalty or Penalty()
        self.size, self.label_dropout = size, label_dropout
        some = torch.tensor([[high for _, high in path.ranges]], dtype=torch.float64)
        told = path.told(some)
        if discriminator.dials != (0 if told is None else told.shape[1]):
            raise ValueError(
                f"this discriminator takes {discriminator.dials} dials, the path tells it "
                f"{0 if told is None else told.shape[1]}: build its net with that number"
            )
        sde = path.sde(discriminator.ratio(dials=told), some)
        if sde.start is None:
            raise ValueError("the particles need a law to start from: give the path's equation a start")
        self.start, self.schedule = sde.start, sde.schedule
        self.low, high = (int(n) for n in path.ranges[0])
        grids = [default_grid(sde, n) for n in range(self.low, high + 1)]
        for n, grid in enumerate(grids, self.low):
            if len(grid) != n + 1:
                raise ValueError(f"a path of {n} steps, but its equation has {len(grid) - 1} of its own: give as many")
        # the grid of N steps is row N - low; a place beyond its end repeats the end
        pad = torch.nn.functional.pad
        self.grids = torch.stack([pad(g, (0, high + 1 - len(g)), value=g[-1].item()) for g in grids])
        self.pool: dict[str, Tensor] = {
            "x": torch.zeros(size, *self.start.shape),
            "k": torch.full((size,), -1),  # not born yet
            "cond": torch.full((size,), -1),
            "dials": torch.zeros(size, 3, dtype=torch.float64),
            "moved": torch.zeros(size),  # root mean square of each particle's last step
        }

    @property
    def players(self) -> Mapping[str, Discriminator]:
        return {"discriminator": self.discriminator}

    # -- the path -----------------------------------------------------------------------------------------------------
    def times(self, k: Tensor, dials: Tensor) -> Tensor:
        """Time of step k on each particle's own grid: (n,) float64."""
        return self.grids.to(k.device)[dials[:, 0].long() - self.low, k]

    def draw(self, n: int, noise: Noise, device: torch.device) -> Tensor:
        """Dials (n, 3) of new particles: log N uniform, gan and churn uniform between their bounds."""
        u = noise.fork("dials").uniform(n, (3,), dtype=torch.float64, device=device)
        (low, high), *others = self.path.ranges
        steps = (low * ((high + 1) / low) ** u[:, 0]).floor().clamp(max=high)
        return torch.stack([steps, *(a + (b - a) * u[:, i + 1] for i, (a, b) in enumerate(others))], 1)

    def move(self, slots: dict[str, Tensor], noise: Noise) -> Tensor:
        """Where particles are after one step of their own: (n, *shape)."""
        x, k, dials = slots["x"], slots["k"], slots["dials"]
        xi = noise.normal(len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device)
        with torch.no_grad():
            return step_per_particle(self.sde(slots), x, self.times(k, dials), self.times(k + 1, dials), xi)

    def sde(self, slots: dict[str, Tensor]) -> DiffFlow:
        ratio = self.discriminator.ratio(dials=self.path.told(slots["dials"]))
        sde = self.path.sde(ratio, slots["dials"])
        return sde.given(slots["cond"]) if self.discriminator.classes else sde

    def fresh(self, cond: Tensor, noise: Noise) -> dict[str, Tensor]:
        """New particles at the start of their path, with these labels."""
        n, device = len(cond), cond.device
        x = self.start.sample(n, noise.fork("start")).to(device, torch.float32)
        k, moved = torch.zeros(n, dtype=torch.int64, device=device), torch.zeros(n, device=device)
        return {"x": x, "k": k, "cond": cond, "dials": self.draw(n, noise, device), "moved": moved}

    def take(self, at: Tensor, cond: Tensor, noise: Noise) -> tuple[dict[str, Tensor], int]:
        """The particles of these slots, those not yet born simulated to their places, and the steps that this took."""
        slots = {name: v[at] for name, v in self.pool.items()}
        unborn, steps = slots["k"] < 0, 0
        if bool(unborn.any()):
            new = self.fresh(cond, noise)
            places = (((at + 1).double() * GOLDEN).frac() * new["dials"][:, 0]).long()
            while bool((behind := unborn & (new["k"] < places)).any()):
                new = _where(behind, self.stepped(new, noise.fork("birth", steps)), new)
                steps += 1
            slots = _where(unborn, new, slots)
        return slots, steps

    def stepped(self, slots: dict[str, Tensor], noise: Noise) -> dict[str, Tensor]:
        """The particles one step later."""
        x = self.move(slots, noise)
        moved = (x - slots["x"]).float().flatten(1).square().mean(1).sqrt()
        return slots | {"x": x, "k": slots["k"] + 1, "moved": moved}

    # -- learning -----------------------------------------------------------------------------------------------------
    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        y, n, device = batch.x, len(batch.x), batch.x.device
        if n > self.size:
            raise ValueError(f"a batch of {n} samples does not fit into a pool of {self.size} slots: raise its size")
        if y.shape[1:] != self.pool["x"].shape[1:]:
            raise ValueError(f"samples of shape {tuple(y.shape[1:])}, but particles start with {self.start.shape}")
        self.pool = {name: v.to(device) for name, v in self.pool.items()}
        at = torch.arange(noise.first, noise.first + n, device=device) % self.size
        real_cond, new_cond = (self.labels(batch, noise.fork(who)) for who in ("real", "new"))
        slots, births = self.take(at, new_cond, noise)
        lost = ~_finite(slots["x"])
        if bool(lost.any()):
            slots = _where(lost, self.fresh(new_cond, noise.fork("lost")), slots)
        fake, fake_cond, t = slots["x"], slots["cond"], self.times(slots["k"], slots["dials"])
        real = y
        if self.schedule is not None:
            eps = noise.fork("eps").normal(n, tuple(y.shape[1:]), dtype=y.dtype, device=device)
            real = per_particle(self.schedule.scale(t), y) * (y + per_particle(self.schedule.sigma(t), y) * eps)

        told, classes = self.path.told(slots["dials"]), self.discriminator.classes

        def logit(x: Tensor, cond: Tensor) -> Tensor:
            m = len(x) // n  # the real and the fake in one call
            both = None if told is None else told.repeat(m, 1)
            return self.discriminator(x, t.repeat(m), cond if classes else None, both)

        d_real, d_fake = logit(torch.cat([real, fake]), torch.cat([real_cond, fake_cond])).split(n)

        def at_class(x: Tensor, nearer_real: Tensor) -> Tensor:
            return logit(x, torch.where(nearer_real, real_cond, fake_cond))

        loss = self.game.discriminator(d_real, d_fake) + self.penalty(at_class, real, fake, noise.fork("penalty"))
        log = {
            "evaluations": self.evaluations(slots, t, births),
            "displacement": slots["moved"].square().mean().sqrt(),
            "lost": lost.float().mean(),
        }
        yield Turn("discriminator", loss, game_signals(self.game, d_real.detach(), d_fake.detach()) | log)

        after = self.stepped(slots, noise.fork("step"))
        arrived = (after["k"] >= slots["dials"][:, 0]) & _finite(after["x"])  # the next visit counts the lost
        begun = self.fresh(new_cond, noise.fork("again")) | {"moved": after["moved"]}
        after = _where(arrived, begun, after)
        at = gather_rows(at)
        self.pool = {name: v.index_copy(0, at, gather_rows(after[name])) for name, v in self.pool.items()}

    def labels(self, batch: Batch, noise: Noise) -> Tensor:
        """The classes of the batch, some hidden; -1 throughout for a discriminator without classes."""
        n, device = len(batch.x), batch.x.device
        if not self.discriminator.classes:
            return torch.full((n,), -1, device=device)
        if batch.cond is None:
            raise ValueError("this discriminator takes classes, but the data have no labels: build it with classes=0")
        hidden = noise.fork("label").uniform(n, device=device) < self.label_dropout
        return torch.where(hidden, -1, batch.cond)

    def evaluations(self, slots: dict[str, Tensor], t: Tensor, births: int) -> int:
        """Network evaluations per sample of an update and of the move after it."""
        sde = self.sde(slots)
        needs = sde.needs(t)
        step = sum(f.cost for f, need in ((sde.score, needs.score), (sde.ratio, needs.ratio)) if f is not None and need)
        penalties = sum(w != 0 for w in (self.penalty.real, self.penalty.fake, self.penalty.between))
        return 2 * 2 + 4 * penalties + (1 + births) * step

    # -- surviving a restart ------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        return {f"pool/{name}": v for name, v in self.pool.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a saved pool. Raises ValueError when it is missing or of another size or shape."""
        for name, own in self.pool.items():
            saved = state.get(f"pool/{name}")
            if saved is None:
                raise ValueError(
                    f"the checkpoint holds no particle pool (pool/{name} is missing): it is of another objective, or "
                    "its objective file is lost; start a new run from its weights"
                )
            if saved.shape != own.shape:
                raise ValueError(
                    f"the saved pool/{name} has shape {tuple(saved.shape)}, this run needs {tuple(own.shape)}: give "
                    "the same batch, pool and data"
                )
        self.pool = {name: state[f"pool/{name}"].to(own) for name, own in self.pool.items()}


def _finite(x: Tensor) -> Tensor:
    """Which particles (n,) are numbers throughout."""
    return x.flatten(1).isfinite().all(1)


def _where(mask: Tensor, a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
    """The particles of a where the mask (n,) is true, else those of b."""
    return {name: torch.where(mask.reshape(-1, *[1] * (v.ndim - 1)), v, b[name]) for name, v in a.items()}
