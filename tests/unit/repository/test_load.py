"""Loading: verified, matched against the machine, opened; and clear words for what cannot be."""

import gc
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tailorbird.backends import registry
from tailorbird.backends.host import cpu_arch
from tailorbird.domain.errors import BackendError, BundleError
from tailorbird.domain.precision import Precision
from tailorbird.domain.quantisation import Quantisation
from tailorbird.domain.target import Target
from tailorbird.repository import load, machine
from tailorbird.repository.load import LoadedEngine, load_version, open_bundle
from tailorbird.repository.signing import trust
from tailorbird.repository.store import LocalRepository
from tests import bundles


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return bundles.version(tmp_path / "version")


@pytest.fixture
def engine(version: Path) -> Path:
    return bundles.engine_file(version, version.parent / "tiny.engine")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where bundles are unpacked."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def answers(loaded: LoadedEngine) -> bool:
    return np.allclose(loaded.run(bundles.INPUTS)["y"], bundles.expected(), atol=1e-5)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "reference"])
def test_an_engine_of_each_runtime_runs_from_a_file(runtime: str, tmp_path: Path) -> None:
    engine = bundles.engine_file(bundles.version(tmp_path / "version", runtime), tmp_path / "x.engine")
    with open_bundle(engine) as loaded:
        assert loaded.manifest.candidate.target.runtime == runtime
        assert answers(loaded)
        assert loaded.session.executed_precision()


def test_a_version_folder_opens(version: Path) -> None:
    with open_bundle(version) as loaded, load_version(version) as again:
        assert answers(loaded)
        assert answers(again)


def test_a_model_folder_opens_its_latest_version(version: Path, tmp_path: Path) -> None:
    repository = LocalRepository(tmp_path / "repository")
    repository.publish(version)
    repository.publish(bundles.version(tmp_path / "second", executed={"bf16": 1}))
    with open_bundle(repository.root / "tiny") as loaded:
        assert loaded.manifest.executed == {"bf16": 1}


def test_closing_removes_the_temporary_files(engine: Path, temporary: Path) -> None:
    loaded = open_bundle(engine)
    assert list(temporary.iterdir())
    loaded.close()
    loaded.close()
    assert not list(temporary.iterdir())
    with pytest.raises(BackendError, match="the session is closed"):
        loaded.run(bundles.INPUTS)


def test_the_files_live_as_long_as_the_session(engine: Path, temporary: Path) -> None:
    session = open_bundle(engine).session
    gc.collect()
    assert list(temporary.iterdir())
    session.close()
    del session
    gc.collect()
    assert not list(temporary.iterdir())


