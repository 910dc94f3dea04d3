"""The loop: turns, averaging, budgets, signals, broken numbers, and a resumed run that is the uninterrupted one to
the bit.
"""

import dataclasses
import io
import json
import os
import pickle
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

import diffflow as df
from diffflow import files
from diffflow.equation.noise import Noise
from diffflow.models.diffusion import ModelConfig, ScoreConfig
from diffflow.models.settings.common import DataConfig, FitConfig, PlayerConfig
from diffflow.models.settings.networks import MLPConfig
from diffflow.models.settings.serialise import ConfigError, replace
from diffflow.objectives.base import Batch, Turn
from diffflow.training import checkpoint
from diffflow.training import recorder as record
from diffflow.training.batches import Batches
from diffflow.training.distributed import Process
from diffflow.training.loop import Interrupted, NonFinite, fit
from diffflow.training.memory import OutOfMemory
from diffflow.training.run_folder import Folder, RunError
from diffflow.training.state import TrainingState
from diffflow.training.train import train

CPU = Process(torch.device("cpu"))
TINY = ScoreConfig(
    DataConfig("8gaussians"),
    ModelConfig(MLPConfig(width=16, depth=1, embed=8)),
    denoiser=PlayerConfig(lr=3e-3, warmup=5, decay=20),
    fit=FitConfig(batch=32, steps=40, log_every=5, checkpoint_minutes=1e4, sample_minutes=1e4, tensorboard=False),
)


@pytest.fixture(scope="module")
def data():
    return df.data.load("8gaussians")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """An uninterrupted run of TINY."""
    return train(TINY, tmp_path_factory.mktemp("whole") / "run", data=data, console=quiet())


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def weights(path) -> dict:
    return Folder(path).newest().tensors


def same(a, b) -> bool:
    x, y = weights(a), weights(b)
    return x.keys() == y.keys() and all(torch.equal(x[g][k], y[g][k]) for g in x for k in x[g] | y[g])


# -- turns ------------------------------------------------------------------------------------------------------------


class Number(nn.Module):
    def __init__(self, value: float):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(value))


class Chase:
    """`a` is drawn to `b` plus the batch mean, then `b` to `a`: each loss depends on both."""

    def __init__(self):
        self.players = {"a": Number(0.0), "b": Number(1.0)}
        self.seen = []

    def turns(self, batch, noise):
        a, b = self.players["a"].w, self.players["b"].w
        yield Turn("a", (a - b - batch.x).square(), {"gap": (a - b).abs()})
        self.seen.append((a.item(), b.item()))
        yield Turn("b", (b - a - noise.uniform(len(batch.x))).square(), {"gap": (a - b).abs()})

    def state(self):
        return {}

    def load_state(self, state):
        pass


def feed(first: int, n: int) -> Batch:
    return Batch(Noise(3, first).normal(n), None, torch.arange(first, first + n))


def chase(**settings) -> TrainingState:
    training = TrainingState(
        Chase(), {"a": PlayerConfig(lr=0.1, warmup=0, clip=None), "b": PlayerConfig(lr=0.01, warmup=0, clip=None)}
    )
    fit(training, feed, FitConfig(**settings), CPU)
    return training


def test_a_turn_moves_its_player_only_and_the_next_turn_sees_it():
    training = chase(batch=4, steps=1)
    ((a, b),) = training.objective.seen
    assert a != 0.0  # moved between the two yields
    assert b == 1.0  # and nobody else did
    assert training.players["b"].module.w.item() != 1.0
    assert training.players["a"].module.w.item() == a
    assert all(p.module.w.grad is None for p in training.players.values())
    # the first Adam step is lr * sign(gradient), whatever its size
    assert abs(a) == pytest.approx(0.1, rel=1e-3)
    assert abs(training.players["b"].module.w.item() - 1) == pytest.approx(0.01, rel=1e-3)


def test_micro_batches_add_up_to_the_batch():
    one, four = (chase(batch=16, steps=20, accumulate=k) for k in (1, 4))
    for name in ("a", "b"):
        torch.testing.assert_close(one.players[name].module.w, four.players[name].module.w, rtol=1e-5, atol=1e-6)
    assert len(four.objective.seen) == 4 * 20
    assert four.turns == 40


