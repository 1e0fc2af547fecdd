"""Settings of the whole suite."""

from hypothesis import settings

# Two shared cores make wall-clock deadlines flaky; fixed seeds make a failure the same failure tomorrow.
settings.register_profile("lrh", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("lrh")
