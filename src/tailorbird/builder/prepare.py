"""Prepare, in a process of its own: read the source safely, normalise it, and lay out inputs.

A hostile or huge file is parsed here, never in the process that the user called.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailorbird.builder.cases.data import Data, distinct_rows, load_data, save_set
from tailorbird.builder.cases.places import Place, places_of, plan_profile
from tailorbird.builder.cases.split import InputSet, Split, Unit, cover, deal, digest_sets, fits, split_units, units_of
from tailorbird.builder.cases.synthesise import index_limits, synthesise
from tailorbird.builder.gate.judge import ROW_SETS, Case
from tailorbird.builder.gate.metrics import find_metric, resolve_metric
from tailorbird.builder.graph.normalise import normalise
from tailorbird.builder.graph.outline import write_outline
from tailorbird.builder.sources.onnx_file import external_files, read_model, signature_of, source_digest, write_model
from tailorbird.builder.sources.source import External, ExternalArgs
from tailorbird.domain.budget import Budget
from tailorbird.domain.errors import InputError, UsageError
from tailorbird.domain.profile import Profile, format_shapes, parse_shapes
from tailorbird.domain.signature import Signature

OPT_SETS = 4
"""Unlabelled sets of inputs at the opt place; other places get one."""

MANY_SETS = 8
"""The same where they take no more than ``UNLABELLED_ROWS`` and the data has as many held out."""

UNLABELLED_ROWS = 32

OUTLINE = "graph.json"
"""Beside the normalised model."""


class PrepareArgs(msgspec.Struct, frozen=True):
    """An ONNX file and where to write the normalised one."""

    model: str
    normalised: str
    skip: tuple[str, ...] = ()


class Prepared(msgspec.Struct, frozen=True):
    """What is known of the source once it is normalised."""

    signature: Signature
    source_digest: str
    normalised_digest: str
    passes: tuple[str, ...]
    notes: tuple[str, ...]
    rewrites: tuple[str, ...]
    """Names of the passes that replaced operators."""
    index_limits: dict[str, int]


class CasesArgs(msgspec.Struct, frozen=True):
    """What the cases follow from, and the directory that receives them."""

    signature: Signature
    index_limits: dict[str, int]
    min_shapes: str
    opt_shapes: str
    max_shapes: str
    data: str
    seed: int
    folder: str
    labels: str = ""
    """Key of the labels in the data; empty for the usual ones."""
    metric: str = ""
    """What the user wants labels scored by; empty when nothing was said."""


class Cases(msgspec.Struct, frozen=True):
    """The profile and its cases; outputs are named but not yet written."""

    profile: Profile
    cases: tuple[Case, ...]
    """What the gate judges: held-out data where there is any, at every place."""
    calibration: tuple[Case, ...] = ()
    """What candidates are calibrated on, at the opt place; empty where there is no data, or one row only."""
    labelled: bool = False
    data_digest: str = ""
    """Of the content of the calibration sets, in order; empty without them."""
    notes: tuple[str, ...] = ()


def external(args: ExternalArgs) -> External:
    """The data files that an ONNX file names; raises :class:`ModelError` for what cannot be a model."""
    return External(external_files(Path(args.model)))


def prepare(args: PrepareArgs) -> Prepared:
    """Read, normalise and write the model, its outline beside it; raises :class:`ModelError` for what is none."""
    source = Path(args.model)
    model = read_model(source)
    signature = signature_of(model)
    normalised = normalise(model, frozenset(args.skip))
    target = Path(args.normalised)
    write_model(normalised.model, target)
    write_outline(normalised.model, target.with_name(OUTLINE))
    return Prepared(
        signature=signature,
        source_digest=source_digest(source),
        normalised_digest=source_digest(target),
        passes=normalised.applied,
        notes=normalised.notes,
        rewrites=normalised.rewrites,
        index_limits=index_limits(normalised.model),
    )


def lay_out(args: CasesArgs) -> Cases:
    """Decide the profile and write inputs for every place: the user's data where it fits, otherwise synthetic.

    Raises:
        UsageError, InputError: shapes, data, labels or the metric are wrong.
    """
    data = _data(args)
    batch = args.signature.batch_dim
    sample = {name: array.shape for name, array in data.samples[0].items()} if data.samples else None
    said = {"min": args.min_shapes, "opt": args.opt_shapes, "max": args.max_shapes}
    profile = plan_profile(args.signature, {edge: parse_shapes(text) for edge, text in said.items()}, sample)
    places = places_of(profile, args.signature)
    split = split_units(units_of(data, batch), places[0], batch, args.seed)
    cases = [case for place in places for case in _at(place, split, args)]
    if data.labels and not any(case.labels for case in cases):
        raise InputError("no labelled sample has the shapes to build for", got=format_shapes(sample or {}),
                         expected=str(profile), hint="give --opt-shapes of the data")  # fmt: skip
    calibration = cover(split.calibration, places[0], batch)
    return Cases(
        profile=profile,
        cases=tuple(cases),
        calibration=tuple(_written(places[0], f"{args.folder}/calib-{n}", one) for n, one in enumerate(calibration)),
        labelled=bool(data.labels),
        data_digest=digest_sets(calibration),
        notes=(*data.notes, *split.notes, *_made_up(cases, bool(data.samples))),
    )


def _data(args: CasesArgs) -> Data:
    """The data, and a metric that can be loaded where one was named: nothing is found wrong after minutes."""
    if args.labels and not args.data:
        raise UsageError(f"there is no data to hold labels under '{args.labels}'", hint="give --data")
    data = load_data(args.data, args.signature, args.labels) if args.data else Data()
    if metric := resolve_metric(args.metric, Budget(), bool(data.labels)):
        find_metric(metric)
    return data


def _made_up(cases: list[Case], given: bool) -> tuple[str, ...]:
    """A note on places that the data does not reach."""
    real = {case.place.edge for case in cases if case.real}
    edges = dict.fromkeys(case.place.edge for case in cases if case.place.edge not in real)
    return (f"no data has the shapes of {', '.join(edges)}: synthetic inputs there",) if edges and given else ()


def _at(place: Place, split: Split, args: CasesArgs) -> list[Case]:
    """The place's cases. Rows that are all alike cannot show mixed-up rows, so synthetic ones join them."""
    count = OPT_SETS if place.edge == "opt" else 1
    real = _held_out(place, split.held, args.signature.batch_dim)
    shown = any(distinct_rows(one.inputs, place.rows) for one in real[:ROW_SETS])
    lacking = 0 if real and shown else 1 if real else count
    made = [InputSet(synthesise(args.signature, place.shapes, args.index_limits, args.seed + n))
            for n in range(lacking)]  # fmt: skip
    return [_written(place, f"{args.folder}/{place.edge}-{number}", one, number < len(real))
            for number, one in enumerate(real + made)]  # fmt: skip


def _held_out(place: Place, held: list[Unit], batch: str | None) -> list[InputSet]:
    """Every labelled unit that fits, once; without labels a few sets."""
    if any(unit.labels is not None for unit in held):
        return cover(held, place, batch)
    if place.edge != "opt":
        return deal(held, place, batch, 1)
    rows = MANY_SETS * (place.rows if batch else 1)
    many = rows <= UNLABELLED_ROWS and sum(fits(unit, place, batch) for unit in held) >= rows
    return deal(held, place, batch, MANY_SETS if many else OPT_SETS)


def _written(place: Place, stem: str, one: InputSet, real: bool = True) -> Case:
    save_set(Path(f"{stem}-in.npz"), one.inputs)
    labels = ""
    if one.labels is not None:
        labels = f"{stem}-labels.npz"
        save_set(Path(labels), {"labels": one.labels})
    return Case(place, f"{stem}-in.npz", f"{stem}-out.npz", real, labels)
