"""Writer of docs/guides/models.md from the JSON files of models.py: one row a model, a dash where a cell is missing.

Values are means over seeds; in brackets the floor, what fresh real points score at the same number.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from diffflow.models.catalogue import MODELS
from diffflow.models.row import Model

# Why a model is weak where it is: written by whoever has looked at the samples behind the figures.
REASONS: dict[str, str] = {
    "langevin": "one noise level. A particle settles in the mode next to its start and hardly ever crosses to "
    "another, so the modes keep the shares that the start gave them. On digits it starts from noise, at a level at "
    "which the denoiser has seen digits only: the chains end on strokes that are no digit.",
    "gan": "(and every generator below it) a continuous map of one Gaussian: what is not within a mode lies on "
    "bridges between modes. On digits the pictures are clean, and less varied than the data (recall).",
    "hinge": "one seed of three lost a mode.",
    "ipm": "the least varied digits of the games. It takes one discriminator turn a step, where the paper takes five.",
    "fgan-pearson": "two modes drift off their places at one seed of three.",
    "improved-gan-independent": "ten networks share the minutes of one, and each learns on particles that the others "
    "moved. On digits many of the samples are noise or grey.",
    "improved-gan": "particles move at constant speed over equal steps, where Discriminator Flow slows down by its "
    "logit and by its grid. On digits about a third of the samples is still grey at the end.",
    "discriminator-flow": "inner modes get more than their share: the samples of 25 Gaussians have a standard "
    "deviation of 0.93 instead of 0.99, and the sliced W2 sees it. On digits about one in ten has not arrived after "
    "12 steps.",
    "score-gan": "uneven shares of the modes at some seeds, and bridges between neighbours. It needs a trained "
    "denoiser first.",
    "diffusion-gan": "inner modes get more than their share, as in Discriminator Flow (0.93 instead of 0.99), which "
    "its denoiser alone (the rows of score diffusion) does not show.",
    "continuation": "flattened on purpose: lam2 < 0 adds entropy, and every mode is wider than the data's.",
    "mmd": "the energy distance weighs large scales most. On digits noise is left in most pictures.",
    "svgd": "a deterministic repulsion, as wide as the last noise level, holds the outermost particles of each mode "
    "beyond 3 standard deviations (the sliced W2 is at the floor). On digits the cloud gathers on fewer pictures.",
    "ksd": "its fixed points include places where the score vanishes without being a mode (Korba et al. 2021). On "
    "digits many samples are strokes between two digits.",
    "sliced-wasserstein": "few random projections see what tells 64 pixels apart. On digits noise is left in most "
    "pictures, in the plane some particles stay between modes.",
    "drifting": "at its last temperature a particle sits on the picture next to it: digits are clean, and pictures "
    "that no particle came near are missing (recall).",
    "mmd-generator": "samples between narrow modes cost the energy distance little, and a continuous map must have "
    "some: many lie outside, though the sliced W2 is near the floor.",
    "sw-generator": "draws the square that the modes lie in. Nearly every projection of 25 narrow modes covers the "
    "line evenly, so what lies between them costs almost nothing (the sliced W2 is near the floor): free particles of "
    "the same field find the modes, a continuous map of a batch of 256 does not.",
}

HEAD = r"""# The models, measured

Every model is a setting of one equation,

$$
dX = \Big[\, f + \big(\beta - \tfrac{g^2}{2}\big)\,\nabla\log\frac{r}{p} + \tfrac{g^2}{2}\,\nabla\log r \,\Big]\,dt
+ \sqrt{g^2 - \lambda^2}\;dW
$$

and `diffflow models` lists them; `diffflow models NAME` adds the commands and the papers of one. This page is written
by

```
python benchmarks/models/models.py --workers 2   # hours; a JSON file a cell in results/models; current ones are skipped
python benchmarks/models/models.py --table       # only this page, from those files
```

