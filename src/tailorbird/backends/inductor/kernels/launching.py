"""What every kernel that can be launched is: when it fits, how it can be configured, and the call itself."""

from __future__ import annotations

import abc
import json
import random
from collections.abc import Sequence
from importlib import import_module
from typing import Any, ClassVar

import msgspec

from tailorbird.backends.inductor.kernels.operators import OPERATORS, Operator
from tailorbird.backends.inductor.restructure.editing import torch

Config = tuple[int | str, ...]
LIBRARY: Config = ("library",)
"""PyTorch's own operators, which call cuBLAS and cuDNN."""

MULTIPROCESSORS = 132
"""Of an H100 (SXM): what grids are cut for where no device is asked."""
SHARED_BYTES = 227_000
"""Shared memory that one program may use on an H100."""


PREFETCHED_ROWS = 4096
"""Rows below which a product asks for its weights ahead."""

OFFSETS = 1 << 30
"""Elements of one tensor that kernels take: offsets have 32 bits, and padding may add some."""


class Options(msgspec.Struct, frozen=True):
    """What holds for all kernels of an engine."""

    overlap: int = 1
    """How kernels overlap (programmatic dependent launch).

    0: not at all; 1: a kernel starts when the one before it has done its sums; 2: then, too, and it asks for its
    weights before it waits; 3: when the one before it has started.
    """
    eight_bits: bool = False
    """Whether large linear layers run in FP8."""
    fast_gelu: bool = True
    """Whether GELU may be off by 5e-4, about what FP16 rounds off at 1: by the hardware's tanh, or in its tanh form."""


class Kernel(abc.ABC):
    """One fused operator, run in one way."""

    operator: ClassVar[str]
    weights: ClassVar[tuple[int, ...]] = ()
    """Arguments that are weights: in a network each call reads others, so they come from device memory."""
    tried: ClassVar[int] = 1000
    """Configurations of a kind that a first round tries, drawn with a fixed seed."""

    def __init__(self, config: Config, options: Options) -> None:
        self.config = config
        self.options = options

    @classmethod
    def configs(cls, *args: Any) -> list[Config]:
        """Ways to run it on these arguments, the library's first; no other where no kernel fits.

        Where there are many of a kind, some of them: :meth:`around` has those like the best of them.
        """
        kinds: dict[int | str, list[Config]] = {}
        for config in cls._all(args):
            kinds.setdefault(config[0], []).append(config)
        return [LIBRARY, *(config for found in kinds.values() for config in _drawn(found, cls.tried))]

    @classmethod
    def around(cls, config: Config, *args: Any) -> list[Config]:
        """Ways to run it that differ from this one in a single number."""
        return [one for one in cls._all(args) if _differences(one, config) == 1]

    def __call__(self, *args: Any) -> Any:
        """Run the operator."""
        return self._library(*args) if self.config == LIBRARY else self._launch(*args)

    def _library(self, *args: Any) -> Any:
        plain: Operator = OPERATORS[self.operator]
        return plain(*args)

    @classmethod
    def _all(cls, args: tuple[Any, ...]) -> list[Config]:
        return cls._configs(*args) if _on_kernels(args) else []

    @classmethod
    @abc.abstractmethod
    def _configs(cls, *args: Any) -> list[Config]: ...

    @abc.abstractmethod
    def _launch(self, *args: Any) -> Any: ...

    def _flags(self) -> dict[str, Any]:
        return {"PDL": self.options.overlap, "launch_pdl": self.options.overlap > 0}

    def _flags_for(self, rows: int) -> dict[str, Any]:
        """The same for a product of so many rows: where they are many, weights are the smaller part of what is read."""
        return {
            **self._flags(),
            "PDL": 1 if self.options.overlap == 2 and rows >= PREFETCHED_ROWS else self.options.overlap,
        }


def _drawn(configs: Sequence[Config], most: int) -> list[Config]:
    shuffled = list(configs)
    random.Random(0).shuffle(shuffled)
    return shuffled[:most]


def _differences(one: Config, other: Config) -> int:
    """Places at which they differ; of two kinds they differ everywhere."""
    if one[0] != other[0]:
        return max(len(one), len(other))
    return sum(a != b for a, b in zip(one, other, strict=True))


def device_module(name: str) -> Any:
    """A module of kernels, loaded with Triton on first use."""
    return import_module(f"tailorbird.backends.inductor.kernels.device.{name}")


def cdiv(a: int, b: int) -> int:
    """How many times b it takes to reach a."""
    return -(-a // b)


def power(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def is_half(*tensors: Any) -> bool:
    """Whether all tensors are of one 16-bit float type."""
    kinds = {tensor.dtype for tensor in tensors}
    return len(kinds) == 1 and kinds <= {torch().float16, torch().bfloat16}


def problem(operator: str, args: tuple[Any, ...]) -> str:
    """What of a call decides how it is best run, as text: shapes and types, the two 16-bit types counting as one."""
    return json.dumps([operator, [_word(arg) for arg in args]])


def _word(arg: Any) -> Any:
    if not isinstance(arg, torch().Tensor):
        return arg
    kind = "half" if is_half(arg) else str(arg.dtype).removeprefix("torch.")
    return f"{kind}[{'x'.join(map(str, arg.shape))}]"


def _on_kernels(args: tuple[Any, ...]) -> bool:
    """Whether Triton runs where the arguments lie: on a GPU, or in its interpreter."""
    tensors = [arg for arg in args if isinstance(arg, torch().Tensor)]
    try:
        knobs = import_module("triton").knobs
    except ImportError:
        return False
    return bool(knobs.runtime.interpret) or all(tensor.is_cuda for tensor in tensors)
