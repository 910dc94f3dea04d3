"""Backbones: the nets themselves, each file readable alone.

Nets of denoisers share one signature: net(x (n, *shape), time (n,), cond) -> like x, where cond is int64 (n,) with -1
for no class, a tree of conditions (equation/conditions.py), or None. Nets of discriminators return one logit (n,)
instead, nets of generators take z and cond.
"""
