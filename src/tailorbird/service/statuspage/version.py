"""One version: what it is, where its latencies lie, and its numbers."""

from __future__ import annotations

from html import escape

from tailorbird.domain.size import format_size
from tailorbird.service.statuspage.spread import spread_plot
from tailorbird.service.statuspage.words import count, figure, ms
from tailorbird.serving.descriptions import ModelStatus
from tailorbird.serving.pace import Pace

_ROLES = {"live": "good", "canary": "mid", "shadow": "mid"}


def version_part(model: ModelStatus, *, alone: bool = True) -> str:
    """A version; of one that is not in service, its state, unless it stands alone below its model's."""
    if not model.engine:
        return f'<div class="version">{_who(model, alone)}</div>'
    return (
        f'<div class="version">{_who(model, alone)}<div>{spread_plot(model.pace)}</div>'
        f'<dl class="numbers">{_numbers(model)}</dl></div>'
    )


def state_mark(model: ModelStatus) -> str:
    """Its state in words."""
    kind = "good" if model.ready else "bad" if model.idle is None else ""
    return f'<span class="mark {kind}">{escape(model.state)}</span>'


def _who(model: ModelStatus, alone: bool) -> str:
    role = f' <span class="mark {_ROLES.get(model.role, "")}">{escape(model.role)}</span>' if model.role else ""
    state = "" if model.ready or alone else f" {state_mark(model)}"
    engine = (
        f'<p>{escape(model.engine)}</p><p class="minor">{escape(model.target)}</p><p class="minor">{_signer(model)}</p>'
        if model.engine
        else ""
    )
    return f'<div><p class="head"><b>version {model.version}</b>{role}{state}</p>{engine}</div>'


def _numbers(model: ModelStatus) -> str:
    pace = model.pace
    failed = f'<span class="bad">{count(pace.failed)}</span>' if pace.failed else "0"
    pairs = [
        ("requests", count(pace.answered)),
        ("failed", failed),
        ("p50", ms(pace.p50_ms)),
        ("p99", ms(pace.p99_ms)),
        ("in the queue", count(pace.waiting)),
        ("rows a run", _rows(pace)),
    ]
    if pace.instances:
        pairs.append(("instances", _instances(pace)))
    if model.memory is not None:
        pairs.append(("memory", format_size(model.memory)))
    if pace.crashes:
        pairs.append(("crashes", f'<span class="bad">{count(pace.crashes)}</span>'))
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)


def _rows(pace: Pace) -> str:
    most = f" of {pace.most_rows}" if pace.rows_a_run is not None and pace.most_rows > pace.rows_a_run else ""
    return figure(pace.rows_a_run) + most


def _instances(pace: Pace) -> str:
    if pace.alive == pace.instances:
        return str(pace.instances)
    return f'<span class="bad">{pace.alive} of {pace.instances}</span>'


def _signer(model: ModelStatus) -> str:
    if model.signer is None:
        return '<span class="mark warn">unsigned</span>'
    algorithm, _, digest = model.signer.key.partition(":")
    short = f"{algorithm}:{digest[:12]}…" if len(digest) > 12 else model.signer.key
    return f'signed by {escape(model.signer.name)} <code title="{escape(model.signer.key)}">{escape(short)}</code>'
