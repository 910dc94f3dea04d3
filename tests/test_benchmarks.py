"""The table of all models: a cell is done when it was done with the settings of now, and what it took is counted."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import math
import multiprocessing
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

sys.path.extend(sorted({str(script.parent) for script in (Path(__file__).parents[1] / "benchmarks").rglob("*.py")}))
import bits
import blind
import cifar
import distill
import fidelity
import guidance
import keep
import model_table
import pictures
import pictures_peers
import players
import tables
from mnist import asked as asked_of_run
from PIL import Image
from torch import nn

import diffflow as df
import models as bench
import training
from diffflow.cli import main
from diffflow.metrics import Classifier
from diffflow.models.catalogue import MODELS
from diffflow.models.settings import aliases
from diffflow.models.settings.common import Dials
from diffflow.models.settings.serialise import replace as settings
from diffflow.training.run_folder import Folder

HOME = Path(__file__).parents[1]
SCRIPTS = sorted((HOME / "benchmarks").rglob("*.py"))
PEERS = ("azula", "playwright")  # packages that a script imports at its top and that the tests do without
SMALL = (
    "--model.net.widths 8 --model.net.head 8 --model.net.layers 1 --model.net.groups 4 --sampling.steps 2 "
    "--fit.no-tensorboard"
)
BUDGET = bench.Budget(0.005, 200, 30, "cpu", True)


def lacking(script: Path) -> list[str]:
    """What a script takes from diffflow that is not there, or only under an old name: imports and dotted names."""
    tree, known, missing = ast.parse(script.read_text()), dict[str, ModuleType](), []

    def take(owner: ModuleType, name: str, label: str) -> Any:
        """An attribute or a submodule; None, and an entry in `missing`, where it is neither."""
        if not (owner is df and name in aliases.PUBLIC):
            if hasattr(owner, name):
                return getattr(owner, name)
            if importlib.util.find_spec(f"{owner.__name__}.{name}"):
                return importlib.import_module(f"{owner.__name__}.{name}")
        missing.append(label)
        return None

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {a.asname: df for a in node.names if a.name == "diffflow" and a.asname}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "diffflow":
            try:
                owner = importlib.import_module(str(node.module))
            except ModuleNotFoundError:
                missing.append(str(node.module))
                continue
            for a in node.names:
                found = take(owner, a.name, f"{node.module}.{a.name}")
                if isinstance(found, ModuleType):
                    known[a.asname or a.name] = found
    for node in ast.walk(tree):
        dotted = ast.unparse(node).split(".") if isinstance(node, ast.Attribute) else []
        owner = known.get(dotted[0]) if dotted and all(part.isidentifier() for part in dotted) else None
        for part in dotted[1:]:
            if not isinstance(owner, ModuleType):
                break
            owner = take(owner, part, ".".join(dotted))
    return missing


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_uses_names_that_exist_and_answers_help(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lacking(script) == []
    try:
        module = importlib.import_module(script.stem)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in PEERS:
            raise
        pytest.skip(f"{error.name} is not installed")
    assert Path(str(module.__file__)) == script
    if not hasattr(module, "main"):  # a part of its neighbours
        return
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    path = script.relative_to(HOME).as_posix()
    assert f"python {path}" in capsys.readouterr().out


def test_a_name_that_diffflow_lacks_is_found(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import diffflow as df\nfrom diffflow import figures, metrics as m\nfrom diffflow.nowhere import x\n"
        "from diffflow.models.presets import preset, recipe\n"
        "df.EDM(), df.data.load, df.gone, df.jump, m.frechet, m.absent(1).value, figures.png, df.metrics.lost\n"
    )
    imports, dotted = ["diffflow.nowhere", "diffflow.models.presets.recipe"], ["df.gone", "df.jump", "df.metrics.lost"]
    assert sorted(lacking(script)) == sorted([*imports, *dotted, "m.absent"])


def test_paths_of_benchmarks_are_written_as_they_are() -> None:
    pages = [HOME / "README.md", HOME / "pyproject.toml", HOME / "results" / "README.md"]
    for folder, kind in (("docs", "md"), ("src", "py"), ("benchmarks", "md"), ("benchmarks", "py")):
        pages += (HOME / folder).rglob(f"*.{kind}")
    for page in pages:
        for path in re.findall(r"benchmarks/[a-z_/]+\.(?:py|yaml)", page.read_text()):
            assert (HOME / path).exists(), f"{page.relative_to(HOME)} names {path}"
    for script in SCRIPTS:
        assert f"`{script.name}`" in (script.parent / "README.md").read_text(), script.name


@pytest.mark.parametrize("dataset", bench.DATASETS)
def test_every_cell_knows_what_decides_it(dataset: str) -> None:
    for model in MODELS:
        cell = bench.Cell(model, dataset, 0)
        now = bench.asked(cell, BUDGET)
        assert now != bench.asked(cell, replace(BUDGET, toy_samples=201, digits_samples=31))
        trained = "config" in now or "denoiser" in now
        assert trained == (now != bench.asked(cell, replace(BUDGET, override=1.0)))
        assert trained == (now != bench.asked(replace(cell, seed=1), BUDGET))
        assert ("denoiser" in now) == bench.needs_denoiser(cell)


def test_every_dataset_has_minutes_of_its_own_unless_they_are_given() -> None:
    own, given = replace(BUDGET, override=None), replace(BUDGET, override=7.0)
    assert {d: own.minutes(d) for d in bench.DATASETS} == bench.MINUTES
    assert {given.minutes(d) for d in bench.DATASETS} == {7.0}


def test_a_cell_is_done_again_when_its_settings_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_judge: Classifier
) -> None:
    monkeypatch.setattr(bench.metrics, "fit_classifier", lambda *_: digits_judge)
    cell = bench.Cell("score-gan", "digits", 0)
    assert not bench.current(cell, BUDGET, tmp_path)
    assert bench.work(cell, BUDGET, tmp_path / "runs", tmp_path) is None
    assert bench.current(cell, BUDGET, tmp_path)
    assert (tmp_path / f"{cell.name}.png").read_bytes()[:4] == b"\x89PNG"
    record = json.loads((tmp_path / f"{cell.name}.json").read_text())
    took = record["trained"]
    # the generator's own training and that of the denoiser it starts from, each of the budget's minutes
    assert took["denoiser_minutes"] >= BUDGET.minutes("digits")
    assert took["minutes"] - took["denoiser_minutes"] >= BUDGET.minutes("digits") - 1e-3
    shown = "\n".join(model_table.claim([record]))
    assert f"| {took['minutes']:.1f}" in shown
    assert "| 1 |" in shown

    run = bench.df.load(tmp_path / "runs" / took["run"])
    for other in ((run, 10, 1), (run, 11, 0), (replace(run, step=run.step + 1), 10, 0)):
        assert asked_of_run(run, 10, 0) != asked_of_run(*other)

    made = bench.preset
    monkeypatch.setattr(
        bench,
        "preset",
        lambda *a: replace(r := made(*a), config=settings(r.config, {"fit.batch": 7})) if a[0] == "demo" else made(*a),
    )
    assert not bench.current(cell, BUDGET, tmp_path)  # its start is another


def test_the_aim_is_judged_by_quality_evaluations_and_all_minutes() -> None:
    metrics = [{"name": name, "value": 0.61, "floor": None} for name in ("precision", "coverage")]
    good = {"model": "gan", "dataset": "digits", "evaluations": 1, "trained": {"minutes": 10.05}, "metrics": metrics}
    poor = [metrics[0], metrics[1] | {"value": 0.49}]
    for change, word in (
        ({}, "yes"),
        ({"trained": {"minutes": 12.0, "denoiser_minutes": 6.0}}, "no"),
        ({"evaluations": 3}, "no"),
        ({"metrics": poor}, "no"),
    ):
        (line,) = [x for x in model_table.claim([good | change]) if x.startswith("| [GAN, non")]
        assert line.endswith(f"| {word} |")


def test_the_aim_on_the_toy_wants_every_mode_at_every_seed() -> None:
    def cell(modes: float, within: float) -> dict:
        metrics = [{"name": k, "value": v, "floor": None} for k, v in (("modes", modes), ("within", within))]
        of = {"model": "ipm", "dataset": "25gaussians", "evaluations": 1}
        return of | {"trained": {"minutes": 3.0}, "metrics": metrics}

    for cells, word in (
        ([], "–"),
        ([cell(25, 0.92), cell(25, 0.92), cell(25, 0.89)], "yes"),
        ([cell(25, 0.99), cell(25, 0.99)], "–"),  # a seed is missing
        ([cell(25, 0.99), cell(24, 0.99), cell(25, 0.99)], "no"),
        ([cell(25, 0.89), cell(25, 0.90), cell(25, 0.90)], "no"),
        ([cell(25, 0.99), cell(25, 0.99), cell(25, 0.99) | {"trained": {"minutes": 7.0}}], "no"),
    ):
        (line,) = [x for x in model_table.claim(cells) if x.startswith("| [IPM")]
        assert line.endswith(f"| {word} |")


def test_a_table_is_the_same_for_every_model_and_in_units_of_its_training_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, mask = rng.normal(5, 3, (300, 4)), np.zeros((300, 2))
    mask[::10, 0] = mask[5::10, 1] = 1
    for kind, values in {"data": x, "test_mask": mask}.items():
        np.savetxt(tmp_path / f"t.{kind}.csv.gz", values, delimiter=",")
    train, aside, test = tables.rows(tmp_path, "t", 0)
    again = tables.rows(tmp_path, "t", 0)
    assert all(torch.equal(a, b) for a, b in zip((train, aside, test), again, strict=True))
    assert (len(train), len(aside), len(test)) == (243, 27, 30)
    both = torch.cat([train, aside])
    assert both.mean(0).abs().max() < 0.02  # the noise moves means by .05/sqrt(270)
    assert (both.std(0) - 1).abs().max() < 0.02
    clean = (x[mask[:, 0] == 1] - x[mask[:, 0] == 0].mean(0)) / x[mask[:, 0] == 0].std(0)
    assert 0.04 < (test.numpy() - clean).std() < 0.06


def test_a_model_is_level_with_the_best_within_its_standard_error() -> None:
    cells = [
        {"table": "wine", "model": m, "split": s, "nats": v + s, "stderr": 0.3, "samples": {}}
        for m, v in {"gmm": -9.0, "nsf": -8.0, "diffusion": -8.2}.items()
        for s in (0, 1, 2)
    ]
    found = tables.summary(cells)["wine"]
    assert found["best"] == "nsf"
    assert found["models"]["nsf"]["stderr"] == pytest.approx(0.3 / 3**0.5)
    # .2 nats below the best is more than its .17; .1 is not
    assert [found["models"][m]["level"] for m in ("gmm", "nsf", "diffusion")] == [False, True, False]
    closer = tables.summary([{**c, "nats": c["nats"] + 0.1} if c["model"] == "diffusion" else c for c in cells])
    assert closer["wine"]["models"]["diffusion"]["level"]


def test_where_rows_were_kept_differences_of_rows_decide_who_is_level() -> None:
    easy = torch.randn(400, generator=torch.Generator().manual_seed(0)).mul(5).tolist()  # some rows are likelier to all

    def cell(model: str, split: int, shift: float, spread: float) -> dict[str, Any]:
        values = [v + shift + spread * (-1) ** i for i, v in enumerate(easy)]
        nats, error = float(np.mean(values)), float(np.std(values) / 20)
        return {"table": "wine", "model": model, "split": split, "nats": nats, "stderr": error, "samples": {}} | {
            "values": values
        }

    cells = [cell(m, s, *v) for m, v in {"gmm": (0, 0), "nsf": (-0.1, 0.1), "maf": (-0.1, 3)}.items() for s in (0, 1)]
    rows = tables.summary(cells)["wine"]["models"]
    assert rows["nsf"]["behind"] == pytest.approx(0.1)
    assert rows["nsf"]["paired"] == pytest.approx(0.1 / math.sqrt(2 * 399))
    # the error of a mean of such rows is .18 nats, and says nothing: .1 is sure where all rows say so
    assert [rows[m]["level"] for m in ("gmm", "nsf", "maf")] == [True, False, True]


def test_scikit_learns_tables_have_splits_of_their_own() -> None:
    (x, first), (same, second) = (tables.read(Path("nowhere"), "cancer", split) for split in (0, 1))
    assert x.shape == (569, 30)
    assert np.array_equal(x, same)
    assert first.sum() == second.sum() == 56
    assert (first & second).sum() < 20
    assert tables.read(Path("nowhere"), "diabetes", 0)[0].shape == (442, 11)


def test_plain_pictures_pack_small() -> None:
    plain = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    busy = torch.randint(0, 256, (1, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    small, large = bits.packed(torch.cat([plain, busy]))
    assert small < 1 < 8 < large < 9


def test_the_cifar_recipe_runs_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("images.npz", x=rng.integers(0, 256, (60, 3, 16, 16), np.uint8), y=np.arange(60) % 3)
    # a judge of a few pixels: the real one has 64 features and a training of its own
    monkeypatch.setattr(cifar, "extractor", lambda *_: None)
    monkeypatch.setattr(cifar, "embedding", lambda _: lambda x: x.float().flatten(1)[:, :8])
    ask = "images.npz --small --device cpu --minutes 0.02 -n 24 --steps 2 --work run --out out"
    record = cifar.main(ask.split())
    assert record["data"]["n"] == 54  # the others are held out
    assert record["images_per_second"] > 0
    assert record["tflops"] > 0
    assert {(p["evaluations"], p["dials"]["churn"]) for p in record["points"]} == {(2, 0.0), (2, 1.0)}
    assert json.loads(Path("out.json").read_text())["floor"] == record["floor"]
    for name in ("out-frontier.png", "out-samples.png"):
        assert Path(name).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("k", [4, 40])
def test_a_frechet_distance_of_resampled_rows_is_that_of_the_rows_themselves(k: int) -> None:
    """With fewer features than points, and with more."""
    g = torch.Generator().manual_seed(k)
    x, y = torch.randn(20, k, generator=g), 1.3 * torch.randn(30, k, generator=g) + 0.2
    a, b = pictures.times_drawn(20, g), pictures.times_drawn(30, g)
    assert (a.sum(), b.sum()) == (20, 30)
    rows = x.repeat_interleave(a.long(), 0), y.repeat_interleave(b.long(), 0)
    # with singular covariances the reference takes roots of rounding errors, 1e-8 of the features' squares
    assert pictures.frechet(x, y, a, b) == pytest.approx(df.metrics.frechet(*rows).value, rel=1e-6)


def test_a_picture_with_transparency_is_laid_on_white_and_then_made_small(tmp_path: Path) -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)  # transparent black
    rgba[:32] = (200, 100, 0, 255)
    rgba[32, :, 3] = 51  # a fifth of black, next to a row of none
    Image.fromarray(rgba).save(tmp_path / "a.png")
    (x,) = pictures.emoji(tmp_path)
    assert x.shape == (3, 32, 32)
    assert x[:, 0, 0].tolist() == [200, 100, 0]
    assert abs(int(x[0, 16, 5]) - (0.8 * 255 + 255) / 2) <= 1
    assert x[:, -1, -1].tolist() == [255, 255, 255]


class OneColour(nn.Module):
    """A peer's network: it learns the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3, 1, 1))


