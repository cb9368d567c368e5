"""Builds that quantise: real methods, a guilty layer given back, quantisers that fail, budgets that decide."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tailorbird
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.quantise.methods import methods
from tailorbird.domain.errors import NoEngineError, UsageError
from tailorbird.domain.outcome import Outcome, Status
from tests.integration import plugins
from tests.unit.builder.graphs import model, save, value

pytest.importorskip("onnxruntime")

WIDTH, LAYERS, GUILTY = 32, 6, 3
ONE_THREAD: dict[str, Any] = {"threads": [1]}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    installed = str(plugins.install(tmp_path / "plugins"))
    monkeypatch.setenv("PYTHONPATH", installed)
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setenv("TAILORBIRD_CACHE", str(tmp_path / "cache"))
    methods.cache_clear()


def layered(guilty: bool) -> onnx.ModelProto:
    """Linear layers with a bounded activation between them; the guilty one's input has a channel of huge values.

    The next weights all but ignore that channel, so that it means nothing in float and, quantised with one range for
    all channels, leaves nothing of the others.
    """
    random, nodes, weights, at = np.random.default_rng(3), [], [], "x"
    for layer in range(LAYERS):
        matrix = random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / np.float32(WIDTH**0.5)
        scale = np.ones(WIDTH, np.float32)
        if guilty and layer == GUILTY:
            scale[0], matrix[0] = 3e4, matrix[0] * 1e-6
        weights += [numpy_helper.from_array(scale, f"s{layer}"), numpy_helper.from_array(matrix, f"w{layer}")]
        nodes += [
            helper.make_node("Mul", [at, f"s{layer}"], [f"m{layer}"], name=f"scale{layer}"),
            helper.make_node("MatMul", [f"m{layer}", f"w{layer}"], [f"a{layer}"], name=f"layer{layer}"),
            helper.make_node("Tanh", [f"a{layer}"], [f"t{layer}"], name=f"tanh{layer}"),
        ]
        at = f"t{layer}"
    nodes.append(helper.make_node("Identity", [at], ["y"], name="out"))
    return model(nodes, [value("x", ["N", WIDTH])], [value("y", ["N", WIDTH])], weights)


def samples(folder: Path, count: int = 16) -> str:
    folder.mkdir()
    random = np.random.default_rng(7)
    for number in range(count):
        save_set(folder / f"{number:02}.npz", {"x": random.standard_normal((1, WIDTH)).astype(np.float32)})
    return str(folder)


def built(tmp_path: Path, guilty: bool = False, **settings: Any) -> tailorbird.Result:
    file = save(layered(guilty), tmp_path / "net.onnx")
    return tailorbird.build(file, data=samples(tmp_path / "data"), **ONE_THREAD | settings)


def rows(outcomes: tuple[Outcome, ...]) -> dict[str, Outcome]:
    return {outcome.candidate.name: outcome for outcome in outcomes}


def test_int8_that_holds_the_budget_is_gated_and_measured(tmp_path: Path) -> None:
    found = rows(built(tmp_path, backends=["onnxruntime"], precisions=["int8"]).table)
    static = found["onnxruntime int8 static t1 qdq"]
    assert static.status in (Status.CHOSEN, Status.SLOWER), static.reason
    assert static.gate
    assert static.gate.passed
    assert static.executed["int8"] >= LAYERS
    assert 20 < (static.gate.worst("snr_db") or 0) < 60  # quantised for real, and still right


def test_a_guilty_layer_is_found_and_given_back(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    result = built(tmp_path, guilty=True, backends=["static"], precisions=["int8"], observers=[events.append])
    found = rows(result.table)
    plain = found["static int8 static t1 qdq"]
    assert plain.status is Status.REFUSED
    assert "snr_db" in plain.reason
    (sensitivity,) = [event for event in events if event["event"] == "sensitivity"]
    guiltiest, second, *_ = sensitivity["groups"]
    assert guiltiest["first"] == f"layer{GUILTY}"
    assert guiltiest["noise"]["y"] > 10 * second["noise"]["y"]
    quantisation = result.winner.candidate.quantisation
    assert quantisation
    assert quantisation.kept == (f"layer{GUILTY}",)
    assert result.winner.candidate.name == "static int8 static t1 qdq kept1"
    assert result.winner.executed["int8"] >= LAYERS - 1


@pytest.mark.heavy
def test_what_was_found_out_is_kept_for_the_next_build(tmp_path: Path) -> None:
    built(tmp_path, guilty=True, backends=["static"], precisions=["int8"])
    events: list[dict[str, Any]] = []
    again = {
        "backends": ["static"],
        "precisions": ["int8"],
        "data": str(tmp_path / "data"),
        "time_budget": 299.0,  # another build, or it would be found whole
        "observers": [events.append],
    }
    tailorbird.build(tmp_path / "net.onnx", **ONE_THREAD | again)
    assert [event["cached"] for event in events if event["event"] == "quantised"] == [True]
    tries = [event["at"] for event in events if event["event"] in ("tried", "sensitivity")]
    assert tries[1] - tries[0] < 5  # twelve processes were not started for what is known


@pytest.mark.heavy
def test_after_ctrl_c_the_next_build_goes_on_from_there(tmp_path: Path) -> None:
    """Interrupted when the third group's error is about to be measured; the two before are not measured again."""
    file, data = save(layered(guilty=True), tmp_path / "net.onnx"), samples(tmp_path / "data")
    settings: dict[str, Any] = {"backends": ["static"], "precisions": ["int8"], "data": data} | ONE_THREAD

    def interrupting(event: dict[str, Any]) -> None:
        if event["event"] == "probing" and event["number"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tailorbird.build(file, observers=[interrupting], **settings)
    known = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("found.json")}
    assert len(known) == 2
    result = tailorbird.build(file, **settings)
    assert result.winner.candidate.quantisation
    assert result.winner.candidate.quantisation.kept == (f"layer{GUILTY}",)
    assert {path: path.stat().st_mtime_ns for path in known} == known
    assert len(list((tmp_path / "cache").rglob("found.json"))) == LAYERS


