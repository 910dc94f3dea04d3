"""The only sampling loop, the solvers, their grids and calibrated plans, and convergence measured along a solve."""