def tiny(size: int, lr: float, width: int) -> pictures_peers.Peer:
    net, average = OneColour(), OneColour()
    return pictures_peers.Peer(
        net,
        lambda x: (x - net.mean).square().mean(),
        torch.optim.SGD(net.parameters(), lr=lr),
        lambda spent, step: 1 - spent,
        average,
        lambda: average.mean.data.lerp_(net.mean.data, 0.1),
        lambda: net.load_state_dict(average.state_dict()),
        lambda n, steps: (net.mean / 2 + 0.5).expand(n, 3, size, size) + 0.1 * torch.rand(n, 3, size, size),
    )


def test_pictures_per_minute_from_folder_to_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(command: list[str], **_: object) -> None:
        monkeypatch.setattr(sys, "argv", command[1:])
        pictures_peers.main()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(pictures_peers.PEERS, "ddpm", tiny)
    monkeypatch.setattr(pictures.subprocess, "run", call)
    monkeypatch.setattr(pictures_peers.torch, "set_num_threads", lambda _: None)
    # judges of a few pixels: the real ones want weights
    monkeypatch.setattr(
        pictures, "eyes", lambda _: {j: lambda x: x.flatten(1)[:, :3].float() for j in pictures.JUDGES[:2]}
    )
    Path("folder").mkdir()
    for k, x in enumerate(np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), np.uint8)):
        Image.fromarray(x).save(f"folder/{k}.png")
    flags = "ddpm --source folder --quick --cells cells --out out.json".split()
    with pytest.raises(SystemExit, match="was not screened"):
        pictures.main(["train", *flags])
    for what in ("screen", "train"):
        pictures.main([what, *flags, "--at-most", "0.0025"])
    (home,) = Path("cells/quick").glob("emoji-ddpm-*-0.004min-*/")
    trained = json.loads((home / "trained.json").read_text())
    assert trained["finished"]
    assert trained["seconds"] >= 0.24
    pictures.main(["judge", *flags])
    (record,) = (json.loads(p.read_text()) for p in Path("cells/quick").glob("emoji-ddpm-*-0.004min-*.json"))
    assert record["trained"] == trained  # not trained again
    found = record["judged"][record["best"]]
    ours = {"cell": record["cell"] | {"method": "ours"}, "judged": {"own": found}, "best": "own", "trained": trained}
    pictures.files.write_json(Path("cells/quick/emoji-ours-n.json"), ours)
    pictures.main(["table", *flags])
    table = json.loads(Path("out.json").read_text())
    assert len(table["cells"]) == 3
    (line,) = table["ratios"]
    assert list(line["ratios"]) == [*pictures.JUDGES, "geometric_mean"]
    assert all(v == {"ratio": 1, "stderr": 0} for v in line["ratios"].values())


