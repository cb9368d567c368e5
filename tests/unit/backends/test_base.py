"""What the base classes do for every backend, seen with a backend made of nothing."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tailorbird.backends.base import Availability, Backend, Capabilities, Session, copy_model, vendor_border
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, BackendUnavailable, InputError, UsageError
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, Tensors, TensorSpec
from tailorbird.domain.target import Target

SIGNATURE = Signature(
    (TensorSpec("x", DType.FP32, ("n",)), TensorSpec("t", DType.BYTES, ("n",))), (TensorSpec("y", DType.FP32, ("n",)),)
)
PROFILE = Profile(min={"x": (1,), "t": (1,)}, opt={"x": (2,), "t": (2,)}, max={"x": (3,), "t": (3,)})
CANDIDATE = Candidate(Target("none", "cpu", "any"), Precision.FP32, PROFILE, ShapeMode.DYNAMIC, 1)


class VendorPanic(BaseException):
    """As some vendors' packages raise: outside Exception."""


class Fake(Session):
    failure: BaseException | None = None

    def _run(self, inputs: Tensors) -> dict[str, Any]:
        if self.failure:
            raise self.failure
        return {"y": inputs["x"]}

    def _executed_precision(self) -> dict[str, str]:
        raise RuntimeError

    def _close(self) -> None:
        raise OSError("the device is\n  gone")


def fitting(size: int = 2) -> dict[str, Any]:
    return {"x": np.zeros(size, np.float32), "t": np.full(size, b"", object)}


@pytest.fixture
def session() -> Fake:
    return Fake("fake", CANDIDATE, SIGNATURE)


@pytest.mark.parametrize("failure", [RuntimeError("no\n kernel"), VendorPanic("no kernel"), MemoryError("no kernel")])
def test_whatever_a_vendor_raises_is_a_backend_error(session: Fake, failure: BaseException) -> None:
    session.failure = failure
    with pytest.raises(BackendError) as failed:
        session.run(fitting())
    assert failed.value.message == "fake could not run the engine: got no kernel"
    assert failed.value.__cause__ is failure


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), SystemExit(3), InputError("odd")])
def test_what_is_ours_or_the_users_passes(session: Fake, failure: BaseException) -> None:
    session.failure = failure
    with pytest.raises(type(failure)) as passed:
        session.run(fitting())
    assert passed.value is failure


def test_a_vendor_that_says_nothing_is_quoted_by_its_class(session: Fake) -> None:
    with pytest.raises(BackendError, match=r"^fake could not report executed precision: got RuntimeError$"):
        session.executed_precision()


def test_a_vendor_that_says_too_much_is_cut() -> None:
    with pytest.raises(BackendError) as failed, vendor_border("fake", "stop"):
        raise RuntimeError("word " * 1000)
    assert failed.value.got == ("word " * 120) + " …"


def test_a_vendor_that_cannot_close_is_closed(session: Fake) -> None:
    with pytest.raises(BackendError, match=r"^fake could not close the engine: got the device is gone$"):
        session.close()
    session.close()


def test_only_what_was_accepted_skips_the_check(session: Fake) -> None:
    for _ in range(2):
        session.run(fitting(2))
        for strange in (
            fitting(4),
            {},
            {"x": fitting()["x"]},
            fitting() | {"x": np.zeros(2)},
            fitting() | {"x": [0.0, 0.0]},
            fitting() | {"x": np.zeros(3, np.float32)},
        ):
            with pytest.raises(InputError):
                session.run(strange)
        session.run(fitting(3))
        session.run(dict(reversed(fitting(3).items())))


def test_samples_fit_the_signature(session: Fake) -> None:
    sample = session._sample()
    SIGNATURE.check(sample)
    assert sample["t"].tolist() == [b"", b""]


def test_models_are_copied_with_their_data(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    (source / "net.onnx").write_bytes(b"graph")
    (source / "net.onnx.data").write_bytes(b"weights")
    (source / "other.data").write_bytes(b"")
    assert copy_model(source / "net.onnx", out) == out / "model.onnx"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "model.onnx": b"graph",
        "net.onnx.data": b"weights",
    }


HERE = Capabilities(Target("none", "cpu", "any"), (Precision.FP32,), EngineFormat("none", "none", "model.none"))


class Nowhere(Backend):
    """A backend of nothing, for one machine."""

    name = "none"
    install = "pip install none"

    def _version(self) -> str:
        return "1"

    def _capabilities(self) -> Capabilities:
        return HERE

    def _compile(self, model: Path, candidate: Candidate, workdir: Path) -> None: ...

    def _open(self, engine: Path, candidate: Candidate, signature: Signature) -> Session:
        return Fake("none", candidate, signature)


class Elsewhere(Nowhere):
    """One that builds for others, and knows its engines."""

    def _version(self) -> str:
        raise ImportError("no library here")

    def _capabilities_for(self, target: Target) -> Capabilities:
        if target.device != "gpu":
            return super()._capabilities_for(target)
        return msgspec.structs.replace(HERE, target=target, runs_here=False)

    def _check(self, engine: Path, candidate: Candidate) -> None:
        raise RuntimeError("of another\n version")


def test_a_backend_builds_for_its_own_machine_unless_it_says_more() -> None:
    assert Nowhere().capabilities(HERE.target) == Nowhere().capabilities()
    with pytest.raises(UsageError) as caught:
        Nowhere().capabilities(Target.parse("none:cpu:other"))
    assert caught.value.message == (
        "none cannot build for none:cpu:other: expected none:cpu:any\nHint: build on a machine of that kind"
    )


def test_a_target_elsewhere_needs_nothing_here() -> None:
    assert not Elsewhere().capabilities(Target.parse("none:gpu:big")).runs_here
    with pytest.raises(BackendUnavailable, match="no library here"):
        Elsewhere().capabilities()
    with pytest.raises(BackendUnavailable, match="no library here"):
        Elsewhere().capabilities(Target.parse("none:cpu:any"))


def test_a_check_says_nothing_or_a_backend_error(tmp_path: Path) -> None:
    Nowhere().check(tmp_path, CANDIDATE)
    with pytest.raises(BackendError) as caught:
        Elsewhere().check(tmp_path, CANDIDATE)
    assert caught.value.message == "none could not check the engine against this device: got of another version"


class Idle(Nowhere):
    """One whose library is here, and whose device is not."""

    def _ready(self) -> None:
        raise BackendUnavailable("no such device here", got="a CPU", hint="plug one in")


def test_a_library_without_its_device_has_a_version_and_a_reason() -> None:
    assert Idle().probe() == Availability(False, "1", "no such device here: got a CPU", "plug one in")
    with pytest.raises(BackendUnavailable) as refused:
        Idle().capabilities()
    assert refused.value.message == ("none is not available: got no such device here: got a CPU\nHint: plug one in")
