"""Traces: what was asked of a server over time, as ``tailorbird serve --record`` writes it.

The format, version 1, is JSON lines in UTF-8. Every file can be read without the others::

    {"trace": 1, "started": 1795392000000000000, "file": 3}
    {"form": 0, "model": "bert", "version": 4, "rows": 2, "inputs": {"ids": [2, 128]}}
    [52034811, 0, 1830112]
    [53101222, 0, 91022, "REJECTED"]
    [53301222, 0, 1530112, "", 1, 200000]

The first line says when the recording began, in Unix nanoseconds. A line with ``form`` says what requests looked like
and gives that a number. Every other line is one request: nanoseconds from the recording's start to its arrival, by a
clock that does not jump; its form; nanoseconds until it was answered or refused; why it got no answer, in Triton's
words, empty for one that did; its priority; its timeout in microseconds. What is empty or 0 at the end is left out.

Requests stand in the order in which they were over. What they held, who sent them and their headers are not recorded.
A last line without its end is what a killed writer left, and is skipped. A trace written by hand may have lines such
as ``{"at": 0.25, "rows": 1}`` instead, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tailorbird.domain.errors import UsageError

VERSION = 1
SUFFIX = ".trace.jsonl"
"""Of a recording's files; their names sort by time."""
LINE_BYTES = 1 << 20

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Rows = Annotated[int, msgspec.Meta(ge=0, le=1 << 30)]


class Header(msgspec.Struct, frozen=True):
    """The first line of a file."""

    trace: int
    started: _Count
    """Unix time in nanoseconds."""
    file: _Count = 0
    """The how manieth of its recording, from 1."""


class TraceForm(msgspec.Struct, frozen=True):
    """What requests looked like."""

    form: _Count = 0
    model: str = ""
    version: _Count = 0
    rows: _Rows = 1
    inputs: dict[str, tuple[_Count, ...]] = {}
    """Shapes by name."""


class TraceRequest(msgspec.Struct, frozen=True):
    """One request. Times are in nanoseconds."""

    at: int
    """Unix time of arrival; of a trace written by hand, from whatever it counts from."""
    form: TraceForm
    latency: int = 0
    outcome: str = ""
    """Why it got no answer: REJECTED, CANCELED, BACKEND or OTHER; empty for one that did."""
    priority: int = 0
    timeout_us: int = 0
    """0 for none."""


class _Line(msgspec.Struct, frozen=True, array_like=True):
    at: _Count
    form: _Count
    latency: _Count
    outcome: str = ""
    priority: int = 0
    timeout_us: _Count = 0


class _ByHand(msgspec.Struct, frozen=True):
    at: Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
    rows: _Rows = 1


_header = msgspec.json.Decoder(Header)
_form = msgspec.json.Decoder(TraceForm)
_line = msgspec.json.Decoder(_Line)
_by_hand = msgspec.json.Decoder(_ByHand)


def trace_files(path: Path) -> list[Path]:
    """The file itself, or those of a recording's folder, oldest first; raises :class:`UsageError` for none."""
    if not path.is_dir():
        return [path]
    found = sorted(path.glob(f"*{SUFFIX}"))
    if not found:
        raise UsageError(f"the folder {path} has no trace in it", expected=f"files named *{SUFFIX}", hint=_HINT)
    return found


def read_trace(path: Path) -> Iterator[TraceRequest]:
    """The requests of a trace, file by file and line by line: not sorted by arrival.

    Args:
        path: a file, or a folder with the files of recordings.

    Raises:
        UsageError: it cannot be read, or is no trace.
    """
    for file in trace_files(path):
        try:
            yield from _requests(_lines(file))
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"cannot read the trace {file}", got=_words(error),
                             expected='lines like {"at": 0.25, "rows": 1}', hint=_HINT) from None  # fmt: skip


_HINT = "record one: tailorbird serve --record DIR"


def _words(error: Exception) -> str:
    return f"a request of form {error}, which no line before it explains" if isinstance(error, KeyError) else str(error)


def _lines(path: Path) -> Iterator[bytes]:
    """Whole lines, none longer than :data:`LINE_BYTES`."""
    with path.open("rb") as file:
        while line := file.readline(LINE_BYTES):
            if line.endswith(b"\n"):
                yield line
            elif len(line) == LINE_BYTES:
                raise ValueError("a line is too long")
            elif _is_whole(line):  # the last one of an editor that does not end it
                yield line


def _is_whole(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except ValueError:
        return False
    return line.lstrip()[:1] == b"{"  # a torn list can pass for a shorter one: never, but a number's end can be lost


def _requests(lines: Iterable[bytes]) -> Iterator[TraceRequest]:
    started, forms = 0, dict[int, TraceForm]()
    for line in lines:
        if line.startswith(b"["):
            found = _line.decode(line)
            yield TraceRequest(started + found.at, forms[found.form], found.latency, found.outcome, found.priority,
                               found.timeout_us)  # fmt: skip
        elif line.startswith(b'{"trace"'):
            started, forms = _begun(_header.decode(line)), {}
        elif line.startswith(b'{"form"'):
            form = _form.decode(line)
            forms[form.form] = form
        elif line.strip():
            said = _by_hand.decode(line)
            yield TraceRequest(round(said.at * 1e9), TraceForm(rows=said.rows))


def _begun(header: Header) -> int:
    if header.trace != VERSION:
        raise ValueError(f"version {header.trace} of the format: this release reads version {VERSION}")
    return header.started


def header_line(started: int, file: int) -> bytes:
    """The first line of a file."""
    return _encoded(Header(VERSION, started, file))


def form_line(form: TraceForm) -> bytes:
    """A line that explains a form."""
    return _encoded(form)


def request_line(at: int, form: int, latency: int, outcome: str = "", priority: int = 0, timeout_us: int = 0) -> str:
    """A line for one request; times in nanoseconds."""
    if not outcome and not priority and not timeout_us:
        return f"[{at},{form},{latency}]\n"
    return f'[{at},{form},{latency},"{outcome}",{priority},{timeout_us}]\n'


def _encoded(record: Any) -> bytes:
    return msgspec.json.encode(record) + b"\n"
