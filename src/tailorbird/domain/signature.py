"""The signature: named inputs and outputs with dtype and dims, fixed or named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import InputError, nearest

Dim = int | str
"""A fixed size, or the name of a dynamic dim; equal names mean equal sizes."""

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""A concrete shape for each input, by name."""

Tensors = Mapping[str, Array]
"""Named arrays: the inputs or outputs of one run."""


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output."""

    name: str
    dtype: DType
    dims: tuple[Dim, ...]

    @property
    def is_dynamic(self) -> bool:
        """Whether any dim is named rather than fixed."""
        return any(isinstance(dim, str) for dim in self.dims)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{','.join(map(str, self.dims))}]"


class Signature(msgspec.Struct, frozen=True):
    """What goes in and what comes out."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def dynamic_dims(self) -> tuple[str, ...]:
        """Names of the inputs' dynamic dims, in order of appearance."""
        dims = (dim for spec in self.inputs for dim in spec.dims if isinstance(dim, str))
        return tuple(dict.fromkeys(dims))

    @property
    def batch_dim(self) -> str | None:
        """The dynamic dim that leads every input: the count of rows. None when the inputs share no such dim."""
        leading = {spec.dims[0] if spec.dims else None for spec in self.inputs}
        if len(leading) == 1 and isinstance(first := next(iter(leading)), str):
            return first
        return None

    def input(self, name: str) -> TensorSpec:
        """The input of that name; raises :class:`InputError` naming the nearest one."""
        for spec in self.inputs:
            if spec.name == name:
                return spec
        raise InputError(f"unknown input '{name}'", **self._names_hint(name))

    def bind(self, shapes: Shapes) -> dict[str, int]:
        """Sizes of the named dims under concrete input shapes.

        Raises:
            InputError: an input is missing or unknown, a rank or a fixed dim differs, or one
                name would get two sizes.
        """
        self._check_names(shapes)
        bound: dict[str, int] = {}
        for spec in self.inputs:
            _bind_one(spec, shapes[spec.name], bound)
        return bound

    def check(self, tensors: Tensors) -> None:
        """Raise :class:`InputError` unless names, dtypes, ranks and sizes of the inputs fit."""
        self._check_names(tensors)
        for spec in self.inputs:
            array = tensors[spec.name]
            if not isinstance(array, np.ndarray):
                raise InputError(f"input '{spec.name}' is not a numpy array", got=type(array).__name__, expected=spec)
            if array.dtype != spec.dtype.numpy:
                raise InputError(f"input '{spec.name}' has the wrong dtype", got=array.dtype, expected=spec.dtype)
        self.bind({name: array.shape for name, array in tensors.items()})

    def _check_names(self, given: Iterable[str]) -> None:
        names = {spec.name for spec in self.inputs}
        for name in given:
            if name not in names:
                raise InputError(f"unknown input '{name}'", **self._names_hint(name))
        missing = sorted(names - set(given))
        if missing:
            raise InputError(f"missing input '{missing[0]}'", expected=", ".join(map(str, self.inputs)))

    def _names_hint(self, name: str) -> dict[str, str | None]:
        names = tuple(spec.name for spec in self.inputs)
        close = nearest(name, names)
        return {"expected": ", ".join(names), "hint": f"did you mean '{close}'?" if close else None}


def _bind_one(spec: TensorSpec, shape: Shape, bound: dict[str, int]) -> None:
    expected = f"[{','.join(map(str, spec.dims))}]"
    if len(shape) != len(spec.dims):
        raise InputError(f"input '{spec.name}' has rank {len(shape)}", got=list(shape), expected=expected)
    for dim, size in zip(spec.dims, shape, strict=True):
        known = bound.setdefault(dim, size) if isinstance(dim, str) else dim
        if known != size:
            named = f" ({dim} = {known})" if isinstance(dim, str) else ""
            raise InputError(f"input '{spec.name}' has the wrong shape", got=list(shape), expected=expected + named)
