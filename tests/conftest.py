"""Settings that all tests share."""

import os

from hypothesis import settings

# No deadline: a shared machine is slow now and then. In CI a failure must come back on the next run.
settings.register_profile("tailorbird", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tailorbird")