def test_every_player_keeps_its_own_clock_and_rate():
    objective = Chase()
    objective.turns = lambda batch, noise: iter(
        [Turn("a", broken(objective, batch)), Turn("b", objective.players["b"].w.expand(len(batch.x)))]
    )

    def broken(objective, batch):
        bad = 0 in batch.rows  # the very first sample only
        return objective.players["a"].w.square().expand(len(batch.x)) * (float("nan") if bad else 1.0)

    training = TrainingState(objective, {"a": PlayerConfig(warmup=10), "b": PlayerConfig(lr=1.0, warmup=0, decay=2)})
    seen = []
    watch = SimpleNamespace(after=lambda t, outcomes: seen.append(outcomes))
    fit(training, feed, FitConfig(batch=4, steps=8), CPU, watch)
    assert (training.players["a"].updates, training.players["b"].updates) == (7, 8)
    assert training.skipped == 1
    assert [o.skipped for o in seen[0]] == [True, False]
    assert [o.skipped for o in seen[1]] == [False, False]
    assert seen[-1][0].lr == pytest.approx(1e-3 * 7 / 10)
    assert seen[-1][1].lr == pytest.approx(0.5)  # sqrt(2/8)


def test_players_and_settings_must_match():
    with pytest.raises(ConfigError, match=r"\['a'\].*\['a', 'b'\]"):
        TrainingState(Chase(), {"a": PlayerConfig()})


def test_clipping_bounds_the_gradient_not_the_reported_norm():
    moved = []
    for clip in (None, 1e-3):
        objective = Chase()
        training = TrainingState(
            objective, {k: PlayerConfig(lr=0.1, betas=(0.0, 0.999), warmup=0, clip=clip) for k in "ab"}
        )
        seen = []
        watch = SimpleNamespace(after=lambda t, outcomes, seen=seen: seen.extend(outcomes))
        fit(training, feed, FitConfig(batch=4, steps=1), CPU, watch)
        moments = training.players["a"].optimizer.state[training.players["a"].module.w]
        moved.append((seen[0].grad, float(moments["exp_avg"].abs())))
    assert moved[0][0] == moved[1][0] > 0.01
    assert moved[1][1] == pytest.approx(1e-3, rel=1e-4)
    assert moved[0][1] == pytest.approx(moved[0][0], rel=1e-4)


# -- data order -------------------------------------------------------------------------------------------------------


