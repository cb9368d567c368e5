"""What the driver's library tells. No driver is here, so a stand-in takes its place at the library's border."""

import ctypes
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tailorbird.backends.inductor import device, toolchain
from tailorbird.backends.inductor.backend import InductorCudaBackend
from tailorbird.backends.inductor.device import Gpu, gpu
from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.errors import BackendUnavailable, UsageError
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target


class Driver:
    """``libcuda.so.1``, as far as it is asked. Functions in ``broken`` give the code of theirs."""

    def __init__(self, count: int = 1, capability: tuple[int, int] = (9, 0), **broken: int) -> None:
        self._count = count
        self._attributes = dict(zip((75, 76), capability, strict=True))
        self._broken = broken

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name not in self._broken:
                getattr(self, f"_{name}")(*arguments)
            return self._broken.get(name, 0)

        return call

    def _cuInit(self, flags: int) -> None:  # noqa: N802
        assert flags == 0

    def _cuDeviceGetCount(self, count: Any) -> None:  # noqa: N802
        count._obj.value = self._count

    def _cuDeviceGet(self, found: Any, ordinal: int) -> None:  # noqa: N802
        found._obj.value = ordinal

    def _cuDriverGetVersion(self, version: Any) -> None:  # noqa: N802
        version._obj.value = 13010

    def _cuDeviceGetName(self, name: Any, size: int, _: Any) -> None:  # noqa: N802
        name.value = b"NVIDIA H100 80GB HBM3"

    def _cuDeviceGetAttribute(self, value: Any, which: int, _: Any) -> None:  # noqa: N802
        value._obj.value = self._attributes[which]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    gpu.cache_clear()
    yield
    gpu.cache_clear()


def stand_in(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Driver())
    assert gpu() == Gpu("NVIDIA H100 80GB HBM3", (9, 0), "13.1")
    assert gpu().arch == "sm90"


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_LIBRARY", "libcuda-of-nobody.so.1")
    with pytest.raises(BackendUnavailable) as refused:
        gpu()
    assert refused.value.message.startswith("there is no NVIDIA driver: got libcuda-of-nobody.so.1: cannot open")
    assert refused.value.message.endswith("\nHint: install it; start a container with --gpus all")


def test_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Driver(count=0))
    with pytest.raises(BackendUnavailable, match="the NVIDIA driver sees no GPU\nHint: look at CUDA_VISIBLE_DEVICES"):
        gpu()


def test_a_driver_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Driver(cuInit=803))
    with pytest.raises(BackendUnavailable) as refused:
        gpu()
    assert refused.value.message == (
        "the NVIDIA driver does not answer: cuInit failed: got CUDA error 803\nHint: does nvidia-smi work here?"
    )


@pytest.mark.parametrize(
    ("capability", "precisions"),
    [
        ((7, 5), {Precision.FP32, Precision.FP16, Precision.INT8}),
        ((8, 6), {Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8}),
        ((9, 0), set(Precision)),
    ],
)
def test_a_gpus_capability_decides_its_precisions(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precisions: set[Precision]
) -> None:
    stand_in(monkeypatch, Driver(capability=capability))
    monkeypatch.setattr("tailorbird.backends.inductor.backend._has_cuda", lambda: True)
    monkeypatch.setattr(toolchain, "torch_version", lambda: "2.13.0")
    able = InductorCudaBackend().capabilities()
    assert str(able.target) == f"inductor_cuda:cuda:sm{capability[0]}{capability[1]}"
    assert set(able.precisions) == precisions
    assert able.form is Form.PROGRAM
    assert able.needs_device_to_build
    assert not able.takes_threads
    half = able.variants_of[Precision.FP16]
    assert half[0] == {"compiler": "kernels"}
    assert half[1:] == able.variants  # our kernels compute in neither FP32 nor INT8
    assert not {Precision.FP32, Precision.INT8} & set(able.variants_of)
    profile = Profile.static({"x": (1, 2)})
    plain = Candidate(able.target, Precision.FP16, profile, ShapeMode.STATIC, 1, form=Form.PROGRAM)
    kinds = {str(one): able.format_of(msgspec.structs.replace(plain, options=one)).platform for one in half}
    assert kinds == {
        "{'compiler': 'kernels'}": "tailorbird_kernels",
        "{'restructure': True}": "torch_aoti",
        "{}": "torch_aoti",
    }


def test_where_packages_cannot_be_loaded_torch_compile_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Driver())
    monkeypatch.setattr("tailorbird.backends.inductor.backend._has_cuda", lambda: True)
    monkeypatch.setattr(toolchain, "torch_version", lambda: "2.13.0")
    monkeypatch.setattr(toolchain, "known_fault", lambda: "loading one ended in SIGSEGV")
    able = InductorCudaBackend().capabilities()
    assert all(one.get("compiler") == "jit" for one in able.variants)
    assert able.variants_of[Precision.BF16] == ({"compiler": "kernels"}, *able.variants)  # no C++ library either


def test_torch_for_cpus_is_told_from_torch_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Driver())
    monkeypatch.setattr("tailorbird.backends.inductor.backend._has_cuda", lambda: False)
    monkeypatch.setattr(toolchain, "torch_version", lambda: "2.13.0")
    found = InductorCudaBackend().probe()
    assert not found.available
    assert "the installed torch is for CPUs only: got 2.13.0" in found.reason


def test_a_gpu_elsewhere_is_told_of_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither driver nor compiler is asked: this machine's say nothing of another's."""
    monkeypatch.setattr(device, "_LIBRARY", "libcuda-of-nobody.so.1")
    monkeypatch.setattr(toolchain, "known_fault", lambda: "loading one ended in SIGSEGV")
    able = InductorCudaBackend().capabilities(Target.parse("inductor_cuda:cuda:sm90"))
    assert (able.runs_here, able.needs_device_to_build) == (False, True)
    assert set(able.precisions) == set(Precision)
    assert {"compiler": "kernels"} in able.variants_of[Precision.FP8]
    older = InductorCudaBackend().capabilities(Target.parse("inductor_cuda:cuda:sm75"))
    assert set(older.precisions) == {Precision.FP32, Precision.FP16, Precision.INT8}


def test_a_gpu_that_is_here_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Driver())
    monkeypatch.setattr("tailorbird.backends.inductor.backend._has_cuda", lambda: True)
    monkeypatch.setattr(toolchain, "torch_version", lambda: "2.13.0")
    backend = InductorCudaBackend()
    assert backend.capabilities(Target.parse("inductor_cuda:cuda:sm90")) == backend.capabilities()
    assert not backend.capabilities(Target.parse("inductor_cuda:cuda:sm80")).runs_here


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuda:ampere", "not an architecture of NVIDIA's: got 'ampere', expected sm and a number, as in sm86"),
        ("cuda:sm80_sm90", "not an architecture of NVIDIA's: got 'sm80_sm90', expected sm and a number, as in sm86"),
        (
            "cuda:sm61",
            "inductor_cuda has no kernels for sm61: expected sm70 or newer\nHint: use another runtime on that device",
        ),
        ("cpu:avx2", "inductor_cuda makes no engine for inductor_cuda:cpu:avx2: expected inductor_cuda:cuda:sm90"),
    ],
)
def test_what_is_no_gpu_of_its_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        InductorCudaBackend().capabilities(Target.parse(f"inductor_cuda:{text}"))
    assert refused.value.message == message
