"""Builds of small real models, through the real API and command line, with everything that can go wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tailorbird
from tailorbird.domain.errors import InputError, UsageError
from tailorbird.domain.outcome import Status
from tests.integration import plugins
from tests.unit.builder.graphs import externalise, model, save, value, weight

pytest.importorskip("onnxruntime")

QUICK: dict[str, Any] = {"threads": [1], "backends": ["onnxruntime"], "precisions": ["fp32"]}
QUICK_FLAGS = ("--threads", "1", "--backend", "onnxruntime", "--precision", "fp32")
MARK = "TAILORBIRD_TEST_MARK"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of the test's own, in which no build may leave anything."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("TAILORBIRD_CACHE", str(tmp_path / "cache"))  # no test gets what another built
    monkeypatch.setenv(MARK, uuid.uuid4().hex)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    yield folder
    assert not left_in(folder), "left behind"
    assert not marked(), "still running"


def left_in(folder: Path) -> list[str]:
    """What builds left, but for what ONNX Runtime's telemetry and PyTorch write on import."""
    return [str(path) for path in folder.rglob("*") if path.name not in {".ses", "torchinductor_root"}]


def marked() -> list[str]:
    """Command lines of the processes that this test's builds started, and their children."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = []
    for process in Path("/proc").iterdir():
        try:
            if (
                process.name.isdigit()
                and int(process.name) != os.getpid()
                and mark in (process / "environ").read_bytes()
            ):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def network(rows: int | str = "N") -> onnx.ModelProto:
    """Two layers and a softmax."""
    random = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w1", (16, 32)), ("w2", (32, 4)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"]),
    ]
    return model(nodes, [value("x", [rows, 16])], [value("y", [rows, 4])], weights)


def direct(made: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    return list(onnxruntime.InferenceSession(made.SerializeToString()).run(None, inputs))


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "tailorbird", *map(str, words)]


def cli(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    given = {"timeout": 110, **options}
    return subprocess.run(command(*words), capture_output=True, text=True, check=False, **given)


def misbehaving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(plugins.install(tmp_path / "plugins")))


def table(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Rows of the table by runtime."""
    return {row["candidate"]["target"]["runtime"]: row for row in json.loads(done.stdout)["table"]}


# --- what works ----------------------------------------------------------------------------------


def test_from_a_file_to_answers(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    made = network()
    exact = {"threads": [1], "precisions": ["fp32"]}  # so that answers are, whichever engine is chosen
    shapes = {"min_shapes": "x:1x16", "opt_shapes": "x:4x16", "max_shapes": "x:8x16"}
    result = tailorbird.build(save(made, tmp_path / "net.onnx"), output=tmp_path / "net.engine", **exact, **shapes)
    assert {outcome.candidate.target.runtime for outcome in result.table} == {"onnxruntime", "openvino"}
    assert result.winner.gate
    assert result.winner.gate.passed
    alone = [row for row in result.winner.latency if row.instances == 1]
    assert [(row.edge, row.rows) for row in alone] == [
        ("opt", 4),
        ("min", 1),
        ("max", 8),
        ("batch2", 2),
    ]
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    with tailorbird.open(tmp_path / "net.engine") as engine:
        np.testing.assert_allclose(engine.run({"x": x})["y"], direct(made, x=x)[0], atol=1e-5)
        with pytest.raises(InputError, match="outside the engine's profile: got 9x16, expected 1x16 to 8x16"):
            engine.run({"x": np.zeros((9, 16), np.float32)})


def test_the_bundle_keeps_its_log_and_report(tmp_path: Path) -> None:
    shown: list[dict[str, Any]] = []
    result = tailorbird.build(
        save(network(), tmp_path / "net.onnx"),
        repository=tmp_path / "repo",
        name="net",
        observers=[shown.append],
        **QUICK,
    )
    assert result.version_dir == tmp_path / "repo" / "net" / "1"
    papers = result.version_dir / "tailorbird"
    lines = [msgspec.json.decode(line) for line in (papers / "build.jsonl").read_bytes().splitlines()]
    assert [line["event"] for line in lines] == [event["event"] for event in shown]
    assert [line["event"] for line in lines if line["event"] not in ("cache", "key made", "profiled", "round")] == [
        "started", "normalised", "cases", "reference", "candidates", "tried", "tried", "chosen",
        "side by side", "finished",
    ]  # fmt: skip
    report = (papers / "report.html").read_text("utf-8")
    assert all(outcome.candidate.name in report for outcome in result.table)


def test_the_chosen_engine_carries_the_samples_of_the_last_round(tmp_path: Path) -> None:
    result = tailorbird.build(save(network(), tmp_path / "net.onnx"), **QUICK)
    opt = result.winner.latency[0].latency
    assert opt.runs > 9
    assert opt.min <= opt.median <= opt.p99


def test_whole_numbers_go_in(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["mm"]),
        helper.make_node("Mul", ["e", "mm"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "one"], ["y"], keepdims=0),
    ]
    weights = [weight("table", 9, 4), weight("last", 1, dtype=np.int64), weight("one", 1, dtype=np.int64)]
    weights[1] = numpy_helper.from_array(np.array([2]), "last")
    weights[2] = numpy_helper.from_array(np.array([1]), "one")
    made = model(
        nodes,
        [value("ids", ["N", 5], TensorProto.INT64), value("mask", ["N", 5], TensorProto.INT32)],
        [value("y", ["N", 4])],
        weights,
    )
    shapes = "ids:3x5,mask:3x5"
    result = tailorbird.build(save(made, tmp_path / "m.onnx"), output=tmp_path / "m.engine", opt_shapes=shapes, **QUICK)
    inputs = {"ids": np.full((3, 5), 8), "mask": np.ones((3, 5), np.int32)}
    with tailorbird.open(tmp_path / "m.engine") as engine:
        np.testing.assert_allclose(engine.run(inputs)["y"], direct(made, **inputs)[0])
    assert result.bundle == tmp_path / "m.engine"


