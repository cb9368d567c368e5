"""The verbs of a repository, over a folder and over object storage alike."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tailorbird.domain import bundle
from tailorbird.domain.errors import BundleError, ModelNotFound, RepositoryError, UsageError, VersionNotFound
from tailorbird.domain.files import replacing
from tailorbird.repository import log as log_module
from tailorbird.repository import rules
from tailorbird.repository.base import Repository
from tailorbird.repository.channels import Standing, What
from tailorbird.repository.gc import Garbage
from tailorbird.repository.log import Draft
from tailorbird.repository.rules import Keep
from tests import bundles

NOW = Keep(older_than=timedelta(0), unfinished=timedelta(0))


@pytest.fixture
def full(either: Repository, versions: list[Path]) -> Repository:
    """Versions 1, 2 and 3 of one model."""
    assert [either.publish(source) for source in versions] == [1, 2, 3]
    return either


def live(repository: Repository, channel: str = "production") -> int | None:
    return repository.live("tiny", channel)


class TestVersions:
    def test_they_are_whole_and_stay(self, full: Repository, versions: list[Path]) -> None:
        assert (full.models(), full.versions("tiny")) == (("tiny",), (1, 2, 3))
        assert full.latest("tiny") == 3
        assert all(check.ok for check in full.verify())
        for number, source in enumerate(versions, 1):
            folder = full.version_dir("tiny", number)
            names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            assert names == {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
            assert all((folder / name).read_bytes() == (source / name).read_bytes() for name in names)
            assert full.manifest("tiny", number) == bundle.read_manifest(source)

    def test_the_same_bundle_is_not_added_twice(self, full: Repository, versions: list[Path]) -> None:
        assert full.publish(versions[2]) == 3
        assert full.publish(versions[0]) == 4, "an older one comes back as a new version"
        assert full.publish(versions[0], again=True) == 5
        assert full.versions("tiny") == (1, 2, 3, 4, 5)

    def test_a_signature_is_news(self, versions: list[Path], tmp_path: Path, either: Repository) -> None:
        unsigned = bundles.sealed(tmp_path / "unsigned", candidate=bundles.candidate(threads=1))
        loose = type(either)(getattr(either, "root", either.place), allow_unsigned=True)
        assert loose.publish(unsigned) == 1
        assert loose.publish(versions[0]) == 2
        assert loose.publish(unsigned) == 2
        assert [check.ok for check in either.verify()] == [False, True]

    def test_an_unsigned_bundle_is_refused(self, tmp_path: Path, either: Repository) -> None:
        with pytest.raises(BundleError):
            either.publish(bundles.sealed(tmp_path / "unsigned"))

    @pytest.mark.parametrize("twin", ["Tiny", "TINY"])
    def test_names_that_differ_by_case_alone(self, full: Repository, versions: list[Path], twin: str) -> None:
        with pytest.raises(UsageError) as caught:
            full.publish(versions[0], twin)
        assert caught.value.message == (
            f"the model's name differs from another's by case alone: got {twin}, expected tiny\n"
            "Hint: publish it as 'tiny', or under a name of its own"
        )
        assert full.models() == ("tiny",)

    def test_unknown_ones_are_named(self, full: Repository) -> None:
        with pytest.raises(ModelNotFound, match=r"unknown model 'tinny'\nHint: did you mean 'tiny'\?"):
            full.promote("tinny", 1, "production")
        with pytest.raises(VersionNotFound, match=r"model 'tiny' has no version 9\nHint: versions: 1, 2, 3"):
            full.promote("tiny", 9, "production")


BAD_CHANNELS = ["", "..", "../up", "/etc", "a/b", "a\0b", "Production", "x" * 300, "pr\u043eduction", "ｐ", "-x", "a b"]


class TestChannels:
    def test_rollback_twice_goes_back_twice(self, full: Repository) -> None:
        for version in (1, 2, 3):
            full.promote("tiny", version, "production")
        assert [full.rollback("tiny", "production").version for _ in range(2)] == [2, 1]
        assert live(full) == 1
        with pytest.raises(RepositoryError) as caught:
            full.rollback("tiny", "production")
        assert caught.value.message == (
            "channel 'production' of model 'tiny' has nothing to go back to: got version 1, and no other before it"
            "\nHint: promote a version there: tailorbird repo promote"
        )

    def test_a_promotion_after_a_rollback_goes_back_to_what_was_live(self, full: Repository) -> None:
        for version in (1, 2):
            full.promote("tiny", version, "production")
        full.rollback("tiny", "production")
        full.promote("tiny", 3, "production")
        assert full.rollback("tiny", "production").version == 1

    def test_rollback_passes_over_what_was_retired(self, full: Repository) -> None:
        for version in (1, 2, 3):
            full.promote("tiny", version, "production")
        full.retire("tiny", 2)
        assert full.rollback("tiny", "production").version == 1

    def test_rollback_never_goes_to_what_is_live(self, full: Repository) -> None:
        for version in (1, 2, 1):
            full.promote("tiny", version, "production")
        full.retire("tiny", 2)
        with pytest.raises(RepositoryError, match="nothing to go back to: got version 1, and no other before it"):
            full.rollback("tiny", "production")
        assert len(full.log()) == 4

    def test_rollback_of_nothing(self, full: Repository) -> None:
        with pytest.raises(RepositoryError, match="got a channel that never pointed at a version"):
            full.rollback("tiny", "canary")

    def test_promoting_what_is_live_adds_nothing(self, full: Repository) -> None:
        first = full.promote("tiny", 1, "production", "the first")
        assert full.promote("tiny", 1, "production", "again") == first
        assert full.log() == (first,)

    def test_a_channel_that_moved_meanwhile_is_left(self, full: Repository) -> None:
        full.promote("tiny", 1, "production", before=None)
        full.promote("tiny", 2, "production", before=1)
        for before, said in ((1, "version 1"), (None, "no version")):
            with pytest.raises(RepositoryError) as caught:
                full.promote("tiny", 3, "production", before=before)
            assert caught.value.message == (
                f"channel 'production' of model 'tiny' moved meanwhile: got version 2, expected {said}\n"
                "Hint: promote version 3 by hand"
            )
        assert full.live("tiny", "production") == 2
        assert len(full.log()) == 2

    def test_channels_are_apart(self, full: Repository) -> None:
        full.promote("tiny", 1, "production", "shipped")
        full.promote("tiny", 3, "canary")
        found = {(one.channel, one.model): (one.version, one.reason) for one in full.channels()}
        assert found == {("production", "tiny"): (1, "shipped"), ("canary", "tiny"): (3, "")}
        assert full.serving() == {"tiny": 1}
        assert full.serving("canary") == {"tiny": 3}
        assert full.serving("beta") == {}

    def test_an_entry_says_who_and_why(self, full: Repository) -> None:
        entry = full.promote("tiny", 2, "production", "faster by 20 %")
        assert (entry.sequence, entry.what, entry.version, entry.reason) == (1, What.PROMOTE, 2, "faster by 20 %")
        assert re.fullmatch(r".+@.+", entry.who)
        assert abs((datetime.now(UTC) - entry.time).total_seconds()) < 60
        assert full.log("tiny") == full.log() == (entry,)
        assert full.log("other") == ()

    @pytest.mark.parametrize("name", BAD_CHANNELS)
    def test_names_that_are_no_channels(self, full: Repository, name: str) -> None:
        for call in (lambda: full.promote("tiny", 1, name), lambda: full.rollback("tiny", name)):
            with pytest.raises(UsageError, match="not a channel name: got") as caught:
                call()
            caught.value.message.encode("ascii")
        assert full.log() == ()

    @pytest.mark.parametrize("reason", ["x" * 1001, "two\nlines", "\x1b[31mred"])
    def test_reasons_that_are_none(self, full: Repository, reason: str) -> None:
        with pytest.raises(UsageError, match="not a reason: got"):
            full.promote("tiny", 1, "production", reason)


class TestRetiring:
    def test_what_is_live_is_not_retired(self, full: Repository) -> None:
        full.promote("tiny", 3, "production")
        with pytest.raises(RepositoryError) as caught:
            full.retire("tiny", 3)
        assert caught.value.message == (
            "version 3 of model 'tiny' is live: got channel production, expected no channel that points at it\n"
            "Hint: promote another version there, or roll back, and then retire it"
        )

    def test_it_is_no_longer_the_latest_and_still_listed(self, full: Repository) -> None:
        full.retire("tiny", 3, "wrong labels")
        assert (full.versions("tiny"), full.retired("tiny"), full.latest("tiny")) == ((1, 2, 3), (3,), 2)
        assert full.serving() == {"tiny": 2}
        with pytest.raises(RepositoryError, match=r"version 3 of model 'tiny' is retired\nHint: take that back first"):
            full.promote("tiny", 3, "production")
        with pytest.raises(RepositoryError, match="is retired"):
            full.retire("tiny", 3)
        full.restore("tiny", 3)
        assert full.latest("tiny") == 3

    def test_only_what_is_retired_is_restored(self, full: Repository) -> None:
        full.retire("tiny", 2)
        with pytest.raises(
            RepositoryError, match=r"version 1 of model 'tiny' is not retired\nHint: retired versions: 2"
        ):
            full.restore("tiny", 1)

    def test_all_of_them(self, full: Repository) -> None:
        for version in (1, 2, 3):
            full.retire("tiny", version)
        assert full.serving() == {}
        with pytest.raises(RepositoryError, match="every version of model 'tiny' is retired"):
            full.version_dir("tiny")


class TestGarbage:
    def test_it_takes_what_is_retired_and_not_needed(self, full: Repository) -> None:
        full.promote("tiny", 1, "production")
        full.retire("tiny", 2)
        shown = full.gc(NOW, dry_run=True)
        assert [(one.kind, one.model, one.version) for one in shown] == [("retired version", "tiny", 2)]
        assert shown[0].bytes == sum(p.stat().st_size for p in full.version_dir("tiny", 2).rglob("*") if p.is_file())
        assert full.versions("tiny") == (1, 2, 3)
        assert full.gc(NOW) == shown
        assert full.versions("tiny") == (1, 3)
        assert full.gc(NOW) == ()

    def test_a_tombstone_keeps_the_number(self, full: Repository, versions: list[Path]) -> None:
        manifest = full.manifest("tiny", 3)
        full.retire("tiny", 3)
        full.gc(NOW)
        assert full.publish(versions[2]) == 4
        assert full.manifest("tiny", 4) == manifest
        entry = next(entry for entry in full.log() if entry.what is What.COLLECT)
        assert (entry.version, entry.reason) == (3, "retired version")
        assert entry.manifest.startswith("sha256:")
        with pytest.raises(VersionNotFound):
            full.promote("tiny", 3, "production")

    def test_numbers_go_on_after_all_are_gone(self, full: Repository, versions: list[Path]) -> None:
        for version in (1, 2, 3):
            full.retire("tiny", version)
        full.gc(NOW)
        assert full.models() == ()
        assert full.publish(versions[0]) == 4
        assert full.verify()[0].ok

    def test_the_newest_retired_can_stay(self, full: Repository) -> None:
        for version in (1, 2):
            full.retire("tiny", version)
        full.gc(Keep(timedelta(0), newest=1))
        assert full.versions("tiny") == (2, 3)

    def test_what_was_retired_lately_stays(self, full: Repository) -> None:
        full.retire("tiny", 1)
        assert full.gc() == ()
        assert full.gc(Keep(timedelta(hours=1))) == ()

    def test_what_was_live_lately_stays(self, full: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        full.promote("tiny", 1, "production")
        full.promote("tiny", 2, "production")
        left = datetime.now(UTC)
        full.retire("tiny", 1)
        assert full.gc(Keep(datetime.now(UTC) - left + timedelta(seconds=5))) == ()

    @pytest.mark.parametrize("promoted", [True, False])
    def test_what_is_restored_meanwhile_stays(
        self, full: Repository, monkeypatch: pytest.MonkeyPatch, promoted: bool
    ) -> None:
        """Both are listed; before the first goes, another process takes the first back, and lets a channel have it."""
        rival = type(full)(getattr(full, "root", full.place))
        for version in (1, 2):
            full.retire("tiny", version)
        append = full._log.append

        def late(decide: Any) -> Any:
            monkeypatch.undo()
            rival.restore("tiny", 1)
            if promoted:
                rival.promote("tiny", 1, "production")
            return append(decide)

        monkeypatch.setattr(full._log, "append", late)
        assert [one.version for one in full.gc(NOW)] == [2]
        assert full.versions("tiny") == (1, 3)
        assert full.serving() == {"tiny": 1 if promoted else 3}
        assert full.verify("tiny", 1)[0].ok

    def test_nothing_collects_what_a_channel_names(self, full: Repository) -> None:
        full.promote("tiny", 1, "canary")
        garbage = Garbage("unfinished publish", full.location("tiny", 1), 0, "tiny", 1)
        assert rules.collecting(Standing(full.log()), garbage, (1, 2, 3), NOW, "") is None
        full.promote("tiny", 2, "canary")
        assert isinstance(rules.collecting(Standing(full.log()), garbage, (1, 2, 3), NOW, ""), Draft)


class TestByHand:
    """A version's folder removed by hand, which leaves no tombstone."""

    def test_its_number_is_not_used_again(self, full: Repository, versions: list[Path]) -> None:
        full.promote("tiny", 3, "production")
        remove(full, "tiny/3/")
        assert full.publish(versions[0]) == 4

    def test_a_channel_that_points_there_points_at_nothing(self, full: Repository) -> None:
        for channel in ("production", "canary"):
            full.promote("tiny", 2, channel)
        remove(full, "tiny/2/")
        assert full.serving() == {"tiny": 3}
        assert full.serving("canary") == {}


