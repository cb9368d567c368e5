"""Tables of the report."""

from html.parser import HTMLParser

from tailorbird.builder.figures import tables
from tailorbird.domain.objective import Goal, Objective
from tailorbird.domain.outcome import Status
from tests.unit.builder.figures import builds


class Cells(HTMLParser):
    """Rows of texts; cells need not be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_candidates_have_a_row_each_and_those_not_tried_are_folded() -> None:
    tried, _, folded = tables.candidates_table(builds.outcomes()).partition("<details>")
    assert Cells(tried).rows[0] == ["candidate", "verdict", "median ms", "spread", "latency", "SNR dB", "why"]
    assert [row[0] for row in Cells(tried).rows[1:]] == [
        one.candidate.name for one in builds.outcomes() if one.status is not Status.NOT_TRIED
    ]
    assert "7 candidates were not tried" in folded
    assert len(Cells(folded).rows) == 8


def test_scores_have_a_column_where_labels_decided() -> None:
    rows = Cells(tables.candidates_table(builds.outcomes(labelled=True))).rows
    assert rows[1][rows[0].index("top1")] == "77.73 of 78.12"


def test_rows_a_second_have_a_column_where_they_decided() -> None:
    rows = Cells(tables.candidates_table(builds.outcomes(), Goal(Objective.THROUGHPUT))).rows
    assert rows[1][rows[0].index("rows/s")] == "302"
    assert rows[1][rows[0].index("ms (rows)")] == "3.31 (1)"


def test_instances_are_shown_where_there_are_several() -> None:
    alone, several = builds.row(4.0), builds.row(5.0, instances=2)
    assert Cells(tables.latency_table([alone])).rows[0] == [
        "place",
        "shapes",
        "rows",
        "min",
        "median",
        "p90",
        "p99",
        "runs",
    ]
    rows = Cells(tables.latency_table([alone, several])).rows
    assert rows[0] == ["place", "shapes", "rows", "instances", "min", "median", "p90", "p99", "runs", "rows/s"]
    assert [(row[3], row[-1]) for row in rows[1:]] == [("1", "250"), ("2", "400")]


def test_the_gate_shows_the_tightest_check_of_each_rule_metrics_first() -> None:
    summary, _, whole = tables.gate_table(builds.gate(21.4, 77.734), {"int8": 52}).partition("<details>")
    rows = Cells(summary).rows
    assert rows[0] == ["rule", "checks", "tightest", "measured", "FP32", "limit", "verdict"]
    assert rows[1] == ["metric top1", "1", "opt 1x3x224x224, 256 rows", "77.73", "78.12", "77.34", "held"]
    snr = next(row for row in rows if row[0] == "snr_db")
    assert snr == ["snr_db", "4", "opt 1x3x224x224, logits", "21.4", "", "not judged", "noted"]
    assert len(Cells(whole).rows) == 11


def test_a_broken_check_is_shown_before_any_that_held() -> None:
    rows = Cells(tables.gate_table(builds.gate(19.0), {})).rows
    assert next(row for row in rows if row[0] == "snr_db")[-1] == "broken"
    assert "FP32" not in rows[0]
