"""The flags of ``build``, by what they are about, and the settings they become."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from tailorbird.domain.budget import SPELLINGS
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import UsageError, nearest
from tailorbird.domain.objective import Objective
from tailorbird.domain.quantisation import Ranges


def _group(name: str, place: int) -> Parameter:
    return Parameter(name="*", group=Group(name, sort_key=place))


def _shapes(edge: str) -> Parameter:
    return Parameter(name=[f"--{edge}-shapes", f"--{edge}Shapes"], help=f"{edge} shapes: name:1x3x224x224,other:1x128.")


@_group("What is served", 1)
@dataclass(frozen=True, kw_only=True)
class Serving:
    """The shapes to serve, and what fastest means."""

    min_shapes: Annotated[str | None, _shapes("min")] = None
    opt_shapes: Annotated[str | None, _shapes("opt")] = None
    max_shapes: Annotated[str | None, _shapes("max")] = None
    objective: Annotated[
        str | None, Parameter(help="latency (one request at a time; the default) or throughput (rows a second).")
    ] = None
    slo_ms: Annotated[
        float | None, Parameter(help="with throughput: milliseconds a batch may take at its 99th percentile.")
    ] = None


@_group("Data and accuracy", 2)
@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What is right, and what it is judged and calibrated on."""

    data: Annotated[
        str | None, Parameter(help="real inputs: an .npz file, a directory of them, or module:callable.")
    ] = None
    labels: Annotated[str | None, Parameter(help="key of the labels in the data; labels or label without it.")] = None
    metric: Annotated[
        str | None, Parameter(help="what scores outputs against labels: top1, top5, f1, accuracy or module:callable.")
    ] = None
    budget: Annotated[str | None, Parameter(help=f"the loss that is allowed: {SPELLINGS}.")] = None
    calibration: Annotated[
        str | None, Parameter(help="how INT8 ranges are found, each is tried: minmax,percentile,entropy.")
    ] = None
    seed: Annotated[int | None, Parameter(help="of synthetic inputs.")] = None


@_group("What is tried", 3)
@dataclass(frozen=True, kw_only=True)
class Search:
    """Which candidates take part, and what they may use."""

    threads: Annotated[str | None, Parameter(help="thread counts to try, as 1,2,4.")] = None
    backend: Annotated[list[str] | None, Parameter(negative="", help="a backend to try; repeatable.")] = None
    precision: Annotated[list[str] | None, Parameter(negative="", help="a precision to try; repeatable.")] = None
    option: Annotated[
        list[str] | None,
        Parameter(negative="", help="an option of the backends that have it, as optimization_level=5; repeatable."),
    ] = None
    time_budget: Annotated[
        float | None, Parameter(help="seconds after which no further candidate is begun; 0 for no bound.")
    ] = None
    time_limit: Annotated[float | None, Parameter(help="seconds one step of one candidate may take.")] = None
    memory_limit: Annotated[int | None, Parameter(help="MiB one candidate may use.")] = None
    cache: Annotated[
        str | None, Parameter(help="a directory for what builds share; a build made before returns at once.")
    ] = None


@_group("Where it runs", 4)
@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What to build for, and what of that can wait for the device."""

    target: Annotated[
        str | None, Parameter(help="what to build for, as tensorrt_rtx:cuda:sm86; this machine without it.")
    ] = None
    qualify: Annotated[
        bool | None,
        Parameter(negative="--no-qualify", help="gate and measure here, or leave both to 'tailorbird qualify'."),
    ] = None
    keep_kit: Annotated[
        bool | None,
        Parameter(negative="", help="keep a build kit in the bundle, to build it again where it no longer loads."),
    ] = None


def settings_of(config: Path, *groups: Serving | Accuracy | Search | Elsewhere) -> BuildConfig:
    """The settings of a TOML file with the flags given winning over them.

    Raises:
        UsageError: a value is wrong; the nearest right one is named.
    """
    from tailorbird.domain.config import load_config

    settings = load_config(config, **flagged(*groups))
    _check(settings)
    return settings


def flagged(*groups: Serving | Accuracy | Search | Elsewhere) -> dict[str, Any]:
    """The settings that were said with flags, those among them that say what holds without."""
    flags = {name: value for group in groups for name, value in dataclasses.asdict(group).items()}
    return {name: value for name, value in _named_as_settings(flags).items() if value is not None}


def _named_as_settings(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags are named for the hand, one at a time; settings for the record."""
    seconds, mebibytes = flags.pop("time_limit"), flags.pop("memory_limit")
    limits = {"seconds": seconds, "memory_bytes": mebibytes * 2**20 if mebibytes else None}
    return flags | {
        "backends": flags.pop("backend"),
        "precisions": flags.pop("precision"),
        "options": flags.pop("option"),
        "threads": counts(flags.pop("threads")),
        "ranges": ranges(flags.pop("calibration")),
        "objective": objective(flags.pop("objective")),
        "limits": {key: value for key, value in limits.items() if value is not None} or None,
    }


def _check(settings: BuildConfig) -> None:
    """What no type can say, before the long work rather than in it."""
    from tailorbird.builder.gate.metrics import resolve_metric

    resolve_metric(settings.metric, settings.budget, labelled=True)
    if settings.slo_ms is not None and not settings.slo_ms > 0:
        raise UsageError("the SLO is no time", got=f"{settings.slo_ms:g} ms", expected="more than 0")
    if settings.slo_ms is not None and settings.objective is not Objective.THROUGHPUT:
        raise UsageError("an SLO bounds the throughput objective only", got=f"the {settings.objective} objective",
                         hint="add --objective throughput, or leave --slo-ms out")  # fmt: skip
    if not settings.time_budget >= 0:
        raise UsageError("the time budget is no time", got=f"{settings.time_budget:g} s", expected="0 or more")


def counts(text: str | None) -> list[int] | None:
    """Thread counts as ``1,2,4``; raises :class:`UsageError` for anything else."""
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError("cannot read --threads", got=text, expected="whole numbers, as 1,2,4") from None


def ranges(text: str | None) -> list[str] | None:
    """Calibrations as ``minmax,percentile``, each once; raises :class:`UsageError` naming the nearest."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    return list(dict.fromkeys(_known(word, Ranges, "calibration") for word in words))


def objective(text: str | None) -> str | None:
    """An objective's name; raises :class:`UsageError` naming the nearest."""
    return None if text is None else _known(text, Objective, "objective")


def _known(word: str, known: Iterable[str], what: str) -> str:
    names = tuple(map(str, known))
    if word in names:
        return word
    close = nearest(word, names)
    raise UsageError(f"unknown {what} '{word}'", expected=", ".join(names),
                     hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
