"""`diffflow cite`: BibTeX for the equation, or for what a run rests on.

A run cites the row of the model table that it samples with, how it was trained, and its guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import tyro

import diffflow as df
from diffflow.cli import parse
from diffflow.equation.papers import bibtex
from diffflow.models.catalogue import MODELS


@dataclass(frozen=True)
class Cite:
    """Print BibTeX: for the equation, or for everything that sampling a run rests on.

    Examples:
        diffflow cite
        diffflow cite runs/demo --churn 1
    """

    run: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None
    """Run directory; without it, the paper of the equation."""
    churn: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """Cite the run as sampled at this churn instead of its own default."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        if self.run is None:
            print(df.DiffFlow().cite())
            return 0
        run = df.load(self.run)
        if (row := run.config.row) is not None:
            print(MODELS[row].cite())
            return 0
        if run.config.papers:
            print(bibtex(*run.config.papers))
            return 0
        defaults = run.dials
        sde = run.sde(churn=defaults.churn if self.churn is None else self.churn)
        # the score was trained and is solved on EDM's terms; guidance is the run's, not the equation's
        papers = ("karras2022", *(("ho2022",) if defaults.guidance != 1 else ()))
        print(replace(sde, papers=(*sde.papers, *papers)).cite())
        return 0


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Cite, args).main()