def refusal(path: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    return caught.value


def test_a_refused_engine_leaves_no_temporary_files(version: Path, temporary: Path) -> None:
    target = Target("onnxruntime", "cuda", "sm90")
    other = bundles.version(version.parent / "other", candidate=bundles.candidate(target=target))
    refusal(bundles.engine_file(other, version.parent / "other.engine"))
    assert not list(temporary.iterdir())


def test_a_flipped_bit_is_not_loaded(version: Path) -> None:
    path = version / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert refusal(version).what == f"'model.onnx' of {version} was altered"


def changed(tmp_path: Path, **changes: Any) -> Path:
    return bundles.version(tmp_path / "changed", candidate=bundles.candidate(**changes))


def test_an_engine_for_another_device_is_refused(tmp_path: Path) -> None:
    error = refusal(changed(tmp_path, target=Target("onnxruntime", "cuda", "sm90")))
    assert error.message == (
        f"the engine was built for another machine: got onnxruntime:cuda:sm90, "
        f"expected onnxruntime:cpu:{cpu_arch()}\nHint: build it on this machine, or on one like it"
    )


@pytest.mark.parametrize(
    ("here", "engine", "runs"),
    [("avx2", "avx2", True), ("amx", "avx2", True), ("avx2", "avx512", False), ("amx", "aarch64", False)],
)
def test_a_wider_machine_runs_narrower_engines(
    here: str, engine: str, runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = registry.backend("onnxruntime")
    capabilities = msgspec.structs.replace(backend.capabilities(), target=Target("onnxruntime", "cpu", here))
    version = changed(tmp_path, target=Target("onnxruntime", "cpu", engine))
    monkeypatch.setattr(type(backend), "_capabilities", lambda self: capabilities)
    if runs:
        open_bundle(version).close()
    else:
        assert refusal(version).what == "the engine was built for another machine"


def test_a_precision_that_the_machine_lacks_is_refused(tmp_path: Path) -> None:
    error = refusal(changed(tmp_path, precision=Precision.INT8))
    assert error.message == (
        "the engine's precision does not run in onnxruntime on this machine: got int8, expected fp32\n"
        "Hint: build it on this machine"
    )


def test_int8_runs_where_the_method_s_graphs_are_taken(tmp_path: Path) -> None:
    taken = changed(tmp_path, precision=Precision.INT8, quantisation=Quantisation("qdq"))
    open_bundle(taken).close()


@pytest.mark.parametrize(
    "quantisation", [Quantisation("unheard-of"), Quantisation("qdq", Precision.BF16)], ids=["method", "rest"]
)
def test_int8_of_another_method_or_beside_another_float_is_refused(tmp_path: Path, quantisation: Quantisation) -> None:
    error = refusal(changed(tmp_path, precision=Precision.INT8, quantisation=quantisation))
    assert error.what == "the engine's precision does not run in onnxruntime on this machine"


def test_int8_built_where_sums_are_exact_is_refused_where_they_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = changed(tmp_path, precision=Precision.INT8, quantisation=Quantisation("qdq"))
    monkeypatch.setattr(machine, "sums_int8_exactly", lambda facts=None: facts is not None)
    assert refusal(version).message == (
        "the engine's INT8 sums would overflow on this machine: got a CPU without VNNI, "
        "expected VNNI or AMX, as where it was built\nHint: build it on this machine"
    )


def test_int8_of_another_device_asks_nothing_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, backend = Target("onnxruntime", "cuda", "sm86"), registry.backend("onnxruntime")
    able = msgspec.structs.replace(backend.capabilities(), target=target)
    version = changed(tmp_path, precision=Precision.INT8, quantisation=Quantisation("qdq"), target=target)
    monkeypatch.setattr(type(backend), "_capabilities", lambda self: able)
    monkeypatch.setattr(machine, "sums_int8_exactly", lambda facts=None: facts is not None)
    open_bundle(version).close()


def test_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    error = refusal(changed(tmp_path, target=Target("futurert", "cpu", cpu_arch())))
    assert error.what == "the engine needs the runtime 'futurert'"
    assert error.hint
    assert error.hint.startswith("upgrade Tailorbird, or build for one of ")
    assert {"onnxruntime", "openvino", "reference"} <= set(error.hint.partition("one of ")[2].split(", "))


def test_nothing_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").message == (
        f"there is no bundle at {tmp_path}/none: got no such file or folder, "
        "expected a .engine file or a version's folder"
    )


def test_another_kind_of_thing() -> None:
    assert refusal(Path("/dev/null")).got == "neither a file nor a folder"


def test_another_kind_of_file(tmp_path: Path) -> None:
    model = bundles.write_model(tmp_path / "m.onnx")
    assert refusal(model).what == f"{model} is not a whole bundle"


def test_an_empty_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path).got == "a folder without versions"


def test_a_repository_names_its_models(version: Path, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    LocalRepository(root).publish(version)
    error = refusal(root)
    assert error.got == "a repository of tiny"
    assert error.hint == f"name a model's folder: {root}/tiny"


def test_no_room_to_unpack(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert refusal(engine).message == (
        f"cannot open {engine}: got No such file or directory\n"
        "Hint: see that it can be read and the temporary folder has room; TMPDIR names another"
    )


def test_a_path_too_long_for_the_system(tmp_path: Path) -> None:
    assert refusal(tmp_path / ("x" * 300)).got == "File name too long"


@pytest.mark.parametrize("open_to_others", [".", "model.onnx", "tailorbird", ".."])
def test_a_version_that_others_can_change_is_copied_first(version: Path, temporary: Path, open_to_others: str) -> None:
    place = version / open_to_others
    place.chmod(place.stat().st_mode | 0o022)
    loaded = load_version(version)
    (copy,) = temporary.iterdir()
    assert copy.stat().st_mode & 0o777 == 0o700
    assert (copy / "version" / "model.onnx").is_file()
    assert answers(loaded)
    loaded.close()
    assert not list(temporary.iterdir())


def test_files_swapped_after_the_first_look_are_not_loaded(
    version: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version.chmod(0o777)

    def swapping(place: Path, **options: bool) -> Any:
        found = trust.verified(place, **options)
        if place == version:
            (version / "model.onnx").unlink()
            (version / "model.onnx").write_bytes(b"swapped")
        return found

    monkeypatch.setattr(load, "verified", swapping)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        load_version(version)
    assert not list(temporary.iterdir())


def test_an_own_version_is_loaded_in_place_also_from_a_shared_sticky_folder(version: Path, temporary: Path) -> None:
    version.parent.chmod(0o1777)
    with load_version(version) as loaded:
        assert not list(temporary.iterdir())
        assert answers(loaded)


def test_a_version_without_room_for_its_copy(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(version / "none"))
    assert refusal(version).message == (
        f"cannot copy {version}: got No such file or directory\n"
        "Hint: where others can change it, it is copied first: see that the temporary folder has room"
    )
