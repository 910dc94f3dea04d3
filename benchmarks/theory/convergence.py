"""Convergence theorems of the DiffFlow paper computed on exact laws: writes docs/theory/convergence.md and its figures.

Both sides of every statement come from diffflow.sampling.convergence, in about a minute; nothing is trained.

    python benchmarks/theory/convergence.py
    python benchmarks/theory/convergence.py --out build/convergence          (page and figures elsewhere)
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import diffflow as df
from diffflow import figures, files
from diffflow.figures import COLOURS, SOFT
from diffflow.sampling.convergence import Line, grid_decay, log_sobolev, tempered

F64 = torch.float64
LINE = Line(-9.0, 9.0, 1200)
TWO = df.GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.5, [0.35, 0.65])
START = df.Gaussian(torch.tensor([-1.0], dtype=F64), 1.5)


def panels(count: int):
    fig = figures.figure(4.2 * count, 3.0)
    fig.set_layout_engine("constrained")
    axes = fig.subplots(1, count, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#e4e7ec", linewidth=0.6)
    return fig, axes


def dissipation(out: Path) -> dict[str, float]:
    """Equation 5: three speeds of the flow to a mixture, the slope of KL beside -kappa I."""
    fig, (left, right) = panels(2)
    worst = 0.0
    speeds = {
        "β = 1": 1.0,
        "β = sig(d), saturating": df.Speed(torch.sigmoid),
        "β = sig(−d), non-saturating": df.Speed(lambda d: (-d).sigmoid()),
    }
    for colour, (name, beta) in zip(COLOURS, speeds.items(), strict=False):
        sde = replace(df.static(TWO, None, churn=1.0, horizon=2.0, start=START), beta=beta)
        decay, _ = grid_decay(sde, LINE, steps=1000, records=500)
        slope = (decay.kl[2:] - decay.kl[:-2]) / (decay.times[2:] - decay.times[:-2])
        worst = max(worst, ((slope - decay.slope[1:-1])[5:].abs().max() / decay.slope.abs().max()).item())
        left.plot(decay.times, decay.kl, color=colour, label=name)
        right.plot(decay.times[1:-1], -slope, color=colour, linewidth=4, alpha=0.3)
        right.plot(decay.times, -decay.slope, color=colour, linewidth=1.2)
    left.set(title="KL(p|r), nats", xlabel="t", yscale="log")
    right.set(title="−dKL/dt (broad) and κ I (thin)", xlabel="t", yscale="log")
    left.legend(frameon=False, fontsize=8)
    files.write(out / "dissipation.png", figures.png(fig))
    return {"slope_error": worst}


def rates(out: Path) -> dict[str, float]:
    """Theorem 2 where it is sharp, where it holds with room, and where its constant says nothing."""
    fig, axes = panels(3)
    found = {}
    cases = {
        "Gaussian, mean shift: sharp": (
            df.Gaussian(torch.tensor([0.0], dtype=F64), 1.0),
            df.Gaussian(torch.tensor([1.5], dtype=F64), 1.0),
            3.0,
        ),
        "two modes, σ > R": (
            df.GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 1.3, [0.35, 0.65]),
            START,
            3.0,
        ),
        "two modes, σ < R": (
            df.GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=F64), 0.45, [0.35, 0.65]),
            START,
            6.0,
        ),
    }
    for ax, (name, (law, start, horizon)) in zip(axes, cases.items(), strict=True):
        decay, _ = grid_decay(df.langevin(law, horizon=horizon, start=start), LINE, steps=1500, records=300)
        ax.plot(decay.times, decay.kl, color=COLOURS[0], label="KL")
        ax.plot(decay.times, decay.bound, color=COLOURS[1], linestyle="--", label=f"bound, ρ = {log_sobolev(law):.2g}")
        ax.set(title=name, xlabel="t", yscale="log", ylim=(1e-3, 3))
        ax.legend(frameon=False, fontsize=8)
        found[name] = (decay.kl / decay.bound).max().item()
    files.write(out / "rates.png", figures.png(fig))
    return found


def theorem1(out: Path) -> dict[str, float]:
    decay, _ = grid_decay(df.langevin(TWO, horizon=8.0, start=START), LINE, steps=4000, records=4000)
    fig, (left, right) = panels(2)
    total = torch.cat([decay.fisher.new_zeros(1), torch.cumulative_trapezoid(decay.fisher, decay.times)])
    left.plot(decay.times, total, color=COLOURS[0], label="∫ I dt")
    left.axhline(decay.kl[0].item(), color=COLOURS[1], linestyle="--", label="KL₀/β")
    left.set(title="the Fisher divergence is integrable", xlabel="t")
    right.plot(decay.times, decay.tv, color=COLOURS[0])
    right.set(title="total variation falls to 0", xlabel="t", yscale="log")
    left.legend(frameon=False, fontsize=8)
    files.write(out / "theorem1.png", figures.png(fig))
    return {
        "share": (total[-1] / decay.kl[0]).item(),
        "tv": decay.tv[-1].item(),
        "tv_rises": float((decay.tv.diff() > 1e-12).sum()),
    }


def lag(out: Path) -> dict[float, float]:
    """Annealing without the consistent lam2: particles follow the cooling target with a lag (derivations.md, 9.4)."""
    s = df.VE(0.1, 2.0)
    fig, (left, right) = panels(2)
    found = {}
    for colour, beta in zip(COLOURS, (3.0, 10.0, 30.0), strict=False):
        ratio = df.LawRatio(lambda t: s.law(TWO, t), lambda t: s.law(TWO, t))  # the grid knows p itself
        sde = df.improved_gan(s, ratio, beta, start=s.law(TWO, 0.0))
        decay, laws = grid_decay(sde, LINE, steps=2000, records=200)
        found[beta] = decay.kl[-1].item()
        left.plot(decay.times, decay.kl.clamp_min(1e-9), color=colour, label=f"λ² = 0, β = {beta:g}")
        right.plot(LINE.x, laws[-1], color=colour)
    sde = df.at(s, s.score(TWO), df.LawRatio(lambda t: s.law(TWO, t), lambda t: s.law(TWO, t)), gan=1.0)
    decay, _ = grid_decay(sde, LINE, steps=2000, records=200)
    left.plot(decay.times, decay.kl.clamp_min(1e-9), color=COLOURS[3], label="λ² of the schedule")
    found[0.0] = decay.kl[-1].item()
    right.plot(LINE.x, s.law(TWO, 1.0).log_prob(LINE.x[:, None]).exp(), color=SOFT, linestyle="--")
    left.set(title="KL(p|r) while the noise falls", xlabel="t", yscale="log")
    right.set(title="where it ends (dashed: target)", xlabel="x", xlim=(-3, 3))
    right.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=8)
    files.write(out / "lag.png", figures.png(fig))
    return found


def continuation(out: Path) -> dict[float, float]:
    """Constant lam2 ends on a power of the target (derivations.md, section 1)."""
    fig, (ax,) = panels(1)
    found = {}
    for colour, lam2 in zip(COLOURS, (0.6, 0.0, -1.0), strict=False):
        sde = replace(df.langevin(TWO, horizon=30.0, start=START), lam2=lam2)
        _, laws = grid_decay(sde, LINE, steps=1500, records=10)
        power = tempered(TWO.log_prob(LINE.x[:, None]), 1.0, lam2, LINE.h)
        found[lam2] = 0.5 * (laws[-1] - power).abs().sum().item() * LINE.h
        ax.plot(LINE.x, laws[-1], color=colour, linewidth=4, alpha=0.3)
        ax.plot(LINE.x, power, color=colour, linewidth=1.2, label=f"λ² = {lam2:g}: q^{1 / (1 - lam2 / 2):.2g}")
    ax.set(title="stationary laws (thin: q to a power)", xlabel="x", xlim=(-4, 4))
    ax.legend(frameon=False, fontsize=8)
    files.write(out / "continuation.png", figures.png(fig))
    return found


PAGE = r"""# Convergence, watched

