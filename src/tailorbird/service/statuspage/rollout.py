"""What goes beside the live version: a canary with its verdict, a shadow with how far it agrees."""

from __future__ import annotations

from html import escape

from tailorbird.service.statuspage.spread import split_plot
from tailorbird.service.statuspage.words import NONE, clock, count, figure, ms, share
from tailorbird.serving.rollout.status import CanaryStatus, OutputAgreement, RolloutStatus, ShadowStatus

OUTPUTS = 12
"""Outputs of a shadow that the page shows."""
_EMPTY = ' class="none"'


def rollout_part(one: RolloutStatus) -> str:
    """The canary and the shadow of a model; nothing where there is neither."""
    return ("" if one.canary is None else _canary(one.canary)) + ("" if one.shadow is None else _shadow(one.shadow))


def _canary(one: CanaryStatus) -> str:
    kind = "bad" if one.stop is not None else "good"
    sides = (one.live, one.canary)
    rows = [
        ("requests", *(count(side.requests) for side in sides)),
        ("errors", *(count(side.errors) for side in sides)),
        ("p50", *(ms(side.p50_ms) for side in sides)),
        ("p99", *(ms(side.p99_ms) for side in sides)),
    ]
    body = "".join(
        f'<tr><th scope="row">{name}</th><td>{live}</td><td>{canary}</td></tr>' for name, live, canary in rows
    )
    stopped = "" if one.stop is None else f", stopped at {clock(one.stop.at)} UTC"
    return (
        f'<div class="beside"><h3>Canary: version {one.version} <span class="mark {kind}">{escape(one.state)}</span>'
        "</h3>"
        f"<p>{share(one.weight)} of the requests{stopped}; {escape(one.verdict)}</p>{split_plot(one.weight)}"
        f'<table><thead><tr><th></th><th scope="col">live {one.live.version}</th>'
        f'<th scope="col">canary {one.version}</th></tr></thead><tbody>{body}</tbody></table>'
        f'<p class="minor">evidence against it {figure(one.evidence)}, stopped at {figure(one.stops_at)}</p></div>'
    )


def _shadow(one: ShadowStatus) -> str:
    ratio = f", {one.latency_ratio:.3g} times the live version's latency" if one.latency_ratio else ""
    return (
        f'<div class="beside"><h3>Shadow: version {one.version}</h3>'
        f"<p>Copies of {share(one.share)} of the requests: {count(one.compared)} compared, {count(one.errors)} failed, "
        f"{count(one.dropped)} dropped{ratio}.</p>{_outputs(one.outputs)}</div>"
    )


def _outputs(outputs: tuple[OutputAgreement, ...]) -> str:
    names = ("output", "SNR", "worst SNR", "largest error", "cosine", "same winner", "equal")
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(map(_output, outputs[:OUTPUTS]))
    more = f'<p class="minor">and {len(outputs) - OUTPUTS} more</p>' if len(outputs) > OUTPUTS else ""
    return f'<table class="outputs"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{more}' if rows else ""


def _output(one: OutputAgreement) -> str:
    cells = {
        "SNR": figure(one.snr_db, " dB"),
        "worst SNR": figure(one.worst_snr_db, " dB"),
        "largest error": figure(one.max_abs_error),
        "cosine": NONE if one.cosine is None else f"{one.cosine:.5f}",
        "same winner": share(one.top1),
        "equal": share(one.equal),
    }
    found = "".join(
        f'<td data-of="{name}"{_EMPTY if value == NONE else ""}>{value}</td>' for name, value in cells.items()
    )
    return f'<tr><th scope="row">{escape(one.name)}</th>{found}</tr>'
