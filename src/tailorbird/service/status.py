"""The status page: what is served, on which engine, signed by whom, and how it is doing.

One self-contained page, which a browser asks for again now and then; no script, nothing else from the network.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from tailorbird.serving.descriptions import ModelStatus, Pace, ServerStatus
from tailorbird.serving.statistics import Trouble

BANNER = "Unsigned engines are allowed on this server (--allow-unsigned)"

REFRESH_SECONDS = 5
TROUBLES = 20
"""Failures that the page shows."""
_WORDS = 300
"""Characters of one of them."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --soft: #566270; --line: #d9dee4; --page: #fff; --panel: #f5f7f9;
  --good: #1a6b44; --bad: #a8332b; --warn: #7a4a00; --warn-page: #fff3d6; --warn-line: #d9a520 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --soft: #9aa5b1; --line: #333c46; --page: #14191f;
  --panel: #1b222a; --good: #4fc38a; --bad: #f0958d; --warn: #f5c65a; --warn-page: #2e2610; --warn-line: #8a6a14 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.2rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: 0 } .lead { color: var(--soft); margin: .2rem 0 1.6rem }
.banner { margin: 0 0 1.6rem; padding: .7rem 1rem; border: 1px solid var(--warn-line); border-radius: .4rem;
  background: var(--warn-page); color: var(--warn); font-weight: 600 }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
th, td { text-align: left; padding: .5rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--soft); font-weight: 600 } .n { font-variant-numeric: tabular-nums }
th, .n, .state, code { white-space: nowrap; overflow-wrap: normal }
.name { font-weight: 600 } .minor { color: var(--soft); font-size: .85rem }
code { font: .85rem ui-monospace, monospace } .good { color: var(--good) } .bad { color: var(--bad) }
.mark { display: inline-block; padding: 0 .5rem; border: 1px solid var(--warn-line); border-radius: 1rem;
  background: var(--warn-page); color: var(--warn); font-weight: 600; white-space: nowrap }
h2 { font-size: 1.1rem; margin: 2rem 0 .4rem } ol { list-style: none; margin: 0; padding: 0; font-size: .92rem }
li { padding: .35rem 0; border-bottom: 1px solid var(--line) } time { color: var(--soft) }
@media (max-width: 48rem) { thead { display: none } table, tbody, tr, td { display: block }
  tr { padding: .7rem 0; border-bottom: 1px solid var(--line) } td { padding: .1rem 0; border: 0 }
  td[data-of]::before { content: attr(data-of) " "; color: var(--soft) } }
"""
_COLUMNS = ("Model", "Version", "Engine", "Signed by", "Requests", "p50, p99", "Queue", "State")


def status_page(status: ServerStatus) -> bytes:
    """The page as UTF-8. Whatever a bundle calls itself stands in it as text."""
    banner = f'<p class="banner" role="status">{escape(BANNER)}</p>' if status.allow_unsigned else ""
    ready = sum(model.ready for model in status.models)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
        f"<title>Tailorbird: {ready} of {len(status.models)} ready</title><style>{_STYLE}</style></head><body>"
        f'<h1>Tailorbird</h1><p class="lead">version {escape(status.version)}, '
        f"{ready} of {len(status.models)} models ready</p>{banner}{_table(status)}{_troubles(status)}</body></html>\n"
    )
    return page.encode("utf-8", "replace")


def _table(status: ServerStatus) -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    rows = "".join(map(_row, status.models)) or f'<tr><td colspan="{len(_COLUMNS)}">no model</td></tr>'
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _row(model: ModelStatus) -> str:
    state = f'<span class="{"good" if model.ready else "bad"}">{model.state}</span>'
    engine = f'{escape(model.engine)}<br><span class="minor">{escape(model.target)}</span>' if model.engine else "-"
    return (
        f'<tr><td class="name">{escape(model.name)}</td><td class="n" data-of="version">{model.version}</td>'
        f'<td data-of="engine">{engine}</td><td data-of="signed by">{_signer(model)}</td>'
        f'<td class="n" data-of="requests">{_requests(model.pace)}</td>'
        f'<td class="n" data-of="p50, p99">{_latency(model.pace)}</td>'
        f'<td class="n" data-of="queue">{model.pace.waiting}</td>'
        f'<td class="state">{state}{_crashes(model.pace)}</td></tr>'
    )


def _requests(pace: Pace) -> str:
    failed = f'<br><span class="bad">{pace.failed} failed</span>' if pace.failed else ""
    return f"{pace.answered}{failed}"


def _latency(pace: Pace) -> str:
    return "-" if pace.p50_ms is None else f"{_ms(pace.p50_ms)}, {_ms(pace.p99_ms or 0.0)} ms"


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _crashes(pace: Pace) -> str:
    return f'<br><span class="minor">crashed {pace.crashes} times</span>' if pace.crashes else ""


def _troubles(status: ServerStatus) -> str:
    """The latest failures of all models, the newest first."""
    found = [(one, model.name) for model in status.models for one in model.pace.troubles]
    if not found:
        return ""
    latest = sorted(found, key=lambda each: -each[0].at)[:TROUBLES]
    return f"<h2>Recent errors</h2><ol>{''.join(_trouble(one, name) for one, name in latest)}</ol>"


def _trouble(one: Trouble, model: str) -> str:
    at = datetime.fromtimestamp(one.at, UTC).strftime("%H:%M:%S UTC")
    return f"<li><time>{at}</time> {escape(model)}: {escape(one.what[:_WORDS])}</li>"


def _signer(model: ModelStatus) -> str:
    if not model.engine:
        return "-"
    if model.signer is None:
        return '<span class="mark">unsigned</span>'
    algorithm, _, digest = model.signer.key.partition(":")
    short = f"{algorithm}:{digest[:12]}…" if len(digest) > 12 else model.signer.key
    return f'{escape(model.signer.name)} <code title="{escape(model.signer.key)}">{escape(short)}</code>'
