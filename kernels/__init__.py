"""Numbers only: twins of one contract (README.md), `reference` in NumPy and `cpu` in Numba."""
