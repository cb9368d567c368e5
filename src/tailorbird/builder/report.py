"""The report: one self-contained HTML page, light and dark, that says what won and why."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.manifest import Manifest, speedup
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.profile import format_shapes

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2530; --soft: #5d6875; --line: #d9dee4; --bar: #9db4cc; --win: #1f7a4d;
  --bad: #b3423a; --page: #ffffff; --panel: #f5f7f9 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --soft: #9aa5b1; --line: #333c46; --bar: #4d6680;
  --win: #4fc38a; --bad: #e8827a; --page: #14191f; --panel: #1b222a } }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.2rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
.lead { color: var(--soft); margin: .3rem 0 0 } .won { color: var(--win) } .lost { color: var(--bad) }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.name { white-space: nowrap; font-family: ui-monospace, monospace; font-size: .85rem }
td.why { min-width: 14rem } td.gate { min-width: 8rem } .track { width: 8rem; height: .7rem; background: var(--panel) }
.fill { height: 100%; background: var(--bar) } .chosen .fill { background: var(--win) }
.chosen td { font-weight: 600 } code { background: var(--panel); padding: .1rem .3rem; overflow-wrap: anywhere }
"""


def write_report(path: Path, manifest: Manifest) -> None:
    """Write the page for one build. Needs no network and no script to be read."""
    path.write_text(_page(manifest), "utf-8")


def _page(manifest: Manifest) -> str:
    title = f"{escape(manifest.model)}: {escape(manifest.candidate.name)}"
    parts = (
        _head(manifest),
        _candidates(manifest.outcomes),
        _latencies(manifest.latency),
        _gate(manifest),
        _origin(manifest),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _head(manifest: Manifest) -> str:
    winner = next(outcome for outcome in manifest.outcomes if outcome.status is Status.CHOSEN)
    tried = len(manifest.outcomes)
    return (
        f"<h1>{escape(manifest.model)}</h1>"
        f'<p class="lead">Chosen of {tried} candidates: '
        f'<strong class="won">{escape(manifest.candidate.name)}</strong>, '
        f"{_ms(winner.median)} ms at {escape(format_shapes(manifest.candidate.profile.opt))}.</p>"
        f'<p class="lead">{escape(winner.reason[:1].upper() + winner.reason[1:])}.{_gain(manifest)}</p>'
    )


def _gain(manifest: Manifest) -> str:
    ratio = speedup(manifest.outcomes, manifest.baseline)
    if ratio is None:
        return ""
    if manifest.baseline == manifest.candidate.name:
        return " It is what one would run without Tailorbird, now with its gate passed."
    return f" {ratio:.2f}x the speed of {escape(manifest.baseline)}, what one would run without Tailorbird."


def _candidates(outcomes: tuple[Outcome, ...]) -> str:
    slowest = max((outcome.median or 0.0 for outcome in outcomes), default=0.0) or 1.0
    rows = "".join(_candidate(outcome, slowest) for outcome in outcomes)
    head = '<tr><th>candidate<th>verdict<th class="n">median ms<th class="n">spread<th>latency<th>gate<th>why</tr>'
    return f'<h2>Candidates</h2><div class="scroll"><table>{head}{rows}</table></div>'


def _candidate(outcome: Outcome, slowest: float) -> str:
    kind = "chosen" if outcome.status is Status.CHOSEN else "lost" if outcome.median is None else ""
    opt = next((row.latency for row in outcome.latency if row.edge == "opt"), None)
    width = 100 * (outcome.median or 0.0) / slowest
    bar = f'<div class="track"><div class="fill" style="width:{width:.1f}%"></div></div>' if opt else ""
    spread = f"±{opt.spread:.3g}" if opt else ""
    gate = escape(outcome.gate.verdict) if outcome.gate else "not gated"
    return (
        f'<tr class="{kind}"><td class="name">{escape(outcome.candidate.name)}<td>{escape(outcome.status)}'
        f'<td class="n">{_ms(outcome.median)}<td class="n">{spread}<td>{bar}<td class="gate">{gate}'
        f'<td class="why">{escape(outcome.reason)}</tr>'
    )


def _latencies(rows: Iterable[LatencyRow]) -> str:
    head = "".join(f'<th class="n">{name}' for name in ("rows", "min", "median", "p90", "p99", "runs"))
    lines = "".join(
        f'<tr><td>{escape(row.edge)}<td class="name">{escape(format_shapes(row.shapes))}<td class="n">{row.rows}'
        + "".join(
            f'<td class="n">{_ms(value)}'
            for value in (row.latency.min, row.latency.median, row.latency.p90, row.latency.p99)
        )
        + f'<td class="n">{row.latency.runs}</tr>'
        for row in rows
    )
    table = f"<table><tr><th>place<th>shapes{head}</tr>{lines}</table>"
    return f'<h2>Latency of the chosen engine, ms</h2><div class="scroll">{table}</div>'


def _gate(manifest: Manifest) -> str:
    rows = "".join(
        f'<tr><td>{escape(check.rule)}<td>{escape(check.where)}<td class="n">{_value(check.measured)}'
        f'<td class="n">{_value(check.limit)}<td>{"held" if check.passed else "broken"}</tr>'
        for check in manifest.gate.checks
    )
    head = '<tr><th>rule<th>where<th class="n">measured<th class="n">limit<th>verdict</tr>'
    executed = ", ".join(f"{count} {escape(kind)}" for kind, count in manifest.executed.items())
    return (
        f'<h2>Gate</h2><p class="lead">Against the FP32 source. Layers as executed: {executed}.</p>'
        f'<div class="scroll"><table>{head}{rows}</table></div>'
    )


def _origin(manifest: Manifest) -> str:
    facts = manifest.provenance
    lines = {
        "source": f"{facts.source} ({facts.source_digest})",
        "passes": ", ".join(facts.passes) or "none",
        "versions": ", ".join(f"{name} {number}" for name, number in facts.versions.items()),
        "device": ", ".join(f"{key} {value}" for key, value in facts.device.items()),
        "built": facts.created,
    }
    rows = "".join(f"<tr><th>{key}<td><code>{escape(value)}</code></tr>" for key, value in lines.items())
    return f'<h2>Where it comes from</h2><div class="scroll"><table>{rows}</table></div>'


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _value(value: float | str) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.4g}"
