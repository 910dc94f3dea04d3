"""Trackers: what programs beside the run directory are told, that they are asked for before the work, and that none
ends a training.
"""

import io
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image
from rich.console import Console

import diffflow as df
from diffflow.cli import main
from diffflow.models.diffusion import ModelConfig, ScoreConfig
from diffflow.models.settings.common import DataConfig, FitConfig
from diffflow.models.settings.networks import MLPConfig
from diffflow.models.settings.serialise import ConfigError, replace
from diffflow.training import recorder
from diffflow.training.hooks import Hooks
from diffflow.training.run_folder import Folder
from diffflow.training.train import train

TINY = ScoreConfig(
    DataConfig("8gaussians"),
    ModelConfig(MLPConfig(width=8, depth=1, embed=8)),
    fit=FitConfig(batch=16, steps=5, log_every=2, checkpoint_minutes=1e4, sample_minutes=1e4, tensorboard=False),
)


@pytest.fixture(scope="module")
def data():
    return df.data.load("8gaussians")


@pytest.fixture(autouse=True)
def small_grids(monkeypatch):
    """Most of the time of so short a training is that of drawing its samples."""
    monkeypatch.setattr(recorder, "beside", lambda raw, averaged: Image.new("RGB", (2, 2)))


def trained(path, data, steps=5, resume=None, **hooks):
    console = Console(file=io.StringIO(), width=1000)
    train(replace(TINY, {"fit.steps": steps}), path, data=data, console=console, resume=resume, hooks=Hooks(**hooks))
    return console.file.getvalue()


class Program(ModuleType):
    """A program that writes down how it is called: (function, arguments, named arguments)."""

    def __init__(self, name: str, functions: str, **has):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.calls = []
        for function in functions.split():
            setattr(self, function, lambda *args, function=function, **named: self.note(function, args, named))
        self.__dict__.update(has)

    def note(self, function, args, named):
        self.calls.append((function, args, named))
        return SimpleNamespace(kind=function, args=args)

    def told(self, *functions):
        return [(name, args, named) for name, args, named in self.calls if name in functions]


def wandb(monkeypatch, active=False):
    program = Program("wandb", "Image")

    def method(function):
        return lambda *args, **named: program.note(function, args, named)

    run = SimpleNamespace(log=method("log"), finish=method("finish"), config=SimpleNamespace(update=method("update")))
    program.run = run if active else None
    program.init = lambda *args, **named: (program.note("init", args, named), run)[1]
    monkeypatch.setitem(sys.modules, "wandb", program)
    return program


def mlflow(monkeypatch, active=None):
    functions = "start_run set_experiment log_params log_metrics log_image end_run"
    program = Program("mlflow", functions, active_run=lambda: active)
    monkeypatch.setitem(sys.modules, "mlflow", program)
    return program


def trackio(monkeypatch):
    program = Program("trackio", "init log finish Image")
    monkeypatch.setitem(sys.modules, "trackio", program)
    return program


def numbers(path):
    """What a tracker must be told of the lines of the log, by step."""
    groups = ("loss", "grad", "lr", "log")
    return [
        ({f"{g}/{k}": v for g in groups for k, v in line[g].items()}, line["step"]) for line in Folder(path).lines()
    ]


def without_rate(values: dict) -> dict:
    assert values.get("images per second", 1) > 0
    return {k: v for k, v in values.items() if k != "images per second"}


def merged(lines: list[tuple[dict, int]]) -> list[tuple[dict, int]]:
    """What was told of each step, in one."""
    steps: dict[int, dict] = {}
    for values, step in lines:
        steps.setdefault(step, {}).update(values)
    return [(values, step) for step, values in steps.items()]


# -- what they are told -----------------------------------------------------------------------------------------------


