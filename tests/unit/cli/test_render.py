"""Tables on a terminal, and without one."""

import io
from collections.abc import Sequence

import msgspec
from rich.console import Console

from tailorbird.backends.base import Availability
from tailorbird.cli import render
from tailorbird.domain.budget import GateReport
from tailorbird.domain.objective import Goal, Objective
from tailorbird.domain.outcome import Outcome, Status
from tests.unit.builder.figures import builds


def lines(table: object, width: int = render.PLAIN_WIDTH) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def shown(outcomes: Sequence[Outcome], goal: Goal | None = None) -> list[str]:
    return lines(render.outcomes_table(outcomes, goal))


def test_each_candidate_has_one_line_with_its_whole_name() -> None:
    for labelled in (False, True):
        outcomes = [one for one in builds.outcomes(labelled) if one.status not in (Status.CRASHED, Status.NOT_TRIED)]
        found = shown(outcomes)
        assert len(found) == len(outcomes) + 1
        for line, outcome in zip(found[1:], outcomes, strict=True):
            assert line.startswith(f"{outcome.candidate.name}  ")
            assert len(line) <= render.PLAIN_WIDTH


def test_an_errors_words_are_shown_whole_and_are_no_markup() -> None:
    crashed = Outcome(builds.candidate("openvino", "int8"), Status.CRASHED, f"{'many words ' * 30}[red]at the end")
    text = " ".join(" ".join(shown([crashed])).split())
    assert text.endswith("[red]at the end")


def test_scores_have_a_column_where_labels_decided() -> None:
    assert "top1" not in shown(builds.outcomes())[0]
    found = shown(builds.outcomes(labelled=True))
    assert "top1" in found[0]
    assert "77.73 of 78.12" in found[1]


def test_rows_a_second_have_a_column_where_they_say_something() -> None:
    outcomes = builds.outcomes()[:2]
    assert "rows/s" not in shown(outcomes)[0]
    assert "rows/s" in shown(outcomes, Goal(Objective.THROUGHPUT))[0]
    batch = msgspec.structs.replace(outcomes[0], latency=(builds.row(4.0), builds.row(8.0, "max", 16)))
    found = shown([batch, outcomes[1]])
    assert "rows/s" in found[0]
    assert "2,000" in found[1]


def test_many_that_were_not_tried_are_one_line_with_reasons() -> None:
    found = " ".join(" ".join(shown(builds.outcomes())).split())
    assert "7 candidates not tried" in found
    assert "on 2 threads it was gate failed (5); with bf16 for the rest it passed (2)" in found


def test_few_that_were_not_tried_have_a_line_each() -> None:
    idle = [one for one in builds.outcomes() if one.status is Status.NOT_TRIED][:6]
    found = shown(idle)
    assert len(found) == 7
    assert found[1].startswith(idle[0].candidate.name)


def test_below_the_table_stand_the_gain_and_the_instances() -> None:
    manifest = builds.manifest()
    throughput = msgspec.structs.replace(manifest, goal=Goal(Objective.THROUGHPUT))
    assert list(render.result_lines(manifest)) == [
        "2.93x the speed of onnxruntime fp32 static t2, ONNX Runtime's default",
        "513 rows/s with 2 instances side by side, at opt",
    ]
    assert next(iter(render.result_lines(throughput))).startswith("2.93x the rows a second")
    usual = msgspec.structs.replace(manifest, baseline=builds.WINNER)
    assert next(iter(render.result_lines(usual))).startswith(f"nothing is faster here than {builds.WINNER}, ")


def test_the_latency_table_shows_instances_where_there_are_several() -> None:
    manifest = builds.manifest()
    found = lines(render.latency_table(manifest))
    assert found[0].split() == ["place", "shapes", "rows", "instances", "min", "median", "p90", "p99", "rows/s", "runs"]
    assert found[2].split()[-2] == "513"
    alone = msgspec.structs.replace(manifest, latency=manifest.latency[:1])
    assert lines(render.latency_table(alone))[0].split() == [
        "place",
        "shapes",
        "rows",
        "min",
        "median",
        "p90",
        "p99",
        "runs",
    ]


def test_a_version_says_what_it_keeps_in_float() -> None:
    assert any(line.startswith("in float   /layer0/conv/Conv, ") and line.endswith(" and 3 more")
               for line in render.manifest_lines(builds.manifest()))  # fmt: skip


def test_what_has_not_run_says_where_it_is_to_run() -> None:
    unrun = msgspec.structs.replace(builds.manifest(), gate=GateReport(()), latency=())
    assert list(render.result_lines(unrun)) == [
        f"not qualified: on a machine with {unrun.candidate.target} run: tailorbird qualify BUNDLE"
    ]


def test_what_ran_elsewhere_says_where_it_was_built() -> None:
    made = builds.manifest()
    facts = msgspec.structs.replace(
        made.provenance, built_on={"cpu": "CI's"}, qualified="2026-02-02", device={"cpu": "Mine"}
    )
    lines = list(render.manifest_lines(msgspec.structs.replace(made, provenance=facts)))
    assert f"built      {facts.created} on CI's" in lines
    assert "qualified  2026-02-02 on Mine" in lines


def test_what_to_install_keeps_its_brackets() -> None:
    missing = Availability(available=False, reason="no [driver] here", install="pip install 'tailorbird[tensorrt]'")
    out = io.StringIO()
    Console(file=out, width=160).print(render.doctor_table({"tensorrt": missing}))
    assert "pip install 'tailorbird[tensorrt]'" in out.getvalue()
    assert "no [driver] here" in out.getvalue()