def test_weights_beside_the_model_end_up_in_the_bundle(tmp_path: Path) -> None:
    made = network(2)
    expected = direct(made, x=np.ones((2, 16), np.float32))[0]
    externalise(made.graph.initializer[0], tmp_path, "weights.bin")
    tailorbird.build(save(made, tmp_path / "m.onnx"), output=tmp_path / "m.engine", **QUICK)
    (tmp_path / "weights.bin").unlink()
    with tailorbird.open(tmp_path / "m.engine") as engine:
        np.testing.assert_allclose(engine.run({"x": np.ones((2, 16), np.float32)})["y"], expected, atol=1e-6)


def test_duplicated_names_are_mended_and_proven(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Exp", ["y"], ["z"]),
        helper.make_node("Neg", ["z"], ["y"]),
    ]
    made = model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])])
    tailorbird.build(save(made, tmp_path / "m.onnx"), output=tmp_path / "m.engine", opt_shapes="x:2x4", **QUICK)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with tailorbird.open(tmp_path / "m.engine") as engine:
        np.testing.assert_allclose(engine.run({"x": x})["y"], -np.exp(x), rtol=1e-6)


def test_real_data_decides_the_shape_and_judges_the_classes(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((6, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    result = tailorbird.build(save(network(), tmp_path / "m.onnx"), data=str(tmp_path / "data.npz"), **QUICK)
    assert result.winner.candidate.profile.opt == {"x": (6, 16)}
    assert result.winner.gate
    assert result.winner.gate.worst("top1") == 1.0


def test_one_sample_at_many_rows_is_joined_by_synthetic_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((1, 16), np.float32))
    shown: list[dict[str, Any]] = []
    mixing = model(
        [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), helper.make_node("Add", ["x", "m"], ["y"])],
        [value("x", ["N", 16])],
        [value("y", ["N", 16])],
    )
    with pytest.raises(tailorbird.TailorbirdError, match="same row"):
        tailorbird.build(save(mixing, tmp_path / "m.onnx"), data=str(tmp_path / "data.npz"), opt_shapes="x:4x16",
                         observers=[shown.append], **QUICK)  # fmt: skip
    assert any(event["event"] == "tried" and event["status"] == Status.REFUSED for event in shown)


# --- PyTorch -------------------------------------------------------------------------------------

_PROGRAM = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 3)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x, scale):
        return self.drop(self.layer(x)) * scale

def make():
    torch.manual_seed(0)
    return Net(), {"scale": torch.full((2, 3), 2.0), "x": torch.ones(2, 8)}

def wrong():
    return Net()
