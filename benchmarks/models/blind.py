"""A blind test of pictures: samples and real ones mixed, each named by a coarse class or called unrecognisable.

The classes are those of CLASSES below, fixed before anything was sampled. `sheet` draws 50 samples of a run, takes 50
real pictures, mixes them by a seed that nobody looks at, and writes numbered sheets without a word on which is which,
and a key. Whoever judges writes a class or `none` for each number into a file; `score` opens the key: the share of
samples that are recognised, of real pictures, and their ratio with a bootstrap error.

    python benchmarks/models/blind.py sheet RUN --data FOLDER --set emoji --out build/blind-emoji
    (look at build/blind-emoji/sheet-*.png, write build/blind-emoji/answers.txt: "1 face", "2 none", ...)
    python benchmarks/models/blind.py score build/blind-emoji --out results/blind-emoji.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

import diffflow as df
from diffflow import files

CLASSES: dict[str, tuple[str, ...]] = {
    "emoji": ("face", "person", "hand", "animal", "plant", "food", "flag", "vehicle", "building", "symbol"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "fashion": ("top", "trousers", "dress", "sandal", "sneaker", "boot", "bag"),
}
EACH, PER_SHEET, TILE = 50, 25, 112


def colour(x: Tensor) -> Tensor:
    """Pictures uint8 (n, 3, h, w) of bytes or of floats in [0, 1], grey or colour."""
    x = x if x.dtype == torch.uint8 else (x.clamp(0, 1) * 255).round().to(torch.uint8)
    return x.expand(-1, 3, -1, -1)


def sheets(pictures: Tensor, out: Path) -> None:
    """Numbered sheets of pictures (n, 3, h, w), 25 each."""
    for first in range(0, len(pictures), PER_SHEET):
        page = Image.new("RGB", (5 * (TILE + 8), 5 * (TILE + 22)), "grey")
        draw = ImageDraw.Draw(page)
        for k, picture in enumerate(pictures[first : first + PER_SHEET]):
            left, top = (k % 5) * (TILE + 8) + 4, (k // 5) * (TILE + 22) + 4
            tile = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((TILE, TILE), Image.Resampling.BICUBIC)
            page.paste(tile, (left, top))
            draw.text((left, top + TILE + 2), str(first + k + 1), fill="white")
        page.save(out / f"sheet-{first // PER_SHEET + 1}.png")


def make(run: df.Run, data: df.Data, kind: str, out: Path, seed: int) -> None:
    """Write the sheets and the key."""
    out.mkdir(parents=True, exist_ok=True)
    g = torch.Generator().manual_seed(seed)
    labels = data.labels(EACH)
    samples = colour(run.sample(EACH, cond=labels if run.classes else None, noise=seed).last)
    real = colour(data.x[torch.randperm(len(data), generator=g)[:EACH]])
    order = torch.randperm(2 * EACH, generator=g)
    sheets(torch.cat([samples, real])[order], out)
    key = [{"sample": bool(k < EACH)} for k in order.tolist()]
    files.write_json(out / "key.json", {"set": kind, "classes": CLASSES[kind], "run": str(run.path), "key": key})


def score(home: Path) -> dict[str, object]:
    """The shares of samples and of real pictures that were recognised, and their ratio with its bootstrap error."""
    key = json.loads((home / "key.json").read_text())
    answers: dict[int, str] = {}
    for line in (home / "answers.txt").read_text().splitlines():
        number, _, word = line.strip().partition(" ")
        if not number:
            continue
        if word not in (*key["classes"], "none"):
            raise SystemExit(f"{line!r}: the classes are {', '.join(key['classes'])}, or none")
        answers[int(number)] = word
    if missing := [k for k in range(1, len(key["key"]) + 1) if k not in answers]:
        raise SystemExit(f"no answer for {missing}")
    seen = torch.tensor([answers[k + 1] != "none" for k in range(len(key["key"]))]).double()
    made = torch.tensor([entry["sample"] for entry in key["key"]])
    samples, real = seen[made], seen[~made]
    g = torch.Generator().manual_seed(0)
    ratios = torch.stack(
        [
            samples[torch.randint(len(samples), (len(samples),), generator=g)].mean()
            / real[torch.randint(len(real), (len(real),), generator=g)].mean().clamp_min(1e-9)
            for _ in range(1000)
        ]
    )
    return {
        "command": sys.argv,
        "set": key["set"],
        "classes": key["classes"],
        "samples_recognised": samples.mean().item(),
        "real_recognised": real.mean().item(),
        "ratio": (samples.mean() / real.mean()).item(),
        "ratio_stderr": ratios.std().item(),
        "answers": {"samples": _counts(answers, made, True), "real": _counts(answers, made, False)},
    }


def _counts(answers: dict[int, str], made: Tensor, of_samples: bool) -> dict[str, int]:
    words = [answers[k + 1] for k in range(len(made)) if bool(made[k]) == of_samples]
    return {word: words.count(word) for word in sorted(set(words))}


def main() -> int:
    """Make sheets, or score the answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    sheet = parts.add_parser("sheet")
    sheet.add_argument("run", type=Path)
    sheet.add_argument("--data", required=True)
    sheet.add_argument("--size", type=int)
    sheet.add_argument("--set", choices=CLASSES, required=True)
    sheet.add_argument("--out", type=Path, required=True)
    sheet.add_argument("--seed", type=int, default=1)
    judged = parts.add_parser("score")
    judged.add_argument("home", type=Path)
    judged.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.part == "sheet":
        data = df.data.load(args.data, size=args.size)
        make(df.load(args.run), data, args.set, args.out, args.seed)
        return 0
    result = score(args.home)
    files.write_json(args.out, result)
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
