"""kill -9 a training at random moments, resume it each time, and compare the final weights with an uninterrupted run,
bit by bit.

    python tests/training/kill.py [how many kills, default 10] [seed]

Called with a directory instead (by itself), it trains there until done or killed.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS_PER_KILL = 1000  # more than a machine trains between two kills, so that every one hits a running training


def child(path: str, steps: int) -> None:
    import torch

    from diffflow.training.config import DataConfig, FitConfig, MLPConfig, ModelConfig, PlayerConfig, ScoreConfig
    from diffflow.training.fit import train

    torch.set_num_threads(1)
    config = ScoreConfig(
        DataConfig("8gaussians"),
        ModelConfig(MLPConfig(width=32, depth=1, embed=8)),
        denoiser=PlayerConfig(lr=3e-3, warmup=5, decay=50),
        fit=FitConfig(
            batch=64, steps=steps, log_every=20, checkpoint_minutes=0.002, sample_minutes=0.01, tensorboard=False
        ),
    )
    train(config, path, resume="auto")


def start(path: Path, steps: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, __file__, str(path), str(steps)], stderr=subprocess.PIPE, text=True)


def finish(path: Path, steps: int) -> dict:
    """Train to the end; the final tensors."""
    from diffflow.training.folder import Folder

    process = start(path, steps)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(errors)
    saved = Folder(path).newest()
    if saved.state["step"] != steps or not Folder(path).about()["finished"]:
        raise RuntimeError(f"{path} is not finished: {saved.state}")
    return saved.tensors


def newest(path: Path) -> str:
    return max((p.name for p in (path / "checkpoints").glob("[0-9]*")), default="")


def kill_once(path: Path, steps: int, chance: random.Random) -> str:
    """Resume, wait until the run has saved something new (or, one time in four, only a moment), then kill it a random
    moment later.
    """
    process, before = start(path, steps), newest(path)
    if chance.random() < 0.25:
        time.sleep(3 * chance.random())
    else:
        while newest(path) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(0.5 * chance.random())
    if process.poll() is not None:
        raise SystemExit(f"the training ended before it could be killed: {process.communicate()[1]}")
    process.kill()
    process.communicate()
    return newest(path)


def check(kills: int, seed: int) -> None:
    """Raise unless a run killed `kills` times ends in the same bits as one that was left alone."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        chance, steps = random.Random(seed), STEPS_PER_KILL * kills
        wanted = finish(Path(folder) / "whole", steps)
        for k in range(kills):
            print(
                f"kill {k + 1}: last whole checkpoint {kill_once(Path(folder) / 'killed', steps, chance) or 'none'}",
                flush=True,
            )
        got = finish(Path(folder) / "killed", steps)
        same = all(torch.equal(wanted[g][k], got[g][k]) for g in wanted for k in wanted[g] | got[g])
        if not same:
            raise SystemExit("the resumed run differs from the uninterrupted one")
        print(f"{kills} kills: {sum(len(g) for g in got.values())} tensors bit-identical to the uninterrupted run")


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].isdecimal():
        child(sys.argv[1], int(sys.argv[2]))
    else:
        check(*(int(v) for v in [*sys.argv[1:], *("10", "0")[len(sys.argv) - 1 :]]))