"""

NOTES = """
**How to read it.** Training runs on one thread, for {} minutes on 25 Gaussians, {} on the checkerboard and {} on
digits. Two-dimensional toys: 2000 samples against as many exact draws, means over seeds. *modes* counts those that
hold, within 3 standard deviations, at least a fifth of their fair share of the samples (of 25; on the checkerboard of 8
squares), *within* is the share of samples within 3 standard deviations of a mode. Digits (8×8, scikit-learn): one seed,
500 samples against 500 held-out images, k = 5, in pixels; *accuracy* is the share that a classifier sees as the class
asked for, and for models without classes its mean confidence, in italics. Flows without training follow the exact law
on toys, on digits the training images, with the score of the same denoiser that the score-based rows share. Floors in
brackets are those of real data. *Evaluations* count networks per sample, as measured on 25 Gaussians; an input gradient
counts 2. *Minutes* are those of all training behind a row, and Score GAN starts from a denoiser that had its own.
Pictures of the samples lie beside the JSON files, under the names of the cells (digits, and 25 Gaussians at the first
seed). A dash is a cell that has not been measured.
"""

AIM_TOY = """## The aim on 25 Gaussians

All 25 modes at each of three seeds, and 90 % of the samples within 3 standard deviations of one, after at most 6
minutes of training on one thread (the denoiser that Score GAN starts from counted in).
"""
AIMED_TOY = ("diffusion-gan", "discriminator-flow", "score-gan", "hinge", "ipm", "drifting-generator")

AIM = """## The aim on digits