def test_wandb(tmp_path, data, monkeypatch):
    program = wandb(monkeypatch)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    trained(tmp_path / "mine", data, trackers=["wandb"])
    (_, _, start), *_ = program.calls
    assert (program.calls[0][0], start["project"], start["name"]) == ("init", "diffflow", "mine")
    assert (start["config"]["fit.batch"], start["config"]["model.net.width"]) == (16, 8)
    logged = program.told("log")
    pictures = [(args[0]["samples"].kind, named["step"]) for _, args, named in logged if "samples" in args[0]]
    assert pictures == [("Image", 5)]
    lines = [(without_rate(args[0]), named["step"]) for _, args, named in logged if "samples" not in args[0]]
    assert merged(lines) == numbers(tmp_path / "mine")
    assert [step for _, step in lines] == [2, 4, 5]
    assert [named["step"] for _, _, named in logged] == sorted(named["step"] for _, _, named in logged)
    assert program.calls[-1][0] == "finish"
    program.calls.clear()
    trained(tmp_path / "other", data, 1, trackers=[df.TRACKERS["wandb"](project="x")])
    assert program.calls[0][2]["project"] == "x"


def test_mlflow(tmp_path, data, monkeypatch):
    program = mlflow(monkeypatch)
    trained(tmp_path / "mine", data, trackers=[df.TRACKERS["mlflow"](experiment="x")])
    assert [name for name, *_ in program.calls][:3] == ["set_experiment", "start_run", "log_params"]
    assert program.told("start_run")[0][2] == {"run_name": "mine"}
    parameters = program.told("log_params")
    assert all(len(args[0]) <= 100 for _, args, _ in parameters)
    assert {k: v for _, args, _ in parameters for k, v in args[0].items()}["fit.batch"] == "16"
    lines = [(without_rate(args[0]), named["step"]) for _, args, named in program.told("log_metrics")]
    assert merged(lines) == numbers(tmp_path / "mine")
    assert [named for _, _, named in program.told("log_image")] == [{"artifact_file": "samples/000005.png"}]
    assert program.calls[-1][0] == "end_run"


def test_trackio_goes_on_with_its_run(tmp_path, data, monkeypatch):
    program = trackio(monkeypatch)
    trained(tmp_path / "mine", data, 4, trackers=["trackio"])
    trained(tmp_path / "mine", data, 5, resume="auto", trackers=["trackio"])
    starts = [named for _, _, named in program.told("init")]
    assert [(s["project"], s["name"], s["resume"]) for s in starts] == [
        ("diffflow", "mine", "never"),
        ("diffflow", "mine", "allow"),
    ]
    logged = [(args[0], named["step"]) for _, args, named in program.told("log")]
    lines = [(without_rate(v), step) for v, step in logged if "samples" not in v]
    assert [step for _, step in lines] == [2, 4, 4, 5]  # what was counted on the last grid comes after its line
    assert merged(lines) == numbers(tmp_path / "mine")
    assert [step for v, step in logged if "samples" in v] == [4, 5]
    assert len(program.told("finish")) == 2


def test_an_active_run_is_joined_and_stays_open(tmp_path, data, monkeypatch):
    """As that of a sweep."""
    one, other = wandb(monkeypatch, active=True), mlflow(monkeypatch, active=object())
    trained(tmp_path / "run", data, 2, trackers=["wandb", "mlflow"])
    assert not one.told("init", "finish")
    assert not other.told("start_run", "end_run", "log_params")
    assert one.told("update")[0][1][0]["fit.batch"] == 16
    assert {named["step"] for _, _, named in other.told("log_metrics")} == {2}


