"""The command line's manners: names are shown as they are, numbers come before pictures, what cannot be written is
refused before the work, and nobody's file or run is touched unasked."""

from __future__ import annotations

import errno
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffflow as df
from diffflow import figures, files
from diffflow.cli import COMMANDS, help_file, main, writers
from diffflow.console import bars, say, table, to_stderr, to_stdout
from diffflow.models import catalogue, flows
from diffflow.training import lock

NAMES = ("[v2]", "[/x]", "[red]no[/red]", ":cat:", "$$", "$a$", "a_b [0-9] {0} {x}")
SOURCE = Path(df.__file__).parent


def forbidden(*_: object, **__: object) -> Any:
    raise AssertionError("the work was begun")


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_way_of_printing_shows_names_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(to_stderr(), f"report {name * 30}")
    rows = table(name, title=name)
    rows.add_row(name)
    to_stdout().print(rows)
    with bars(to_stdout()) as display:
        display.add_task(name, total=2, note=name)
        to_stdout(width=200).print(display.get_renderable())
    shown = capsys.readouterr()
    assert shown.err == f"report {name * 30}\n"  # nor broken into lines
    assert shown.out.count(name) == 5


def test_printing_has_one_home() -> None:
    """Another console would have rich's markup on again."""
    parts = re.compile(r"rich\.(console|progress|markup|status|live)")
    made = [p.name for p in SOURCE.rglob("*.py") if parts.search(p.read_text())]
    assert made == ["console.py"]


@pytest.mark.parametrize("name", [*NAMES, r"\$", r"a\$b$", "_private", "100 $"])
def test_figures_show_dollars_as_dollars(name: str) -> None:
    def drawn(text: str, **how: Any) -> bytes:
        fig = figures.figure(3, 1)
        fig.text(0.1, 0.5, text, **how)
        return figures.png(fig)

    shown = f" {name}" if name.startswith("_") else name  # which matplotlib would leave out of a legend
    assert drawn(figures.plain(name)) == drawn(shown, parse_math=False)


