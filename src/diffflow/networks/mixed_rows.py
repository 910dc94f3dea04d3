r"""Denoisers of mixed rows: words and few values by their posterior, numbers by EDM's form, in one vector.

A coordinate that can only be one of a few values (0 or 1 of a one-hot; the points of a column of few values) is known
through its noise as Bayes says, up to what the other columns tell:

    P(i | y)  proportional to  prior_i exp((y_c v_i - v_i^2 / 2) / sigma^2)  exp(net_i(y, sigma))
    D_c = sum_i P(i | y) v_i

over the values i of the column, each at its coordinate c: of a one-hot v_i = 1, each i at a coordinate of its own, and
the evidence is y_i / sigma^2; of points all are at one coordinate. The net only learns the last factor, what *other*
columns say: where its output is 0 the denoiser is that of independent columns, exactly, at every noise. D lies among
the values' averages, and is exact near the data whatever the net says.

Numbers are normal scores: D = a y + b F as everywhere. One that may be absent is a fresh draw of N(0, 1) where it is,
so with the posterior p of its being present

    D = p (a y + b F) + (1 - p) y / (1 + sigma^2)

D estimates E[Y | y] in every coordinate, so solvers, plans, bounds and likelihoods take it as any other.

The net sees, of every value of a discrete column, the posterior of its own evidence less the prior, in units of its
standard deviation; of numbers and points y / sqrt(1 + sigma^2), and sines of it.

Shapes: y (n, D); the net (n, inputs) -> (n, outputs), outputs = values of all discrete columns, then numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..data.column_parts import Part, positions
from ..data.conditions import Conditions
from ..equation.conditions import Cond
from .backbones.mlp import sines
from .denoiser import Denoiser, quarter_log

CLEAN = 0.01  # noise level at which what is known is looked at: far below the distance of values
LEAST_STD = 0.1  # of a value's indicator, for the net's input: rarer words than in a hundred rows are not blown up more


class Discrete(nn.Module):
    """The values of the discrete columns: where they are, how likely they were, and what evidence says.

    Args:
        parts: the coordinates of each column.
    """

    place: Tensor
    value: Tensor
    group: Tensor
    log_prior: Tensor
    scale: Tensor

    def __init__(self, parts: Sequence[Part]):
        super().__init__()
        places = list[int]()
        values = list[float]()
        groups = list[int]()
        shares = list[float]()
        for part in parts:
            if part.kind == "number" and not part.flagged:
                continue
            group = groups[-1] + 1 if groups else 0
            prior = torch.tensor(part.prior, dtype=torch.float64)
            count = len(prior)
            places += [part.first] * count if part.kind == "levels" else range(part.first, part.first + count)
            values += positions(part).tolist() if part.kind == "levels" else [1.0] * count
            groups += [group] * count
            shares += (prior / prior.sum()).tolist()
        self.count = len(places)
        self.groups = groups[-1] + 1 if groups else 0
        prior = torch.tensor(shares, dtype=torch.float64)
        self.register_buffer("place", torch.tensor(places, dtype=torch.int64))
        self.register_buffer("value", torch.tensor(values))
        self.register_buffer("group", torch.tensor(groups, dtype=torch.int64))
        self.register_buffer("log_prior", prior.log().float())
        self.register_buffer("scale", 1 / (prior * (1 - prior)).sqrt().clamp(min=LEAST_STD).float())

    def evidence(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Log-prior and log-likelihood of each value by its own coordinate, up to what its column has in common.

        Args:
            y: noisy rows (n, D).
            sigma: the noise level of each coordinate (n, D).

        Returns:
            (n, values).
        """
        v = self.value.to(y.dtype)
        return self.log_prior.to(y.dtype) + (y[:, self.place] - 0.5 * v) * v / sigma[:, self.place] ** 2

    def posterior(self, logits: Tensor) -> Tensor:
        """Softmax within each column, (n, values)."""
        group = self.group.expand(len(logits), -1)
        top = logits.new_full((len(logits), self.groups), -torch.inf).scatter_reduce(1, group, logits.detach(), "amax")
        p = (logits - top.gather(1, group)).exp()
        return p / logits.new_zeros(len(logits), self.groups).scatter_add(1, group, p).gather(1, group)

    def mean(self, p: Tensor, like: Tensor) -> Tensor:
        """Sum of p v at each coordinate, of the shape of y (n, D); 0 where there is no value."""
        return torch.zeros_like(like).scatter_add(1, self.place.expand(len(p), -1), p * self.value.to(p.dtype))