def test_every_epoch_is_a_new_permutation_and_a_function_of_the_sample_number(data):
    stream = Batches(data, seed=4, device=CPU.device)
    n = len(data)
    first, second = stream.rows(0, n), stream.rows(n, n)
    assert torch.equal(first.sort().values, torch.arange(n))
    assert torch.equal(second.sort().values, torch.arange(n))
    assert (first == second).float().mean() < 10 / n  # two independent permutations agree in one place on average
    for at, k in ((0, 1), (n - 3, 7), (n // 2, 64)):
        assert torch.equal(torch.cat([first, second])[at : at + k], Batches(data, 4, CPU.device).rows(at, k))
    assert not torch.equal(first, Batches(data, 5, CPU.device).rows(0, n))
    assert len(stream.rows(5, 3 * n)) == 3 * n  # a batch larger than the data


def test_half_the_images_are_mirrored_and_always_the_same_ones():
    digits = dataclasses.replace(df.data.load("digits"), flip=True)
    stream = Batches(digits, 0, CPU.device)
    batch = stream(100, 400)
    plain, _ = digits.batch(batch.rows)
    flipped = (batch.x != plain).flatten(1).any(1)
    assert torch.equal(batch.x[flipped], plain[flipped].flip(-1))
    assert abs(int(flipped.sum()) - 200) < 4.5 * 10  # sd of Binomial(400, 1/2) is 10
    torch.testing.assert_close(stream(150, 7).x, batch.x[50:57], rtol=0, atol=0)


# -- runs that survive ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 17, 39])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path, data, whole, cut):
    path = train(replace(TINY, {"fit.steps": cut}), tmp_path / "run", data=data, console=quiet())
    assert not same(path, whole)
    train(TINY, path, resume="auto", data=data, console=quiet())
    assert same(path, whole)
    lines, wanted = (
        [{k: v for k, v in line.items() if k not in ("seconds", "rate")} for line in Folder(p).lines()]
        for p in (path, whole)
    )
    assert [line["step"] for line in wanted] == list(range(5, 41, 5))
    assert {line["step"]: line["images"] for line in lines if line["step"] % 5 == 0} == {
        line["step"]: line["images"] for line in wanted
    }


def test_an_objective_s_own_state_is_part_of_the_checkpoint(tmp_path):
    class Pool(Chase):
        """Keeps particles: each step moves them and the players follow."""

        pool = torch.zeros(3)

        def turns(self, batch, noise):
            self.pool = 0.9 * self.pool + self.players["a"].w.detach() + noise.normal(3)
            for name in ("a", "b"):
                yield Turn(name, (self.players[name].w - self.pool).square())

        def state(self):
            return {"pool": self.pool}

        def load_state(self, state):
            self.pool = state["pool"]

    def play(steps: int, saved=None) -> TrainingState:
        training = TrainingState(Pool(), {"a": PlayerConfig(lr=0.1), "b": PlayerConfig(lr=0.01)})
        if saved is not None:
            training.restore(saved)
        fit(training, feed, FitConfig(batch=4, steps=steps), CPU)
        return training

    half, whole = play(5), play(12)
    saved = checkpoint.load(checkpoint.save(tmp_path, 5, half.tensors(), half.state()))
    resumed = play(12, saved)
    assert {k: v for k, v in resumed.state().items() if k not in ("seconds", "cpu_seconds")} == {
        k: v for k, v in whole.state().items() if k not in ("seconds", "cpu_seconds")
    }
    for group, tensors in whole.tensors().items():
        assert tensors.keys() == resumed.tensors()[group].keys()
        assert all(torch.equal(v, resumed.tensors()[group][k]) for k, v in tensors.items())
    other = Pool()
    other.players = {"a": Number(0.0), "c": Number(0.0)}
    training = TrainingState(other, {"a": PlayerConfig(), "c": PlayerConfig()})
    with pytest.raises(checkpoint.CheckpointError, match="does not fit this configuration"):
        training.restore(saved)


def test_resuming_a_corrupt_run_takes_the_older_checkpoint_and_says_so(tmp_path, data, whole):
    path = train(replace(TINY, {"fit.steps": 10}), tmp_path / "run", data=data, console=quiet())
    train(replace(TINY, {"fit.steps": 20}), path, resume="auto", data=data, console=quiet())
    bad = path / "checkpoints" / "00000020" / "players.safetensors"
    content = bytearray(bad.read_bytes())
    content[-1] ^= 1
    bad.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match="sha256"):
        train(TINY, path, resume=bad.parent, data=data, console=quiet())
    console = quiet()
    train(TINY, path, resume="auto", data=data, console=console)
    assert "skipped" in console.file.getvalue()
    assert "set aside" in console.file.getvalue()
    assert "00000020" in console.file.getvalue()
    assert same(path, whole)
    # the corrupt one counted for nothing: what the resumed run wrote, and what it went on from, are the two that stay
    assert [p.name for p in checkpoint.listed(path / "checkpoints")] == ["00000010", "00000040"]


@pytest.mark.parametrize("manifest", ["[]", "null", "{}", '{"state.json": 3}'])
def test_a_manifest_of_another_shape_is_skipped_too(tmp_path, data, whole, manifest):
    path = train(replace(TINY, {"fit.steps": 38}), tmp_path / "run", data=data, console=quiet())
    train(replace(TINY, {"fit.steps": 39}), path, resume="auto", data=data, console=quiet())
    (path / "checkpoints" / "00000039" / "manifest.json").write_text(manifest)
    console = quiet()
    train(TINY, path, resume="auto", data=data, console=console)
    assert "00000039: its manifest.json is corrupt" in console.file.getvalue()
    assert same(path, whole)


def test_a_run_keeps_what_it_writes_after_going_back(tmp_path, data):
    """The newest checkpoint is always of the branch that is trained now, also when it was pruned to one."""
    path = train(replace(TINY, {"fit.steps": 30}), tmp_path / "run", data=data, console=quiet())
    train(replace(TINY, {"fit.steps": 35}), path, resume="auto", data=data, console=quiet())
    back = replace(TINY, {"fit.steps": 32, "fit.keep": 1})
    train(back, path, resume=path / "checkpoints" / "00000030", data=data, console=quiet())
    assert Folder(path).newest().state["step"] == 32
    assert [p.name for p in checkpoint.listed(path / "checkpoints")] == ["00000032"]


def test_an_explicit_checkpoint_must_be_of_this_run(tmp_path, data, whole):
    path = train(replace(TINY, {"fit.steps": 10}), tmp_path / "run", data=data, console=quiet())
    train(replace(TINY, {"fit.steps": 20}), path, resume="auto", data=data, console=quiet())
    train(TINY, path, resume=path / "checkpoints" / "00000010", data=data, console=quiet())
    assert same(path, whole)
    with pytest.raises(RunError, match="--init-from"):
        train(TINY, path, resume=whole / "checkpoints" / "00000040", data=data, console=quiet())


def test_a_finished_run_can_be_extended_and_asking_again_changes_nothing(tmp_path, data, whole):
    path = train(replace(TINY, {"fit.steps": 20}), tmp_path / "run", data=data, console=quiet())
    assert Folder(path).about()["finished"]
    train(TINY, path, resume="auto", data=data, console=quiet())
    train(TINY, path, resume="auto", data=data, console=quiet())
    assert same(path, whole)


def test_ctrl_c_writes_a_checkpoint_and_the_run_goes_on_from_it(tmp_path, data, whole):
    assert threading.current_thread() is threading.main_thread()
    old = signal.getsignal(signal.SIGTERM)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        path = tmp_path / str(code)
        timer = None

        def sender(line=None, number=number):
            os.kill(os.getpid(), number)

        console = quiet()
        original = Folder.snapshot
        try:
            Folder.snapshot = lambda self, step, *rest, **how: sender() if step == 16 else None
            with pytest.raises(Interrupted, match="--resume auto") as error:
                train(TINY, path, data=data, console=console)
        finally:
            Folder.snapshot = original
        assert timer is None
        back = pickle.loads(pickle.dumps(error.value))  # as it comes out of a worker process
        assert (str(back), back.code) == (str(error.value), code)
        assert Folder(path).newest().state["step"] == 17  # the step in which the vote was taken is finished first
        assert not Folder(path).about()["finished"]
        train(TINY, path, resume="auto", data=data, console=quiet())
        assert same(path, whole)
    assert signal.getsignal(signal.SIGTERM) is old


def test_minutes_end_a_run_and_count_resumed_parts(tmp_path, data):
    config = replace(TINY, {"fit.steps": None, "fit.minutes": 0.01})
    path = train(config, tmp_path / "run", data=data, console=quiet())
    state = Folder(path).newest().state
    assert state["seconds"] >= 0.6
    assert state["step"] > 1
    train(config, path, resume="auto", data=data, console=quiet())
    assert Folder(path).newest().state["step"] == state["step"]
    with pytest.raises(ConfigError, match=r"--steps, --minutes or --cpu-minutes"):
        train(replace(TINY, {"fit.steps": None}), tmp_path / "other", data=data)


def test_resuming_with_changed_settings_names_them(tmp_path, data, whole):
    before = (whole / "config.yaml").read_text()
    with pytest.raises(ConfigError, match=r"denoiser.lr, fit.batch differ"):
        train(replace(TINY, {"denoiser.lr": 1.0, "fit.batch": 64}), whole, resume="auto", data=data, console=quiet())
    with pytest.raises(RunError, match="data have changed"):
        train(TINY, whole, resume="auto", data=df.data.load("moons"), console=quiet())
    assert (whole / "config.yaml").read_text() == before


def test_an_occupied_directory_is_never_overwritten(tmp_path, data, whole):
    with pytest.raises(RunError, match="--resume auto"):
        train(TINY, whole, data=data, console=quiet())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="exists"):
        train(TINY, tmp_path / "file", data=data, console=quiet())
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        train(TINY, tmp_path / "folder", resume="auto", data=data, console=quiet())
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigError, match="exclude"):
        train(TINY, whole, resume="auto", init_from=whole, data=data, console=quiet())
    with pytest.raises(ConfigError, match=r"data.source is empty"):
        train(replace(TINY, {"data.source": ""}), tmp_path / "new", console=quiet())
    assert not (tmp_path / "new").exists()


