"""Cases that travel: bounded, complete at every place, and never from outside their folder."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tailorbird.builder import travel
from tailorbird.builder.cases.data import load_set, save_set
from tailorbird.builder.cases.places import Place
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.travel import bounded, receive, send
from tailorbird.domain import archive
from tailorbird.domain.errors import BundleError

OPT, MAX = Place("opt", {"x": (2, 3)}, 2), Place("max", {"x": (4, 3)}, 4)


def case(folder: Path, place: Place, number: int, labels: bool = False) -> Case:
    stem = folder / f"{place.edge}-{number}"
    save_set(Path(f"{stem}-in.npz"), {"x": np.full(place.shapes["x"], number, np.float32)})
    save_set(Path(f"{stem}-out.npz"), {"y": np.full((place.rows, 1), number, np.float32)})
    if labels:
        save_set(Path(f"{stem}-labels.npz"), {"labels": np.arange(place.rows)})
    return Case(place, f"{stem}-in.npz", f"{stem}-out.npz", True, f"{stem}-labels.npz" if labels else "")


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return [case(tmp_path, place, number, labels=place is OPT) for place in (OPT, MAX) for number in range(3)]


def test_all_that_fits_arrives_unchanged(cases: list[Case], tmp_path: Path) -> None:
    sent = send(cases, "top1", tmp_path / "bundle" / "cases")
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "bundle" / "cases", moved)
    for file in tmp_path.glob("*.npz"):
        file.unlink()
    came = receive(moved)
    assert (sent.left, came.metric, len(came.cases)) == (0, "top1", 6)
    assert [one.place for one in came.cases] == [OPT] * 3 + [MAX] * 3
    assert load_set(Path(came.cases[4].outputs))["y"].tolist() == [[1]] * 4
    assert load_set(Path(came.cases[2].labels))["labels"].tolist() == [0, 1]


def test_every_place_keeps_its_first_set_whatever_the_bound(cases: list[Case]) -> None:
    assert bounded(cases, 0) == [cases[0], cases[3]]


def test_sets_are_dealt_place_by_place_until_there_is_no_room(cases: list[Case]) -> None:
    sizes = [sum(Path(text).stat().st_size for text in (one.inputs, one.outputs, one.labels) if text) for one in cases]
    assert bounded(cases, sizes[0] + sizes[3] + sizes[1]) == [cases[0], cases[1], cases[3]]
    assert bounded(cases, sum(sizes)) == cases


def test_there_are_no_more_sets_than_a_bundle_holds_files(cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(travel, "MOST_SETS", 4)
    assert bounded(cases, 1 << 30) == [cases[0], cases[1], cases[3], cases[4]]
    assert archive.MAX_ENTRIES > 2 * 3 * 512, "a version may hold them twice: by itself, and in its kit"


def test_what_stays_behind_is_counted(cases: list[Case], tmp_path: Path) -> None:
    assert send(cases, "", tmp_path / "sent", most_bytes=0).left == 4
    assert receive(tmp_path / "sent").left == 4


def test_a_record_that_points_outside_is_read_inside(cases: list[Case], tmp_path: Path) -> None:
    send(cases[:1], "", tmp_path / "sent")
    record = tmp_path / "sent" / "cases.json"
    told = msgspec.json.decode(record.read_bytes())
    told["cases"][0]["inputs"] = "../../etc/passwd"
    record.write_bytes(msgspec.json.encode(told))
    assert receive(tmp_path / "sent").cases[0].inputs == str(tmp_path / "sent" / "passwd")


@pytest.mark.parametrize("content", [None, b"{", b"[]"], ids=["missing", "cut", "another"])
def test_without_a_record_there_is_nothing_to_judge_by(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "cases.json").write_bytes(content)
    with pytest.raises(BundleError, match="the bundle holds nothing to judge its engine by"):
        receive(tmp_path)
