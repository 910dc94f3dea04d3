r"""Noise: random numbers as a function of seed and particle, one stream per particle, and no state.

A particle's noise must not depend on which particles happen to share its batch, its shard or its process. So a stream
is *computed*, not drawn: word j of particle i under a 64-bit seed is

    w_ij = mix( mix(seed' + i * phi) + (j + 1) * phi ),      phi = 2^64 / golden ratio,

with `mix` the finaliser of SplitMix64 (Steele, Lea & Flood 2014, variant 13 of Stafford). Each 64-bit word gives two
normals by Box and Muller, z = sqrt(-2 ln u) (cos a, sin a), where ln, sin and cos are short polynomials in float64
(error below 1e-9): sums, products, quotients and roots are rounded alike on every machine, whereas library logarithms
differ in the last bit with the position in a vector register. The same seed therefore gives the same bits in any
batch and on any device.

Shapes: n particles of event shape `shape` -> (n, *shape).
"""

from __future__ import annotations

import hashlib
import math
import operator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

_PHI, _M1, _M2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1
_BLOCK = 1 << 15  # words


def _signed(k: int) -> int:
    """The 64-bit word k as torch's signed int64."""
    k &= _MASK
    return k - (1 << 64) if k >> 63 else k


def _mix_int(z: int) -> int:
    z &= _MASK
    z = ((z ^ (z >> 30)) * _M1) & _MASK
    z = ((z ^ (z >> 27)) * _M2) & _MASK
    return z ^ (z >> 31)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 words, in place (products wrap; the masks make the shifts logical)."""
    z ^= (z >> 30).bitwise_and_((1 << 34) - 1)
    z *= _signed(_M1)
    z ^= (z >> 27).bitwise_and_((1 << 37) - 1)
    z *= _signed(_M2)
    z ^= (z >> 31).bitwise_and_((1 << 33) - 1)
    return z


@lru_cache(maxsize=4096)
def _word(key: int | str) -> int:
    """A label as a 64-bit word; integers and strings never meet."""
    text = f"{type(key).__name__}:{key}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _poly(x: Tensor, coefficients: list[float]) -> Tensor:
    """Horner's rule: c0 + c1 x + c2 x^2 + ..."""
    out = x * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        out.add_(c).mul_(x)
    return out.add_(coefficients[0])


GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples mod 1 are spread evenly, for any count

_LOG = [-4 / (2 * k + 1) for k in range(6)]  # -2 ln((1 + s)/(1 - s)) = s (c0 + c1 s^2 + ...)
_SIN = [(-1) ** k / math.factorial(2 * k + 1) for k in range(8)]
_COS = [(-1) ** k / math.factorial(2 * k) for k in range(9)]


