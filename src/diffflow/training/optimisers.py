"""Optimizers of one's own: made by a function of the parameters, tried before the first step, stored in checkpoints.

    df.train("moons", optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9))

An optimizer is code, and settings never run code: run.json records its name, and whoever goes on hands it in again.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from ..models.settings.common import PlayerConfig
from ..models.settings.serialise import ConfigError
from ..registry import name_of
from .checkpoint import Tensors, to_bytes
from .muon import Muon

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Code = TypeVar("Code", bound=Callable[..., Any])


def of_settings(module: nn.Module, config: PlayerConfig) -> torch.optim.Optimizer:
    """The optimizer of a network that its settings name: Adam, or Muon."""
    if config.optimizer == "muon":
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        return Muon(named, config.lr, config.betas, config.weight_decay)
    return adam([p for p in module.parameters() if p.requires_grad], config)


def adam(parameters: list[nn.Parameter], config: PlayerConfig) -> torch.optim.Optimizer:
    """The optimizer of the settings: AdamW, fused where there is such a kernel."""
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.AdamW(parameters, config.lr, config.betas, weight_decay=config.weight_decay, fused=fused)


def own(parameters: list[nn.Parameter], make: MakeOptimizer) -> torch.optim.Optimizer:
    """An optimizer that the caller's function makes, after a trial of it on copies of the parameters.

    The trial takes three steps, with the state saved and read back before the third: what cannot be stored, or goes on
    differently afterwards, would be a run that no resuming continues.

    Args:
        parameters: what it moves, all of it.
        make: parameters -> optimizer.

    Raises:
        ConfigError: it is no optimizer of these parameters, needs a closure, or has a state that cannot be stored.
    """
    device = parameters[0].device
    with _own_randomness(device):
        first = [nn.Parameter(p.detach().clone()) for p in parameters]
        optimizer = _made(first, make)
        for k in (1, 2):
            _step(optimizer, first, k)
        second = [nn.Parameter(p.detach().clone()) for p in first]
        again = _made(second, make)
        try:
            tensors: Tensors = {}
            stored = json.dumps(pack(optimizer.state_dict(), tensors))
            again.load_state_dict(unpack(json.loads(stored), safetensors.torch.load(to_bytes(tensors))))
        except Exception as error:
            raise ConfigError(
                f"optimizer = {called(make)}: its state cannot be stored in a checkpoint and read back "
                f"({type(error).__name__}: {error}), so the training could not be resumed"
            ) from error
        _step(optimizer, first, 3)
        _step(again, second, 3)
        if not all(torch.equal(p, q) for p, q in zip(first, second, strict=True)):
            raise ConfigError(
                f"optimizer = {called(make)}: read back from its state_dict it takes another step than it would have "
                "taken, so a resumed training would not be the same one: keep all that it remembers in its state"
            )
    return _made(parameters, make)


def _made(parameters: list[nn.Parameter], make: MakeOptimizer) -> torch.optim.Optimizer:
    """What the function makes of the parameters. Raises ConfigError where it cannot train them."""
    optimizer, name = make(parameters), called(make)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer = {name} makes a {type(optimizer).__name__}, no torch.optim.Optimizer: give a function of the "
            "parameters, such as functools.partial(torch.optim.SGD, lr=0.1)"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"optimizer = {name}: its step wants a closure that computes the loss again, and here every step has one "
            "batch and one gradient: take an optimizer that steps without (SGD, Adam, RMSprop, ...)"
        )
    if {id(p) for group in optimizer.param_groups for p in group["params"]} != {id(p) for p in parameters}:
        raise ConfigError(
            f"optimizer = {name} does not move just the parameters that it is given: use all of its argument and "
            "nothing else; what shall not learn gets requires_grad_(False) in the network"
        )
    if not all("lr" in group for group in optimizer.param_groups):
        raise ConfigError(f'optimizer = {name} has no learning rate: each of its param_groups needs an "lr"')
    return optimizer


def _own_randomness(device: torch.device) -> AbstractContextManager[None]:
    """What is drawn inside is not missed outside."""
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


def _step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], k: int) -> None:
    """The step number k of a trial: gradients and random numbers are functions of k."""
    for p in parameters:
        p.grad = torch.linspace(-k, 1.0, p.numel(), dtype=p.dtype, device=p.device).view_as(p)
    torch.manual_seed(k)
    optimizer.step()


def pack(tree: Any, tensors: Tensors, path: str = "") -> Any:
    """A state_dict as JSON, its tensors put into `tensors` by their place in it. Raises TypeError for anything else."""
    if isinstance(tree, Tensor):
        tensors[path] = tree
        return {"tensor": path}
    if isinstance(tree, Mapping):
        if wrong := [key for key in tree if type(key) not in (int, str)]:
            raise TypeError(f"{path or 'state_dict'} has a key {wrong[0]!r}")
        return {"dict": [[key, pack(value, tensors, f"{path}/{key}".lstrip("/"))] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        parts = [pack(value, tensors, f"{path}/{i}") for i, value in enumerate(tree)]
        return {"tuple": parts} if isinstance(tree, tuple) else parts
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"{path} is a {type(tree).__name__}")


def unpack(stored: Any, tensors: Tensors) -> Any:
    """The state_dict that `pack` was given."""
    if isinstance(stored, list):
        return [unpack(value, tensors) for value in stored]
    if not isinstance(stored, dict):
        return stored
    ((kind, content),) = stored.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(unpack(value, tensors) for value in content)
    return {key: unpack(value, tensors) for key, value in content}


def by_player(given: Code | Mapping[str, Code] | None, players: Iterable[str], what: str) -> dict[str, Code]:
    """Functions by player: one for all of them, or those of a dict. Raises ConfigError for a name that nobody has."""
    names = list(players)
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    if unknown := sorted(str(name) for name in given if name not in names):
        raise ConfigError(f"{what} for {', '.join(unknown)}: the players of this model are {', '.join(names)}")
    return dict(given)


def called(code: Any) -> str:
    """What run.json calls a piece of code: MODULE:NAME, and what functools.partial has set."""
    if isinstance(code, functools.partial):
        plain = (bool, int, float, str, tuple, list, type(None))
        given = [(f"{key}=", value) for key, value in code.keywords.items()]
        given = [*(("", value) for value in code.args), *given]
        words = [key + (repr(v) if isinstance(v, plain) else called(v)) for key, v in given]
        return f"{called(code.func)}({', '.join(words)})"
    named = code if hasattr(code, "__qualname__") and hasattr(code, "__module__") else type(code)
    return name_of(named)
