"""The bill of materials of one version, as CycloneDX 1.6 JSON with a model card (an "ML-BOM").

Facts only: each field is read from the verified manifest, and what Tailorbird does not know (licence, task, training
data, intended use) is left out rather than filled in. Equal versions give equal bytes: the serial number follows from
the manifest's digest, the time is the build's. Fields: https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from tailorbird.domain.budget import Check
from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.manifest import Manifest, encode_manifest
from tailorbird.domain.profile import format_shapes
from tailorbird.domain.signature import TensorSpec
from tailorbird.repository.signing.trust import Verified

SPEC_VERSION = "1.6"
MEDIA_TYPE = "application/vnd.cyclonedx+json"

Json = dict[str, Any]


def bill_of_materials(version: Verified) -> bytes:
    """The bill of a verified version, as indented JSON."""
    manifest = version.manifest
    digest = version.digest or digest_bytes(encode_manifest(manifest))
    bill = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, digest).urn,
        "version": 1,
        "metadata": {
            "timestamp": manifest.provenance.created,
            "tools": {"components": [_tool(*tool) for tool in sorted(manifest.provenance.versions.items())]},
            "component": _engine(version, digest),
        },
        "components": [_source(manifest), _runtime(manifest), *_files(manifest)],
        "dependencies": _dependencies(manifest),
    }
    return msgspec.json.format(msgspec.json.encode(bill), indent=2)


def _engine(version: Verified, digest: str) -> Json:
    manifest = version.manifest
    return {
        "type": "machine-learning-model",
        "bom-ref": "engine",
        "name": manifest.model,
        "description": manifest.candidate.name,
        "hashes": [_hash(digest)],
        "modelCard": {
            "modelParameters": {
                "inputs": [_tensor(spec) for spec in manifest.signature.inputs],
                "outputs": [_tensor(spec) for spec in manifest.signature.outputs],
            },
            "quantitativeAnalysis": {"performanceMetrics": [*_accuracy(manifest), *_latency(manifest.latency)]},
        },
        "properties": _properties(_engine_facts(version)),
    }


def _engine_facts(version: Verified) -> Iterator[tuple[str, str]]:
    manifest = version.manifest
    yield "target", str(manifest.candidate.target)
    yield "precision", manifest.candidate.precision
    yield "gate", manifest.gate.verdict
    yield from ((f"layers executed in {name}", str(count)) for name, count in sorted(manifest.executed.items()))
    yield from ((f"{edge} shapes", format_shapes(shapes)) for edge, shapes in _edges(manifest))
    yield from ((f"built on {name}", value) for name, value in sorted(manifest.provenance.device.items()))
    yield from ((f"ingredient {name}", text) for name, text in sorted(manifest.provenance.ingredients.items()))
    yield "signed by", version.signer.key if version.signer else "nobody"


def _edges(manifest: Manifest) -> Iterable[tuple[str, Any]]:
    profile = manifest.candidate.profile
    return ("min", profile.min), ("opt", profile.opt), ("max", profile.max)


def _source(manifest: Manifest) -> Json:
    facts = manifest.provenance
    passes = [("normalised digest", facts.normalised_digest), *(("pass", name) for name in facts.passes)]
    return {
        "type": "machine-learning-model",
        "bom-ref": "source",
        "name": facts.source,
        "hashes": [_hash(facts.source_digest)],
        "properties": _properties(passes),
    }


def _runtime(manifest: Manifest) -> Json:
    name = manifest.candidate.target.runtime
    known = manifest.provenance.versions.get(name)
    package = {"version": known, "purl": f"pkg:pypi/{name}@{known}"} if known else {}
    return {"type": "library", "bom-ref": "runtime", "name": name, **package}


def _files(manifest: Manifest) -> Iterator[Json]:
    for name, digest in sorted(manifest.files.items()):
        yield {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [_hash(digest)]}


def _dependencies(manifest: Manifest) -> list[Json]:
    parts = ["source", "runtime", *(f"file:{name}" for name in sorted(manifest.files))]
    return [{"ref": "engine", "dependsOn": parts}, *({"ref": part} for part in parts)]


def _accuracy(manifest: Manifest) -> Iterator[Json]:
    yield from (_check(check) for check in manifest.gate.checks)


def _check(check: Check) -> Json:
    return {"type": check.rule, "value": str(check.measured), "slice": check.where}


def _latency(rows: Iterable[LatencyRow]) -> Iterator[Json]:
    for row in rows:
        found = row.latency
        where = f"{format_shapes(row.shapes)}, {row.instances} at once, {found.runs} runs"
        quartiles = {"lowerBound": str(found.p25), "upperBound": str(found.p75)}
        yield {"type": "median latency, ms (bounds: quartiles)", "value": str(found.median), "slice": where,
               "confidenceInterval": quartiles}  # fmt: skip
        yield {"type": "99th percentile latency, ms", "value": str(found.p99), "slice": where}


def _tensor(spec: TensorSpec) -> Json:
    return {"format": f"{spec.name}: {spec.dtype} [{', '.join(map(str, spec.dims))}]"}


def _tool(name: str, version: str) -> Json:
    return {"type": "application", "name": name, "version": version}


def _hash(digest: str) -> Json:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}


def _properties(facts: Iterable[tuple[str, str]]) -> list[Json]:
    return [{"name": f"tailorbird:{name}", "value": value} for name, value in facts]