def _box_muller(w: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals, float64, from each 64-bit word.

    32 bits are for the radius, 1 for the side, 31 for the angle. Every pass over the words counts: powers of two and
    signs go where they cost nothing.
    """
    u = (w >> 32).bitwise_and_(0xFFFFFFFF).to(torch.float64).add_(0.5).mul_(2.0**-32)
    # u = m 2^e with m in [1/2, 1), read off its bits: u is no subnormal number
    word = u.view(torch.int64)
    exponent = (word >> 52).sub_(1022)
    mantissa = word.bitwise_and_((1 << 52) - 1).bitwise_or_(1022 << 52).view(torch.float64)
    # ln m about c = sqrt(1/2): m = c (1 + s)/(1 - s), |s| <= 0.172
    c = math.sqrt(0.5)
    s = (mantissa - c).div_(mantissa.add_(c))
    log = _poly(s * s, _LOG).mul_(s).add_(-2 * math.log(c))  # -2 ln m
    radius = exponent.to(torch.float64).mul_(-2 * math.log(2.0)).add_(log).sqrt_()
    sign = (w << 32).bitwise_and_(_signed(1 << 63))  # the side, left or right half of the circle, as the radius' sign
    radius.view(torch.int64).bitwise_xor_(sign)
    angle = (w & 0x7FFFFFFF).to(torch.float64).add_(0.5 - 2.0**30).mul_(2.0**-31 * math.pi)  # (-pi/2, pi/2)
    a2 = angle * angle
    return _poly(a2, _COS).mul_(radius), _poly(a2, _SIN).mul_(angle).mul_(radius)


@runtime_checkable
class Increments(Protocol):
    """A source of Brownian increments, which `sample` asks of its noise."""

    def increment(self, k: int, t0: float, t1: float, x: Tensor) -> Tensor:
        """The increment W(t1) - W(t0) ~ N(0, (t1 - t0) I) of step k, shaped like x (n, *shape)."""
        ...


@dataclass(frozen=True)
class Noise:
    """Streams of random numbers; stream i belongs to particle `first + i`.

    Noise(7).normal(5)[3] and Noise(7, first=3).normal(1)[0] are the same bits. A Noise holds no state: asking twice
    gives the same numbers, and `fork` names independent families ("start", ("step", k), ...).

    Args:
        seed: any integer; its lowest 64 bits count.
        first: number of the first particle, at least 0.

    Raises:
        ValueError: a negative `first`.
    """

    seed: int
    first: int = 0

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(f"first={self.first}: particles are counted from 0")

    def fork(self, *keys: int | str) -> Noise:
        """An independent family of streams for the same particles.

        Args:
            keys: its name, integers or strings.

        Returns:
            The family.
        """
        seed = self.seed
        for key in keys:
            seed = _mix_int(_mix_int(seed) ^ _word(key))
        return replace(self, seed=seed)

    def shift(self, k: int) -> Noise:
        """The streams of the particles from `first + k` on."""
        return replace(self, first=self.first + k)

    def bits(self, n: int, m: int, device: torch.device | str = "cpu") -> Tensor:
        """Random int64 words (n, m), m for each of n particles, on `device`."""
        key, counter = self._before(n, m, device)
        return _mix(key + counter)

    def _before(self, n: int, m: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """A word of each particle (n, 1) and of each place in its stream (m,), whose mixed sums are random words."""
        phi = _signed(_PHI)
        key = torch.arange(self.first, self.first + n, device=device).mul_(phi).add_(_signed(_mix_int(self.seed)))
        return _mix(key)[:, None], torch.arange(1, m + 1, device=device).mul_(phi)

    def normal(
        self,
        n: int,
        shape: tuple[int, ...] = (),
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Standard normal numbers, the first of each particle's stream.

        Args:
            n: number of particles.
            shape: event shape.
            dtype: floating type of the result; the bits are decided in float64.
            device: where the result lies; it has the same bits everywhere.

        Returns:
            (n, *shape).
        """
        m = math.prod(shape)
        words = (m + 1) // 2
        out = torch.empty(n, 2 * words, dtype=dtype, device=device)
        # blocks of particles that stay in a core's cache (on an accelerator one block is best)
        rows = max(1, _BLOCK // max(words, 1)) if out.device.type == "cpu" else max(n, 1)
        key, counter = self._before(n, words, device)
        for i in range(0, n, rows):
            block = out[i : i + rows]
            block[:, :words], block[:, words:] = _box_muller(_mix(key[i : i + rows] + counter))
        return out[:, :m].reshape(n, *shape)

    def uniform(
        self,
        n: int,
        shape: tuple[int, ...] = (),
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Numbers uniform in the open interval (0, 1).

        Args:
            n: number of particles.
            shape: event shape.
            dtype: floating type of the result.
            device: where the result lies.

        Returns:
            (n, *shape), midpoints of 2^23 cells (2^52 in float64).
        """
        k = 52 if dtype == torch.float64 else 23  # midpoints of 2^k cells are exact in the type, so 0 and 1 never occur
        w = (self.bits(n, math.prod(shape), device) >> (64 - k)) & ((1 << k) - 1)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return w.to(wide).add_(0.5).mul_(2.0**-k).to(dtype).reshape(n, *shape)

    def randint(self, n: int, high: int, shape: tuple[int, ...] = (), *, device: torch.device | str = "cpu") -> Tensor:
        """Integers uniform in {0, ..., high - 1}.

        Args:
            n: number of particles.
            high: number of values.
            shape: event shape.
            device: where the result lies.

        Returns:
            (n, *shape) int64.
        """
        return ((self.bits(n, math.prod(shape), device) >> 1) & ((1 << 63) - 1)).remainder_(high).reshape(n, *shape)

    def increment(self, k: int, t0: float, t1: float, x: Tensor) -> Tensor:
        """The increment of step k, which has numbers of its own, whatever the times (see `Increments`)."""
        return self.fork("step", k).normal(x.shape[0], tuple(x.shape[1:]), dtype=x.dtype, device=x.device) * math.sqrt(
            t1 - t0
        )


def as_noise(noise: Noise | int | None) -> Noise:
    """The streams that an argument `noise=` stands for.

    Args:
        noise: a Noise, which is returned; an integer seed; or None for a fresh seed, drawn from torch's CPU generator,
            so that `torch.manual_seed` governs it and two calls differ.

    Returns:
        The streams.

    Raises:
        TypeError: anything else.
    """
    if isinstance(noise, Noise):
        return noise
    if noise is None:
        return Noise(int(torch.randint(1 << 62, (), device="cpu")))
    if isinstance(noise, bool) or not hasattr(noise, "__index__"):
        raise TypeError(
            f"noise={noise!r} is no noise: give a df.Noise, an integer seed, or None for a fresh seed of torch's"
        )
    return Noise(operator.index(noise))


@dataclass(frozen=True)
class BrownianPath:
    """One Brownian path per particle on [0, horizon], the same however it is cut into steps.

    W(t2) - W(t0) = (W(t1) - W(t0)) + (W(t2) - W(t1)). Levy's construction: each bisection adds an independent N(0, h/4)
    at the midpoint of an interval of length h. Below horizon / 2^depth the path is interpolated linearly. For measuring
    strong orders, where coarse and fine solves share a path.

    Args:
        noise: streams, one per particle, or an integer seed.
        horizon: end of the path, in units of time.
        depth: number of bisections.
    """

    noise: Noise | int
    horizon: float
    depth: int = 24

    def __call__(self, t: float, x: Tensor) -> Tensor:
        """The path's value W(t), shaped like x (n, *shape). Raises ValueError for a t outside [0, horizon]."""
        if not 0.0 <= t <= self.horizon:
            raise ValueError(f"t={t} is outside [0, {self.horizon}], where this path lives")

        def draw(node: int) -> Tensor:
            return (
                as_noise(self.noise)
                .fork("bridge", node)
                .normal(x.shape[0], tuple(x.shape[1:]), dtype=x.dtype, device=x.device)
            )

        left, right = torch.zeros_like(x), draw(0) * math.sqrt(self.horizon)
        lo, hi = 0.0, self.horizon
        node = 1
        for _ in range(self.depth):
            if t in (lo, hi):
                break
            mid = 0.5 * (lo + hi)
            value = 0.5 * (left + right) + draw(node) * math.sqrt(hi - lo) / 2
            if t < mid:
                right, hi, node = value, mid, 2 * node
            else:
                left, lo, node = value, mid, 2 * node + 1
        return left + (right - left) * ((t - lo) / (hi - lo))

    def increment(self, k: int, t0: float, t1: float, x: Tensor) -> Tensor:
        """The increment W(t1) - W(t0) of the path, whatever the step (see `Increments`)."""
        return self(t1, x) - self(t0, x)
