"""``docs/serving-benchmarks.md``: the words around the tables, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.serving_parts.results import Contest
from bench.serving_parts.tables import markdown

PAGE = Path("docs") / "serving-benchmarks.md"

MISSING = "`make serving-bench ARGS='--contest {name}'`."
HEAD = """# Serving, measured

How `tailorbird serve` compares with what people would pick instead. This page is written by `make serving-bench`, which
prints the same tables; `python -m bench.serving --help` says how to run a part of it.

- Every server runs in a process and an environment of its own, on the same machine as the load generator. They are up
  at the same time and take turns, and each round begins with another one. Figures are medians over the rounds; ± is
  half the interquartile range; a ratio is taken round by round before its median.
- Closed loops are driven by a small C program, which costs a few microseconds a request. In open loops latency counts
  from when a request was meant to be sent.
- CPU time is user and system time of the server with all its processes. On a machine that others use it is the figure
  to trust.
- Rivals are configured as their documentation advises and in their favour: no access log, as many workers as our server
  has instances, the same engine files in the same runtime with the same threads, their own batching where the engine's
  latency table says that it pays, and tensors in the cheapest form that they document (bytes for Flask, base64 in JSON
  for LitServe, MLServer and BentoML). Triton is the binary that `nvidia-pytriton` carries; it has the Python backend
  only, so it takes part where a model is Python.
"""

SECTIONS = {
    "tiny": ("What a server itself costs", """\
The model doubles sixteen floats. Ours is an engine, with its checks, its batcher and its metrics; the rivals double in
numpy. LitServe, MLServer, BentoML and Triton may join requests."""),
    "resnet": ("ResNet-50", """\
`engine alone` is the engine in a loop, in a process of its own, with as many instances as its build recommends: what
the machine can do. Our overload requests name their deadline (`timeout`); the rivals know none, and answer late."""),
    "start": ("Start to first answer", """\
Seconds from the start of the process to the first answer. Ours checks the signature and every file's digest, and runs
the engine once, before it takes requests."""),
    "batching": ("Dynamic batching", """\
The same engine with and without joining requests, one row each. Whether it pays is in the first table: a run must cost
less a row when it has more rows. BERT's requests are of mixed lengths, and only equal ones are joined."""),
}  # fmt: skip


def write(contests: Sequence[Contest], path: Path = PAGE) -> None:
    """Write the page; contests that were not run are named, too."""
    found, lines = {one.name: one for one in contests}, [HEAD]
    for name, (title, words) in SECTIONS.items():
        tables = markdown(found[name]) if name in found else (f"Not measured yet: {MISSING.format(name=name)}", "")
        lines += [f"## {title}", "", words, "", *tables]
    path.write_text("\n".join(lines).rstrip() + "\n")