How fast does the law of the particles reach its target? The DiffFlow paper has two theorems. Here both sides of
each statement are computed on exact laws and drawn; `python benchmarks/theory/convergence.py` makes this page, in
about a minute.

## What is lost, and how fast

For a fixed target and $\lambda^2 = 0$, or on a schedule with its own $f$ and $\lambda^2$
([equation 5](derivations.md#eq-5), Lemma 1),

$$
\frac{{d}}{{dt}}\,\mathrm{{KL}}(p\|r) = -\kappa\,I(p\|r), \qquad \kappa = \beta - \tfrac{{\lambda^2}}{{2}}, \qquad
I(p\|r) = E_p\left\|\nabla\log\frac pr\right\|^2
$$

whatever the stochasticity $g^2$. The GAN, Langevin dynamics and everything between lose the same divergence at the
same rate. Three speeds $\beta$ on the way to two modes; the slope of KL, by differences, agrees with $\kappa\,I$ to
{slope_error:.1e} of its largest value:

![dissipation](../assets/convergence/dissipation.png)

## Theorem 2: exponential, where the target lets it

$$
\mathrm{{KL}}(p_t\|r_t) \le \mathrm{{KL}}(p_0\|r_0)\,\exp\Big(-2\int_0^t \rho\,\kappa\,d\tau\Big)
$$

with $\rho$ the log-Sobolev constant of the target. For a shifted Gaussian it is an equality. A target in a ball of
radius $R$ noised by $\sigma > R$ has $\rho \ge (\sigma^2 - R^2)/\sigma^4$; for $\sigma < R$ a constant exists and
falls like $\exp(-4R^2/\sigma^2)$: true, and of no use. That is the case for annealing: begin where $\sigma$ is large.

![rates](../assets/convergence/rates.png)

## Theorem 1: without any constant

The Fisher divergence is integrable, $\int I\,dt \le \mathrm{{KL}}_0/\beta$ (here {share:.1%} of it at the end), so it
comes arbitrarily near 0; and since total variation never rises ([equation 3](derivations.md#eq-3) is linear and keeps
the target), the whole family converges: it is {tv:.1e} at the end.

![theorem 1](../assets/convergence/theorem1.png)

## Annealing without the schedule's own entropy

The improved GAN lets the target's noise fall while its particles follow with $\lambda^2 = 0$. They lag: the faster
($\beta$), the less. With the schedule's own $\lambda^2$ there is none, up to the grid's error.

| | $\beta = 3$ | $\beta = 10$ | $\beta = 30$ | $\lambda^2$ of the schedule |
|---|---|---|---|---|
| KL at the end, nats | {lag3:.1e} | {lag10:.1e} | {lag30:.1e} | {lag0:.1e} |

![lag](../assets/convergence/lag.png)

## The analytic continuation is another target

With constant $\beta$ and $\lambda^2$, the particles come to rest on $q^{{\beta/(\beta - \lambda^2/2)}}$: flatter than
$q$ for $\lambda^2 < 0$, sharper for $\lambda^2 > 0$.

![continuation](../assets/convergence/continuation.png)

## With your own equation

```python
import torch
import diffflow as df
from diffflow.sampling.convergence import Line, grid_decay

q = df.GaussianMixture(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), stds=0.5)
sde = df.langevin(q, horizon=2.0, start=df.Gaussian(torch.tensor([-1.0], dtype=torch.float64), 1.5))
decay, laws = grid_decay(sde, Line(-9, 9, 600), steps=400)
print(decay.kl[-1], decay.bound[-1], decay.dissipated[-1])
```

`gaussian_decay` does the same for Gaussians in any dimension, `particle_decay` estimates it from a cloud, and
`diffflow diagnose RUN` asks a trained model how far its fields are from what they should be.

Source: Zhang et al., 2023 (arXiv 2307.02159), Theorems 1 and 2, Lemmas 1 and 2, with the repairs of
[the derivations](derivations.md); Bakry & Émery, 1985; Chen, Chewi & Niles-Weed, 2021 (arXiv 2102.11476).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="page and figures into this folder instead of docs/")
    args = parser.parse_args()
    page = Path("docs/theory/convergence.md") if args.out is None else args.out / "theory" / "convergence.md"
    pictures = page.parent.parent / "assets" / "convergence"
    torch.set_default_dtype(F64)
    found = {**dissipation(pictures), **theorem1(pictures)}
    rates(pictures)
    lags = lag(pictures)
    continuation(pictures)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(PAGE.format(**found, lag3=lags[3.0], lag10=lags[10.0], lag30=lags[30.0], lag0=lags[0.0]))
    print(page)


if __name__ == "__main__":
    main()
