"""Engines for a device that is not here: unqualified, qualified, finished from a kit, and built again when stale."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tailorbird
from tailorbird.backends import registry
from tailorbird.backends.host import cpu_arch
from tailorbird.builder.cases.data import load_set, save_set
from tailorbird.builder.search.race import Race
from tailorbird.builder.travel import CASES
from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.errors import BackendError, BundleError, NoEngineError, UsageError
from tailorbird.domain.kit import decode_kit, pack_kit, seal_kit, unpack_kit
from tailorbird.domain.manifest import decode_manifest
from tailorbird.domain.outcome import Status
from tailorbird.domain.target import Target
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.signing import keys
from tailorbird.repository.signing.sign import sign_kit, sign_version
from tailorbird.repository.signing.trust import verified_kit
from tailorbird.repository.store import LocalRepository
from tailorbird.serving.loading import load_hub
from tests import bundles
from tests.integration.places import own_place
from tests.integration.test_build import cli, direct, network
from tests.unit.builder.graphs import save

pytest.importorskip("onnxruntime")

QUICK: dict[str, Any] = {"threads": [1], "backends": ["onnxruntime"], "precisions": ["fp32"]}
ELSEWHERE = f"onnxruntime:cpu:{'x86_64' if cpu_arch() in {'avx2', 'avx512', 'amx'} else 'avx2'}"
"""A narrower machine than this one, where this one is an x86; an x86 where it is not."""


class Enough(BaseException):
    """Ends a build of which no more is asked."""


X = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache and keys of this module's own."""
    with own_place(tmp_path_factory.mktemp("elsewhere")) as folder:
        yield folder


@pytest.fixture(scope="module")
def source(place: Path) -> onnx.ModelProto:
    """Of one shape, so that one candidate races and every build is short."""
    made = network(rows=2)
    save(made, place / "net.onnx")
    return made


@pytest.fixture(scope="module")
def unqualified(place: Path, source: onnx.ModelProto) -> Path:
    """Built for this machine, and left to be qualified."""
    tailorbird.build("net.onnx", output="net.engine", qualify=False, **QUICK)
    return place / "net.engine"


@pytest.fixture(scope="module")
def kit(place: Path, source: onnx.ModelProto) -> Path:
    return tailorbird.make_kit("net.onnx", "net.kit", **QUICK)


def answers(engine: Path, source: onnx.ModelProto) -> None:
    with tailorbird.open(engine) as loaded:
        np.testing.assert_allclose(loaded.run({"x": X})["y"], direct(source, x=X)[0], atol=1e-5)


def served(repository: Path, source: onnx.ModelProto) -> None:
    """The way that requests take, in a process of its own behind the batcher."""
    with contextlib.closing(load_hub(repository)) as hub:
        (model,) = hub.loaded
        outputs = asyncio.run(model.instance.run({"x": X}))
        np.testing.assert_allclose(outputs["y"], direct(source, x=X)[0], atol=1e-5)


def opened(engine: Path, into: Path) -> Path:
    return bundlefile.unpack(engine, into)


def signed_again(version: Path, out: Path) -> Path:
    """Sealed, signed and packed by this machine's own key: nobody lied but the builder itself."""
    manifest = decode_manifest((version / bundle.MANIFEST).read_bytes())
    bundle.seal(version, manifest)
    sign_version(version)
    bundlefile.pack(version, out, config_pbtxt(manifest))
    return out


# --- unqualified -----------------------------------------------------------------------------------


def test_a_target_that_is_not_here_is_built_for_and_not_run(tmp_path: Path, place: Path) -> None:
    out, any_rows = tmp_path / "net.engine", save(network(), tmp_path / "net.onnx")
    settings: dict[str, Any] = {"threads": [1], "precisions": ["fp32"], "opt_shapes": "x:2x16"}
    result = tailorbird.build(any_rows, output=out, target=ELSEWHERE, **settings)
    assert str(result.manifest.candidate.target) == ELSEWHERE
    assert result.winner.reason == f"not measured: no {ELSEWHERE} here; first by promise of 2 that compiled"
    assert {outcome.status for outcome in result.table} == {Status.CHOSEN, Status.NOT_RUN}
    assert not result.manifest.qualified
    assert (result.manifest.latency, result.manifest.gate.checks, result.speedup) == ((), (), None)
    folder = opened(out, tmp_path / "opened")
    report = (folder / "tailorbird/report.html").read_text()
    assert f"Not qualified: it has to run on a machine with {ELSEWHERE} first." in report
    assert '"event":"not qualified"' in (folder / "tailorbird/build.jsonl").read_text()


