"""The figures, printed: ratios, what the INT8 peers are worth, where the builds' time went, and the goals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.figures import Peer, Row, geometric_mean, goals, ratios
from bench.timeline import PHASES

SHOWN = {"onnxruntime": "x ORT", "openvino": "x OpenVINO", "torch": "x PyTorch", "nncf": "x NNCF",
         "accuracy-control": "x acc. control"}  # fmt: skip
QUANTISED = ("nncf", "accuracy-control")


def show(rows: Sequence[Row], eight: Sequence[str], out: Console) -> None:
    """Everything that the rows hold."""
    for table in (speeds(rows, eight), rightness(rows), times(rows)):
        out.print(table)
        out.print()
    for goal in goals(rows, eight):
        out.print(escape(str(goal)))
    out.print()
    for line in machines(rows):
        out.print(escape(line))


def speeds(rows: Sequence[Row], eight: Sequence[str]) -> Table:
    """Our time, and how many times as fast as each peer ours is; the geometric mean is over the eight."""
    kinds = [kind for kind in SHOWN if any(kind in row.peers for row in rows)]
    found = _table("model", "chosen engine")
    for title in ("ours ms", *(SHOWN[kind] for kind in kinds), "x best passing", "best candidate"):
        found.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        best = f"{row.best_passing[1]:.2f} {row.best_passing[0]}" if row.best_passing else "-"
        rival = "-" if row.best_candidate is None else f"{row.best_candidate:.2f}"
        against = [_ratio(row.peers.get(kind)) for kind in kinds]
        found.add_row(row.model, row.engine, f"{row.median_ms:.3g}", *against, best, rival)
    means = [_mean(list(ratios(rows, kind, eight).values())) for kind in kinds]
    best = _mean([row.best_passing[1] for row in rows if row.model in eight and row.best_passing])
    found.add_row("geometric mean", "", "", *means, best, "", style="bold")
    return found


def rightness(rows: Sequence[Row]) -> Table:
    """How close everyone comes to FP32 on sets that nobody calibrated on, and how long the peers' quantising took."""
    found = _table("model", "who")
    for title in ("SNR dB", "cosine", "made in s"):
        found.add_column(title, justify="right", no_wrap=True)
    found.add_column("default budget", overflow="fold")
    for row in rows:
        shown = {"ours": row.ours} | {name: peer for name, peer in row.peers.items() if _telling(name, peer)}
        for number, (name, peer) in enumerate(shown.items()):
            found.add_row("" if number else row.model, name, _number(peer.snr_db, ".1f"), _number(peer.cosine, ".5f"),
                          _number(peer.made_seconds, ".0f"), _judgement(peer))  # fmt: skip
    return found


def times(rows: Sequence[Row]) -> Table:
    """Where the time of each build went, in seconds."""
    found = _table("build, s")
    for title in ("tried", *PHASES, "whole"):
        found.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        parts = [f"{row.phases.get(phase, 0.0):.1f}" for phase in PHASES]
        found.add_row(row.model, str(row.tried), *parts, f"{row.build_seconds:.1f}")
    return found


def machines(rows: Sequence[Row]) -> Iterator[str]:
    """A line for every machine and setting that rows were measured with: figures of different ones do not compare."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        device = row.device
        setting = f"{device.get('cpu', '?')}, {device.get('isa', '?')}, {row.threads} threads"
        groups.setdefault(f"{setting}, {row.rounds} rounds in turn, {row.date[:10]}", []).append(row.model)
    for setting, models in groups.items():
        yield f"{setting}: {', '.join(models)}"
    if len({tuple(sorted(row.device.items())) for row in rows}) > 1:
        yield "Rows come from more than one machine: means over them mean little."


def _table(*columns: str) -> Table:
    found = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        found.add_column(title)
    return found


def _telling(name: str, peer: Peer) -> bool:
    """FP32 peers that pass, as expected, are not worth a line."""
    return name in QUANTISED or not peer.passes


def _ratio(peer: Peer | None) -> str:
    if peer is None:
        return "-"
    if peer.ratio is None:
        return "none"
    wrong = " fails" if peer.passes is False else ""
    return f"{peer.ratio:.2f} ±{peer.spread or 0.0:.2f}{wrong}"


def _judgement(peer: Peer) -> str:
    state = {True: "passes", False: "fails", None: "not judged"}[peer.passes]
    return escape(state if peer.passes else f"{state}: {' '.join(peer.verdict.split())}")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _mean(values: Sequence[float]) -> str:
    return f"{geometric_mean(values):.2f}" if values else "-"
