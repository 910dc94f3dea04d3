"""Rows of the catalogue: what the library says of a model, and its place on the explorer's map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..equation.papers import bibtex

EQUATION = "dX = [ f + (β - g²/2) ∇log(r/p) + (g²/2) ∇log r ] dt + √(g² - λ²) dW"


@dataclass(frozen=True)
class Landmark:
    """A place on the explorer's map.

    Args:
        name: the function of `df` that builds it.
        title: what the map calls it.
        dials: where the explorer's dials stand there.
        label: offset of the label in pixels, and its anchor (start, middle, end).
    """

    name: str
    title: str
    dials: Mapping[str, str | float]
    label: tuple[float, float, str]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of the catalogue.

    Args:
        name: what commands call it.
        title: what people call it.
        page: its page below docs/.
        commands: command lines that train it, or train and sample it.
        generator: whether a network maps noise to a sample in one evaluation.
        f: the drift that does not depend on the laws, as text, like the next three.
        beta: the speed toward the target.
        g2: the stochasticity.
        lam2: the entropy term.
        target: the law r that the particles are moved toward.
        field: what stands in for grad log(r/p) and grad log r.
        needs: what has to be known or learned: score, ratio, score and ratio, or samples (of the data alone).
        evaluations: network evaluations per sample, as text.
        papers: keys of `equation.papers.BIBTEX`; the equation's own goes without saying.
        python: how to build it in Python, where README shows it.
        landmark: its place on the explorer's map.
    """

    name: str
    title: str
    page: str
    commands: tuple[str, ...]
    generator: bool = False
    f: str = "0"
    beta: str = "1"
    g2: str = "0"
    lam2: str = "0"
    target: str = "the data"
    field: str = ""
    needs: str = "samples"
    evaluations: str = "1"
    papers: tuple[str, ...] = ()
    python: str = ""
    landmark: Landmark | None = None

    @property
    def setting(self) -> str:
        """The coefficients in one line."""
        return f"f = {self.f}, β = {self.beta}, g² = {self.g2}, λ² = {self.lam2}"

    def cite(self) -> str:
        """BibTeX, the equation's own paper first."""
        return bibtex(*self.papers)
