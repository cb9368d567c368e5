"""Flags of build: what they become, and what wrong ones are told."""

from pathlib import Path

import pytest

from tailorbird.api.ways import Order
from tailorbird.cli import main
from tailorbird.cli.flags import Accuracy, Search, Serving, settings_of
from tailorbird.domain.budget import SPELLINGS
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import UsageError
from tailorbird.domain.objective import Objective
from tailorbird.domain.quantisation import Ranges

TOML = """
[build]
budget = "98%"
objective = "throughput"
slo_ms = 20.0
ranges = ["entropy"]
time_budget = 10.0
labels = "classes"
limits = { seconds = 30.0 }
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "tailorbird.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def test_without_flags_and_file_the_defaults_stand(tmp_path: Path) -> None:
    assert settings_of(tmp_path / "none.toml", Serving(), Accuracy(), Search()) == BuildConfig()


def test_the_file_is_heard(toml: Path) -> None:
    found = settings_of(toml, Serving(), Accuracy(), Search())
    assert (found.budget.share, found.objective, found.slo_ms) == (0.98, Objective.THROUGHPUT, 20.0)
    assert (found.ranges, found.time_budget, found.labels) == ((Ranges.ENTROPY,), 10.0, "classes")


def test_flags_win_over_the_file(toml: Path) -> None:
    found = settings_of(
        toml,
        Serving(slo_ms=5.0, opt_shapes="x:1x3"),
        Accuracy(budget="top5 drop <= 0.5", metric="top5", labels="y", calibration="minmax,percentile,minmax"),
        Search(time_budget=0.0, cache="kept", threads="1,2", backend=["openvino"], precision=["int8"], memory_limit=64),
    )
    assert (found.budget.drop, found.budget.metric, found.metric, found.labels) == (0.5, "top5", "top5", "y")
    assert found.ranges == (Ranges.MINMAX, Ranges.PERCENTILE)
    assert (found.objective, found.slo_ms, found.opt_shapes) == (Objective.THROUGHPUT, 5.0, "x:1x3")
    assert (found.time_budget, found.cache, found.threads) == (0.0, "kept", (1, 2))
    assert (found.backends, found.precisions) == (("openvino",), ("int8",))
    assert (found.limits.seconds, found.limits.memory_bytes) == (30.0, 64 * 2**20)


WRONG = {
    "calibration": (["--calibration", "minmax,percentle"],
                    "unknown calibration 'percentle': expected minmax, percentile, entropy\n"
                    "Hint: did you mean 'percentile'?"),
    "no calibration": (["--calibration", ""], "unknown calibration '': expected minmax, percentile, entropy"),
    "objective": (["--objective", "thruput"],
                  "unknown objective 'thruput': expected latency, throughput\nHint: did you mean 'throughput'?"),
    "metric": (["--metric", "tpo1"], "unknown metric 'tpo1'"),
    "two metrics": (["--metric", "top1", "--budget", "top5 drop <= 1"], "the budget is for another metric"),
    "budget": (["--budget", "good"], f"cannot read the budget: got good, expected {SPELLINGS}"),
    "slo": (["--slo-ms", "-1"], "the SLO is no time: got -1 ms, expected more than 0"),
    "slo without throughput": (["--slo-ms", "5"], "an SLO bounds the throughput objective only"),
    "time budget": (["--time-budget", "-3"], "the time budget is no time: got -3 s, expected 0 or more"),
    "not a number": (["--time-budget", "soon"], "Invalid value"),
    "threads": (["--threads", "two"], "cannot read --threads: got two, expected whole numbers, as 1,2,4"),
    "flag": (["--calibraton", "minmax"], "Did you mean --calibration?"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_flags_exit_with_2_before_any_work(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words, message = WRONG[case]
    assert main.run(["build", "no-such-model.onnx", *words]) == 2
    assert message in capsys.readouterr().err


def test_flags_that_say_what_holds_without_are_said_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build kit's own settings stand where nothing is said."""
    orders: list[Order] = []

    def ordered(order: Order, *_: object) -> None:
        orders.append(order)
        raise UsageError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tailorbird.api.building.ordered", ordered)
    assert main.run(["build", "net.onnx", "--time-budget", "300", "--time-limit", "600", "--threads", "2"]) == 2
    assert orders[0].given == {"time_budget", "limits", "limits.seconds", "threads"}
    assert orders[0].config == BuildConfig(threads=(2,))


def test_a_metric_of_the_file_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "tailorbird.toml"
    path.write_text('[build]\nmetric = "acuracy"\n', encoding="utf-8")
    with pytest.raises(UsageError, match="did you mean 'accuracy'"):
        settings_of(path, Serving(), Accuracy(), Search())


def test_the_help_gives_every_flag_and_the_budgets_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["build", "--help"]) == 0
    said = "".join(capsys.readouterr().out.replace("│", " ").split())
    assert "".join(SPELLINGS.split()) in said
    for flag in ("budget", "metric", "labels", "calibration", "objective", "slo-ms", "time-budget", "cache", "data",
                 "min-shapes", "threads", "backend", "precision", "time-limit", "memory-limit", "seed"):  # fmt: skip
        assert f"--{flag}" in said
    assert "--no-" not in said.replace("--no-qualify", "")
