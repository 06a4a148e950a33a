"""Benchmarks that take all contenders in turn, beside the machine's own limits in the same run."""
