"""Cheap looks: whatever changes in a repository changes its stamp, and nothing else does."""

import os
import shutil
import time

import pytest

from tailorbird.repository.store import LocalRepository
from tailorbird.serving.rollout.watch import folder_stamp
from tests import bundles


@pytest.fixture
def store(tmp_path):
    found = LocalRepository(tmp_path / "repository")
    for threads in (1, 2):
        found.publish(bundles.version(tmp_path / str(threads), candidate=bundles.candidate(threads=threads)))
    age(found.root)
    return found


def age(root):
    """Let every folder have changed ten seconds earlier than it did."""
    for folder in (root, *root.rglob("*")):
        if folder.is_dir():
            then = folder.stat().st_mtime_ns - 10_000_000_000
            os.utime(folder, ns=(then, then))


def test_nothing_changed(store):
    assert folder_stamp(store.root) == folder_stamp(store.root) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda store, made: store.promote("tiny", 1, "production"),
        lambda store, made: store.retire("tiny", 1),
        lambda store, made: store.publish(made),
        lambda store, made: store.publish(made, "other"),
        lambda store, made: shutil.rmtree(store.root / "tiny" / "1"),
        lambda store, made: shutil.rmtree(store.root / "tiny"),
    ],
)
def test_each_change_shows(store, tmp_path, change):
    before = folder_stamp(store.root)
    change(store, bundles.version(tmp_path / "made", candidate=bundles.candidate(threads=3)))
    assert folder_stamp(store.root) is None  # too young: another one could follow within the clock's tick
    age(store.root)
    assert folder_stamp(store.root) not in (None, before)


def test_a_folder_that_changed_just_now_says_nothing(store):
    before = folder_stamp(store.root)
    os.utime(store.root)
    assert folder_stamp(store.root) is None
    past = time.time_ns() - 3_000_000_000
    os.utime(store.root, ns=(past, past))
    assert folder_stamp(store.root) not in (None, before)


def test_what_cannot_be_read_says_nothing(tmp_path):
    assert folder_stamp(tmp_path / "none") is None
