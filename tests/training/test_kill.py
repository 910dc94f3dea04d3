"""A few kill -9 at random moments for each kind of state; `python tests/training/kill.py 10 0 MODEL` does ten."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("model", "kills"), [("score", 2), ("discriminator-flow", 1), ("improved-gan", 1), ("score-gan", 1)]
)
def test_a_killed_run_ends_in_the_same_bits(model, kills):
    script = Path(__file__).with_name("kill.py")
    words = [sys.executable, str(script), str(kills), "2", model]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bit-identical" in done.stdout