def test_without_data_nothing_is_calibrated_and_the_log_says_so(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    file = save(layered(guilty=False), tmp_path / "net.onnx")
    result = tailorbird.build(file, backends=["onnxruntime"], observers=[events.append], **ONE_THREAD)
    assert not any("qdq" in outcome.candidate.name for outcome in result.table)
    assert any("dynamic" in outcome.candidate.name for outcome in result.table)
    (said,) = [event["left_out"] for event in events if event["event"] == "candidates"]
    assert said[0].startswith("qdq: there is no data to calibrate on")


def test_quantisers_that_fail_are_rows_with_reasons(tmp_path: Path) -> None:
    save(layered(guilty=False), tmp_path / "net.onnx")
    words = ("net.onnx", "--threads", "1", "--backend", "unlucky", "--time-limit", "15", "--json", "-o", "net.engine")
    done = subprocess.run([sys.executable, "-m", "tailorbird", "build", *words], capture_output=True, text=True,
                          timeout=110, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {row["candidate"]["quantisation"]["method"]: row for row in json.loads(done.stdout)["table"]
             if row["candidate"]["quantisation"]}  # fmt: skip
    status = {name: row["status"] for name, row in found.items()}
    assert status.pop("nan") in {"gate failed", "stopped early"}  # a slow machine sees first that it cannot win
    assert status == {"raises": "failed", "hangs": "timed out", "falls": "crashed"}
    assert found["raises"]["reason"] == "the step failed: got RuntimeError: no such operator"
    assert found["hangs"]["reason"].startswith("step 'hangs' took too long and was stopped: expected at most 15 s")
    assert found["falls"]["reason"].startswith("step 'falls' crashed: got SIGSEGV")
    assert (tmp_path / "net.engine").exists()


def test_a_budget_that_nothing_meets_publishes_nothing_and_names_the_nearest_miss(tmp_path: Path) -> None:
    with pytest.raises(NoEngineError) as caught:
        built(tmp_path, backends=["static"], precisions=["int8"], budget="snr >= 90", repository=tmp_path / "repo")
    assert "no candidate passed the gate: got static int8 static t1" in str(caught.value)
    assert "snr_db" in str(caught.value)
    assert caught.value.outcomes
    assert not (tmp_path / "repo").exists()


def test_a_budget_that_cannot_be_read_costs_no_time(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the budget: got most of it, expected "):
        built(tmp_path, budget="most of it")


def test_when_time_is_up_no_further_candidate_is_begun(tmp_path: Path) -> None:
    """What people run without us is always tried, so that there is an engine at the end."""
    file = save(layered(guilty=False), tmp_path / "net.onnx")
    result = tailorbird.build(file, backends=["onnxruntime"], time_budget=0.001, **ONE_THREAD)
    assert result.winner.candidate.name == result.manifest.baseline
    others = [outcome for outcome in result.table if outcome is not result.winner]
    assert {outcome.status for outcome in others} == {Status.NOT_TRIED}
    assert {outcome.reason for outcome in others} == {"the time budget of 0.001 s was used up"}


@pytest.mark.heavy
def test_throughput_counts_rows_and_keeps_to_the_slo(tmp_path: Path) -> None:
    file = save(layered(guilty=False), tmp_path / "net.onnx")
    shapes = {"min_shapes": f"x:1x{WIDTH}", "opt_shapes": f"x:1x{WIDTH}", "max_shapes": f"x:8x{WIDTH}"}
    settings: dict[str, Any] = {"backends": ["onnxruntime"], "precisions": ["fp32"], "objective": "throughput"}
    result = tailorbird.build(file, **settings, **shapes)
    table = {(row.rows, row.instances): row.latency for row in result.winner.latency}
    assert {rows for rows, _ in table} == {1, 2, 4, 8}
    widths = {(o.candidate.threads, o.candidate.instances) for o in result.table}
    assert all(threads * instances <= max(t for t, _ in widths) for threads, instances in widths)
    with pytest.raises(NoEngineError, match="no batch keeps its 99th percentile within 1e-06 ms"):
        tailorbird.build(file, **settings, **shapes, slo_ms=1e-6)


# --- labels --------------------------------------------------------------------------------------

METRIC = """
def agreement(outputs, labels):
    return float((outputs["y"].argmax(1) == labels).mean())

def broken(outputs, labels):
    raise LookupError("no such class")

def words(outputs, labels):
    return "good"
"""


def labelled(tmp_path: Path) -> str:
    """The first output channels as classes: FP32 is right on all of them but every tenth."""
    import onnxruntime

    net, random = layered(guilty=False), np.random.default_rng(5)
    x = random.standard_normal((120, WIDTH)).astype(np.float32)
    labels = onnxruntime.InferenceSession(net.SerializeToString()).run(None, {"x": x})[0].argmax(1)
    labels[::10] = (labels[::10] + 1) % WIDTH
    file = tmp_path / "labelled.npz"
    save_set(file, {"x": x, "labels": labels})
    (tmp_path / "mymetrics.py").write_text(METRIC)
    return str(file)


def test_labels_decide_and_the_score_is_told_beside_the_source_s(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"backends": ["onnxruntime"], "precisions": ["fp32"], "budget": "99%"}
    file, data = save(layered(guilty=False), tmp_path / "net.onnx"), labelled(tmp_path)
    result = tailorbird.build(file, data=data, opt_shapes=f"x:1x{WIDTH}", **settings, **ONE_THREAD)
    gate = result.manifest.gate
    (check,) = [check for check in gate.checks if check.rule == "metric top1"]
    assert check.reference == pytest.approx(90, abs=6)
    assert check.measured == check.reference
    assert check.limit == pytest.approx(0.99 * check.reference)
    fidelity = [check for check in gate.checks if check.rule == "snr_db"]
    assert {check.limit for check in fidelity} == {"not judged"}


def test_a_metric_of_the_user_s_own_is_found_where_they_are(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"backends": ["onnxruntime"], "precisions": ["fp32"], "metric": "mymetrics:agreement"}
    file, data = save(layered(guilty=False), tmp_path / "net.onnx"), labelled(tmp_path)
    result = tailorbird.build(file, data=data, opt_shapes=f"x:1x{WIDTH}", **settings, **ONE_THREAD)
    assert result.manifest.gate.worst("metric mymetrics:agreement") == pytest.approx(0.9, abs=0.06)


def test_labels_that_the_source_never_meets_end_the_build_before_anything_long(tmp_path: Path) -> None:
    file, data = save(layered(guilty=False), tmp_path / "net.onnx"), tmp_path / "wrong.npz"
    x = np.random.default_rng(5).standard_normal((40, WIDTH)).astype(np.float32)
    save_set(data, {"x": x, "labels": np.full(40, WIDTH + 7)})
    events: list[dict[str, Any]] = []
    with pytest.raises(UsageError) as caught:
        tailorbird.build(file, data=str(data), backends=["onnxruntime"], opt_shapes=f"x:1x{WIDTH}",
                         observers=[events.append], **ONE_THREAD)  # fmt: skip
    assert "label" in str(caught.value)
    assert not [event for event in events if event["event"] == "tried"]


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("mymetrics:broken", "LookupError: no such class"),
        ("mymetrics:words", "got 'good'"),
        ("mymetrics:absent", "mymetrics:absent"),
        ("topp1", "did you mean 'top1'"),
    ],
)
def test_a_metric_that_fails_ends_the_build_before_anything_long(tmp_path: Path, metric: str, said: str) -> None:
    file, data = save(layered(guilty=False), tmp_path / "net.onnx"), labelled(tmp_path)
    events: list[dict[str, Any]] = []
    with pytest.raises(UsageError) as caught:
        tailorbird.build(
            file, data=data, metric=metric, backends=["onnxruntime"], observers=[events.append], **ONE_THREAD
        )
    assert said in str(caught.value)
    assert not [event for event in events if event["event"] == "tried"]
