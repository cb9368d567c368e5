"""ONNX Runtime's kernels: how long each took, and which nodes of the engine's graph it stands for.

Fused kernels have names of their own. The graph as optimised says which values each one reads and gives out; the
nodes between those values, in the graph as it was, are what it stands for. Where that does not add up, a kernel that
kept its node's name stands for that node, and any other for nothing: a gap misleads less than a guess.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

_BLOCKED = "_nchwc"
"""Kernels in blocked layout are called by the value that they give out, with this behind it."""
_KERNEL = "_kernel_time"
_COPY = re.compile(r"(/MatMulAddFusion)?(/duplicated)?(_token_\d+)?$")
_MOVES = frozenset({"ReorderInput", "ReorderOutput", "Reshape", "Transpose"})
"""Kernels that the optimiser adds to bring values into another form and back."""
_NEAR = 6
"""Nodes that are fused behind a convolution at most."""


class Kernel(msgspec.Struct, frozen=True):
    """One kernel's own record in the profiler's trace."""

    name: str
    kind: str
    start: int
    """Microseconds since the session began."""
    micros: int
    types: tuple[str, ...]
    """Of its outputs; of its inputs where it has no outputs."""


def kernels(events: Sequence[Mapping[str, Any]]) -> list[Kernel]:
    """Every kernel's record, as often as it ran, in the order they began."""
    found = [
        Kernel(
            name=event["name"].removesuffix(_KERNEL),
            kind=event["args"].get("op_name", ""),
            start=event["ts"],
            micros=event["dur"],
            types=tuple(name for tensor in _types(event["args"]) for name in tensor),
        )
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)
    ]
    return sorted(found, key=lambda kernel: (kernel.start, -kernel.micros))


def outermost(found: Sequence[Kernel]) -> list[Kernel]:
    """Without those that ran inside another, whose time holds theirs: the body of a loop or a branch."""
    kept: list[Kernel] = []
    end = -1
    for kernel in found:
        if kernel.start + kernel.micros > end or kernel.start >= end:
            kept.append(kernel)
            end = max(end, kernel.start + kernel.micros)
    return kept


def medians(found: Sequence[Kernel], events: Sequence[Mapping[str, Any]], skip: int) -> dict[str, float]:
    """Median milliseconds of each kernel over the runs, without the first ``skip``; in order of execution."""
    runs = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    spent: dict[str, list[float]] = {}
    for kernel in found:
        run = int(np.searchsorted(runs, kernel.start, side="right")) - 1
        times = spent.setdefault(kernel.name, [0.0] * len(runs))
        times[run] += kernel.micros / 1e3
    return {name: round(float(np.median(times[skip:])), 6) for name, times in spent.items()}


def stands_for(written: Any, optimised: Any) -> dict[str, tuple[str, ...]]:
    """Of each kernel, by name, the nodes it stands for and the values they give out, by name.

    Args:
        written: the engine's ``GraphProto``.
        optimised: the runtime's own version of it, as it executes.
    """
    return _Mapping(written, optimised).found()


