"""Memory: what a process takes, and who goes when there is no room."""

import os
import subprocess
import sys

import pytest

from tailorbird.serving.processes.events import Event, Happening
from tailorbird.serving.rollout.memory import Ledger, Tenant, chosen, resident

OLD, NEW = Tenant("old", None, 100, 1.0), Tenant("new", None, 50, 2.0)
KEPT = Tenant("new", 1, 30, 9.0)


@pytest.mark.parametrize(
    ("needed", "going"),
    [
        (0, ()),
        (-5, ()),
        (30, (KEPT,)),  # what answers nobody goes first
        (31, (KEPT, OLD)),
        (130, (KEPT, OLD)),
        (131, (KEPT, OLD, NEW)),
        (180, (KEPT, OLD, NEW)),
        (181, None),
    ],
)
def test_the_least_recently_used_go(needed, going):
    assert chosen([NEW, OLD, KEPT], needed) == going


def test_nobody_there():
    assert chosen([], 1) is None


def test_a_process_is_measured():
    program = "held = bytearray(64 << 20); print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert 64 << 20 < resident(process.pid) < 160 << 20
        process.communicate("\n")
    assert resident(process.pid) == 0


class TestLedger:
    version = ("tiny", 3)

    def event(self, what, instance="instance 0", pid=None):
        return Event(instance=instance, what=what, pid=pid)

    def test_files_are_the_estimate_and_the_figure_without_processes(self):
        ledger = Ledger()
        assert (ledger.expected(self.version), ledger.measured(self.version)) == (0, 0)
        ledger.file_bytes(self.version, 1000)
        assert (ledger.expected(self.version), ledger.measured(self.version)) == (1000, 1000)

    def test_processes_are_measured_and_remembered(self):
        ledger = Ledger()
        ledger.file_bytes(self.version, 1000)
        ledger.seen(*self.version, self.event(Happening.READY, pid=os.getpid()))
        found = ledger.measured(self.version)
        assert found > 10 << 20
        ledger.seen(*self.version, self.event(Happening.ENDED, pid=os.getpid()))
        assert ledger.expected(self.version) == found
        assert ledger.measured(self.version) == 1000

    def test_the_end_of_an_old_process_says_nothing_of_the_new_one(self):
        ledger = Ledger()
        ledger.file_bytes(self.version, 1000)
        for pid in (1, os.getpid()):  # loaded again while the old one drains
            ledger.seen(*self.version, self.event(Happening.READY, pid=pid))
        ledger.seen(*self.version, self.event(Happening.ENDED, pid=1))
        assert ledger.measured(self.version) > 10 << 20

    def test_others_are_expected_to_need_the_runtime_too(self):
        ledger = Ledger()
        ledger.file_bytes(self.version, 1000)
        ledger.file_bytes(("other", 1), 5000)
        assert ledger.expected(("other", 1)) == 5000
        ledger.seen(*self.version, self.event(Happening.READY, pid=os.getpid()))
        found = ledger.measured(self.version)
        assert ledger.expected(("other", 1)) == 5000 + found - 1000

    def test_every_instance_counts(self):
        ledger = Ledger()
        ledger.seen(*self.version, self.event(Happening.READY, pid=os.getpid()))
        one = ledger.measured(self.version)
        ledger.seen(*self.version, self.event(Happening.READY, "instance 1", os.getpid()))
        assert ledger.measured(self.version) > 1.5 * one
        ledger.seen(*self.version, self.event(Happening.CRASHED, "instance 1", os.getpid()))
        assert ledger.measured(self.version) < 1.5 * one
