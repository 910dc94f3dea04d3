"""Every command on every kind of run: own networks, signals, volumes, conditions of each kind. It works, or it refuses
in one sentence that says why."""

from __future__ import annotations

import functools
import importlib
import io
import json
import re
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import diffflow as df
from diffflow.cli import main
from diffflow.explorer.server import Runs, SampleRequest, draw_frames
from diffflow.metrics import c2st, fit_classifier
from diffflow.models.settings.own_net import FACTORIES
from diffflow.runs import report
from diffflow.sampling import teacher

SMALL = {"fit.batch": 8, "fit.tensorboard": False, "fit.sample_minutes": 1e6, "sampling.steps": 2, "denoiser.warmup": 1}
TINY = {"model.net": df.UNetNDConfig(widths=(16,), attention=False)}
N = 140


class Net(nn.Module):
    """An own network of (x, t, cond), for images with classes."""

    null = 3

    def __init__(self, width: int = 4):
        super().__init__()
        self.told = nn.Embedding(4, width)
        self.enter, self.leave = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x, t, cond):
        return self.leave(torch.relu(self.enter(x) + (self.told(cond) + t[:, None])[:, :, None, None]))


class Blind(nn.Module):
    """An own network without condition input."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, t):
        return self.layer(torch.cat([x, t[:, None]], 1))


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


LABELS = torch.arange(N) % 3
VOLUMES = numbers(N, 1, 4, 4, 4)


def of(x, y=None, **how) -> df.Data:
    return df.data.of(x, y, name="rows", **how)


@functools.cache
def autoencoder() -> tempfile.TemporaryDirectory:
    """A folder with an autoencoder of diffusers, of random weights, with latents (2, 4, 4) of images (1, 8, 8)."""
    import diffusers

    folder, few = tempfile.TemporaryDirectory(), {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        diffusers.AutoencoderTiny(1, 1, (4, 4), (4, 4), latent_channels=2, **few).save_pretrained(folder.name)
    return folder


# name: (data, further arguments of df.train)
RUNS = {
    "own class": (lambda: of(pixels(N, 1, 8, 8), LABELS), {"net": Net, "net_arguments": {"width": 6}}),
    "own instance": (lambda: of(numbers(N, 2)), {"net": Blind()}),
    "labels unused": (lambda: of(numbers(N, 2), LABELS), {"net": Blind}),
    "DiT": (
        lambda: of(pixels(N, 1, 8, 8), LABELS),
        {"settings": {"model.net": df.DiTConfig(width=16, depth=1, heads=2)}},
    ),
    "signal": (lambda: of(numbers(N, 2, 16), kind="signal"), {"settings": TINY}),
    "volume": (lambda: of(VOLUMES), {"settings": TINY}),
    "floats": (lambda: of(numbers(N, 2, 6, 6)), {"settings": {"model.net": df.UNetConfig((8,), 1, False)}}),
    "latent": (
        lambda: of(pixels(N, 1, 8, 8), LABELS).with_coder(autoencoder().name),
        {"settings": {"model.net": df.UNetConfig((8,), 1, False)}},
    ),
    "vector": (lambda: of(numbers(N, 2)).with_cond(numbers(N, 3)), {"settings": {"model.net.width": 8}}),
    "sequence": (lambda: of(numbers(N, 2)).with_cond(numbers(N, 4, 5)), {"settings": {"model.net.width": 8}}),
    "two": (
        lambda: of(pixels(N, 1, 8, 8)).with_cond({"before": pixels(N, 1, 8, 8), "label": LABELS}),
        {"settings": {"model.net": df.UNetConfig((8,), 1, False)}},
    ),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """All runs, each trained for three steps, and their examples as a file."""
    folder = tmp_path_factory.mktemp("doors")
    for name, (make, arguments) in RUNS.items():
        data, place = make(), folder / name.replace(" ", "-")
        settings = SMALL | arguments.get("settings", {})
        with redirect_stderr(said := io.StringIO()):
            df.train(data, place, steps=3, **(arguments | {"settings": settings}))
        assert "no sample grid" not in said.getvalue()
        assert list((place / "samples").glob("*.png"))
        whole = df.data.of(**original(name))
        labels = {} if whole.y is None else {"y": whole.y.numpy()}
        np.savez(folder / f"{place.name}.npz", x=whole.x.numpy(), **labels)
    return folder


def original(name: str) -> dict:
    """What `df.data.of` was given for a run, all rows."""
    data = RUNS[name][0]()
    kind = {"image": "image", "signal": "signal", "volume": "volume", "vector": "vector"}[data.kind]
    source = {
        "own class": (pixels(N, 1, 8, 8), LABELS),
        "DiT": (pixels(N, 1, 8, 8), LABELS),
        "latent": (pixels(N, 1, 8, 8), LABELS),
        "labels unused": (numbers(N, 2), LABELS),
        "signal": (numbers(N, 2, 16), None),
        "volume": (VOLUMES, None),
        "floats": (numbers(N, 2, 6, 6), None),
        "two": (pixels(N, 1, 8, 8), None),
    }.get(name, (numbers(N, 2), None))
    return {"x": source[0], "y": source[1], "kind": kind, "split": "all"}


COMMANDS = {
    "resume": "train {file} --data.kind {kind} --out {run} --resume auto --steps 4",
    "sample": "sample {run} -n 3 --out {run}/s.npz",
    "a picture": "sample {run} -n 3 --out {run}/s.png",
    "calibrate": "calibrate {run} --steps 2 --starts 8 --rounds 0",
    "evaluate": "evaluate {run} -n 16 --data {file}",
    "likelihood": "likelihood {run} -n 2 --steps 4 --data {file}",
    "diagnose": "diagnose {run} -n 10 --levels 2 --data {file}",
    "frontier": "frontier {run} -n 16 --steps 2 --churn 0 --plans no --data {file}",
    "distill": "distill {run} --steps 1 --updates 1 --out {run}-few --data {file}",
    "explore": "",
    "report": "",
    "runs": "runs {home}",
    "cite": "cite {run}",
}

# Where a command refuses a run: what its one sentence says.
NO_INSTANCE = "hand it back, df.load"
REFUSED = {
    **{("own instance", c): NO_INSTANCE for c in COMMANDS if c not in ("report", "runs")},
    ("own instance", "resume"): "hand it back",
    ("vector", "resume"): "began with other conditions",
    ("sequence", "resume"): "began with other conditions",
    ("two", "resume"): "began with other conditions",
    ("vector", "distill"): "conditioned on more than classes",
    ("sequence", "distill"): "conditioned on more than classes",
    ("two", "distill"): "conditioned on more than classes",
    ("labels unused", "distill"): "is told no class, and its data have some",
    ("floats", "distill"): "no axis of 1, 3 or 4 channels",
    ("two", "frontier"): "images are compared by somebody's features",
    ("latent", "likelihood"): "a density of latents is none of the data",
    ("signal", "distill"): "signal",
    ("volume", "distill"): "volume",
}


@pytest.fixture
def known(monkeypatch):
    """A process in which the classes of own networks were imported by the user, as they are with --import.

    Judges train for a few steps, and fine solutions take few: how good they are is not the question here.
    """
    monkeypatch.setitem(c2st.__kwdefaults__ or {}, "steps", 10)
    monkeypatch.setattr(teacher, "FINE", 2)
    monkeypatch.setitem(FACTORIES, f"{__name__}:Net", Net)
    monkeypatch.setitem(FACTORIES, f"{__name__}:Blind", Blind)
    quick = functools.partial(fit_classifier, steps=40)
    for module in ("evaluate", "extractors"):
        monkeypatch.setattr(importlib.import_module(f"diffflow.metrics.{module}"), "fit_classifier", quick)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", RUNS)
def test_every_command_works_or_says_why_not(home, known, name, command):
    run, file = home / name.replace(" ", "-"), home / f"{name.replace(' ', '-')}.npz"
    kind = json.loads((run / "run.json").read_text())["data"]["kind"]
    if command == "report":
        assert report.write(run).stat().st_size > 1000
        return
    if command == "explore":
        status, text = explored(home, run.name)
    else:
        line = COMMANDS[command].format(run=run, file=file, kind=kind, home=home)
        status, text = outcome(line.split())
    if words := REFUSED.get((name, command)):
        assert status not in (0, 200)
        assert words in text
        sentences = [line for line in text.splitlines() if "diffflow:" in line or command == "explore"]
        assert len(sentences) == 1
    else:
        assert status in (0, 200), text
    assert "Traceback" not in text


def outcome(words: list[str]) -> tuple[int, str]:
    """The exit status of a command and all that it prints."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            status = main(words)
        except SystemExit as end:
            status = int(end.code or 0)
    return status, re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def explored(home: Path, name: str) -> tuple[int, str]:
    """What the explorer answers when samples of a run are asked for."""
    runs = Runs(home, "cpu")
    try:
        drawn = draw_frames(runs.load(name), SampleRequest.of({"n": 2, "steps": 2}, runs.line(name)), lambda *_: None)
    except Exception as error:
        return 400, f"{type(error).__name__}: {error}"
    return 200, json.dumps(drawn)[:200]