class _Mapping:
    """From kernels back to nodes."""

    def __init__(self, written: Any, optimised: Any) -> None:
        self._named = {node.name: node for node in written.node if node.name}
        self._makers = {value: node for node in written.node for value in node.output if value}
        self._order = {id(node): number for number, node in enumerate(written.node)}
        self._optimised = optimised.node
        self._readers: dict[str, list[Any]] = {}
        for node in written.node:
            for value in node.input:
                self._readers.setdefault(value, []).append(node)
        self._renamed = self._renamed_values()
        given = {value.name for value in (*written.input, *written.initializer)}
        folded = {value.name for value in optimised.initializer}
        made = {value for node in optimised.node for value in self._given_out(node)}
        self._ends = given | folded
        self._available = self._ends | made

    def found(self) -> dict[str, tuple[str, ...]]:
        """Nodes that several kernels would stand for are no kernel's, unless it kept their name."""
        parts = {kernel.name: self._nodes(kernel) for kernel in self._optimised}
        claims = Counter(id(node) for nodes in parts.values() for node in nodes)
        return {name: tuple(self._names([node for node in nodes if claims[id(node)] == 1 or node.name == name]))
                for name, nodes in parts.items()}  # fmt: skip

    def _names(self, nodes: Sequence[Any]) -> Iterator[str]:
        for node in nodes:
            yield from filter(None, (node.name, *node.output))

    def _nodes(self, kernel: Any) -> list[Any]:
        same = self._named.get(_plain(kernel.name))
        between = self._between(kernel)
        if between is None or (same is not None and all(node is not same for node in between)):
            between = [same] if same is not None else []
        return sorted(between, key=lambda node: self._order[id(node)])

    def _between(self, kernel: Any) -> list[Any] | None:
        """Nodes from what a kernel gives out back to what it reads; None where that leads past its inputs."""
        reads = {name for value in kernel.input if value for name in self._as_written(value)}
        found: dict[int, Any] = {}
        ahead = [value for value in self._given_out(kernel) if value not in reads]
        while ahead:
            value = ahead.pop()
            node = self._makers.get(value)
            if node is None:
                return None
            if id(node) in found:
                continue
            found[id(node)] = node
            for name in filter(None, node.input):
                if name in reads or name in self._ends:
                    continue
                if name in self._available:
                    return None  # it is made elsewhere and not read here: the graph was rewritten
                ahead.append(name)
        return list(found.values())

    def _given_out(self, kernel: Any) -> list[str]:
        """Values of the graph as written that a kernel gives out."""
        return [name for value in kernel.output if value for name in self._as_written(value) if name in self._makers]

    def _as_written(self, value: str) -> tuple[str, ...]:
        known = next((name for name in (value, _plain(value)) if name in self._makers), None)
        return (known,) if known else self._renamed.get(value, (value,))

    def _renamed_values(self) -> dict[str, tuple[str, ...]]:
        """What renamed values were: those in blocked layout, and those of a node that kept its name."""
        found: dict[str, tuple[str, ...]] = {}
        for kernel in self._optimised:
            for place, value in enumerate(kernel.output):
                if value and value not in self._makers:
                    found[value] = self._origin(kernel, place, found)
        self._trace_back(found)
        return found

    def _trace_back(self, found: dict[str, tuple[str, ...]]) -> None:
        """What values without an origin were, by what is made of them: moved back into form, or convolved."""
        for kernel in reversed(self._optimised):
            value = kernel.input[0] if kernel.input else ""
            if found.get(value, ("known",)) or not kernel.output:
                continue
            made = kernel.output[0] if kernel.output[0] in self._makers else next(iter(found[kernel.output[0]]), "")
            if self._is_added(kernel):
                found[value] = (made,) if made else ()
            elif kernel.op_type == "Conv" and made:
                found[value] = self._convolved(made)

    def _is_added(self, kernel: Any) -> bool:
        return kernel.op_type in _MOVES and _plain(kernel.name) not in self._named

    def _convolved(self, value: str) -> tuple[str, ...]:
        """What the convolution reads that a value was made by, with little after it."""
        for _ in range(_NEAR):
            node = self._makers.get(value)
            if node is None:
                break
            if node.op_type == "Conv":
                return (node.input[0],)
            value = next((name for name in node.input if name in self._makers), "")
        return ()

    def _origin(self, kernel: Any, place: int, found: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        blocked, mark, _ = kernel.name.rpartition(_BLOCKED)
        if mark and blocked in self._makers and place == 0:
            return (self._with_fused(kernel, blocked),)
        same = self._named.get(_plain(kernel.name))
        if same is not None and same.op_type == kernel.op_type and place < len(same.output):
            return (same.output[place],)
        if self._is_added(kernel) and kernel.input:
            return found.get(kernel.input[0], (kernel.input[0],))
        return ()

    def _with_fused(self, kernel: Any, value: str) -> str:
        """What a convolution in blocked layout gives out after a sum and an activation were fused into it.

        Its name is older than both: NchwcTransformer names a kernel before it fuses (onnxruntime 1.32).
        """
        if kernel.op_type == "Conv" and len(kernel.input) > 3 and kernel.input[3]:
            value = self._only_reader(value, "Add") or value
        activation = next((one.s.decode() for one in kernel.attribute if one.name == "activation"), "")
        if activation and self._makers[value].op_type != activation:
            value = self._only_reader(value, activation) or value
        return value

    def _only_reader(self, value: str, kind: str) -> str:
        """What the only node that reads a value gives out, if it is of that kind."""
        readers = self._readers.get(value, [])
        return str(readers[0].output[0]) if len(readers) == 1 and readers[0].op_type == kind else ""


def _plain(name: str) -> str:
    """A name without what makes it unique where the optimiser copied or remade what it belongs to."""
    return _COPY.sub("", name)


def _types(args: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return args.get("output_type_shape") or args.get("input_type_shape") or []
