"""The candidates of one build as a bar plot and a table, in HTML."""

from __future__ import annotations

from html import escape

from tailorbird.api import Result
from tailorbird.demo.models import Model
from tailorbird.domain.outcome import Outcome, Status

_KEY = {
    "chosen": "chosen",
    "rival": "ONNX Runtime’s default",
    "other": "other candidates",
    "first": "stopped early: timed once, alone",
}


def engine_card(model: Model, result: Result) -> str:
    """One engine: what won, by how much, against what."""
    value, what = gain(model, result)
    tag = f'<span class="tag">{value} {what.partition(":")[0]}</span>'
    return (
        f'<section class="card"><div class="title"><h3>{escape(model.name)}</h3>{tag}</div>'
        f'<p class="soft">{escape(model.does.capitalize())}. {escape(result.winner.candidate.name)} at '
        f"<code>{escape(model.shapes)}</code>: {escape(result.winner.reason)}.</p>"
        f"{_plot(result)}{_table(result)}</section>"
    )


def gain(model: Model, result: Result) -> tuple[str, str]:
    """The speed-up, and what it is of: ``1.84×``, ``the speed of ONNX Runtime’s default: ocr-read``."""
    if result.speedup is None:
        return "–", f"ONNX Runtime’s default was not measured: {model.name}"
    if result.winner.candidate.name == result.manifest.baseline:
        return "1×", f"the speed of ONNX Runtime’s default, which won: {model.name}"
    return f"{result.speedup:.2f}×", f"the speed of ONNX Runtime’s default: {model.name}"


def kind(outcome: Outcome, result: Result) -> str:
    """How a candidate's bar is drawn: chosen, rival (the default to beat), first (a first look only) or other."""
    if outcome.status is Status.CHOSEN:
        return "chosen"
    if outcome.candidate.name == result.manifest.baseline:
        return "rival"
    return "first" if outcome.status is Status.STOPPED else "other"


def _plot(result: Result) -> str:
    slowest = max(outcome.median or 0.0 for outcome in result.table) or 1.0
    ordered = sorted(result.table, key=lambda outcome: outcome.median or float("inf"))
    bars = "".join(_bar(outcome, kind(outcome, result), slowest) for outcome in ordered)
    drawn = {kind(outcome, result) for outcome in result.table}
    key = "".join(f'<li class="{name}"><i></i>{text}</li>' for name, text in _KEY.items() if name in drawn)
    return f'<div class="plot">{bars}</div><ul class="key">{key}</ul>'


def _bar(outcome: Outcome, look: str, slowest: float) -> str:
    name = f'<div class="name">{escape(outcome.candidate.name)}</div>'
    if outcome.median is None:
        return f'{name}<div class="none">{escape(outcome.status)}</div>'
    width = 100 * outcome.median / slowest
    spread = next((f" ± {_ms(row.latency.spread, 2)}" for row in outcome.latency if row.edge == "opt"), "")
    return (
        f'{name}<div class="row {look}"><div class="bar" style="width:{width:.1f}%"></div>'
        f'<div class="ms">{_ms(outcome.median)}{spread} ms</div></div>'
    )


def _table(result: Result) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(outcome.candidate.name)}</code><td>{escape(outcome.status)}"
        f'<td class="n">{_ms(outcome.median)}<td class="n">{_snr(outcome)}<td class="why">{escape(outcome.reason)}</tr>'
        for outcome in result.table
    )
    head = '<tr><th>candidate<th>verdict<th class="n">median ms<th class="n">SNR dB<th>why</tr>'
    table = f'<div class="scroll"><table>{head}{rows}</table></div>'
    return f"<details><summary>The table, with reasons</summary>{table}</details>"


def _snr(outcome: Outcome) -> str:
    worst = outcome.gate.worst("snr_db") if outcome.gate else None
    return "–" if worst is None else f"{worst:.0f}"


def _ms(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}g}" if value < 100 else f"{value:.0f}"
