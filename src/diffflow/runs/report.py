"""The report of a run: one HTML file that says what was trained, how well, and how to use it.

It holds what a stranger needs to judge a run, and to go on with it. Everything is read from the run directory
(config.yaml, run.json, metrics.jsonl, samples/, and where they exist dial.png, samples.png, marginals.png, pairs.png,
columns.png, correlations.png, evaluation.json), so a report can be rewritten at any time and never disagrees with the
files. Pictures are inlined, there is no script, and nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from .. import figures, files
from ..console import plus_minus
from ..metrics import METRICS
from ..models.base import TrainConfig, Words
from ..models.settings.serialise import ConfigError
from ..training.run_folder import Folder
from . import table_page

SIGNALS = {
    "accuracy": "share of real and generated samples that the discriminator tells apart, 0.5 when they look alike",
    "calibration": "how far its odds are from the truth",
    "modes": "share of the toy’s modes that samples reach",
    "within": "share of samples that lie in a mode",
    "displacement": "how far particles are moved in a step",
    "std_ratio": "width of the samples over that of the data",
}

EQUATION = (
    "d<i>X</i> = [ <i>f</i> + (<i>β</i> − <i>g</i>²/2) ∇log(<i>r</i>/<i>p</i>) + (<i>g</i>²/2) ∇log <i>r</i> ] "
    "d<i>t</i> + √(<i>g</i>² − <i>λ</i>²) d<i>W</i>"
)

STYLE = """
:root { --ink: #1b1f24; --soft: #5a6472; --line: #e4e7ec; --panel: #f6f7f9; --blue: #1f5fbf }
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.6 system-ui, "Segoe UI", Roboto, sans-serif }
main { max-width: 60rem; margin: 0 auto; padding: 3rem 1.5rem 5rem }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .6rem }
h2 { font-size: 1.25rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line) }
p, figcaption { max-width: 46rem }
.soft, figcaption { color: var(--soft); font-size: .9rem }
.equation { background: var(--panel); border-radius: 8px; padding: 1.1rem 1.3rem; overflow-x: auto;
  font: 1.2rem/1.7 "Cambria Math", "STIX Two Text", Georgia, serif }
figure { margin: 1.2rem 0 }
figure img { max-width: 100%; height: auto; display: block }
figcaption { margin-top: .5rem }
.pair { display: flex; flex-wrap: wrap; gap: 1.5rem }
.pair figure { flex: 1 1 18rem; margin: .6rem 0 }
table { border-collapse: collapse; font-size: .95rem; margin: 1rem 0; max-width: 100% }
th, td { text-align: left; padding: .35rem 1.4rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600; color: var(--soft) }
td { overflow-wrap: anywhere }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
pre { background: var(--panel); border-radius: 8px; padding: .9rem 1.1rem; overflow-x: auto;
  font: .87rem/1.55 ui-monospace, "SF Mono", Menlo, Consolas, monospace }
details summary { cursor: pointer; color: var(--blue) }
"""


def write(run_dir: str | Path) -> Path:
    """Write `report.html` into a run directory from what lies in it.

    Optional content enters as files: `dial.png` (one start, several settings), `samples.png`, and `evaluation.json`,
    which is {"summary": str, "metrics": [{"name", "value", "stderr", "floor", "remark"}], "card": {...}} with only
    "metrics" required.

    Args:
        run_dir: the run directory.

    Returns:
        The path of the report.

    Raises:
        FileNotFoundError: the directory holds no run.
    """
    home = Path(run_dir)
    about = json.loads((home / "run.json").read_text())
    config = (home / "config.yaml").read_text()
    evaluation = json.loads((home / "evaluation.json").read_text()) if (home / "evaluation.json").exists() else {}
    log = Folder(home).lines()
    settings = settings_of(home)
    sections = [
        _head(home, about, log, evaluation, settings.words),
        _setting(settings),
        _dial(home),
        _samples(home),
        _measured(evaluation),
        table_page.section(evaluation, home, _table, _image),
        _frontier(home),
        _training(log),
        _data(about.get("data", {})),
        _use(home, about, log, settings.words),
        _fine_print(about, config, evaluation),
    ]
    page = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape('diffflow: ' + home.name)}</title>\n<style>{STYLE}</style>\n<main>",
        *filter(None, sections),
        "</main>\n</html>\n",
    ]
    return files.write_text(home / "report.html", "\n".join(page))


def _image(content: bytes, caption: str, alt: str) -> str:
    data = base64.b64encode(content).decode()
    picture = f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str] = (), numbers: Sequence[int] = ()) -> str:
    """Rows of cells that are HTML already; columns `numbers` are aligned to the right."""

    def line(cells: Sequence[str], tag: str) -> str:
        right = [" class=number" if i in numbers else "" for i in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{css}>{cell}</{tag}>" for css, cell in zip(right, cells, strict=True)) + "</tr>"

    return "<table>" + (line(heads, "th") if heads else "") + "".join(line(row, "td") for row in rows) + "</table>"


def _pre(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _head(home: Path, about: Mapping, log: Sequence[Mapping], evaluation: Mapping, words: Words) -> str:
    data = about.get("data", {})
    last = log[-1] if log else {}
    kind, shape = data.get("kind", "vector"), "×".join(map(str, data.get("shape", ())))
    what = f"{data.get('count', 0):,} {kind}s of shape {shape}"
    classes = f" in {len(data['classes'])} classes" if data.get("classes") else ""
    size = sum(about.get("parameters", {}).values())
    minutes = last.get("seconds", 0.0) / 60
    summary = f"<p><b>{escape(evaluation['summary'])}</b></p>" if evaluation.get("summary") else ""
    return (
        f"<h1>{escape(home.name)}</h1>\n<p>{words.players} with {size:,} parameters, trained on {what}{classes} from "
        f"<b>{escape(str(data.get('name', '?')))}</b>: {last.get('step', 0):,} steps, {last.get('images', 0):,} "
        f"examples seen, {minutes:.1f} minutes. {words.drawing}</p>\n{summary}"
    )


def settings_of(home: Path) -> TrainConfig:
    """The run's settings; those of a family that is not imported say nothing of themselves."""
    try:
        return Folder(home).config()
    except ConfigError:
        return TrainConfig()


