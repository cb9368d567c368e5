"""Payloads: bodies that a server reads back as what was meant."""

import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import UsageError
from tailorbird.load.payloads import ModelInput, binary, plain, synthetic
from tailorbird.service.limits import Limits
from tailorbird.service.web.wire import decode_infer

INPUTS = tuple(ModelInput(kind.lower(), kind, (-1, 3)) for kind in map(str, DType))


def test_binary_bodies_of_every_type_read_back() -> None:
    tensors = synthetic(INPUTS, rows=2, dims={})[0]
    payload = binary(tensors, {one.name: one.datatype for one in INPUTS})
    length = int(dict(payload.headers)["inference-header-content-length"])
    read, _ = decode_infer(payload.body, length, "m", None, Limits())
    for name, array in tensors.items():
        assert np.array_equal(read.inputs[name], array), name


def test_json_bodies_read_back() -> None:
    plain_types = [one for one in INPUTS if one.datatype not in ("FP16", "BF16")]
    tensors = synthetic(tuple(plain_types), rows=1, dims={})[0]
    read, _ = decode_infer(plain(tensors, {one.name: one.datatype for one in INPUTS}).body, None, "m", None, Limits())
    for name, array in tensors.items():
        assert np.array_equal(read.inputs[name], array), name


def test_inputs_are_never_zeros_and_differ() -> None:
    made = synthetic((ModelInput("x", "FP32", (-1, 8)),), rows=4, dims={})
    assert all(np.count_nonzero(one["x"]) == 32 for one in made)
    assert not np.array_equal(made[0]["x"], made[1]["x"])


def test_dynamic_dims_must_be_said() -> None:
    ids = (ModelInput("ids", "INT64", (-1, -1)),)
    with pytest.raises(UsageError, match="input 'ids' has dynamic dims"):
        synthetic(ids, 1, {})
    assert synthetic(ids, 1, {"ids": (1, 7)})[0]["ids"].shape == (1, 7)
