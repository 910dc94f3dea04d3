"""The public names are there, and cost nothing before they are used."""

import json
import subprocess
import sys

import diffflow as df

# what `import diffflow` leaves to first use; torch itself brings numpy and sympy
HEAVY = {
    "matplotlib",
    "scipy",
    "sklearn",
    "PIL",
    "ot",
    "torchdiffeq",
    "diffusers",
    "accelerate",
    "rich",
    "tyro",
    "yaml",
}


def test_importing_costs_little_more_than_torch():
    code = (
        "import sys, torch, json; before = set(sys.modules); import diffflow; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    brought = json.loads(done.stdout)
    assert not HEAVY & {name.partition(".")[0] for name in brought}
    rooms = {name.split(".")[1] for name in brought if name.startswith("diffflow.")}
    assert not rooms & {"networks", "training", "objectives", "models", "runs", "data", "metrics"}


def test_every_public_name_is_there():
    assert len(set(df.__all__)) == len(df.__all__)
    for name in df.__all__:
        assert getattr(df, name) is not None
    assert df.GAMES["hinge"].name == "hinge"
    assert df.discriminator_flow is df.discriminator_flow
    assert df.models.MODELS["gan"].generator
