"""A few kill -9 at random moments for each kind of state; `python tests/training/kill.py 10 0 MODEL` does ten."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))
import kill


@pytest.mark.parametrize(
    ("model", "kills"),
    [("score", 2), ("pictures", 1), ("discriminator-flow", 1), ("improved-gan", 1), ("score-gan", 1)],
)
def test_a_killed_run_ends_in_the_same_bits(model, kills, capsys):
    threads = torch.get_num_threads()
    try:
        kill.check(kills, 2, model)  # only what is killed needs a process of its own
    finally:
        torch.set_num_threads(threads)
    assert "bit-identical" in capsys.readouterr().out
