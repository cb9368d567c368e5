"""``tailorbird bench``: a server put under load, and what its clients felt."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tailorbird.cli import render
from tailorbird.domain.errors import TailorbirdError, UsageError

if TYPE_CHECKING:
    from tailorbird.domain.signature import Tensors
    from tailorbird.load.tally import Summary

TOKEN = "TAILORBIRD_TOKEN"
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


def bench(
    model: str,
    *,
    url: str = "",
    protocol: Literal["http", "grpc"] = "http",
    scenario: str = "single-stream",
    seconds: float = 10.0,
    rate: float = 0.0,
    concurrency: int = 1,
    rows: int = 1,
    shapes: str = "",
    trace: str = "",
    slo_ms: float | None = None,
    inputs: Path | None = None,
    json_tensors: Annotated[bool, Parameter(negative="")] = False,
    histogram: Annotated[Path | None, Parameter(name=["--histogram", "--hdr"])] = None,
    seed: int = 0,
    timeout: float = 30.0,
    ca: str = "",
    header: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    json: Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout.")] = False,
) -> None:
    """Send a served model requests as clients would, and say what they felt.

    Latency counts from when a request was meant to be sent, so that a stalled server cannot hide the requests that it
    kept from being sent.

    Args:
        model: its name on the server.
        url: the server's address; by default this machine's port 8000 for HTTP, 8001 for gRPC. https:// is TLS.
        protocol: http or grpc.
        scenario: single-stream, closed, server (Poisson), offline or trace.
        seconds: how long; a trace has its own length.
        rate: requests a second, for the server scenario.
        concurrency: clients of the closed scenario, each waiting for its answer.
        rows: rows of each request.
        shapes: whole shapes of inputs with dynamic dims, as ids:1x128.
        trace: a recorded trace, a file or a folder of serve --record, for the trace scenario.
        slo_ms: answers within that many milliseconds count as goodput.
        inputs: an .npz file to send; without it seeded inputs are made from the model's signature.
        json_tensors: send tensors as JSON instead of binary.
        histogram: a file for the latencies as an HDR histogram, in microseconds.
        seed: of arrivals and inputs.
        timeout: seconds for one answer; a request without one has failed.
        ca: a file of certificates that the server's has to be signed by, over TLS.
        header: "Name: value", sent with every request; repeatable. A token is better in TAILORBIRD_TOKEN.
    """
    from tailorbird.domain.profile import parse_shapes
    from tailorbird.load.run import Load, run, scenario_of

    load = Load(
        url=url,
        model=model,
        protocol=protocol,
        scenario=scenario_of(scenario),
        seconds=seconds,
        rate=rate,
        concurrency=concurrency,
        rows=rows,
        shapes=dict(parse_shapes(shapes)),
        trace=trace,
        slo_ms=slo_ms,
        json=json_tensors,
        seed=seed,
        timeout=timeout,
        ca=ca,
        headers=_headers(header),
    )
    found = run(load, _data(inputs), histogram)
    if json:
        render.write_json(found)
    else:
        render.pairs(summary_pairs(found))
    _check_answered(found)


def _headers(said: tuple[str, ...]) -> dict[str, str]:
    """Those that were said, and the token of the environment unless one was."""
    headers = {}
    for one in said:
        name, colon, value = one.partition(":")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value.strip()):
            raise UsageError("that is no header", got=repr(name[:40]), expected="'Name: value'")
        headers[name.lower()] = value.strip()
    token = os.environ.get(TOKEN)
    return ({"authorization": f"Bearer {token}"} if token else {}) | headers


def _check_answered(found: Summary) -> None:
    if found.answered:
        return
    refused = {"the server refused (429 or 503)": found.refused} if found.refused else {}
    faults = found.faults | refused
    most = max(faults, key=lambda fault: faults[fault]) if faults else "no request was sent"
    raise TailorbirdError("nothing was answered", got=most, expected=f"an answer to some of {found.sent} requests",
                          hint="see that the server is well and takes these inputs, or raise --timeout")  # fmt: skip


def summary_pairs(found: Summary) -> list[tuple[str, str]]:
    """The summary as aligned lines."""
    latency = _listed(found.latency_ms)
    lines = [
        ("scenario", f"{found.scenario}, {found.seconds:.1f} s"),
        ("answered", f"{found.answered} of {found.sent}: {found.rate:.1f} requests/s, {found.rows_rate:.1f} rows/s"),
        ("latency, ms", latency or "nothing was answered"),
    ]
    if found.goodput is not None:
        lines.append(("goodput", f"{found.goodput:.1f} requests/s within {found.slo_ms:g} ms"))
    if found.refused:
        lines.append(("refused", f"{found.refused}: {_listed(found.refusal_ms)} ms"))
    lines += [("failed", f"{count} x {fault}") for fault, count in found.faults.items()]
    lines.append(("generator late", f"p99 {found.late_ms:.3g} ms"))
    return lines


def _listed(milliseconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" if value < 1000 else f"{name} {value:.0f}"
                     for name, value in milliseconds.items())  # fmt: skip


def _data(inputs: Path | None) -> list[Tensors]:
    from tailorbird.builder.cases.data import read_arrays

    return [] if inputs is None else [read_arrays(inputs)]
