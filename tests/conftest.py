"""For all tests. Property-based ones that say nothing else try the same examples everywhere, and are not timed: on a
busy machine any example may take long, and that is no fault of the code."""

from hypothesis import settings
from kappa_profiles import tries

settings.register_profile("kappa", tries(100))
settings.load_profile("kappa")
