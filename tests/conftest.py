"""How Hypothesis runs: the same few examples by default, many new ones in `make fuzz`."""

from hypothesis import settings

# No deadline: the first example compiles a kernel.
settings.register_profile("default", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("fuzz", max_examples=2000, deadline=None, derandomize=False)
settings.load_profile("default")  # before pytest reads --hypothesis-profile, which wins
