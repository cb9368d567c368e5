"""The file to look at: one self-contained page with what was read, and why these engines read it."""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from tailorbird.api import Result
from tailorbird.demo.boxes import Box
from tailorbird.demo.models import RAPIDOCR, Model
from tailorbird.demo.pages import HEIGHT, WIDTH
from tailorbird.demo.plot import engine_card, gain
from tailorbird.demo.reader import Reading, ReadLine
from tailorbird.demo.style import BIRD, STYLE
from tailorbird.domain.dtype import Array
from tailorbird.domain.files import replacing

Results = Sequence[tuple[Model, Result]]


def write_show(path: Path, results: Results, readings: Sequence[Reading]) -> Path:
    """Write the page, in place of an earlier one, and return its absolute path.

    Needs neither network nor script to be read.
    """
    with replacing(path) as file:
        file.write(_document(results, readings).encode())
    return path.resolve()


def _document(results: Results, readings: Sequence[Reading]) -> str:
    parts = [
        f"<header>{BIRD}<h1>Three pages, read by two engines made for this machine</h1>{_lead(results)}</header>",
        _facts(results, readings),
        "<h2>What was read</h2>",
        *map(_reading, readings),
        "<h2>How the engines were chosen</h2>",
        '<p class="soft">Every candidate was built in a process of its own, checked against the FP32 model, and timed'
        " on real inputs; those that could win were measured in turn. The bars are medians: shorter is faster.</p>",
        *(engine_card(model, result) for model, result in results),
        "<h2>Where it ran</h2>",
        _about(results),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>The Tailorbird demo</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _lead(results: Results) -> str:
    tried = sum(len(result.table) for _, result in results)
    return (
        f'<p class="soft">PP-OCRv6, taken out of the published wheel {RAPIDOCR.package} {RAPIDOCR.version}: one model'
        f" finds lines of text, one reads them. Tailorbird tried {tried} ways to run them here, published the fastest"
        " that still answer as the originals do, and served them; the official <code>tritonclient</code> sent these"
        " pages over HTTP.</p>"
    )


def _facts(results: Results, readings: Sequence[Reading]) -> str:
    written = sum(len(line) for reading in readings for line in reading.page.lines)
    right = sum(reading.right * sum(map(len, reading.page.lines)) for reading in readings) / written
    facts = [(f"{100 * right:.1f} %", f"of {written} characters read right")]
    facts += [gain(model, result) for model, result in results if result.speedup]
    waited = statistics.median(reading.page_ms for reading in readings)
    facts.append((f"{waited:.0f} ms", "for a whole page, as the client waits"))
    return (
        '<dl class="facts">' + "".join(f"<div><dd>{value}</dd><dt>{what}</dt></div>" for value, what in facts) + "</dl>"
    )


def _reading(reading: Reading) -> str:
    pairs = zip_longest(reading.page.lines, reading.lines)
    rows = "".join(_row(number, written, line) for number, (written, line) in enumerate(pairs, 1))
    head = '<tr><th class="no"><th>written<th>read<th class="n">sure</tr>'
    name = escape(reading.page.name.capitalize())
    return (
        f'<section class="card reading">{_shot(reading)}<div>'
        f'<div class="title"><h3>{name}</h3><span class="tag">{100 * reading.right:.1f} % right</span></div>'
        f'<p class="soft">{reading.page_ms:.0f} ms for the page: {reading.detect_ms:.0f} ms to find the lines, '
        f"then {reading.requests - 1} requests of {reading.read_ms:.1f} ms to read them.</p>"
        f"<table>{head}{rows}</table></div></section>"
    )


def _row(number: int, written: str | None, line: ReadLine | None) -> str:
    read = line.text if line else ""
    verdict = "right" if written == read else "wrong"
    sure = f"{100 * line.confidence:.0f} %" if line else ""
    return (
        f'<tr><td class="no">{number}<td>{escape(written or "")}<td>{escape(read or "nothing")}'
        f'<td class="n {verdict}">{sure}</tr>'
    )


def _shot(reading: Reading) -> str:
    marks = "".join(_marks(number, line.boxes) for number, line in enumerate(reading.lines, 1))
    picture = f'width="{WIDTH}" height="{HEIGHT}" src="{_data_uri(reading.page.pixels)}"'
    return (
        f'<figure class="shot"><img alt="The {escape(reading.page.name)} as it was sent" {picture}>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">{marks}</svg></figure>'
    )


def _marks(number: int, boxes: Iterable[Box]) -> str:
    found = list(boxes)
    rects = "".join(f'<rect x="{b.left}" y="{b.top}" width="{b.width}" height="{b.height}" rx="3"/>' for b in found)
    x, y = max(found[0].left - 13, 11), (found[0].top + found[0].bottom) / 2
    return f'{rects}<circle cx="{x}" cy="{y}" r="10"/><text x="{x}" y="{y + 4.5}">{number}</text>'


def _data_uri(pixels: Array) -> str:
    """An image as a PNG inside the page; 128 colours are enough to look at, and a third of the bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).quantize(128).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _about(results: Results) -> str:
    facts = results[0][1].manifest.provenance
    lines = {
        "machine": ", ".join(f"{value}" if key == "cpu" else f"{key} {value}" for key, value in facts.device.items()),
        "versions": ", ".join(f"{name} {version}" for name, version in facts.versions.items()),
        "built": facts.created,
    }
    return (
        '<dl class="about">'
        + "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in lines.items())
        + "</dl>"
    )