def test_conditions_come_from_files(tmp_path, monkeypatch, capsys):
    """By the command line as from Python: the same training, the same samples, and rows that stay with their own."""
    monkeypatch.chdir(tmp_path)
    x, a, b = numbers(N, 2).float(), numbers(N, 2).float() * 3 + 1, torch.arange(N) % 4
    for name, value in {"x": x, "a": a, "b": b, "short": a[:5]}.items():
        np.save(f"{name}.npy", value.numpy())
    np.save("objects.npy", np.array([{}], dtype=object))
    flags = [f"--{k}={v}" for k, v in SMALL.items() if k != "fit.tensorboard"] + ["--fit.no-tensorboard", "--steps=3"]
    told = ["--data.cond", "a=a.npy", "b=b.npy"]
    assert main(["train", "x.npy", "--out", "file", *flags, *told]) == 0
    data = df.data.load("x.npy").with_cond({"a": a, "b": b})
    assert data.heldout is None or data.heldout.cond is not None
    run = df.train(data, "python", steps=3, settings=SMALL)
    assert sorted(run.conditions) == ["a", "b"]
    assert main("sample file -n 7 --cond a=short.npy b=b.npy --guidance a=2 --seed 3 --out f.npz".split()) == 0
    ask = {"a": a[torch.arange(7) % 5], "b": b[:7]}
    want = run.sample(7, cond=ask, guidance={"a": 2.0}, noise=df.Noise(3)).last
    assert torch.equal(torch.from_numpy(np.load("f.npz")["arr_0"]), want)
    assert main("train --out file --resume auto --steps 4".split()) == 0
    np.save("b.npy", (b.numpy() + 1) % 4)
    assert main("train --out file --resume auto --steps 5".split()) == 2
    assert "began with other conditions" in " ".join(capsys.readouterr().err.split())
    for wrong, words in {
        "--cond c=a.npy": "is told a dict of 'a', 'b'",
        "--cond a.npy": "is told a dict",
        "--cond a=absent.npy": "no readable array",
        "--cond a=objects.npy": "no readable array",
        "--cond a=b.npy": "give (n, 2)",
        "--class 1": "has conditions, no classes",
        "--guidance c=2": "guidance names c",
        "--guidance a=x": "a number of at least 0",
    }.items():
        assert main(["sample", "file", "-n", "2", *wrong.split()]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
