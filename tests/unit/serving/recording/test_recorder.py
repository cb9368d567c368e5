"""The recorder: what it keeps and what it never does, on real files; full disks, limits and kills included."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import UsageError
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.domain.trace import read_trace
from tailorbird.serving.hub import LoadedModel
from tailorbird.serving.recording import recorder as module
from tailorbird.serving.recording.files import LEAST_BYTES, TraceFiles
from tailorbird.serving.recording.recorder import Recorder
from tests.project import tree
from tests.protocol.engines import candidate, manifest

WORDS = Signature(
    (TensorSpec("ids", DType.INT64, ("rows", "length")), TensorSpec("mask", DType.INT64, ("rows", "length"))),
    (TensorSpec("y", DType.FP32, ("rows", 2)),),
)
FIXED = Signature((TensorSpec("x", DType.FP32, (3, 8)),), (TensorSpec("y", DType.FP32, (3, 8)),))


def model(signature: Signature = WORDS, name: str = "words", version: int = 7) -> LoadedModel:
    return LoadedModel(name, version, manifest(name, signature, candidate(signature)), None)  # type: ignore[no-untyped-call]


def ids(rows: int, length: int) -> dict[str, Any]:
    return {name: np.zeros((rows, length), np.int64) for name in ("ids", "mask")}


def eventually(holds: Any) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_is_noted_is_read_back(tmp_path: Path) -> None:
    before = time.time_ns()
    recorder = Recorder(tmp_path / "deep" / "folder")
    now = time.monotonic()
    recorder.note(model(), ids(2, 128), {}, now + 0.5, 0.001)
    recorder.note(model(), ids(1, 9), {"priority": 1, "timeout": 2000, "mine": "secret"}, now, 0.25, "REJECTED")
    recorder.note(model(FIXED, "fixed", 1), {"x": np.zeros((3, 8), np.float32)}, {"timeout": "x"}, now, 0.0)
    recorder.close()
    first, second, third = read_trace(tmp_path / "deep" / "folder")
    assert (first.form.model, first.form.version, first.form.rows) == ("words", 7, 2)
    assert first.form.inputs == {"ids": (2, 128), "mask": (2, 128)}
    assert (first.latency, first.outcome, first.at - second.at) == (1_000_000, "", pytest.approx(5e8, abs=10))
    assert (second.form.rows, second.latency, second.outcome) == (1, 250_000_000, "REJECTED")
    assert (second.priority, second.timeout_us) == (1, 2000)
    assert (third.form.rows, third.timeout_us) == (1, 0)  # no dim of it counts rows
    assert 0 <= second.at - before < 5e9
    assert (recorder.recorded, recorder.dropped) == (3, 0)
    written = b"".join(path.read_bytes() for path in (tmp_path / "deep" / "folder").iterdir())
    assert b"secret" not in written
    assert b"mine" not in written


def test_names_that_the_model_does_not_know_are_not_written(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.note(model(), {"password=hunter2": np.zeros(3), "ids": np.zeros((5, 1))}, {}, 0.0, 0.0, "OTHER")
    recorder.close()
    (one,) = read_trace(tmp_path)
    assert (one.form.inputs, one.form.rows, one.outcome) == ({"ids": (5, 1)}, 5, "OTHER")


def test_it_is_private(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "trace")
    recorder.note(model(), ids(1, 1), {}, 0.0, 0.0)
    recorder.close()
    assert (tmp_path / "trace").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "trace").iterdir()} == {0o600}


def test_files_rotate_and_the_oldest_go(tmp_path: Path) -> None:
    (tmp_path / "20200101T000000.000000Z-000001.trace.jsonl").write_bytes(b"x" * LEAST_BYTES)
    (tmp_path / "mine.trace.jsonl").write_bytes(b"")  # not written by a recorder, and so never removed
    recorder = Recorder(tmp_path, LEAST_BYTES)
    for number in range(10_000):
        recorder.note(model(), ids(1, 1 + number % 5), {}, number / 1e3, 1e-3)
    recorder.close()
    files = sorted(tmp_path.glob("2*.trace.jsonl"))
    assert sum(path.stat().st_size for path in files) <= LEAST_BYTES
    assert len(files) > 3
    assert "20200101T000000.000000Z-000001.trace.jsonl" not in {path.name for path in files}
    assert (tmp_path / "mine.trace.jsonl").exists()
    kept = list(read_trace(tmp_path))
    assert [one.form.inputs["ids"] for one in kept] == [(1, 1 + number % 5) for number in range(10_000)][-len(kept) :]
    assert recorder.recorded == 10_000


def test_forms_without_end_begin_files_of_their_own(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for number in range(2 * module.FORMS):
        recorder.note(model(), ids(1, 1 + number), {}, 0.0, 0.0)
    recorder.close()
    assert len(list(tmp_path.glob("*.trace.jsonl"))) > 1
    assert len(list(read_trace(tmp_path))) == 2 * module.FORMS


def test_more_than_can_wait_is_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 10)
    monkeypatch.setattr(module, "FLUSH_SECONDS", 30.0)
    recorder = Recorder(tmp_path)
    for _ in range(25):
        recorder.note(model(), ids(1, 1), {}, 0.0, 0.0)
    recorder.close()
    assert (recorder.recorded, recorder.dropped) == (10, 15)


def test_one_recording_at_a_time(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    with pytest.raises(UsageError, match="another server records into"):
        Recorder(tmp_path)
    recorder.close()
    Recorder(tmp_path).close()


def test_what_cannot_be_recorded_into_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot record into .*: got Not a directory, expected a folder to write to"):
        Recorder(tmp_path / "file" / "x")
    with pytest.raises(UsageError, match="the limit of the recording is too small: got 1000 bytes"):
        TraceFiles(tmp_path, 1000)


FULL = """
import json, resource, signal, sys, time
from pathlib import Path
from tailorbird.serving.recording.recorder import Recorder
from tests.unit.serving.recording.test_recorder import eventually, ids, model

