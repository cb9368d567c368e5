"""Reproduce: the command, the packages and the digests that lead to the same build again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from tailorbird.builder.figures.guilt import Event
from tailorbird.builder.kit.settings import SAID_THERE
from tailorbird.domain.budget import Budget
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.kit import SUFFIX as KIT
from tailorbird.domain.manifest import Manifest

_REPEATED = {"backends": "--backend", "precisions": "--precision", "options": "--option"}
_JOINED = {"threads": "--threads", "ranges": "--calibration"}
_LIMITS = {"seconds": ("--time-limit", 1), "memory_bytes": ("--memory-limit", 2**20)}


def reproduce_html(manifest: Manifest, events: Sequence[Event]) -> str:
    """The section: what to install, what to run, and what the bytes that went in must digest to."""
    started: Event = next((event for event in events if event["event"] == "started"), {})
    facts = manifest.provenance
    source, config = str(started.get("source", facts.source)), dict(started.get("config", {}))
    lines = [
        ("install", requirements(facts.versions)),
        ("build", command(source, config, f"{manifest.model}.engine")),
        ("compare", f"tailorbird compare OLD.engine {_quoted(manifest.model + '.engine')}"),
    ]
    shown = "".join(f"<tr><th>{name}<td><code>{escape(line)}</code></tr>" for name, line in lines)
    digests = {"source": facts.source_digest, "normalised graph": facts.normalised_digest}
    digests |= {"data": data} if (data := facts.ingredients.get("data")) else {}
    digested = "".join(f"<tr><th>{name}<td><code>{escape(value)}</code></tr>" for name, value in digests.items())
    said = (
        "The same source, data, versions and device lead to the same candidates and the same verdicts. Times differ by "
        "the noise of the machine, and so may the choice between engines that are level."
    )
    return (
        f'<h2>How to reproduce it</h2><p class="lead">{said}</p>'
        f'<div class="scroll"><table class="facts">{shown}{digested}{_device(facts.device, config)}</table></div>'
    )


def command(source: str, config: Mapping[str, Any], output: str) -> str:
    """``tailorbird build`` with the flags that lead to these settings; those left as they are by default are left out.

    Args:
        source: as the user named it.
        config: the settings as the build log has them; fields that are missing count as defaults.
        output: the file to write.
    """
    if source.endswith(KIT):  # which has the other settings itself
        config = {key: value for key, value in config.items() if key in SAID_THERE}
    words = ["tailorbird", "build", source, "-o", output, *_flags(config)]
    return " ".join(map(_quoted, words))


def requirements(versions: Mapping[str, str]) -> str:
    """The versions as ``pip`` takes them."""
    return " ".join(["pip install", *(f"{_quoted(name)}=={_quoted(version)}" for name, version in versions.items())])


def _flags(config: Mapping[str, Any]) -> Iterator[str]:
    defaults = msgspec.json.decode(msgspec.json.encode(BuildConfig()))  # as the log has them: lists, no tuples
    for key, value in config.items():
        if key not in defaults or key == "cache" or value == defaults[key] or value is None:
            continue
        if key in _REPEATED:
            yield from (word for one in value for word in (_REPEATED[key], str(one)))
        elif key in _JOINED:
            yield from (_JOINED[key], ",".join(map(str, value)))
        elif key == "budget":
            yield from _budget(value)
        elif key == "limits":
            yield from _limits(value, defaults[key])
        elif isinstance(value, bool):
            yield f"--{'' if value else 'no-'}{key.replace('_', '-')}"
        else:
            yield from (f"--{key.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value))


def _limits(value: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    for key, (flag, unit) in _LIMITS.items():
        if value.get(key, defaults[key]) != defaults[key]:
            yield from (flag, f"{value[key] / unit:g}")


def _budget(value: Mapping[str, Any]) -> Iterator[str]:
    try:
        clauses = list(_clauses(msgspec.convert(value, Budget)))
    except msgspec.ValidationError:  # of another version: its command line is not ours to write
        return
    if clauses:
        yield from ("--budget", ", ".join(clauses))


def _clauses(budget: Budget) -> Iterable[str]:
    """The budget in its own spelling, see :func:`tailorbird.domain.budget.parse_budget`."""
    plain, metric = Budget(), f"{budget.metric} " if budget.metric else ""
    if budget.fidelity and (budget.snr_db != plain.snr_db or budget.cosine == plain.cosine):
        yield f"snr >= {budget.snr_db:g}"
    if budget.fidelity and budget.cosine != plain.cosine:
        yield f"cosine >= {budget.cosine:g}"
    if budget.drop is not None:
        yield f"{metric or 'top1 '}drop <= {budget.drop:g}"
    elif budget.share != plain.share or metric:
        yield f"{metric}{'>= ' if metric else ''}{100 * budget.share:g}%"


def _device(device: Mapping[str, str], config: Mapping[str, Any]) -> str:
    facts = {"seed": str(config.get("seed", 0)), "device": ", ".join(f"{key} {text}" for key, text in device.items())}
    return "".join(f"<tr><th>{name}<td><code>{escape(value)}</code></tr>" for name, value in facts.items())


def _quoted(word: str) -> str:
    return shlex.quote(word)
