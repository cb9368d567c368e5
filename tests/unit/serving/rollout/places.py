"""A place whose loads do as a test says: fail, take their time, or wait to be let go."""

import threading
from datetime import UTC, datetime

from tailorbird.repository.channels import Live
from tailorbird.serving.rollout.place import Look
from tests.protocol.engines import fake_model

NOW = datetime(2024, 5, 1, tzinfo=UTC)


class ScriptedPlace:
    """Versions of fake models, with no files.

    Args:
        leavable: a load may be left behind.
        serving: the version of each model that is in service.
    """

    poll_s = 3600.0

    def __init__(self, *, leavable=True, **serving):
        self.leavable = leavable
        self.serving = serving
        self.channels = ()
        self.looks = 0
        self.loads = []
        self.scripts = {}
        """By model and version: called by each load."""

    def look(self):
        self.looks += 1
        return Look(dict(self.serving), self.channels)

    def stamp(self):
        return None

    def load(self, name, version, watch):
        self.loads.append((name, version))
        self.scripts.get((name, version), lambda: None)()
        return fake_model(name, version)

    def file_bytes(self, name, version):
        return 1

    def point(self, channel, name, version):
        """Let a channel point at a version, and no other channel at anything."""
        self.channels = (Live(channel, name, version, NOW),)


class Held:
    """A script that waits until the test lets it go."""

    def __init__(self):
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.over = threading.Event()

    def __call__(self):
        self.entered.set()
        let_go = self.let_go.wait(20)
        self.over.set()
        assert let_go
