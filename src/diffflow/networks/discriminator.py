"""Discriminators: networks that estimate the log-ratio of two laws by telling their samples apart.

A discriminator d(x, t) is a logit, large on real. Trained by logistic regression between samples of r_t and particles
of law p_t, its optimum is the log-ratio log r_t/p_t (derivations.md 3.1), and its gradient in x is a field of the
equation. Which loss it descends instead, and what then is the optimum, is a row of `games.GAMES`.

Shapes: x (n, *shape), t 0-d or (n,), cond int64 (n,) or None (-1 is no class), dials (n, k) or None -> logits (n,).
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
    """Class labels as int64 numbers, checked.

    Args:
        cond: one class, or one for each particle (n,).
        classes: how many classes the network knows, 0 for none.
        least: the smallest number admitted; -1 admits "no class".

    Returns:
        The labels, int64, () or (n,).

    Raises:
        ValueError: unless they are integers in least..classes-1.
    """
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
    """Number of classes of a conditional network; refuses 1, which carries no information.

    Args:
        classes: how many classes, 0 for a network without a condition.

    Returns:
        The same number.

    Raises:
        ValueError: for one class.
    """
    if classes == 1:
        raise ValueError(
            "a conditional model needs data of at least 2 classes, got 1: train it without classes (classes=0)"
        )
    return classes


class DiscriminatorOutput(NamedTuple):
    """Output of a discriminator's net: a logit and, where it has twin classifiers, log-probabilities of the classes.

    Attributes:
        logit: d(x), large on real (n,).
        real: log r(c|x), of which class x would be among the real samples (n, classes), or None.
        made: log p(c|x), the same among the generated samples (n, classes), or None.
    """

    logit: Tensor
    real: Tensor | None = None
    made: Tensor | None = None


class Discriminator(nn.Module):
    """Discriminator d(x, t): the logit of a network, large on real, ~ log r_t/p_t.

    A net that is not timed ignores t: it tells one pair of laws apart, not a path of them.

    Args:
        net: (x (n, *shape), time (n,), cond int64 (n,) or None, dials (n, k) or None) -> (n,) or a
            `DiscriminatorOutput`. It says what it takes: `classes` (how many, 0 none), `timed` (whether it looks at the
            time), `dials` (how many numbers that say which process the particles follow).
        time: what the net is told about t, a map of (n,) to (n,); default t itself, for a horizon of 1.
        precondition: t (n,) -> the factor (n,) that x is multiplied with before the net sees it; default 1.
        amplitude: t (n,) -> the factor (n,) of the net's output; default 1. On a noise schedule the two laws differ by
            about data std / sigma where sigma is large, and the flow multiplies grad d by sigma^2: a logit of that size
            keeps its errors from growing with sigma.

    Raises:
        ValueError: for a net of one class.
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
        self.net = net
        self.time = time
        self.precondition = precondition
        self.amplitude = amplitude
        self.timed = bool(net.timed)
        self.classes = at_least_two(net.classes)
        self.dials = net.dials

    def forward(self, x: Tensor, t: Time, cond: Tensor | None = None, dials: Tensor | None = None) -> Tensor:
        """Logits of the particles.

        Args:
            x: particles (n, *shape).
            t: generation time, 0-d or (n,).
            cond: classes int64 (n,), -1 for no class; None for no class throughout.
            dials: the net's dials (n, k) or (k,), None for a net without.

        Returns:
            Logits (n,) in x's dtype.

        Raises:
            ValueError: for classes or dials that the net does not take (or lacks), or a net of the wrong shape.
        """
        return self.output(x, t, cond, dials).logit

    def output(
        self, x: Tensor, t: Time, cond: Tensor | None = None, dials: Tensor | None = None
    ) -> DiscriminatorOutput:
        """The same logits, with the log-probabilities of the classes beside them (which `amplitude` leaves as is).

        Args:
            x: particles (n, *shape).
            t: generation time, 0-d or (n,).
            cond: classes int64 (n,), -1 for no class; None for no class throughout.
            dials: the net's dials (n, k) or (k,), None for a net without.

        Returns:
            The output, its logit (n,) in x's dtype.

        Raises:
            ValueError: as for calling the discriminator.
        """
        if cond is not None and not self.classes:
            raise ValueError("cond was given, but this discriminator knows no classes: leave cond out")
        if (0 if dials is None else dials.shape[-1]) != self.dials:
            given = "none" if dials is None else tuple(dials.shape)
            raise ValueError(f"this discriminator takes {self.dials} dials per particle, got {given}")
        inner = next((p.dtype for p in self.net.parameters() if p.is_floating_point()), x.dtype)
        times = clock(t).to(x.device).expand(len(x))
        scaled = x.to(inner)
        if self.precondition is not None:
            scaled = scaled * self.precondition(times).to(inner).reshape(-1, *[1] * (x.dim() - 1))
        time = (times if self.time is None else self.time(times)).to(inner)
        if dials is not None:
            dials = dials.to(x.device, inner).expand(len(x), -1)
        result = recordable_net(self.net)(scaled, time, cond, dials)
        output = result if isinstance(result, DiscriminatorOutput) else DiscriminatorOutput(result)
        logit = output.logit
        if logit.shape != (len(x),):
            raise ValueError(
                f"a discriminator's net returns one logit per particle, ({len(x)},): got {tuple(logit.shape)}"
            )
        logit = logit.to(x.dtype)
        return output._replace(logit=logit if self.amplitude is None else self.amplitude(times).to(x.dtype) * logit)

    def ratio(self, cond: Cond = None, dials: Tensor | None = None) -> DiscriminatorRatio:
        """Gradient of the discriminator as a field of the equation.

        Args:
            cond: classes, an int or 0-d for all particles, (n,) one each, None for no class.
            dials: the net's dials (n, k) or (k,), None for a net without.

        Returns:
            The field grad d(x, t).

        Raises:
            ValueError: for classes that the net does not know.
        """
        return DiscriminatorRatio(self, dials).given(cond)


class DiscriminatorRatio(EqualByValue, Ratio):
    """Learned log-ratio: the gradient grad d(x, t) of a discriminator, with d itself, ~ log r_t/p_t.

    Works inside torch.no_grad. Where x requires a gradient (and gradients are on) the result is differentiable, in x
    and in the discriminator's parameters; otherwise it is detached.

    Args:
        discriminator: whose gradient it is.
        dials: the net's dials (n, k) or (k,), None for a net without.
        cond: classes int64, 0-d or (n,), None for no class.
    """

    def __init__(self, discriminator: Discriminator, dials: Tensor | None = None, cond: Tensor | None = None):
        self.discriminator = discriminator
        self.dials = dials
        self.cond = cond

    def given(self, cond: Cond) -> DiscriminatorRatio:
        """The same ratio within classes: an int or 0-d for all particles, (n,) one each, None for no class."""
        if cond is None:
            return DiscriminatorRatio(self.discriminator, self.dials)
        return DiscriminatorRatio(self.discriminator, self.dials, labels(cond, self.discriminator.classes))

    def value_and_grad(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """Logit (n,) and gradient (n, *shape), two network evaluations a particle."""
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
