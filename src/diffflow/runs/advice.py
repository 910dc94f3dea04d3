"""What a run of pictures is good for when its minutes are over, and the command that would improve it most.

grid       where to look
distance   to pictures kept aside, in units of that of training pictures to them; copies among the samples
next       one command: more minutes, more pictures, or faster samples
"""

from __future__ import annotations

import json
import math
import shlex
from typing import Any

from ..data import Data
from ..metrics.neighbours import nearest
from ..training.memory import at_once
from .run import Run

CLOSE = 1.3  # times the distance of real pictures: from here on speed is worth more than minutes
PASSES = 200  # over the pictures, beyond which more of the same teach little
SAMPLES = 200


def closing_lines(run: Run, data: Data) -> list[str]:
    """Three lines on a run that was just trained.

    Args:
        run: the run, of pictures.
        data: what it was trained on.
    """
    grids = sorted((run.path / "samples").glob("*.png"))
    found = kept(run)
    far = math.exp(found["chosen"]["score"]) if found else math.nan
    copies = {m.name: m for m in copied(run, data)}
    distance = (
        f"samples are {far:.2f} times as far from the pictures kept aside as training pictures are"
        if found
        else "too few pictures to keep some aside and measure the distance to them"
    )
    memory = ""
    if (share := copies.get("memorised")) is not None:
        memory = f"; {share.value:.0%} are copies of training pictures ({share.floor or 0:.0%} of real ones look so)"
    learned_by_heart = share is not None and share.value > max(0.1, 2 * (share.floor or 0))
    command, why = improvement(run, len(data), far, learned_by_heart)
    return [
        f"grid     {grids[-1] if grids else 'none was drawn'}",
        f"good     {distance}{memory}",
        f"next     {command}   ({why})",
    ]


def kept(run: Run) -> dict[str, Any] | None:
    """What chose the sampler of these weights, with its distances; None where nothing did."""
    try:
        content = json.loads((run.path / "sampler.json").read_bytes())
    except (OSError, ValueError):
        return None
    return content if content.get("weights") == run.weights else None


def copied(run: Run, data: Data) -> list[Any]:
    """How near a few samples are to the training pictures, and whether they are copies."""
    if len(data) < 2:  # of which all samples are copies
        return []
    n = min(SAMPLES, max(24, len(data)))
    x = run.sample(n, cond=data.labels(n) if run.classes else None, noise=23, batch=at_once(data.shape, 128)).last
    return nearest(x, data.x)  # bytes as they are: as floats a large set would be four times as large


def improvement(run: Run, count: int, far: float, learned_by_heart: bool) -> tuple[str, str]:
    """The command that would improve a run most, and why.

    Args:
        run: the run.
        count: how many pictures it was trained on.
        far: distance of its samples in units of that of real pictures; NaN: unknown.
        learned_by_heart: whether its samples are copies.
    """
    name, fit = shlex.quote(str(run.path)), run.config.fit
    passes = run.step * fit.batch / count
    if learned_by_heart:
        why = f"after {passes:.0f} passes over {count:,} pictures they are learned by heart"
        return "more pictures" + ("" if run.config.data.augment else ", or --data.augment 0.12"), why
    budget = f"--steps {2 * run.step}"
    for flag, minutes in (("--minutes", fit.minutes), ("--cpu-minutes", fit.cpu_minutes)):
        budget = budget if minutes is None else f"{flag} {2 * minutes:g}"
    if not far < CLOSE and passes < PASSES:
        return f"diffflow train --resume auto --out {name} {budget}", "twice the budget in all: it is still learning"
    if not far < CLOSE:
        return f"diffflow sample {name} -n 100", f"{passes:.0f} passes over all pictures: look, then find more of them"
    return f"diffflow distill {name} --steps 1", "as near as it gets: samples in one evaluation"
