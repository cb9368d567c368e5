"""What a vendor's library found out about a device: kept for the next build, and never in its way."""

from pathlib import Path

import msgspec

from tailorbird.backends.nvidia.timing import KeptFile, TimingCache
from tailorbird.backends.tensorrt import TensorRtBackend
from tailorbird.domain.candidate import Candidate
from tests.contract import models
from tests.stand_ins.tensorrt_module import Config, TensorRt


def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "builds"


def test_bytes_come_back_by_what_they_depend_on(tmp_path: Path) -> None:
    KeptFile("10.16", "sm86", root=root(tmp_path)).write(b"times")
    assert KeptFile("10.16", "sm86", root=root(tmp_path)).read() == b"times"
    assert KeptFile("10.16", "sm89", root=root(tmp_path)).read() == b""
    (file,) = (root(tmp_path) / "vendor-timing").iterdir()
    assert file.parent.stat().st_mode & 0o077 == 0


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    place = root(tmp_path)
    place.mkdir(parents=True)
    place.chmod(0o777)
    kept = KeptFile("a", root=place)
    kept.write(b"times")
    assert kept.read() == b""


def test_a_cache_grows_from_build_to_build(tmp_path: Path) -> None:
    times = TimingCache(KeptFile("a", root=root(tmp_path)))
    for expected in (b"t", b"tt"):
        config = Config()
        times.keep(times.attach(config))
        assert config.timing == expected


def test_a_damaged_cache_is_begun_anew(tmp_path: Path) -> None:
    kept = KeptFile("a", root=root(tmp_path))
    kept.write(b"broken")
    times = TimingCache(kept)
    times.keep(times.attach(Config()))
    assert kept.read() == b"t"


def test_builds_share_it_unless_told_not_to(
    backend: TensorRtBackend, trt: TensorRt, candidate: Candidate, folder: Path, tmp_path: Path
) -> None:
    model = models.dense().write(tmp_path)
    for options in ({}, {}, {"timing_cache": False}):
        backend.compile(model, msgspec.structs.replace(candidate, options=options), folder)
    first, second, third = (config.timing for config in trt.configs)
    assert second == first + b"t"
    assert third == b""
