"""The manifest: everything needed to load, judge and reproduce one engine."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tailorbird.domain.budget import Budget, GateReport
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.errors import BundleError
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.objective import Goal
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.signature import Signature

SCHEMA = 1
"""Version of the manifest's form; a reader refuses a larger one."""


class Provenance(msgspec.Struct, frozen=True):
    """Where the engine came from: source, passes, tools, device."""

    source: str
    source_digest: str
    normalised_digest: str
    passes: tuple[str, ...]
    versions: dict[str, str]
    device: dict[str, str]
    created: str
    """UTC, ISO 8601."""
    ingredients: dict[str, str] = {}
    """All that the build follows from, by name: digests of source and data, settings, tools, device."""
    parent: str = ""
    """Digest of the manifest that this one came out of: of an unqualified bundle, or of a build kit."""
    built_on: dict[str, str] = {}
    """The device that compiled the engine, where another qualified it; ``device`` is the one it was gated on."""
    built_with: dict[str, str] = {}
    """Versions of the tools there."""
    qualified: str = ""
    """When another device than the builder's qualified it: UTC, ISO 8601."""


class EngineFormat(msgspec.Struct, frozen=True):
    """What other servers call this kind of engine: Triton's backend name and platform string."""

    backend: str
    platform: str
    filename: str
    """The file that is opened, under Triton's default name."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One engine of one model. ``decode(encode(manifest)) == manifest``."""

    schema: int = SCHEMA
    model: str
    candidate: Candidate
    format: EngineFormat
    signature: Signature
    files: dict[str, str]
    """Digest of every file of the version but the manifest itself, by path relative to the version."""
    executed: dict[str, int]
    """Layers by precision, as the runtime reports it."""
    latency: tuple[LatencyRow, ...]
    gate: GateReport
    budget: Budget
    outcomes: tuple[Outcome, ...]
    baseline: str = ""
    """Name of the candidate that speed-ups are told against; empty when it was not among them."""
    goal: Goal = Goal()
    """What fastest meant."""
    provenance: Provenance

    @property
    def qualified(self) -> bool:
        """Whether this very engine passed its gate and was measured; without both it is for no use but qualifying."""
        return self.gate.passed and bool(self.latency)


def speedup(outcomes: Sequence[Outcome], baseline: str, goal: Goal) -> float | None:
    """The baseline's cost over the chosen engine's, both measured in turn; None when either is missing."""
    theirs = next((o.cost(goal) for o in outcomes if o.candidate.name == baseline), None)
    ours = next((o.cost(goal) for o in outcomes if o.status is Status.CHOSEN), None)
    return theirs / ours if theirs and ours else None


class _Header(msgspec.Struct):
    schema: int


# Made once, when this module is imported: two threads that make msgspec decoders of one struct for the first time at
# the same moment crash the process.
_header = msgspec.json.Decoder(_Header)
_manifest = msgspec.json.Decoder(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest; raises :class:`BundleError` for a newer schema or anything malformed."""
    try:
        schema = _header.decode(data).schema
        if schema > SCHEMA:
            raise BundleError("the manifest's schema is newer than this Tailorbird", got=schema, expected=SCHEMA,
                              hint="upgrade Tailorbird: pip install --upgrade tailorbird")  # fmt: skip
        return _manifest.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError("the manifest cannot be read", got=error, hint="restore the bundle from its source") from None