def test_names_of_another_encoding_are_printed(runs: Path, here: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    (here / odd).mkdir()
    shutil.copytree(runs / "toy", here / odd / "toy")
    for encoding, wanted in (("utf-8", b"caf\xe9"), ("ascii", b"caf\\udce9")):
        words = [sys.executable, "-m", "diffflow.cli", "runs", odd, "--json"]
        env = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        done = subprocess.run([*words[:-1]], capture_output=True, env=env, check=True)
        assert b"moons" in done.stdout
        done = subprocess.run([*words[:-2], f"{odd}/none"], capture_output=True, env=env, check=False)
        assert done.returncode == 2
        assert wanted in done.stderr


def test_a_table_of_odd_names_goes_all_the_way(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run directory, data, columns and words that other languages would take for theirs."""
    home, rng = "[v2] $x$/[/run]", np.random.default_rng(0)
    columns = rng.normal(size=160), rng.integers(0, 3, 160), ["$$", "[/y]"] * 80
    rows = [f"{a:.5f},{b},{w}" for a, b, w in zip(*columns, strict=True)]
    Path("$$ [data].csv").write_text("\n".join(["[/y] $a$,$$,_c$", *rows]) + "\n")
    ways = "--data.text levels --data.discrete levels --steps 2 --fit.batch 8 --model.net.width 8 --fit.no-tensorboard"
    assert main(["train", "$$ [data].csv", *ways.split(), "--out", home]) == 0
    assert f"diffflow sample '{home}' -n 100" in capsys.readouterr().err
    assert main(["evaluate", home, "-n", "12", "--steps", "2"]) == 0
    shown = capsys.readouterr()
    assert "marginal_w2" in shown.out
    assert f"report   {home}/report.html\n" in shown.err
    assert main(["likelihood", home, "-n", "4", "--split", "all", "--out", "[/values].csv"]) == 0
    shown = capsys.readouterr()
    assert "$$ [data]" in shown.out
    assert "values   [/values].csv\n" in shown.err
    assert main(["sample", home, "-n", "3", "--steps", "2", "--out", "[/x].csv"]) == 0
    assert "[/x].csv: 3 samples" in capsys.readouterr().out
    assert main(["runs", "[v2] $x$/["]) == 0
    assert re.search(r"^run\] +\$\$ \[data\]\.csv .* finished", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    "classes",
    [
        ["a/b", "a-b"],
        ["a-b", "a/b", "a-b-2", "a\\b"],
        ["train", "test"],
        ["Training", "x"],
        ["..", ".", "..."],
        [".hidden", "hidden", "__MACOSX"],
        ["c:d", "T-shirt/top", "", " "],
        [os.fsdecode(b"caf\xe9"), "caf?"],
    ],
)
def test_sample_zips_can_be_read_back_whatever_classes_are_called(here: Path, classes: list[str]) -> None:
    labels = np.arange(4 * len(classes)) % len(classes)
    x = np.broadcast_to(labels[:, None, None, None] / 255.0, (len(labels), 1, 4, 4)).astype(np.float32)
    Path("x.zip").write_bytes(writers.as_zip(x, labels, classes, None))
    back = df.data.load("x.zip", split="all")
    assert back.y is not None
    assert back.classes is not None
    names = writers.folder_names(classes)
    assert sorted(back.classes) == sorted(names)
    assert len(set(names)) == len(classes)
    ours = [names[int(level)] for level in back.x[:, 0, 0, 0]]  # every picture is as bright as its class's number
    assert ours == [back.classes[int(k)] for k in back.y]


def test_ordinary_classes_keep_their_names() -> None:
    assert writers.folder_names(["cat", "T-shirt/top", "Ankle boot", "7"]) == ["cat", "T-shirt-top", "Ankle boot", "7"]


# -- numbers first ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate toy -n 12 --steps 2", "sliced_w2"),
        ("evaluate digits -n 12 --steps 1 --features none", "sliced_w2"),
        ("likelihood toy -n 4", "nats"),
        ("diagnose toy -n 20 --levels 2", "best linear"),
        ("flow moons --model mmd -n 8 --steps 2 --out x.png", "sliced_w2"),
    ],
)
def test_numbers_are_printed_before_pictures_are_drawn(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    for name in ("toy", "digits"):
        shutil.copytree(runs / name, here / name)
    monkeypatch.setattr(figures, "png", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(line.split())
    assert words in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_costs_no_numbers(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs / "toy", here / "toy")
    (here / "full.csv").symlink_to("/dev/full")
    assert main("likelihood toy -n 4 --out full.csv".split()) == 2
    shown = capsys.readouterr()
    assert "moons" in shown.out
    assert "could not write full.csv: No space left on device" in shown.err
    assert os.readlink("full.csv") == "/dev/full"


@pytest.mark.parametrize("form", ["link", "pipe"])
def test_values_go_through_links_and_pipes(runs: Path, here: Path, form: str) -> None:
    shutil.copytree(runs / "toy", here / "toy")
    if form == "link":
        (here / "to.csv").symlink_to("real.csv")
        assert main("likelihood toy -n 4 --out to.csv".split()) == 0
        assert (here / "to.csv").is_symlink()
        assert len((here / "real.csv").read_text().splitlines()) == 5
    else:
        os.mkfifo("to.csv")
        with subprocess.Popen(["cat", "to.csv"], stdout=subprocess.PIPE, text=True) as reader:
            assert main("likelihood toy -n 4 --out to.csv".split()) == 0
            assert len(reader.communicate()[0].splitlines()) == 5
        assert (here / "to.csv").is_fifo()


# -- refused before the work ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "sample {runs}/toy --out {bad}/x.csv",
        "sample {runs}/toy --animate {bad}/x.gif",
        "flow moons --out {bad}/x.csv",
        "likelihood {runs}/toy --out {bad}/x.csv",
        "demo --out {bad}/run",
        "train moons --steps 3 --out {bad}/run",
        "train pictures.zip --out {bad}/run",
        "distill {runs}/toy --out {bad}/run",
    ],
)
def test_places_that_cannot_be_written_are_refused_by_name(
    runs: Path, here: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (here / "file").write_text("mine")
    monkeypatch.setattr(df.Run, "sample", forbidden)
    monkeypatch.setattr(df.Run, "log_likelihood", forbidden)
    monkeypatch.setattr(df.data, "load", forbidden)
    message = refused(*line.format(runs=runs, bad="file").split())
    assert "file/" in message
    assert "file is not a directory" in message
    assert ".tmp" not in message


def test_a_folder_is_no_file(runs: Path, here: Path, refused: Callable[..., str]) -> None:
    (here / "x.csv").mkdir()
    for line in (f"likelihood {runs}/toy", f"sample {runs}/toy", "flow moons"):
        assert "--out x.csv is a directory: name a file in it" in refused(*line.split(), "--out", "x.csv")


@pytest.mark.parametrize(
    "line", ["evaluate", "likelihood", "diagnose", "frontier", "calibrate", "train --resume auto --out"]
)
def test_a_run_that_cannot_be_written_is_refused_before_the_work(
    runs: Path, here: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    def readonly(folder: Path) -> None:  # a superuser would be let through
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "probe", readonly)
    for work in ("sample", "log_likelihood", "calibrate", "teach"):
        monkeypatch.setattr(df.Run, work, forbidden)
    monkeypatch.setattr(df.data, "load", forbidden)
    message = refused(*line.split(), runs / "toy")
    assert f"{runs / 'toy'} cannot be written to: Read-only file system" in message


# -- nobody's things --------------------------------------------------------------------------------------------------


def test_samples_are_never_replaced_unasked(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "samples.png").write_bytes(b"years of work")
    for name in ("samples-2.png", "samples-3.png"):
        assert main(["sample", str(runs / "toy"), "-n", "4", "--steps", "1"]) == 0
        assert f"{name}: 4 samples" in capsys.readouterr().out
    assert main("flow moons --model mmd -n 8 --steps 2".split()) == 0
    assert "samples-4.png: 8 particles" in capsys.readouterr().out
    assert (here / "samples.png").read_bytes() == b"years of work"
    assert main(["sample", str(runs / "toy"), "-n", "4", "--steps", "1", "--out", "samples.png"]) == 0  # asked for
    assert (here / "samples.png").read_bytes() != b"years of work"


HOLD = """
import pathlib, sys
from diffflow.training.lock import Lock
with Lock(pathlib.Path(sys.argv[1])) as lock:
    lock.take()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_trainings_never_meet_in_one_directory(
    runs: Path, here: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.1)
    shutil.copytree(runs / "toy", here / "toy")
    (here / "new").mkdir()
    for name in ("toy", "new"):
        words = [sys.executable, "-c", HOLD, name]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "held\n"
            for line in (f"train moons --steps 40 --out {name}", f"train moons --resume auto --out {name} --steps 40"):
                message = refused(*line.split())
                assert f"{name} is being trained by process {first.pid} on" in message
                assert "choose another directory" in message
            if name == "toy":  # reading is free
                assert main("sample toy -n 3 --steps 1 --out x.csv".split()) == 0
                assert main(["runs", "toy", "--json"]) == 0
                (found,) = json.loads(capsys.readouterr().out.partition("\n")[2])
                assert found["state"] == "running"
                assert f"process {first.pid}" in found["writer"]
            first.kill()
    assert main("train --resume auto --out toy --steps 35".split()) == 0  # the dead are in nobody's way
    assert main("train moons --steps 2 --fit.batch 8 --model.net.width 8 --out new".split()) == 0
    assert not list(here.rglob(lock.NAME))


# -- help -------------------------------------------------------------------------------------------------------------


def columns(text: str) -> list[int]:
    """Where the second column of each line of `text` begins that has two, after at least two spaces."""
    found = (re.match(r"( {4,}\S+(?: \S+)*) {2,}(?=\S)", line) for line in text.splitlines())
    return [m.end() for m in found if m]


def test_columns_of_help_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    commands, _, examples = capsys.readouterr().out.partition("  examples")
    assert len(columns(commands)) == len(COMMANDS)
    assert len(set(columns(commands))) == 1
    assert len(set(columns(examples))) == 1
    for name in COMMANDS:
        module = __import__(f"diffflow.cli.{name}", fromlist=[name])
        text = getattr(module, name.capitalize()).__doc__
        assert len(set(columns(text.partition("Examples:")[2]))) <= 1, name


def test_lists_of_names_in_help_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    for name, heads in {"train": ("Presets,", "By model,"), "flow": ("Models:",)}.items():
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out.partition("╭")[0]
        for head in heads:
            found = columns(shown.partition(head)[2].partition("\n\n")[0])
            assert len(found) > 5
            assert len(set(found)) == 1


def test_help_needs_no_torch() -> None:
    """One process for all commands."""
    code = (
        "import contextlib, io, sys\nfrom diffflow.cli import COMMANDS, main\n"
        "for name in ['', *COMMANDS]:\n"
        "    with contextlib.redirect_stdout(io.StringIO()): assert main([name, '--help'][not name:]) == 0\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not version("tyro").startswith("1.0."), reason="other versions of tyro set help otherwise")
def test_the_kept_help_of_train_is_what_train_says_of_itself() -> None:
    made = runpy.run_path(str(Path(__file__).parents[1] / "stub.py"))
    assert made["HELP"].read_text(encoding="utf-8") == made["train_help"](), "python tests/stub.py writes it anew"


def test_the_help_of_train_is_that_of_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    """The kept help stands where nothing else is asked; a source or a preset brings the flags of its own settings."""
    assert main(["train", "--help"]) == 0
    kept = capsys.readouterr().out
    assert kept == help_file("train").read_text(encoding="utf-8")
    for words in ("digits --help", "--help digits", "--preset digits -h"):
        assert main(["train", *words.split()]) == 0
        shown = capsys.readouterr().out
        assert "--model.net.layers" in shown
        assert "--model.net.layers" not in kept


def test_the_help_of_flow_lists_the_flows() -> None:
    """Their words stand apart from the code that makes them, which needs torch."""
    assert list(catalogue.FLOWS) == list(flows.FLOWS)
    for name, flow in flows.FLOWS.items():
        assert ("(needs a score)" in catalogue.FLOWS[name]) == flow.needs_score
