"""A look at nodes at work: each beside its own shadow, which computes the same from rounded inputs.

The shadow computes in FP32 and rounds only what goes in and comes out, as tensor cores do, which add up in FP32. It
takes what the shadows before it gave, so that an error grows in it as it would in the engine, up to the next product:
there each chain starts anew, from true values. What grows a rounding error sixteenfold, because large numbers cancel
or small ones are divided by, shows in the difference; so does an output too small for the format. Sums that run over
are looked for apart, because some hardware does add up in the low format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tailorbird.builder.precision.formats import Format
from tailorbird.builder.precision.slots import Slots
from tailorbird.builder.precision.structure import HEAVY
from tailorbird.builder.quantise.onnx_graph import open_session
from tailorbird.builder.quantise.onnx_ranges import feeds
from tailorbird.builder.sources.onnx_file import write_model
from tailorbird.domain.dtype import Array
from tailorbird.domain.fidelity import decibels

_MEANS = frozenset({"ReduceMean", "GlobalAveragePool", "AveragePool"})
_SUMS = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
_WHOLE = frozenset({"Cast", "Floor", "Ceil", "Round", "Range"})
"""What gives whole numbers, where a float carries a count or an index."""

Ask = tuple[str, Callable[[Array, Array], Array]]


class Look:
    """One look, taken once: which nodes are low, which stay, and what happens to their values then.

    Args:
        model: every node has a name, every inner FP32 value its type.
        slots: of its nodes.
        kept: names of nodes that stay in FP32.
        low: the format.
    """

    def __init__(self, model: onnx.ModelProto, slots: Mapping[str, Slots], kept: Mapping[str, str], low: Format):
        self._probe = onnx.ModelProto()
        self._probe.CopyFrom(model)
        self._nodes = list(model.graph.node)
        self._slots = slots
        self._low = low
        self._kept = kept
        self._rounded: dict[str, str] = {}
        self._shadows: dict[str, str] = {}
        self._asked: dict[str, Ask] = {}
        for node in self._nodes:
            self._shadow(node)
            self._watch(node)

    def run(self, samples: tuple[str, ...], scratch: Path, threads: int) -> Seen:
        """Run the samples; raises whatever the runtime does."""
        path = scratch / "look.onnx"
        write_model(self._probe, path)
        self._probe.Clear()  # its weights are in the session now
        session = open_session(path, threads, "ORT_DISABLE_ALL")
        found: dict[str, Array] = {}
        for inputs in feeds(samples):
            got = session.run(list(self._asked), inputs)
            for (name, (_, merge)), one in zip(self._asked.items(), got, strict=True):
                array = np.asarray(one, np.float64)
                found[name] = merge(found[name], array) if name in found else array
        by_use: dict[str, dict[str, Array]] = {}
        for name, (use, _) in self._asked.items():
            by_use.setdefault(use, {})[name.split(" of ", 1)[1]] = found[name]
        path.unlink()
        return Seen(by_use)

    def _shadow(self, node: onnx.NodeProto) -> None:
        """The node again; what goes in and comes out of one that is low is rounded."""
        slots, low = self._slots[node.name], node.name not in self._kept
        if not slots:
            return
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"shadow of {node.name}"
        for index in slots.inputs:
            given = self._shadows.get(copy.input[index], copy.input[index])
            copy.input[index] = self._round(given) if low else given
        for index, name in enumerate(node.output):
            copy.output[index] = name and f"shadow of {name}"
        self._probe.graph.node.append(copy)
        for index in slots.outputs:
            name, shadow = node.output[index], copy.output[index]
            shadow = self._round(shadow) if low else shadow
            self._compare(name, shadow)
            anew = self._round(name) if low else name
            self._shadows[name] = anew if node.op_type in HEAVY else shadow

    def _compare(self, true: str, other: str) -> None:
        gap = self._add("Sub", [true, other], f"gap of {true}")
        self._ask("noise", self._add("ReduceSumSquare", [gap], f"noise of {true}", keepdims=0), np.add)
        self._ask("signal", self._add("ReduceSumSquare", [true], f"signal of {true}", keepdims=0), np.add)

    def _watch(self, node: onnx.NodeProto) -> None:
        """Sums on their way, and whole numbers."""
        slots, out = self._slots[node.name], node.output[0]
        if node.op_type in _MEANS | _SUMS and slots and node.name not in self._kept:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[0] = self._add("Abs", [node.input[0]], f"size of {out}")
            copy.name = copy.output[0] = f"whole size of {out}"
            self._probe.graph.node.append(copy)
            self._ask("sum", self._add("ReduceMax", [copy.output[0]], f"sum of {out}", keepdims=0), np.maximum)
            for what, name in (("terms", node.input[0]), ("results", out)):
                self._ask(what, self._add("Size", [name], f"{what} of {out}"), np.maximum)
        if node.op_type in _WHOLE and (slots.outputs or slots.obstacle):
            rest = self._add("Sub", [out, self._add("Round", [out], f"nearest of {out}")], f"rest of {out}")
            self._ask("rest", self._add("ReduceSumSquare", [rest], f"fraction of {out}", keepdims=0), np.add)
            lost = self._add("Sub", [out, self._round(out)], f"loss of {out}")
            self._ask("lost", self._add("ReduceSumSquare", [lost], f"lost of {out}", keepdims=0), np.add)

    def _round(self, name: str) -> str:
        """Once for each value; what is rounded stays as it is."""
        if name not in self._rounded:
            narrow = self._add("Cast", [name], f"narrow of {name}", to=self._low.element)
            rounded = self._add("Cast", [narrow], f"rounded of {name}", to=TensorProto.FLOAT)
            self._rounded |= {name: rounded, rounded: rounded}
        return self._rounded[name]

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._probe.graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _ask(self, use: str, name: str, merge: Callable[[Array, Array], Array]) -> None:
        self._probe.graph.output.append(helper.make_empty_tensor_value_info(name))
        self._asked[name] = use, merge


class Seen:
    """What a look found, by value."""

    def __init__(self, found: Mapping[str, Mapping[str, Array]]) -> None:
        self._found = found

    def snr_db(self, value: str) -> float | None:
        """Signal to noise of a value with the node that gives it in the low format; None where that has no meaning."""
        signal, noise = (float(self._found.get(use, {}).get(value, np.nan)) for use in ("signal", "noise"))
        if not np.isfinite([signal, noise]).all() or signal == 0.0:
            return None
        return decibels(signal, noise)

    def largest_sum(self, node: onnx.NodeProto) -> float:
        """The most that the terms of one sum, all taken positive, come to; 0 for what is no sum."""
        out = node.output[0]
        if out not in self._found.get("sum", {}):
            return 0.0
        found = float(self._found["sum"][out])
        if node.op_type in _MEANS:
            found *= float(self._found["terms"][out] / max(self._found["results"][out], 1.0))
        return found**2 if node.op_type == "ReduceL2" else found

    def loses_whole(self, value: str) -> bool:
        """Whether a value holds whole numbers only, and not all of them are there in the low format."""
        rest = self._found.get("rest", {}).get(value)
        return rest is not None and float(rest) == 0.0 and float(self._found["lost"][value]) > 0.0
