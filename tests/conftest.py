"""Settings that all tests share."""

import os
import signal
import tempfile
from pathlib import Path

from hypothesis import settings

# Whoever starts tests in the background starts them deaf to Ctrl-C, and so would be all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: a shared machine is slow now and then. In CI a failure must come back on the next run.
settings.register_profile("tailorbird", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tailorbird")


def _cache_of_our_own() -> str:
    """What builds share is made anew for each run of the tests; fetched wheels and models are not fetched again."""
    usual = Path(os.environ.get("TAILORBIRD_CACHE") or Path.home() / ".cache" / "tailorbird")
    ours = Path(tempfile.mkdtemp(prefix="tailorbird-tests-"))
    for name in ("wheels", "zoo"):
        (usual / name).mkdir(parents=True, exist_ok=True)
        (ours / name).symlink_to(usual / name)
    return str(ours)


os.environ["TAILORBIRD_CACHE"] = _cache_of_our_own()

# So are the keys that sign: nobody's own may sign what tests make, and none of them is trusted afterwards.
os.environ["TAILORBIRD_KEYS"] = tempfile.mkdtemp(prefix="tailorbird-test-keys-")
for _name in ("TAILORBIRD_KEY", "TAILORBIRD_KEY_PASSPHRASE"):
    os.environ.pop(_name, None)
