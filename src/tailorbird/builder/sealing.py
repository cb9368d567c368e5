"""Sealing: an engine's folder becomes a version, with its log, its report and a manifest over all of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tailorbird.builder.report import read_events, write_report
from tailorbird.domain import bundle
from tailorbird.domain.layers import LAYERS, LayerBook, encode_layers
from tailorbird.domain.manifest import Manifest

PAPERS = "tailorbird"
BUILD_LOG = f"{PAPERS}/build.jsonl"
QUALIFICATION_LOG = f"{PAPERS}/qualification.jsonl"
REPORT = f"{PAPERS}/report.html"


def seal(version_dir: Path, manifest: Manifest, layers: LayerBook, logs: Sequence[str] = (BUILD_LOG,)) -> Manifest:
    """Write layers and report, and seal the version.

    Args:
        version_dir: the engine's files, and the papers that stand already.
        manifest: everything but the digests of the files.
        layers: of the engine and the runner-up, as far as they were profiled.
        logs: paths of the logs that the report tells of, in order.

    Returns:
        The manifest as written.

    Raises:
        BundleError: the disk refused, or a file cannot travel.
    """
    (version_dir / LAYERS).write_bytes(encode_layers(layers))
    events = [event for log in logs for event in read_events(version_dir / log)]
    write_report(version_dir / REPORT, manifest, events, layers)
    return bundle.seal(version_dir, manifest)
