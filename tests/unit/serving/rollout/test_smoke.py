"""The smoke check, against functions gone wrong and against a real engine."""

import asyncio

import msgspec
import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.serving.rollout.smoke import made_up, smoke_check
from tests.protocol.engines import TINY, candidate, fake_model, manifest, tiny_function

ROWS = Signature((TensorSpec("x", DType.FP32, ("N", 2)),), (TensorSpec("y", DType.FP32, ("N", 2)),))


def stated(signature, opt=4, **changes):
    """A manifest whose profile has 1 to 64 rows, 4 by default."""
    chosen = candidate(signature)
    low = chosen.profile.min
    usual = {name: (opt, *shape[1:]) for name, shape in low.items()}
    profile = Profile(low, usual, chosen.profile.max)
    return manifest("m", signature, msgspec.structs.replace(chosen, profile=profile, **changes))


class Function:
    """A function in place of an instance."""

    def __init__(self, function):
        self.function = function
        self.asked = []

    async def run(self, inputs):
        self.asked.append(inputs)
        return self.function(inputs)


def check(function, signature=ROWS, **changes):
    runs = Function(function)
    smoke_check(stated(signature, **changes), runs)
    return runs.asked


def test_what_is_asked():
    asked = check(lambda inputs: {"y": inputs["x"]})
    assert [one["x"].shape for one in asked] == [(4, 2), (4, 2), (1, 2), (1, 2)]
    assert asked[0]["x"] is asked[1]["x"]
    assert ((asked[0]["x"] >= 0.25) & (asked[0]["x"] <= 1)).all()


def test_one_shape_is_asked_once_over():
    assert len(check(lambda inputs: {"y": inputs["x"]}, opt=1)) == 2


def test_inputs_of_every_type_are_valid_and_the_same_each_time():
    specs = tuple(TensorSpec(dtype.lower(), dtype, ("N", 3)) for dtype in DType)
    signature = Signature(specs, ())
    shapes = {spec.name: (5, 3) for spec in specs}
    made, again = made_up(signature, shapes), made_up(signature, shapes)
    signature.check(made)
    for dtype in DType:
        np.testing.assert_array_equal(made[dtype.lower()], again[dtype.lower()])
        if not dtype.is_float and dtype is not DType.BYTES:
            assert set(made[dtype.lower()].ravel().tolist()) == {0, 1}
    assert set(made["bytes"].ravel().tolist()) == {b"0", b"1"}
    bf16 = (made["bf16"].astype(np.uint32) << 16).view(np.float32)
    assert ((bf16 >= 0.25) & (bf16 <= 1)).all()


def differs(inputs):
    return {"y": inputs["x"] + np.random.default_rng().normal(0, 0.1, inputs["x"].shape).astype(np.float32)}


def first_row_nan(inputs):
    found = inputs["x"].copy()
    found[0, 0] = np.nan
    return {"y": found}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda inputs: {"z": inputs["x"]}, r"at the profile's opt shape is missing: got z$"),
        (lambda inputs: {}, r"is missing: got no output$"),
        (
            lambda inputs: {"y": inputs["x"].astype(np.float64)},
            r"is of another dtype: got float64, expected float32$",
        ),
        (lambda inputs: {"y": inputs["x"][:1]}, r"is of another shape: got \[1, 2\], expected \[4, 2\]$"),
        (lambda inputs: {"y": inputs["x"][0]}, r"is of another shape: got \[2\], expected \[4, 2\]$"),
        (first_row_nan, r"is not finite in some rows: got 1 such rows, expected all of 4 rows alike$"),
        (differs, r"differs when the same rows are asked again: got [0-9.]+ dB, expected at least 60 dB$"),
    ],
)
def test_what_is_found(function, message):
    with pytest.raises(BackendError, match=f"^the smoke check failed: output 'y' .*{message}"):
        check(function)


def test_a_mask_of_every_row_is_the_models_own():
    check(lambda inputs: {"y": np.where([True, False], inputs["x"], -np.inf).astype(np.float32)})


def test_whole_numbers_have_to_be_equal():
    signature = Signature(ROWS.inputs, (TensorSpec("n", DType.INT64, ("N",)),))
    count = iter(range(9))
    with pytest.raises(BackendError, match=r"got -inf dB"):
        check(lambda inputs: {"n": np.full(len(inputs["x"]), next(count))}, signature)


def test_the_tolerance_is_the_precisions():
    turn = iter(range(99))

    def slightly(inputs):
        return {"y": inputs["x"] * np.float32(1 + 0.01 * (next(turn) % 2))}  # 40 dB

    check(slightly, precision=Precision.FP16)
    with pytest.raises(BackendError, match=r"got 40\.0 dB, expected at least 60 dB"):
        check(slightly)


def test_bf16_is_read_as_numbers():
    signature = Signature((TensorSpec("x", DType.BF16, ("N",)),), (TensorSpec("y", DType.BF16, ("N",)),))

    def one_nan(inputs):
        found = inputs["x"].copy()
        found[0] = 0x7FC0
        return {"y": found}

    check(lambda inputs: {"y": inputs["x"]}, signature)
    with pytest.raises(BackendError, match="not finite in some rows"):
        check(one_nan, signature)


def test_a_limit_of_time():
    class Hangs:
        async def run(self, inputs):
            await asyncio.sleep(60)

    with pytest.raises(BackendError, match=r"^the smoke check found no answer in time: expected all within 0\.05 s$"):
        smoke_check(stated(ROWS), Hangs(), 0.05)


def test_what_the_run_raises_is_the_answer():
    def broken(_):
        raise BackendError("no such kernel")

    with pytest.raises(BackendError, match=r"^no such kernel$"):
        check(broken)


def test_by_the_way_of_requests_and_then_for_a_loop_of_its_own():
    model = fake_model("tiny")
    smoke_check(stated(TINY), model.instance)
    inputs = {"x": np.ones((2, 4), np.float32), "k": np.ones((2, 1), np.int64)}
    outputs = asyncio.run(model.instance.run(inputs))
    np.testing.assert_array_equal(outputs["y"], tiny_function(inputs)["y"])
    model.close()
