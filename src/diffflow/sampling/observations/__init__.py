"""Samples given some of their coordinates: what is known, and the methods that draw the rest."""
