"""The wheel holds all that the program needs, and works from outside the tree that it was built from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_works_outside_the_tree(tmp_path: Path) -> None:
    """Built, installed into a folder of its own, and run from there: the demo without training, and the explorer's
    page."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(home), str(wheel)], check=True, capture_output=True)
    made = {p.relative_to(ROOT / "src") for p in (ROOT / "src/diffflow").rglob("*") if p.suffix not in ("", ".pyc")}
    assert {p for p in made if not (home / p).is_file()} == set()
    code = (
        "import sys, diffflow; from pathlib import Path; from diffflow.cli import main; "
        "from diffflow.explorer.server import STATIC; home = Path(sys.argv[1]); "
        "assert Path(diffflow.__file__).is_relative_to(home), diffflow.__file__; "
        "assert STATIC.is_relative_to(home) and (STATIC / 'index.html').is_file(); "
        "sys.exit(main(['demo', '--dry-run']))"
    )
    environment = os.environ | {"PYTHONPATH": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was trained or written" in done.stdout
    assert not (tmp_path / "runs").exists()
