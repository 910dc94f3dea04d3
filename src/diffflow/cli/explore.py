"""`diffflow explore`: the page of particles, and of the runs in a folder, in the browser."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffflow.cli import UsageError, parse


@dataclass(frozen=True)
class Explore:
    """Watch particles move between GAN, Langevin dynamics and diffusion, and play the runs of a folder.

    A page on this machine alone (127.0.0.1), opened in the browser: the map of models with the equation above it,
    exact particles, lessons, and for every run its samples on their way from noise, its frontier and its training.

    Examples:
        diffflow explore
        diffflow explore path/to/runs --port 9000
        diffflow explore --no-browser                  (prints the address and opens nothing)
    """

    runs: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")] = "runs"
    """Folder of runs; it may be empty, or not there yet."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 8760
    """Port on 127.0.0.1; 0: any that is free."""
    browser: bool = True
    """Open the page in the browser."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        if not 0 <= self.port < 65536:
            raise UsageError(f"--port {self.port}: a port is a number from 0 to 65535.")
        home = Path(self.runs)
        if home.exists() and not home.is_dir():
            raise UsageError(f"{home} is not a folder: name the folder that holds the runs.")
        if (home / "run.json").exists():
            raise UsageError(f"{home} is a run itself: name the folder that holds it, {home.resolve().parent}.")
        from diffflow.explorer.server import serve

        def say(address: str) -> None:
            print(address, flush=True)
            print("ctrl-C ends it", file=sys.stderr)
            if self.browser:
                webbrowser.open(address)

        serve(home, self.port, self.device, say)
        return 0


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Explore, args).main()
