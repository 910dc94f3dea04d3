"""Settings as plain values: to and from nested dictionaries, YAML and dotted keys.

A key nobody knows is an error with a suggestion, because a misspelt option that is silently ignored costs a night of
training. Where a field admits several dataclasses, `type` says which one it is; the family of models (`TrainConfig`'s
subclass) is the `type` at the top.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from ...registry import Registry, suggest
from . import aliases


class ConfigError(ValueError):
    """A setting that cannot be meant; the message names it and what would do."""


def require(ok: bool, what: str) -> None:
    """Raise ConfigError(what) unless ok."""
    if not ok:
        raise ConfigError(what)


def _classes(kind: Any) -> list[type]:
    """The dataclasses that a field's type admits."""
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [k for k in options if dataclasses.is_dataclass(k) and isinstance(k, type)]


FAMILIES: Registry[type] = Registry(
    {
        "ScoreConfig": "diffflow.models.diffusion",
        "DiscriminatorFlowConfig": "diffflow.models.discriminator_flow",
        "DiffusionGANConfig": "diffflow.models.diffusion_gan",
        "LikelihoodConfig": "diffflow.models.joint_likelihood",
        "GANConfig": "diffflow.models.gan",
        "ScoreGANConfig": "diffflow.models.score_gan",
        "FieldConfig": "diffflow.models.field_generator",
        "DistillConfig": "diffflow.models.distill",
    }
)  # families of models by name; `TrainConfig` enters its subclasses
DEFAULT = "ScoreConfig"  # the family of settings that name none


def to_dict(config: Any) -> dict[str, Any]:
    """A run's config as nested plain values; its first key, `type`, is the family."""
    return {"type": type(config).__name__} | _values(config)


def _values(config: Any) -> dict[str, Any]:
    """A dataclass as nested plain values; where a field admits several dataclasses, `type` says which it is."""
    out: dict[str, Any] = {}
    hints = get_type_hints(type(config))
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            tag = {"type": type(value).__name__} if len(_classes(hints[entry.name])) > 1 else {}
            out[entry.name] = tag | _values(value)
        else:
            out[entry.name] = list(value) if isinstance(value, tuple) else value
    return out


def _scalar(kind: Any, value: Any, path: str) -> Any:
    """`value` as the plain type `kind`, or ConfigError."""
    if get_origin(kind) in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        return _scalar(next(k for k in get_args(kind) if k is not type(None)), value, path)
    if get_origin(kind) is Literal:
        require(value in get_args(kind), f"{path} = {value!r} must be one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        require(isinstance(value, list | tuple), f"{path} = {value!r} must be a list")
        first, *more = get_args(kind)
        if more != [...]:
            require(len(value) == 1 + len(more), f"{path} = {value!r} must be a list of {1 + len(more)}")
        return tuple(_scalar(first, v, f"{path}[{i}]") for i, v in enumerate(value))
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # also the text "1e-3", which YAML 1.1 does not take for a number
        except (TypeError, ValueError):
            pass
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{path} = {value!r} must be of type {kind.__name__}")


def _read(base: Any, values: Any, path: str) -> Any:
    """`base` with the nested `values` put in."""
    require(isinstance(values, Mapping), f"{path or 'the configuration'} = {values!r} must be a mapping of settings")
    hints, names = get_type_hints(type(base)), [f.name for f in dataclasses.fields(base)]
    new = {}
    for key, value in values.items():
        here = f"{path}.{key}" if path else str(key)
        key = key if key in names else aliases.setting(type(base), str(key))
        require(key in names, f"unknown setting {here!r}{suggest(str(key), names)}")
        kinds = _classes(hints[key])
        if not kinds:
            new[key] = _scalar(hints[key], value, here)
            continue
        inner = getattr(base, key)
        if isinstance(value, Mapping) and len(kinds) > 1 and "type" in value:
            table = {k.__name__: k for k in kinds}
            tag = aliases.type_name(str(value["type"]))
            require(tag in table, f"{here}.type = {tag!r} is unknown{suggest(str(tag), list(table))}")
            inner = inner if type(inner) is table[tag] else table[tag]()
            value = {k: v for k, v in value.items() if k != "type"}
        new[key] = _read(inner, value, here)
    try:
        return dataclasses.replace(base, **new)
    except ConfigError:
        raise
    except ValueError as e:
        raise ConfigError(f"{path}: {e}") from e


def from_dict(values: Mapping[str, Any], base: Any = None) -> Any:
    """`base` (None: a denoiser's settings) with nested plain values put in; `type` names the family. Raises ConfigError
    for an unknown key, a wrong type or an impossible value."""
    if isinstance(values, Mapping) and "type" in values:
        family = values["type"]
        require(family in FAMILIES, f"type = {family!r} is no family of models{suggest(str(family), list(FAMILIES))}")
        base = base if type(base) is FAMILIES[family] else FAMILIES[family]()
        values = {k: v for k, v in values.items() if k != "type"}
    return _read(FAMILIES[DEFAULT]() if base is None else base, values, "")


def replace(config: Any, settings: Mapping[str, Any]) -> Any:
    """`config` with dotted keys set: replace(config, {"fit.steps": 100, "denoiser.lr": 3e-4})."""
    nested: dict[str, Any] = {}
    for dotted, value in settings.items():
        *parents, leaf = dotted.split(".")
        inner = nested
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[leaf] = value
    return from_dict(nested, config)


def to_yaml(config: Any) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def from_yaml(text: str, base: Any = None) -> Any:
    """`base` with the settings of a YAML text put in. Raises ConfigError."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(f"this is not YAML: {e}") from e
    return from_dict({} if values is None else values, base)


def load_yaml(path: str | Path, base: Any = None) -> Any:
    """`base` with the settings of a YAML file put in. Raises ConfigError, naming the file."""
    try:
        return from_yaml(Path(path).read_text(encoding="utf-8"), base)
    except (OSError, UnicodeDecodeError, ConfigError) as e:
        raise ConfigError(f"{path}: {e}") from e


FREE = (
    "fit.steps",
    "fit.minutes",
    "fit.log_every",
    "fit.checkpoint_minutes",
    "fit.sample_minutes",
    "fit.keep",
    "fit.tensorboard",
    "sampling",
)


def changed(old: Any, new: Any) -> list[str]:
    """Dotted keys in which two configurations differ, apart from those that leave the trained weights alone: FREE, but
    for those that the family trains by (`fixed`)."""

    def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in values.items():
            out |= flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
        return out

    a, b = flat(to_dict(old)), flat(to_dict(new))
    keys = [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
    return [k for k in keys if not k.startswith(FREE) or k in old.fixed]
