"""Help, evaluate, cite, demo, and what happens to errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import diffflow as df
from diffflow.cli import COMMANDS, demo, main
from diffflow.models.settings.serialise import replace, to_yaml
from diffflow.training.run_folder import Folder


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    top = capsys.readouterr().out
    for command in COMMANDS:
        assert f"diffflow {command}" in top or command == "cite"
        assert main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "Examples:" in shown
        assert f"diffflow {command}" in shown
    assert main([]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"diffflow {df.__version__}\n"


def test_unknown_command(refused: Callable[..., str]) -> None:
    assert "Did you mean 'sample'?" in refused("sampel", "runs/x")


def test_evaluate_writes_numbers_with_their_protocol(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "digits", here / "digits")
    assert main("evaluate digits -n 60 --steps 3 --churn 1".split()) == 0
    shown = capsys.readouterr().out
    result = json.loads((here / "digits" / "evaluation.json").read_text())
    names = {m["name"] for m in result["metrics"]}
    assert {"w2", "sliced_w2", "mmd2", "precision", "recall", "c2st", "nearest_ratio", "accuracy"} <= names
    assert all(name in shown for name in names)
    # these samples are noise: no real neighbourhood holds one, so the density is 0 without any doubt
    assert all(m["stderr"] > 0 for m in result["metrics"] if m["name"] != "density")
    assert result["card"]["sampler"] == {
        "solver": "default", "steps": 3, "gan": 0.0, "churn": 1.0, "guidance": 1.0, "evaluations": 3,
    }  # fmt: skip
    assert result["card"]["classes"] == "as often as in the data"
    assert "±" in (here / "digits" / "report.html").read_text()


def test_evaluate_against_other_data_is_refused(runs: Path, refused: Callable[..., str]) -> None:
    assert "fingerprint" in refused("evaluate", runs / "toy", "--data", "circles")
    assert "no LeNet-5 weights" in refused("evaluate", runs / "digits", "--classifier", "nowhere.pth")
    assert "--churn -1" in refused("evaluate", runs / "digits", "--churn", "-1")
    assert "-n 11" in refused("evaluate", runs / "digits", "-n", "11")


def test_evaluate_loads_images_at_the_size_of_the_run(
    digits: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "pictures").mkdir()
    for k in range(140):  # 126 train, 14 test
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8 + k % 3), dtype=np.uint8)
        Image.fromarray(pixels).save(here / "pictures" / f"{k}.png")
    settings = [word for word in digits if word not in ("train", "digits")]
    assert main(["train", *settings, "--preset", "mnist", "--data.size", "8", "pictures", "--out", "run"]) == 0
    assert main("evaluate run -n 14 --steps 2".split()) == 0
    assert "w2" in capsys.readouterr().out


def test_a_run_on_everything_has_nothing_held_out(
    toy: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, held in (("all", "half of the reference"), ("test", "train")):
        assert main([*toy, "--data.split", split, "--out", split]) == 0
        assert main(["evaluate", split, "-n", "12", "--steps", "2"]) == 0
        assert ("nothing is held out" in " ".join(capsys.readouterr().err.split())) == (split == "all")
        card = json.loads((here / split / "evaluation.json").read_text())["card"]
        assert card["heldout"] == held or card["heldout"]["split"] == held


def test_cite(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite"]) == 0
    alone = capsys.readouterr().out
    assert "2307.02159" in alone
    assert main(["cite", str(runs / "toy")]) == 0
    cited = capsys.readouterr().out
    assert cited.startswith(df.load(runs / "toy").sde().cite())
    assert "karras2022" in cited  # whose training and schedule every run uses
    assert "ho2022" not in cited


def test_a_guided_run_cites_guidance(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "digits", here / "guided")
    config = replace(Folder(here / "guided").config(), {"sampling.guidance": 1.5})
    (here / "guided" / "config.yaml").write_text(to_yaml(config))
    assert main(["cite", "guided"]) == 0
    assert "ho2022" in capsys.readouterr().out


def test_demo_runs_once_and_then_says_so(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "LEVELS", 4)
    assert main("demo --minutes 0.03 -n 30 --steps 3".split()) == 0
    assert "held-out real digits" in capsys.readouterr().out
    home = here / "runs" / "demo"
    pictures = {p.name for p in home.glob("*.png")}
    rows = ("churn-0", "churn-0.5", "churn-1", "churn-2", "annealed-Langevin")
    assert pictures == {f"{name}.png" for name in ("dial", "samples", *rows)}
    page = (home / "report.html").read_text()
    assert "One start, five settings" in page
    stamp = (home / "report.html").stat().st_mtime_ns
    assert main(["demo"]) == 0
    assert "the demo is finished" in capsys.readouterr().out
    assert (home / "report.html").stat().st_mtime_ns == stamp
    measured = json.loads((home / "evaluation.json").read_text())
    monkeypatch.setattr(demo, "along_the_dial", lambda *_: (measured, {}))
    step = df.load(home).step
    longer = demo.trained(home) / 60 + 0.02
    assert main(f"demo --minutes {longer} -n 30 --steps 3".split()) == 0
    assert "going on until" in " ".join(capsys.readouterr().err.split())
    assert df.load(home).step > step
    assert demo.trained(home) >= 60 * longer


def test_too_few_samples_are_refused_before_training(refused: Callable[..., str]) -> None:
    assert "-n 5" in refused("demo", "-n", "5")


def test_annealed_starts_where_the_network_is(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.device] = []

    def watched(sde: Any, x0: torch.Tensor, *, noise: df.Noise, cond: torch.Tensor) -> SimpleNamespace:
        seen.extend((x0.device, cond.device))
        return SimpleNamespace(last=torch.zeros(x0.shape), nfe=0)

    run = df.load(runs / "digits", device="cpu")
    run.denoiser.to("meta")  # a device that every machine has and that is not the processor
    monkeypatch.setattr(df, "sample", watched)
    demo.annealed(run, torch.tensor([1, 2]))
    assert seen == [torch.device("meta")] * 2


def test_faults_of_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise TypeError("not something a user can mend")

    monkeypatch.setattr(df, "DiffFlow", broken)
    with pytest.raises(TypeError):
        main(["cite"])


def test_errors_show_where_they_came_from_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFFLOW_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown preset"):
        main("train moons --preset nothing".split())


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(df, "DiffFlow", interrupted)
    assert main(["cite"]) == 130
