"""Horizons: how far a training has come, as a share of the whole that is a function of the step alone.

Rates that fall to zero at the end need an end. A budget of steps says it; a budget of time says it by the speed that
was measured, and says it anew where the speed has changed, from the present share on, so that rates never jump:

    u(k) = u0 + (1 - u0) (k - k0) / (end - k0)      for steps k of the leg that began at step k0 with share u0

The legs are part of a checkpoint, so that a resumed training goes on with the same rates to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

OVER = 0.95  # share from which a training counts as finished: a clock ends it a little before its last step


@dataclass(frozen=True)
class Leg:
    """A part of a training with an end in sight.

    Args:
        first: the step that it began at.
        share: the share of the training that was behind it then.
        end: the step that the training then was to end at.
        rises: whether the rate rises again at its beginning: a finished training was given more.
    """

    first: int
    share: float
    end: int
    rises: bool = False

    def at(self, step: int) -> float:
        """The share of the training that is behind a step of this leg, at most 1."""
        length = max(1, self.end - self.first)
        return min(1.0, self.share + (1 - self.share) * (step - self.first) / length)


@dataclass
class Horizon:
    """The legs of a training, the last one being the present.

    Args:
        legs: in the order of their first steps; empty: no end is known, so there is no share.
    """

    legs: list[Leg] = field(default_factory=list)

    @property
    def end(self) -> int | None:
        """The step that the training is to end at; None: nobody knows."""
        return self.legs[-1].end if self.legs else None

    def share(self, step: int) -> float:
        """The share of the training that is behind a step of the present leg. Raises ValueError without an end."""
        if not self.legs:
            raise ValueError("a share of a training needs its end: give it steps or minutes")
        return self.legs[-1].at(step)

    def aim(self, step: int, end: int, over: float = 1.0) -> None:
        """Let the training end at another step, its share at `step` being what it was.

        Args:
            step: the present step.
            end: the new end, later than `step`.
            over: the share from which the training was finished, and is given more: its rate rises again.
        """
        if end <= step:
            raise ValueError(f"a training at step {step} cannot end at step {end}")
        share = self.share(step) if self.legs else 0.0
        rises = bool(self.legs) and share >= over
        if rises:  # its share is now smaller
            share = step / end
        if self.legs and self.legs[-1].first == step:
            self.legs.pop()
        self.legs.append(Leg(step, share, end, rises))

    def rate(self, step: int, warm: float) -> float:
        """The share of the peak learning rate at a step: up over a share `warm` of the training, then down to zero.

            min(1, u/warm) (1 + cos pi u)/2,      and where a leg rises also  min(1, (k - k0) / (warm (end - k0)))

        Args:
            step: the step that is about to be taken.
            warm: the share of the training that the rate rises for, in [0, 1).
        """
        u, leg = self.share(step), self.legs[-1]
        up = min(1.0, (u + (1 - leg.share) / max(1, leg.end - leg.first)) / warm) if warm else 1.0
        if leg.rises and warm:
            up = min(up, (step + 1 - leg.first) / (warm * (leg.end - leg.first)))
        return up * 0.5 * (1 + math.cos(math.pi * u))

    def state(self) -> list[list[float | int | bool]]:
        """The legs as plain values, for a checkpoint."""
        return [[leg.first, leg.share, leg.end, leg.rises] for leg in self.legs]

    def load(self, state: Sequence[Sequence[float | int | bool]]) -> None:
        """Go back to the legs of a checkpoint."""
        self.legs = [Leg(int(a), float(u), int(b), bool(r)) for a, u, b, r in state]
