"""Memory of a training before it is begun: its step is taken once with tensors that have shapes and no numbers.

The networks are built of fake tensors (torch's FakeTensorMode), so nothing is allocated; the objective takes the turns
of a step, backward passes and all, while a ledger writes down, operation by operation, which bytes live. The batch of
this trial is a multiple of a prime that divides nothing else, so the size of a tensor says how it grows with the batch,
and the bytes at every moment are a polynomial,

    bytes(b) = fixed + b * per_example + b^2 * per_pair.

The largest of these is the peak for any batch. What a model is made of, how often it is differentiated and what it
keeps between turns need not be known: it is seen.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..data.conditions import Condition, from_meta, named
from ..equation.conditions import Cond
from ..equation.noise import Noise
from ..models.base import GeneratorConfig, TrainConfig
from ..models.settings.own_net import OwnNetConfig
from ..objectives.base import Batch
from .previews import evaluating
from .state import TrainingState

Bytes = tuple[float, float, float]  # fixed, per example, per pair of examples

_PRIMES = (103, 107, 109, 113, 127, 131, 137, 139)
_PARTS = 4  # of a batch; its examples are as many times the prime
_SMALL = 1 << 16  # numbers: what an objective is built with is real up to this size, for it may look at the values
_MOMENTS = 2  # that an optimizer keeps of each parameter: Adam's, of which others have as many or fewer
_aten = torch.ops.aten
_CONVOLUTIONS = (_aten.convolution.default, _aten.convolution_backward.default)


@dataclass(frozen=True)
class Estimate:
    """Bytes that a training takes beyond what its process has before.

    Args:
        parameters: numbers that are trained.
        step: bytes at moments of a step, by the examples that are computed at a time; the largest counts.
        held: of these what a micro-batch keeps while others are computed, at the end of a turn.
        grid: likewise for drawing samples, between steps.
    """

    parameters: int
    step: tuple[Bytes, ...]
    held: tuple[Bytes, ...]
    grid: tuple[Bytes, ...]

    def of_step(self, micro: int, accumulate: int = 1) -> float:
        """Bytes at the peak of a step.

        Args:
            micro: examples that are computed at a time.
            accumulate: micro-batches of a step.
        """
        return _highest(self.step, micro) + (accumulate - 1) * _highest(self.held, micro)

    def of_grid(self, n: int) -> float:
        """Bytes at the peak of drawing n samples at a time."""
        return _highest(self.grid, n)


def _highest(moments: Iterable[Bytes], n: int) -> float:
    return max(fixed + n * linear + n * n * square for fixed, linear, square in moments)


def _undominated(moments: Iterable[Bytes]) -> tuple[Bytes, ...]:
    """Those that no other one exceeds for every batch, so that one of them is the highest."""
    kept: list[Bytes] = []
    for m in sorted(set(moments), reverse=True):
        if not any(all(a <= b for a, b in zip(m, k, strict=True)) for k in kept):
            kept.append(m)
    return tuple(kept)


def estimate(config: TrainConfig, meta: Mapping[str, Any]) -> Estimate | None:
    """Estimate the memory of a training, without allocating it.

    Args:
        config: the settings.
        meta: describes the data (`Data.meta`); only shapes, classes and conditions count.

    Returns:
        The bytes beyond those of the process; None where that cannot be known: a network of one's own is code, which
        may do anything, and must not be built twice.
    """
    if any(isinstance(part, OwnNetConfig) for part in _parts(config)):
        return None
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            return _Trial(config, meta).estimate()
    except Exception:  # whatever cannot be tried on shapes alone may still be trained
        return None


def _parts(value: Any) -> list[Any]:
    """Settings and all settings inside of them."""
    if not dataclasses.is_dataclass(value):
        return []
    inner = [getattr(value, f.name) for f in dataclasses.fields(value)]
    return [value, *(part for v in inner for part in _parts(v))]


class _Trial:
    """A training of fake tensors."""

    def __init__(self, config: TrainConfig, meta: Mapping[str, Any]):
        self.meta, self.fake = meta, FakeTensorMode(allow_non_fake_inputs=True)
        self.ledger = ledger = Ledger(self.fake, getattr(config, "penalty_share", 1.0))
        with ledger, self.fake:
            modules = config.build(meta)
        ledger.prime = _prime(modules, meta)
        self.n = _PARTS * ledger.prime
        self.config: Any = config
        fit = dataclasses.replace(config.fit, batch=self.n, accumulate=1)
        self.config = dataclasses.replace(self.config, fit=fit)  # pools have as many slots
        with ledger:
            self.training = TrainingState(self.config.objective(modules, meta), config.players())
            players = self.training.players.values()
            self.moments = [torch.zeros_like(p) for player in players for p in player.parameters * _MOMENTS]
        ledger.small = 0

    def estimate(self) -> Estimate:
        """What a step and a grid of it say."""
        numbers = sum(p.numel() for player in self.training.players.values() for p in player.parameters)
        step, held = self.step()
        kept = self.ledger.live[0]  # between steps: weights, averages, moments
        idle = [(kept + 2 * sum(v.nbytes for v in self.moments), 0.0, 0.0)]  # while they are written to a file
        return Estimate(numbers, step, held, _undominated([*self.grid(), *idle]))

    def step(self) -> tuple[tuple[Bytes, ...], tuple[Bytes, ...]]:
        """The bytes that live at the moments of a step, and those that it keeps at the end of its turns."""
        held: list[Bytes] = [(0.0, 0.0, 0.0)]
        before = self.ledger.begin()
        with self.ledger:
            x = self.blank(*self.meta["shape"])
            batch = Batch(x, self.cond(), torch.arange(self.n))
            turns = self.training.objective.turns(batch, Blank(0))
            while True:
                with torch.autocast("cpu", torch.bfloat16, enabled=self.config.fit.precision == "bf16"):
                    turn = next(turns, None)
                if turn is None:
                    break
                player = self.training.players[turn.player]
                torch.autograd.backward(turn.loss.float().mean(), inputs=player.parameters)
                del turn
                player.gradients()  # of all parameters
                self.ledger.write()
                player.optimizer.zero_grad(set_to_none=True)
                held.append(_sum(self.ledger.live, before, -1))
        return self.ledger.moments(), _undominated(held)

    def grid(self) -> tuple[Bytes, ...]:
        """The bytes that live at the moments of drawing samples."""
        config = self.config
        self.ledger.begin()
        self.ledger.small = _SMALL  # the times of the steps
        modules = {name: player.module for name, player in self.training.players.items()}
        dials = config.dials
        if not isinstance(config, GeneratorConfig):  # every step is like the first two
            dials = dataclasses.replace(dials, steps=min(2, dials.steps))
        denoiser = modules.get("denoiser")
        cond = None if denoiser is not None and not getattr(denoiser, "conditional", True) else self.cond()
        with self.ledger, torch.no_grad(), evaluating(modules.values()):
            config.draw(modules, self.meta, self.n, dials, cond, Blank(0))
        return self.ledger.moments()

    def blank(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of the batch."""
        with self.fake:
            return torch.empty(self.n, *shape, dtype=dtype)

    def cond(self) -> Cond:
        """What the examples are told."""
        if "cond" not in self.meta:
            return self.blank(dtype=torch.int64) if self.meta["classes"] else None
        conditions = from_meta(self.meta)
        if isinstance(conditions, Condition):
            return self._told(conditions)
        return {name: self._told(part) for name, part in (conditions or {}).items()}

    def _told(self, c: Condition) -> Tensor:
        return self.blank(*c.shape, dtype=torch.int64 if c.kind in ("labels", "tokens") else torch.float32)


