"""The kernels in CUDA: functions of the host that launch them over arrays on the GPU."""
