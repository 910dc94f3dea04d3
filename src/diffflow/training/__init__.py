"""Training: one loop for every objective (fit.py), averages (ema.py), checkpoints (checkpoint.py), typed settings
(config.py).
"""
