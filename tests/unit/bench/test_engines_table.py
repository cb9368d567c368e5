"""What is printed of the figures."""

import io
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from bench.figures import Peer
from bench.table import machines, rightness, show, speeds, times
from tests.unit.bench.test_engines_figures import EIGHT, row


def printed(what: Callable[[Console], object]) -> str:
    out = Console(file=io.StringIO(), width=200)
    what(out)
    return out.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def lines(table: Table) -> list[str]:
    return printed(lambda out: out.print(table)).splitlines()


def test_a_peer_that_fails_is_shown_with_its_speed_and_does_not_count() -> None:
    peers = row().peers | {"nncf": Peer(ratio=0.8, spread=0.05, passes=False)}
    head, line, mean = lines(speeds([row(peers=peers)], EIGHT))
    assert "x NNCF" in head
    assert "x acc. control" not in head
    assert "0.80 ±0.05 fails" in line
    assert "2.00 openvino" in line
    assert mean.split()[-1] == "2.00"


def test_means_leave_larger_batches_out() -> None:
    table = speeds([row("bert-base"), row("bert-base@8", peers={"onnxruntime": Peer(ratio=30.0, passes=True)})], EIGHT)
    assert lines(table)[-1].split()[2] == "3.00"


def test_one_that_did_not_run_has_no_ratio_and_a_reason() -> None:
    peers = row().peers | {"accuracy-control": Peer(verdict="took [too] long", made_seconds=180.0)}
    assert "none" in lines(speeds([row(peers=peers)], EIGHT))[1]
    told = lines(rightness([row(peers=peers)]))
    assert [line.split()[-5:] for line in told if "accuracy-control" in line] == [
        ["not", "judged:", "took", "[too]", "long"]
    ]


def test_fp32_peers_that_pass_take_no_line() -> None:
    told = "\n".join(lines(rightness([row()])))
    assert "ours" in told
    assert "nncf" in told
    assert "torch" not in told


def test_the_time_of_a_build_by_phase() -> None:
    head, line = lines(times([row(phases={"reading": 1.5, "finals": 98.5}, tried=7)]))
    assert head.split()[-1] == "whole"
    assert line.split() == ["resnet50", "7", "1.5", "0.0", "0.0", "0.0", "0.0", "98.5", "0.0", "100.0"]


def test_rows_of_two_machines_are_told_apart() -> None:
    assert len(list(machines([row(), row("magika")]))) == 1
    told = list(machines([row(), row("magika", device={"cpu": "two", "isa": "avx2"})]))
    assert told[0] == "one, ?, 2 threads, 11 rounds in turn, 2026-11-22: resnet50"
    assert told[2] == "Rows come from more than one machine: means over them mean little."


def test_all_of_it_comes_out_even_of_nothing() -> None:
    assert "not measured" in printed(lambda out: show([], EIGHT, out))
    assert "held" in printed(lambda out: show([row()], EIGHT, out))
