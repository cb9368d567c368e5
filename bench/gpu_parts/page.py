"""The tables of the GPU benchmark, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def tables(record: dict[str, Any]) -> str:
    """All tables of a run, those without rows left out."""
    facts, rows = record["facts"], record["rows"]
    head = (f"{facts['device']}, {facts['date']}: torch {facts['torch']}, triton {facts['triton']}, transformers "
            f"{facts['transformers']}. Ceilings measured: {facts['tflops']} TFLOP/s (8192³, FP16), "
            f"{facts['tbytes']} TB/s (copy).")  # fmt: skip
    parts = [head]
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        parts.append(f"### {model}")
        parts += [
            part
            for part in (_floors(mine), _ways(mine, "table"), _ways(mine, "lever"), _streams(mine), _served(mine))
            if part
        ]
    return "\n\n".join(parts) + "\n"


def _floors(rows: Sequence[Row]) -> str:
    found = [row for row in rows if row["kind"] == "floor"]
    lines = [[f"b{row['batch']}", row["gflop"], row["mbytes"], row["compute_ms"], row["memory_ms"], row["floor_ms"]]
             for row in found]  # fmt: skip
    return _table(["batch", "GFLOP", "MB", "operations, ms", "bytes, ms", "floor, ms"], lines)


def _ways(rows: Sequence[Row], kind: str) -> str:
    """One line for each way: device and host milliseconds by batch, and what the gate said."""
    found = [row for row in rows if row["kind"] == kind]
    batches = sorted({row["batch"] for row in found})
    floors = {row["batch"]: row["floor_ms"] for row in rows if row["kind"] == "floor"}
    lines = []
    for way in dict.fromkeys(row["way"] for row in found):
        by_batch = {row["batch"]: row for row in found if row["way"] == way}
        cells = [_cell(by_batch.get(batch), floors.get(batch)) for batch in batches]
        lines.append([way, *cells, _gate(next(iter(by_batch.values())))])
    title = "way" if kind == "table" else "left out"
    return _table([title, *(f"b{batch}, ms (host; × floor)" for batch in batches), "gate"], lines)


def _cell(row: Row | None, floor: float | None) -> str:
    if row is None:
        return ""
    if "device_ms" not in row:
        return "failed"
    times = f" ; {row['device_ms'] / floor:.1f}×" if floor else ""
    return f"{row['device_ms']:.3f} ({row['host_ms']:.3f}{times})"


def _gate(row: Row) -> str:
    gate = row.get("gate")
    if not gate:
        return ""
    least = gate["least"]
    alone = least.get("same row alone")
    numbers = [f"{least['snr_db']:.1f} dB" if "snr_db" in least else "",
               f"row alone {alone:.0f} dB" if alone is not None else ""]  # fmt: skip
    return ", ".join([("pass" if gate["passed"] else "FAIL"), *filter(None, numbers)])


def _streams(rows: Sequence[Row]) -> str:
    lines = [[row["streams"], row["batch"], row["rows_per_s"]] for row in rows if row["kind"] == "streams"]
    return _table(["streams", "rows of each engine", "rows/s"], lines)


def _served(rows: Sequence[Row]) -> str:
    mine = [row for row in rows if row["kind"] == "served"]
    alone = next((row["rows_per_s"] for row in mine if not row["clients"]), 0)
    lines = [[_way_of(row), row["clients"] or "–", row["batch"], row["ms"], row["rows_per_s"],
              f"{row['rows_per_s'] / alone:.2f}" if alone else ""] for row in mine]  # fmt: skip
    return _table(["way", "clients", "rows of each request", "median, ms", "rows/s", "of one session's"], lines)


def _way_of(row: Row) -> str:
    if not row["clients"]:
        return "one session, no server"
    return f"{row.get('isolation', 'process')}, instances: {row.get('instances', 1)}"


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    rows = [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows]) if rows else ""
