"""Mixed precision without calibrating again: units of a quantised OpenVINO graph put back into float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tailorbird.builder.quantise.openvino_graph import CARRIERS, IDLE, SMOOTHED, fixed_names, is_altered, units_of
from tailorbird.domain.errors import UsageError, nearest

_FAKE = "FakeQuantize"


def keep(graph: Any, before: Any, kept: Sequence[str]) -> None:
    """Put units of ``graph`` back into float, in place.

    A kept unit reads the values from before they were quantised and smoothed, and has the weights and the bias of
    the float graph again. A FakeQuantize that then serves no unit is taken out.

    Args:
        graph: the quantised ``openvino.Model``.
        before: the float one, of the same names; it is taken apart for its weights: use it no more.
        kept: names of units.

    Raises:
        UsageError: a name is no unit's; the nearest is named.
    """
    _check_names(kept, [unit.name for unit in units_of(graph)])
    restoring = _Restoring(graph, before)
    for name in kept:
        restoring.unit(name)
    _drop_idle(graph)
    graph.validate_nodes_and_infer_types()


class _Restoring:
    """Two graphs of the same names: what is needed is taken from the float one into the quantised one."""

    def __init__(self, graph: Any, before: Any) -> None:
        self._nodes = {node.get_friendly_name(): node for node in graph.get_ops()}
        self._before = {node.get_friendly_name(): node for node in before.get_ops()}
        self._fixed = fixed_names(graph)

    def unit(self, name: str) -> None:
        node, twin = self._nodes[name], self._before[name]
        self._restore(node, twin)
        for below in _consumers(node):
            if below.get_type_name() == "Add" and self._has_fixed_input(below):
                self._bias(node, below)

    def _restore(self, node: Any, twin: Any) -> None:
        """Weights of the float graph's operation, and activations as they are before they are quantised."""
        for port, source in enumerate(node.input_values()):
            weights = source.get_node().get_friendly_name() in self._fixed
            node.input(port).replace_source_output(twin.input_value(port) if weights else self._plain(source))

    def _bias(self, node: Any, add: Any) -> None:
        """NNCF corrects biases for the error of quantising, which a kept unit does not make."""
        twin = self._before.get(add.get_friendly_name())
        if twin is None:  # NNCF put it there
            _bypass(add, node.output(0))
            return
        for port, source in enumerate(add.input_values()):
            if source.get_node().get_friendly_name() in self._fixed:
                add.input(port).replace_source_output(twin.input_value(port))

    def _has_fixed_input(self, node: Any) -> bool:
        return any(one.get_node().get_friendly_name() in self._fixed for one in node.input_values())

    def _plain(self, source: Any) -> Any:
        """The float graph's own value of a source. A carrier on the way has a twin in the float graph to stand in.

        The carrier itself stays as it is: units that are not kept may hang on it.
        """
        node = source.get_node()
        name = node.get_friendly_name()
        if not is_altered(source):
            return source
        if node.get_type_name() == _FAKE or SMOOTHED in name:
            moving = next(one for one in node.input_values() if one.get_node().get_friendly_name() not in self._fixed)
            return self._plain(moving)
        twin = self._before[name]
        for port, above in enumerate(node.input_values()):
            if above.get_node().get_friendly_name() not in self._fixed:
                twin.input(port).replace_source_output(self._plain(above))
        return twin.output(source.get_index())


def _drop_idle(graph: Any) -> None:
    """Take out every FakeQuantize below which nothing computes, be it through operations that only move values.

    Readers are counted among the nodes that lead to an output: those cut off may live on for a while.
    """
    busy: set[str] = set()
    for node in reversed(graph.get_ordered_ops()):
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind not in IDLE and (name in busy or kind not in (_FAKE, *CARRIERS)):
            busy.update(one.get_node().get_friendly_name() for one in node.input_values())
    for node in graph.get_ordered_ops():
        if node.get_type_name() == _FAKE and node.get_friendly_name() not in busy:
            _bypass(node, node.input_value(0))


def _bypass(node: Any, source: Any) -> None:
    """Let every reader of a node read ``source`` instead; a model output keeps its name."""
    for reader in node.output(0).get_target_inputs():
        reader.replace_source_output(source)


def _consumers(node: Any) -> list[Any]:
    return [reader.get_node() for output in node.outputs() for reader in output.get_target_inputs()]


def _check_names(kept: Sequence[str], units: Sequence[str]) -> None:
    for name in kept:
        if name not in units:
            close = nearest(name, tuple(units))
            raise UsageError(f"the model has no quantised unit '{name}'",
                             hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