class TestLog:
    def test_what_was_live_then(self, full: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        start = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
        for minute, version in enumerate((1, 2)):
            monkeypatch.setattr(log_module.time, "time", lambda m=minute: (start + timedelta(minutes=m)).timestamp())
            full.promote("tiny", version, "production")
        second = timedelta(seconds=1)
        expected = {
            start - second: [],
            start: [1],
            start + timedelta(minutes=1) - second: [1],
            start + timedelta(minutes=1): [2],
            start + timedelta(days=400): [2],
        }
        for moment, versions in expected.items():
            assert [one.version for one in full.live_at(moment, "tiny")] == versions, moment

    def test_a_clock_that_jumps_back(self, full: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        start = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
        for jump, version in ((0, 1), (-3600, 2), (60, 3)):
            monkeypatch.setattr(log_module.time, "time", lambda j=jump: start.timestamp() + j)
            full.promote("tiny", version, "production")
        first, second, third = full.log()
        assert (first.time, first.clock) == (start, None)
        assert (second.time, second.clock) == (start, start - timedelta(hours=1))
        assert (third.time, third.clock) == (start + timedelta(minutes=1), None)
        assert [one.version for one in full.live_at(start)] == [2]
        assert full.live_at(start - timedelta(minutes=30)) == ()

    def test_a_clock_that_ran_ahead_once(self, full: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        full.promote("tiny", 1, "production")
        first, now = full.log()[0].time, time.time()
        monkeypatch.setattr(log_module.time, "time", lambda: now + 86400)
        full.promote("tiny", 2, "production")
        monkeypatch.undo()
        assert [one.version for one in full.live_at(datetime.now(UTC) + timedelta(seconds=5))] == [2]
        assert [one.version for one in full.live_at(first)] == [1]

    def test_a_reader_sees_what_others_added(self, full: Repository) -> None:
        other = type(full)(getattr(full, "root", full.place))
        assert full.log() == ()
        other.promote("tiny", 1, "production")
        assert live(full) == 1
        full.promote("tiny", 2, "production")
        assert live(other) == 2


def test_an_altered_version_is_not_promoted(versions: list[Path], tmp_path: Path, either: Repository) -> None:
    either.publish(versions[0])
    either.publish(versions[1])
    either.promote("tiny", 1, "production")
    either.promote("tiny", 2, "production")
    damage(either, "tiny/1/model.onnx")
    for call in (lambda: either.rollback("tiny", "production"), lambda: either.promote("tiny", 1, "canary")):
        with pytest.raises(BundleError, match=r"'model.onnx' of .* was altered"):
            call()
    assert live(either) == 2
    assert live(either, "canary") is None


def damage(repository: Repository, key: str) -> None:
    """Flip one bit in the middle of a file."""
    import contextlib

    from tests import object_storage

    if hasattr(repository, "root"):
        path = repository.root / key
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        with replacing(path) as file:
            file.write(data)
        return
    bucket, _, prefix = repository.place.removeprefix("s3://").partition("/")
    client = object_storage.client()
    with contextlib.closing(client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"]) as body:
        data = bytearray(body.read())
    data[len(data) // 2] ^= 1
    client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=bytes(data))
    repository._cache.clear()  # what this machine read before is another copy
    repository._cache.close()
    repository._cache.clear()


def remove(repository: Repository, prefix: str) -> None:
    """Take everything below a prefix away, behind the repository's back."""
    import shutil

    if hasattr(repository, "root"):
        shutil.rmtree(repository.root / prefix)
        return
    names = [found.key for found in repository._bucket.list(prefix)]  # type: ignore[attr-defined]
    repository._bucket.remove(names)  # type: ignore[attr-defined]


class TestDamage:
    def test_every_bit_of_an_entry_counts(self, full: Repository) -> None:
        full.promote("tiny", 1, "production")
        key = ".tailorbird/log/000000000001.json"
        damage(full, key)
        fresh = type(full)(getattr(full, "root", full.place))
        with pytest.raises(RepositoryError, match=r"the log's entry log/000000000001\.json is damaged") as caught:
            fresh.promote("tiny", 2, "production")
        assert caught.value.hint == (
            "restore log/000000000001.json from a copy of the repository; until then nothing of it is believed"
        )
