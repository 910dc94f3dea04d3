"""Discriminators along a path: one network d(x, t) learns log r_t/p_t at all times, p_t the law of what d itself moves.

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

References:
    Franceschi et al. 2023, arXiv:2305.16150 (Discriminator Flow). Zhang et al. 2023, arXiv:2307.02159, algorithms 2
    and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..equation.noise import GOLDEN, Noise
from ..equation.sde import DiffFlow
from ..equation.times import per_particle
from ..networks.discriminator import Discriminator
from ..networks.games import Game, Penalty, game_signals
from ..sampling.exponential import step_per_particle
from ..sampling.sample import default_grid
from .base import Batch, Turn, gather_rows
from .paths import Path


@dataclass(frozen=True, eq=False)
class Particles:
    """Particles on their way along a path, or the slots of a pool.

    Args:
        x: where they are (n, *shape), float32.
        k: how many steps they have made, int64 (n,); -1 for a slot whose particle is not born yet.
        cond: their classes int64 (n,), -1 for no class.
        dials: their steps, gan and churn, float64 (n, 3).
        moved: root mean square of each one's last step (n,).
    """

    x: Tensor
    k: Tensor
    cond: Tensor
    dials: Tensor
    moved: Tensor

    @property
    def finite(self) -> Tensor:
        """Which of them are numbers throughout, bool (n,)."""
        return self.x.flatten(1).isfinite().all(1)

    def map(self, change: Callable[[Tensor], Tensor]) -> Particles:
        """The particles with every tensor changed alike."""
        return Particles(**{name: change(v) for name, v in vars(self).items()})

    def where(self, mask: Tensor, other: Particles) -> Particles:
        """These particles where the mask (n,) is true, else the other ones."""
        shaped = {name: mask.reshape(-1, *[1] * (v.ndim - 1)) for name, v in vars(self).items()}
        return Particles(**{name: torch.where(shaped[name], v, vars(other)[name]) for name, v in vars(self).items()})

    def put(self, slots: Tensor, other: Particles) -> Particles:
        """A pool with other particles in these slots, int64 (m,)."""
        return Particles(**{name: v.index_copy(0, slots, vars(other)[name]) for name, v in vars(self).items()})


class PathDiscriminator:
    """Training of one player, "discriminator", between r_t and the particles that it moves, with a pool.

    A turn logs the signals of the game (`games.game_signals`), `evaluations` (network evaluations per sample of this
    update; a backward pass or an input gradient doubles a call), `displacement` (root mean square of the particles'
    last step) and `lost` (share of particles whose last step was not finite: they start again at once, so that they
    cost the game no turn).

    Args:
        discriminator: must be told the time, and as many dials as the path has.
        path: how the particles move.
        game: the loss that the discriminator descends.
        penalty: what is added to it; default nothing.
        size: slots of the pool, at least the samples of a step; m times as many means that a particle moves at every
            m-th step only, on a discriminator m updates further.
        label_dropout: share of samples and particles whose class is hidden (-1), for a discriminator with classes.

    Raises:
        ValueError: for a discriminator that does not fit the path, a game in pairs, an equation without a start or with
            a grid of its own of another length, and values out of range.
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
        self.discriminator = discriminator
        self.path = path
        self.game = game
        self.penalty = penalty or Penalty()
        self.size, self.label_dropout = size, label_dropout

        dials = torch.tensor([[high for _, high in path.ranges]], dtype=torch.float64)
        inputs = path.dial_inputs(dials)
        width = 0 if inputs is None else inputs.shape[1]
        if discriminator.dials != width:
            raise ValueError(
                f"this discriminator takes {discriminator.dials} dials, the path tells it {width}: build its net with "
                "that number"
            )
        sde = path.sde(discriminator.ratio(dials=inputs), dials)
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
        self.pool = Particles(
            x=torch.zeros(size, *self.start.shape),
            k=torch.full((size,), -1),
            cond=torch.full((size,), -1),
            dials=torch.zeros(size, 3, dtype=torch.float64),
            moved=torch.zeros(size),
        )

    @property
    def players(self) -> Mapping[str, Discriminator]:
        """The discriminator."""
        return {"discriminator": self.discriminator}

    # -- the path -----------------------------------------------------------------------------------------------------
    def times(self, k: Tensor, dials: Tensor) -> Tensor:
        """Time of step k (n,) on each particle's own grid: float64 (n,)."""
        return self.grids.to(k.device)[dials[:, 0].long() - self.low, k]

    def draw_dials(self, n: int, noise: Noise, device: torch.device) -> Tensor:
        """Dials (n, 3) of new particles: log N uniform, gan and churn uniform between their bounds."""
        u = noise.fork("dials").uniform(n, (3,), dtype=torch.float64, device=device)
        (low, high), *others = self.path.ranges
        steps = (low * ((high + 1) / low) ** u[:, 0]).floor().clamp(max=high)
        return torch.stack([steps, *(a + (b - a) * u[:, i + 1] for i, (a, b) in enumerate(others))], 1)

    def sde(self, particles: Particles) -> DiffFlow:
        """The equation that moves these particles, by the discriminator as it is."""
        ratio = self.discriminator.ratio(dials=self.path.dial_inputs(particles.dials))
        sde = self.path.sde(ratio, particles.dials)
        return sde.given(particles.cond) if self.discriminator.classes else sde

    def new(self, cond: Tensor, noise: Noise) -> Particles:
        """New particles at the start of their path, with these classes (n,)."""
        n, device = len(cond), cond.device
        return Particles(
            x=self.start.sample(n, noise.fork("start")).to(device, torch.float32),
            k=torch.zeros(n, dtype=torch.int64, device=device),
            cond=cond,
            dials=self.draw_dials(n, noise, device),
            moved=torch.zeros(n, device=device),
        )

    @torch.no_grad()
    def step(self, particles: Particles, noise: Noise) -> Particles:
        """The particles one step of their own later."""
        x, k, dials = particles.x, particles.k, particles.dials
        xi = noise.normal(len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device)
        after = step_per_particle(self.sde(particles), x, self.times(k, dials), self.times(k + 1, dials), xi)
        moved = (after - x).float().flatten(1).square().mean(1).sqrt()
        return replace(particles, x=after, k=k + 1, moved=moved)

    def visit(self, slots: Tensor, cond: Tensor, noise: Noise) -> tuple[Particles, int]:
        """The particles of some slots, those not yet born simulated to their places.

        Args:
            slots: which slots, int64 (n,).
            cond: classes of the particles that are born now (n,).
            noise: of their start, dials and steps, stream i for sample i.

        Returns:
            The particles, and how many steps the births took.
        """
        particles, steps = self.pool.map(lambda v: v[slots]), 0
        unborn = particles.k < 0
        if bool(unborn.any()):
            new = self.new(cond, noise)
            places = (((slots + 1).double() * GOLDEN).frac() * new.dials[:, 0]).long()
            while bool((behind := unborn & (new.k < places)).any()):
                new = self.step(new, noise.fork("birth", steps)).where(behind, new)
                steps += 1
            particles = new.where(unborn, particles)
        return particles, steps

    # -- learning -----------------------------------------------------------------------------------------------------
    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        """One turn of the discriminator; then its particles move one step.

        Args:
            batch: data of this step.
            noise: all randomness of this step, stream i for sample i; sample number i of the training uses slot i mod
                size.

        Yields:
            The turn.

        Raises:
            ValueError: for more samples than slots, samples of another shape, or classes that are missing.
        """
        n, device = len(batch.x), batch.x.device
        if n > self.size:
            raise ValueError(f"a batch of {n} samples does not fit into a pool of {self.size} slots: raise its size")
        if batch.x.shape[1:] != self.pool.x.shape[1:]:
            raise ValueError(
                f"samples of shape {tuple(batch.x.shape[1:])}, but particles start with {self.start.shape}"
            )
        self.pool = self.pool.map(lambda v: v.to(device))
        slots = torch.arange(noise.first, noise.first + n, device=device) % self.size
        real_cond, new_cond = (self.labels(batch, noise.fork(key)) for key in ("real", "new"))
        particles, births = self.visit(slots, new_cond, noise)
        lost = ~particles.finite
        if bool(lost.any()):
            particles = self.new(new_cond, noise.fork("lost")).where(lost, particles)

        t = self.times(particles.k, particles.dials)
        real = self.real(batch.x, t, noise.fork("eps"))
        loss, d_real, d_fake = self.loss(real, real_cond, particles, t, noise.fork("penalty"))
        log = {
            "evaluations": self.evaluations(particles, t, births),
            "displacement": particles.moved.square().mean().sqrt(),
            "lost": lost.float().mean(),
        }
        yield Turn("discriminator", loss, game_signals(self.game, d_real.detach(), d_fake.detach()) | log)

        after = self.step(particles, noise.fork("step"))
        arrived = (after.k >= particles.dials[:, 0]) & after.finite  # the next visit counts the lost
        after = replace(self.new(new_cond, noise.fork("again")), moved=after.moved).where(arrived, after)
        self.pool = self.pool.put(gather_rows(slots), after.map(gather_rows))

    def real(self, y: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """Samples of r_t from clean data y (n, *shape), at the times t (n,) of the particles."""
        if self.schedule is None:
            return y
        eps = noise.normal(len(y), tuple(y.shape[1:]), dtype=y.dtype, device=y.device)
        return per_particle(self.schedule.scale(t), y) * (y + per_particle(self.schedule.sigma(t), y) * eps)

    def loss(
        self, real: Tensor, real_cond: Tensor, fake: Particles, t: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of the game and the penalty.

        Args:
            real: samples of r_t (n, *shape).
            real_cond: their classes (n,).
            fake: as many particles.
            t: the times of both (n,).
            noise: of the places between them, for the penalty.

        Returns:
            The loss, the logits on real samples and those on particles, (n,) each.
        """
        n, classes = len(real), self.discriminator.classes
        inputs = self.path.dial_inputs(fake.dials)

        def logit(x: Tensor, cond: Tensor) -> Tensor:
            m = len(x) // n  # the real and the fake in one call
            dials = None if inputs is None else inputs.repeat(m, 1)
            return self.discriminator(x, t.repeat(m), cond if classes else None, dials)

        def at_class(x: Tensor, nearer_real: Tensor) -> Tensor:
            return logit(x, torch.where(nearer_real, real_cond, fake.cond))

        d_real, d_fake = logit(torch.cat([real, fake.x]), torch.cat([real_cond, fake.cond])).split(n)
        loss = self.game.discriminator(d_real, d_fake) + self.penalty(at_class, real, fake.x, noise)
        return loss, d_real, d_fake

    def labels(self, batch: Batch, noise: Noise) -> Tensor:
        """The classes of the batch (n,), some hidden; -1 throughout for a discriminator without classes."""
        n, device = len(batch.x), batch.x.device
        if not self.discriminator.classes:
            return torch.full((n,), -1, device=device)
        if batch.cond is None:
            raise ValueError("this discriminator takes classes, but the data have no labels: build it with classes=0")
        hidden = noise.fork("label").uniform(n, device=device) < self.label_dropout
        return torch.where(hidden, -1, batch.cond)

    def evaluations(self, particles: Particles, t: Tensor, births: int) -> int:
        """Network evaluations per sample of an update and of the moves around it, `births` before and one after."""
        sde = self.sde(particles)
        needs = sde.needs(t)
        step = sum(f.cost for f, need in ((sde.score, needs.score), (sde.ratio, needs.ratio)) if f is not None and need)
        penalties = sum(w != 0 for w in (self.penalty.real, self.penalty.fake, self.penalty.between))
        return 2 * 2 + 4 * penalties + (1 + births) * step

    # -- surviving a restart ------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        """Tensors of the pool, under "pool/..."."""
        return {f"pool/{name}": v for name, v in vars(self.pool).items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a saved pool. Raises ValueError when it is missing or of another size or shape."""
        for name, v in vars(self.pool).items():
            saved = state.get(f"pool/{name}")
            if saved is None:
                raise ValueError(
                    f"the checkpoint holds no particle pool (pool/{name} is missing): it is of another objective, or "
                    "its objective file is lost; start a new run from its weights"
                )
            if saved.shape != v.shape:
                raise ValueError(
                    f"the saved pool/{name} has shape {tuple(saved.shape)}, this run needs {tuple(v.shape)}: give "
                    "the same batch, pool and data"
                )
        self.pool = Particles(**{name: state[f"pool/{name}"].to(v) for name, v in vars(self.pool).items()})
