"""The protocol's operations, without a socket."""

import asyncio

import msgspec
import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, InputError, ModelNotFound, NotReady
from tailorbird.serving.dataplane import DataPlane, InferRequest
from tailorbird.serving.descriptions import EXTENSIONS
from tailorbird.serving.hub import FailedModel, Hub
from tests.protocol.engines import TINY, echo_model, fake_model

ROWS = {"x": np.arange(8, dtype=np.float32).reshape(2, 4), "k": np.array([[1], [2]])}


@pytest.fixture
def plane():
    hub = Hub([fake_model("tiny", 1), fake_model("tiny", 2), echo_model("bits", DType.BF16)], [])
    yield DataPlane(hub, "9.9.9")
    hub.close()


def infer(plane, **fields):
    return asyncio.run(plane.infer(InferRequest(**{"model": "tiny", "inputs": ROWS, **fields})))


def test_metadata(plane):
    assert msgspec.json.decode(msgspec.json.encode(plane.server_metadata())) == {
        "name": "tailorbird",
        "version": "9.9.9",
        "extensions": list(EXTENSIONS),
    }
    assert msgspec.json.decode(msgspec.json.encode(plane.model_metadata("tiny"))) == {
        "name": "tiny",
        "versions": ["1", "2"],
        "platform": "fake_platform",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
            {"name": "k", "datatype": "INT64", "shape": [-1, 1]},
        ],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1, 4]},
            {"name": "n", "datatype": "INT64", "shape": [-1, 1]},
        ],
    }
    assert plane.signature("tiny", 1) == TINY


def test_health(plane):
    assert (plane.server_live(), plane.server_ready(), plane.model_ready("tiny")) == (True, True, True)


def test_readiness_is_strict_unless_told_otherwise():
    hub = Hub([], [FailedModel("late", 1, "why")])
    assert DataPlane(hub).server_ready() is False
    assert DataPlane(hub, strict_readiness=False).server_ready() is True
    assert DataPlane(hub).server_live() is True
    assert DataPlane(hub).model_ready("late") is False
    with pytest.raises(NotReady):
        asyncio.run(DataPlane(hub).infer(InferRequest(model="late", inputs={})))


def test_an_answer_has_all_outputs_and_the_id(plane):
    response = infer(plane, id="seven")
    assert (response.model, response.version, response.id) == ("tiny", 2, "seven")
    assert response.dtypes == {"y": DType.FP32, "n": DType.INT64}
    np.testing.assert_array_equal(response.outputs["y"], 2 * ROWS["x"] + ROWS["k"])
    np.testing.assert_array_equal(response.outputs["n"], ROWS["k"] + 1)


def test_outputs_come_in_the_order_asked_for(plane):
    assert list(infer(plane, outputs=("n", "y"), version=1).outputs) == ["n", "y"]
    assert list(infer(plane, outputs=("n",)).outputs) == ["n"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"outputs": ("yy",)}, "unknown output 'yy': expected y, n\nHint: did you mean 'y'?"),
        ({"outputs": ("zzz",)}, "unknown output 'zzz': expected y, n"),
        ({"outputs": ("y", "y")}, "an output is asked for twice: got y, y"),
        ({"dtypes": {"x": DType.FP64}}, "input 'x' has the wrong datatype: got FP64, expected FP32"),
        ({"inputs": {"x": ROWS["x"]}}, "missing input 'k': expected x FP32[N,4], k INT64[N,1]"),
        ({"inputs": {**ROWS, "q": ROWS["x"]}}, "unknown input 'q': expected x, k"),
    ],
)
def test_what_contradicts_the_signature_is_refused(plane, fields, text):
    with pytest.raises(InputError) as caught:
        infer(plane, **fields)
    assert caught.value.message == text


def test_more_rows_than_a_run_takes_are_several_runs(plane):
    many = {"x": np.arange(65 * 4, dtype=np.float32).reshape(65, 4), "k": np.arange(65).reshape(65, 1)}
    np.testing.assert_array_equal(infer(plane, inputs=many).outputs["y"], 2 * many["x"] + many["k"])


def test_shapes_outside_the_profile_are_refused(plane):
    wide = {"x": np.zeros((2, 5), np.float32), "k": np.zeros((2, 1), np.int64)}
    with pytest.raises(InputError, match=r"^input 'x' has the wrong shape: got \[2, 5\], expected \[N,4\]$"):
        infer(plane, inputs=wide)


@pytest.mark.parametrize("name", ["timeout", "priority"])
def test_whole_numbers_have_an_end(plane, name):
    for number in (1 << 63, 10**400):
        with pytest.raises(InputError) as caught:
            infer(plane, parameters={name: number})
        assert caught.value.message == (
            f"the parameter '{name}' is too large: got {str(number)[:40]}, expected less than 2^63"
        )
    assert infer(plane, parameters={name: (1 << 63) - 1}).version == 2


def test_uint16_is_not_taken_for_bf16(plane):
    bits = {"x": np.zeros(2, np.uint16)}
    with pytest.raises(InputError, match=r"^input 'x' has the wrong datatype: got UINT16, expected BF16$"):
        infer(plane, model="bits", inputs=bits, dtypes={"x": DType.UINT16})
    assert infer(plane, model="bits", inputs=bits, dtypes={"x": DType.BF16}).dtypes == {"y": DType.BF16}


def test_an_unknown_model_is_refused(plane):
    with pytest.raises(ModelNotFound, match=r"^unknown model 'tinny'\nHint: did you mean 'tiny'\?$"):
        infer(plane, model="tinny")


def test_a_failing_engine_fails_that_request():
    def burn(_):
        raise RuntimeError("smoke")

    hub = Hub([fake_model("hot", function=burn)])
    with pytest.raises(BackendError, match=r"^fake could not run the engine: got smoke$"):
        infer(DataPlane(hub), model="hot")
    hub.close()
