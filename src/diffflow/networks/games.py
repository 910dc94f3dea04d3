r"""Adversarial games: losses of a discriminator and a generator, and the penalties that keep a discriminator smooth.

A game is a training of a logit d (large on real samples) together with what the generated samples make of it: a
generator loss l(d), whose gradient moves them with the velocity

    -grad l(d(x)) = beta(d) grad d(x),    beta = -l'(d)        (derivations.md 3.1)

With q the law of the real samples, p of the generated ones, y ~ q, x ~ p, w = p/q, s = sigmoid, at the optimal d:

    game          discriminator loss                   l(d)            beta        optimal d       Wasserstein flow of
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

Shapes: x, y (n, *shape), logits (n,).

References:
    Goodfellow et al. 2014, arXiv:1406.2661 (vanilla, saturating).
    Nowozin et al. 2016, arXiv:1606.00709 (fgan-kl, fgan-pearson).
    Mao et al. 2017, arXiv:1611.04076 (lsgan).
    Arjovsky et al. 2017, arXiv:1701.07875 (ipm).
    Lim & Ye 2017, arXiv:1705.02894 (hinge).
    Jolicoeur-Martineau 2019, arXiv:1807.00734, and Huang et al. 2024, arXiv:2501.05441 (relativistic).
    Yi et al. 2023, arXiv:2302.01075 (the flows).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..equation.noise import Noise
from ..equation.sde import Speed
from ..registry import Registry

STEEP = 10.0  # where an exponential turns into its tangent


# -- the games --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Game:
    """An adversarial game: one row of `GAMES`. All maps act on tensors of logits, entry by entry.

    Args:
        name: key of the row in `GAMES`, the setting `game.loss`.
        discriminator: (d on real (n,), d on generated (n,)) -> loss (n,) that the discriminator descends.
        generator: d -> l(d), the loss that the generator descends.
        beta: d -> -l'(d), the speed of the same motion as a flow of particles.
        optimum: log q/p -> the d that minimises the discriminator's loss; None where no single function of q/p does.
        flow: the functional of p whose Wasserstein-2 gradient flow the particles follow at that optimum.
        row: name of a generator that plays it in the catalogue (`models.MODELS`).
        preset: name of the preset that plays it; empty for none.
        about: what that preset says of itself.
        paired: whether `generator` and `beta` are read at d(x) - d(y), y the real partner of x.
        integrand: (p, q) -> the integrand of `flow`, densities (n,) -> (n,), where the tests do not know it by name.
    """

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    beta: Callable[[Tensor], Tensor]
    optimum: Callable[[Tensor], Tensor] | None
    flow: str
    row: str = "gan"
    preset: str = ""
    about: str = ""
    paired: bool = False
    integrand: Callable[[Tensor, Tensor], Tensor] | None = None

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
        """The speed beta(d) as a coefficient of the equation."""
        return Speed(self.beta)


def _logistic(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real) + F.softplus(fake)


def _exp(u: Tensor) -> Tensor:
    """e^u, and its tangent beyond u = STEEP."""
    return u.clamp(max=STEEP).exp() * (1 + F.relu(u - STEEP))


def _same(d: Tensor) -> Tensor:
    return d


# The speeds have names, so that equations with them pickle.
def _sigmoid_of_minus(d: Tensor) -> Tensor:
    return (-d).sigmoid()


def _exp_of_minus(d: Tensor) -> Tensor:
    return (-d).clamp(max=STEEP).exp()


def _one_less(d: Tensor) -> Tensor:
    return 1 - d


# A row: name; the discriminator's loss of logits r on real and f on generated samples; the generator's loss l(d);
# beta = -l'(d); the optimal d as a function of u = log q/p. Below it: the flow, and how presets and catalogue name it.
# fmt: off
_GAMES = [
    Game("vanilla", _logistic, lambda d: F.softplus(-d), _sigmoid_of_minus, _same,
         flow="2 KL((p+q)/2 | q)",
         preset="gan", about="A generator and a discriminator, non-saturating loss."),

    Game("saturating", _logistic, lambda d: -F.softplus(d), torch.sigmoid, _same,
         flow="2 JS(p, q)", row="gan-saturating",
         preset="gan-saturating",
         about="The GAN of the first paper's minimax game: slow where the discriminator is sure."),

    Game("kl", _logistic, torch.neg, torch.ones_like, _same,
         flow="KL(p | q)",
         preset="gan-kl", about="A GAN whose samples descend KL(p|q): the log-ratio's gradient at unit speed."),

    Game("chi2", _logistic, lambda d: _exp(-d), _exp_of_minus, _same,
         flow="1/2 chi2(p | q)"),

    Game("hinge", lambda r, f: F.relu(1 - r) + F.relu(1 + f), torch.neg, torch.ones_like, torch.sign,
         flow="2 TV(p, q)", row="hinge",
         preset="hinge", about="A GAN with the hinge loss."),

    Game("lsgan", lambda r, f: 0.5 * (r - 1).square() + 0.5 * (f + 1).square(), lambda d: 0.5 * (d - 1).square(),
         _one_less, lambda u: (0.5 * u).tanh(),
         flow="int q f(p/q), f'(w) = 2 w^2/(1+w)^2", row="lsgan",
         preset="lsgan", about="A GAN with least-squares losses."),

    Game("ipm", lambda r, f: f - r, torch.neg, torch.ones_like, None,
         flow="sup of E_q d - E_p d over the discriminators", row="ipm",
         preset="ipm", about="A GAN whose discriminator is a witness of bounded slope (WGAN-GP)."),

    Game("fgan-kl", lambda r, f: f + _exp(-1 - r), torch.neg, torch.ones_like, lambda u: u - 1,
         flow="KL(p | q)", row="fgan-kl",
         preset="fgan-kl", about="An f-GAN for KL(p|q)."),

    Game("fgan-pearson", lambda r, f: f + 0.25 * r.square() - r, torch.neg, torch.ones_like,
         lambda u: -2 * torch.expm1(-u),
         flow="chi2(p | q)", row="fgan-pearson",
         preset="fgan-pearson", about="An f-GAN for Pearson's chi-squared divergence."),

    Game("relativistic", lambda r, f: F.softplus(f - r), lambda d: F.softplus(-d), _sigmoid_of_minus, None,
         flow="the pairwise logistic loss, d known up to a constant", row="relativistic", paired=True,
         preset="relativistic", about="A GAN whose samples are judged against real partners (R3GAN)."),
]
# fmt: on
GAMES: Registry[Game] = Registry("game", {game.name: game for game in _GAMES})


# -- what keeps a discriminator tame ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Penalty:
    """Gradient penalty weight (|grad d| - centre)^2 at real points, at generated ones, and between the two.

    Penalty(real=w) is R1 and Penalty(fake=w) R2 (Mescheder et al. 2018, with w = gamma/2); Penalty(between=10,
    centre=1) that of WGAN-GP (Gulrajani et al. 2017). |.| is the Euclidean norm over the whole particle.

    Args:
        real: weight at real points, >= 0.
        fake: weight at generated points, >= 0.
        between: weight at points uniform on the line from a generated point to a real one, >= 0.
        centre: slope |grad d| that is not penalised, >= 0, in logits per unit of x.

    Raises:
        ValueError: for a value that is negative or not finite.

    References:
        Gulrajani et al. 2017, arXiv:1704.00028. Mescheder et al. 2018, arXiv:1801.04406.
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
        """The penalty per sample, differentiable in the parameters of `logit`.

        Row i of all three kinds of points belongs to sample i; where real and fake have classes of their own, a point
        has that of its nearer end. Squared gradients are sums of many small terms: they are taken in full precision,
        under autocast too.

        Args:
            logit: (points (n, *shape), whether each is nearer to the real end (n,) bool) -> logits (n,).
            real: real samples (n, *shape).
            fake: generated samples (n, *shape).
            noise: of the places between the two, stream i for sample i.

        Returns:
            The penalty (n,).
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


# -- what the log says of a game --------------------------------------------------------------------------------------
@torch.no_grad()
def game_signals(game: Game, d_real: Tensor, d_fake: Tensor) -> dict[str, Tensor]:
    """Signals of a discriminator's health, for the log of its turn.

    Args:
        game: the game that is played.
        d_real: logits on real samples (n,).
        d_fake: logits on as many generated samples (n,).

    Returns:
        Numbers by name, each 0-d. `accuracy`: share of samples on the right side of d = 0, 1/2 when the laws cannot be
            told apart, for games whose optimal d changes sign where q = p (`Game.balanced`). `calibration`: E |share
            real - mean sigmoid(d)| over ten bins of sigmoid(d), 0 when d is an honest log-ratio (from a batch of n + n,
            an honest one reads up to about 0.9/sqrt(n)), for games whose optimum is log q/p. `logit_real` and
            `logit_fake`: the mean logits.
    """
    signals: dict[str, Tensor] = {}
    if game.balanced:
        signals["accuracy"] = 0.5 * ((d_real > 0).float().mean() + (d_fake < 0).float().mean())
    if game.log_ratio:
        signals["calibration"] = reliability(d_real, d_fake).gap
    return signals | {"logit_real": d_real.float().mean(), "logit_fake": d_fake.float().mean()}


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram of a discriminator: k bins of the predicted probability of being real.

    Args:
        predicted: mean prediction of each bin (k,).
        real: share of its samples that are real (k,).
        count: how many samples it holds (k,).
    """

    predicted: Tensor
    real: Tensor
    count: Tensor

    @property
    def gap(self) -> Tensor:
        """The expected calibration error, 0-d: the mean |share - prediction|, weighed by the samples."""
        return ((self.predicted - self.real).abs() * self.count).sum() / self.count.sum()


def reliability(d_real: Tensor, d_fake: Tensor, bins: int = 10) -> Reliability:
    """Odds against facts: where a discriminator gives odds e^d : 1, the share of real samples must be sigmoid(d).

    Args:
        d_real: logits on real samples (n,).
        d_fake: logits on as many generated samples (n,).
        bins: equal bins of sigmoid(d) in [0, 1].

    Returns:
        The bins, an empty one with predicted = real = 0.

    Raises:
        ValueError: where the numbers of samples differ: the odds of a balanced game would be off by their ratio.
    """
    if len(d_real) != len(d_fake):
        raise ValueError(f"{len(d_real)} real and {len(d_fake)} generated samples: give as many of each")
    p = torch.cat([d_real, d_fake]).float().sigmoid()
    real = torch.cat([torch.ones_like(d_real), torch.zeros_like(d_fake)]).float()
    k = (bins * p).long().clamp(0, bins - 1)
    count, predicted, share = (torch.zeros(bins, device=p.device).index_add_(0, k, v) for v in (p * 0 + 1, p, real))
    divisor = count.clamp_min(1)
    return Reliability(predicted / divisor, share / divisor, count)