"""


def test_a_pytorch_program_by_name(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    (tmp_path / "nets.py").write_text(_PROGRAM)
    tailorbird.build("nets:make", output=tmp_path / "m.engine", **QUICK)
    scope: dict[str, Any] = {}
    exec(_PROGRAM, scope)
    net, _ = scope["make"]()
    x, scale = np.full((2, 8), 0.5, np.float32), np.full((2, 3), 3, np.float32)
    with torch.inference_mode():
        expected = net.eval()(torch.from_numpy(x), torch.from_numpy(scale)).numpy()
    with tailorbird.open(tmp_path / "m.engine") as engine:
        (found,) = engine.run({"x": x, "scale": scale}).values()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.heavy
def test_an_exported_pytorch_program(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    scope: dict[str, Any] = {}
    exec(_PROGRAM, scope)
    net, example = scope["make"]()
    program = torch.export.export(net.eval(), (), example)
    torch.export.save(program, tmp_path / "net.pt2")
    shown: list[dict[str, Any]] = []
    result = tailorbird.build(tmp_path / "net.pt2", observers=[shown.append], **QUICK)
    assert result.manifest.provenance.source == "net.pt2"
    (reference,) = (event for event in shown if event["event"] == "reference")
    assert reference["oracle"].startswith("torch ")


def test_a_program_that_is_none_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "nets.py").write_text(_PROGRAM)
    with pytest.raises(UsageError, match=r"nets:wrong returned the wrong thing: got Net, expected \(torch.nn.Module,"):
        tailorbird.build("nets:wrong", **QUICK)


# --- bad input -----------------------------------------------------------------------------------


def unknown_operator() -> bytes:
    made = model([helper.make_node("Frobnicate", ["x"], ["y"])], [value("x", [1])], [value("y", [1])])
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: b"not a model at all", "the file is not an ONNX model: got text"),
        (lambda: network().SerializeToString()[:-40], "cut short"),
        (unknown_operator, "Frobnicate"),
    ],
    ids=["no model", "truncated", "unknown operator"],
)
def test_a_bad_model_is_refused_with_exit_code_2(tmp_path: Path, content: Callable[[], bytes], said: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content())
    done = cli("build", "m.onnx", "-o", "m.engine", *QUICK_FLAGS)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m.engine").exists()


def test_dims_without_a_size_are_refused_with_what_to_say(tmp_path: Path) -> None:
    made = model([helper.make_node("Relu", ["x"], ["y"])], [value("x", ["N", "T"])], [value("y", ["N", "T"])])
    done = cli("build", save(made, tmp_path / "m.onnx"), *QUICK_FLAGS)
    assert done.returncode == 2
    assert "error: input 'x' has dynamic dims without a size: got x FP32[N,T], expected a size for T" in done.stderr
    assert "Hint: give --opt-shapes x:1xN (and --min-shapes, --max-shapes for a range), or --data" in done.stderr


def test_a_model_that_never_answers_the_same_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
    made = model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])])
    with pytest.raises(UsageError, match="unstable or non-deterministic"):
        tailorbird.build(save(made, tmp_path / "m.onnx"), **QUICK)


# --- candidates that fail ------------------------------------------------------------------------


def test_what_crashes_gluts_or_raises_loses_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    misbehaving(monkeypatch, tmp_path)
    save(network(2), tmp_path / "m.onnx")
    flags = [word for name in ("segv", "glutton", "raiser") for word in ("--backend", name)]
    done = cli("build", "m.onnx", "-o", "m.engine", *QUICK_FLAGS, *flags, "--memory-limit", "1500", "--json")
    assert done.returncode == 0, done.stderr
    rows = table(done)
    assert {name: row["status"] for name, row in rows.items()} == {
        "onnxruntime": "chosen",
        "segv": "crashed",
        "glutton": "out of memory",
        "raiser": "failed",
    }
    assert rows["segv"]["reason"] == "step 'compile_engine' crashed: got SIGSEGV; it said: about to fall"
    assert rows["glutton"]["reason"].startswith("step 'compile_engine' used too much memory and was stopped: got ")
    assert "at most 1500 MiB" in rows["glutton"]["reason"]
    assert rows["raiser"]["reason"] == "raiser could not compile the model: got 'no such kernel'"
    with tailorbird.open(tmp_path / "m.engine") as engine:
        assert engine.run({"x": np.ones((2, 16), np.float32)})["y"].shape == (2, 4)


def test_what_hangs_is_stopped_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    misbehaving(monkeypatch, tmp_path)
    save(network(2), tmp_path / "m.onnx")
    done = cli("build", "m.onnx", *QUICK_FLAGS, "--backend", "hang", "--time-limit", "8", "--json")
    assert done.returncode == 0, done.stderr
    row = table(done)["hang"]
    assert (row["status"], row["reason"].partition("\n")[0]) == (
        "timed out",
        "step 'compile_engine' took too long and was stopped: expected at most 8 s",
    )


def test_what_dies_in_the_last_rounds_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    misbehaving(monkeypatch, tmp_path)
    save(network(2), tmp_path / "m.onnx")
    done = cli("build", "m.onnx", "-o", "m.engine", "--threads", "1", "--backend", "late", "--json")
    assert done.returncode == 1, done.stderr
    row = table(done)["late"]
    assert row["status"] == "crashed"
    assert row["reason"].startswith("step 'sample_engine' crashed: got SIGABRT")
    assert not (tmp_path / "m.engine").exists()


def test_when_all_fail_nothing_is_written_and_the_nearest_miss_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misbehaving(monkeypatch, tmp_path)
    save(network(2), tmp_path / "m.onnx")
    words = (
        "build",
        "m.onnx",
        "-o",
        "m.engine",
        "--repo",
        "repo",
        "--threads",
        "1",
        "--backend",
        "wrong",
        "--backend",
        "segv",
    )
    done = cli(*words)
    assert done.returncode == 1
    assert "error: no candidate passed the gate: got wrong fp32 static t1: snr_db 6.021 misses 20" in done.stderr
    assert "crashed" in done.stderr
    assert "gate failed" in done.stderr
    assert not (tmp_path / "m.engine").exists()
    assert not (tmp_path / "repo").exists()


# --- interruptions -------------------------------------------------------------------------------


def started(tmp_path: Path) -> subprocess.Popen[str]:
    save(network(), tmp_path / "m.onnx")
    words = command("build", "m.onnx", "-o", "m.engine", *QUICK_FLAGS)
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_ends_it_in_order(tmp_path: Path) -> None:
    child = started(tmp_path)
    assert child.stderr
    while "candidates" not in (line := child.stderr.readline()):
        assert line, "it ended before there were candidates"
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=20)
    assert child.returncode == 130
    assert said.rstrip().endswith("interrupted; nothing was published")
    assert "Traceback" not in said
    assert not (tmp_path / "m.engine").exists()


def killed_after(seconds: float, tmp_path: Path) -> None:
    """Kill a build without warning; its children must follow, and its output must be whole or absent."""
    child = started(tmp_path)
    time.sleep(seconds)
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 5
    while marked() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not marked()
    if (tmp_path / "m.engine").exists():
        with tailorbird.open(tmp_path / "m.engine") as engine:
            assert engine.run({"x": np.ones((1, 16), np.float32)})["y"].shape == (1, 4)
        (tmp_path / "m.engine").unlink()


def swept_by_the_next_build(tmp_path: Path) -> None:
    tailorbird.build(tmp_path / "m.onnx", output=tmp_path / "m.engine", **QUICK)


@pytest.mark.heavy
def test_a_killed_build_leaves_nothing_that_the_next_does_not_sweep(tmp_path: Path) -> None:
    for seconds in np.random.default_rng(0).uniform(0.2, 3.5, 8):
        killed_after(float(seconds), tmp_path)
    swept_by_the_next_build(tmp_path)


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_a_build_killed_a_hundred_times(tmp_path: Path) -> None:
    for seconds in np.random.default_rng(1).uniform(0.1, 6, 100):
        killed_after(float(seconds), tmp_path)
    swept_by_the_next_build(tmp_path)


# --- full disks ----------------------------------------------------------------------------------


def assert_told_of_the_disk(done: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert not list(tmp_path.glob("*.engine"))
    assert not list(tmp_path.glob(".*.tmp"))


def large(tmp_path: Path) -> None:
    """A model of 8 MiB, so that a small disk is full of it."""
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", [1, 1024])], [value("y", [1, 2048])],
                 [weight("w", 1024, 2048)])  # fmt: skip
    save(made, tmp_path / "m.onnx")


@pytest.mark.parametrize("mebibytes", [1, pytest.param(12, marks=pytest.mark.heavy)])
def test_a_full_disk_while_building(tmp_path: Path, scratch: Path, mebibytes: int) -> None:
    large(tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", disk]
    mounted = subprocess.run(words, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("may not mount a small disk here")
    try:
        done = cli("build", "m.onnx", "-o", "m.engine", *QUICK_FLAGS, env=os.environ | {"TMPDIR": str(disk)})
        assert_told_of_the_disk(done, tmp_path)
        assert "No space left on device" in done.stderr
        assert not left_in(disk)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    large(tmp_path)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = cli("build", "m.onnx", "-o", "m.engine", *QUICK_FLAGS, preexec_fn=limit)
    assert_told_of_the_disk(done, tmp_path)
    assert "File too large" in done.stderr
