"""Is this training going wrong? What the log shows of an adversarial game before the samples do.

A generator and a discriminator can fail quietly: losses stay finite while the samples shrink to a point, or the
discriminator wins and teaches nothing. Each sign below is read from a line of metrics.jsonl (means over `log_every`
steps), is judged against a level with a reason, and has words and a remedy. A sign counts when it stands in
`PATIENCE` lines in a row: single lines are noise. What is counted on a grid of samples (`samples/...`) is none, and
grids are minutes apart: it counts at once.

    accuracy      share of samples that a discriminator puts on the right side; 1/2 when it sees no difference
    calibration   how far its odds are from the shares it claims (games.game_signals); its gradient is wrong by as much
    spread        standard deviation of generated samples over that of the data
    grad          gradient norm of a player, against its own median so far
    modes         modes of a toy that samples reach, over those that there are
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PATIENCE = 3
YOUNG = 10  # lines in which a generator may still be on its way from where it started
WON = 0.995  # the logistic gradient sigmoid(-d) is then below 1 % on almost every sample
CALIBRATION = 0.15  # odds wrong by more than a step in seven
SPREAD = 0.35  # a third of the data's width: a cloud that has lost most of its modes
GROWTH = 30.0  # gradient norms vary by a factor of a few


def signs(line: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What looks wrong in a line of the log, given the lines before it: {sign: what it means and what to do}."""
    found: dict[str, str] = {}
    # what else may help, by what moves the samples: a discriminator, a second denoiser, or nothing that learns
    opponent = "; give the second denoiser more turns (--move.updates)" if "fake" in line["grad"] else ""
    if "discriminator" in line["grad"]:
        opponent = "; give the discriminator a higher penalty (--game.penalty.between)"
        opponent += ", or more turns (--move.updates)" if "generator" in line["grad"] else ""
    for key, value in line["log"].items():
        player, _, name = key.partition("/")
        if name == "accuracy" and value > WON:
            found[key] = (
                f"{player} tells real from generated on {value:.1%} of samples: it has won, and its gradient says "
                f"little. Raise a penalty (--game.penalty.between) or lower --{player}.lr; where displacement has "
                "doubled, samples overshoot: move them less far"
            )
        elif name == "calibration" and value > CALIBRATION:
            found[key] = (
                f"{player} is sure of itself by {value:.2f} more than it is right: its logit is not the log-ratio, and "
                f"its gradient is off by as much. Raise a penalty (--game.penalty.between), or lower --{player}.lr"
            )
        elif name == "std_ratio" and value < SPREAD and len(before) >= YOUNG:
            found[key] = (
                f"the samples are {value:.2f} times as wide as the data: they collapse onto few points. Lower "
                f"--{player}.lr{opponent}"
            )
        elif name == "modes" and value < 0.5 and len(before) >= YOUNG:
            found[key] = (
                f"the samples reach {value:.0%} of the modes: the others are lost, and rarely come back. Start again "
                f"with a lower rate{opponent}"
            )
    for player, norm in line["grad"].items():
        past = [b["grad"][player] for b in before if player in b["grad"]]
        if len(past) >= YOUNG and norm > GROWTH * statistics.median(past) > 0:
            found[f"{player}/grad"] = (
                f"the gradient of {player} is {norm / statistics.median(past):.0f} times its median so far: the game "
                f"is getting out of hand. Lower --{player}.lr or --{player}.clip"
            )
    return found


def patience(sign: str) -> int:
    """Lines in a row in which a sign must stand."""
    return 1 if sign.startswith("samples/") else PATIENCE


class Watch:
    """Signs that have stood long enough, said once each. `before`: the lines of a log that is resumed, said already."""

    def __init__(self, before: Iterable[Mapping[str, Any]] = ()) -> None:
        self.lines: list[Mapping[str, Any]] = []
        self.streaks: dict[str, int] = {}
        for line in before:
            self.see(line)

    def see(self, line: Mapping[str, Any]) -> list[str]:
        """Take in a line of the log; the warnings that it makes due."""
        found = signs(line, self.lines)
        self.lines.append(line)
        # a sign that is not measured in this line (a grid is drawn now and then) keeps its count
        measured = line["log"].keys() | {f"{player}/grad" for player in line["grad"]}
        self.streaks = {
            k: self.streaks.get(k, 0) + (k in found)
            for k in self.streaks.keys() | found
            if k in found or k not in measured
        }
        return [found[k] for k, n in self.streaks.items() if n == patience(k) and k in found]