def test_an_unqualified_bundle_is_of_no_use_but_qualifying(unqualified: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not qualified: its engine has not run on its device"):
        tailorbird.open(unqualified)
    with pytest.raises(BundleError, match="is not qualified"):
        tailorbird.publish(unqualified, tmp_path / "repository")
    with pytest.raises(BundleError, match="is not qualified"):
        load_hub(unqualified)


def test_a_bundle_that_is_not_run_cannot_be_asked_to_be_published(source: onnx.ModelProto, tmp_path: Path) -> None:
    for settings in ({"qualify": False, **QUICK}, {"target": ELSEWHERE}):
        with pytest.raises(UsageError, match="an engine that is not run cannot be published"):
            tailorbird.build("net.onnx", repository=tmp_path / "repository", **settings)


def test_qualifying_runs_the_gate_and_makes_it_publishable(
    unqualified: Path, source: onnx.ModelProto, tmp_path: Path
) -> None:
    out = tmp_path / "qualified.engine"
    done = cli("qualify", unqualified, "-o", out, "--repo", tmp_path / "repository", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["qualified"] is True
    before, manifest = bundlefile.manifest_of(unqualified), bundlefile.manifest_of(out)
    assert manifest.qualified
    assert {row.edge for row in manifest.latency} == {"opt"}
    assert manifest.executed == {"fp32": 4} or "fp32" in manifest.executed
    facts = manifest.provenance
    assert facts.parent == digest_bytes(bundle.manifest_bytes(opened(unqualified, tmp_path / "before")))
    assert (facts.built_on, facts.source_digest) == (before.provenance.device, before.provenance.source_digest)
    folder = opened(out, tmp_path / "after")
    assert not (folder / CASES).exists()
    assert "Gate: pass" in (folder / "tailorbird/report.html").read_text()
    answers(out, source)
    served(tmp_path / "repository", source)
    with pytest.raises(UsageError, match="the bundle is qualified already: got pass"):
        tailorbird.qualify(out, output=tmp_path / "twice.engine")


def test_an_altered_weight_is_refused_by_its_digest(unqualified: Path, tmp_path: Path) -> None:
    folder = opened(unqualified, tmp_path / "opened")
    engine = folder / "model.onnx"
    engine.write_bytes(engine.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match=r"'model.onnx' of .* was altered"):
        tailorbird.qualify(folder, output=tmp_path / "out.engine")


def test_an_engine_with_wrong_numbers_fails_its_gate_and_nothing_is_written(
    unqualified: Path, source: onnx.ModelProto, tmp_path: Path
) -> None:
    folder = opened(unqualified, tmp_path / "opened")
    wrong = onnx.ModelProto()
    wrong.CopyFrom(onnx.load(folder / "model.onnx"))
    weights = wrong.graph.initializer[0]
    weights.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weights), weights.name))
    (folder / "model.onnx").write_bytes(wrong.SerializeToString())
    bad, out = signed_again(folder, tmp_path / "bad.engine"), tmp_path / "out.engine"
    with pytest.raises(NoEngineError, match="the engine is not qualified on this machine: got snr_db"):
        tailorbird.qualify(bad, output=out, repository=tmp_path / "repository")
    assert not out.exists()
    assert not (tmp_path / "repository").exists()
    done = cli("qualify", bad, cwd=tmp_path)
    assert done.returncode == 1
    assert "gate failed" in done.stderr
    assert not (tmp_path / "bad.qualified.engine").exists()


