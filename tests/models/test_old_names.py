"""Old names are understood with a word about the new one, and files of old runs without any."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest

import diffflow as df
from diffflow.models.settings import aliases
from diffflow.models.settings.serialise import ConfigError, families, from_dict, from_yaml, replace
from diffflow.training.run_folder import Folder

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


def test_the_example_of_the_changelog_loads() -> None:
    text = re.search(r"```yaml\n(.*?)```", CHANGELOG.read_text(), flags=re.S)
    assert text is not None
    with pytest.warns(aliases.OldName) as said:
        config = from_yaml(text[1])
    assert config == replace(
        df.DistillConfig(),
        {"discriminator_net": df.UNetDiscriminatorConfig(0.3), "penalty_share": 0.25, "instance_noise": 0.08},
    )
    assert len(said) == 6  # five settings and a type
    assert "'critic' is called 'discriminator_net' now" in str(said[0].message)


def test_every_alias_leads_to_something_that_is_there() -> None:
    names = {kind.__name__: kind for kind in families().values()} | {"PathConfig": df.PathConfig}
    for owner, table in aliases.SETTINGS.items():
        for old, new in table.items():
            assert hasattr(names[owner](), new)
            assert not hasattr(names[owner], old) or old in ("critic",)
    for new in aliases.TYPES.values():
        assert hasattr(df, new)
    for old in aliases.PUBLIC:
        with pytest.warns(FutureWarning, match=old):
            assert getattr(df, old) is not None


def test_settings_and_types_of_old_are_understood_with_a_warning() -> None:
    with pytest.warns(aliases.OldName, match="start_width"):
        assert replace(df.DiscriminatorFlowConfig(), {"path.spread": 2.0}).path.start_width == 2.0
    net = {"model": {"net": {"type": "MLPCriticConfig", "width": 7}}}
    with pytest.warns(aliases.OldName, match="MLPDiscriminatorConfig"):
        assert from_dict({"type": "DiscriminatorFlowConfig"} | net).model.net.width == 7
    with pytest.raises(ConfigError, match="unknown setting"):
        replace(df.ScoreConfig(), {"critic.width": 7})  # it never had one


def test_flags_of_old_are_understood_with_a_warning() -> None:
    with pytest.warns(aliases.OldName) as said:
        new = aliases.flags(["--critic.width", "5", "--path.spread=2", "--lead", "3", "--data.source", "critic"])
    assert " ".join(new) == (
        "--discriminator-net.width 5 --path.start-width=2 --teacher-first-steps 3 --data.source critic"
    )
    assert len(said) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert aliases.flags(["--ratio", "1", "-n", "5"]) == ["--ratio", "1", "-n", "5"]


def test_files_of_old_runs_are_read_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("type: LikelihoodConfig\ncritic: {type: MLPCriticConfig, width: 9}\n")
    (tmp_path / "run.json").write_text(json.dumps({"data": {"spread": 2.5, "std": 1.0}}))
    line = {"step": 1, "log": {"generator/spread": 0.5, "discriminator/accuracy": 0.75}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = Folder(tmp_path)
        assert folder.config().discriminator_net == df.MLPDiscriminatorConfig(width=9)
        assert folder.about()["data"] == {"principal_std": 2.5, "std": 1.0}
        assert folder.lines()[0]["log"] == {"generator/std_ratio": 0.5, "discriminator/accuracy": 0.75}
