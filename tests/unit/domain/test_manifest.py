"""Tests of ``domain.manifest``."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.budget import Budget, Check, GateReport
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BundleError
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.manifest import SCHEMA, EngineFormat, Manifest, Provenance, decode_manifest, encode_manifest
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.domain.target import Target

CANDIDATE = Candidate(
    Target("openvino", "cpu", "avx2"),
    Precision.BF16,
    Profile({"x": (1, 3), "s": ()}, {"x": (2, 3), "s": ()}, {"x": (4, 3), "s": ()}),
    ShapeMode.DYNAMIC,
    2,
    {"optimise": False, "STREAMS": 2, "HINT": "2"},
)
ROW = LatencyRow("opt", {"x": (2, 3), "s": ()}, 2, 1, Latency(1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 100))
GATE = GateReport((Check("snr_db", True, "y", 120.0, 20.0), Check("dtype", False, "y", "float64[2]", "float32[2]")))
MANIFEST = Manifest(
    model="tiny",
    candidate=CANDIDATE,
    format=EngineFormat("openvino", "openvino", "model.xml"),
    signature=Signature(
        (TensorSpec("x", DType.FP32, ("rows", 3)), TensorSpec("s", DType.BYTES, ())),
        (TensorSpec("y", DType.INT64, (1, "rows")),),
    ),
    files={"model.xml": "sha256:00"},
    executed={"bf16": 3, "fp32": 1},
    latency=(ROW,),
    gate=GATE,
    budget=Budget(snr_db=30.0),
    outcomes=(
        Outcome(CANDIDATE, Status.CHOSEN, "fastest", (ROW,), GATE, {"bf16": 3}, 1.5, 1 << 40),
        *(Outcome(CANDIDATE, status, "é\n\0") for status in Status),
    ),
    provenance=Provenance(
        "tiny.onnx", "sha256:1", "sha256:2", ("fold",), {"onnx": "1.21"}, {"cpu": "EPYC"}, "2026-01-01T00:00:00Z"
    ),
)


def assert_same(one: Any, other: Any) -> None:
    """Equal in type as well, all the way down: 1 == 1.0 == True would hide a loss."""
    assert type(one) is type(other)
    if isinstance(one, msgspec.Struct):
        assert_same(msgspec.structs.asdict(one), msgspec.structs.asdict(other))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert_same(list(one.values()), list(other.values()))
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def test_a_manifest_comes_back_whole() -> None:
    back = decode_manifest(encode_manifest(MANIFEST))
    assert back == MANIFEST
    assert_same(back, MANIFEST)


def test_its_text_is_for_people_too_and_stable() -> None:
    text = encode_manifest(MANIFEST)
    assert text.startswith(b'{\n  "schema": 1,\n  "model": "tiny",\n')
    assert encode_manifest(decode_manifest(text)) == text


OPTIONS = st.dictionaries(st.text(), st.one_of(st.text(), st.integers(-(2**63), 2**63), st.booleans()), max_size=3)
NUMBERS = st.one_of(st.floats(), st.text())


@given(
    OPTIONS, NUMBERS, st.dictionaries(st.text(), st.integers(0, 2**62)), st.lists(st.one_of(st.integers(), st.text()))
)
def test_any_values_come_back(
    options: dict[str, Any], measured: Any, executed: dict[str, int], dims: list[Any]
) -> None:
    changed = msgspec.structs.replace(
        MANIFEST,
        candidate=msgspec.structs.replace(CANDIDATE, options=options),
        gate=GateReport((Check("rule", False, "where", measured, 1.0),)),
        executed=executed,
        signature=Signature((TensorSpec("x", DType.FP32, tuple(dims)),), ()),
    )
    assert_same(decode_manifest(encode_manifest(changed)), changed)


def test_a_newer_schema_is_refused_whatever_else_it_holds() -> None:
    with pytest.raises(BundleError) as refused:
        decode_manifest(b'{"schema": 2, "news": []}')
    assert refused.value.message == (
        f"the manifest's schema is newer than this Tailorbird: got 2, expected {SCHEMA}\n"
        "Hint: upgrade Tailorbird: pip install --upgrade tailorbird"
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"schema": "1"}', b'{"schema": 1}', b"\xff", b"[" * 100_000, encode_manifest(MANIFEST)[:-9]],
)
def test_a_broken_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"^the manifest cannot be read: got .*\nHint: restore the bundle from its"):
        decode_manifest(data)


def test_names_of_candidates_tell_them_apart() -> None:
    assert CANDIDATE.name == "openvino bf16 dynamic t2 HINT=2 STREAMS=2 optimise=false"
    assert msgspec.structs.replace(CANDIDATE, options={}).name == "openvino bf16 dynamic t2"


def test_an_outcome_knows_its_median_at_opt() -> None:
    edge = msgspec.structs.replace(ROW, edge="min", latency=Latency(9, 9, 9, 9, 9, 9, 5))
    assert Outcome(CANDIDATE, Status.SLOWER, "", (edge, ROW)).median == 2.0
    assert Outcome(CANDIDATE, Status.SLOWER, "", (edge,)).median is None
    assert Outcome(CANDIDATE, Status.FAILED, "").median is None
