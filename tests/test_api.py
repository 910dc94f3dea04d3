"""The public names are there, and cost nothing before they are used."""

import json
import subprocess
import sys

import diffflow as df

# what `import diffflow` leaves to first use
HEAVY = {
    "matplotlib",
    "scipy",
    "sklearn",
    "PIL",
    "ot",
    "numpy",
    "torch",
    "torchdiffeq",
    "diffusers",
    "accelerate",
    "rich",
    "tyro",
    "yaml",
}


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, json; before = set(sys.modules); import diffflow; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    brought = json.loads(done.stdout)
    assert not HEAVY & {name.partition(".")[0] for name in brought}
    assert [name for name in brought if name.startswith("diffflow")] == ["diffflow"]


def test_every_public_name_is_there():
    assert len(set(df.__all__)) == len(df.__all__)
    for name in df.__all__:
        assert getattr(df, name) is not None
    assert df.GAMES["hinge"].name == "hinge"
    assert callable(df.sample)  # although the package has modules of these names
    assert callable(df.calibrate)
    assert df.models.MODELS["gan"].generator
