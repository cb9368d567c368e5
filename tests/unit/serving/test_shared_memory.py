"""Regions over real segments of this machine's shared memory, made by the standard library."""

import gc
import os
import secrets
import threading
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from tailorbird.domain.errors import InputError, Overloaded
from tailorbird.serving import shared_memory
from tailorbird.serving.shared_memory import RegionExists, Regions, RegionStatus, UnknownRegion
from tailorbird.serving.slices import Slice

BYTES = 4096


@pytest.fixture
def segment():
    """A segment of one page, filled with its own places."""
    made = SharedMemory(f"tailorbird_test_{secrets.token_hex(6)}", create=True, size=BYTES)
    np.frombuffer(made.buf, np.uint8)[:] = np.arange(BYTES) % 251
    yield made
    made.close()
    with suppress(FileNotFoundError):
        made.unlink()


@pytest.fixture
def regions():
    return Regions(request_bytes=BYTES, held_bytes=2 * BYTES)


def key(segment):
    return f"/{segment.name.lstrip('/')}"


def path(segment):
    return Path("/dev/shm", segment.name.lstrip("/"))


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return caught.value.message


def test_bytes_go_both_ways(regions, segment):
    regions.register("r", key(segment), 16, 256)
    assert bytes(regions.copy(Slice("r", 4, 8))) == bytes(range(20, 28))
    regions.write(Slice("r", 100, 8), b"12345678")
    assert bytes(segment.buf[116:124]) == b"12345678"
    regions.write(Slice("r", 100, 8), memoryview(b"ab"))
    assert bytes(segment.buf[116:124]) == b"ab345678"


def test_a_copy_is_a_copy(regions, segment):
    regions.register("r", key(segment), 0, 8)
    copied = regions.copy(Slice("r", 0, 8))
    segment.buf[:8] = b"\xff" * 8
    assert bytes(copied) == bytes(range(8))


def test_status_and_names(regions, segment):
    regions.register("a", key(segment), 0, 8)
    regions.register("b", key(segment).lstrip("/"), 8, 8)  # shm_open takes both spellings
    assert regions.status() == (RegionStatus("a", key(segment), 0, 8), RegionStatus("b", key(segment)[1:], 8, 8))
    assert regions.status("b") == (RegionStatus("b", key(segment)[1:], 8, 8),)
    with pytest.raises(RegionExists, match=r"^shared memory region 'a' is registered already"):
        regions.register("a", key(segment), 0, 8)
    regions.unregister("a")
    regions.unregister("a")
    assert [one.name for one in regions.status()] == ["b"]
    regions.unregister()
    assert regions.status() == ()
    with pytest.raises(UnknownRegion, match=r"^unknown shared memory region 'a'$"):
        regions.status("a")
    with pytest.raises(UnknownRegion):
        regions.copy(Slice("a", 0, 1))
    with pytest.raises(UnknownRegion):
        regions.write(Slice("a", 0, 1), b"")


@pytest.mark.parametrize(
    "wrong",
    ["", "/", "..", "/..", "a/b", "/a/b", "../etc/passwd", "//a", ".hidden", "a..b", "a\0b", "a b", "ä", "sem.lock",
     "/sem.lock", "a" * 251, "/proc/self/fd/3"],
)  # fmt: skip
def test_keys_name_segments_and_no_other_file(regions, wrong):
    assert refused(regions.register, "r", wrong, 0, 8).startswith("the key of region 'r' is no key: got ")


@pytest.mark.parametrize("wrong", ["", "a/b", "ä", "a" * 129, "a\n"])
def test_names_of_regions_have_a_grammar(regions, segment, wrong):
    assert refused(regions.register, wrong, key(segment), 0, 8).startswith("a region's name is no name: got ")


@pytest.mark.parametrize("extent", [(-1, 8), (0, 0), (0, -1), (2**63, 1), (0, 2**63)])
def test_an_extent_is_at_least_a_byte(regions, segment, extent):
    assert refused(regions.register, "r", key(segment), *extent).startswith("region 'r' has no such extent: got ")


@pytest.mark.parametrize("extent", [(0, BYTES + 1), (BYTES, 1), (1, BYTES)])
def test_a_region_lies_in_its_segment(regions, segment, extent):
    assert refused(regions.register, "r", key(segment), *extent).startswith("region 'r' ends outside its segment")


OPAQUE = "region 'r' has no segment that this server may use"


class TestSegmentsThatAreNone:
    """All are refused with the same words: a client learns nothing of what else is there."""

    def test_nothing(self, regions):
        assert refused(regions.register, "r", "tailorbird_nobody_made_this", 0, 8) == OPAQUE

    def test_a_link(self, regions, segment):
        link = path(segment).with_name(f"{path(segment).name}_link")
        link.symlink_to(path(segment))
        try:
            assert refused(regions.register, "r", link.name, 0, 8) == OPAQUE
        finally:
            link.unlink()

    def test_a_folder_or_a_pipe(self, tmp_path):
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        regions = Regions(BYTES, BYTES, folder=tmp_path)
        for name in ("folder", "pipe"):
            assert refused(regions.register, "r", name, 0, 8) == OPAQUE

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another user's")
    def test_another_users(self, regions, segment):
        os.chown(path(segment), 4321, 4321)
        assert refused(regions.register, "r", key(segment), 0, 8) == OPAQUE
        allowed = Regions(BYTES, BYTES, owners=[4321])
        allowed.register("r", key(segment), 0, 8)
        assert bytes(allowed.copy(Slice("r", 1, 2))) == b"\x01\x02"


