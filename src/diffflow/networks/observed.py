"""Observed denoisers: denoisers trained with masks, with some coordinates known.

    D(y, sigma; v) = E[Y | y_u, Y_k = v]         known coordinates k without noise, the others u with noise sigma

It is a denoiser as any other, of the conditional law: the ordinary solvers draw from that law at the ordinary cost, and
nothing about it is approximate but the training.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..equation.conditions import Cond
from ..equation.fields import ScoreField
from ..equation.guidance import _Guided, guide
from ..equation.sde import DiffFlow
from ..sampling.observations.observation import Observation
from .denoiser import Denoiser, Given


class Observed:
    """Denoiser with some coordinates known: called as D(y, sigma), sharing the weights of its source.

    Args:
        source: the denoiser, trained with masks.
        observation: what is known, for all particles or for each of those that it is called with.

    Raises:
        ValueError: for a denoiser that was not trained with masks.
    """

    def __init__(self, source: Denoiser, observation: Observation):
        if not source.takes_known:
            raise ValueError(
                "this denoiser was trained without masks and cannot be told what is known: train it with model.masks, "
                "or draw by method='langevin'"
            )
        self.source, self.observation = source, observation
        self.conditional, self.conditions, self.classes = source.conditional, source.conditions, source.classes
        self.cost, self.principal_std, self.sigma_data = source.cost, source.principal_std, source.sigma_data

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond = None) -> Tensor:
        """D(y, sigma) of y (n, *shape); what y holds at known coordinates is not read."""
        seen = self.observation.to(y).expanded(len(y))
        return self.source(seen.fill(y), sigma, cond, known=seen.known)

    def given(self, cond: Cond) -> Observed | Given:
        """This denoiser with a condition fixed, too."""
        return self if cond is None else Given(self, cond)  # type: ignore[arg-type]  # it is all of one that is used


def observed(sde: DiffFlow, observation: Observation) -> DiffFlow:
    """The equation of the conditional law: its denoiser is told what is known.

    Args:
        sde: an equation on a noise schedule with the score of a denoiser trained with masks, guided or not; a condition
            is given afterwards.
        observation: what is known.

    Returns:
        The equation.

    Raises:
        ValueError: a score of something else, or a log-ratio, which cannot be told.
    """
    field = sde.score
    source = field.source if isinstance(field, ScoreField) else None
    weights = source.weights if isinstance(source, _Guided) else {}
    denoiser = source.source if isinstance(source, _Guided) else source
    if sde.ratio is not None or not isinstance(field, ScoreField) or not isinstance(denoiser, Denoiser):
        what = "a log-ratio" if sde.ratio is not None else repr(field)
        raise ValueError(f"{what} cannot be told what is known, only a denoiser alone can: use method='langevin'")
    score = ScoreField(field.schedule, Observed(denoiser, observation))
    return replace(sde, score=guide(score, weights) if weights else score)
