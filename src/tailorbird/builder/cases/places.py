"""Places: the concrete shapes at which every engine of a build is gated and measured."""

from __future__ import annotations

import msgspec

from tailorbird.domain.errors import InputError
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Shape, Shapes, Signature


class Place(msgspec.Struct, frozen=True):
    """One set of input shapes inside the profile. ``opt`` is the place that decides the race."""

    edge: str
    shapes: dict[str, Shape]
    rows: int


def places_of(profile: Profile, signature: Signature) -> tuple[Place, ...]:
    """The profile's edges, and every power-of-two batch between its smallest and largest.

    Batches take the opt shape in all other dims.
    """
    found = [_place(edge, shapes, signature) for edge, shapes in profile.edges().items()]
    batch = signature.batch_dim
    if batch is not None:
        low, high = (signature.bind(edge)[batch] for edge in (profile.min, profile.max))
        for rows in (1 << power for power in range(high.bit_length())):
            shapes = with_rows(profile.opt, rows)
            if low < rows < high and all(place.shapes != shapes for place in found):
                found.append(Place(f"batch{rows}", shapes, rows))
    return tuple(found)


def with_rows(shapes: Shapes, rows: int) -> dict[str, Shape]:
    """The same shapes with another leading dim."""
    return {name: (rows, *shape[1:]) for name, shape in shapes.items()}


def plan_profile(signature: Signature, given: dict[str, dict[str, Shape]], sample: Shapes | None) -> Profile:
    """The profile to build for, from what the user said.

    Args:
        signature: of the source.
        given: shapes under ``min``, ``opt`` and ``max``; each may be empty or name some inputs only.
        sample: shapes of the user's data, used where nothing was said.

    Returns:
        A checked profile. With opt alone min and max equal it, as in trtexec. With nothing said, dims
        come from the data, and a batch dim is 1.

    Raises:
        InputError: a dynamic dim is left without a size, or shapes contradict the signature.
    """
    for shapes in given.values():
        _check_known(signature, shapes)
    opt = _completed(signature, given["opt"] or given["max"] or given["min"], sample)
    low = _completed(signature, given["min"], opt if not given["min"] else None, opt)
    high = _completed(signature, given["max"], opt if not given["max"] else None, opt)
    return Profile(min=low, opt=opt, max=high).checked_against(signature)


def _completed(
    signature: Signature, said: Shapes, sample: Shapes | None, fallback: Shapes | None = None
) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for spec in signature.inputs:
        known = said.get(spec.name) or (sample or {}).get(spec.name) or (fallback or {}).get(spec.name)
        shapes[spec.name] = known if known is not None else _default_shape(signature, spec.name)
    return shapes


def _default_shape(signature: Signature, name: str) -> Shape:
    spec = signature.input(name)
    unknown = [dim for dim in spec.dims if isinstance(dim, str) and dim != signature.batch_dim]
    if unknown:
        example = "x".join(
            str(dim) if isinstance(dim, int) else "1" if dim == signature.batch_dim else "N" for dim in spec.dims
        )
        raise InputError(
            f"input '{name}' has dynamic dims without a size",
            got=str(spec),
            expected=f"a size for {', '.join(unknown)}",
            hint=f"give --opt-shapes {name}:{example} (and --min-shapes, --max-shapes for a range), or --data",
        )
    return tuple(dim if isinstance(dim, int) else 1 for dim in spec.dims)


def _check_known(signature: Signature, shapes: Shapes) -> None:
    for name in shapes:
        signature.input(name)


def _place(edge: str, shapes: Shapes, signature: Signature) -> Place:
    batch = signature.batch_dim
    return Place(edge, dict(shapes), signature.bind(shapes)[batch] if batch else 1)
