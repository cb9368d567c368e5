"""Recorded facts of two builds, by area, and those that differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from tailorbird.builder.compare.comparison import Area, Difference
from tailorbird.builder.compare.graphs import GraphChange
from tailorbird.builder.compare.sides import Side
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.manifest import Manifest
from tailorbird.domain.profile import format_shapes

Facts = dict[tuple[Area, str], str]

_NAME = re.compile(
    r"(?P<runtime>\S+) (?P<precision>\S+) (?P<mode>\S+) t(?P<threads>\d+)(?:x(?P<instances>\d+))?(?P<rest>.*)"
)
_NAMES_SHOWN = 6
_EXECUTED = "executed layers"
_MOST_NESTED = 16

_DATA_SETTINGS = ("data", "labels", "metric", "seed", "ranges")
_BUDGET_SETTINGS = ("budget", "objective", "slo_ms", "time_budget", "precisions", "backends")


def differences(a: Side, b: Side, graph: GraphChange | None) -> tuple[Difference, ...]:
    """What differs, area by area. A fact that one side did not record is not compared."""
    mine, theirs = facts_of(a), facts_of(b)
    found = [Difference(area, what, mine[area, what], theirs[area, what])
             for area, what in mine if (area, what) in theirs and mine[area, what] != theirs[area, what]]  # fmt: skip
    found = [msgspec.structs.replace(one, area=Area.FUSION) if _is_a_count(one) else one for one in found]
    found += _graph_differences(graph) if graph else []
    order = list(Area)
    return tuple(sorted(found, key=lambda one: order.index(one.area)))


def _is_a_count(one: Difference) -> bool:
    """Whether layers of one same precision are more or fewer: that is no difference of precision."""
    kinds = [{part.partition(" x ")[2] for part in text.split(", ")} for text in (one.a, one.b)]
    return one.what == _EXECUTED and kinds[0] == kinds[1] and len(kinds[0]) == 1


def facts_of(side: Side) -> Facts:
    """Everything that one side recorded, as words that can be compared."""
    facts: Facts = {}
    if side.manifest is not None:
        facts |= _manifest_facts(side.manifest)
        facts |= _candidate_facts(side.manifest.candidate)
        facts |= _provenance_facts(side.manifest.provenance.versions, side.manifest.provenance.device,
                                   side.manifest.candidate.target.runtime)  # fmt: skip
    else:
        facts |= _name_facts(side.name)
        facts |= _started_facts(side)
    return facts | _log_facts(side)


def _manifest_facts(manifest: Manifest) -> Facts:
    origin = manifest.provenance
    executed = ", ".join(f"{count} x {name}" for name, count in sorted(manifest.executed.items()))
    return {
        (Area.GRAPH, "source"): origin.source_digest,
        (Area.GRAPH, "normalised graph"): origin.normalised_digest,
        (Area.GRAPH, "passes"): ", ".join(origin.passes) or "none",
        (Area.GRAPH, "signature"): ", ".join(map(str, (*manifest.signature.inputs, *manifest.signature.outputs))),
        (Area.PRECISION, _EXECUTED): executed,
        (Area.BUDGET, "budget"): _budget_words(manifest),
        (Area.BUDGET, "objective"): str(manifest.goal.objective),
        **({(Area.DATA, "content"): data} if (data := origin.ingredients.get("data")) else {}),
    }


def _budget_words(manifest: Manifest) -> str:
    budget = manifest.budget
    return f"{budget.words}, SNR {budget.snr_db:g} dB, cosine {budget.cosine:g}, top1 {budget.top1:g}"


def _candidate_facts(candidate: Candidate) -> Facts:
    facts = {
        (Area.PRECISION, "asked for"): str(candidate.precision),
        (Area.SHAPES, "shape mode"): str(candidate.shape_mode),
        (Area.SHAPES, "profile"): str(candidate.profile),
        (Area.RUNTIME, "runtime"): candidate.target.runtime,
        (Area.DEVICE, "target"): f"{candidate.target.device}:{candidate.target.arch}",
        (Area.THREADS, "threads"): str(candidate.threads),
        (Area.INSTANCES, "instances"): str(candidate.instances),
        (Area.OPTIONS, "options"): options_words(candidate),
    }
    quantised = candidate.quantisation
    facts[Area.QUANTISATION, "method"] = quantised.method if quantised else "none"
    if quantised:
        facts[Area.QUANTISATION, "ranges"] = str(quantised.ranges or "none")
        facts[Area.QUANTISATION, "precision of the rest"] = str(quantised.rest)
    facts[Area.QUANTISATION, "kept in float"] = _listed(sorted(quantised.kept)) if quantised else "none"
    return facts


def options_words(candidate: Candidate) -> str:
    """Runtime options as ``name=value``."""
    return ", ".join(f"{key}={value}" for key, value in sorted(candidate.options.items())) or "none"


def _provenance_facts(versions: Mapping[str, str], device: Mapping[str, str], runtime: str) -> Facts:
    facts = {(Area.DEVICE, what): value for what, value in device.items() if what not in ("python", "arch")}
    for tool, version in versions.items():
        facts[(Area.VERSION if tool == runtime else Area.TOOLS), tool] = version
    if "python" in device:
        facts[Area.TOOLS, "python"] = device["python"]
    return facts


def _name_facts(name: str) -> Facts:
    """What a candidate's name says, where only a log is left of it."""
    found = _NAME.fullmatch(name)
    if found is None:
        return {}
    return {
        (Area.PRECISION, "asked for"): found["precision"],
        (Area.SHAPES, "shape mode"): found["mode"],
        (Area.RUNTIME, "runtime"): found["runtime"],
        (Area.THREADS, "threads"): found["threads"],
        (Area.INSTANCES, "instances"): found["instances"] or "1",
    }


