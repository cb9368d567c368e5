"""Layers: what an engine really executes, how long each part takes, and which nodes of the source it stands for.

A bundle keeps them in ``tailorbird/layers.json``: the chosen engine first, then the runner-up. Reports draw them,
comparisons match them by the source's nodes.
"""

from __future__ import annotations

import msgspec

from tailorbird.domain.errors import BundleError

LAYERS = "tailorbird/layers.json"
"""Where a version keeps them."""

SCHEMA = 1


class Layer(msgspec.Struct, frozen=True):
    """One executed layer, as the runtime itself reports it."""

    name: str
    kind: str
    """The runtime's own word for what it does: ``Convolution``, ``FusedMatMul``."""
    precision: str
    """What it ran in, as :meth:`tailorbird.backends.base.Session.executed_precision` names it."""
    milliseconds: float
    """Median over the profiled runs, or their mean where the runtime keeps no more; 0 where it did not time it."""
    nodes: tuple[str, ...] = ()
    """Nodes of the normalised graph that it stands for, by name; empty where the runtime does not say."""


class LayerTable(msgspec.Struct, frozen=True):
    """One engine's layers in execution order, at one place of the profile."""

    candidate: str
    edge: str
    runs: int
    latency: float
    """Median milliseconds of a whole run without profiling, on the same inputs, just before."""
    layers: tuple[Layer, ...]

    @property
    def profiled(self) -> float:
        """Milliseconds of all layers together: less than a run where the runtime works between layers."""
        return sum(layer.milliseconds for layer in self.layers)


class LayerBook(msgspec.Struct, frozen=True):
    """The layers of the chosen engine and of the runner-up, as a bundle keeps them."""

    engines: tuple[LayerTable, ...] = ()
    schema: int = SCHEMA

    def of(self, candidate: str) -> LayerTable | None:
        """The table of a candidate by its name."""
        return next((table for table in self.engines if table.candidate == candidate), None)


# Made at import, see domain/manifest.py.
_book = msgspec.json.Decoder(LayerBook)


def encode_layers(book: LayerBook) -> bytes:
    """The book as JSON."""
    return msgspec.json.encode(book)


def decode_layers(data: bytes) -> LayerBook:
    """Read a book; raises :class:`BundleError` for a newer schema or anything malformed."""
    try:
        book = _book.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError("the bundle's layers cannot be read", got=error, hint="build it again") from None
    if book.schema > SCHEMA:
        raise BundleError("the layers' schema is newer than this Tailorbird", got=book.schema, expected=SCHEMA,
                          hint="upgrade Tailorbird: pip install --upgrade tailorbird")  # fmt: skip
    return book
