"""Casts put into a graph: nodes that go low take and give the format, and each value is converted once at most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import TensorProto, helper, numpy_helper

from tailorbird.builder.graph.passes import reads
from tailorbird.builder.precision.formats import Format
from tailorbird.builder.precision.slots import Slots


def cast(model: onnx.ModelProto, lowered: Iterable[str], slots: Mapping[str, Slots], low: Format) -> onnx.ModelProto:
    """Bring nodes to the format, in place.

    A value in FP32 keeps its name, so inputs, outputs and what branches read stay as they are; in the low format it
    has the format's name behind an ``@``. Types of inner values are not kept.

    Args:
        model: every node has a name of its own.
        lowered: names of nodes to bring low; each has slots.
        slots: of all nodes.
        low: the format.
    """
    work = _Work(model, low)
    chosen = set(lowered)
    for node in model.graph.node:
        if node.name in chosen:
            work.bring(node, slots[node.name])
    work.convert()
    del model.graph.value_info[:]
    return model


class _Work:
    def __init__(self, model: onnx.ModelProto, low: Format) -> None:
        self._model = model
        self._low = low
        self._born: set[str] = set()
        names = {name for node in model.graph.node for name in (*reads(node), *node.output)}
        self._mark = f"@{low.name}"
        while any(name.endswith(self._mark) for name in names):
            self._mark += "'"

    def bring(self, node: onnx.NodeProto, slots: Slots) -> None:
        """Rename what it takes and gives."""
        for index in slots.inputs:
            node.input[index] = self._named(node.input[index])
        for index in slots.outputs:
            self._born.add(node.output[index])
            node.output[index] = self._named(node.output[index])
        if node.op_type == "Cast" and slots.outputs:
            self._retype(node, bool(slots.inputs))

    def convert(self) -> None:
        """Constants become of the type that they are read in; the other values get a Cast where they are made."""
        graph = self._model.graph
        wanted = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
        constants = self._convert_constants(wanted)
        nodes = [cast for value in graph.input if value.name not in constants
                 for cast in self._casts([value.name], wanted)]  # fmt: skip
        for node in graph.node:
            nodes.append(node)
            nodes += self._casts(node.output, wanted)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)

    def _named(self, name: str) -> str:
        return f"{name}{self._mark}"

    def _retype(self, node: onnx.NodeProto, nothing_to_do: bool) -> None:
        """A Cast to FP32 goes to the format directly; one from there, of which it was made, has nothing to do."""
        del node.attribute[:]
        if nothing_to_do:
            node.op_type = "Identity"
        else:
            node.attribute.append(helper.make_attribute("to", self._low.element))

    def _casts(self, names: Iterable[str], wanted: set[str]) -> Iterable[onnx.NodeProto]:
        for name in names:
            plain = name.removesuffix(self._mark)
            if plain in self._born and name != plain:
                if plain in wanted:
                    yield _cast(name, plain, TensorProto.FLOAT)
            elif self._named(name) in wanted:
                yield _cast(name, self._named(name), self._low.element)

    def _convert_constants(self, wanted: set[str]) -> set[str]:
        constants = {tensor.name for tensor in self._model.graph.initializer}
        kept = []
        for tensor in self._model.graph.initializer:
            if self._named(tensor.name) in wanted:
                array = self._low.rounded(numpy_helper.to_array(tensor))
                kept.append(numpy_helper.from_array(array, self._named(tensor.name)))
            if tensor.name in wanted:
                kept.append(tensor)
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del self._model.graph.initializer[:]
        self._model.graph.initializer.extend(copies)
        return constants


def _cast(source: str, target: str, element: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"Cast_{target}", to=element)
