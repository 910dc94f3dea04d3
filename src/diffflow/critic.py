r"""How does a network learn the log-ratio of two laws? By telling their samples apart.

A discriminator d(x, t) is a logit, large on real. Trained by logistic regression between samples of r_t and particles
of law p_t, its optimum is the log-ratio log r_t/p_t, and its gradient in x is a field of the equation. A game is such a
training (a critic loss) together with what the particles make of d: a generator loss l(d), whose gradient moves them
with the velocity

    -grad l(d(x)) = beta(d) grad d(x),    beta = -l'(d)        (theory.md 3.1)

With q the law of the real samples, p of the generated ones, y ~ q, x ~ p, w = p/q, s = sigmoid, at the optimal d:

    game          critic loss                          l(d)            beta        optimal d       Wasserstein flow of
    vanilla       softplus(-d(y)) + softplus(d(x))     softplus(-d)    s(-d)       log q/p         2 KL((p+q)/2 | q)
    saturating    the same                             -softplus(d)    s(d)        log q/p         2 JS(p, q)
    kl            the same                             -d              1           log q/p         KL(p | q)
    chi2          the same                             exp(-d)         exp(-d)     log q/p         1/2 chi2(p | q)
    hinge         (1-d(y))_+ + (1+d(x))_+              -d              1           sign(q - p)     2 TV(p, q)
    lsgan         1/2 (d(y)-1)^2 + 1/2 (d(x)+1)^2      1/2 (d-1)^2     1 - d       (q-p)/(q+p)     int q f(w) (*)
    ipm           d(x) - d(y), d constrained           -d              1           the witness     sup of E_q d - E_p d
    fgan-kl       d(x) + exp(-1 - d(y))                -d              1           log q/p - 1     KL(p | q)
    fgan-pearson  d(x) + d(y)^2/4 - d(y)               -d              1           2 (1 - w)       chi2(p | q)
    relativistic  softplus(d(x) - d(y))                softplus(-d)    s(-d)       log q/p + c     (below)

(*) f'(w) = 2 w^2/(1+w)^2. The last row is played in pairs (Jolicoeur-Martineau 2019; Huang et al. 2024): a sample's d
is read as d(x) - d(y), y a real sample, in the generator's loss too, so nothing rewards either player for a shift of
all logits.

The f-GAN rows are E_p d + E_q f*(-d) for D_f(p|q) = int q f(w), with T = -d in Nowozin et al. (2016): f = w log w and
f = (w-1)^2. Exponentials continue as straight lines where their argument exceeds `STEEP` (a likelihood ratio of 22000),
so that one outlier gives a large number and not an infinite one; the named flows hold up to there.

Sources: Goodfellow et al. 2014 (vanilla, saturating); Mao et al. 2017 (lsgan); Arjovsky et al. 2017 (ipm); Lim & Ye
2017 (hinge); Yi et al. 2023 (the flows). Shapes: x (n, *shape), logits (n,).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .equation.fields import Cond, Ratio
from .equation.noise import Noise
from .equation.sde import Speed
from .equation.times import Time, clock

STEEP = 10.0  # where an exponential turns into its tangent


# -- the network ------------------------------------------------------------------------------------------------------
def labels(cond: Tensor | int, classes: int, least: int = -1) -> Tensor:
    """cond as int64 class numbers, () or (n,). Raises ValueError unless they are integers in least..classes-1; -1 is no
    class."""
    cond = torch.as_tensor(cond)
    if not classes:
        raise ValueError("cond was given, but this network knows no classes: leave cond out")
    none = " (or -1 for no class)" if least < 0 else ""
    if cond.is_floating_point():
        raise ValueError(f"cond has type {cond.dtype}, but classes are integers 0..{classes - 1}{none}")
    low, high = (int(cond.min()), int(cond.max())) if cond.numel() else (0, 0)
    if not least <= low <= high < classes:
        raise ValueError(f"cond holds classes from {low} to {high}, but there are only 0..{classes - 1}{none}")
    return cond.long()


def at_least_two(classes: int) -> int:
    """How many classes a conditional player tells apart. Raises ValueError for one: its labels would say nothing."""
    if classes == 1:
        raise ValueError(
            "a conditional model needs data of at least 2 classes, got 1: train it without classes (classes=0)"
        )
    return classes


class Opinion(NamedTuple):
    """What a net says of x: its logit (n,) and, where it has twin classifiers, the class of x among the real samples
    and among the generated ones, log r(c|x) and log p(c|x), (n, classes) each."""

    logit: Tensor
    real: Tensor | None = None
    made: Tensor | None = None


class Discriminator(nn.Module):
    """d(x, t): the logit of a network, large on real, ~ log r_t/p_t.

    net           (x (n, *shape), time (n,), cond int64 (n,) or None, dials (n, k) or None) -> (n,), or an `Opinion`. It
                  says what it takes: `classes` (how many, 0 none), `timed` (whether it looks at the time), `dials` (how
                  many numbers that say which process the particles follow)
    time          what the net is told about t, a map of (n,) to (n,); default t itself, for a horizon of 1
    precondition  t (n,) -> the factor (n,) that x is multiplied with before the net sees it; default 1
    amplitude     t (n,) -> the factor (n,) of the net's output; default 1. On a noise schedule the two laws differ by
                  about data std / sigma where sigma is large, and the flow multiplies grad d by sigma^2: a logit of
                  that size keeps its errors from growing with sigma

    A net that is not timed ignores t: it tells one pair of laws apart, not a path of them. Raises ValueError for a net
    of one class.
    """

    def __init__(
        self,
        net: Any,
        *,
        time: Callable[[Tensor], Tensor] | None = None,
        precondition: Callable[[Tensor], Tensor] | None = None,
        amplitude: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.net, self.time, self.precondition, self.amplitude = net, time, precondition, amplitude
        self.timed, self.classes, self.dials = bool(net.timed), at_least_two(net.classes), net.dials

    def forward(self, x: Tensor, t: Time, cond: Tensor | None = None, dials: Tensor | None = None) -> Tensor:
        """Logits (n,) in x's dtype. t 0-d or (n,); cond None (no class) or int64 (n,); dials (n, k) or (k,).

        Raises ValueError for classes or dials that the net does not take (or lacks), or a net of the wrong shape.
        """
        return self.opinion(x, t, cond, dials).logit

    def opinion(self, x: Tensor, t: Time, cond: Tensor | None = None, dials: Tensor | None = None) -> Opinion:
        """The same logits, with all that the net says beside them (which `amplitude` leaves as it is)."""
        if cond is not None and not self.classes:
            raise ValueError("cond was given, but this discriminator knows no classes: leave cond out")
        if (0 if dials is None else dials.shape[-1]) != self.dials:
            given = "none" if dials is None else tuple(dials.shape)
            raise ValueError(f"this discriminator takes {self.dials} dials per particle, got {given}")
        inner = next((p.dtype for p in self.net.parameters() if p.is_floating_point()), x.dtype)
        now = clock(t).to(x.device).expand(len(x))
        seen = x.to(inner)
        if self.precondition is not None:
            seen = seen * self.precondition(now).to(inner).reshape(-1, *[1] * (x.dim() - 1))
        told = (now if self.time is None else self.time(now)).to(inner)
        if dials is not None:
            dials = dials.to(x.device, inner).expand(len(x), -1)
        said = self.net(seen, told, cond, dials)
        opinion = said if isinstance(said, Opinion) else Opinion(said)
        logit = opinion.logit
        if logit.shape != (len(x),):
            raise ValueError(
                f"a discriminator's net returns one logit per particle, ({len(x)},): got {tuple(logit.shape)}"
            )
        logit = logit.to(x.dtype)
        return opinion._replace(logit=logit if self.amplitude is None else self.amplitude(now).to(x.dtype) * logit)

    def ratio(self, cond: Cond = None, dials: Tensor | None = None) -> CriticRatio:
        """Its gradient as a field of the equation."""
        return CriticRatio(self, dials).given(cond)


class CriticRatio(Ratio):
    """grad d(x, t) of a discriminator, with d itself: the learned grad log r_t/p_t.

    Works inside torch.no_grad. Where x requires a gradient (and gradients are on) the result is differentiable, in x
    and in the discriminator's parameters; otherwise it is detached.
    """

    def __init__(self, discriminator: Discriminator, dials: Tensor | None = None, cond: Tensor | None = None):
        self.discriminator, self.dials, self.cond = discriminator, dials, cond

    def given(self, cond: Cond) -> CriticRatio:
        """The same ratio within classes: an int or 0-d for all particles, (n,) one each, None for no class."""
        if cond is None:
            return CriticRatio(self.discriminator, self.dials)
        return CriticRatio(self.discriminator, self.dials, labels(cond, self.discriminator.classes))

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        graph = x.requires_grad and torch.is_grad_enabled()
        cond = None if self.cond is None else self.cond.to(x.device)
        if cond is not None and cond.dim() and len(cond) != len(x):
            raise ValueError(f"{len(cond)} conditions for {len(x)} particles: give one each, or a single one for all")
        with torch.enable_grad():
            y = x if graph else x.detach().requires_grad_(True)
            logit = self.discriminator(y, t, None if cond is None else cond.expand(len(x)), self.dials)
            (grad,) = torch.autograd.grad(logit.sum(), y, create_graph=graph)
        return (logit if graph else logit.detach()), grad


# -- the games --------------------------------------------------------------------------------------------------------
def _exp(u: Tensor) -> Tensor:
    """e^u, and its tangent beyond u = STEEP."""
    return u.clamp(max=STEEP).exp() * (1 + (u - STEEP).clamp(min=0))


@dataclass(frozen=True)
class Game:
    """One row of the table of adversarial games. All maps act on tensors of logits, entry by entry.

    critic     (d on real (n,), d on generated (n,)) -> loss (n,) that the discriminator descends
    generator  d -> l(d), the loss that the generator descends
    beta       d -> -l'(d), the speed of the same motion as a flow of particles
    optimum    log q/p -> the d that minimises the critic loss; None where no single function of q/p does
    flow       the functional of p whose Wasserstein-2 gradient flow the particles follow at that optimum
    row        the name of a generator that plays it in the catalogue (models.MODELS)
    paired     whether `generator` and `beta` are read at d(x) - d(y), y the real partner of x
    """

    name: str
    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    beta: Callable[[Tensor], Tensor]
    optimum: Callable[[Tensor], Tensor] | None
    flow: str
    row: str = "gan"
    paired: bool = False

    @property
    def log_ratio(self) -> bool:
        """True where the optimal logit is log q/p itself, so that it can be read as odds."""
        return self.optimum is _same

    @property
    def additive(self) -> bool:
        """True where the optimal logit is log q/p up to a constant, so that its gradient can be added to a score."""
        u = torch.tensor([-2.0, 0.0, 3.0])
        return self.optimum is not None and torch.equal(self.optimum(u), u + self.optimum(u)[1])

    @property
    def balanced(self) -> bool:
        """True where the optimal logit changes sign where q = p, so that its sign says on which side a sample is."""
        return self.optimum is not None and float(self.optimum(torch.zeros(()))) == 0

    @property
    def speed(self) -> Speed:
        """beta as a coefficient of the equation."""
        return Speed(self.beta)


def _logistic(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real) + F.softplus(fake)


def _same(d: Tensor) -> Tensor:
    return d


_GAMES = [
    Game("vanilla", _logistic, lambda d: F.softplus(-d), lambda d: (-d).sigmoid(), _same, "2 KL((p+q)/2 | q)"),
    Game("saturating", _logistic, lambda d: -F.softplus(d), torch.sigmoid, _same, "2 JS(p, q)", "gan-saturating"),
    Game("kl", _logistic, torch.neg, torch.ones_like, _same, "KL(p | q)"),
    Game("chi2", _logistic, lambda d: _exp(-d), lambda d: (-d).clamp(max=STEEP).exp(), _same, "1/2 chi2(p | q)"),
    Game(
        "hinge",
        lambda r, f: F.relu(1 - r) + F.relu(1 + f),
        torch.neg,
        torch.ones_like,
        torch.sign,
        "2 TV(p, q)",
        "hinge",
    ),
    Game(
        "lsgan",
        lambda r, f: 0.5 * (r - 1).square() + 0.5 * (f + 1).square(),
        lambda d: 0.5 * (d - 1).square(),
        lambda d: 1 - d,
        lambda logratio: (0.5 * logratio).tanh(),
        "int q f(p/q), f'(w) = 2 w^2/(1+w)^2",
        "lsgan",
    ),
    Game("ipm", lambda r, f: f - r, torch.neg, torch.ones_like, None, "sup of E_q d - E_p d over the critics", "ipm"),
    Game(
        "fgan-kl", lambda r, f: f + _exp(-1 - r), torch.neg, torch.ones_like, lambda lr: lr - 1, "KL(p | q)", "fgan-kl"
    ),
    Game(
        "fgan-pearson",
        lambda r, f: f + 0.25 * r.square() - r,
        torch.neg,
        torch.ones_like,
        lambda logratio: -2 * torch.expm1(-logratio),
        "chi2(p | q)",
        "fgan-pearson",
    ),
    Game(
        "relativistic",
        lambda r, f: F.softplus(f - r),
        lambda d: F.softplus(-d),
        lambda d: (-d).sigmoid(),
        None,
        "the pairwise logistic loss, d known up to a constant",
        "relativistic",
        paired=True,
    ),
]
GAMES: dict[str, Game] = {game.name: game for game in _GAMES}


# -- what keeps a discriminator tame ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Penalty:
    """weight (|grad d| - centre)^2 at real points, at generated ones, and between the two.

    Penalty(real=w) is R1 and Penalty(fake=w) R2 (Mescheder et al. 2018, with w = gamma/2); Penalty(between=10,
    centre=1) that of WGAN-GP (Gulrajani et al. 2017). |.| is the Euclidean norm over the whole particle.
    """

    real: float = 0.0
    fake: float = 0.0
    between: float = 0.0
    centre: float = 0.0

    def __post_init__(self) -> None:
        for name in ("real", "fake", "between", "centre"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"Penalty({name}={getattr(self, name)}) must be finite and >= 0")

    def __call__(self, logit: Callable[[Tensor, Tensor], Tensor], real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        """The penalty per sample (n,), differentiable in the parameters of `logit`. real, fake (n, *shape).

        logit: (points (n, *shape), whether each is nearer to the real end (n,) bool) -> (n,). Row i of all three kinds
        of points belongs to sample i; where real and fake have classes of their own, a point has that of its nearer
        end. Squared gradients are sums of many small terms: they are taken in full precision, under autocast too.
        """
        with torch.autocast(real.device.type, enabled=False):
            return self._sum(logit, real, fake, noise)

    def _sum(self, logit: Callable[[Tensor, Tensor], Tensor], real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        at_real = torch.ones(len(real), dtype=torch.bool, device=real.device)
        total = torch.zeros(len(real), dtype=real.dtype, device=real.device)
        if self.real:
            total = total + self.real * self._at(logit, real, at_real)
        if self.fake:
            total = total + self.fake * self._at(logit, fake, ~at_real)
        if self.between:
            u = noise.uniform(len(real), (1,) * (real.dim() - 1), dtype=real.dtype, device=real.device)
            total = total + self.between * self._at(logit, torch.lerp(fake, real, u), u.flatten() > 0.5)
        return total

    def _at(self, logit: Callable[[Tensor, Tensor], Tensor], x: Tensor, nearer_real: Tensor) -> Tensor:
        x = x.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(logit(x, nearer_real).sum(), x, create_graph=True)
        # vector_norm's own derivative at zero is zero, where the square root of a sum would give nan
        return (torch.linalg.vector_norm(grad.flatten(1), dim=1) - self.centre).square()


@torch.no_grad()
def signals(game: Game, d_real: Tensor, d_fake: Tensor) -> dict[str, Tensor]:
    """What the log of a critic's turn carries, each 0-d.

    accuracy     share of samples on the right side of d = 0; 1/2 when the laws cannot be told apart. For games whose
                 optimal d changes sign where q = p (`Game.balanced`)
    calibration  E |share real - mean sigmoid(d)| over ten bins of sigmoid(d): 0 when d is an honest log-ratio (from a
                 batch of n + n, an honest one reads up to about 0.9/sqrt(n)). For games whose optimum is log q/p
    logit_real, logit_fake    the mean logits
    """
    found: dict[str, Tensor] = {}
    if game.balanced:
        found["accuracy"] = 0.5 * ((d_real > 0).float().mean() + (d_fake < 0).float().mean())
    if game.log_ratio:
        found["calibration"] = reliability(d_real, d_fake).gap
    return found | {"logit_real": d_real.float().mean(), "logit_fake": d_fake.float().mean()}


@dataclass(frozen=True)
class Reliability:
    """Bins of the predicted probability of being real: mean prediction, share that is real, how many samples (k,)."""

    predicted: Tensor
    real: Tensor
    count: Tensor

    @property
    def gap(self) -> Tensor:
        """The expected calibration error, 0-d: the mean |share - prediction|, weighed by the samples."""
        return ((self.predicted - self.real).abs() * self.count).sum() / self.count.sum()


def reliability(d_real: Tensor, d_fake: Tensor, bins: int = 10) -> Reliability:
    """Odds against facts: among samples to which a discriminator gives odds e^d : 1, the share of real ones must be
    sigmoid(d). From logits on as many real samples (n,) as generated ones (n,).

    Raises ValueError where their numbers differ: the odds of a balanced game would be off by their ratio."""
    if len(d_real) != len(d_fake):
        raise ValueError(f"{len(d_real)} real and {len(d_fake)} generated samples: give as many of each")
    p = torch.cat([d_real, d_fake]).float().sigmoid()
    real = torch.cat([torch.ones_like(d_real), torch.zeros_like(d_fake)]).float()
    k = (bins * p).long().clamp(0, bins - 1)
    count, predicted, share = (torch.zeros(bins, device=p.device).index_add_(0, k, v) for v in (p * 0 + 1, p, real))
    some = count.clamp_min(1)
    return Reliability(predicted / some, share / some, count)
