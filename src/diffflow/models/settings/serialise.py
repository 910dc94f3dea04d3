"""Settings as plain values: to and from nested dictionaries, YAML and dotted names.

An unknown name is an error with a suggestion, because a misspelt option that is silently ignored costs a night of
training. Where a field admits several dataclasses, `type` says which one it is; the family of models (`TrainConfig`'s
subclass) is the `type` at the top.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pkgutil
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from ...registry import Registry, missing, name_of, suggest
from . import aliases


class ConfigError(ValueError):
    """A setting that cannot be meant; the message names it and what would do."""


def require(ok: bool, message: str) -> None:
    """Raise ConfigError with a message unless ok."""
    if not ok:
        raise ConfigError(message)


UNSAID: Mapping[str, bool] = {"unsaid": True}  # metadata of a field that files do not mention at its default
DEFAULT = "ScoreConfig"  # the family of settings that name none


def families() -> Registry[Any]:
    """The families of models by name: each file of models/ brings its own, and plug-ins bring others."""
    package = importlib.import_module("diffflow.models")
    for module in pkgutil.iter_modules(package.__path__, "diffflow.models."):
        importlib.import_module(module.name)
    return importlib.import_module("diffflow.models.base").TrainConfig.kinds


def settings_classes() -> dict[str, type]:
    """Every dataclass of settings by name: the library's families, and what their fields admit."""
    found: dict[str, type] = {}
    queue = [kind for name, kind in families().items() if ":" not in name]
    while queue:
        kind = queue.pop()
        if kind.__name__ not in found:
            found[kind.__name__] = kind
            queue += [part for hint in get_type_hints(kind).values() for part in _classes(hint).values()]
    return found


class Choice:
    """A part of the settings that comes in several kinds.

    A direct subclass is the part (`NetConfig`), and its subclasses, frozen dataclasses, are the kinds; a kind from
    outside the package is as good as ours.

    Attributes:
        kinds: of each part, its kinds by name.
    """

    kinds: ClassVar[Registry[Any]]

    def __init_subclass__(cls, kind: bool = True) -> None:
        if Choice in cls.__bases__:
            cls.kinds = Registry(getattr(cls, "called", cls.__name__))
        elif kind:
            cls.kinds.own(name_of(cls), cls)


def _classes(kind: Any) -> dict[str, type]:
    """The dataclasses that a field's type admits, by name; none for a plain value."""
    classes: dict[str, type] = {}
    for option in get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,):
        if isinstance(option, type) and Choice in option.__bases__:
            classes |= option.kinds
        elif dataclasses.is_dataclass(option) and isinstance(option, type):
            classes[option.__name__] = option
    return classes


def to_dict(config: Any) -> dict[str, Any]:
    """A run's settings as nested plain values; the first key, `type`, is the family."""
    return {"type": name_of(type(config))} | _plain_values(config)


def _plain_values(config: Any) -> dict[str, Any]:
    """A dataclass as nested plain values; where a field admits several dataclasses, `type` says which it is."""
    out: dict[str, Any] = {}
    hints = get_type_hints(type(config))
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if value == entry.default and entry.metadata.get("unsaid"):
            continue
        if dataclasses.is_dataclass(value):
            tag = {"type": name_of(type(value))} if len(_classes(hints[entry.name])) > 1 else {}
            out[entry.name] = tag | _plain_values(value)
        else:
            out[entry.name] = list(value) if isinstance(value, tuple) else value
    return out


def _scalar(kind: Any, value: Any, path: str) -> Any:
    """A value as a field's plain type has it. Raises ConfigError, naming the field (path), for another type."""
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
    if get_origin(kind) is dict:
        require(isinstance(value, Mapping), f"{path} = {value!r} must be a mapping")
        return dict(value)
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # also the text "1e-3", which YAML 1.1 does not take for a number
        except (TypeError, ValueError):
            pass
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{path} = {value!r} must be of type {kind.__name__}")


def _put_in(base: Any, values: Any, path: str) -> Any:
    """Settings with nested values put in. Raises ConfigError.

    Args:
        base: a dataclass.
        values: a mapping of its fields' names to plain values, mappings, or dataclasses.
        path: the dotted name of `base` in the whole; "" for the whole itself.
    """
    require(isinstance(values, Mapping), f"{path or 'the configuration'} = {values!r} must be a mapping of settings")
    hints, names = get_type_hints(type(base)), [f.name for f in dataclasses.fields(base)]
    changes = {}
    for key, value in values.items():
        dotted = f"{path}.{key}" if path else str(key)
        key = key if key in names else aliases.setting_name(type(base), str(key))
        require(key in names, f"unknown setting {dotted!r}{_suggest_setting(str(key), names, base, path)}")
        kinds = _classes(hints[key])
        if dataclasses.is_dataclass(value):  # built already
            wanted = ", ".join(kinds) or getattr(hints[key], "__name__", str(hints[key]))
            require(isinstance(value, tuple(kinds.values())), f"{dotted} = {value!r} must be of type {wanted}")
            changes[key] = value
            continue
        if not kinds:
            changes[key] = _scalar(hints[key], value, dotted)
            continue
        inner = getattr(base, key)
        if isinstance(value, Mapping) and len(kinds) > 1 and "type" in value:
            tag = aliases.type_name(str(value["type"]))
            require(tag in kinds, f"{dotted}.type = {tag!r} is unknown{missing(tag, kinds)}")
            inner = inner if type(inner) is kinds[tag] else kinds[tag]()
            value = {k: v for k, v in value.items() if k != "type"}
        changes[key] = _put_in(inner, value, dotted)
    try:
        return dataclasses.replace(base, **changes)
    except ConfigError:
        raise
    except ValueError as e:
        raise ConfigError(f"{path}: {e}") from e


