"""The public names are there, cost nothing before they are used, and editors know them too."""

import dataclasses
import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
import runpy
import subprocess
import sys
import types
import typing
from pathlib import Path

import pytest
import torch

import diffflow as df
from diffflow import objectives
from diffflow.equation import sde
from diffflow.models.settings import aliases
from diffflow.models.settings.serialise import families


def test_importing_loads_nothing_else():
    code = (
        "import sys, json, diffflow; dir(diffflow); assert not hasattr(diffflow, '__wrapped__'); "
        "print(json.dumps([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'diffflow')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["diffflow"]


def test_every_public_name_is_there():
    assert len(set(df.__all__)) == len(df.__all__)
    assert set(dir(df)) == set(df.__all__)
    for name in df.__all__:
        assert getattr(df, name) is not None
        assert getattr(df, name) is getattr(df, name)
    assert df.GAMES["hinge"].name == "hinge"
    assert df.discriminator_flow.__module__ == "diffflow.equation.spectrum"
    assert df.models.MODELS["gan"].generator
    assert df.SCHEDULES["vp"] is df.VP
    assert df.FORMS["v"]
    assert callable(df.sample)
    assert callable(df.train)


def test_no_name_is_taken_by_a_module_when_that_is_imported():
    """Importing diffflow.x binds the attribute x of diffflow: a public name of that spelling must be that module."""
    for name in df.__all__:
        if importlib.util.find_spec(f"diffflow.{name}") is not None:
            assert isinstance(getattr(df, name), types.ModuleType), name
            assert getattr(df, name).__name__ == f"diffflow.{name}"


def admitted(kind: type) -> set[type]:
    """The dataclasses that the fields of a dataclass admit, and theirs."""
    found = {kind}
    for hint in typing.get_type_hints(kind).values():
        for option in typing.get_args(hint) or (hint,):
            if inspect.isclass(option) and dataclasses.is_dataclass(option):
                found |= admitted(option)
    return found


def test_every_class_of_settings_is_a_public_name():
    ours = {kind for kind in families().values() if kind.__module__.startswith("diffflow.")}
    every = set().union(*map(admitted, ours))
    assert len(every) > 30
    assert [kind.__name__ for kind in every if getattr(df, kind.__name__, None) is not kind] == []


def test_networks_objectives_and_movers_are_public_names():
    """What has turns is an objective, what has learn and velocity a mover, what builds a network names it."""
    for module in pkgutil.walk_packages(objectives.__path__, "diffflow.objectives."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            mine = inspect.isclass(kind) and kind.__module__ == module.name and name[0] != "_"
            if mine and (hasattr(kind, "turns") or hasattr(kind, "velocity")):
                assert getattr(df, name) is kind
    judges = (df.MLPDiscriminator, df.ConvDiscriminator, df.UNetDiscriminator, df.FastUNetDiscriminator)
    for net in (df.MLP, df.UNet, df.FastUNet, df.MLPGenerator, df.ConvGenerator, *judges):
        assert issubclass(net, torch.nn.Module)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("smaple", "sample"), ("edm", "EDM"), ("GaussianMixtures", "GaussianMixture"), ("ScoreConfg", "ScoreConfig")],
)
def test_a_misspelt_name_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(AttributeError, match=f"module 'diffflow' has no attribute '{wrong}'; did you mean '{right}'"):
        getattr(df, wrong)
    with pytest.raises(AttributeError, match=r"no attribute 'xyzzy'$"):
        df.xyzzy


@pytest.mark.parametrize(
    ("new", "value"),
    [
        ("diffflow.sample", lambda: df.sample),
        ("diffflow.metrics", lambda: df.metrics),
        ("diffflow.equation.sde", lambda: sde),
        ("diffflow.equation.sde.Tally", lambda: sde.Tally),
    ],
)
def test_an_old_name_works_and_names_the_new_one(monkeypatch, new, value):
    monkeypatch.setitem(aliases.PUBLIC, "before", new)
    for _ in range(2):  # not only the first time
        with pytest.warns(aliases.OldName, match=f"^diffflow.before is {re.escape(new)} now; the old") as caught:
            assert df.before is value()
        assert caught[0].filename == __file__  # the line that is to be changed
    assert "before" not in df.__all__


def test_every_old_name_leads_somewhere_and_hides_no_new_one():
    assert not aliases.PUBLIC.keys() & set(df.__all__)
    for old in aliases.PUBLIC:
        with pytest.warns(aliases.OldName, match=f"diffflow.{old} is"):
            assert getattr(df, old) is not None


def test_the_stub_for_editors_is_the_table():
    made = runpy.run_path(str(Path(__file__).with_name("stub.py")))
    assert made["PATH"].read_text() == made["stub"](), "python tests/stub.py writes it anew"


def test_replace_takes_dotted_names_and_suggests():
    config = df.replace(df.ScoreConfig(), {"data.source": "moons", "fit.steps": 5, "model.net.layers": 3})
    assert (config.data.source, config.fit.steps, config.model.net.layers) == ("moons", 5, 3)
    with pytest.raises(ValueError, match=r"unknown setting 'fit\.step'; did you mean 'steps'\?"):
        df.replace(config, {"fit.step": 5})