def _started_facts(side: Side) -> Facts:
    started = side.event("started")
    versions, device = started.get("versions"), started.get("device")
    return _provenance_facts(_texts(versions), _texts(device), side.name.partition(" ")[0])


def _log_facts(side: Side) -> Facts:
    """Settings and data, of which only the log tells."""
    settings, cases = side.event("started").get("config"), side.event("cases")
    facts: Facts = {}
    if isinstance(settings, dict):
        facts |= {(Area.DATA, name): _words(settings.get(name)) for name in _DATA_SETTINGS if name in settings}
        own = _BUDGET_SETTINGS if side.manifest is None else _BUDGET_SETTINGS[2:]
        facts |= {(Area.BUDGET, name): _words(settings.get(name)) for name in own if name in settings}
    facts |= {(Area.DATA, f"{name} sets"): _words(cases[name]) for name in ("real", "calibration") if name in cases}
    if side.manifest is None and "profile" in cases:
        facts[Area.SHAPES, "profile"] = _words(cases["profile"])
    return facts


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(item) for key, item in value.items()} if isinstance(value, dict) else {}


def _words(value: object, depth: int = _MOST_NESTED) -> str:
    if isinstance(value, (dict, list)) and not depth:
        return "..."
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item, depth - 1)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_words(item, depth - 1) for item in value) or "none"
    return "none" if value in (None, "") else str(value)


def _graph_differences(graph: GraphChange) -> list[Difference]:
    kinds: dict[str, Callable[[GraphChange], tuple[str, ...]]] = {
        "nodes added": lambda one: one.added,
        "nodes changed": lambda one: one.changed,
        "nodes reading from others": lambda one: one.rewired,
    }
    found = [Difference(Area.GRAPH, what, "-", named(names(graph), graph.operators))
             for what, names in kinds.items() if names(graph)]  # fmt: skip
    if graph.removed:
        found.append(Difference(Area.GRAPH, "nodes removed", named(graph.removed, graph.operators), "-"))
    if graph.retrained:
        found.append(Difference(Area.WEIGHTS, "nodes with other weights", "-", named(graph.retrained, graph.operators)))
    return found


def named(names: Iterable[str], operators: Mapping[str, str]) -> str:
    """Nodes with their operators, the first few of many: ``3 (conv_7 Conv, conv_8 Conv, relu Relu)``."""
    listed = [f"{name} {operators.get(name, '')}".strip() for name in names]
    return f"{len(listed)} ({_listed(listed)})"


def _listed(names: list[str]) -> str:
    return ", ".join(_first(names)) or "none"


def _first(names: list[str]) -> Iterator[str]:
    yield from names[:_NAMES_SHOWN]
    if len(names) > _NAMES_SHOWN:
        yield f"and {len(names) - _NAMES_SHOWN} more"


def place_words(shapes: Mapping[str, tuple[int, ...]], instances: int) -> str:
    """A place for people: ``x:1x3x64x64``, with the instances where there are several."""
    several = f" with {instances} instances" if instances > 1 else ""
    return f"{format_shapes(shapes)}{several}"
