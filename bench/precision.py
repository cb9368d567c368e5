"""What FP16 and BF16 cost in accuracy: every zoo model lowered, each low value really rounded, on the CPU.

``python -m bench.precision [--models NAME ...] [--output FILE]`` prints a table, and why nodes stay in FP32. The first
ratio is over the samples that the lowering looked at, the others over one that it has not seen.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench import zoo
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.graph.normalise import normalise
from tailorbird.builder.precision.emulate import emulation
from tailorbird.builder.precision.lower import FILE, lower
from tailorbird.builder.precision.records import LOW, Kept, LowerArgs
from tailorbird.builder.quantise.onnx_graph import open_session
from tailorbird.builder.sources.onnx_file import read_model, write_model
from tailorbird.domain.fidelity import cosine, snr_db
from tailorbird.domain.precision import Precision

SEEN = 2
THREADS = 2


class Row(msgspec.Struct, frozen=True):
    """One model in one precision."""

    model: str
    precision: Precision
    nodes: int
    """That take and give the precision."""
    kept: tuple[Kept, ...]
    seen_db: float | None
    fresh_db: float
    cosine: float
    seconds: float
    """Of the lowering."""


def measure(name: str, precision: Precision, folder: Path) -> Row:
    """Lower one zoo model in an empty folder and hold it against its source."""
    source = folder / "normalised.onnx"
    write_model(normalise(read_model(zoo.path(name))).model, source)
    files = [str(folder / f"sample{index}.npz") for index in range(SEEN)]
    for index, file in enumerate(files):
        save_set(Path(file), zoo.get(name).sample(index))
    start = time.monotonic()
    found = lower(LowerArgs(str(source), precision, tuple(files), str(folder), THREADS))
    seconds = round(time.monotonic() - start, 1)
    fresh, angle = _near(source, folder, zoo.get(name).sample(SEEN))
    return Row(name, precision, found.nodes, found.kept, found.snr_db, round(fresh, 1), angle, seconds)


def _near(source: Path, folder: Path, inputs: dict[str, Any]) -> tuple[float, float]:
    """The worst signal-to-noise ratio and cosine over the outputs."""
    emulated = folder / "emulated.onnx"
    write_model(emulation(read_model(folder / FILE)), emulated)
    true, got = (open_session(path, THREADS, "ORT_DISABLE_ALL").run(None, inputs) for path in (source, emulated))
    pairs = [pair for pair in zip(true, got, strict=True) if np.asarray(pair[0]).dtype.kind == "f"]
    return min(snr_db(*pair) for pair in pairs), min(cosine(*pair) for pair in pairs)


def table(rows: Iterable[Row]) -> str:
    """As Markdown."""
    head = "| model | precision | nodes | kept | SNR, seen | SNR, fresh | cosine |\n|---|---|---:|---:|---:|---:|---:|"
    lines = [f"| {row.model} | {row.precision} | {row.nodes} | {len(row.kept)} | {row.seen_db} dB | {row.fresh_db} dB "
             f"| {row.cosine:.6f} |" for row in rows]  # fmt: skip
    return "\n".join([head, *lines])


def reasons(row: Row) -> str:
    """Why its nodes stay, by what they have in common."""
    kinds = Counter(kept.why.split(";")[0].rstrip("0123456789.e+-") for kept in row.kept)
    return "; ".join(f"{count} x {why.strip()}" for why, count in kinds.most_common())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m bench.precision", description=main.__doc__)
    parser.add_argument("--models", nargs="*", metavar="NAME", default=[model.name for model in zoo.ZOO])
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the rows as JSON, too")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.models:
        for precision in LOW:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(name, precision, Path(folder)))
            print(f"{name} {precision}: {rows[-1].seconds} s; {reasons(rows[-1]) or 'nothing stays'}", flush=True)
    print(table(rows))
    if arguments.output:
        arguments.output.write_text(json.dumps(msgspec.to_builtins(rows), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
