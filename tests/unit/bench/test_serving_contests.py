"""Contests of the serving benchmark, small and without rivals: the real server on a real engine."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bench import serving
from bench.servers import ours, venvs
from bench.servers.engines import DOUBLE, Served, unpacked
from bench.serving_parts import batching, load, resnet, results, tiny
from bench.serving_parts.offline import alone
from bench.serving_parts.plan import Plan
from tailorbird import api
from tailorbird.domain.latency import Latency, LatencyRow
from tests import bundles

KEPT = venvs.root()
"""Where environments are kept from one run to the next."""
PLAN = Plan(rounds=2, scale=0.15)


def engine(root: Path, name: str, **changes: Any) -> Served:
    """A model of the benchmark whose engine is a small one, built beforehand."""
    served = Served(name, lambda folder: folder, ({"x": (1, 16)}, {"x": (1, 16)}, {"x": (8, 16)}), DOUBLE.sample)
    served.bundle.parent.mkdir(parents=True, exist_ok=True)
    bundles.engine_file(bundles.version(root / "versions" / name, model=name, **changes), served.bundle)
    return served


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAILORBIRD_BENCH", str(tmp_path / "bench"))
    return tmp_path


@pytest.mark.heavy
def test_the_tiny_contest_runs_and_is_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine(root, DOUBLE.name)
    output = root / "serving.json"
    arguments = ["--quick", "--contest", "tiny", "--rivals", "", "--output", str(output), "--page", str(root / "p.md")]
    monkeypatch.setattr(sys, "argv", ["serving", *arguments])
    assert serving.main() == 0
    (found,) = results.load(output)
    entries = {entry.name: entry for entry in found.tables["servers"]}
    assert set(entries) == {"tailorbird thread", "tailorbird process"}
    for entry in entries.values():
        assert len(entry.figures["rate"].values) == 2
        assert all(value > 0 for figure in entry.figures.values() for value in figure.values)
        assert entry.note == ""
    assert found.goals == ()  # without Triton there is nothing to hold ours against
    assert "tailorbird thread" in capsys.readouterr().out
    assert "tailorbird process" in (root / "p.md").read_text()


def test_without_an_engine_it_says_how_to_make_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--quick", "--contest", "tiny", "--rivals", "", "--output", str(root / "none.json")]
    monkeypatch.setattr(sys, "argv", ["serving", *arguments])
    assert serving.main() == 1
    assert "make it: python -m bench.serving prepare" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "word"), [("--contest", "tinny"), ("--rivals", "torchserve")])
def test_unknown_names_are_refused(
    flag: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["serving", flag, word])
    assert serving.main() == 1
    assert f"unknown name '{word}'" in capsys.readouterr().err


def test_open_loops_count_answers_refusals_and_what_came_in_time(root: Path) -> None:
    served = engine(root, "tiny")
    row = np.linspace(-1, 1, 16, dtype=np.float32)
    body = batching._request(served, {"x": row[None]})
    timely, late = (resnet.own_requests(served, [row], timeout_ms=ms)[0] for ms in (10_000.0, 0.001))
    with ours.served(served.bundle, "thread", root) as server:
        mixed = load.opened(server, (body, timely, late), 60.0, 1.0, 0)
        several = load.rotating(server, (body, timely), 2, 0.3)
    assert mixed.failed == 0
    assert mixed.sent == len(mixed.answered) + len(mixed.refused)
    assert len(mixed.refused) == pytest.approx(mixed.sent / 3, abs=1)
    assert mixed.within(30_000.0) == pytest.approx(len(mixed.answered) / 31.0)
    assert mixed.within(0.0) == 0.0
    assert several.rate > 0
    assert several.p50_ms <= several.p99_ms


def test_a_closed_loop_that_is_refused_is_no_figure(root: Path) -> None:
    served = engine(root, "tiny")
    with ours.served(served.bundle, "thread", root) as server:
        wrong = batching._request(served, {"x": np.zeros((1, 3), np.float32)})
        with pytest.raises(RuntimeError, match="400"):
            load.rotating(server, (wrong,), 1, 0.3)
        with pytest.raises(RuntimeError, match="400"):
            load.closed(server, wrong, 1, 0.3)


def test_an_engine_alone_is_measured_in_its_own_process(root: Path) -> None:
    served = engine(root, "tiny")
    with alone(served, root / "alone") as one:
        single, double = one.run(1, 1, 0.2), one.run(4, 2, 0.2)
    assert single.rate > 0
    assert double.rate > 0
    assert single.run_ms < 200


def test_one_row_is_the_same_engine_with_nothing_to_join(root: Path) -> None:
    rows = tuple(
        LatencyRow(f"batch{count}", {"x": (count, 16)}, count, 1, Latency(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9))
        for count in (1, 8)
    )
    served = engine(root, "tiny", latency=rows)
    narrow = batching.one_row(served, root)
    inputs = {"x": np.linspace(-1, 1, 16, dtype=np.float32)[None]}
    with api.open(narrow) as without, api.open(served.bundle) as whole:
        assert without.manifest.candidate.profile.max == {"x": (1, 16)}
        assert [row.rows for row in without.manifest.latency] == [1]
        assert np.array_equal(without.run(inputs)["y"], whole.run(inputs)["y"])


def measured(costs: dict[int, float]) -> Any:
    """A manifest with medians by rows, in milliseconds."""
    rows = tuple(
        LatencyRow("opt", {"x": (count, 16)}, count, 1, Latency(ms, ms, ms, ms, ms, ms, 9))
        for count, ms in costs.items()
    )
    return bundles.manifest(latency=rows)


@pytest.mark.parametrize(
    ("costs", "rows"), [({1: 1.0, 4: 2.0, 8: 8.0}, 4), ({1: 1.0, 8: 7.8}, 1), ({8: 4.0}, 1), ({}, 1)]
)
def test_rivals_join_rows_where_the_engine_s_own_table_says_that_it_pays(costs: dict[int, float], rows: int) -> None:
    assert resnet.joined(measured(costs)) == rows


def test_rivals_get_the_engine_s_own_files_and_settings(root: Path) -> None:
    served = engine(root, "tiny")
    spec = resnet.spec_of(served)
    assert (spec.runtime, spec.threads, spec.workers, spec.row, spec.dtype) == ("onnxruntime", 1, 1, (16,), "float32")
    assert Path(spec.model).read_bytes() == (root / "versions" / "tiny" / "model.onnx").read_bytes()
    assert spec.config == {}


def test_what_is_unpacked_follows_the_engine(root: Path) -> None:
    served = engine(root, "tiny")
    first = unpacked(served)
    (first / "mark").touch()
    assert (unpacked(served) / "mark").exists()
    engine(root / "again", "tiny")
    assert not (unpacked(served) / "mark").exists()


def test_bert_s_requests_are_of_mixed_lengths_in_equal_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    case = batching.CASES[0]
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(batching, "_request", lambda _, tensors: seen.append(tensors["input_ids"].shape) or b"")
    assert len(case.requests()) == batching.MIX
    assert {shape: seen.count(shape) for shape in seen} == {
        (1, length): batching.MIX // len(case.lengths) for length in case.lengths
    }


def test_deadlines_are_in_the_requests() -> None:
    headers, body = resnet._with_timeout({"inference-header-content-length": "17"}, b'{"parameters":{}}rest', 2500)
    length = int(headers["inference-header-content-length"])
    assert msgspec.json.decode(body[:length]) == {"parameters": {"timeout": 2500}}
    assert body[length:] == b"rest"


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_a_quick_run_with_every_rival_names_them_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Needs the network for the rivals' environments, once where ``TAILORBIRD_BENCH`` is set."""
    ours_now = Path(os.environ["TAILORBIRD_BENCH"])
    monkeypatch.setenv("TAILORBIRD_BENCH", str(KEPT))
    serving.prepare((), PLAN.rivals, argparse.Namespace())
    ours_now.mkdir()
    for made in KEPT.iterdir():
        if made.name != "engines":  # those are not signed by the key of the tests
            (ours_now / made.name).symlink_to(made)
    monkeypatch.setenv("TAILORBIRD_BENCH", str(ours_now))
    engine(root, DOUBLE.name)
    found = tiny.run(replace(PLAN, folder=root / "run"))
    names = [entry.name for entry in found.tables["servers"] if entry.figures and not entry.note]
    assert names == ["tailorbird thread", "tailorbird process", *PLAN.rivals]
    assert len(found.goals) == 4
