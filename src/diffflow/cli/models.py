"""`diffflow models`: the models, as settings of the equation, and how each one is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated

import tyro

from diffflow.cli import UsageError, parse
from diffflow.console import Console, say, table, to_stdout
from diffflow.models.catalogue import MODELS
from diffflow.models.row import EQUATION, Model


@dataclass(frozen=True)
class Models:
    """List every model as a setting of the equation; with a name, one of them in full.

    Examples:
        diffflow models
        diffflow models discriminator-flow
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None
    """A model of the list: its setting, what it needs, the commands and the BibTeX."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        console = to_stdout()
        if not console.is_terminal:
            console = to_stdout(width=160)  # a pipe has no width: take what the table needs
        if self.name is None:
            overview(console)
        elif self.name in MODELS:
            in_full(MODELS[self.name], console)
        else:
            near = get_close_matches(self.name, MODELS, n=1, cutoff=0.4)
            raise UsageError(
                f"unknown model {self.name!r}."
                + (f" Did you mean {near[0]!r}?" if near else "")
                + " `diffflow models` lists them."
            )
        return 0


def overview(console: Console) -> None:
    """Print one line a model."""
    say(console, f"{EQUATION}\n")
    rows = table("name", "model", "generator", "f", "β", "g²", "λ²", "needs", "evaluations")
    rows.columns[0].no_wrap = True
    for m in MODELS.values():
        settings = (m.f, m.beta, m.g2, m.lam2)
        rows.add_row(m.name, m.title, "yes" if m.generator else "", *settings, m.needs, m.evaluations)
    console.print(rows)
    say(console, "\ndiffflow models NAME shows one in full: commands, papers, page.")


def in_full(m: Model, console: Console) -> None:
    """Print everything the catalogue knows of one model."""
    lines = [
        (m.title, ""),
        ("equation", EQUATION),
        ("setting", m.setting),
        ("r is", m.target),
        ("field", m.field),
        ("needs", m.needs),
        ("generator", "yes" if m.generator else "no"),
        ("evaluations", f"{m.evaluations}, of networks, for a sample"),
        ("page", f"docs/{m.page}"),
    ]
    for name, text in lines:
        console.print(f"{name:<13}{text}" if text else f"{name}\n")
    say(console, "\n" + "\n".join(m.commands) + "\n\n" + m.cite())


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Models, args).main()
