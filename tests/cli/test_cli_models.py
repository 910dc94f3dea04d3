"""`diffflow models`: the list, one model in full, and a misspelt one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from diffflow.cli import main
from diffflow.models.catalogue import MODELS


def test_the_list_has_every_model_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, model in MODELS.items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert model.needs.split()[0] in line
        assert (" yes " in line) == model.generator


@pytest.mark.parametrize("name", ["score-gan", "continuation", "svgd"])
def test_one_in_full(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", name]) == 0
    shown, model = capsys.readouterr().out, MODELS[name]
    assert model.cite() in shown
    assert all(command in shown.splitlines() for command in model.commands)
    assert model.setting in shown
    assert model.title in shown


def test_a_misspelt_name_is_helped(refused: Callable[..., str]) -> None:
    assert "unknown model 'scoregan'. Did you mean 'score-gan'?" in refused("models", "scoregan")
    assert "`diffflow models` lists them" in refused("models", "xyzzy")
