"""What a message repeats is counted on its bytes."""

import tracemalloc

import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed")

from tailorbird.service.faults import WireError
from tailorbird.service.limits import Limits
from tailorbird.service.rpc import scan, schema

LIMITS = Limits(tensors=3, parameters=2, json_elements=100_000)


def field(number, value):
    return scan.varint(number << 3 | 2) + scan.varint(len(value)) + value


def refused(message, limits=LIMITS):
    with pytest.raises(WireError) as caught:
        scan.split(message, limits)
    return caught.value.message


def test_raw_tensors_are_set_apart_wherever_they_stand():
    message = field(7, b"one") + field(1, b"m") + field(7, b"") + field(3, b"id") + field(7, b"two")
    header, blobs = scan.split(message, LIMITS)
    assert header == field(1, b"m") + field(3, b"id")
    assert [bytes(blob) for blob in blobs] == [b"one", b"", b"two"]
    assert all(blob.obj is message for blob in blobs)


def test_without_raw_tensors_the_message_is_not_copied():
    message = field(1, b"m")
    header, blobs = scan.split(message, LIMITS)
    assert header is message
    assert blobs == []


def test_an_empty_message():
    assert scan.split(b"", LIMITS) == (b"", [])


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 1 << 20, 2**64 - 1])
def test_a_varint_is_read_as_it_was_written(number):
    data = scan.varint(number) + b"rest"
    assert scan._varint(memoryview(data), 0, len(data)) == (number, len(data) - 4)


@pytest.mark.parametrize(
    ("message", "got"),
    [
        (b"\x0a", "a number without an end"),
        (b"\x0a\x05abc", "a field that runs past the end"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a number without an end"),
        (b"\x80" * 20, "a number without an end"),
        (b"\x09\x00", "a field that runs past the end"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0e", "wire type 6"),
    ],
)
def test_bytes_that_are_no_message(message, got):
    assert refused(message) == f"the message is not valid protobuf: got {got}"


@pytest.mark.parametrize(
    ("number", "limit", "name"),
    [(4, 2, "parameters"), (5, 3, "inputs"), (6, 3, "outputs"), (7, 3, "raw_input_contents")],
)
def test_what_is_repeated_is_limited(number, limit, name):
    scan.split(field(number, b"") * limit, LIMITS)
    words = f"the request has too many {name}: got at least {limit + 1}, expected at most {limit}"
    assert refused(field(number, b"") * (limit + 1)) == words


def test_fields_are_limited_at_every_depth():
    many = scan.FIELDS + 1
    expected = "the request has too many fields: expected at most 65536"
    assert refused(b"\x78\x00" * many).startswith(expected)  # an unknown number
    assert refused(field(1, b"") * many).startswith(expected)
    for nested in (
        field(5, field(4, b"") * many),  # parameters of an input
        field(5, field(5, field(8, b"") * many)),  # BYTES
        field(5, field(5, b"\x10\x00" * many)),  # int_contents, not packed
        field(5, field(5, b"") * many),  # contents again and again
        field(4, field(1, b"") * many),  # the key of one parameter
        field(6, field(2, b"") * many),
    ):
        assert refused(nested).startswith(expected)


@pytest.mark.parametrize(("number", "size"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 4), (7, 8)])
def test_packed_numbers_are_limited(number, size):
    def contents(count):
        return field(5, field(5, field(number, b"\x00" * (size * count))))

    scan.split(contents(100_000), LIMITS)
    assert refused(contents(100_001)) == (
        "the request has too many elements in contents: got at least 100001, expected at most 100000\n"
        "Hint: send them in raw_input_contents"
    )
    half = contents(50_001)
    assert "got at least 100002" in refused(half + half)


def test_long_varints_are_counted_as_one():
    scan.split(field(5, field(5, field(3, b"\xff" * 9 + b"\x01") * 1)), LIMITS)
    scan.split(field(5, field(5, field(3, (b"\xff" * 9 + b"\x01") * 100_000))), LIMITS)


def test_dims_are_counted_like_elements():
    assert "too many elements" in refused(field(5, field(3, b"\x01" * 100_001)))


def test_a_message_of_nothing_but_inputs_costs_no_memory():
    """Two bytes on the wire would be an object of a hundred to the parser."""
    message = field(5, b"") * (4 << 20)
    tracemalloc.start()
    refused(message, Limits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_what_protobuf_writes_is_read():
    request = schema.ModelInferRequest(model_name="m", raw_input_contents=[b"abc"])
    request.parameters["timeout"].int64_param = 3
    request.inputs.add(name="x", shape=[1, 300], datatype="UINT8").contents.int_contents.extend([-1, 1])
    header, blobs = scan.split(request.SerializeToString(), LIMITS)
    assert [bytes(blob) for blob in blobs] == [b"abc"]
    request.ClearField("raw_input_contents")
    assert schema.ModelInferRequest.FromString(header) == request
