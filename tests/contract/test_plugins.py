"""What comes from outside the package is as good as ours, and a run's settings never import anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import diffflow as df
from diffflow import registry
from diffflow.cli import main
from diffflow.explorer.server import Runs
from diffflow.models.settings.serialise import ConfigError, check_round_trip, from_yaml, replace, to_yaml

PLUGIN = '''
import torch
from dataclasses import dataclass
from torch import nn
import diffflow as df

class Line(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.layer = nn.Linear(dim + 1, dim)
        self.classes = 0
    def forward(self, x, time, cond=None):
        return self.layer(torch.cat([x, time.to(x).reshape(-1, 1).expand(len(x), 1)], 1))

@dataclass(frozen=True)
class LineConfig(df.NetConfig):
    """A linear network."""
    bias: bool = True
    """Whether it has one."""
    def build(self, shape, classes):
        return Line(shape[0])

class Slow(df.EDM):
    """EDM's levels, by another name."""

df.SCHEDULES["lines:slow"] = Slow
df.GAMES["lines:half"] = df.Game("lines:half", lambda r, f: f - r, torch.neg, torch.ones_like, None, "a difference")
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a plug-in, whose rows are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.py").write_text(PLUGIN)
    yield tmp_path
    sys.modules.pop("lines", None)
    for table in (df.SCHEDULES, df.GAMES, df.NetConfig.kinds):
        for name in [name for name in table if name.startswith("lines:")]:
            del table[name]


def test_own_parts_train_and_load_in_a_fresh_process(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One process trains with a network and a schedule of its own; another one loads them by --import only."""
    (here / "own.yaml").write_text(
        "model: {net: {type: 'lines:LineConfig'}}\nsampling: {schedule: 'lines:slow', steps: 2}"
    )
    train = "train moons --config own.yaml --steps 2 --fit.batch 8 --fit.no-tensorboard --out run"
    assert main(["--import", "lines.py", *train.split()]) == 0
    assert "type: lines:LineConfig" in Path("run/config.yaml").read_text()
    assert main(["--import=lines.py", "sample", "run", "-n", "3", "--out", "a.csv"]) == 0
    code = (
        "import sys; from diffflow.cli import main; refused = main(['sample', 'run', '-n', '3', '--out', 'no.csv']); "
        "assert 'lines' not in sys.modules; "
        "sys.exit(10 * refused + main(['--import', 'lines.py', 'sample', 'run', '-n', '3', '--out', 'b.csv']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 20  # refused without the import, done with it
    assert "diffflow --import lines.py" in " ".join(done.stderr.split())
    assert not Path("no.csv").exists()
    assert Path("a.csv").read_text() == Path("b.csv").read_text()


def test_rows_from_outside_say_their_module(here: Path) -> None:
    with pytest.raises(ValueError, match="my_models:mine"):
        df.SCHEDULES["mine"] = df.EDM
    registry.import_plugin("lines.py")
    assert registry.import_plugin("lines.py") is sys.modules["lines"]  # once
    game = replace(df.GANConfig(), {"game.loss": "lines:half", "data.source": "moons"})
    assert from_yaml(to_yaml(game)) == game
    assert game.game.game.row == "gan"
    path = replace(df.ScoreConfig(), {"sampling.schedule": "lines:slow"}).sampling.path
    assert type(path).__name__ == "Slow"


@pytest.mark.parametrize(
    "line",
    ["type: os:system", "type: 'builtins:exec'", "model: {net: {type: 'os:system'}}", "game: {loss: 'os:system'}",
     "sampling: {schedule: 'antigravity:x'}", "type: !!python/object/apply:os.system ['touch owned']"],
)  # fmt: skip
def test_a_hostile_config_executes_nothing(here: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Opening or listing a run directory, by any command and the explorer, imports no module that its files name."""
    run = here / "run"
    run.mkdir()
    head = "type: GANConfig\n" if line.startswith("game") else ""
    (run / "config.yaml").write_text(head + line)
    (run / "run.json").write_text('{"data": {"name": "moons", "shape": [2], "classes": null}}')
    before = set(sys.modules)
    with pytest.raises(ConfigError):
        df.load(run)
    for command in ("sample run -n 2", "train --resume auto --out run --steps 3", "cite run", "evaluate run"):
        assert main(command.split()) == 2
    assert main(["runs", "."]) == 0
    listed = Runs(here)
    assert listed.names() == ["run"]
    assert "problem" in listed.line("run")
    assert not {m for m in set(sys.modules) - before if m.partition(".")[0] in ("antigravity", "owned")}
    assert sorted(p.name for p in here.iterdir()) == ["lines.py", "run"]
    assert sorted(p.name for p in run.iterdir()) == ["config.yaml", "run.json"]


def test_a_broken_plugin_is_named_and_breaks_no_help(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "broken.py").write_text("1 / 0")
    assert main(["--import", "broken.py", "models"]) == 2
    assert "broken.py cannot be imported: ZeroDivisionError" in capsys.readouterr().err
    assert main(["--import", "absent.py", "models"]) == 2
    assert main(["models", "--import"]) == 2
    assert main(["--import", "broken.py", "--help"]) == 0
    assert main(["--import", "broken.py", "models", "--help"]) == 0

    def fails() -> None:
        raise RuntimeError("no luck")

    point = SimpleNamespace(name="bad", value="not_there_at_all", load=fails)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "diffflow.plugins" else [])
    assert main(["--help"]) == 0
    capsys.readouterr()
    assert main(["models"]) == 0
    assert (
        "the plug-in 'bad' (not_there_at_all) failed and is left out: RuntimeError: no luck" in capsys.readouterr().err
    )


def test_settings_that_would_not_come_back_are_refused_before_training(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Odd(df.NetConfig):
        """A network whose settings are no plain values."""

        layer: Any = None

        def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
            return nn.Linear(shape[0], shape[0])

    try:
        config = replace(df.ScoreConfig(), {"data.source": "moons", "fit.steps": 1})
        check_round_trip(config)
        bad = replace(config, {"model.net": Odd(torch.zeros(2))})
        with pytest.raises(ConfigError, match=r"cannot be saved and read again|would come back otherwise"):
            df.train(bad, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    finally:
        for name in [name for name in df.NetConfig.kinds if "Odd" in name]:
            del df.NetConfig.kinds[name]
