"""The passes in their order, and what each of them found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tailorbird.backends.inductor.restructure import convolutions, identities, linears, masks
from tailorbird.backends.inductor.restructure.cast import cast
from tailorbird.backends.inductor.restructure.editing import tidy
from tailorbird.backends.inductor.restructure.flatten import flattened, writes
from tailorbird.backends.inductor.restructure.specialise import record_shapes, specialise
from tailorbird.domain.precision import Precision

Pass = Callable[[Any], int]

ANY_SHAPE: dict[str, Pass] = {
    "checks removed": identities.remove_checks,
    "views made reshapes": identities.reshape_instead_of_view,
    "identities removed": identities.remove_identities,
    "batch norms folded": convolutions.fold_batch_norms,
    "linear layers joined": linears.join_linears,
    "weights channels last": convolutions.weights_channels_last,
}
"""Passes that hold for every shape, in order."""

FIXED_SHAPE: dict[str, Pass] = {
    "masks always true": masks.drop_true,
    "lookups made reshapes": masks.index_is_reshape,
    "identities removed": identities.remove_identities,
    "masks left to broadcast": masks.let_attention_broadcast,
}
"""Passes that need every dim to be a number, in order, after dims became numbers."""


def restructured(program: Any, device: str, precision: Precision, examples: Sequence[Any] | None = None,
                 without: Sequence[str] = ()) -> Any:  # fmt: skip
    """An exported program as a flat graph of plain ATen operators that is cheaper to run and computes the same.

    Args:
        program: a ``torch.export.ExportedProgram`` in FP32, on the CPU; it is not changed.
        device: ``cpu`` or ``cuda``: where weights, and what the graph makes itself, will lie.
        precision: ``FP32``, ``FP16`` or ``BF16``: the type of weights and inner values. Inputs and outputs keep theirs.
        examples: one tensor for each input, on the CPU. Given, the graph is for their shapes alone, and more folds.
        without: passes to leave out, by name: to measure what each is worth.

    Returns:
        A ``torch.fx.GraphModule``: inputs by position in the signature's order, a flat tuple of outputs. Its
        ``meta["matches"]`` says how much each pass found. A program in which tensors are overwritten in a way that
        cannot be undone is only flattened and cast.
    """
    graph_module = flattened(program)
    found: dict[str, int] = {}
    if not writes(graph_module):
        _apply(graph_module, ANY_SHAPE, without, found)
        if examples is not None:
            specialise(graph_module, examples)
            _apply(graph_module, FIXED_SHAPE, without, found)
            record_shapes(graph_module, examples)
    graph_module = cast(graph_module, precision, device)
    graph_module.meta["matches"] = found
    return graph_module


def _apply(graph_module: Any, passes: dict[str, Pass], without: Sequence[str], found: dict[str, int]) -> None:
    for name, apply in passes.items():
        if name not in without:
            found[name] = found.get(name, 0) + apply(graph_module)
            tidy(graph_module)