def _prime(modules: Mapping[str, nn.Module], meta: Mapping[str, Any]) -> int:
    """A prime that divides no size of the networks, their samples or what they are told."""
    sizes = {side for module in modules.values() for v in module.state_dict().values() for side in v.shape}
    sizes |= {*meta["shape"], *(side for _, c in named(from_meta(meta)) for side in (*c.shape, c.size, len(c.names)))}
    return next(p for p in _PRIMES if all(side % p or not side for side in sizes))


class Blank(Noise):
    """Noise without randomness: of the right shape, and not computed."""

    def normal(
        self,
        n: int,
        shape: tuple[int, ...] = (),
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Zeros, (n, *shape)."""
        return torch.zeros(n, *shape, dtype=dtype, device=device)

    def uniform(
        self,
        n: int,
        shape: tuple[int, ...] = (),
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Zeros, (n, *shape)."""
        return torch.zeros(n, *shape, dtype=dtype, device=device)

    def randint(self, n: int, high: int, shape: tuple[int, ...] = (), *, device: torch.device | str = "cpu") -> Tensor:
        """Zeros, (n, *shape)."""
        return torch.zeros(n, *shape, dtype=torch.int64, device=device)


class Ledger(TorchDispatchMode):
    """The bytes of all tensors that are made while it is on and live, written down after each operation.

    What is made of nothing and large is fake. Whoever asks for a value of a fake tensor is told the usual: "all" is
    true, "any" is not, a number is 1.

    Args:
        fake: what makes fake tensors.
        share: of the rows that a mask chooses.
    """

    def __init__(self, fake: FakeTensorMode, share: float = 1.0):
        super().__init__()
        self.fake, self.share, self.prime, self.small = fake, share, _PRIMES[0], _SMALL
        self.live: Bytes = (0.0, 0.0, 0.0)
        self.written: set[Bytes] = set()
        self.known: dict[int, weakref.ref[Any]] = {}

    def begin(self) -> Bytes:
        """Begin a new list of moments with what lives now."""
        self.written = {self.live}
        return self.live

    def moments(self) -> tuple[Bytes, ...]:
        """What was written down since, without moments that others exceed for every batch."""
        return _undominated(self.written)

    def write(self, more: Iterable[Tensor] = ()) -> None:
        """Write down what lives, and further tensors that nobody sees."""
        live = self.live
        for v in more:
            live = _sum(live, self._sized(v.numel() * v.element_size()))
        self.written.add(live)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation, and the bytes that live after it."""
        kwargs = kwargs or {}
        if args and isinstance(args[0], FakeTensor):
            first = args[0]
            if func is torch.ops.prim.device.default:
                return first.fake_device
            if func is _aten._local_scalar_dense.default:
                return _usual(first)
            if func is _aten.nonzero.default:
                with self.fake:
                    return torch.empty(self._rows(first.numel()), first.ndim, dtype=torch.int64)
            if func is _aten._unique2.default:  # one value stands for all
                with self.fake:
                    return first.new_empty(1), first.new_empty(first.shape, dtype=torch.int64), first.new_empty(1)
            if func is _aten.index.Tensor:
                args = (first, [i for index in args[1] for i in self._places(index)])
        given = [v for v in tree_leaves(args) if isinstance(v, Tensor)]
        if not given and "device" in kwargs:
            with self.fake:
                out = func(*args, **kwargs)
            out = func(*args, **kwargs) if out.numel() <= self.small else out
        else:
            out = func(*args, **kwargs)
        made = [out] if isinstance(out, Tensor) else [v for v in tree_leaves(out) if isinstance(v, Tensor)]
        for v in made:
            self._enter(v)
        if func.overloadpacket is _aten.all and isinstance(out, FakeTensor):
            out.usual = True  # type: ignore[attr-defined]
        # oneDNN convolves copies in a layout of its own
        self.write([*given, *made] if func in _CONVOLUTIONS else ())
        return out

    def _rows(self, n: int) -> int:
        """How many of n rows a mask chooses, in parts of a batch."""
        return n if self.share == 1 else math.ceil(self.share * n / self.prime) * self.prime

    def _places(self, index: Tensor | None) -> list[Tensor | None]:
        """Indices that choose as many rows as a mask does."""
        if index is None or index.dtype != torch.bool:
            return [index]
        with self.fake:
            return [torch.empty(self._rows(index.numel()), dtype=torch.int64) for _ in range(index.ndim)]

    def _sized(self, count: int) -> Bytes:
        """Bytes by how they grow with the batch, told by the primes in them."""
        if not count or count % self.prime:
            return float(count), 0.0, 0.0
        n = _PARTS * self.prime
        return (0.0, count / n, 0.0) if count % self.prime**2 else (0.0, 0.0, count / n**2)

    def _enter(self, v: Tensor) -> None:
        """Enter the storage of a tensor until it dies."""
        storage = v.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        size = self._sized(storage.nbytes())

        def gone(_: Any) -> None:
            del self.known[key]
            self.live = _sum(self.live, size, -1)

        self.known[key] = weakref.ref(storage, gone)
        self.live = _sum(self.live, size)


def _sum(a: Bytes, b: Bytes, sign: int = 1) -> Bytes:
    return a[0] + sign * b[0], a[1] + sign * b[1], a[2] + sign * b[2]


def _usual(v: Tensor) -> bool | int | float:
    if v.dtype == torch.bool:
        return getattr(v, "usual", False)
    return 1.0 if v.is_floating_point() else 1
