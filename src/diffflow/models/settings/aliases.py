"""Aliases: names from before 0.1.0, and what they are called now.

Every alias of the library lives in this table, for one release. Files of saved runs are read through it without a word;
settings, flags and names of `df` that people write are understood with a warning that names the new one.
"""

from __future__ import annotations

import pkgutil
import warnings
from collections.abc import Sequence
from typing import Any

from ...registry import suggest

# Dataclasses that `type` names in a config.yaml
TYPES = {
    "MLPCriticConfig": "MLPDiscriminatorConfig",
    "ConvCriticConfig": "ConvDiscriminatorConfig",
    "UNetCriticConfig": "UNetDiscriminatorConfig",
}

# Settings, by the dataclass that holds them
SETTINGS = {
    "DiffusionGANConfig": {"critic": "discriminator_net"},
    "LikelihoodConfig": {"critic": "discriminator_net"},
    "DistillConfig": {
        "critic": "discriminator_net",
        "penalised": "penalty_share",
        "instance": "instance_noise",
        "lead": "teacher_first_steps",
        "fine": "teacher_steps",
    },
    "PathConfig": {"spread": "start_width"},
}

# Keys of what run.json says of the data, and the last parts of keys in metrics.jsonl
META = {"spread": "principal_std"}
LOGS = {"spread": "std_ratio"}

# Names of `df`: what they are called now, or where they are
PUBLIC = {
    "jump": "diffflow.snr_grid",
    "fields": "diffflow.equation.fields",
    "noise": "diffflow.equation.noise",
    "plan": "diffflow.sampling.plan",
    "references": "diffflow.equation.papers",
    "schedule": "diffflow.equation.schedule",
    "sde": "diffflow.equation.sde",
    "spectrum": "diffflow.equation.spectrum",
    "CriticRatio": "diffflow.DiscriminatorRatio",
    "recipes": "diffflow.models.presets",
    "diagnostics": "diffflow.sampling.convergence",
    "bounds": "diffflow.likelihood.elbo",
    "kernels": "diffflow.equation.kernels",
    "laws": "diffflow.equation.laws",
    "solvers": "diffflow.sampling.solvers",
    "flows": "diffflow.models.flows",
}


class OldName(FutureWarning):
    """A name that is understood for one release more."""


def public(name: str, names: Sequence[str]) -> Any:
    """What an old name of `df` stands for now, with a warning.

    Args:
        name: an attribute of `diffflow` that is none of its names.
        names: the names that there are.

    Raises:
        AttributeError: neither an old name nor a present one; the message has the nearest of these.
    """
    if name not in PUBLIC:
        other_case = next((other for other in names if other.lower() == name.lower()), None)
        hint = f"; did you mean {other_case!r}?" if other_case else suggest(name, names).partition("; known are")[0]
        raise AttributeError(f"module 'diffflow' has no attribute {name!r}{hint}")
    new = PUBLIC[name]
    warnings.warn(f"diffflow.{name} is {new} now; the old name goes with the next release", OldName, stacklevel=3)
    return pkgutil.resolve_name(new)


def setting_name(owner: type, key: str) -> str:
    """The present name of a setting of a dataclass; warns of an old one.

    Args:
        owner: the dataclass.
        key: the name of one of its fields, now or before.
    """
    for kind in owner.__mro__:
        if key in SETTINGS.get(kind.__name__, ()):
            new = SETTINGS[kind.__name__][key]
            warnings.warn(
                f"the setting {key!r} is called {new!r} now; the old name goes with the next release", OldName
            )
            return new
    return key


def flags(args: Sequence[str]) -> list[str]:
    """The words of a command line with the present names of settings; warns of old ones, such as --critic.width."""
    renamed = {key: new for table in SETTINGS.values() for key, new in table.items()}
    words = []
    for word in args:
        name, equals, value = word.partition("=")
        parts = name.removeprefix("--").replace("-", "_").split(".")
        top = parts[:2] if parts[0] == "path" else parts[:1]  # where the renamed settings are
        if name.startswith("--") and top[-1] in renamed and (top[0] == "path") == (renamed[top[-1]] == "start_width"):
            parts[len(top) - 1] = renamed[top[-1]]
            new = "--" + ".".join(parts).replace("_", "-")
            warnings.warn(f"the flag {name} is called {new} now; the old name goes with the next release", OldName)
            word = new + equals + value
        words.append(word)
    return words


def type_name(name: str) -> str:
    """The present name of a dataclass that a `type` names; warns of an old one."""
    if name not in TYPES:
        return name
    warnings.warn(f"the type {name} is called {TYPES[name]} now; the old name goes with the next release", OldName)
    return TYPES[name]
