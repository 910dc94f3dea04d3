"""Backbones: the nets themselves, each file readable alone.

Nets of denoisers share one signature: net(x (n, *shape), time (n,), cond int64 (n,) or None) -> like x; -1 = no class.
Nets of discriminators return one logit (n,) instead, nets of generators take z and cond.
"""