Precision of 0.6 and coverage of 0.5, after at most 10 minutes of training on one thread (in all, the denoiser that
Score GAN starts from counted in; a tenth of a minute is left for the last step and the last grid), by samples of one
evaluation, or of at most 25 along a path (an input gradient counts 2).
"""
AIMED = {"score-gan": 1, "discriminator-flow": 25, "gan": 1}  # most evaluations

TOY = ("sliced_w2", "modes", "within")
DIGITS = ("precision", "recall", "density", "coverage")


def write_page(page: Path, cells: Path) -> None:
    """Write the page from the JSON files in `cells`."""
    found = [json.loads(p.read_text()) for p in sorted(cells.glob("*.json"))]
    lines = [HEAD, *results(found), *notes(found), *claim(found), *reasons(), *commands()]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines) + "\n")


def commands() -> list[str]:
    """How each row is run, and what it needs."""
    heads = ("model", "r", "needs", "command")
    lines = ["## How to run each\n", row(heads), row("---" for _ in heads)]
    return [*lines, *(row((link(m), m.target, m.needs, "<br>".join(map(code, m.commands)))) for m in MODELS.values())]


def results(found: list[dict[str, Any]]) -> list[str]:
    """The measured table."""
    toy = ("sliced W2", "modes", "within")
    heads = (
        "model",
        "generator",
        "f · β · g² · λ²",
        "evaluations",
        *(f"25 Gaussians: {h}" for h in toy),
        *(f"checkerboard: {h}" for h in toy),
    )
    heads = (*heads, *(f"digits: {h}" for h in (*DIGITS, "accuracy", "minutes")))
    lines = ["## Results\n", row(heads), row("---" for _ in heads)]
    for m in MODELS.values():
        of = {d: [c for c in found if (c["model"], c["dataset"]) == (m.name, d)] for d in {c["dataset"] for c in found}}
        counts = sorted({c["evaluations"] for c in of.get("25gaussians", [])})
        setting = " · ".join((m.f, m.beta, m.g2, m.lam2))
        cells = [link(m), "yes" if m.generator else "", setting, ", ".join(map(str, counts)) or "–"]
        cells += [shown(of.get(d, []), name) for d in ("25gaussians", "checkerboard") for name in TOY]
        cells += [shown(of.get("digits", []), name) for name in DIGITS]
        accuracy, sure = (shown(of.get("digits", []), name) for name in ("accuracy", "confidence"))
        cells += [accuracy if accuracy != "–" else sure if sure == "–" else f"*{sure}*", minutes(of.get("digits", []))]
        lines.append(row(cells))
    return lines


def minutes(cells: list[dict[str, Any]]) -> str:
    """Of training in all, on average over seeds, and of which of a denoiser before it; 0 where nothing was trained."""
    if not cells:
        return "–"
    total, before = (fmean(c["trained"].get(k, 0.0) for c in cells) for k in ("minutes", "denoiser_minutes"))
    return f"{total:.1f}" + (f" ({before:.1f} the denoiser)" if before else "")


def claim(found: list[dict[str, Any]]) -> list[str]:
    """The aims, beside what was measured."""

    def of(name: str, dataset: str, *metrics: str) -> tuple[list[dict[str, Any]], list[list[float]], str]:
        cells = [c for c in found if (c["model"], c["dataset"]) == (name, dataset)]
        values = [[m["value"] for c in cells for m in c["metrics"] if m["name"] == k] for k in metrics]
        return cells, values, ", ".join(map(str, sorted({c["evaluations"] for c in cells}))) or "–"

    def verdict(cells: list[dict[str, Any]], good: bool, seeds: int = 1) -> str:
        return "–" if len(cells) < seeds else "yes" if good else "no"

    heads = ("model", "evaluations", "minutes", "modes, least of the seeds", "within", "sliced W2", "reached")
    lines = [AIM_TOY, row(heads), row("---" for _ in heads)]
    for name in AIMED_TOY:
        cells, (modes, within), cost = of(name, "25gaussians", "modes", "within")
        good = bool(cells) and min(modes) == 25 and fmean(within) >= 0.9
        good = good and all(c["trained"]["minutes"] <= 6.1 for c in cells)
        least = f"{min(modes):g}" if modes else "–"
        measured = (minutes(cells), least, shown(cells, "within"), shown(cells, "sliced_w2"))
        lines.append(row((link(MODELS[name]), cost, *measured, verdict(cells, good, seeds=3))))

    heads = ("model", "evaluations", "minutes", "precision", "coverage", "reached")
    lines += ["", AIM, row(heads), row("---" for _ in heads)]
    for name, most in AIMED.items():
        cells, (precision, coverage), cost = of(name, "digits", "precision", "coverage")
        good = bool(cells) and fmean(precision) >= 0.6 and fmean(coverage) >= 0.5
        good = good and all(c["evaluations"] <= most and c["trained"]["minutes"] <= 10.1 for c in cells)
        measured = (minutes(cells), shown(cells, "precision"), shown(cells, "coverage"))
        lines.append(row((link(MODELS[name]), cost, *measured, verdict(cells, good))))
    return [*lines, ""]


def shown(cells: list[dict[str, Any]], name: str) -> str:
    """Mean over seeds and its floor, or a dash."""
    metrics = [m for c in cells for m in c["metrics"] if m["name"] == name]
    if not metrics:
        return "–"
    digits = ".1f" if name == "modes" else ".3f"
    value = f"{fmean(m['value'] for m in metrics):{digits}}"
    floors = [m["floor"] for m in metrics if m["floor"] is not None]
    return f"{value} ({fmean(floors):{digits}})" if floors and name != "modes" else value


def notes(found: list[dict[str, Any]]) -> list[str]:
    """How the numbers were taken, from the files themselves."""

    def budget(dataset: str) -> str:
        minutes = sorted({c["budget_minutes"] for c in found if c["dataset"] == dataset})
        return " or ".join(f"{m:g}" for m in minutes) or "–"

    return [NOTES.format(*(budget(d) for d in ("25gaussians", "checkerboard", "digits")))]


def reasons() -> list[str]:
    """What there is to say about weak rows."""
    lines = [f"- **{link(MODELS[name])}**: {text}" for name, text in REASONS.items()]
    return ["## Weak rows\n", *lines, ""] if lines else []


def link(m: Model) -> str:
    return f"[{m.title}](../{m.page})"


def code(text: str) -> str:
    return f"`{text}`"


def row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