def _setting(settings: TrainConfig) -> str:
    rows = settings.equation_rows()
    return f'<h2>The equation and this run\'s setting</h2>\n<div class="equation">{EQUATION}</div>\n{_table(rows)}'


def _dial(home: Path) -> str:
    if not (home / "dial.png").exists():
        return ""
    caption = (
        "Every column starts from the same noise and asks for the same label; every row is another setting of the "
        "equation. Down the churn rows the law of the samples is the same and only the paths differ. Annealed Langevin "
        "(<i>λ</i> = 0) is an older member of the family: it lags behind the target and pays for that in evaluations."
    )
    return "<h2>One start, five settings</h2>\n" + _image(
        (home / "dial.png").read_bytes(), caption, "samples along the dial"
    )


def _samples(home: Path) -> str:
    sheets = sorted(p for p in (home / "samples").glob("*.png") if p.stem.isdecimal())
    parts = []
    if (home / "samples.png").exists():
        parts.append(_image((home / "samples.png").read_bytes(), "Samples at the run's default setting.", "samples"))
    if sheets:
        caption = f"Step {int(sheets[-1].stem):,}: raw weights left, averaged weights (EMA) right, from the same noise."
        parts.append(_image(sheets[-1].read_bytes(), caption, "raw and averaged weights"))
    if len(sheets) > 2:
        early = (sheets[0], sheets[len(sheets) // 2])
        pair = [_image(s.read_bytes(), f"Step {int(s.stem):,}.", "earlier samples") for s in early]
        parts.append(f'<div class="pair">{"".join(pair)}</div>')
    for name, caption in (
        ("marginals.png", "Every column by itself: samples (filled) and real data (line)."),
        ("pairs.png", "Pairs of columns: samples (blue) over real data (grey)."),
    ):
        if (home / name).exists():
            parts.append(_image((home / name).read_bytes(), caption, name.removesuffix(".png")))
    return "<h2>Samples</h2>\n" + "\n".join(parts) if parts else ""


def _meaning(name: str) -> str:
    return METRICS[name].meaning if name in METRICS else ""


def _measured(evaluation: Mapping) -> str:
    if not evaluation.get("metrics"):
        return ""
    rows = [
        (
            escape(m["name"]),
            plus_minus(m["value"], m.get("stderr")),
            plus_minus(m.get("floor")),
            escape("; ".join(filter(None, (m.get("remark") or _meaning(m["name"]), m.get("note"))))),
        )
        for m in evaluation["metrics"]
    ]
    note = (
        "± is one standard error. The floor is real data against other real data: what a perfect sampler would score."
    )
    table = _table(rows, ("metric", "value", "floor", ""), (1, 2))
    copies = next((m["note"] for m in evaluation["metrics"] if m["name"] == "memorised" and m.get("note")), "")
    warning = f"<p><b>{escape(copies)}.</b></p>\n" if copies else ""
    return f"<h2>Measured</h2>\n{warning}{table}\n<p class=soft>{note}</p>"


def _frontier(home: Path) -> str:
    """Quality against cost, where it was swept."""
    if not ((home / "frontier.json").exists() and (home / "frontier.png").exists()):
        return ""
    try:
        content = json.loads((home / "frontier.json").read_text())
        rows = _qualities(content)
    except (ValueError, KeyError, TypeError):  # a damaged file must not cost the report
        return ""
    heads = ("--quality", "setting", "evaluations", escape(str(content["distance"])), "seconds per 1000")
    table = _table(rows, heads, (2, 3, 4))
    caption = "Distance to the training data against cost; the front of all settings in grey."
    return (
        f"<h2>Quality against speed</h2>\n{_image((home / 'frontier.png').read_bytes(), caption, 'frontier')}\n{table}"
    )


def _qualities(content: Mapping) -> list[tuple[str, ...]]:
    return [
        (
            f"<b>{escape(name)}</b>",
            _dialled(p),
            str(p["evaluations"]),
            plus_minus(p["distance"], p["stderr"]),
            f"{p['seconds']:.3g}",
        )
        for name, p in content["presets"].items()
    ]


def _dialled(p: Mapping) -> str:
    dials = ", ".join(f"{k} {v:g}" for k, v in p["dials"].items() if k == "steps" or v)
    return escape(dials + (", plan" if p["plan"] else ""))


def _training(log: Sequence[Mapping]) -> str:
    fig = figures.curves(log)
    if fig is None:
        return ""
    skipped = log[-1].get("skipped", 0)
    warnings = [(line["step"], w) for line in log for w in line.get("warnings", ())]
    note = "Faint: every logged value; solid: a running mean."
    if skipped:
        note += f" {skipped} steps were skipped because a loss or gradient was not finite."
    parts = ["<h2>Training</h2>", _image(figures.png(fig), note, "loss and gradient norm")]
    if (fig := figures.game_curves(log)) is not None:
        logged = {key.rpartition("/")[2] for line in log for key in line.get("log", ())}
        words = "; ".join(f"{name}: {text}" for name, text in SIGNALS.items() if name in logged)
        parts.append(_image(figures.png(fig), f"{words[0].upper()}{words[1:]}.", "signals of the training"))
    if warnings:
        parts.append(_table([(f"step {step:,}", escape(text)) for step, text in warnings], ("warnings", "")))
    return "\n".join(parts)


def _data(data: Mapping) -> str:
    if not data:
        return ""
    classes = [str(c) for c in data.get("classes") or []]
    shown = f"{len(classes)}: {', '.join(classes[:20])}{' ...' if len(classes) > 20 else ''}" if classes else "none"
    mean, std, principal_std = (data.get(key, 0.0) for key in ("mean", "std", "principal_std"))
    units = f"mean {mean:.4g}, std {std:.4g}, largest principal std {principal_std:.4g}"
    rows = [
        ("source", escape(f"{data.get('name')}, split “{data.get('split')}”")),
        ("examples", f"{data.get('count', 0):,} of shape {tuple(data.get('data_shape', data.get('shape', ())))}"),
        ("classes", escape(shown)),
        ("in model units", units),
        ("sha256", f"<code>{escape(str(data.get('fingerprint', '')))}</code>"),
        *(("note", escape(note)) for note in data.get("notes", ())),
    ]
    return "<h2>Data</h2>\n" + _table(rows)


def _use(home: Path, about: Mapping, log: Sequence[Mapping], words: Words) -> str:
    data, where = about.get("data", {}), shlex.quote(home.as_posix())
    kind = data.get("kind", "vector")
    of_bytes = kind == "image" and not data.get("transform", {}).get("mean")
    longer = max(2, math.ceil(2 * (log[-1].get("seconds", 0.0) if log else 0.0) / 60))
    counts = data.get("counts") or [1] * len(data.get("classes") or ())
    seen = [c for c, k in zip(data.get("classes") or (), counts, strict=True) if k]
    label = f" --class {shlex.quote(seen[-1])}" if seen else ""
    axes = {"image": "n, c, h, w", "signal": "n, c, l", "volume": "n, c, d, h, w"}.get(kind, "n, d")
    units = f"({axes}) in [0, 1]" if of_bytes else f"({axes}), original units"
    small = "samples.csv" if kind == "vector" else "samples.png"
    large = "samples.zip" if of_bytes and data.get("data_shape", data["shape"])[0] in (1, 3) else "samples.npz"
    coder = ", coder=coder" if "latent" in data and "path" not in data["latent"] else ""  # from Python
    flags, keywords, sde = words.flags, words.keywords, words.equation
    shell = f"""\
# sample: a few to look at, many to use
diffflow sample {where} -n 100{flags}{label} --out {small}
diffflow sample {where} -n 5000 --out {large}

# measure against data that training has not seen; cite
diffflow evaluate {where}
diffflow cite {where}

# train on from the newest checkpoint, until {longer} minutes in all
diffflow train --out {where} --resume auto --minutes {longer}"""
    python = f"""\
import diffflow as df

run = df.load({home.as_posix()!r}{coder})
x = run.sample(100{keywords}).last   # {units}{sde}"""
    origin = ""
    if about.get("command"):
        program, *args = about["command"]
        program = "diffflow" if program.endswith("__main__.py") else Path(program).name
        origin = f"<p class=soft>This run was made by</p>\n{_pre(shlex.join([program, *args]))}"
    return f"<h2>Use it</h2>\n{_pre(shell)}\n{_pre(python)}\n{origin}"


def _fine_print(about: Mapping, config: str, evaluation: Mapping) -> str:
    facts = {k: v for k, v in about.items() if isinstance(v, str) and k != "command"}
    rows = [(escape(k), f"<code>{escape(v)}</code>") for k, v in facts.items()]
    folded = {"config.yaml": config}
    if evaluation.get("card"):
        folded["protocol of the measurements"] = json.dumps(evaluation["card"], indent=2)
    details = [f"<details><summary>{name}</summary>{_pre(text)}</details>" for name, text in folded.items()]
    return f"<h2>Versions and configuration</h2>\n{_table(rows)}\n" + "\n".join(details)
