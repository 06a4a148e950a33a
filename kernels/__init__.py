"""Numbers only: twins of one contract (README.md), in NumPy, in Numba, and in Numba for CUDA."""
