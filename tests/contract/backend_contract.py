"""What every backend promises. A backend's test file is a fixture and an empty class that inherits this one."""

import contextlib
import gc
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailorbird.backends.base import Backend, Session
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, InputError, UsageError
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target
from tests.contract import models
from tests.contract.models import Case

KNOWN = {*Precision, "fp64", "bool", "string", *(dtype.lower() for dtype in DType)}
"""The words in which layers may say what they run in."""

Open = Callable[..., Session]


def agree(case: Case, outputs: Any, inputs: Any = None) -> None:
    expected = case.expected(inputs)
    assert list(outputs) == [spec.name for spec in case.signature.outputs]
    for spec in case.signature.outputs:
        got = outputs[spec.name]
        assert got.dtype == spec.dtype.numpy, spec.name
        assert got.shape == expected[spec.name].shape, spec.name
        np.testing.assert_allclose(got, expected[spec.name], rtol=1e-5, atol=1e-5, err_msg=spec.name)


class BackendContract:
    """Inherit it, give a fixture ``backend``."""

    types: tuple[DType, ...] = tuple(dtype for dtype in DType if dtype is not DType.BYTES)
    """Element types that can be inputs and outputs."""
    times_layers = True
    """Whether a profile has times."""
    fuses = True
    """Whether an activation runs inside the convolution before it."""

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError

    def source(self, case: Case, folder: Path) -> Path:
        """The file that a backend compiles: ONNX, unless it takes another form."""
        return case.write(folder)

    @pytest.fixture(params=models.CASES, ids=lambda make: make.__name__)
    def case(self, request: pytest.FixtureRequest) -> Case:
        made: Case = request.param()
        return made

    @pytest.fixture(params=list(ShapeMode))
    def mode(self, request: pytest.FixtureRequest) -> ShapeMode:
        return ShapeMode(request.param)

    @pytest.fixture
    def opened(self, backend: Backend, tmp_path: Path) -> Iterator[Open]:
        """Compiles and opens; what it opened is closed afterwards."""
        sessions: list[Session] = []

        def open_case(case: Case, mode: ShapeMode = ShapeMode.DYNAMIC, **changes: Any) -> Session:
            candidate = candidate_of(backend, case, mode, **changes)
            folder = tmp_path / f"engine{len(sessions)}"
            folder.mkdir()
            backend.compile(self.source(case, tmp_path), candidate, folder)
            sessions.append(backend.open(folder, candidate, case.signature))
            return sessions[-1]

        yield open_case
        for session in sessions:
            session.close()

    def test_it_is_available_with_a_version(self, backend: Backend) -> None:
        found = backend.probe()
        assert found.available, found.reason
        assert found.version[0].isdigit()
        assert not found.reason

    def test_its_capabilities_make_sense(self, backend: Backend) -> None:
        able = backend.capabilities()
        assert Target.parse(str(able.target)) == able.target
        assert able.target.runtime == backend.name
        assert Precision.FP32 in able.precisions
        assert len(set(able.precisions)) == len(able.precisions)
        assert able.variants
        assert able.portable

    def test_a_missing_vendor_package_is_said_with_what_to_install(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(self: Backend) -> str:
            raise ModuleNotFoundError("No module named 'vendor'")

        monkeypatch.setattr(type(backend), "_version", missing)
        found = backend.probe()
        assert not found.available
        assert found.reason == "ModuleNotFoundError: No module named 'vendor'"
        assert found.install == backend.install
        with pytest.raises(BackendError, match=f"^{backend.name} is not available: got ModuleNotFoundError"):
            backend.capabilities()

    def test_compiling_writes_the_promised_file(self, backend: Backend, tmp_path: Path) -> None:
        case, folder = models.dense(), tmp_path / "engine"
        folder.mkdir()
        backend.compile(self.source(case, tmp_path), candidate_of(backend, case), folder)
        assert (folder / backend.capabilities().format.filename).is_file()

    def test_answers_are_those_of_numpy(self, opened: Open, case: Case, mode: ShapeMode) -> None:
        session = opened(case, mode)
        agree(case, session.run(case.inputs))

    def test_a_dynamic_engine_serves_every_edge_and_comes_back(self, opened: Open, case: Case) -> None:
        session = opened(case)
        for shapes in (*case.profile.edges().values(), case.profile.opt):
            inputs = {name: resized(case.inputs[name], shape) for name, shape in shapes.items()}
            agree(case, session.run(inputs), inputs)

    def test_a_static_engine_refuses_other_shapes(self, opened: Open) -> None:
        session = opened(models.dense(), ShapeMode.STATIC)
        with pytest.raises(InputError) as refused:
            session.run({"x": models.numbers(2, 16)})
        assert refused.value.message == (
            "input 'x' lies outside the engine's profile: got 2x16, expected 3x16\n"
            "Hint: build with --min-shapes, --opt-shapes and --max-shapes that cover it"
        )

    def test_shapes_outside_the_profile_are_refused(self, opened: Open) -> None:
        with pytest.raises(InputError, match="got 9x16, expected 1x16 to 8x16"):
            opened(models.dense()).run({"x": models.numbers(9, 16)})

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"y": models.numbers(3, 16)}, "unknown input 'y': expected x"),
            ({}, r"missing input 'x': expected x FP32\[rows,16\]"),
            ({"x": np.zeros((3, 16))}, "input 'x' has the wrong dtype: got float64, expected FP32"),
            ({"x": models.numbers(16)}, r"input 'x' has rank 1: got \[16\], expected \[rows,16\]"),
            ({"x": models.numbers(3, 15)}, r"input 'x' has the wrong shape: got \[3, 15\], expected \[rows,16\]"),
            ({"x": [[0.0] * 16]}, r"input 'x' is not a numpy array: got list, expected x FP32\[rows,16\]"),
        ],
    )
    def test_inputs_that_do_not_fit_are_refused(self, opened: Open, inputs: Any, message: str) -> None:
        case = models.dense()
        session = opened(case)
        for _ in range(2):  # also once a fitting set was accepted
            with pytest.raises(InputError, match=f"^{message}"):
                session.run(inputs)
            agree(case, session.run(case.inputs))

    def test_outputs_belong_to_the_caller(self, opened: Open, case: Case, mode: ShapeMode) -> None:
        session = opened(case, mode)
        first = session.run(case.inputs)
        kept = {name: array.copy() for name, array in first.items()}
        other = {name: np.zeros_like(array) for name, array in case.inputs.items()}
        agree(case, session.run(other), other)
        for name, array in first.items():
            np.testing.assert_array_equal(array, kept[name])
            array[...] = 1  # theirs to write to
        agree(case, session.run(case.inputs))

    @pytest.mark.parametrize("size", [3, 40000])
    def test_inputs_belong_to_the_caller(self, opened: Open, size: int) -> None:
        case = models.twins()  # one of its outputs is the input itself
        session = opened(case)
        inputs = {"x": np.arange(size, dtype=np.float32)}
        outputs = session.run(inputs)
        inputs["x"][...] = -1
        agree(case, outputs, {"x": np.arange(size, dtype=np.float32)})
        for scratch in (np.full(size, 5, np.float32)[::-1], frozen(np.full(size, 6, np.float32))):
            agree(case, session.run({"x": scratch}), {"x": scratch})
        np.testing.assert_array_equal(inputs["x"], np.full(size, -1, np.float32))
        del inputs
        gc.collect()
        again = {"x": np.arange(size, dtype=np.float32)}
        agree(case, session.run(again), again)

    @pytest.mark.parametrize("size", [(6, 5), (300, 200)])
    def test_any_memory_layout_gives_the_same_answer(self, opened: Open, size: tuple[int, int]) -> None:
        case = models.convolution()
        session = opened(case)
        plain = models.numbers(1, 3, *size, seed=4)
        wide = np.repeat(plain, 2, axis=3)
        layouts = (
            plain,
            np.asfortranarray(plain),
            np.ascontiguousarray(plain.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
            wide[..., ::2],
            frozen(plain.copy()),
            unaligned(plain),
        )
        for array in layouts:
            agree(case, session.run({"image": array}), {"image": plain})

    def test_element_types_go_in_and_come_out(self, opened: Open) -> None:
        for dtype in self.types:
            values = np.array([1, 0, 1, 1], dtype.numpy)
            got = opened(models.same(dtype, values)).run({"x": values})["y"]
            assert got.dtype == dtype.numpy, dtype
            assert got.tolist() == values.tolist(), dtype

    def test_sessions_are_independent(self, opened: Open) -> None:
        dense, choice = models.dense(), models.choice()
        one, two, three = opened(dense), opened(dense), opened(choice)
        agree(dense, one.run(dense.inputs))
        one.close()
        agree(choice, three.run(choice.inputs))
        agree(dense, two.run(dense.inputs))

    def test_an_engine_opens_again_and_again(self, backend: Backend, tmp_path: Path) -> None:
        case, folder = models.dense(), tmp_path / "engine"
        folder.mkdir()
        candidate = candidate_of(backend, case)
        backend.compile(self.source(case, tmp_path), candidate, folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        for _ in range(3):
            with backend.open(folder, candidate, case.signature) as session:
                agree(case, session.run(case.inputs))
                session.executed_precision()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_an_engine_needs_only_its_own_folder(self, backend: Backend, tmp_path: Path) -> None:
        case, built, moved = models.dense(), tmp_path / "built", tmp_path / "moved"
        built.mkdir()
        candidate, source = candidate_of(backend, case), self.source(case, tmp_path)
        backend.compile(source, candidate, built)
        source.unlink()
        built.rename(moved)
        with backend.open(moved, candidate, case.signature) as session:
            agree(case, session.run(case.inputs))

    def test_a_closed_session_says_so(self, opened: Open) -> None:
        case = models.dense()
        session = opened(case)
        session.run(case.inputs)
        session.close()
        session.close()
        late_calls = (
            lambda: session.run(case.inputs),
            session.executed_precision,
            lambda: session.profile([case.inputs], 1),
        )
        for late in late_calls:
            with pytest.raises(BackendError) as refused:
                late()
            assert refused.value.message == "the session is closed\nHint: open the engine again"

    def test_executed_precision_uses_known_words(self, opened: Open, case: Case, mode: ShapeMode) -> None:
        executed = opened(case, mode).executed_precision()
        assert executed
        assert set(executed.values()) <= KNOWN

    def test_executed_precision_of_floats_is_fp32(self, opened: Open) -> None:
        assert "fp32" in opened(models.dense()).executed_precision().values()

    def test_a_profile_names_layers_with_their_times_and_nodes(self, opened: Open, mode: ShapeMode) -> None:
        case = models.block()
        layers = opened(case, mode).profile([case.inputs], runs=4)
        names = [layer.name for layer in layers]
        assert len(set(names)) == len(names) > 0
        assert {layer.precision for layer in layers} <= KNOWN
        assert all(layer.kind and math.isfinite(layer.milliseconds) and layer.milliseconds >= 0 for layer in layers)
        assert (sum(layer.milliseconds for layer in layers) > 0) == self.times_layers
        computing = [layer for layer in layers if {"first", "second", "product", "y"} & set(layer.nodes)]
        assert len(computing) == 3  # each in a layer of its own
        assert {layer.precision for layer in computing} == {"fp32"}

    def test_what_was_fused_is_named(self, opened: Open) -> None:
        case = models.block()
        layers = opened(case).profile([case.inputs], runs=1)
        (first,) = (layer for layer in layers if "first" in layer.nodes)
        assert ("first_relu" in first.nodes) == self.fuses
        for name in case.names()[0] - {"product", "flat"}:  # moving nothing is not executed everywhere
            assert sum(name in layer.nodes for layer in layers) == 1, name

    def test_layers_come_in_execution_order(self, opened: Open) -> None:
        case = models.block()
        layers = opened(case).profile([case.inputs], runs=1)
        named = [name for layer in layers for name in layer.nodes if name in {"first", "second", "pool"}]
        assert named == ["first", "second", "pool"]

    def test_a_profile_agrees_with_the_executed_precision(self, opened: Open, case: Case, mode: ShapeMode) -> None:
        session = opened(case, mode)
        executed = session.executed_precision()
        layers = session.profile([case.inputs], runs=1)
        assert {layer.precision for layer in layers} <= set(executed.values())
        for layer in layers:
            assert executed.get(layer.name, layer.precision) == layer.precision  # some names are made up anew

    def test_profiling_does_not_disturb_runs(self, opened: Open, case: Case) -> None:
        session = opened(case)
        agree(case, session.run(case.inputs))
        kept = {name: array.copy() for name, array in case.inputs.items()}
        session.profile([case.inputs, case.inputs], runs=2)
        agree(case, session.run(case.inputs))
        for name, array in kept.items():
            np.testing.assert_array_equal(case.inputs[name], array)

    @pytest.mark.parametrize(("sets", "runs"), [(0, 1), (1, 0), (1, -1)])
    def test_a_profile_of_nothing_is_refused(self, opened: Open, sets: int, runs: int) -> None:
        case = models.dense()
        with pytest.raises(UsageError) as refused:
            opened(case).profile([case.inputs] * sets, runs=runs)
        assert refused.value.message == (
            f"a profile needs runs and inputs: got {runs} runs, {sets} sets of inputs, expected at least one of each"
        )

    def test_a_profile_refuses_inputs_that_do_not_fit(self, opened: Open) -> None:
        case = models.dense()
        session = opened(case)
        with pytest.raises(InputError, match=r"^missing input 'x'"):
            session.profile([case.inputs, {}], runs=1)
        with pytest.raises(InputError, match="got 9x16, expected 1x16 to 8x16"):
            session.profile([{"x": models.numbers(9, 16)}], runs=1)

    @pytest.mark.parametrize("content", [b"not a model", b"\x08\x08\x12\xff\xff"])
    def test_a_broken_model_is_a_backend_error(self, backend: Backend, tmp_path: Path, content: bytes) -> None:
        case, folder, model = models.dense(), tmp_path / "engine", tmp_path / "broken.onnx"
        folder.mkdir()
        model.write_bytes(content)
        candidate = candidate_of(backend, case, ShapeMode.STATIC)

        def build() -> None:
            backend.compile(model, candidate, folder)
            backend.open(folder, candidate, case.signature)  # some runtimes read the file only here

        with pytest.raises(BackendError) as refused:
            build()
        assert refused.value.what in {
            f"{backend.name} could not {step}" for step in ("compile the model", "open the engine")
        }
        assert refused.value.got
        assert refused.value.__cause__ is not None

    def test_a_broken_or_missing_engine_is_a_backend_error(self, backend: Backend, tmp_path: Path) -> None:
        case, folder = models.dense(), tmp_path / "engine"
        folder.mkdir()
        candidate = candidate_of(backend, case)
        with pytest.raises(BackendError, match="could not open the engine"):
            backend.open(folder, candidate, case.signature)
        backend.compile(self.source(case, tmp_path), candidate, folder)
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(BackendError, match="could not open the engine"):
            backend.open(folder, candidate, case.signature)

    def test_a_runtime_that_fails_is_a_backend_error(self, opened: Open) -> None:
        case = models.embedding()
        session = opened(case)
        far = {"ids": np.array([[1000]], np.int64)}
        with contextlib.suppress(BackendError):  # out of the table: undefined in ONNX, and some runtimes answer
            session.run(far)
        agree(case, session.run(case.inputs))


def candidate_of(backend: Backend, case: Case, mode: ShapeMode = ShapeMode.DYNAMIC, **changes: Any) -> Candidate:
    profile = Profile.static(case.profile.opt) if mode is ShapeMode.STATIC else case.profile
    precision = changes.pop("precision", Precision.FP32)
    return Candidate(backend.capabilities().target, precision, profile, mode, threads=1, **changes)


def resized(array: Any, shape: tuple[int, ...]) -> Any:
    return np.resize(array, shape).astype(array.dtype)


def frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


def unaligned(array: Any) -> Any:
    """The same values one byte off every boundary, as they lie in the middle of a request's body."""
    body = np.empty(array.nbytes + 1, np.uint8)
    view = np.frombuffer(body.data, array.dtype, offset=1).reshape(array.shape)
    view[...] = array
    return view
