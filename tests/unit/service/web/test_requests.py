"""Requests whose JSON is long: read as short ones are, and ended at the first item too many."""

import json
import tracemalloc

import msgspec
import pytest

from tailorbird.service.faults import WireError
from tailorbird.service.limits import Limits
from tailorbird.service.web.requests import LONG, Input, decoded, read

LIMITS = Limits()
MANY = 400_000
ROOM = 32 << 20
"""Bytes; what was made of each list below took more."""

WHOLE = {
    "id": "7",
    "parameters": {"priority": 1, 'a " b': "\\", "none": False},
    "inputs": [
        {"name": "x", "shape": [2, 0], "datatype": "FP32", "data": [[], []], "unknown": [{"deep": [1]}]},
        {"name": "y", "shape": [], "datatype": "BYTES", "parameters": {"binary_data_size": 4}},
        {"name": "z", "shape": [2**63 - 1], "datatype": "", "parameters": None},
    ],
    "outputs": [{"name": "p", "parameters": {"binary_data": True}}, {"name": "q"}],
}


def padded(text: str) -> bytes:
    return text.encode() + b" " * LONG


def plain(request: object) -> object:
    return msgspec.json.decode(msgspec.json.encode(request))


def refused(text: str) -> str:
    with pytest.raises(WireError) as caught:
        read(padded(text), LIMITS)
    return caught.value.message


@pytest.mark.parametrize("document", [WHOLE, {"inputs": []}, {**WHOLE, "outputs": None, "parameters": None}])
def test_long_and_short_are_read_alike(document: object) -> None:
    text = json.dumps(document)
    assert plain(read(padded(text), LIMITS)) == plain(read(text.encode(), LIMITS))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the request's JSON is not valid: got Input data was truncated"),
        ('{"inputs": 1}', "the request's JSON is not valid: got Expected `array`, got `int` - at `$.inputs`"),
        ('{"inputs": [], "parameters": {"a": []}}', "the request's JSON is not valid: got Expected"),
        ('{"inputs": [{"name": "x", "datatype": "", "shape": [-1]}]}', "the request's JSON is not valid: got Expected"),
        ('{"inputs": [{"name": "", "datatype": "", "shape": []}]}', "the request's JSON is not valid: got Expected"),
        ('{"inputs": [{"name": "x", "datatype": "", "shape": [], "data": %s}]}' % ("[" * 5000), "the request"),
    ],
)  # fmt: skip
def test_long_ones_that_are_none(text: str, words: str) -> None:
    assert refused(text).startswith(words)


@pytest.mark.parametrize(
    ("head", "item", "tail", "words"),
    [
        ('{"inputs":[', '{"name":"x","shape":[],"datatype":""}', "]}", "at most length 256"),
        ('{"inputs":[],"outputs":[', '{"name":"x"}', "]}", "at most length 256"),
        ('{"inputs":[{"name":"x","datatype":"","shape":[', "999", "]}]}", "at most length 17"),
        ('{"inputs":[],"parameters":{', '"%x":0', "}}", "the request has too many parameters"),
        ('{"inputs":[{"name":"x","datatype":"","shape":[],"parameters":{', '"%x":0', "}}]}", "input 'x' has too many"),
        ('{"inputs":[],"outputs":[{"name":"y","parameters":{', '"%x":0', "}}]}", "output 'y' has too many parameters"),
        ('{"inputs":[],"parameters":{', '"%x":0', '},"parameters":{}}', ""),  # the one that counts is the last
    ],
)
def test_too_many_of_anything_ends_it_before_objects_are_made(head: str, item: str, tail: str, words: str) -> None:
    items = (item % number if "%" in item else item for number in range(MANY))
    body = (head + ",".join(items) + tail).encode()
    tracemalloc.start()
    try:
        if words:
            with pytest.raises(WireError) as caught:
                read(body, LIMITS)
            assert words in caught.value.message
        else:
            assert read(body, LIMITS).parameters == {}
        assert tracemalloc.get_traced_memory()[1] < ROOM
    finally:
        tracemalloc.stop()


def test_as_many_parameters_as_there_may_be_whatever_is_in_them() -> None:
    texts = {f'{number}"\\': '"\\"' * 9 for number in range(LIMITS.parameters)}
    assert read(padded(json.dumps({"inputs": [], "parameters": texts})), LIMITS).parameters == texts
    assert refused(json.dumps({"inputs": [], "parameters": {**texts, "more": 1}})) == (
        "the request has too many parameters: got 65, expected at most 64"
    )


def test_a_record_of_another_kind() -> None:
    with pytest.raises(WireError, match="not valid"):
        decoded(msgspec.json.Decoder(Input), b"{}")
