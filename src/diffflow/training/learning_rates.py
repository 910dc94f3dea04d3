"""Learning rates of one's own: a function of the update, in place of the settings' warm-up and decay.

    df.train("moons", learning_rate=lambda update: 1e-3 * min(1.0, update / 100))

Updates are those of a player's own clock, which resumed parts and skipped steps leave right.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..models.settings.serialise import ConfigError

LearningRate = Callable[[int], float]  # as PlayerConfig.rate: updates are counted from 1


def checked(rate: LearningRate) -> LearningRate:
    """The function, with its values looked at; the first at once. Raises ConfigError for one that cannot be meant."""

    def value(update: int) -> float:
        given = rate(update)
        try:
            number = float(given)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number < math.inf:
            raise ConfigError(f"learning_rate({update}) = {given!r} must be a finite number that is not negative")
        return number

    value(1)
    return value
