"""Settings of an own network: where it comes from, which is never looked up by the settings alone.

`factory` names a class or function, MODULE:NAME. It is found where the user has named it: passed as `net=`, in a module
that was imported as a plug-in (`--import`, `df.load(path, modules=[...])`, an entry point), or handed back as an
instance (`df.load(path, net=Net())`). A config alone imports and calls nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from torch import nn

from ...data.conditions import Condition, Conditions
from ...networks.backbones.own import TIMES, OwnNet, OwnNetError, fresh_copy, materialise, unwrapped
from ...registry import PLUGGED, name_of, suggest
from .networks import NetConfig
from .serialise import ConfigError, require

Factory = Callable[..., nn.Module]
BACKBONES = {"MLP": "mlp", "UNet": "unet", "DiT": "dit", "UNetND": "unet_nd"}  # the library's own, by class and file
FACTORIES: dict[str, Factory] = {}  # what this process was given as `net=`, by name
_handed: ContextVar[list[nn.Module | Factory]] = ContextVar("handed")


@contextmanager
def handing(net: nn.Module | Factory | None) -> Iterator[None]:
    """Let the own network that is built inside the block be this one: a module, or what makes one; None: no change."""
    token = _handed.set([] if net is None else [net])
    try:
        yield
    finally:
        _handed.reset(token)


@dataclass(frozen=True)
class OwnNetConfig(NetConfig):
    """A network of one's own: any torch module of (x, t) or (x, t, cond) (networks/backbones/own.py).

    Raises:
        ConfigError: no name, or an unknown time.
    """

    factory: str = ""
    """Class or function that makes it, MODULE:NAME; its module must be imported by the user (--import)."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What it is called with, plain values by name."""
    instance: bool = False
    """It was handed over as an instance, and must be handed back: df.load(path, net=...)."""
    time: str = "quarter-log"
    """What it is told of the noise level sigma, t (n,): quarter-log (0.25 ln sigma), unit (sigma/(1 + sigma)), thousand
    (1000 sigma/(1 + sigma), for embeddings of DDPM steps), sigma."""

    def __post_init__(self) -> None:
        require(self.time in TIMES, f"model.net.time = {self.time!r} is unknown{suggest(self.time, TIMES)}")
        object.__setattr__(self, "arguments", _plain(self.arguments))

    def build(self, shape: tuple[int, ...], classes: int, conditions: Conditions | None = None) -> nn.Module:
        """The network; see `NetConfig.build`. Raises ConfigError where it is not known, or does not fit."""
        if conditions is None and classes:
            conditions = Condition.labels(classes)
        try:
            net = OwnNet(self._module(), conditions, TIMES[self.time])
            materialise(net, shape)
            return net
        except OwnNetError as error:
            raise ConfigError(f"net: {error}") from error

    def _module(self) -> nn.Module:
        """The module itself: handed over, or made."""
        box = _handed.get([])
        handed = box[0] if box else None
        if isinstance(handed, nn.Module):
            box.clear()  # a second network of the same module would share its weights
            return unwrapped(handed)
        require(
            not self.instance or handed is not None,
            f"this run's network is an instance of {self.factory}, which its files do not hold: hand it back, "
            f"df.load(path, net={self.factory.rpartition(':')[2]}(...)); a model of several networks needs its class, "
            "net=Net",
        )
        make = handed or find_factory(self.factory)
        try:
            net = make(**self.arguments)
        except Exception as error:
            told = ", ".join(f"{k}={v!r}" for k, v in self.arguments.items())
            raise ConfigError(f"net: {self.factory}({told}) failed: {type(error).__name__}: {error}") from error
        require(
            isinstance(net, nn.Module),
            f"net: {self.factory} made a {type(net).__name__}, not a torch.nn.Module",
        )
        return unwrapped(net)


def _plain(value: Any) -> Any:
    """Plain values as YAML gives them back: tuples as lists."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def find_factory(name: str) -> Factory:
    """The class or function of a name that the user has made known.

    Only what a plug-in's module itself defines is found: not what it imports.

    Args:
        name: MODULE:NAME.

    Raises:
        ConfigError: it is not known; the remedy is named.
    """
    if name in FACTORIES:
        return FACTORIES[name]
    if name in BACKBONES:
        return getattr(import_module(f"diffflow.networks.backbones.{BACKBONES[name]}"), name)
    module, _, path = name.partition(":")
    found: Any = PLUGGED.get(module)
    file = module if "." in module else f"{module}.py"
    remedy = (
        f": it is defined outside diffflow, and settings never import anything. Hand it over, df.load(path, net={path})"
        f", or name its file if you trust it: diffflow --import {file} COMMAND ..., df.load(path, modules=[{file!r}])"
    )
    known = remedy if path else suggest(name, [*BACKBONES, *FACTORIES])
    require(found is not None, f"model.net.factory = {name!r} is no known network{known}")
    for part in path.split("."):
        found = vars(found).get(part) if found is PLUGGED[module] or isinstance(found, type) else None
    function = inspect.isfunction(found) and "." not in path
    own = (function or (isinstance(found, type) and issubclass(found, nn.Module))) and name_of(found) == name
    require(own, f"model.net.factory = {name!r}: the module {module!r} defines no such class or function")
    return found


def register(net: nn.Module | Factory, arguments: dict[str, Any] | None = None) -> OwnNetConfig:
    """Make a network known to this process, and give its settings.

    Args:
        net: a class or function that makes it, or an instance.
        arguments: what a class or function is called with.

    Raises:
        ConfigError: what makes no network, or arguments for an instance.
    """
    if isinstance(net, nn.Module):
        require(not arguments, "net_arguments go with a class or function as net; this is an instance already")
        net = unwrapped(net)
        fresh_copy(net)  # what cannot be copied could not be loaded after the training
        return OwnNetConfig(factory=name_of(type(net)), instance=True)
    require(
        callable(net) and hasattr(net, "__qualname__"),
        f"net is a {type(net).__name__}: give a torch.nn.Module, or a class or function that makes one",
    )
    name = name_of(net)
    FACTORIES[name] = net
    return OwnNetConfig(factory=name, arguments=arguments or {}, instance="<" in name or name.startswith("__main__:"))
