"""Movers: velocities that generated samples follow, one file a kind; base.py holds what they have in common."""
