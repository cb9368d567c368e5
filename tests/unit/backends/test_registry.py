"""Which backends there are, and what becomes of one that cannot be loaded."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from tailorbird.backends import registry
from tailorbird.backends.reference import ReferenceBackend
from tailorbird.domain.errors import BackendError, UsageError


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    points = EntryPoints(
        EntryPoint(name, value, registry.ENTRY_POINTS)
        for name, value in (
            ("mine", "tailorbird.backends.reference:ReferenceBackend"),
            ("broken", "no_such_module:Backend"),
            ("openvino", "tailorbird.backends.reference:ReferenceBackend"),
        )
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    registry.backend.cache_clear()
    yield
    registry.backend.cache_clear()


BUILT_IN = ("inductor", "inductor_cuda", "onnxruntime", "openvino", "reference", "tensorrt", "tensorrt_rtx")
ON_ANY_CPU = {"onnxruntime", "openvino", "reference"}


def test_the_built_in_backends() -> None:
    assert registry.names() == BUILT_IN
    assert {name: registry.backend(name).name for name in registry.names()} == {n: n for n in registry.names()}
    assert registry.backend("reference") is registry.backend("reference")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as unknown:
        registry.backend("onxruntime")
    assert unknown.value.message == (
        f"unknown backend 'onxruntime': expected {', '.join(BUILT_IN)}\nHint: did you mean 'onnxruntime'?"
    )
    with pytest.raises(UsageError) as strange:
        registry.backend("zzz")
    assert strange.value.hint is None


def test_the_report_covers_all() -> None:
    found = registry.report()
    assert tuple(found) == registry.names()
    assert all(found[name].available for name in ON_ANY_CPU)
    assert all(one.available or (one.reason and one.install) for one in found.values())
    assert {one.name for one in registry.available()} == {name for name, one in found.items() if one.available}


@pytest.mark.usefixtures("plug_ins")
def test_installed_backends_join_in_and_replace_none() -> None:
    assert registry.names() == tuple(sorted((*BUILT_IN, "broken", "mine")))
    assert isinstance(registry.backend("mine"), ReferenceBackend)
    assert registry.backend("openvino").name == "openvino"


@pytest.mark.usefixtures("plug_ins")
def test_a_broken_plug_in_takes_no_other_backend_away() -> None:
    with pytest.raises(
        BackendError, match=r"^broken could not load its plug-in: got No module named 'no_such_module'$"
    ):
        registry.backend("broken")
    found = registry.report()
    assert not found["broken"].available
    assert found["broken"].reason == "broken could not load its plug-in: got No module named 'no_such_module'"
    assert found["reference"].available
    assert "broken" not in [one.name for one in registry.available()]