def test_tensorboard_is_a_row_like_the_others(tmp_path, data):
    """By the settings or by its name, and once where it is asked for twice."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = replace(TINY, {"fit.tensorboard": True})
    quiet = Console(file=io.StringIO())
    for name, settings, trackers in (("a", config, ()), ("b", TINY, ["tensorboard"]), ("c", config, ["tensorboard"])):
        path = train(settings, tmp_path / name, data=data, console=quiet, hooks=Hooks(trackers=trackers))
        assert len(list((path / "tensorboard").iterdir())) == 1
        events = accumulators.EventAccumulator(str(path / "tensorboard"))
        events.Reload()
        for values, step in numbers(path):
            for tag, value in values.items():
                (found,) = (e.value for e in events.Scalars(tag) if e.step == step)
                assert found == pytest.approx(value, rel=1e-6)
        assert [e.step for e in events.Scalars("images per second")] == [2, 4, 5]
        assert [e.step for e in events.Images("samples")] == [5]


# -- one's own --------------------------------------------------------------------------------------------------------


class Mine:
    def __init__(self, fails=()):
        self.fails, self.calls = fails, []

    def note(self, name, *rest):
        self.calls.append((name, *rest))
        if name in self.fails:
            raise OSError("no network")

    def start(self, about):
        self.note("start", about)

    def log(self, values, step):
        self.note("log", step)

    def picture(self, image, step):
        self.note("picture", step, image.size)

    def finish(self):
        self.note("finish")


def test_a_tracker_of_one_s_own(tmp_path, data):
    mine: df.Tracker = Mine()
    trained(tmp_path / "run", data, 3, trackers=[mine])
    trained(tmp_path / "run", data, 5, resume="auto", trackers=[mine])
    (_, about), *rest = mine.calls
    assert (about["name"], about["path"], about["step"]) == ("run", str(tmp_path / "run"), 0)
    assert about["run"]["data"]["name"] == "8gaussians"
    # the picture of the end comes before its line, which has what was counted on it
    first = [("log", 2), ("picture", 3, (2, 2)), ("log", 3), ("finish",)]
    assert rest[:4] == first
    assert rest[4][1]["step"] == 3
    assert rest[5:] == [("log", 4), ("picture", 5, (2, 2)), ("log", 5), ("finish",)]
    df.TRACKERS["test_trackers:mine"] = Mine
    try:
        trained(tmp_path / "named", data, 1, trackers=["test_trackers:mine"])
    finally:
        del df.TRACKERS["test_trackers:mine"]


def test_a_tracker_that_fails_while_training_is_a_warning_once(tmp_path, data):
    broken, sound = Mine(fails=("log", "picture", "finish")), Mine()
    told = trained(tmp_path / "run", data, trackers=[broken, sound])
    assert told.count("the tracker Mine fails (OSError: no network); the training goes on") == 1
    assert [name for name, *_ in broken.calls] == [name for name, *_ in sound.calls]  # it may come back
    assert Folder(tmp_path / "run").about()["finished"]


def test_trackers_are_finished_however_a_training_ends(tmp_path, data):
    def on_log(line):
        raise ZeroDivisionError

    mine = Mine()
    with pytest.raises(ZeroDivisionError):
        trained(tmp_path / "run", data, trackers=[mine], on_log=on_log)
    assert mine.calls[-1] == ("finish",)


# -- refused before the work ------------------------------------------------------------------------------------------


def test_one_that_does_not_start_is_refused_and_nothing_is_written(tmp_path, data):
    sound = Mine()
    with pytest.raises(ConfigError, match=r"the tracker Mine does not start \(OSError: no network\): mend it, or"):
        trained(tmp_path / "run", data, trackers=[sound, Mine(fails=("start",))])
    assert [name for name, *_ in sound.calls] == ["start", "finish"]
    assert not Folder(tmp_path / "run").names()
    trained(tmp_path / "run", data, 1)  # the directory is not in the way


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        (["wandb"], r"'wandb' cannot be used \(.*\): pip install 'diffflow\[wandb\]'"),
        (["mlflow"], r"'mlflow' cannot be used \(.*\): pip install 'diffflow\[mlflow\]'"),
        (["trackio"], r"'trackio' cannot be used \(.*\): pip install 'diffflow\[trackio\]'"),
        (["wandbb"], r"'wandbb' is no tracker; did you mean 'wandb'\?"),
        (["mine:csv"], r"'mine:csv' is no tracker: it is defined outside diffflow"),
        ("wandb", r"trackers = 'wandb' must be a list, such as \[\"wandb\"\]"),
        ([Mine], r"the tracker <class '.*Mine'> is a class: give an instance of it"),
        ([object()], r"has no start, log, picture, finish"),
    ],
)
def test_what_is_no_tracker_is_refused(tmp_path, data, monkeypatch, trackers, message):
    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=message):
        df.train("moons", tmp_path / "run", trackers=trackers)
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_them_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one, other = wandb(monkeypatch), trackio(monkeypatch)
    small = "--steps 2 --fit.batch 8 --model.net.width 8 --fit.log-every 1 --fit.no-tensorboard"
    words = f"train --trackers wandb moons --trackers trackio --out run {small}"
    assert main(words.split()) == 0
    for program in (one, other):
        lines = [(without_rate(a[0]), n["step"]) for _, a, n in program.told("log") if "samples" not in a[0]]
        assert merged(lines) == numbers(Path("run"))
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main("train moons --trackers mlflow --out other".split()) == 2
    assert "pip install 'diffflow[mlflow]'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "other").exists()
