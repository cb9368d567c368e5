"""The status page: what is served, on which engine, signed by whom, and how it is doing.

One self-contained page, which a browser asks for again now and then; no script, nothing else from the network. It says
nothing that clients may not know: why a model failed is for the log.
"""

from __future__ import annotations

from html import escape
from itertools import groupby

from tailorbird.service.statuspage.rollout import rollout_part
from tailorbird.service.statuspage.style import STYLE
from tailorbird.service.statuspage.version import state_mark, version_part
from tailorbird.service.statuspage.words import clock
from tailorbird.serving.descriptions import ModelStatus, ServerStatus
from tailorbird.serving.rollout.record import Change
from tailorbird.serving.statistics import Trouble

BANNER = "Unsigned engines are allowed on this server (--allow-unsigned)"

REFRESH_SECONDS = 5
TROUBLES = CHANGES = 20
"""Failures, and changes, that the page shows."""
_WORDS = 300
"""Characters of one of them."""


def status_page(status: ServerStatus) -> bytes:
    """The page as UTF-8. Whatever a bundle calls itself stands in it as text."""
    banner = f'<p class="banner" role="status">{escape(BANNER)}</p>' if status.allow_unsigned else ""
    serving = _answering(status.models)
    ready = sum(serving.values())
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
        f"<title>Tailorbird: {ready} of {len(serving)} ready</title><style>{STYLE}</style></head><body>"
        f'<h1>Tailorbird</h1><p class="lead">version {escape(status.version)}, '
        f"{ready} of {len(serving)} models ready</p>{banner}{_models(status)}{_lists(status)}</body></html>\n"
    )
    return page.encode("utf-8", "replace")


def _answering(models: tuple[ModelStatus, ...]) -> dict[str, bool]:
    """By model, whether any version of it answers requests that name none."""
    found: dict[str, bool] = {}
    for model in models:
        found[model.name] = found.get(model.name, False) or (model.ready and model.role in ("", "live"))
    return found


def _models(status: ServerStatus) -> str:
    cards = "".join(_model(status, name, list(versions)) for name, versions in groupby(status.models, _name))
    return f"<main>{cards or '<p>no model</p>'}</main>"


def _name(model: ModelStatus) -> str:
    return model.name


def _model(status: ServerStatus, name: str, versions: list[ModelStatus]) -> str:
    """The versions that take part first, then the others, each the latest first."""
    ordered = sorted(versions, key=lambda one: (not one.ready, one.role != "live", -one.version))
    parts = "".join(version_part(one, alone=len(ordered) == 1) for one in ordered)
    beside = "".join(rollout_part(one) for one in status.rollouts if one.model == name)
    return (
        f'<section class="card"><div class="head"><h2>{escape(name)}</h2>{state_mark(ordered[0])}</div>'
        f"{parts}{beside}</section>"
    )


def _lists(status: ServerStatus) -> str:
    """The latest failures of all models, and the latest changes, the newest first."""
    found = [(one, model.name) for model in status.models for one in model.pace.troubles]
    latest = sorted(found, key=lambda each: -each[0].at)[:TROUBLES]
    lists = [
        ("Recent errors", [_trouble(one, name) for one, name in latest]),
        ("Recent changes", [_change(one) for one in status.changes[:CHANGES]]),
    ]
    cards = "".join(
        f'<section class="card"><h2>{head}</h2><ol>{"".join(items)}</ol></section>' for head, items in lists if items
    )
    return f'<div class="lists">{cards}</div>' if cards else ""


def _trouble(one: Trouble, model: str) -> str:
    return f"<li><time>{clock(one.at)} UTC</time> {escape(model)}: {escape(one.what[:_WORDS])}</li>"


def _change(one: Change) -> str:
    """Without its reason, which may name what clients should not know."""
    which = f"{one.model}/{one.version}: " if one.version else f"{one.model}: " if one.model else ""
    took = "" if one.seconds is None else f" in {one.seconds:.2g} s"
    return f"<li><time>{clock(one.at)} UTC</time> {escape(which)}{escape(one.what)}{took}</li>"