class MixedDenoiser(Denoiser):
    """Denoiser of rows with words, few values and numbers.

    Args:
        make: (inputs, outputs) -> net, a module (x (n, inputs), time (n,), cond) -> (n, outputs); one that can be
            told which columns are known takes these by name, `known` bool (n, columns).
        parts: the coordinates of each column (`TableTransform.parts`).
        sigma_data: standard deviation of all coordinates, for the weighting of the loss.
        principal_std: the largest principal standard deviation, for the default sampling grid.
        octaves: the k of the sines of 2^k pi x that the net is shown beside numbers and points x.
        time: what the net is told about sigma, a map of (n,) to (n,).
        conditions: what the net is told of each row, or None.
        null: whether the net learns "no condition" too.
    """

    number: Tensor
    flag: Tensor
    line: Tensor
    first: Tensor
    column: Tensor

    def __init__(
        self,
        make: Callable[[int, int], nn.Module],
        parts: Sequence[Part],
        sigma_data: float,
        principal_std: float | None = None,
        *,
        octaves: Sequence[int] = (),
        time: Callable[[Tensor], Tensor] = quarter_log,
        conditions: Conditions | None = None,
        null: bool = True,
    ):
        discrete = Discrete(parts)
        numbers = [part for part in parts if part.kind == "number"]
        lines = [part.last - 1 for part in parts if part.kind != "words"]
        flags = dict(zip(discrete.place.tolist(), range(discrete.count), strict=False))  # first logit of a one-hot
        inputs = discrete.count + len(lines) * (1 + 2 * len(octaves))
        net = make(inputs, discrete.count + len(numbers))
        super().__init__(net, sigma_data, principal_std, time=time, conditions=conditions, null=null)
        self.discrete, self.octaves = discrete, tuple(octaves)
        self.register_buffer("number", torch.tensor([part.last - 1 for part in numbers], dtype=torch.int64))
        self.register_buffer("line", torch.tensor(lines, dtype=torch.int64))
        self.register_buffer("first", torch.tensor([part.first for part in parts], dtype=torch.int64))
        columns = [k for k, part in enumerate(parts) for _ in range(part.width)]
        self.register_buffer("column", torch.tensor(columns, dtype=torch.int64))
        # the place of "present" among the values, or -1 for a number that always is
        present = [flags[part.first] if part.flagged else -1 for part in numbers]
        self.register_buffer("flag", torch.tensor(present, dtype=torch.int64))

    @property
    def groups(self) -> Tensor:
        """Number of the column that each coordinate belongs to, int64 (D,)."""
        return self.column

    def estimate(self, y: Tensor, sigma: Tensor, cond: Cond, told: dict[str, Tensor]) -> Tensor:
        """D(y, sigma) of noisy rows y (n, D) at checked levels sigma; what is known has next to no noise."""
        known, more = told.get("known"), dict(told)
        levels = sigma.to(y.dtype).reshape(-1, 1).expand(y.shape)
        if known is not None:
            levels = torch.where(known, CLEAN, levels)
            more["known"] = known[:, self.first]
        evidence = self.discrete.evidence(y, levels)
        own = self.discrete.posterior(evidence)
        shown = (own - self.discrete.log_prior.to(y.dtype).exp()) * self.discrete.scale.to(y.dtype)
        c = (1 + levels**2).rsqrt()
        x = torch.cat([shown, sines((c * y)[:, self.line], self.octaves)], 1)
        out = self.predict(x, (len(y), self.discrete.count + len(self.number)), sigma, cond, more)
        said, F = out[:, : self.discrete.count], out[:, self.discrete.count :]
        p = self.discrete.posterior(evidence + said)
        c = c[:, self.number]
        skip, correction = c**2 * y[:, self.number], levels[:, self.number] * c * F
        present = torch.where(self.flag >= 0, p[:, self.flag.clamp(min=0)], 1.0) if self.discrete.count else 1.0
        return self.discrete.mean(p, y).index_add(1, self.number, skip + present * correction)
