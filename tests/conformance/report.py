"""The page: each difference with its reason, and every check with what was seen."""

import importlib.metadata
import platform

from tests.conformance.differences import DIFFERENCES
from tests.conformance.suite import CHECKS, GRPC, HTTP

_HEAD = """\
# Conformance

One suite, `tests/conformance`, asks our server and the real Triton the same questions: through the official
`tritonclient` over HTTP and gRPC, synchronously, asynchronously and in streams, and without it where it would not
ask such a thing. Our server answers them in every run of the tests; `make conformance` asks both and writes this page.
The Triton is the newest that a Python package carries: later releases may do some of this otherwise.

Of {count} checks, {same} are answered alike and {other} otherwise, each for one of the reasons below. A difference that
appears, or goes away, fails the suite.

| | |
|---|---|
| date | {date} |
| Tailorbird | {ours} |
| Triton | {triton}, from the wheel `nvidia-pytriton` 0.7.0, with its Python backend |
| `tritonclient` | {client} |
| Python | {python} |

## Differences
"""


def page(ours, triton, date):
    """The page in Markdown; both findings are as the suite expects them."""
    other = [one for one in CHECKS if ours.seen[one.key] != triton.seen[one.key]]
    head = _HEAD.format(
        count=len(CHECKS),
        same=len(CHECKS) - len(other),
        other=len(other),
        date=date,
        ours=ours.version,
        triton=triton.version,
        client=importlib.metadata.version("tritonclient"),
        python=platform.python_version(),
    )
    parts = [head]
    for difference in DIFFERENCES:
        rows = [one for one in other if one.name in difference.seen]
        parts += [f"{difference.reason}.\n", _table(rows, ours, triton)]
    parts.append("## All checks\n")
    for area in dict.fromkeys(one.area for one in CHECKS):
        parts += [f"### {area.capitalize()}\n", _table([one for one in CHECKS if one.area == area], ours, triton)]
    return "\n".join(parts)


def _table(checks, ours, triton):
    """A row for each name; a column for each server and protocol."""
    by_name = {}
    for one in checks:
        by_name.setdefault(one.name, {})[one.protocol] = one
    lines = ["| check | Tailorbird HTTP | gRPC | Triton HTTP | gRPC |", "|---|---|---|---|---|"]
    for name, found in by_name.items():
        cells = [_cell(findings, found.get(protocol)) for findings in (ours, triton) for protocol in (HTTP, GRPC)]
        lines.append(f"| {_escaped(name)} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(findings, one):
    return "" if one is None else _escaped(findings.seen[one.key])


def _escaped(text):
    return text.replace("|", "\\|").replace("<", "&lt;")
