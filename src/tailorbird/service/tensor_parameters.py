"""What the parameters of one tensor ask for, by the protocol's extensions. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from tailorbird.service.faults import Refused, WireError
from tailorbird.serving.dataplane import Parameter
from tailorbird.serving.shared_memory import Reader, Regions
from tailorbird.serving.slices import Slice

REGION = "shared_memory_region"
OFFSET = "shared_memory_offset"
SIZE = "shared_memory_byte_size"
_MOST = 2**63 - 1


def slice_of(
    whose: str, parameters: Mapping[str, Parameter], regions: Regions | Reader | Refused | None
) -> Slice | None:
    """Where in shared memory a tensor lies; None where its parameters say nothing of it.

    Args:
        whose: the tensor, for errors.
        parameters: its parameters.
        regions: clients' shared memory; None where it is off, and the error for callers that may not use it.

    Raises:
        WireError: shared memory is off, or one of its parameters is wrong.
        Refused: it is not for this caller.
    """
    region = parameters.get(REGION)
    if region is None:
        if SIZE in parameters:
            raise WireError(f"{whose} has a {SIZE} and no {REGION}")
        return None
    if isinstance(regions, Refused):
        raise regions
    if regions is None:
        raise WireError(f"{whose} has the parameter {REGION}", got="shared memory is off on this server")
    if not isinstance(region, str):
        raise WireError(f"{whose} has a {REGION} that is no name", got=repr(region)[:40])
    if SIZE not in parameters:
        raise WireError(f"{whose} has a {REGION} and no {SIZE}")
    return Slice(region, *(_whole(whose, name, parameters.get(name, 0)) for name in (OFFSET, SIZE)))


def classes_of(whose: str, parameters: Mapping[str, Parameter]) -> int:
    """How many classes of an output are asked for; 0 where its values are.

    Raises:
        WireError: the number is none, or its place in shared memory is given, too.
    """
    count = parameters.get("classification")
    if count is None:
        return 0
    if type(count) is not int or not 1 <= count <= _MOST:
        raise WireError(f"{whose} has a classification that is no number of classes", got=repr(count)[:40],
                        expected="a whole number, 1 or more")  # fmt: skip
    if REGION in parameters:
        raise WireError(f"{whose} has both classification and {REGION}")
    return count


def _whole(whose: str, name: str, value: Parameter) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise WireError(f"{whose} has a {name} that is no number of bytes", got=repr(value)[:40])
    return value
