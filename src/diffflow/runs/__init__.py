"""Runs: a trained thing as its user holds it, to sample, measure, sweep and report."""
