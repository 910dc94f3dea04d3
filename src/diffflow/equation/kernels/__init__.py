r"""Kernel fields: velocities made from the cloud alone, which push particles when nothing is trained.

Let p be the law of the particles x_1 ... x_n, q the target (points y_1 ... y_m, a Law, or its score s), k a kernel
(derivations.md section 7). Each field descends a functional, in the Wasserstein geometry unless said otherwise:

    KernelScore        grad log p_h,  p_h(x) = 1/n sum_i N(x; x_i, h^2 I)                  entropy, uphill
    KernelRatio        grad log (q * N_h) / p_h                                            KL(p | q), both blurred by h
    Drifting           m_q(x) - m_p(x),  m = kernel-weighted mean of the points            h^2 times that, Gaussian k
    SVGD               mean_i [ k(x_i, x) s(x_i) + grad_{x_i} k(x_i, x) ]                  KL, in the geometry of k
    MMD                mean_j grad_x k(x, y_j) - mean_i grad_x k(x, x_i)                   1/2 MMD^2
    KSD                -mean_i grad_x k_q(x, x_i),  k_q the Stein kernel of s and k        1/2 KSD^2
    SlicedWasserstein  mean over theta of (T(<theta, x>) - <theta, x>) theta               1/2 SW2^2

All follow two contracts. `observe(x, t)` shows the field the particles, then it can be called; `on(data, noise)` puts
other target points in its place (a batch, when the field moves the samples of a generator). No field is random: what a
field needs of randomness (directions, injected noise) is a function of its Noise and of t.

In the equation such a field stands where the log-ratio does: f = 0, beta = 1, g2 = lam2 = 0. Every sum over pairs is
done in blocks of rows, O(n m). Shapes: x (n, *shape) -> (n, *shape).
"""

from .density import CloudField, FieldSum, Injected, KernelRatio, KernelScore
from .discrepancies import KSD, MMD, SVGD, Drifting, SlicedWasserstein
from .kernel import EnergyKernel, GaussianKernel, InverseMultiquadric, Kernel, LaplaceKernel, median_bandwidth

__all__ = [
    "KSD",
    "MMD",
    "SVGD",
    "CloudField",
    "Drifting",
    "EnergyKernel",
    "FieldSum",
    "GaussianKernel",
    "Injected",
    "InverseMultiquadric",
    "Kernel",
    "KernelRatio",
    "KernelScore",
    "LaplaceKernel",
    "SlicedWasserstein",
    "median_bandwidth",
]