@pytest.mark.parametrize(("offset", "size"), [(0, 65), (64, 1), (2**62, 2**62)])
def test_a_slice_lies_in_its_region(regions, segment, offset, size):
    regions.register("r", key(segment), 0, 64)
    where = Slice("r", offset, size)
    words = f"shared memory outside of region 'r': got {size} bytes at {offset}, expected within 64 bytes"
    assert refused(regions.copy, where) == words
    assert refused(regions.write, where, b"") == words


def test_an_output_that_does_not_fit(regions, segment):
    regions.register("r", key(segment), 0, 64)
    assert refused(regions.write, Slice("r", 0, 4), b"12345") == (
        "the piece of region 'r' is too small for its output: got 4 bytes, expected at least 5 bytes"
    )


SHRUNK = "region 'r' is no longer whole\nHint: register it again"


def test_a_client_that_shrinks_its_segment_ends_nothing_but_its_request(regions, segment):
    """Under a mapping, the same would be SIGBUS."""
    regions.register("r", key(segment), 0, BYTES)
    os.truncate(path(segment), 100)
    assert refused(regions.copy, Slice("r", 64, 64)) == SHRUNK
    assert refused(regions.write, Slice("r", 64, 64), bytes(64)) == SHRUNK
    assert path(segment).stat().st_size == 100  # nor does it grow again
    assert bytes(regions.copy(Slice("r", 0, 3))) == b"\0\1\2"


def test_a_client_that_removes_its_segment_harms_nobody(regions, segment):
    regions.register("r", key(segment), 0, 64)
    segment.unlink()
    assert bytes(regions.copy(Slice("r", 0, 3))) == b"\0\1\2"


def test_regions_are_bounded_in_number_and_bytes(segment, monkeypatch):
    monkeypatch.setattr(shared_memory, "REGIONS", 2)
    monkeypatch.setattr(shared_memory, "REGION_BYTES", 100)
    regions = Regions(BYTES, BYTES)
    regions.register("a", key(segment), 0, 60)
    assert refused(regions.register, "b", key(segment), 0, 41) == (
        "too much shared memory is registered: got 1 regions, 60 bytes, expected at most 2 regions, 100 bytes\n"
        "Hint: unregister what is no longer used"
    )
    regions.register("b", key(segment), 0, 40)
    regions.unregister("b")
    regions.register("b", key(segment), 0, 1)
    assert "got 2 regions" in refused(regions.register, "c", key(segment), 0, 1)


def test_one_request_reads_so_much_and_no_more(regions, segment):
    regions.register("r", key(segment), 0, BYTES)
    reader = regions.reader()
    reader.read(Slice("r", 0, BYTES - 1))
    assert refused(reader.read, Slice("r", 0, 2)) == (
        f"the request has too much in shared memory: expected at most {BYTES} bytes"
    )


def test_all_requests_hold_so_much_and_no_more(regions, segment):
    regions.register("r", key(segment), 0, BYTES)
    held = [np.frombuffer(regions.copy(Slice("r", 0, BYTES)), np.float32) for _ in range(2)]
    assert regions.held == 2 * BYTES
    with pytest.raises(Overloaded, match=r"^the server holds too many tensors from shared memory: got 8192 bytes"):
        regions.copy(Slice("r", 0, 1))
    held.clear()
    gc.collect()
    assert regions.held == 0
    regions.copy(Slice("r", 0, 1))


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_are_closed(segment):
    regions = Regions(BYTES, BYTES)
    before = descriptors()
    for _ in range(20):
        regions.register("r", key(segment), 0, 8)
        for wrong in (lambda: regions.register("r", key(segment), 0, 8), lambda: regions.register("s", "none", 0, 8)):
            with pytest.raises(InputError):
                wrong()
        refused(regions.register, "t", key(segment), 0, BYTES + 1)
        regions.unregister("r")
    gc.collect()  # an error's traceback holds what it failed on
    assert descriptors() == before


def test_a_region_forgotten_while_it_is_read_is_still_its_own(regions, segment):
    """A closed descriptor's number is given to the next file that is opened: nobody may read on with it."""
    done = threading.Event()
    seen = set()

    def forget():
        while not done.is_set():
            with suppress(RegionExists):
                regions.register("r", key(segment), 0, BYTES)
            with Path("/dev/zero").open("rb"):
                regions.unregister("r")

    thread = threading.Thread(target=forget)
    thread.start()
    for _ in range(2000):
        with suppress(UnknownRegion):
            seen.add(bytes(regions.copy(Slice("r", 1, 8))))
    done.set()
    thread.join()
    assert seen <= {bytes(range(1, 9))}
