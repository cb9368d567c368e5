"""Profiles: the smallest, usual and largest shape of every input an engine must serve."""

from __future__ import annotations

import re

import msgspec

from tailorbird.domain.errors import InputError, UsageError
from tailorbird.domain.signature import Shape, Shapes, Signature


class Profile(msgspec.Struct, frozen=True):
    """min/opt/max shape of each input. A degenerate profile (min = max) is a static shape."""

    min: dict[str, Shape]
    opt: dict[str, Shape]
    max: dict[str, Shape]

    @classmethod
    def static(cls, shapes: Shapes) -> Profile:
        """The profile that admits exactly these shapes."""
        fixed = dict(shapes)
        return cls(min=fixed, opt=fixed, max=fixed)

    @property
    def is_static(self) -> bool:
        """Whether only one shape is admitted."""
        return self.min == self.max

    def edges(self) -> dict[str, Shapes]:
        """The shapes to gate and measure at: opt, min and max, each distinct shape once, labelled."""
        edges: dict[str, Shapes] = {"opt": self.opt}
        for label, shapes in (("min", self.min), ("max", self.max)):
            if shapes not in edges.values():
                edges[label] = shapes
        return edges

    def check(self, shapes: Shapes) -> None:
        """Raise :class:`InputError` when a shape lies outside what the engine was proven for."""
        for name, shape in shapes.items():
            low, high = self.min[name], self.max[name]
            if not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
                expected = _text(low) if low == high else f"{_text(low)} to {_text(high)}"
                raise InputError(
                    f"input '{name}' lies outside the engine's profile",
                    got=_text(shape),
                    expected=expected,
                    hint="build with --min-shapes, --opt-shapes and --max-shapes that cover it",
                )

    def checked_against(self, signature: Signature) -> Profile:
        """Itself, once every edge binds to the signature and min <= opt <= max holds.

        Raises:
            InputError: a shape contradicts the signature, or the edges are out of order.
        """
        for shapes in (self.min, self.opt, self.max):
            signature.bind(shapes)
        for name, opt in self.opt.items():
            ordered = zip(self.min[name], opt, self.max[name], strict=True)
            if not all(1 <= low <= mid <= high for low, mid, high in ordered):
                got = " / ".join(map(_text, (self.min[name], opt, self.max[name])))
                raise InputError(f"shapes of '{name}' are out of order", got=got, expected="1 <= min <= opt <= max")
        return self

    def __str__(self) -> str:
        if self.is_static:
            return format_shapes(self.opt)
        return " / ".join(map(format_shapes, (self.min, self.opt, self.max)))


def parse_shapes(text: str) -> dict[str, Shape]:
    """Read trtexec's grammar: ``name:1x3x224x224,other:1x128``. A scalar is ``name:``.

    Raises:
        UsageError: the text does not follow the grammar.
    """
    shapes: dict[str, Shape] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, colon, dims = part.rpartition(":")
        if not colon or not name or not re.fullmatch(r"(\d+(x\d+)*)?", dims):
            raise UsageError("cannot read shapes", got=repr(part), expected="name:1x3x224x224[,name:...]")
        if name in shapes:
            raise UsageError(f"shapes name the input '{name}' twice", got=repr(text))
        shapes[name] = tuple(int(size) for size in dims.split("x")) if dims else ()
    return shapes


def format_shapes(shapes: Shapes) -> str:
    """The inverse of :func:`parse_shapes`."""
    return ",".join(f"{name}:{_text(shape)}" for name, shape in shapes.items())


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
