"""`diffflow cite`: what to put into a bibliography, for the equation or for the row of the model table that a run
samples with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from diffflow.cli import parse


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
        import diffflow as df

        if self.run is None:
            print(df.DiffFlow().cite())
            return 0
        run = df.load(self.run)
        print(run.sde(churn=run.config.sampling.churn if self.churn is None else self.churn).cite())
        return 0


def main(args: Sequence[str]) -> int:
    return parse(Cite, args).main()
