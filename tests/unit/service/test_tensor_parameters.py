from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.errors import UsageError
from tailorbird.service.faults import WireError
from tailorbird.service.tensor_parameters import classes_of, slice_of
from tailorbird.serving.shared_memory import Regions
from tailorbird.serving.slices import Slice

REGIONS = Regions(request_bytes=1 << 20, held_bytes=1 << 20)  # of which there is none
REGION, OFFSET, SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"


def refused(call, *arguments, **options):
    with pytest.raises(WireError) as caught:
        call(*arguments, **options)
    return caught.value.message


def test_a_slice():
    assert slice_of("input 'x'", {}, REGIONS) is None
    assert slice_of("input 'x'", {"binary_data_size": 3}, None) is None
    assert slice_of("input 'x'", {REGION: "r", SIZE: 8}, REGIONS) == Slice("r", 0, 8)
    assert slice_of("input 'x'", {REGION: "r", SIZE: 0, OFFSET: 4}, REGIONS) == Slice("r", 4, 0)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({REGION: "r"}, "x has a shared_memory_region and no shared_memory_byte_size"),
        ({SIZE: 8}, "x has a shared_memory_byte_size and no shared_memory_region"),
        ({REGION: True, SIZE: 8}, "x has a shared_memory_region that is no name: got True"),
        ({REGION: "r", SIZE: True}, "x has a shared_memory_byte_size that is no number of bytes: got True"),
        ({REGION: "r", SIZE: 2**63}, f"x has a shared_memory_byte_size that is no number of bytes: got {2**63}"),
        ({REGION: "r", SIZE: 8, OFFSET: "0"}, "x has a shared_memory_offset that is no number of bytes: got '0'"),
        ({REGION: "r", SIZE: 8, OFFSET: -1}, "x has a shared_memory_offset that is no number of bytes: got -1"),
    ],
)  # fmt: skip
def test_slices_that_are_none(parameters, words):
    assert refused(slice_of, "x", parameters, REGIONS) == words


def test_a_server_without_shared_memory_says_so():
    assert refused(slice_of, "x", {REGION: "r", SIZE: 8}, None) == (
        "x has the parameter shared_memory_region: got shared memory is off on this server"
    )


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True, 2**63])
def test_counts_of_classes_that_are_none(count):
    assert refused(classes_of, "y", {"classification": count}).startswith("y has a classification that is no number")


def test_counts_of_classes():
    assert classes_of("y", {}) == 0
    assert classes_of("y", {"classification": 3}) == 3
    assert refused(classes_of, "y", {"classification": 3, REGION: "r"}) == (
        "y has both classification and shared_memory_region"
    )


VALUES = st.one_of(st.text(max_size=8), st.integers(-(2**64), 2**64), st.floats(), st.booleans())


@given(st.dictionaries(st.sampled_from([REGION, OFFSET, SIZE, "classification"]), VALUES))
def test_whatever_is_said_there_is_an_answer_or_a_refusal_that_is_the_clients(parameters):
    """All the way to the region."""
    with suppress(UsageError):
        classes_of("y", parameters)
    with suppress(UsageError):
        where = slice_of("x", parameters, REGIONS)
        if where is not None:
            with pytest.raises(UsageError):
                REGIONS.reader().read(where)
