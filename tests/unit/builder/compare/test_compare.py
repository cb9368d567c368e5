"""Comparing from records: what is there, what is missing, and what a stranger put there."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tailorbird
from tailorbird.builder.compare import sides
from tailorbird.builder.compare.compare import compare
from tailorbird.builder.compare.comparison import Area, decode_comparison, encode_comparison
from tailorbird.builder.compare.page import page_of
from tailorbird.domain import bundle
from tailorbird.domain.budget import Check, GateReport
from tailorbird.domain.errors import BundleError, UsageError
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.layers import LAYERS, Layer, LayerBook, LayerTable, encode_layers
from tailorbird.domain.precision import Precision
from tailorbird.domain.quantisation import Quantisation
from tailorbird.repository.store import LocalRepository
from tests import bundles

pytest.importorskip("onnxruntime")


def row(ms: float, edge: str = "opt", rows: int = 2) -> LatencyRow:
    return LatencyRow(edge, {"x": (rows, bundles.WIDTH)}, rows, 1, Latency.of([0.99 * ms, ms, 1.01 * ms]))


def version(folder: Path, ms: float = 1.0, papers: dict[str, bytes] | None = None, **changes: Any) -> Path:
    bundles.unsealed(folder)
    for name, data in (papers or {}).items():
        (folder / name).write_bytes(data)
    bundle.seal(folder, bundles.manifest(**({"latency": (row(ms),)} | changes)))
    return folder


def log(path: Path, threads: int, median: float, medians: tuple[float, ...] = ()) -> Path:
    name = f"openvino fp32 static t{threads}"
    events = [
        {"event": "started", "source": "net.onnx", "config": {"seed": 0, "budget": {"snr_db": 20}},
         "versions": {"openvino": "2026.4"}, "device": {"cpu": "A"}},
        {"event": "cases", "profile": "x:1x3", "places": {"opt": {"x": [1, 3]}}, "real": 0},
        {"event": "tried", "candidate": name, "median": median},
        *({"event": "round", "number": number, "medians": {name: one}} for number, one in enumerate(medians)),
        {"event": "chosen", "candidate": name, "reason": "fast"},
    ]  # fmt: skip
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events) + b'{"event": "torn')
    return path


def test_two_logs_alone_are_compared_by_what_they_tell(tmp_path: Path) -> None:
    found = compare(log(tmp_path / "a.jsonl", 2, 9.0, (4.0, 4.1, 4.2)), log(tmp_path / "b.jsonl", 1, 8.0))
    assert found.latency
    assert (found.latency.a.latency.median, found.latency.b.latency.median) == (4.1, 8.0)
    assert found.summary == (
        "B is 1.95x slower (4.1 -> 8 ms at x:1x3): all of it is threads: threads 2 -> 1",
        "accuracy: not measured on both sides",
    )
    assert [(one.area, one.a, one.b) for one in found.differences] == [(Area.THREADS, "2", "1")]
    assert "A has only a build log: no layers, no graph and no gate to compare" in found.notes


def test_an_older_bundle_lacks_layers_and_graph_and_is_compared_without(tmp_path: Path) -> None:
    found = compare(version(tmp_path / "a"), version(tmp_path / "b", 1.02))
    assert found.latency
    assert not found.latency.beyond_noise
    assert found.summary[0].startswith("B is as fast as A within the noise (1 -> 1.02 ms at x:2x16")
    assert "A has no layer times: it has no tailorbird/layers.json" in found.notes
    assert "B has no graph: it has no tailorbird/graph.json" in found.notes


def test_an_engine_file_and_a_models_folder_are_read_too(tmp_path: Path) -> None:
    model = tmp_path / "repo" / "tiny"
    for number in (2, 10):
        version(model / str(number), float(number))
    packed = bundles.engine_file(model / "2", tmp_path / "tiny.engine")
    found = compare(packed, model)
    assert (found.a.kind, found.b.kind) == ("bundle", "version")
    assert found.latency
    assert found.latency.b.latency.median == 10.0


def test_nearest_shapes_are_compared_where_none_are_shared_and_it_says_so(tmp_path: Path) -> None:
    rows = (row(4.0, "max", 8), row(9.0, "batch64", 64))
    found = compare(version(tmp_path / "a"), version(tmp_path / "b", latency=rows))
    assert found.latency
    assert not found.latency.same_shapes
    assert "1 ms at x:2x16 -> 4 ms at x:8x16" in found.summary[0]
    assert found.latency.causes[0].areas == (Area.SHAPES,)


def test_altered_layers_are_not_believed(tmp_path: Path) -> None:
    book = encode_layers(
        LayerBook((LayerTable(bundles.candidate().name, "opt", 3, 1.0, (Layer("m", "MatMul", "fp32", 1.0),)),))
    )
    a, b = version(tmp_path / "a", papers={LAYERS: book}), version(tmp_path / "b", papers={LAYERS: book})
    assert compare(a, b).layers
    (b / LAYERS).write_bytes(book.replace(b"1.0", b"9.0"))
    found = compare(a, b)
    assert not found.layers
    assert "B has no layer times: tailorbird/layers.json is not what the manifest says" in found.notes


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"schema": 99}', b'{"engines": 3, "nodes": 3}', b"\xff" * 9, b"[" * 5000]
)
def test_what_cannot_be_read_is_noted(tmp_path: Path, data: bytes) -> None:
    papers = {LAYERS: data, "tailorbird/graph.json": data, sides.LOG: data}
    found = compare(version(tmp_path / "a"), version(tmp_path / "b", papers=papers))
    assert any(note.startswith("B has no layer times:") for note in found.notes)
    assert any(note.startswith("B has no graph:") for note in found.notes)


def test_too_large_a_paper_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sides.LIMITS, sides.LOG, 10)
    with pytest.raises(BundleError, match=r"build\.jsonl is too large to compare: expected at most 10 bytes"):
        compare(version(tmp_path / "a"), version(tmp_path / "b"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is nothing to compare at .*nowhere: got no such file or folder, expected a .engine file"),
        ("empty", "there is nothing to compare at .*empty: got a folder without a manifest"),
    ],
)
def test_what_is_no_side_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        compare(tmp_path / name, tmp_path / name)


def test_a_file_of_something_else_is_no_bundle_and_no_log(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "json").write_text('{"a": 1}\n[]\n{"event": 3}')
    with pytest.raises(BundleError, match="is not a whole bundle"):
        compare(tmp_path / "text", tmp_path / "text")
    with pytest.raises(BundleError, match="json is no build log: expected lines of JSON, each with an 'event'"):
        compare(tmp_path / "json", tmp_path / "json")


@pytest.mark.parametrize("event", [
    {"event": "cases", "places": 3, "profile": [1]}, {"event": "cases", "places": {"opt": {"x": ["a", -1]}}},
    {"event": "round", "medians": [1]}, {"event": "tried", "candidate": "c", "median": "soon"},
    {"event": "started", "config": 7, "versions": [1], "device": "x"},
    {"event": "sensitivity", "groups": [1, {"noise": 3}]},
])  # fmt: skip
def test_strange_events_are_no_fault(tmp_path: Path, event: dict[str, Any]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(event) + '\n{"event": "chosen", "candidate": "c"}\n')
    assert compare(path, path).differences == ()


def snr(db: float) -> GateReport:
    return GateReport((Check("snr_db", True, "opt, y", db, 20.0),))


def int8(*kept: str) -> Any:
    return bundles.candidate(precision=Precision.INT8, quantisation=Quantisation("nncf", kept=kept))


def test_a_layer_no_longer_kept_is_blamed_by_its_measured_error(tmp_path: Path) -> None:
    groups = [
        {"units": 1, "first": "guilty", "noise": {"y": 0.09}},
        {"units": 2, "first": "mild", "noise": {"y": 0.01}},
    ]
    events = msgspec.json.encode({"event": "sensitivity", "candidate": "c", "groups": groups}) + b"\n"
    a = version(tmp_path / "a", papers={sides.LOG: events}, candidate=int8("guilty", "mild"), gate=snr(30.0))
    b = version(tmp_path / "b", candidate=int8(), gate=snr(9.96))  # 0.001 and 0.101 of the signal
    found = compare(a, b).accuracy
    assert found
    assert [round(cause.contribution or 0.0, 2) for cause in found.causes] == [0.9, 0.1, 0.0]
    assert found.causes[0].text == "the group of layers from guilty is no longer kept in float"


def test_precision_explains_a_lower_snr(tmp_path: Path) -> None:
    a, b = version(tmp_path / "a"), version(tmp_path / "b", candidate=int8(), executed={"int8": 2}, gate=snr(28.0))
    found = compare(a, b)
    assert found.accuracy is None  # the check of A is of another place
    a = version(tmp_path / "c", gate=snr(120.0))
    found = compare(a, b)
    assert found.accuracy
    assert found.accuracy.causes[0].areas == (Area.PRECISION,)
    assert found.summary[1].startswith(
        "B is less accurate: SNR 120 -> 28 dB (opt, y); all of it is precision: executed layers 2 x fp32 -> 2 x int8"
    )


def test_the_record_and_the_page_hold_hostile_names(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>" * 9
    book = LayerBook((LayerTable(bundles.candidate().name, "opt", 3, 1.0, (Layer(evil, evil, "fp32", 1.0, (evil,)),)),))
    a = version(tmp_path / "a", papers={LAYERS: encode_layers(book)})
    b = version(tmp_path / "b", 2.0, papers={LAYERS: encode_layers(book)}, executed={evil: 2})
    found = compare(a, b)
    assert decode_comparison(encode_comparison(found)) == found
    page = page_of(found)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_more_layers_of_one_precision_are_no_other_precision(tmp_path: Path) -> None:
    found = compare(version(tmp_path / "a"), version(tmp_path / "b", executed={"fp32": 3}))
    assert [(one.area, one.a, one.b) for one in found.differences] == [(Area.FUSION, "2 x fp32", "3 x fp32")]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_browser_of_any_width(tmp_path: Path, width: int) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    long = "a_very_long_name_without_any_space_in_it" * 9
    book = LayerBook((LayerTable(bundles.candidate().name, "opt", 3, 1.0, (Layer(long, long, "fp32", 1.0, (long,)),)),))
    a = version(tmp_path / "a", papers={LAYERS: encode_layers(book)})
    b = version(tmp_path / "b", 2.0, papers={LAYERS: encode_layers(book)}, candidate=int8(long), gate=snr(30.0))
    (tmp_path / "page.html").write_text(page_of(compare(a, b)), "utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "page.html").as_uri())
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        assert len(asked) == 1
        assert len(page.query_selector_all("h2")) >= 5
        browser.close()


@pytest.mark.parametrize("median", [0.0, -1.0, 1e300])
def test_a_median_that_nobody_measured_is_no_latency(tmp_path: Path, median: float) -> None:
    assert compare(log(tmp_path / "a.jsonl", 2, median), log(tmp_path / "b.jsonl", 1, 8.0)).latency is None
    assert compare(version(tmp_path / "v"), log(tmp_path / "a.jsonl", 2, 9.0, (median,))).latency


def test_a_version_whose_median_is_0_is_compared_without(tmp_path: Path) -> None:
    assert compare(version(tmp_path / "a", 0.0), version(tmp_path / "b")).latency is None


def test_shapes_too_large_for_any_tensor_are_no_fault(tmp_path: Path) -> None:
    huge = LatencyRow("opt", {"x": (2**63 - 1,) * 20}, 1, 1, Latency.of([1.0]))
    found = compare(version(tmp_path / "a", latency=(huge,)), version(tmp_path / "b"))
    assert found.latency
    assert not found.latency.same_shapes
    logged = log(tmp_path / "c.jsonl", 2, 9.0)
    logged.write_bytes(logged.read_bytes().replace(b"[1,3]", b"[" + b",".join([b"%d" % (2**63 - 1)] * 20) + b"]"))
    read = compare(logged, version(tmp_path / "d")).latency
    assert read
    assert read.a.shapes == {}


def test_a_deeply_nested_setting_is_cut_off(tmp_path: Path) -> None:
    logs = [log(tmp_path / f"{name}.jsonl", 2, 9.0) for name in "ab"]
    nested = b"[" * 900 + b"0" + b"]" * 900
    logs[1].write_bytes(logs[1].read_bytes().replace(b'"seed":0', b'"seed":' + nested))
    assert [(one.what, one.b) for one in compare(*logs).differences] == [("seed", "...")]


def test_a_models_folder_means_its_newest_version_that_is_not_retired(tmp_path: Path) -> None:
    repository = LocalRepository(tmp_path / "repository")
    for number in (1, 2):
        made = bundles.version(tmp_path / str(number), latency=(row(float(number)),))
        repository.publish(made)
    repository.retire("tiny", 2)
    found = tailorbird.compare(repository.root / "tiny", version(tmp_path / "other"))
    assert found.latency
    assert found.latency.a.latency.median == 1.0