def test_a_run_can_start_from_another_s_weights(tmp_path, data, whole):
    path = train(
        replace(TINY, {"fit.steps": 1, "denoiser.lr": 1e-9}),
        tmp_path / "run",
        init_from=whole,
        data=data,
        console=quiet(),
    )
    own, old = df.load(path, raw=True, device="cpu").denoiser, df.load(whole, device="cpu").denoiser
    for a, b in zip(own.parameters(), old.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)
    wide = replace(TINY, {"model.net.width": 32})
    with pytest.raises(ConfigError, match="do not fit"):
        train(wide, tmp_path / "wide", init_from=whole, data=data, console=quiet())
    with pytest.raises(RunError, match="no such run"):
        train(TINY, tmp_path / "none", init_from=tmp_path / "nowhere", data=data, console=quiet())
    assert not (tmp_path / "wide").exists()


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_three_broken_steps_in_a_row_end_the_run_with_the_batch_written_down(tmp_path, data):
    config = replace(TINY, {"denoiser.lr": 1e38, "denoiser.warmup": 0})
    with pytest.raises(NonFinite, match=r"3 turns in a row.*denoiser\.lr"):
        train(config, tmp_path / "run", data=data, console=quiet())
    batch = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert batch["player"] == "denoiser"
    assert len(batch["rows"]) == 32
    assert set(batch["rows_with_nonfinite_loss"]) <= set(batch["rows"])
    assert not Folder(tmp_path / "run").about()["finished"]


