"""Segments grow, are followed, cannot shrink, and go."""

import os

import numpy as np
import pytest

from tailorbird.domain.errors import BackendError
from tailorbird.serving.processes.memory import Segment
from tests.processes import descriptors


def both(limit=1 << 20):
    writer = Segment.create(limit)
    return writer, Segment(os.dup(writer.descriptor), limit)


def test_what_one_side_writes_the_other_reads():
    writer, reader = both()
    with writer, reader:
        writer.memory[:3] = b"abc"
        assert reader.memory[:3] == b"abc"
        writer.grow(300_000)
        writer.memory[299_999] = 7
        reader.follow(300_000)
        assert reader.memory[299_999] == 7
        assert reader.memory[:3] == b"abc"


def test_it_grows_to_powers_of_two_and_its_limit():
    with Segment.create(200_000) as segment:
        sizes = []
        for size in (1, 70_000, 140_000):
            segment.grow(size)
            sizes.append(len(segment.memory))
        assert sizes == [65_536, 131_072, 200_000]


@pytest.mark.parametrize("act", ["grow", "follow"])
def test_no_further_than_its_limit(act):
    with Segment.create(100) as segment:
        with pytest.raises(
            BackendError, match=r"^shared memory is too small: got 101 bytes, expected at most 100 byte"
        ):
            getattr(segment, act)(101)
        with pytest.raises(BackendError, match=r"^shared memory is too small: got far more, expected at most 100 byte"):
            getattr(segment, act)(1 << 63)


def test_a_size_that_was_never_made_is_not_believed():
    writer, reader = both()
    with (
        writer,
        reader,
        pytest.raises(BackendError, match=r"^shared memory ends too early: got 65536 bytes, expected 6"),
    ):
        reader.follow(65_537)


def test_nobody_can_cut_it_short():
    """A reader of memory that is no longer there dies of SIGBUS."""
    writer, reader = both()
    with writer, reader:
        writer.grow(500_000)
        with pytest.raises(PermissionError):
            os.ftruncate(reader.descriptor, 4096)
        with pytest.raises(PermissionError):
            os.ftruncate(reader.descriptor, 0)


def test_arrays_outlive_growing_and_closing():
    segment = Segment.create()
    array = np.ndarray((4,), np.uint8, segment.memory)
    array[:] = 1, 2, 3, 4
    segment.grow(1 << 20)
    assert segment.memory[:4] == b"\x01\x02\x03\x04"
    segment.close()
    assert array.tolist() == [1, 2, 3, 4]


def test_it_gives_back_what_it_held():
    before = descriptors()
    for _ in range(20):
        segment = Segment.create()
        segment.grow(1 << 17)
        segment.close()
        segment.close()
    assert descriptors() == before


def test_a_system_that_gives_nothing(monkeypatch):
    def refuse(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(BackendError, match=r"^cannot make shared memory: got Cannot allocate memory$"):
        Segment.create()