def test_the_judges_of_pictures_find_no_excess_in_real_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    features = {j: lambda x: x.flatten(1)[:, :3].float() for j in pictures.JUDGES[:2]}
    monkeypatch.setattr(pictures, "eyes", lambda _: features)
    x = torch.randint(0, 256, (80, 3, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    real, other = x[:40], x[40:60]
    good, poor = (pictures.judge(v, real, other, resamples=8) for v in (x[60:], x[60:] // 4))
    same = pictures.judge(other, real, other, resamples=8)
    assert all(v["excess"] == 0 for v in same["judges"].values())
    for name, v in good["judges"].items():
        assert abs(v["excess"]) < 5 * v["stderr"]
        assert poor["judges"][name]["excess"] > 5 * poor["judges"][name]["stderr"]
    found = pictures.ratio(poor, good)
    product = math.prod(found[j]["ratio"] for j in pictures.JUDGES)
    assert found["geometric_mean"]["ratio"] == pytest.approx(product ** (1 / 3))


@pytest.mark.parametrize("player", players.EVALUATIONS)
def test_players_share_one_total_time_and_go_on_where_they_were(player: str, tmp_path: Path) -> None:
    o = argparse.Namespace(cells=tmp_path, data="emoji", source=None, quick=False)
    stages = players.stages(players.Cell("emoji", player, 30.0, 2, 10), o)
    assert sum(minutes for minutes, _ in stages.values()) == pytest.approx(30)
    assert list(stages)[-1] == "run"
    for _, words in stages.values():
        assert "--resume auto" in " ".join(words(True))
        assert "--seed 2" in " ".join(words(False))
    assert ("relativistic" in stages["run"][1](False)) == (player == "gan")


def test_players_from_cells_to_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings and samples stand in: of a GAN that copies, a distilled one of grey, and a denoiser between the two."""
    x = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), np.uint8)
    (tmp_path / "folder").mkdir()
    for k, picture in enumerate(x):
        Image.fromarray(picture).save(tmp_path / f"folder/{k}.png")
    monkeypatch.setattr(
        pictures, "eyes", lambda _: {j: lambda x: x.flatten(1)[:, :3].float() for j in pictures.JUDGES[:2]}
    )

    def samples(cell: players.Cell, evaluations: int, o: argparse.Namespace) -> torch.Tensor:
        real = pictures.pick(pictures.prepare(o), cell.n, 3).float()
        share = {"gan": 1.0, "denoiser": 0.5, "distilled": 0.1}[cell.player]
        return (128 + share * (real - 128)).round().byte()

    monkeypatch.setattr(players, "trained", lambda cell, o: {"run": {"steps": 3}})
    monkeypatch.setattr(players, "sampled", samples)
    flags = ["--source", str(tmp_path / "folder"), "--cells", str(tmp_path / "c"), "--out", str(tmp_path / "o.json")]
    players.main(["run", *flags, "--quick"])
    monkeypatch.setattr(players, "sampled", None)  # what is there is not done again
    players.main(["run", *flags, "--quick"])
    players.main(["table", *flags, "--quick"])
    found = json.loads((tmp_path / "o.json").read_text())
    assert [len(c["judged"]) for c in found["cells"]] == [2, 1, 1]
    ratios = {tuple(line["sides"]): line["ratios"]["sliced_w2"]["ratio"] for line in found["ratios"]}
    assert ratios["gan at 1", "distilled at 1"] < ratios["gan at 1", "denoiser at 18"] < 1
    assert ratios["denoiser at 1", "denoiser at 18"] == pytest.approx(1, abs=0.2)


def test_a_peer_s_passes_hold_every_picture_once() -> None:
    x = torch.arange(48).byte()[:, None]
    shown = [torch.cat([pictures_peers.batch(x, 3 * k + i, 0) for i in range(3)]).flatten() for k in (0, 1)]
    assert not torch.equal(*shown)
    for each in shown:
        torch.testing.assert_close(each.sort().values, torch.arange(48) / 127.5 - 1)


def test_a_distilled_sampler_is_set_beside_the_best_pure_one_of_no_more_evaluations() -> None:
    def rows(how: str, steps: int, values: list[float], recall: float = 0.9) -> list[dict]:
        same = {"stderr": 0.1, "precision": 0.8, "recall": recall, "nearest_ratio": 1.0, "updates": 9}
        return [{"how": how, "steps": steps, "seed": k, "frechet": v} | same for k, v in enumerate(values)]

    pure = rows("solver", 1, [10.0, 12.0]) + rows("solver", 2, [5.0, 5.0], 0.7) + rows("plan", 2, [2.0, 2.0], 0.8)
    found = {
        (line["how"], line["steps"]): line
        for line in distill.summary(
            pure + rows("endpoints", 2, [1.0, 1.2]) + rows("ratio", 2, [0.5, 0.7]), {"plan 2": 4.0, "ratio 2": 5.0}
        )
    }
    ours = found["ratio", 2]
    assert ours["frechet"] == pytest.approx(0.6)
    assert ours["stderr"] == pytest.approx(0.1)
    assert ours["over_pure"] == pytest.approx(0.3)
    assert ours["recall_gain"] == pytest.approx(0.1)
    assert ours["better_than_control"] == pytest.approx(0.5 / 0.02**0.5)
    assert ours["seconds_over_pure"] == 1.25
    assert "seconds_over_pure" not in found["endpoints", 2]
    assert "over_pure" not in found["plan", 2]


def test_the_distillation_benchmark_runs_small_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", "--steps", "2", "--fit.batch", "8", *SMALL.split(), "--out", "run"]) == 0
    Folder(Path("run")).keep_plan(df.load("run").weights, Dials(2), df.Plan.multistep([80.0, 1.0]))
    # a judge of a few pixels, and no processes of their own: both take long, and neither is what is tested
    monkeypatch.setattr(distill, "extractor", lambda *_: None)
    monkeypatch.setattr(distill, "embedding", lambda _: lambda x: x.float().flatten(1)[:, 20:24])
    context = argparse.Namespace(Pool=lambda n, maxtasksperchild: ThreadPool(n))
    monkeypatch.setattr(distill.multiprocessing, "get_context", lambda _: context)
    monkeypatch.setattr(distill, "TIMED", 8)
    monkeypatch.setattr(distill, "clocked", partial(distill.clocked, rounds=2))
    threads = torch.get_num_threads()

    def measured(*more: str) -> dict:
        ask = "distill.py run --updates 1 --steps 2 --pure 2 -n 40 --device cpu --work work --out out --by endpoints"
        monkeypatch.setattr(sys, "argv", [*ask.split(), *more])
        try:
            distill.main()
        finally:
            torch.set_num_threads(threads)
        return json.loads(Path("out.json").read_text())

    first = measured("--seeds", "0")
    settings = {"solver 2", "noisy 2", "plan 2", "endpoints 2"}
    assert {f"{c['how']} {c['steps']}" for c in first["cells"]} == set(first["seconds"]) == settings
    assert min(first["seconds"].values()) > 0
    shutil.rmtree("work")  # a generator that is gone keeps its time; what is known is not made again
    again = measured("--seeds", "0", "--longer", "out.json")
    assert again["cells"] == first["cells"]
    assert again["seconds"].keys() == settings
    assert again["seconds"]["endpoints 2"] == first["seconds"]["endpoints 2"]
    assert Path("out.png").read_bytes()[:4] == b"\x89PNG"


def test_guidance_compares_within_classes() -> None:
    have = torch.tensor([2, 0, 1, 1, 2, 0])
    wanted = torch.tensor([0, 1, 2, 2, 0])
    assert torch.equal(have[guidance.matching(wanted, have)], wanted)


@pytest.mark.parametrize("side", training.SIDES)
def test_both_training_loops_run(side: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), np.uint8))
    o = argparse.Namespace(device="cpu", widths=[32, 32], layers=1, batch=4, compile=False)
    o.threads = torch.get_num_threads()
    line, other = multiprocessing.Pipe()
    for more in (True, True, False):
        line.send(more)
    training.work(side, o, "fp32", str(tmp_path / "x.npy"), other)
    first, second, memory = (line.recv() for _ in range(3))
    assert min(first, second, memory) > 0


def test_torch_fidelity_s_estimators_are_ours_by_hand() -> None:
    """Precision and recall as torch-fidelity defines them, counted point by point."""
    x, y = fidelity.features(40, 3, 0.5, 1), fidelity.features(40, 3, 0.0, 2)
    found = fidelity.ours(x, y)

    def inside(a: torch.Tensor, b: torch.Tensor) -> float:
        """Share of a in a ball of b that reaches its fifth neighbour."""
        reach = torch.cdist(b, b).sort(1).values[:, fidelity.NEIGHBOURS]
        return (torch.cdist(a, b) <= reach).any(1).double().mean().item()

    x, y = x.double(), y.double()
    assert found["precision"] == pytest.approx(inside(x, y))
    assert found["recall"] == pytest.approx(inside(y, x))


def test_a_run_that_is_kept_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert main(["train", "digits", "--steps", "4", "--fit.batch", "8", *SMALL.split(), "--out", str(run)]) == 0
    plan = df.Plan.multistep([80.0, 1.0])
    Folder(run).keep_plan(df.load(run).weights, Dials(2), plan)
    for source, target in (("run", "kept"), ("kept", "back")):
        monkeypatch.setattr(sys, "argv", ["keep.py", str(tmp_path / source), str(tmp_path / target)])
        keep.main()
    old, new = df.load(run), df.load(tmp_path / "back")
    assert old.plan(Dials(2)) == new.plan(Dials(2)) == plan
    for a, b in zip(old.denoiser.parameters(), new.denoiser.parameters(), strict=True):
        # half precision has 11 bits, and 24 below its smallest normal number
        assert ((a - b).abs() <= 2**-11 * a.abs() + 2**-25).all()
    assert "command" not in json.loads((tmp_path / "kept" / "run.json").read_text())


def test_a_blind_test_keeps_its_key_and_counts_what_was_recognised(tmp_path, monkeypatch):
    """Sheets of 25, a key of as many samples as real pictures; shares as the answers say; other words are refused."""
    run = df.train("digits", tmp_path / "run", steps=1, settings={"fit.tensorboard": False})
    blind.make(run, df.data.load("digits", "test"), "cifar10", tmp_path / "blind", 3)
    assert len(list((tmp_path / "blind").glob("sheet-*.png"))) == 4
    key = json.loads((tmp_path / "blind" / "key.json").read_text())["key"]
    assert [entry["sample"] for entry in key].count(True) == len(key) / 2 == blind.EACH
    places = [k + 1 for k, entry in enumerate(key) if entry["sample"]]
    named = set(range(1, 101)) - set(places[10:])
    answers = [f"{k} {'dog' if k in named else 'none'}" for k in range(1, 101)]
    (tmp_path / "blind" / "answers.txt").write_text("\n".join(answers))
    result = blind.score(tmp_path / "blind")
    assert (result["samples_recognised"], result["real_recognised"], result["ratio"]) == (0.2, 1.0, 0.2)
    (tmp_path / "blind" / "answers.txt").write_text("1 unicorn")
    with pytest.raises(SystemExit, match="unicorn"):
        blind.score(tmp_path / "blind")
