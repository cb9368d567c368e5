"""Sessions: arrays in, a compiled program called, arrays out."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.backends.base import Session
from tailorbird.backends.inductor.compile import CACHES, JITTED, KERNELS, PACKAGE, exact_floats, jitted, quietly
from tailorbird.backends.inductor.record import EngineRecord
from tailorbird.backends.program import load_program
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.signature import Signature, Tensors

Call = Callable[[list[Any]], Sequence[Any]]
"""A compiled program: tensors in the order of the record, tensors back. It may empty the list it is given."""


def open_call(engine: Path, candidate: Candidate) -> Call:
    """Load an engine's code: the package, what ``torch.compile`` left, or kernels of our own."""
    exact_floats()
    with quietly():
        return _OPENERS[str(candidate.options.get("compiler", ""))](engine, candidate)


def _package(engine: Path, candidate: Candidate) -> Call:
    import torch

    # What a GPU's kernels lie in is read at their first run, so that only a CPU's files can go at once.
    with _unpacking_aside() if candidate.target.device == "cpu" else contextlib.nullcontext():
        # One thread runs a session: the package's own locks are not needed, and CUDA graphs forbid them.
        package = torch._inductor.aoti_load_package(str(engine / PACKAGE), run_single_threaded=True)
    run: Call = package.loader.boxed_run
    return run


@contextlib.contextmanager
def _unpacking_aside() -> Iterator[None]:
    """Let a package unpack itself where it is removed once it is loaded: a process that is killed leaves nothing.

    Its library stays mapped. What unpacks asks the environment for the place at each load.
    """
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="inductor-") as aside:
        os.environ["TMPDIR"] = aside
        try:
            yield
        finally:
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before


def _jitted(engine: Path, candidate: Candidate) -> Call:
    import torch

    torch.compiler.load_cache_artifacts((engine / CACHES).read_bytes())
    program, names = load_program(engine / JITTED)
    compiled = jitted(program, names, candidate)

    def call(tensors: list[Any]) -> Sequence[Any]:
        with torch.no_grad():
            found: Sequence[Any] = compiled(*tensors)
        return found

    return call


def _kernels(engine: Path, candidate: Candidate) -> Call:
    from tailorbird.backends.inductor import kernels

    run: Call = kernels.open(engine / KERNELS, candidate.target.device)
    return run


_OPENERS: dict[str, Callable[[Path, Candidate], Call]] = {"": _package, "jit": _jitted, "kernels": _kernels}


class CpuSession(Session):
    """A compiled program on the CPU.

    Torch's count of threads belongs to the whole process: sessions of different counts would disturb one another.
    Builds and servers give each candidate and each instance a process of its own; instances of one candidate agree.
    """

    def __init__(self, name: str, candidate: Candidate, signature: Signature, call: Call, record: EngineRecord) -> None:
        super().__init__(name, candidate, signature)
        self._call = call
        self._record = record
        self._inputs = [(one, signature.input(one).dtype) for one in record.inputs]
        self._outputs = [(spec.name, spec.dtype) for spec in signature.outputs]
        self._shared = frozenset(record.shared)
        self._thread = 0

    def _run(self, inputs: Tensors) -> dict[str, Array]:
        if self._thread != threading.get_ident():
            self._claim()
        found = self._call([to_tensor(inputs[name], dtype) for name, dtype in self._inputs])
        return {name: to_array(self._own(place, found), dtype) for place, (name, dtype) in enumerate(self._outputs)}

    def _own(self, place: int, found: Sequence[Any]) -> Any:
        """An output in memory of its own: the compiler, too, may give out one tensor twice."""
        tensor = found[place]
        start = tensor.data_ptr()
        return (
            tensor.clone() if place in self._shared or any(start == one.data_ptr() for one in found[:place]) else tensor
        )

    def _claim(self) -> None:
        """OpenMP keeps the count of threads for each calling thread."""
        import torch

        torch.set_num_threads(self._candidate.threads)
        self._thread = threading.get_ident()

    def _executed_precision(self) -> dict[str, str]:
        return dict(self._record.layers)

    def _close(self) -> None:
        del self._call


def to_tensor(array: Array, dtype: DType) -> Any:
    """The array as a tensor of the same memory where compiled code may read it there, otherwise of a copy."""
    import torch

    flags = array.flags
    if not (flags.c_contiguous and flags.writeable and flags.aligned):
        array = np.array(array, order="C")
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype is DType.BF16 else tensor


def to_array(tensor: Any, dtype: DType) -> Array:
    """The tensor's memory as an array, which keeps it alive."""
    import torch

    whole = tensor.contiguous()
    array: Array = (whole.view(torch.uint16) if dtype is DType.BF16 else whole).numpy()
    return array
