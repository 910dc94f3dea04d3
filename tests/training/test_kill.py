"""Three kill -9 at random moments; `python tests/training/kill.py` does ten."""

import subprocess
import sys
from pathlib import Path


def test_a_killed_run_ends_in_the_same_bits():
    script = Path(__file__).with_name("kill.py")
    done = subprocess.run([sys.executable, str(script), "3", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bit-identical" in done.stdout