def test_without_what_it_is_judged_by_nothing_qualifies(unqualified: Path, tmp_path: Path) -> None:
    folder = opened(unqualified, tmp_path / "opened")
    shutil.rmtree(folder / CASES)
    bare = signed_again(folder, tmp_path / "bare.engine")
    with pytest.raises(BundleError, match="the bundle holds nothing to judge its engine by"):
        tailorbird.qualify(bare, output=tmp_path / "out.engine")


# --- kits ------------------------------------------------------------------------------------------


def test_a_kit_is_finished_in_another_place(
    kit: Path, source: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder, another cache, no source, no data: the race is run on the kit's own groundwork."""
    monkeypatch.setenv("TAILORBIRD_CACHE", str(tmp_path / "cache"))
    shutil.copyfile(kit, tmp_path / "net.kit")
    monkeypatch.chdir(tmp_path)
    result = tailorbird.build("net.kit", output="net.engine", repository="repository")
    assert result.manifest.qualified
    assert result.manifest.provenance.source == "net.onnx"
    assert result.manifest.provenance.parent.startswith("sha256:")
    assert (result.manifest.model, result.winner.status) == ("net", Status.CHOSEN)
    answers(tmp_path / "net.engine", source)
    served(tmp_path / "repository", source)
    again: list[dict[str, Any]] = []
    tailorbird.build("net.kit", output="again.engine", observers=[again.append])
    assert [one["hit"] for one in again if one["event"] == "cache" and one["kind"] == "engines"] == [True]


def test_calibrated_graphs_travel_and_nothing_calibrates_anew(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kit is finished there is neither the data nor, for all that the build knows, the quantiser."""
    np.savez(place / "data.npz", x=np.random.default_rng(2).standard_normal((64, 16)).astype(np.float32))
    settings = QUICK | {"precisions": ["int8"], "data": "data.npz", "opt_shapes": "x:2x16"}
    tailorbird.make_kit(save(network(), tmp_path / "net.onnx"), tmp_path / "int8.kit", **settings)
    folder = unpack_kit(tmp_path / "int8.kit", tmp_path / "out")
    assert set(verified_kit(folder).manifest.methods) == {"qdq", "qoperator", "dynamic"}
    (place / "data.npz").unlink()
    monkeypatch.setattr("tailorbird.builder.search.candidates.is_here", lambda method: False)
    monkeypatch.setenv("TAILORBIRD_CACHE", str(tmp_path / "cache"))
    events: list[dict[str, Any]] = []

    def seen(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "tried":  # the first is enough: it is compiled, opened, gated and measured
            raise Enough

    with pytest.raises(Enough):
        tailorbird.build(tmp_path / "int8.kit", observers=[seen])
    kinds = {event["kind"] for event in events if event["event"] == "cache"}
    assert not kinds & {"quantised", "normalised", "references"}
    assert not [event for event in events if event["event"] in {"quantising", "quantised"}]
    (names,) = [event["names"] for event in events if event["event"] == "candidates"]
    assert {name.split()[4] for name in names} == {"qdq", "qoperator", "dynamic"}
    assert events[-1]["candidate"].split()[4] == "qdq"
    assert events[-1]["status"] in {Status.SLOWER, Status.REFUSED}, events[-1]["reason"]


def test_no_race_is_to_be_run_for_a_kit_so_its_graphs_are_given_their_time(
    source: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailorbird.builder.lowering.lowering.LEAST_SECONDS", 1e-3)
    settings: dict[str, Any] = {"target": "tensorrt:cuda:sm90", "precisions": ["fp16"], "time_budget": 1e-3}
    kit = tailorbird.make_kit("net.onnx", tmp_path / "net.kit", cache=str(tmp_path / "cache"), **settings)
    assert [file.name for file in (unpack_kit(kit, tmp_path / "out") / "lowered").glob("*/*.onnx")] == ["model.onnx"]


def test_a_kept_kit_holds_what_was_made_and_nothing_is_made_for_it(
    source: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Race.run
    monkeypatch.setattr(Race, "run", lambda self, candidates, baseline: real(self, candidates[:1], baseline))
    settings = QUICK | {"precisions": ["fp32", "int8"], "cache": str(tmp_path / "cache")}
    tailorbird.build("net.onnx", output=tmp_path / "net.engine", keep_kit=True, **settings)
    kept = opened(tmp_path / "net.engine", tmp_path / "opened") / bundle.KEPT_KIT
    assert decode_kit((kept / bundle.MANIFEST).read_bytes()).methods == ()
    assert not list((kept / "lowered").glob("graph-*"))


def test_a_kit_holds_no_code_and_nothing_that_runs_when_read(kit: Path, tmp_path: Path) -> None:
    folder = unpack_kit(kit, tmp_path / "out")
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds <= {".onnx", ".json", ".npz", ".data", ".xml", ".bin"}
    for path in folder.rglob("*.npz"):
        assert load_set(path)  # read with pickles forbidden


def test_an_altered_kit_is_refused_before_anything_of_it_is_read(kit: Path, tmp_path: Path) -> None:
    folder = unpack_kit(kit, tmp_path / "out")
    (folder / "ground/model.onnx").write_bytes(b"evil")
    pack_kit(folder, tmp_path / "evil.kit")
    with pytest.raises(BundleError, match=r"'ground/model.onnx' of .* was altered"):
        tailorbird.build(tmp_path / "evil.kit")


def test_a_kit_whose_own_answers_are_wrong_gives_no_engine(kit: Path, tmp_path: Path) -> None:
    folder = unpack_kit(kit, tmp_path / "out")
    for path in (folder / "cases").glob("*-out.npz"):
        save_set(path, {name: -array for name, array in load_set(path).items()})
    manifest = seal_kit(folder, verified_kit(unpack_kit(kit, tmp_path / "as it was")).manifest)
    assert manifest.files
    sign_kit(folder, keys.ensured()[0])
    pack_kit(folder, tmp_path / "wrong.kit")
    with pytest.raises(NoEngineError, match="no candidate passed the gate"):
        tailorbird.build(tmp_path / "wrong.kit", cache=str(tmp_path / "cache"))


def test_a_kit_says_what_is_wrong_with_how_it_is_used(kit: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a build kit has its own seed: got 7"):
        tailorbird.build(kit, seed=7)
    with pytest.raises(UsageError, match="a build kit is finished, not made into another"):
        tailorbird.make_kit(kit, tmp_path / "other.kit")
    with pytest.raises(UsageError, match=r"the output is not named as a build kit: got x.zip, expected NAME.kit"):
        tailorbird.make_kit("net.onnx", "x.zip")
    done = cli("build", kit, "-o", tmp_path / "x.kit", "--repo", tmp_path)
    assert done.returncode == 2
    assert "a build kit cannot be published" in done.stderr


# --- GPUs that are not here --------------------------------------------------------------------------


def test_a_kit_for_tensorrt_is_made_without_tensorrt(source: onnx.ModelProto, tmp_path: Path) -> None:
    """Its builder needs the device, so the graph goes there with its precision in it."""
    target = {"target": "tensorrt:cuda:sm90", "precisions": ["fp16"]}
    with pytest.raises(UsageError) as caught:
        tailorbird.build("net.onnx", **target)
    assert caught.value.what == "tensorrt builds for tensorrt:cuda:sm90 on such a device only"
    assert caught.value.hint == "make a build kit with -o NAME.kit, and finish it there"
    kit = tailorbird.make_kit("net.onnx", tmp_path / "net.kit", **target)
    folder = unpack_kit(kit, tmp_path / "out")
    (lowered,) = (folder / "lowered").glob("*/model.onnx")
    kinds = {tensor.data_type for tensor in onnx.load(lowered).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    with pytest.raises(UsageError, match="the build kit is for tensorrt:cuda:sm90, which this machine is not"):
        tailorbird.build(kit)


def test_a_kit_for_what_its_target_cannot_do_is_none(source: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(NoEngineError, match="no candidate to try"):
        tailorbird.make_kit("net.onnx", tmp_path / "net.kit", target="tensorrt:cuda:sm75", precisions=["bf16"])


def test_a_real_builder_makes_an_engine_for_a_gpu_that_is_not_here(source: onnx.ModelProto, tmp_path: Path) -> None:
    if not registry.backend("tensorrt_rtx").capabilities(Target.parse("tensorrt_rtx:cuda:sm86")).builds_here:
        pytest.skip("TensorRT-RTX is not installed")
    out = tmp_path / "net.engine"
    result = tailorbird.build("net.onnx", output=out, target="tensorrt_rtx:cuda:sm86", precisions=["fp16"])
    said = "not measured: no tensorrt_rtx:cuda:sm86 here; first by promise of 1 that compiled"
    assert result.winner.reason.startswith(f"{said}; its graph, run on this CPU: pass, SNR ")
    folder = opened(out, tmp_path / "opened")
    assert (folder / "model.plan").stat().st_size > 1000
    with pytest.raises(BackendError):  # no driver, or a device of another kind
        tailorbird.qualify(out, output=tmp_path / "out.engine")


# --- stale engines ---------------------------------------------------------------------------------


def test_a_stale_engine_is_built_again_from_its_kept_kit_and_served(
    place: Path, source: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    tailorbird.build("net.onnx", repository=repository, keep_kit=True, **QUICK)
    store = LocalRepository(repository)
    store.promote("net", 1, "production")
    stale = store.version_dir("net", 1)
    backend = registry.backend("onnxruntime")

    def check(self: Any, engine: Path, candidate: Any) -> None:
        # a stand-in for a runtime that was upgraded: what version 1 holds no longer loads
        if decode_manifest((engine / bundle.MANIFEST).read_bytes()).provenance.parent == "":
            raise BackendError("the engine is of another runtime", got="1.0", expected="2.0")

    monkeypatch.setattr(type(backend), "_check", check)
    with pytest.raises(BackendError, match="the engine is of another runtime") as caught:
        tailorbird.open(stale)
    assert caught.value.hint == "its version keeps a build kit: tailorbird serve --rebuild-stale, or tailorbird rebuild"
    seen: list[str] = []
    monkeypatch.setattr("tailorbird.service.app.serve", lambda source, options: seen.append(str(source)))
    tailorbird.serve(repository, rebuild_stale=True)
    assert seen == [str(repository)]
    assert store.live("net", "production") == 2
    entry = store.log("net")[-1]
    assert (entry.version, entry.reason) == (2, "stale: the engine is of another runtime: got 1.0, expected 2.0")
    answers(store.version_dir("net", 2), source)
    tailorbird.serve(repository, rebuild_stale=True)
    assert store.versions("net") == (1, 2), "what loads is left alone"


def test_a_version_without_a_kit_cannot_be_built_again(place: Path, tmp_path: Path) -> None:
    LocalRepository(tmp_path / "repository").publish(bundles.version(tmp_path / "version"))
    with pytest.raises(BundleError, match="version 1 of model 'tiny' keeps no build kit"):
        tailorbird.rebuild(tmp_path / "repository", "tiny")


def test_what_cannot_be_built_again_keeps_no_server_from_starting(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def check(self: Any, engine: Path, candidate: Any) -> None:
        raise BackendError("the engine is of another runtime", got="1.0", expected="2.0")

    LocalRepository(tmp_path / "repository").publish(bundles.version(tmp_path / "version"))
    monkeypatch.setattr(type(registry.backend("onnxruntime")), "_check", check)
    started: list[str] = []
    monkeypatch.setattr("tailorbird.service.app.serve", lambda source, options: started.append(str(source)))
    tailorbird.serve(tmp_path / "repository", rebuild_stale=True)
    assert started == [str(tmp_path / "repository")]
    assert "keeps no build kit: got stale: the engine is of another runtime" in capfd.readouterr().err


def test_a_bundle_by_itself_is_not_built_again(unqualified: Path) -> None:
    with pytest.raises(UsageError, match="a single bundle cannot be built again where it is"):
        tailorbird.serve(unqualified, rebuild_stale=True)
