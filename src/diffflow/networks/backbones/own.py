"""Own networks: any module of (x, t) or (x, t, cond) as the network of a denoiser, checked before the first step.

    x (n, *shape) float, t (n,)  ->  like x;        cond, where the data have a condition: (n,), (n, k), ... or a dict

What a network is told of the noise level is a row of TIMES. What it is told for "no condition" it declares itself: an
attribute `null`, a number or a tensor of the shape of one row (a parameter, to learn it), or a dict of these. Rows that
the library hides (label dropout, guidance, cond = None) then become this value. null = "missing": the network itself
knows -1 and NaN, as those of the library do. A network without it is always told the condition, and has no guidance.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...data.conditions import Conditions, named
from ...data.conditions import null as null_rows
from ...equation.conditions import Cond, apply, is_null
from ..denoiser import quarter_log

TIMES: dict[str, Callable[[Tensor], Tensor]] = {
    "quarter-log": quarter_log,  # 0.25 ln sigma, about -1.6 to 1.1
    "unit": lambda sigma: sigma / (1 + sigma),  # the time of a rectified flow, 0 to 1
    "thousand": lambda sigma: 1000 * sigma / (1 + sigma),  # 0 to 1000, for embeddings made for steps of a DDPM
    "sigma": lambda sigma: sigma,
}


MISSING = "missing"  # the `null` of networks that know -1 and NaN for no condition


class OwnNetError(ValueError):
    """An own network that cannot be trained; the message says why and what would do."""


class OwnNet(nn.Module):
    """Own network as the library calls it: (x, time, cond), with null rows of cond as the network declares them.

    Args:
        net: the module.
        conditions: what the data tell of each example; None: nothing.
        time_of: what the network is told of sigma.

    Raises:
        OwnNetError: what is no module of (x, t) or (x, t, cond), and a `null` that does not fit the conditions.
    """

    def __init__(
        self,
        net: nn.Module,
        conditions: Conditions | None = None,
        time_of: Callable[[Tensor], Tensor] = quarter_log,
    ):
        super().__init__()
        self.net = net
        self.time_of = time_of
        self.takes_cond = takes_cond(net, conditions is not None)
        self.conditions = conditions if self.takes_cond else None
        self.untold = conditions is not None and not self.takes_cond
        self.has_null = self.conditions is None or _has_null(net, self.conditions)

    @property
    def classes(self) -> int:
        """Number of classes it is told, 0 for none."""
        return getattr(self.conditions, "classes", 0)

    def forward(self, x: Tensor, time: Tensor, cond: Cond = None) -> Tensor:
        """Prediction like x (n, *shape). Raises ValueError where no condition is given and none declared."""
        time = time.clone()  # a network may change in place what it is given: nobody else sees it
        if self.conditions is None:
            out = self.net(x, time)
        else:
            if cond is None:
                cond = null_rows(self.conditions, len(x), x.device)
                if not self.has_null:
                    raise ValueError(
                        f"{type(self.net).__name__} declares no `null`, what it is told for no condition: give cond "
                        "for each sample"
                    )
            out = self.net(x, time, self._filled(cond))
        sample = getattr(out, "sample", None)  # as diffusers' networks return it
        return sample if not isinstance(out, Tensor) and isinstance(sample, Tensor) else out

    def _filled(self, cond: Cond) -> Cond:
        """The condition with the declared value in place of rows that say nothing."""
        declared: Any = getattr(self.net, "null", None)
        if not self.has_null or isinstance(declared, str):
            return apply(torch.clone, cond)
        filled = {}
        for name, _ in named(self.conditions):
            leaf = cond[name] if name else cond
            value = torch.as_tensor(declared[name] if name else declared, device=leaf.device).to(leaf.dtype)
            missing = is_null(leaf).reshape(-1, *[1] * (leaf.ndim - 1))
            filled[name] = torch.where(missing, value, leaf)
        return filled if isinstance(self.conditions, Mapping) else filled[""]


def takes_cond(net: object, conditional: bool) -> bool:
    """Whether a network is given the condition, by the arguments that it takes.

    Args:
        net: the network.
        conditional: whether the data have a condition.

    Raises:
        OwnNetError: what is no module, or takes other arguments than (x, t) or (x, t, cond).
    """
    if not isinstance(net, nn.Module):
        kind = f"the class {net.__name__}" if isinstance(net, type) else f"a {type(net).__name__}"
        raise OwnNetError(
            f"net is {kind}: give a torch.nn.Module with forward(x, t) or forward(x, t, cond), or its class and "
            "net_arguments"
        )
    taken = inspect.signature(net.forward).parameters
    if conditional and "cond" in taken and taken["cond"].kind == taken["cond"].KEYWORD_ONLY:
        raise OwnNetError(f"{type(net).__name__}.forward takes cond by name only: write forward(x, t, cond)")
    parameters = [p for p in taken.values() if p.kind != p.KEYWORD_ONLY]
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return conditional
    places = [p for p in parameters if p.kind != p.VAR_KEYWORD]
    needed = [p for p in places if p.default is p.empty]
    shown = f"{type(net).__name__}.forward({', '.join(p.name for p in places)})"
    if len(places) < 2:
        raise OwnNetError(
            f"{shown} takes x alone, and a denoiser must know the noise level: write forward(x, t), t (n,) being "
            "0.25 ln sigma"
        )
    if len(needed) > 3:
        raise OwnNetError(f"{shown} takes {len(needed)} arguments: write forward(x, t) or forward(x, t, cond)")
    if len(needed) == 3 and not conditional:
        raise OwnNetError(
            f"{shown} takes a condition, and the data have none: give data with labels or data.with_cond(c), or write "
            f"{needed[2].name}=None"
        )
    return conditional and len(places) >= 3


def _has_null(net: nn.Module, conditions: Conditions) -> bool:
    """Whether a network declares what it is told for no condition. Raises OwnNetError for what does not fit."""
    declared: Any = getattr(net, "null", None)
    if declared is None or inspect.ismethod(declared):
        return False
    if isinstance(declared, str) and declared == MISSING:
        return True
    for name, condition in named(conditions):
        value = declared.get(name) if name and isinstance(declared, Mapping) else None if name else declared
        if value is None:
            return False
        try:
            fits = torch.broadcast_shapes(tuple(torch.as_tensor(value).shape), condition.shape) == condition.shape
        except (RuntimeError, TypeError, ValueError):
            fits = False
        if fits and condition.kind in ("labels", "tokens"):
            whole = torch.as_tensor(value)
            fits = bool((whole == whole.long()).all())
        if not fits:
            number = "whole number" if condition.kind in ("labels", "tokens") else "number"
            raise OwnNetError(
                f"{type(net).__name__}.null{f'[{name!r}]' if name else ''} = {value!r} is no value of "
                f"{condition.describe()}: give a {number}, or a tensor of shape {condition.shape}"
            )
    return True


def unwrapped(net: nn.Module) -> nn.Module:
    """A module without what torch.compile has put around it."""
    return getattr(net, "_orig_mod", net)


def fresh_copy(net: nn.Module) -> nn.Module:
    """A copy of a module for other weights. Raises OwnNetError for one that cannot be copied."""
    compiled = {m: m._compiled_call_impl for m in net.modules() if getattr(m, "_compiled_call_impl", None) is not None}
    try:
        for module in compiled:
            module._compiled_call_impl = None
        return copy.deepcopy(net)
    except Exception as error:
        raise OwnNetError(
            f"{type(net).__name__} cannot be copied ({type(error).__name__}: {error}): give its class instead, "
            "net=Net, net_arguments={...}"
        ) from error
    finally:
        for module, call in compiled.items():
            module._compiled_call_impl = call


def materialise(net: OwnNet, shape: tuple[int, ...]) -> None:
    """Give lazy layers their weights, by a call with rows of this shape. Raises OwnNetError for weights on "meta"."""
    weights = [*net.parameters(), *net.buffers()]
    if any(w.is_meta for w in weights):
        raise OwnNetError(
            f"{type(net.net).__name__} has weights on the meta device, which hold no numbers: make it outside of "
            "torch.device('meta')"
        )
    if any(map(is_lazy, weights)):
        check(net, shape, weights[0].device)


def check(net: OwnNet, shape: tuple[int, ...], device: torch.device) -> list[str]:
    """Call a network as training will, and say what it cannot do or what was decided.

    Args:
        net: the network, on its device.
        shape: of one example.
        device: where it is.

    Returns:
        Sentences for the user.

    Raises:
        OwnNetError: it fails, returns another shape or type, has weights of low precision or none, a state that no
            checkpoint holds, or its output does not depend on its weights.
    """
    name, inner = type(net.net).__name__, [p for p in net.parameters() if p.requires_grad]
    if not inner:
        raise OwnNetError(f"{name} has no parameters to train")
    dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)  # as a denoiser takes it
    if any(p.is_complex() for p in inner):
        raise OwnNetError(f"{name} has complex weights, of which no averages are made: use torch.view_as_complex(real)")
    if low := sorted({str(p.dtype) for p in inner if p.dtype not in (torch.float32, torch.float64)}):
        raise OwnNetError(
            f"{name} has weights of {', '.join(low)}: averages and small steps are lost in them. Make it .float(), and "
            "train with fit.precision = bf16"
        )
    was_training = {m: m.training for m in net.modules()}
    net.eval()  # nothing that follows the data while training may move
    try:
        for n in (2, 3):
            x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(n)).to(device, dtype)
            t = net.time_of(torch.linspace(0.1, 1.0, n)).to(device, dtype)
            cond = None if net.conditions is None else _example(net.conditions, n, device)
            _check_output(_called(net, x, t, cond), x, name, n)
            if net.conditions is not None and net.has_null:
                cond = null_rows(net.conditions, n, device)
                _check_output(_called(net, x, t, cond), x, name, n)
        _check_state(net.net, name)
    except OwnNetError:
        raise
    except Exception as error:
        told = "" if net.conditions is None else f", cond {_shapes(cond)}"
        raise OwnNetError(
            f"{name} cannot be called with x {tuple(x.shape)} {x.dtype}, t {tuple(t.shape)}{told} on {device}: "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    finally:
        for module, training in was_training.items():
            module.training = training
    return _decisions(net, name)


def _called(net: OwnNet, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """What the network returns, with gradients whatever the caller says."""
    with torch.enable_grad():
        return net(x, t, cond)


def _check_output(out: object, x: Tensor, name: str, n: int) -> None:
    """Raise OwnNetError for what is no prediction for x."""
    if not isinstance(out, Tensor):
        raise OwnNetError(f"{name} returned a {type(out).__name__}: return a tensor like x")
    if out.shape != x.shape:
        raise OwnNetError(
            f"{name} returned shape {tuple(out.shape)} for x of shape {tuple(x.shape)}: return one like x"
        )
    if not out.is_floating_point():
        raise OwnNetError(f"{name} returned {out.dtype}: return floating point numbers like x ({x.dtype})")
    if not out.requires_grad:
        raise OwnNetError(f"the output of {name} does not depend on its parameters by differentiable operations")
    if not bool(out.isfinite().all()):
        raise OwnNetError(f"{name} returned numbers that are not finite for {n} rows of standard normal numbers")


def _check_state(net: nn.Module, name: str) -> None:
    """Raise OwnNetError for a state that a checkpoint does not hold."""
    for key, value in net.state_dict().items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            kind = f"a tensor of layout {value.layout}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise OwnNetError(
                f"the state_dict of {name} has {kind}, {key!r}, which no checkpoint holds: keep it as a dense buffer, "
                "or, where it never changes, out of it (register_buffer(..., persistent=False))"
            )


def _example(conditions: Conditions, n: int, device: torch.device) -> Cond:
    """Rows of a condition that say something: class 0, zeros."""

    def zeros(leaf: Tensor) -> Tensor:
        return torch.zeros_like(leaf)

    rows = null_rows(conditions, n, device)
    return {k: zeros(v) for k, v in rows.items()} if isinstance(rows, dict) else zeros(rows)


def _shapes(cond: Cond) -> str:
    """The shapes of a condition, for a message."""
    if isinstance(cond, Mapping):
        return "{" + ", ".join(f"{k!r}: {tuple(v.shape)}" for k, v in cond.items()) + "}"
    return f"{tuple(cond.shape)} {cond.dtype}"


def _decisions(net: OwnNet, name: str) -> list[str]:
    """What is decided for the user about a network that works."""
    said = []
    if net.untold:
        said.append(f"{name} takes no condition, forward(x, t): it learns the examples without what is known of them")
    if net.conditions is not None and not net.has_null:
        said.append(
            f"{name} declares no `null`, what it is told for no condition: the condition is never hidden in training, "
            "so every sample needs one and there is no guidance"
        )
    if has_batch_norm(net):
        said.append(
            f"{name} has BatchNorm: rows of a batch, of all noise levels, see each other in training; samples are "
            "drawn with its running statistics, averaged as the weights are"
        )
    return said


def has_batch_norm(net: nn.Module) -> bool:
    """Whether a network normalises over the rows of a batch."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
