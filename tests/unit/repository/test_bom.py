"""The bill of materials: valid CycloneDX, equal for equal versions, nothing that the manifest does not say."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import tailorbird
from tailorbird.domain import bundle
from tailorbird.domain.digest import digest_file
from tailorbird.domain.manifest import Manifest, Provenance
from tailorbird.repository.bom import SPEC_VERSION, bill_of_materials
from tailorbird.repository.signing.trust import Signer, Verified, verified
from tests import bundles

DIGEST = "sha256:" + "ab" * 32
PROVENANCE = Provenance(
    source="tiny.onnx",
    source_digest=DIGEST,
    normalised_digest=DIGEST,
    passes=("fold constants",),
    versions={"tailorbird": "0.1.0", "onnxruntime": "1.32.0", "openvino": "2026.4.1"},
    device={"cpu": 'A "fast" <CPU>', "cores": "2"},
    created="2026-01-01T00:00:00+00:00",
)


@pytest.fixture
def manifest() -> Manifest:
    return bundles.manifest(provenance=PROVENANCE, files={"model.onnx": DIGEST, "tailorbird/report.html": DIGEST})


def bill(manifest: Manifest, signer: Signer | None = None) -> Any:
    return json.loads(bill_of_materials(Verified(manifest, signer)))


def facts(component: Any) -> dict[str, str]:
    return {one["name"].removeprefix("tailorbird:"): one["value"] for one in component["properties"]}


def test_it_is_valid_by_the_published_schema(manifest: Manifest) -> None:
    text = bill_of_materials(Verified(manifest, Signer("ed25519:00", "default"))).decode()
    assert JsonStrictValidator(SchemaVersion.from_version(SPEC_VERSION)).validate_str(text) is None


def test_the_validator_would_notice(manifest: Manifest) -> None:
    broken = bill(manifest)
    broken["metadata"]["component"]["modelCard"]["modelParameters"]["task"] = 7
    found = JsonStrictValidator(SchemaVersion.from_version(SPEC_VERSION)).validate_str(json.dumps(broken))
    assert found is not None


def test_equal_versions_have_equal_bills_and_others_another_serial_number(manifest: Manifest) -> None:
    other = msgspec.structs.replace(manifest, model="other")
    assert bill_of_materials(Verified(manifest, None)) == bill_of_materials(Verified(manifest, None))
    assert bill(manifest)["serialNumber"] != bill(other)["serialNumber"]


def test_it_names_source_runtime_and_every_file_by_digest(manifest: Manifest) -> None:
    components = {one["bom-ref"]: one for one in bill(manifest)["components"]}
    assert set(components) == {"source", "runtime", "file:model.onnx", "file:tailorbird/report.html"}
    assert components["source"]["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert components["runtime"]["version"] == "1.32.0"
    (engine, *parts) = bill(manifest)["dependencies"]
    assert set(engine["dependsOn"]) == set(components) == {part["ref"] for part in parts}


def test_measured_figures_are_the_manifests(manifest: Manifest) -> None:
    card = bill(manifest)["metadata"]["component"]["modelCard"]
    metrics = {one["type"]: one for one in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert metrics["snr_db"]["value"] == "120.0"
    median = metrics["median latency, ms (bounds: quartiles)"]
    assert (median["value"], median["confidenceInterval"]) == ("1.2", {"lowerBound": "1.1", "upperBound": "1.3"})
    assert card["modelParameters"]["inputs"] == [{"format": "x: FP32 [rows, 16]"}]


def test_what_is_not_known_is_not_there(manifest: Manifest) -> None:
    engine = bill(manifest)["metadata"]["component"]
    assert not {"licenses", "supplier", "publisher", "author"} & set(engine)
    assert set(engine["modelCard"]) == {"modelParameters", "quantitativeAnalysis"}
    assert set(engine["modelCard"]["modelParameters"]) == {"inputs", "outputs"}


def test_the_signer_is_named(manifest: Manifest) -> None:
    unsigned, signed = bill(manifest), bill(manifest, Signer("ed25519:77", "ci"))
    assert facts(unsigned["metadata"]["component"])["signed by"] == "nobody"
    assert facts(signed["metadata"]["component"])["signed by"] == "ed25519:77"


def test_a_runtime_of_unknown_version_gets_no_made_up_one(manifest: Manifest) -> None:
    bare = msgspec.structs.replace(manifest, provenance=msgspec.structs.replace(PROVENANCE, versions={}))
    runtime = next(one for one in bill(bare)["components"] if one["bom-ref"] == "runtime")
    assert runtime == {"type": "library", "bom-ref": "runtime", "name": "onnxruntime"}


def test_a_bill_is_written_from_a_bundle_file(tmp_path: Path) -> None:

    engine = bundles.engine_file(bundles.version(tmp_path / "v", provenance=PROVENANCE), tmp_path / "tiny.engine")
    written = json.loads(tailorbird.bill_of_materials(engine))
    assert written["metadata"]["component"]["name"] == "tiny"
    assert "file:model.onnx" in {one["bom-ref"] for one in written["components"]}


def test_its_digest_is_of_the_manifests_bytes_as_they_are_on_the_disk(tmp_path: Path) -> None:
    version = bundles.sealed(tmp_path / "version")
    path = version / bundle.MANIFEST
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"\n")  # as valid, and not what encoding it again gives
    made = json.loads(bill_of_materials(verified(version, allow_unsigned=True)))
    assert made["metadata"]["component"]["hashes"][0]["content"] == digest_file(path).removeprefix("sha256:")
