"""The report: a page that stands alone, whatever the names in it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from tailorbird.builder.report import write_report
from tailorbird.domain.budget import Budget, Check, GateReport
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.manifest import EngineFormat, Manifest, Provenance
from tailorbird.domain.objective import Goal, Objective
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.domain.target import Target
from tests.unit.builder.figures import builds

EVIL = "<script>alert('x')</script>&\""
OPEN_ENDED = {"tr", "td", "th", "meta"}  # HTML closes these by itself


class Reader(HTMLParser):
    """Collects text and attributes, and fails on a tag that closes another."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""
        self.values: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.values += [value for _, value in attrs if value]
        if tag not in OPEN_ENDED:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in OPEN_ENDED:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def candidate(threads: int) -> Candidate:
    target = Target("openvino", "cpu", "avx2")
    return Candidate(target, Precision.FP32, Profile.static({EVIL: (1, 3)}), ShapeMode.STATIC, threads)


def manifest() -> Manifest:
    row = LatencyRow("opt", {EVIL: (1, 3)}, 1, 1, Latency.of([1.0, 2.0, 3.0]))
    gate = GateReport((Check("snr_db", True, f"opt 1x3, {EVIL}", 99.0, 20.0), Check(EVIL, True, EVIL, EVIL, EVIL)))
    lost = [Outcome(candidate(n), status, EVIL) for n, status in enumerate(Status, 2) if status is not Status.CHOSEN]
    outcomes = (Outcome(candidate(1), Status.CHOSEN, EVIL, (row,), gate), *lost)
    spec = TensorSpec(EVIL, DType.FP32, (1, 3))
    return Manifest(
        model=EVIL, candidate=candidate(1), format=EngineFormat("b", "p", "f"), signature=Signature((spec,), (spec,)),
        files={}, executed={EVIL: 3}, latency=(row,), gate=gate, budget=Budget(), outcomes=outcomes,
        provenance=Provenance(EVIL, EVIL, "n", (EVIL,), {EVIL: EVIL}, {EVIL: EVIL}, "2026-01-01"),
    )  # fmt: skip


@pytest.fixture
def page(tmp_path: Path) -> str:
    write_report(tmp_path / "r.html", manifest())
    return (tmp_path / "r.html").read_text("utf-8")


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def test_it_is_well_formed(page: str) -> None:
    assert page.startswith("<!doctype html>")
    assert read(page).open == []


def test_names_are_text_and_never_tags(page: str) -> None:
    reader = read(page)
    assert "script" not in reader.seen
    assert EVIL in reader.text
    assert not [value for value in reader.values if "alert" in value]


def test_it_needs_no_network(page: str) -> None:
    assert not re.search(r"https?:|//|url\(|@import|src=|href=", page)


def test_every_candidate_has_its_row(page: str) -> None:
    text = read(page).text
    for outcome in manifest().outcomes:
        assert outcome.candidate.name in text
        assert outcome.status in text


def test_one_candidate_alone_makes_a_page(tmp_path: Path) -> None:
    alone = msgspec.structs.replace(manifest(), outcomes=manifest().outcomes[:1])
    write_report(tmp_path / "r.html", alone)
    assert "Chosen of 1 candidates" in (tmp_path / "r.html").read_text("utf-8")


@pytest.mark.parametrize("labelled", [False, True])
def test_a_real_build_has_its_plot_its_bars_and_its_notes(tmp_path: Path, labelled: bool) -> None:
    write_report(tmp_path / "r.html", builds.manifest(labelled), builds.events())
    page = (tmp_path / "r.html").read_text("utf-8")
    reader = read(page)
    assert reader.open == []
    assert page.count('class="scatter"') == 4  # speed and accuracy for wide windows and for phones; ms; rows/s
    assert "script" not in reader.seen
    assert not re.search(r"https?:|//|url\(|@import|src=|href=", page)
    for text in ("Where the error comes from",
                 "2.93x the speed of onnxruntime fp32 static t2", "9 layers stay in float",
                 "128 of 512 samples calibrate", "Left out: dynamic: offers no entropy calibration.",
                 "nncf: the softmax stays in float", "the time budget was used up"):  # fmt: skip
        assert text in reader.text


def test_without_a_log_the_page_says_what_the_manifest_knows(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", builds.manifest())
    text = read((tmp_path / "r.html").read_text("utf-8")).text
    assert "Speed and accuracy" in text
    assert "Where the error comes from" not in text


def test_rows_a_second_lead_where_they_decided(tmp_path: Path) -> None:
    manifest = msgspec.structs.replace(builds.manifest(), goal=Goal(Objective.THROUGHPUT))
    write_report(tmp_path / "r.html", manifest, builds.events())
    assert "302 rows a second, 3.31 ms at image:1x3x224x224" in read((tmp_path / "r.html").read_text("utf-8")).text


def test_what_has_not_run_makes_a_page_that_says_so(tmp_path: Path) -> None:
    taken = msgspec.structs.replace(manifest().outcomes[0], latency=(), gate=None)
    others = tuple(msgspec.structs.replace(one, status=Status.NOT_RUN) for one in manifest().outcomes[1:])
    unrun = msgspec.structs.replace(manifest(), gate=GateReport(()), latency=(), executed={}, outcomes=(taken, *others))
    write_report(tmp_path / "r.html", unrun)
    reader = read((tmp_path / "r.html").read_text("utf-8"))
    assert reader.open == []
    assert "Not qualified: it has to run on a machine with openvino:cpu:avx2 first." in reader.text
    assert "tailorbird qualify BUNDLE" in reader.text
    assert "Latency of the chosen engine" not in reader.text


def test_what_was_qualified_elsewhere_says_where(tmp_path: Path) -> None:
    facts = msgspec.structs.replace(manifest().provenance, qualified="2026-02-02", device={"cpu": EVIL})
    write_report(tmp_path / "r.html", msgspec.structs.replace(manifest(), provenance=facts))
    assert f"Qualified 2026-02-02 on {EVIL}." in read((tmp_path / "r.html").read_text("utf-8")).text
