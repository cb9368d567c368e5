"""Prepare, in a process of its own: read the source safely, normalise it, and lay out inputs.

A hostile or huge file is parsed here, never in the process that the user called.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailorbird.builder.cases.data import Sample, deal, distinct_rows, load_samples, save_set
from tailorbird.builder.cases.places import Place, places_of, plan_profile
from tailorbird.builder.cases.synthesise import index_limits, synthesise
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.graph.normalise import normalise
from tailorbird.builder.sources.onnx_file import read_model, signature_of, source_digest, write_model
from tailorbird.domain.digest import digest_file
from tailorbird.domain.profile import Profile, parse_shapes
from tailorbird.domain.signature import Signature

OPT_SETS = 4
"""Sets of inputs at the opt place; other places get one."""


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


class Cases(msgspec.Struct, frozen=True):
    """The profile and its cases; outputs are named but not yet written."""

    profile: Profile
    cases: tuple[Case, ...]


def prepare(args: PrepareArgs) -> Prepared:
    """Read, normalise and write the model; raises :class:`ModelError` for what cannot be a model."""
    source = Path(args.model)
    model = read_model(source)
    signature = signature_of(model)
    normalised = normalise(model, frozenset(args.skip))
    target = Path(args.normalised)
    write_model(normalised.model, target)
    return Prepared(
        signature=signature,
        source_digest=source_digest(source),
        normalised_digest=digest_file(target),
        passes=normalised.applied,
        notes=normalised.notes,
        rewrites=normalised.rewrites,
        index_limits=index_limits(normalised.model),
    )


def lay_out(args: CasesArgs) -> Cases:
    """Decide the profile and write inputs for every place: the user's data where it fits, otherwise synthetic.

    Raises:
        UsageError, InputError: shapes or data contradict the signature.
    """
    samples = load_samples(args.data, args.signature) if args.data else []
    sample = {name: array.shape for name, array in samples[0].items()} if samples else None
    said = {"min": args.min_shapes, "opt": args.opt_shapes, "max": args.max_shapes}
    profile = plan_profile(args.signature, {edge: parse_shapes(text) for edge, text in said.items()}, sample)
    cases = [case for place in places_of(profile, args.signature) for case in _at(place, samples, args)]
    return Cases(profile, tuple(cases))


def _at(place: Place, samples: list[Sample], args: CasesArgs) -> list[Case]:
    """The place's cases. Rows that are all alike cannot show mixed-up rows, so synthetic ones join them."""
    count = OPT_SETS if place.edge == "opt" else 1
    real = deal(samples, place, args.signature.batch_dim, count)
    lacking = 0 if real and any(distinct_rows(one, place.rows) for one in real) else 1 if real else count
    made = [synthesise(args.signature, place.shapes, args.index_limits, args.seed + n) for n in range(lacking)]
    return [_case(place, args.folder, number, one, number < len(real)) for number, one in enumerate(real + made)]


def _case(place: Place, folder: str, number: int, tensors: Sample, real: bool) -> Case:
    stem = f"{folder}/{place.edge}-{number}"
    save_set(Path(f"{stem}-in.npz"), tensors)
    return Case(place, f"{stem}-in.npz", f"{stem}-out.npz", real)