told, one = [], model()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recorder = Recorder(Path(sys.argv[1]), 1 << 20, lambda *words: told.append(words))
for size, count in ((5000, 1000), (10, 100), (resource.RLIM_INFINITY, 1)):
    before = recorder.recorded + recorder.dropped
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for number in range(count):
        recorder.note(one, ids(1, 1), {}, float(number), 0.0)
    eventually(lambda: recorder.recorded + recorder.dropped == before + count)
recorder.close()
print(json.dumps([told, recorder.recorded, recorder.dropped]))
"""


def script(text: str, folder: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree.ROOT / "src"), str(tree.ROOT)])}
    command = [sys.executable, "-c", text, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_full_disk_is_said_once_and_what_was_written_stays_whole(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writes fail in the middle of a line."""
    with script(FULL, tmp_path) as child:
        told, recorded, dropped = json.loads(child.communicate()[0])
    assert told[0] == ["requests are not recorded", "File too large"]
    assert [words for words, _ in told] == ["requests are not recorded", "requests are recorded again"]
    assert (recorded + dropped, dropped > 100) == (1101, True)
    assert len(list(read_trace(tmp_path))) == recorded  # no line is torn, none is lost
    assert len(list(tmp_path.glob("*.trace.jsonl"))) == 2  # what could not be begun is gone


KILLED = """
import sys, time
from pathlib import Path
from tailorbird.serving.recording.recorder import Recorder
from tests.unit.serving.recording.test_recorder import ids, model

recorder, one, number = Recorder(Path(sys.argv[1]), 1 << 20), model(), 0
while True:
    recorder.note(one, ids(1, 1 + number % 7), {}, time.monotonic(), 0.0)
    number += 1
    if number % 100 == 0:
        print(recorder.recorded, flush=True)
        time.sleep(0.001)
"""


def test_a_kill_loses_nothing_that_was_written(tmp_path: Path) -> None:
    with script(KILLED, tmp_path) as child:
        assert child.stdout is not None
        said = 0
        while said < 3000:
            said = int(child.stdout.readline())
        child.kill()
    kept = list(read_trace(tmp_path))
    assert len(kept) >= said
    assert all(one.form.inputs["ids"][1] == 1 + number % 7 for number, one in enumerate(kept))
