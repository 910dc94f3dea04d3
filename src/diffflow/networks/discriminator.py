r"""How does a network learn the log-ratio of two laws? By telling their samples apart.

A discriminator d(x, t) is a logit, large on real. Trained by logistic regression between samples of r_t and particles
of law p_t, its optimum is the log-ratio log r_t/p_t, and its gradient in x is a field of the equation. A game is such a
training (a discriminator loss) together with what the particles make of d: a generator loss l(d), whose gradient moves
them with the velocity

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

Sources: Goodfellow et al. 2014 (vanilla, saturating); Mao et al. 2017 (lsgan); Arjovsky et al. 2017 (ipm); Lim & Ye
2017 (hinge); Yi et al. 2023 (the flows). Shapes: x (n, *shape), logits (n,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..equation.algebra import Cond, gradients, recordable, recordable_net
from ..equation.coefficients import EqualByValue
from ..equation.fields import Ratio
from ..equation.times import Time, clock


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


class DiscriminatorOutput(NamedTuple):
    """What a net says of x: its logit (n,) and, where it has twin classifiers, the class of x among the real samples
    and among the generated ones, log r(c|x) and log p(c|x), (n, classes) each."""

    logit: Tensor
    real: Tensor | None = None
    made: Tensor | None = None


class Discriminator(nn.Module):
    """d(x, t): the logit of a network, large on real, ~ log r_t/p_t.

    net           (x (n, *shape), time (n,), cond int64 (n,) or None, dials (n, k) or None) -> (n,), or an
                  `DiscriminatorOutput`. It
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
        return self.output(x, t, cond, dials).logit

    def output(
        self, x: Tensor, t: Time, cond: Tensor | None = None, dials: Tensor | None = None
    ) -> DiscriminatorOutput:
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
        said = recordable_net(self.net)(seen, told, cond, dials)
        output = said if isinstance(said, DiscriminatorOutput) else DiscriminatorOutput(said)
        logit = output.logit
        if logit.shape != (len(x),):
            raise ValueError(
                f"a discriminator's net returns one logit per particle, ({len(x)},): got {tuple(logit.shape)}"
            )
        logit = logit.to(x.dtype)
        return output._replace(logit=logit if self.amplitude is None else self.amplitude(now).to(x.dtype) * logit)

    def ratio(self, cond: Cond = None, dials: Tensor | None = None) -> DiscriminatorRatio:
        """Its gradient as a field of the equation."""
        return DiscriminatorRatio(self, dials).given(cond)


class DiscriminatorRatio(EqualByValue, Ratio):
    """grad d(x, t) of a discriminator, with d itself: the learned grad log r_t/p_t.

    Works inside torch.no_grad. Where x requires a gradient (and gradients are on) the result is differentiable, in x
    and in the discriminator's parameters; otherwise it is detached.
    """

    def __init__(self, discriminator: Discriminator, dials: Tensor | None = None, cond: Tensor | None = None):
        self.discriminator, self.dials, self.cond = discriminator, dials, cond

    def given(self, cond: Cond) -> DiscriminatorRatio:
        """The same ratio within classes: an int or 0-d for all particles, (n,) one each, None for no class."""
        if cond is None:
            return DiscriminatorRatio(self.discriminator, self.dials)
        return DiscriminatorRatio(self.discriminator, self.dials, labels(cond, self.discriminator.classes))

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        graph = x.requires_grad and torch.is_grad_enabled()
        cond = None if self.cond is None else self.cond.to(x.device)
        if cond is not None and cond.dim() and len(cond) != len(x):
            raise ValueError(f"{len(cond)} conditions for {len(x)} particles: give one each, or a single one for all")
        with gradients():
            y = x if graph else recordable(x).detach().requires_grad_(True)
            logit = self.discriminator(y, t, None if cond is None else cond.expand(len(x)), self.dials)
            (grad,) = torch.autograd.grad(logit.sum(), y, create_graph=graph)
        return (logit if graph else logit.detach()), grad


# The speeds have names, so that equations with them pickle.
