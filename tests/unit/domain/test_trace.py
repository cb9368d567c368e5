"""Traces: the format, word for word, and what a reader makes of files that were cut short or are somebody else's."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.errors import UsageError
from tailorbird.domain.trace import (
    LINE_BYTES,
    TraceForm,
    TraceRequest,
    form_line,
    header_line,
    read_trace,
    request_line,
)

BERT = TraceForm(0, "bert", 4, 2, {"ids": (2, 128)})
GOLDEN = (
    b'{"trace":1,"started":1795392000000000000,"file":3}\n'
    b'{"form":0,"model":"bert","version":4,"rows":2,"inputs":{"ids":[2,128]}}\n'
    b"[52034811,0,1830112]\n"
    b'[53101222,0,91022,"REJECTED",0,0]\n'
    b'[53301222,0,1530112,"",1,200000]\n'
)
STARTED = 1795392000000000000


def written(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        list(read_trace(path))
    return caught.value.message


def test_the_format_is_this() -> None:
    lines = [request_line(52034811, 0, 1830112, "", 0, 0), request_line(53101222, 0, 91022, "REJECTED", 0, 0),
             request_line(53301222, 0, 1530112, "", 1, 200000)]  # fmt: skip
    assert header_line(STARTED, 3) + form_line(BERT) + "".join(lines).encode() == GOLDEN


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert list(read_trace(written(tmp_path / "t", GOLDEN))) == [
        TraceRequest(STARTED + 52034811, BERT, 1830112),
        TraceRequest(STARTED + 53101222, BERT, 91022, "REJECTED"),
        TraceRequest(STARTED + 53301222, BERT, 1530112, "", 1, 200000),
    ]


@pytest.mark.parametrize("cut", range(1, 32))
def test_a_torn_end_is_skipped_wherever_it_was_torn(tmp_path: Path, cut: int) -> None:
    assert len(list(read_trace(written(tmp_path / "t", GOLDEN[:-cut])))) == 2


def test_a_folder_is_read_in_order_and_each_file_by_itself(tmp_path: Path) -> None:
    other = form_line(TraceForm(0, "resnet", 1, 1, {"x": (1, 3)})).decode()
    written(tmp_path / "b.trace.jsonl", (header_line(5, 2).decode() + other + "[7,0,1]\n").encode())
    written(tmp_path / "a.trace.jsonl", GOLDEN + b"[9")
    written(tmp_path / "notes.txt", b"not a trace")
    assert [(one.at, one.form.model) for one in read_trace(tmp_path)][2:] == [
        (STARTED + 53301222, "bert"),
        (12, "resnet"),
    ]


def test_traces_written_by_hand_are_read(tmp_path: Path) -> None:
    read = list(read_trace(written(tmp_path / "t", b'{"at": 0.25, "rows": 3}\n\n{"at": 1}')))
    assert [(one.at, one.form.rows) for one in read] == [(250_000_000, 3), (1_000_000_000, 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"trace":2,"started":1}\n', "version 2 of the format: this release reads version 1"),
        (b'{"trace":1,"started":1}\n[1,0,1]\n', "a request of form 0, which no line before it explains"),
        (b"[1]\n", "of at least length 3"),
        (b"[-1,0,1]\n", "`int` >= 0"),
        (b'{"rows": 1}\n', "missing required field `at`"),
        (b"nonsense\n", "malformed"),
        (b"\xff\n", "malformed"),
        (b" " * (LINE_BYTES + 1), "a line is too long"),
        (b'{"form":0,"rows":99999999999}\n', "<= 1073741824"),
        (b"[" * 10_000 + b"\n", "Expected `int`"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_reason(tmp_path: Path, text: bytes, words: str) -> None:
    said = refusal(written(tmp_path / "t", text))
    assert said.startswith(f"cannot read the trace {tmp_path / 't'}: got ")
    assert words in said
    assert "tailorbird serve --record" in said


def test_an_empty_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    assert "has no trace in it" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "none")


PIECES = st.one_of(
    st.sampled_from([line + b"\n" for line in GOLDEN.splitlines()]),
    st.binary(max_size=40),
    st.sampled_from([b"[", b"]", b"{", b"}", b'{"form":', b'{"trace":1,', b'{"at":', b"1e400", b"9" * 30, b",", b"\n"]),
)


@given(st.lists(PIECES, max_size=12))
def test_whatever_a_file_holds_it_is_a_trace_or_refused(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder, "t"), b"".join(pieces))
        read = []
        with contextlib.suppress(UsageError):
            read = list(read_trace(path))
        assert all(isinstance(one.at, int) and one.form.rows >= 0 for one in read)
