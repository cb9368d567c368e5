"""Entries of the log: damage is found, named, and refused."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tailorbird.domain.errors import RepositoryError
from tailorbird.repository.channels import Entry, What, checked, decode_entry, encode_entry
from tailorbird.repository.log import Draft, Log, checked_reason, who
from tailorbird.repository.objects import MAX_BYTES, LocalObjects

ENTRY = checked(
    Entry(
        sequence=1,
        time=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC),
        who="ann@host",
        what=What.PROMOTE,
        channel="production",
        model="tiny",
        version=7,
        reason="größer & schneller",
        nonce="00",
    )
)
DATA = encode_entry(ENTRY)


def refusal(data: bytes, sequence: int = 1) -> RepositoryError:
    with pytest.raises(RepositoryError) as caught:
        decode_entry(data, "log/000000000001.json", sequence)
    return caught.value


def test_an_entry_reads_back() -> None:
    assert decode_entry(DATA, "x", 1) == ENTRY


def test_every_flipped_bit_is_found() -> None:
    for place in range(len(DATA)):
        for bit in range(8):
            flipped = bytearray(DATA)
            flipped[place] ^= 1 << bit
            error = refusal(bytes(flipped))
            assert error.what.startswith("the log's entry log/000000000001.json is "), (place, bit)
            error.message.encode()


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA[: len(DATA) // 2], DATA * 2, b"[" * 5000, b" " + DATA])
def test_what_was_cut_or_added_to(data: bytes) -> None:
    assert refusal(data).what == "the log's entry log/000000000001.json is damaged"


def test_an_entry_in_anothers_place() -> None:
    error = refusal(DATA, 2)
    assert (error.got, error.expected) == ("the entry of place 1", "the entry as it was written")


def test_a_newer_schema_says_what_to_upgrade() -> None:
    newer = msgspec.json.encode({"schema": 2, "sequence": 1, "mood": "new"})
    assert refusal(newer).message == (
        "the log's entry log/000000000001.json is of a newer schema: got 2, expected 1\n"
        "Hint: upgrade Tailorbird: pip install --upgrade tailorbird"
    )


def promote(log: Log, version: int) -> Entry:
    return log.append(lambda _: Draft(what=What.PROMOTE, model="tiny", version=version, channel="production"))


def test_a_lost_entry_is_found(tmp_path: Path) -> None:
    log = Log(LocalObjects(tmp_path))
    for version in (1, 2, 3):
        promote(log, version)
    (tmp_path / "log" / "000000000002.json").unlink()
    with pytest.raises(RepositoryError, match=r"the log lacks its entry log/000000000002\.json"):
        Log(LocalObjects(tmp_path)).entries()


def test_strangers_beside_the_entries_are_passed_by(tmp_path: Path) -> None:
    log = Log(LocalObjects(tmp_path))
    promote(log, 1)
    for name in (".000000000002.json.ab.tmp", "README", "2.json", "000000000002.json~"):
        (tmp_path / "log" / name).write_text("x")
    assert len(Log(LocalObjects(tmp_path)).entries()) == 1


def test_a_lost_race_decides_again(tmp_path: Path) -> None:
    log, rival, seen = Log(LocalObjects(tmp_path)), Log(LocalObjects(tmp_path)), []

    def decide(standing: object) -> Draft:
        seen.append(standing.live("tiny", "production"))  # type: ignore[attr-defined]
        if len(seen) == 1:
            promote(rival, 5)
        return Draft(what=What.PROMOTE, model="tiny", version=6, channel="production")

    assert log.append(decide).sequence == 2
    assert seen == [None, 5]


def test_a_write_whose_answer_was_lost_is_ours(tmp_path: Path) -> None:
    class Forgetful(LocalObjects):
        """Repeats each write, as a client does whose first answer never came."""

        def create(self, name: str, data: bytes) -> bool:
            super().create(name, data)
            return super().create(name, data)

    log = Log(Forgetful(tmp_path))
    assert [promote(log, version).sequence for version in (1, 2)] == [1, 2]
    assert len(log.entries()) == 2


def test_an_object_is_never_replaced(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    assert objects.create("a/b", b"first")
    assert not objects.create("a/b", b"second")
    assert objects.read("a/b") == b"first"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert (objects.names("none"), objects.read("none")) == ((), None)
    objects.create("a/long", bytes(MAX_BYTES + 9))
    assert len(objects.read("a/long") or b"") == MAX_BYTES + 1
    objects.remove("a/b")
    objects.remove("a/b")
    assert objects.names("a") == ("long",)


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert who().split("@")[0].isdigit()


def test_reasons_keep_their_letters() -> None:
    assert checked_reason("größer, 早い") == "größer, 早い"
