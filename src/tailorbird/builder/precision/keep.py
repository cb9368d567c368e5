"""Which nodes stay in FP32, and why: by what they are, by their ranges, and by a look at them at work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import numpy_helper

from tailorbird.builder.graph.passes import reads
from tailorbird.builder.precision import structure
from tailorbird.builder.precision.formats import HEADROOM, Format
from tailorbird.builder.precision.look import Look, Seen
from tailorbird.builder.precision.opset import PAIRS
from tailorbird.builder.precision.slots import Slots
from tailorbird.builder.precision.structure import HEAVY
from tailorbird.builder.quantise.onnx_ranges import Range, extremes_of

SAMPLES = 32
"""Samples over which extremes are taken, at little more than the cost of a run each."""

LOOKS = 2
"""Samples that are looked at closely, at several times that."""

PLAIN = "ORT_DISABLE_ALL"
"""Level of optimisation: nodes as they are written. Some optimisers fail on FP8."""

_ROUNDS = 5
"""Each looks again, with what the one before gave back to FP32: differences that cancel want their terms, too, and
those want theirs, each time twice as deep. Most graphs need one or two."""


_NEVER_BETWEEN = HEAVY | {"QuantizeLinear"}
"""A QuantizeLinear has its scale in the type of the DequantizeLinear behind it."""


class Keeping:
    """The choice, node by node.

    Args:
        model: every node has a name, every inner FP32 value its type.
        slots: of its nodes.
        low: the format.
    """

    def __init__(self, model: onnx.ModelProto, slots: Mapping[str, Slots], low: Format) -> None:
        self._model = model
        self._slots = slots
        self._low = low
        self._nodes = [node for node in model.graph.node if slots[node.name] or slots[node.name].obstacle]
        self._makers = {name: node for node in model.graph.node for name in node.output if name}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in dict.fromkeys(reads(node)):
                self._readers[name].append(node)
        self._constants = {tensor.name for tensor in model.graph.initializer}
        self.kept: dict[str, str] = {node.name: slots[node.name].obstacle for node in self._nodes
                                     if not slots[node.name]}  # fmt: skip
        """Why each stays, by name."""
        self._keep(structure.reasons(model))
        self._keep_readers(self._unfit_constants(most=1))
        self._keep_readers(self._vanishing_scales())

    def look(self, samples: tuple[str, ...], scratch: Path, threads: int) -> None:
        """Decide by real values, too; raises whatever the runtime does.

        Small constants beside large values do no harm: a bias of 6e-8 rounds to 0 beside sums around 1.
        """
        values = self._looked_at()
        if not values:
            return
        extremes = extremes_of(self._model, values, samples[:SAMPLES], scratch, threads, PLAIN)
        self._keep_around(self._unfit(extremes))
        for number in range(_ROUNDS):
            seen = Look(self._model, self._slots, self.kept, self._low).run(samples[:LOOKS], scratch, threads)
            before = len(self.kept)
            self._keep_around(self._whole(seen))
            self._keep(self._sums(seen))
            self._keep_cancelling(seen, 1 << number)
            if len(self.kept) == before:
                break

    def keep_small_constants(self) -> None:
        """Keep the readers of all constants too small for the format: what is done where nothing can be looked at."""
        self._keep_readers(self._unfit_constants())

    def close_gaps(self) -> None:
        """Light nodes between such as stay, stay with them: casts there and back would cost more than they."""
        for node in [*self._model.graph.node, *reversed(self._model.graph.node)]:
            if self._is_low(node) and node.op_type not in _NEVER_BETWEEN and self._is_between(node):
                self.kept[node.name] = "stands between nodes that stay"

    def _looked_at(self) -> list[str]:
        named = {name: None for node in self._nodes for name in self._values(node)}
        return [name for name in named if name not in self._constants]

    def _values(self, node: onnx.NodeProto) -> list[str]:
        slots = self._slots[node.name]
        return [*(node.input[index] for index in slots.inputs), *(node.output[index] for index in slots.outputs)]

    def _is_low(self, node: onnx.NodeProto) -> bool:
        return bool(self._slots[node.name]) and node.name not in self.kept

    def _keep(self, reasons: Mapping[str, str]) -> None:
        for node in self._nodes:
            if node.name in reasons:
                self.kept.setdefault(node.name, reasons[node.name])

    def _keep_readers(self, unfit: Mapping[str, str]) -> None:
        """Whoever takes a constant that does not fit, through one of its slots."""
        for node in self._nodes:
            for index in self._slots[node.name].inputs:
                if node.input[index] in unfit:
                    self.kept.setdefault(node.name, f"its constant {unfit[node.input[index]]}")

    def _keep_around(self, unfit: Mapping[str, str]) -> None:
        """Whoever gives or takes a value that does not fit."""
        for node in self._nodes:
            for name in self._values(node):
                if name in unfit:
                    self.kept.setdefault(node.name, unfit[name])

    def _unfit_constants(self, most: int | None = None) -> dict[str, str]:
        """Constants beyond the format's end, and too small ones of so many elements at most.

        A single number is an epsilon: it is there for the input that no sample shows.
        """
        wanted = {node.input[index] for node in self._nodes for index in self._slots[node.name].inputs}
        found = {}
        for tensor in self._model.graph.initializer:
            if tensor.name in wanted:
                array = numpy_helper.to_array(tensor)
                judged = most is None or array.size <= most
                found[tensor.name] = self._low.overflow(array) or (self._low.loss(array) if judged else "")
        return {name: why for name, why in found.items() if why}

    def _vanishing_scales(self) -> dict[str, str]:
        """Scales of which one becomes 0: all that it scales would, and TensorRT refuses it."""
        pairs = [node for node in self._nodes if node.op_type in PAIRS]
        scales = {name for node in pairs for name in node.input[1:2]}
        found = {}
        for tensor in self._model.graph.initializer:
            if tensor.name in scales:
                array = numpy_helper.to_array(tensor)
                if ((self._low.rounded(array) == 0) & (array != 0)).any():
                    found[tensor.name] = "has a scale that becomes 0"
        return found

    def _unfit(self, extremes: Mapping[str, Range]) -> dict[str, str]:
        """Values beyond the format's ends. What is infinite or NaN in FP32 already stays so in any format."""
        found = {}
        for name, (low, high) in extremes.items():
            peak = max((abs(end) for end in (low, high) if abs(end) < float("inf")), default=0.0)
            if peak > self._low.largest / HEADROOM:
                found[name] = f"its values reach {peak:.3g}; {self._low.name.upper()} ends at {self._low.largest:.6g}"
            elif 0.0 < peak < self._low.smallest:
                found[name] = f"its values are {peak:.3g} at most, too small for {self._low.name.upper()}"
        return found

    def _whole(self, seen: Seen) -> dict[str, str]:
        why = f"carries whole numbers, which {self._low.name.upper()} holds up to {2**self._low.bits} only"
        return {name: why for node in self._nodes for name in node.output if seen.loses_whole(name)}

    def _sums(self, seen: Seen) -> dict[str, str]:
        """Sums that run over where they are added up in the format itself."""
        most = self._low.largest / HEADROOM
        found = {node.name: seen.largest_sum(node) for node in self._nodes if self._is_low(node)}
        return {name: f"adds up to {total:.3g}; {self._low.name.upper()} ends at {self._low.largest:.6g}"
                for name, total in found.items() if total > most}  # fmt: skip

    def _keep_cancelling(self, seen: Seen, depth: int) -> None:
        """Nodes in which noise grows too much, and where such a one stays already, light nodes that it follows from."""
        noise = {node.name: self._noise(node, seen) for node in self._nodes}
        for node in list(self._nodes):
            worst = noise[node.name]
            if worst >= self._low.least_db or any(noise[one.name] < self._low.least_db for one in self._light(node)):
                continue  # it is well, or the noise came with what it takes
            if self._is_low(node):
                self.kept[node.name] = f"keeps {worst:.0f} dB only: it cancels, or its values are too small"
            else:
                self._keep(dict.fromkeys(self._sources(node, depth), f"feeds '{node.name}', in which noise grows"))

    def _noise(self, node: onnx.NodeProto, seen: Seen) -> float:
        """The signal-to-noise ratio of its worst output, in dB; infinite where that has no meaning."""
        found = [seen.snr_db(node.output[index]) for index in self._slots[node.name].outputs]
        return min((db for db in found if db is not None), default=float("inf"))

    def _light(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The light nodes that it takes from."""
        makers = [self._makers.get(node.input[index]) for index in self._slots[node.name].inputs]
        return [one for one in makers if one is not None and self._slots[one.name] and one.op_type not in HEAVY]

    def _sources(self, node: onnx.NodeProto, depth: int) -> list[str]:
        """The light nodes before it, so many low ones deep."""
        found: set[str] = set()
        front = [(node, depth)]
        while front:
            here, left = front.pop()
            for one in self._light(here):
                below = left - self._is_low(one)
                if one.name not in found and below >= 0:
                    found.add(one.name)
                    front.append((one, below))
        return sorted(found)

    def _is_between(self, node: onnx.NodeProto) -> bool:
        slots = self._slots[node.name]
        sources = [node.input[index] for index in slots.inputs if node.input[index] not in self._constants]
        if any(name in self._makers and self._gives_low(name) for name in sources):
            return False
        readers = [reader for index in slots.outputs for reader in self._readers[node.output[index]]]
        return all(not self._takes_low(reader, node) for reader in readers)

    def _gives_low(self, name: str) -> bool:
        maker = self._makers[name]
        return self._is_low(maker) and name in (maker.output[index] for index in self._slots[maker.name].outputs)

    def _takes_low(self, reader: onnx.NodeProto, node: onnx.NodeProto) -> bool:
        taken = {reader.input[index] for index in self._slots[reader.name].inputs}
        return self._is_low(reader) and bool(taken & set(node.output))