def _suggest_setting(key: str, names: list[str], base: Any, path: str) -> str:
    """What may have been meant, as `suggest`; but where a setting further down has exactly this name, that one."""
    same_name = [dotted for dotted in _dotted_names(base, f"{path}." if path else "") if dotted.endswith(f".{key}")]
    return f"; did you mean {same_name[0]!r}?" if same_name else suggest(key, names)


def _dotted_names(config: Any, path: str) -> Iterator[str]:
    """Dotted names of all settings in a dataclass."""
    for entry in dataclasses.fields(config):
        yield path + entry.name
        if dataclasses.is_dataclass(inner := getattr(config, entry.name)):
            yield from _dotted_names(inner, f"{path}{entry.name}.")


def from_dict(values: Mapping[str, Any], base: Any = None) -> Any:
    """Settings from nested plain values.

    Args:
        values: by name; `type` names the family.
        base: the settings that stay where `values` say nothing; None: the defaults of the family, or of a denoiser.

    Raises:
        ConfigError: an unknown name, a wrong type or an impossible value.
    """
    if isinstance(values, Mapping) and "type" in values:
        family = values["type"]
        table = families()
        require(family in table, f"type = {table.unknown(family)}")
        base = base if type(base) is table[family] else table[family]()
        values = {k: v for k, v in values.items() if k != "type"}
    return _put_in(families()[DEFAULT]() if base is None else base, values, "")


def replace(config: Any, settings: Mapping[str, Any]) -> Any:
    """Settings with some of them changed.

    Args:
        config: settings, a dataclass; it stays as it is.
        settings: new values by dotted name, {"fit.steps": 100, "denoiser.lr": 3e-4}: plain ones, or whole parts
            {"model.net": MLPConfig(width=64)}.

    Returns:
        The new settings.

    Raises:
        ConfigError: an unknown name (the nearest is suggested), a wrong type, an impossible value, one thing set twice.
        TypeError: a config that holds no settings.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"config = {config!r} holds no settings: give a dataclass such as df.ScoreConfig()")
    nested: dict[str, Any] = {}
    for dotted, value in settings.items():
        *parents, leaf = dotted.split(".")
        inner = nested
        for name in parents:
            inner = inner.setdefault(name, {})
            require(isinstance(inner, dict), f"{dotted} and {name}, of which it is a part, are both set: set one")
        require(leaf not in inner, f"{dotted} and a part of it are both set: set one")
        inner[leaf] = copy.deepcopy(value) if isinstance(value, Mapping) else value
    return from_dict(nested, config)


def to_yaml(config: Any) -> str:
    """A run's settings as YAML text, which `from_yaml` reads."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def check_round_trip(config: Any) -> None:
    """Refuse settings that a file could not give back, before anything is trained with them.

    Args:
        config: the settings of a run.

    Raises:
        ConfigError: they cannot be saved, or come back changed; these are named.
    """
    try:
        reread = from_yaml(to_yaml(config))
    except (ConfigError, yaml.YAMLError) as e:
        raise ConfigError(f"these settings cannot be saved and read again: {e}") from e
    if reread != config:
        a, b = to_dict(config), to_dict(reread)
        differing = [k for k in a if a.get(k) != b.get(k)] or list(a)
        raise ConfigError(
            f"these settings would come back otherwise from the run's config.yaml ({', '.join(differing)}): give every "
            "field plain values (numbers, text, lists, dataclasses of them)"
        )


def from_yaml(text: str, base: Any = None) -> Any:
    """Settings from a YAML text; see `from_dict`. Raises ConfigError."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(f"this is not YAML: {e}") from e
    return from_dict({} if values is None else values, base)


def load_yaml(path: str | Path, base: Any = None) -> Any:
    """Settings from a YAML file; see `from_dict`. Raises ConfigError, naming the file."""
    try:
        return from_yaml(Path(path).read_text(encoding="utf-8"), base)
    except (OSError, UnicodeDecodeError, ConfigError) as e:
        raise ConfigError(f"{path}: {e}") from e


FREE = (
    "data.source",  # where the same data are now: their fingerprint is compared
    "data.latent",  # where its autoencoder is now: the sum of its weights is compared
    "data.kind",
    "data.cond",
    "fit.steps",
    "fit.minutes",
    "fit.cpu_minutes",
    "fit.log_every",
    "fit.checkpoint_minutes",
    "fit.sample_minutes",
    "fit.keep",
    "fit.tensorboard",
    "sampling",
)


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return out


def changed(old: Any, new: Any) -> list[str]:
    """The settings in which a run that goes on would differ from itself.

    Left out are those that leave the trained weights alone: FREE, but for those that the family trains by (`fixed`).

    Args:
        old: the settings of the run.
        new: those that it would go on with.

    Returns:
        Dotted names, sorted.
    """
    a, b = flat(to_dict(old)), flat(to_dict(new))
    keys = [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
    return [k for k in keys if not k.startswith(FREE) or k in old.fixed]