@pytest.mark.parametrize(("bad", "ends"), [((10, 20, 90), None), ((10, 20, 90, 130), 131), ((3, 4, 5), 6)])
def test_single_broken_steps_are_skipped_up_to_one_in_a_hundred(bad, ends):
    class Sometimes(Chase):
        def turns(self, batch, noise):
            value = float("inf") if int(batch.rows[0]) // 4 in bad else 1.0
            yield Turn("a", (self.players["a"].w - batch.x).square() * value)

    objective = Sometimes()
    objective.players = {"a": Number(0.0)}
    training = TrainingState(objective, {"a": PlayerConfig()})
    settings = FitConfig(batch=4, steps=300)
    if ends is None:
        fit(training, feed, settings, CPU)
        assert training.players["a"].updates == 300 - len(bad)
    else:
        with pytest.raises(NonFinite) as error:
            fit(training, feed, settings, CPU)
        assert training.turns == ends
        assert error.value.batch["rows"] == list(range(4 * (ends - 1), 4 * ends))
        back = pickle.loads(pickle.dumps(error.value))  # as it comes out of a worker process
        assert (str(back), back.batch) == (str(error.value), error.value.batch)
    assert training.players["a"].module.w.isfinite()


def test_out_of_memory_is_answered_with_what_to_change():
    class Big(Chase):
        def turns(self, batch, noise):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            yield

    training = TrainingState(Big(), {"a": PlayerConfig(), "b": PlayerConfig()})
    with pytest.raises(
        OutOfMemory,
        match=r"cpu ran out of memory with 6 samples.*--fit.accumulate 2 \(same result, 3 samples.*--fit.batch 3.*bf16",
    ):
        fit(training, feed, FitConfig(batch=6, steps=1), CPU)
    with pytest.raises(OutOfMemory, match=r"needs less: --fit.batch 3"):  # what bears no micro-batches is not told to
        fit(training, feed, FitConfig(batch=6, steps=1), CPU, whole_batch=True)


def test_a_batch_that_does_not_divide_is_refused():
    training = TrainingState(Chase(), {"a": PlayerConfig(), "b": PlayerConfig()})
    with pytest.raises(ConfigError, match="batch = 6 must be a multiple of accumulate x processes = 2 x 2"):
        fit(training, feed, FitConfig(batch=6, accumulate=2, steps=1), Process(CPU.device, 0, 2))


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, data, whole, monkeypatch):
    path = train(replace(TINY, {"fit.steps": 10}), tmp_path / "run", data=data, console=quiet())
    write = checkpoint.write

    def full(file, content):
        if file.name == "optimizer.safetensors":
            raise OSError(28, "No space left on device")
        write(file, content)

    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(checkpoint.CheckpointError, match=r"full.*00000010, is intact"):
        train(TINY, path, resume="auto", data=data, console=quiet())
    monkeypatch.undo()
    assert [p.name for p in (path / "checkpoints").iterdir()] == ["00000010"]
    train(TINY, path, resume="auto", data=data, console=quiet())
    assert same(path, whole)


