"""Engines for any of several machines, and what qualifying one of them on a machine means for the others."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

import tailorbird
from tailorbird.backends import registry
from tailorbird.backends.host import cpu_arch
from tailorbird.domain import bundlefile
from tailorbird.domain.errors import BundleError, UsageError
from tailorbird.domain.target import Target
from tests.integration.test_build import network
from tests.unit.builder.graphs import save

pytest.importorskip("onnxruntime")

NARROW = Target("onnxruntime", "cpu", "x86_64")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILORBIRD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TAILORBIRD_KEYS", str(tmp_path / "keys"))
    monkeypatch.chdir(tmp_path)
    save(network(rows=2), tmp_path / "net.onnx")


@pytest.mark.skipif(cpu_arch() not in {"avx2", "avx512", "amx"}, reason="needs an x86 wider than the first")
def test_what_a_wider_machine_qualified_is_not_served_on_a_narrower_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gate ran on the wider one's kernels, and on no others."""
    tailorbird.build("net.onnx", output="net.engine", target=str(NARROW), threads=[1], precisions=["fp32"])
    assert bundlefile.manifest_of(Path("net.engine")).candidate.target == NARROW
    result = tailorbird.qualify("net.engine", output="qualified.engine")
    backend = registry.backend("onnxruntime")
    here = backend.capabilities()
    found = bundlefile.manifest_of(Path("qualified.engine"))
    assert found.candidate.target == here.target
    assert result.winner.candidate == found.candidate
    tailorbird.open("qualified.engine").close()
    narrow = msgspec.structs.replace(here, target=NARROW)
    monkeypatch.setattr(type(backend), "_capabilities", lambda self: narrow)
    with pytest.raises(BundleError) as caught:
        tailorbird.open("qualified.engine")
    assert caught.value.what == "the engine was built for another machine"
    assert (caught.value.got, caught.value.expected) == (str(here.target), str(NARROW))


def test_threads_of_a_machine_that_is_not_here_are_the_user_s_to_say() -> None:
    target = NARROW if cpu_arch() != "x86_64" else Target("onnxruntime", "cpu", "aarch64")
    events: list[dict[str, Any]] = []
    with pytest.raises(UsageError) as caught:
        tailorbird.build("net.onnx", output="net.engine", target=str(target), observers=[events.append])
    assert caught.value.message == (
        f"how many threads engines for {target} are to use cannot be seen here: expected the device's own count\n"
        "Hint: say it: --threads 8 for a device with 8 cores"
    )
    assert not [event for event in events if event["event"] == "candidates"], "nothing long was done"
