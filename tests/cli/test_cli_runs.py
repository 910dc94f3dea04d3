"""`diffflow runs`: what is in a folder of runs, read from files alone, whatever state they are in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffflow.cli import main
from diffflow.cli.runs import kind
from diffflow.models.presets import BY_MODEL


@pytest.fixture
def listed(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, dict[str, Any]]]:
    """The runs of a folder by their names, as `--json` gives them."""

    def run(folder: str = "runs") -> dict[str, dict[str, Any]]:
        assert main(["runs", folder, "--json"]) == 0
        return {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}

    return run


def test_runs_are_listed_with_their_state(
    runs: Path, here: Path, listed: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("toy-2", "toy-10", "digits"):
        shutil.copytree(runs / name.partition("-")[0], here / "runs" / name)
    about = json.loads((here / "runs" / "toy-2" / "run.json").read_text())
    (here / "runs" / "toy-2" / "run.json").write_text(json.dumps(about | {"finished": False}))
    with open(here / "runs" / "toy-2" / "metrics.jsonl", "a") as log:
        log.write('{"step": 31, "sec')  # a line that a crash cut short
    (here / "runs" / "notes").mkdir()
    metrics = [{"name": name, "value": value, "stderr": 0.1} for name, value in (("w2", 3.0), ("frechet", 2.5))]
    (here / "runs" / "digits" / "evaluation.json").write_text(json.dumps({"metrics": metrics}))
    points = [{"distance": d, "stderr": 0.2} for d in (0.9, 0.4, 0.7)]
    (here / "runs" / "toy-10" / "frontier.json").write_text(json.dumps({"distance": "sliced W2", "points": points}))
    found = listed()
    assert list(found) == ["digits", "toy-2", "toy-10"]
    assert [r["state"] for r in found.values()] == ["finished", "interrupted", "finished"]
    assert [r["steps"] for r in found.values()] == [4, 30, 30]
    assert [(r["data"], r["model"]) for r in found.values()] == [("digits", "score"), *[("moons", "score")] * 2]
    assert all(r["minutes"] >= 0 for r in found.values())
    assert found["digits"]["metric"] == metrics[1]
    assert found["toy-2"]["metric"] is None
    assert found["toy-10"]["metric"] == {"name": "sliced W2", "value": 0.4, "stderr": 0.2}  # the best that was swept
    assert listed("runs/toy-2") == {"toy-2": found["toy-2"]}  # a run itself
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "frechet" in lines[1]
    assert "interrupted" in lines[2]


def test_damaged_runs_are_listed_with_the_reason(
    runs: Path, here: Path, listed: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def damage(name: str, file: str, content: str | bytes | None) -> None:
        shutil.copytree(runs / "toy", here / "runs" / name)
        (path,) = (here / "runs" / name).glob(file)
        path.unlink()
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    harm = "!!python/object/apply:os.system ['touch harmed']"
    damage("no-about", "run.json", None)
    damage("cut-about", "run.json", '{"data": {"na')
    damage("list-about", "run.json", "[1]")
    damage("odd-about", "run.json", '{"data": 3}')
    damage("binary-config", "config.yaml", b"\xff\xfe\x00")
    damage("hostile-config", "config.yaml", f"type: ScoreConfig\nfit: {harm}\n")
    damage("deep-config", "config.yaml", "[" * 1500)
    damage("cut-weights", "checkpoints/*/ema.safetensors", b"short")
    damage("no-weights", "checkpoints/*/players.safetensors", None)
    damage("no-manifest", "checkpoints/*/manifest.json", None)
    found = listed()
    assert len(found) == 10
    for name, run in found.items():
        assert run["state"] == "damaged"
        word = {"about": "run.json", "config": "config.yaml", "weights": "safetensors", "manifest": "manifest"}
        assert word[name.partition("-")[2]] in run["reason"]
    assert not (here / "harmed").exists()
    assert main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert "no-about: there is no run.json" in shown
    assert shown.count("damaged") == 10


def test_names_of_classes_are_words_here(runs: Path, here: Path) -> None:
    """A config may name any class: nothing is imported, neither what it names nor torch."""
    shutil.copytree(runs / "toy", here / "runs" / "foreign")
    (here / "evil.py").write_text("open('harmed', 'w')\nclass Config: pass\n")
    config = here / "runs" / "foreign" / "config.yaml"
    config.write_text(config.read_text().replace("type: ScoreConfig", "type: evil:MyOwnConfig"))
    code = "import sys\nfrom diffflow.cli import main\nassert main(['runs']) == 0\n"
    code += "assert not {'torch', 'evil'} & set(sys.modules)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([".", *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "my own" in done.stdout
    assert "finished" in done.stdout
    assert not (here / "harmed").exists()


def test_the_table_fits_a_hundred_columns(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "toy", here / "runs" / ("long-" * 30))
    about = json.loads((runs / "toy" / "run.json").read_text())
    about["data"]["name"] = "data-" * 20
    (here / "runs" / ("long-" * 30) / "run.json").write_text(json.dumps(about))
    assert main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    assert shown.count("long-") + shown.count("data-") > 30  # folded, not cut
    assert "finished" in shown


def test_nothing_to_list(here: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no folder runs here" in refused("runs")
    (here / "runs").mkdir()
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "no runs in runs\n"


def test_families_are_called_by_their_words() -> None:
    assert kind("DiscriminatorFlowConfig") == "discriminator flow"
    assert kind("DiffusionGANConfig") == "diffusion GAN"
    assert kind("GANConfig") == "GAN"
    assert kind("") == ""
    names = {preset("toy").config.__class__.__name__ for preset in BY_MODEL.values()}
    assert len({kind(name) for name in names}) == len(names) > 3
