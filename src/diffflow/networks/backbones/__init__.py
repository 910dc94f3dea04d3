"""Networks, each file readable alone. All share one signature: net(x, time (n,), cond int64 (n,) or None) -> like x;
-1 = no class.
"""
