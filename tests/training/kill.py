"""kill -9 a training at random moments, resume it each time, and compare the final weights with an uninterrupted run,
bit by bit.

    python tests/training/kill.py [how many kills, default 10] [seed] [model, default score]

Models: score, pictures (Muon, rates that follow the budget), discriminator-flow (its pool of particles goes on),
improved-gan (independent discriminators), score-gan (the data's denoiser is kept). Called with a directory
instead (by itself), it trains there until done or killed.
"""

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# more than a machine trains between two kills, so that every one hits a running training
STEPS_PER_KILL = {"score": 600, "discriminator-flow": 150, "improved-gan": 150, "score-gan": 150, "pictures": 150}


FIT = {
    "fit": {
        "batch": 32, "minutes": None, "log_every": 20, "checkpoint_minutes": 0.002, "sample_minutes": 0.02,
        "tensorboard": False,
    }
}  # fmt: skip
DENOISER = {"model": {"net": {"width": 32, "depth": 1, "embed": 8}}, "denoiser": {"warmup": 5, "decay": 50}}
CRITIC = {"model": {"net": {"width": 16, "depth": 1}}, "path": {"steps": 5}}
MODELS = {
    "score": ("toy", DENOISER),
    "discriminator-flow": ("discriminator-flow", CRITIC),
    "improved-gan": ("improved-gan-independent", CRITIC | {"model": CRITIC["model"] | {"stages": 3}}),
    "score-gan": ("score-gan", {"model": DENOISER["model"]}),
    "pictures": ("pictures", {"model": {"net": {"widths": [8], "layers": 1, "stem": 1, "refine": 0}}}),
}


def settings(model: str, steps: int):
    from diffflow.models.presets import preset
    from diffflow.models.settings.serialise import from_dict, replace

    name, small = MODELS[model]
    source = "digits" if model == "pictures" else "8gaussians"
    config = replace(preset(name, source).config, {"data.source": source})
    return replace(from_dict(small | FIT, config), {"fit.steps": steps})


def child(path: str, model: str, steps: int, source: str | None = None) -> None:
    import torch

    from diffflow.training.train import train

    torch.set_num_threads(1)
    if source is None or newest(Path(path)):
        train(settings(model, steps), path, resume="auto")
    else:
        shutil.rmtree(path, ignore_errors=True)  # killed before the weights that it starts from were its own
        train(settings(model, steps), path, init_from=source)


def start(path: Path, model: str, steps: int, source: Path | None) -> subprocess.Popen:
    words = [sys.executable, __file__, str(path), model, str(steps), *([] if source is None else [str(source)])]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def finish(path: Path, model: str, steps: int, source: Path | None = None) -> dict:
    """Train to the end; the final tensors."""
    from diffflow.training.run_folder import Folder

    child(str(path), model, steps, None if source is None else str(source))
    saved = Folder(path).newest()
    if saved.state["step"] != steps or not Folder(path).about()["finished"]:
        raise RuntimeError(f"{path} is not finished: {saved.state}")
    return saved.tensors


def newest(path: Path) -> str:
    return max((p.name for p in (path / "checkpoints").glob("[0-9]*")), default="")


def kill_once(path: Path, model: str, steps: int, source: Path | None, chance: random.Random) -> str:
    """Resume, wait until the run has saved something new (or, one time in four, only a moment), then kill it a random
    moment later.
    """
    process, before = start(path, model, steps, source), newest(path)
    if chance.random() < 0.25:
        time.sleep(1.5 * chance.random())
    else:
        while newest(path) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(0.25 * chance.random())
    if process.poll() is not None:
        raise SystemExit(f"the training ended before it could be killed: {process.communicate()[1]}")
    process.kill()
    process.communicate()
    return newest(path)


def check(kills: int, seed: int, model: str) -> None:
    """Raise unless a run killed `kills` times ends in the same bits as one that was left alone."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        home, chance, steps, source = Path(folder), random.Random(seed), STEPS_PER_KILL[model] * kills, None
        if model == "score-gan":
            finish(source := home / "score", "score", 50)
        wanted = finish(home / "whole", model, steps, source)
        for k in range(kills):
            last = kill_once(home / "killed", model, steps, source, chance)
            print(f"kill {k + 1}: last whole checkpoint {last or 'none'}", flush=True)
        got = finish(home / "killed", model, steps, source)
        same = all(torch.equal(wanted[g][k], got[g][k]) for g in wanted for k in wanted[g] | got[g])
        if not same:
            raise SystemExit("the resumed run differs from the uninterrupted one")
        print(f"{kills} kills: {sum(len(g) for g in got.values())} tensors bit-identical to the uninterrupted run")


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].isdecimal():
        child(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
    else:
        kills, seed, model = [*sys.argv[1:], *("10", "0", "score")[len(sys.argv) - 1 :]]
        check(int(kills), int(seed), model)
