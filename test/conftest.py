"""For all tests."""

from hypothesis import settings

# Time is measured by benchmarks; a test must not fail because the machine is busy.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
