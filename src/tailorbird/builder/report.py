"""The report: one self-contained HTML page, light and dark, that says what won and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

import msgspec

from tailorbird.builder.figures import gains
from tailorbird.builder.figures.guilt import Event, sensitivity_bars
from tailorbird.builder.figures.layertimes import layer_times
from tailorbird.builder.figures.notes import notes_html
from tailorbird.builder.figures.phases import phases_html
from tailorbird.builder.figures.points import Plot, plot_of
from tailorbird.builder.figures.precisions import precision_map
from tailorbird.builder.figures.reproduce import reproduce_html
from tailorbird.builder.figures.scatter import scatter_svg
from tailorbird.builder.figures.style import PAGE_STYLE
from tailorbird.builder.figures.tables import candidates_table, gate_table, latency_table, number
from tailorbird.domain.layers import LayerBook
from tailorbird.domain.manifest import Manifest, speedup
from tailorbird.domain.objective import Goal
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.profile import format_shapes

_READING = (
    "<h2>How to read this</h2><p>Tailorbird built this model in many ways, the <em>candidates</em>: each with a "
    "runtime, a precision and a number of threads. It checked every engine that came out against the model in 32-bit "
    "floats, the <em>gate</em>, and measured those that were right on this machine; the last of them in turn, so that "
    "noise did not choose. The fastest that passed is the <em>chosen</em> engine. Times are milliseconds of one run, "
    "seen from the host; SNR is the signal-to-noise ratio of its outputs against the model’s own, where 20 dB is an "
    "error of a tenth and more is better.</p>"
)

_NOT_RUN = (
    "<h2>Not qualified</h2><p>This engine was compiled and has not run: nobody knows yet whether it is right, and how "
    "fast. It cannot be served, nor published. On a machine of its target <code>tailorbird qualify BUNDLE</code> runs "
    "the gate on it, with the inputs and the model’s own answers that travel in the bundle, measures it, and writes a "
    "bundle that can.</p>"
)

_NARROW = (350, 330)
"""The plot's size for a phone, whose letters must not shrink with it."""


def write_report(path: Path, manifest: Manifest, events: Sequence[Event] = (), layers: LayerBook | None = None) -> None:
    """Write the page for one build. Needs no network and no script to be read.

    Args:
        path: the file to write.
        manifest: of the chosen engine.
        events: lines of the build log, for the layers' errors, the notes, the times and the command.
        layers: of the chosen engine and the runner-up, the chosen one first.
    """
    path.write_text(_page(manifest, events, layers or LayerBook()), "utf-8")


def read_events(path: Path) -> list[Event]:
    """The lines of a build log."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def _page(manifest: Manifest, events: Sequence[Event], layers: LayerBook) -> str:
    title = f"{escape(manifest.model)}: {escape(manifest.candidate.name)}"
    goal = manifest.goal
    parts = (
        _head(manifest, goal),
        _READING,
        _pictures(manifest, events, goal),
        candidates_table(manifest.outcomes, goal),
        *(_as_run(manifest, layers) if manifest.qualified else (_NOT_RUN,)),
        notes_html(manifest.candidate, events),
        phases_html(events),
        reproduce_html(manifest, events),
        _origin(manifest),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{PAGE_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _as_run(manifest: Manifest, layers: LayerBook) -> tuple[str, ...]:
    """What is known only of an engine that ran."""
    return (
        latency_table(manifest.latency),
        layer_times(layers),
        precision_map(layers),
        gate_table(manifest.gate, manifest.executed),
    )


def _head(manifest: Manifest, goal: Goal) -> str:
    winner = next(outcome for outcome in manifest.outcomes if outcome.status is Status.CHOSEN)
    counts = Counter(outcome.status for outcome in manifest.outcomes if outcome.status is not Status.CHOSEN)
    fates = ", ".join(f"{count} {status}" for status, count in counts.items())
    return (
        f"<h1>{escape(manifest.model)}</h1>"
        f'<p class="lead">Chosen of {len(manifest.outcomes)} candidates{f" ({fates})" if fates else ""}: '
        f'<strong class="won">{escape(manifest.candidate.name)}</strong>, {_speed(winner, manifest, goal)}.</p>'
        f'<p class="lead">{escape(winner.reason[:1].upper() + winner.reason[1:])}.{_gain(manifest, goal)}</p>'
        f'<p class="lead">{_verdict(manifest)}</p>'
    )


def _verdict(manifest: Manifest) -> str:
    """What the gate said, and on which machine where that is not the one that built."""
    if not manifest.qualified:
        return f"Not qualified: it has to run on a machine with {escape(str(manifest.candidate.target))} first."
    facts = manifest.provenance
    where = (
        f" Qualified {escape(facts.qualified)} on {escape(facts.device.get('cpu', '?'))}." if facts.qualified else ""
    )
    return f"Gate: {escape(manifest.gate.verdict)}; {len(manifest.gate.checks)} checks.{where}"


def _speed(winner: Outcome, manifest: Manifest, goal: Goal) -> str:
    row = winner.deciding_row(goal)
    if row is None:
        return f"at {escape(format_shapes(manifest.candidate.profile.opt))}"
    rate = f"{number(gains.rate(row))} rows a second, " if goal.is_throughput else ""
    return f"{rate}{gains.ms(row.latency.median)} ms at {escape(format_shapes(row.shapes))}"


def _gain(manifest: Manifest, goal: Goal) -> str:
    ratio = speedup(manifest.outcomes, manifest.baseline, goal)
    if ratio is None:
        return ""
    if manifest.baseline == manifest.candidate.name:
        return " It is what one would run without Tailorbird, now with its gate passed."
    return f" {ratio:.2f}x the speed of {escape(manifest.baseline)}, what one would run without Tailorbird."


def _pictures(manifest: Manifest, events: Sequence[Event], goal: Goal) -> str:
    plot = plot_of(manifest.outcomes, manifest.budget, manifest.baseline, goal)
    parts = [part for part in (_plot(plot) if plot else "", sensitivity_bars(events)) if part]
    kind = "beside" if len(parts) == 2 else "alone"
    columns = "".join(f"<section>{part}</section>" for part in parts)
    return f'<div class="{kind}">{columns}</div>' if parts else ""


def _plot(plot: Plot) -> str:
    wide, narrow = scatter_svg(plot), scatter_svg(plot, *_NARROW)
    return (
        f'<h2>Speed and accuracy</h2><div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
        '<p class="lead">Every engine that met the gate; rest a pointer on a mark for its name. '
        "Refused ones were timed at a first look only.</p>"
    )


def _origin(manifest: Manifest) -> str:
    facts = manifest.provenance
    lines = {
        "passes": ", ".join(facts.passes) or "none",
        "built": facts.created,
    }
    rows = "".join(f"<tr><th>{key}<td><code>{escape(value)}</code></tr>" for key, value in lines.items())
    return f'<h2>Where it comes from</h2><div class="scroll"><table class="facts">{rows}</table></div>'
