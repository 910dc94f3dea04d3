"""`diffflow weights`: list, verify and fetch the networks that images are judged with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from diffflow.cli import UsageError, parse
from diffflow.console import progress, table, to_stderr, to_stdout


@dataclass(frozen=True)
class Weights:
    """List, verify or fetch the weights of feature extractors. Nothing else in diffflow downloads anything.

    They lie in $DIFFFLOW_WEIGHTS, or in diffflow/weights of the user's cache; `evaluate --features` finds them there.

    Examples:
        diffflow weights list
        diffflow weights fetch lenet
        diffflow weights verify resnet20 --file path/to/resnet20-12fca82f.th
    """

    what: Annotated[Literal["list", "verify", "fetch"], tyro.conf.Positional]
    """What to do."""
    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ()
    """Which; none: all that are known (not for fetch)."""
    file: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """With verify: a file somewhere else."""
    url: str | None = None
    """With fetch: another place of the same file (its sha256 decides)."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        from diffflow.metrics.pretrained import KNOWN, WeightsError, fetch, home, known, verify

        if self.what == "fetch" and not self.names:
            raise UsageError(f"say which weights to fetch: {', '.join(KNOWN)}.")
        if (self.file or self.url) and len(self.names) != 1:
            raise UsageError("--file and --url belong to one name: give it.")
        if (self.file and self.what != "verify") or (self.url and self.what != "fetch"):
            raise UsageError("--file goes with verify, and --url with fetch.")
        for name in self.names:
            known(name)
        if self.what == "list":
            rows = table("name", "here", "sha256", "licence", "what")
            for w in (KNOWN[name] for name in self.names or KNOWN):
                rows.add_row(w.name, "yes" if w.path.is_file() else "no", w.sha256[:12], w.licence, w.what)
            to_stdout().print(rows)
            print(f"folder {home()}")
            return 0
        good = bad = 0
        for name in self.names or tuple(KNOWN):
            try:
                if self.what == "verify":
                    print(f"{name}: {verify(name, self.file)} is the file that is published")
                else:
                    with progress(f"fetching {name}", to_stderr(), "bytes") as bar:
                        print(f"{name}: {fetch(name, self.url, bar)}")
            except WeightsError as error:
                if self.names:
                    raise
                bad += KNOWN[name].path.is_file()
                print(f"{name}: {error}")
            else:
                good += 1
        return 0 if good and not bad else 2


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Weights, args).main()