def test_a_full_disk_names_the_file_and_the_way_on(tmp_path, data, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_synced", full)
    with pytest.raises(RunError, match=r"could not write .*run\.json: No space.* is full .*--resume auto"):
        train(TINY, tmp_path / "run", data=data, console=quiet())


# -- what a run leaves ------------------------------------------------------------------------------------------------


def test_a_run_directory_holds_what_the_conventions_say(whole):
    names = {p.name for p in whole.iterdir()}
    assert {"config.yaml", "run.json", "metrics.jsonl", "samples", "checkpoints", "ema"} <= names
    assert [p.name for p in (whole / "samples").iterdir()] == ["000040.png"]
    about = Folder(whole).about()
    assert {"torch", "python", "git", "command", "data", "parameters", "finished"} <= about.keys()
    last = Folder(whole).lines()[-1]
    assert {"step", "images", "seconds", "rate", "loss", "grad", "lr", "skipped", "log"} == last.keys()
    assert last["step"] == 40
    assert last["images"] == 40 * 32
    assert last["grad"]["denoiser"] > 0
    assert Folder(whole).config() == TINY
    assert not list(whole.rglob(".*"))


def test_progress_is_shown_on_terminals_and_in_logs(tmp_path, data, monkeypatch):
    screen = Console(file=io.StringIO(), width=200, force_terminal=True)
    train(TINY, tmp_path / "run", data=data, console=screen)
    assert "examples/s" in screen.file.getvalue()
    log = quiet()
    monkeypatch.setattr(record, "LINE_SECONDS", 0.0)
    train(TINY, tmp_path / "log", data=data, console=log)
    about, *lines = log.file.getvalue().splitlines()
    assert about.startswith(f"data     {data.name}: {len(data):,} rows of 2 columns")  # what is learned is said first
    first = next(line for line in lines if line.startswith("step"))
    assert first.startswith("step 5  denoiser")
    assert "examples/s" in first
    assert "min left" in first


def test_a_short_training_warns_of_its_average(tmp_path, data):
    console = quiet()
    train(replace(TINY, {"fit.steps": 6, "denoiser.warmup": 5}), tmp_path / "run", data=data, console=console)
    said = [line for line in console.file.getvalue().splitlines() if line.startswith("warning: a short training")]
    assert len(said) == 1  # in one line, however many averages there are
    assert "warm-up steps, of 6" in said[0]


def test_a_torn_last_line_of_metrics_is_forgotten(tmp_path, data, whole):
    path = train(replace(TINY, {"fit.steps": 10}), tmp_path / "run", data=data, console=quiet())
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"step": 15, "ima')
    train(TINY, path, resume="auto", data=data, console=quiet())
    assert [line["step"] for line in Folder(path).lines()] == list(range(5, 41, 5))


@pytest.mark.parametrize("settings", [{"fit.precision": "bf16"}, {"fit.accumulate": 4}])
def test_options_learn_the_same_thing(tmp_path, data, whole, settings):
    """bf16 autocast is a perturbation of relative size 2^-8 of each activation, micro-batches one of rounding only."""
    path = train(replace(TINY, settings), tmp_path / "run", data=data, console=quiet())
    a, b = (weights(p)["players"] for p in (path, whole))
    moved = max(
        float((v - weights(whole)["ema"][k.replace("denoiser/", "denoiser/0.1/", 1)]).abs().max())
        for k, v in b.items()
        if v.dtype == torch.float32 and "frequencies" not in k
    )
    worst = max(float((a[k] - b[k]).abs().max()) for k in a)
    assert worst < (1e-4 if "fit.accumulate" in settings else max(0.05, moved))
    assert weights(path)["players"].keys() == b.keys()
