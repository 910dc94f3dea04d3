"""Objectives: what each player minimises, one file an objective; base.py holds the words they share."""
