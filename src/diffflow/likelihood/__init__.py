"""Log-density along the flow, lower bounds without a solve, and the dequantisation of discrete data."""
