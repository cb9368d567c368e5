"""Outline: the normalised graph without its weights, so that two builds can be compared node by node.

A bundle keeps it in ``tailorbird/graph.json``. Each node's digest covers its operator, its attributes and the values
of the weights it reads, so a retrained layer differs from its older self though nothing else does.
"""

from __future__ import annotations

import msgspec

from tailorbird.domain.errors import BundleError

OUTLINE = "tailorbird/graph.json"
"""Where a version keeps it."""

SCHEMA = 1


class OutlineNode(msgspec.Struct, frozen=True):
    """One node of the normalised graph."""

    name: str
    op: str
    inputs: tuple[str, ...]
    """Names of the nodes and graph inputs it reads from; weights are in the digests."""
    form: str
    """Digest of operator, domain, attributes, and the shapes and dtypes of its weights.

    Few whole numbers (shapes, axes, indices) count with their values: an architect wrote them, no training.
    """
    weights: str
    """Digest of its weights' values; empty without weights."""


class Outline(msgspec.Struct, frozen=True):
    """All nodes, in topological order."""

    nodes: tuple[OutlineNode, ...] = ()
    schema: int = SCHEMA


# Made at import, see domain/manifest.py.
_outline = msgspec.json.Decoder(Outline)


def encode_outline(outline: Outline) -> bytes:
    """The outline as JSON."""
    return msgspec.json.encode(outline)


def decode_outline(data: bytes) -> Outline:
    """Read an outline; raises :class:`BundleError` for a newer schema or anything malformed."""
    try:
        outline = _outline.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError("the bundle's graph outline cannot be read", got=error, hint="build it again") from None
    if outline.schema > SCHEMA:
        raise BundleError("the outline's schema is newer than this Tailorbird", got=outline.schema, expected=SCHEMA,
                          hint="upgrade Tailorbird: pip install --upgrade tailorbird")  # fmt: skip
    return outline
