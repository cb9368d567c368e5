"""config.pbtxt, read back with Triton's own protocol buffers definition."""

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.candidate import ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.manifest import EngineFormat, Manifest
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Shape, Signature, TensorSpec
from tailorbird.domain.target import Target
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.store import LocalRepository
from tests import bundles

text_format = pytest.importorskip("google.protobuf.text_format")


def triton_definition() -> Any:
    """``ModelConfig`` as the official client ships it, without the client's gRPC package around it."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tritonclient is not installed: pip install tailorbird[demo]")
    path = Path(found.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("triton_model_config_pb2", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


@pytest.fixture(scope="module")
def model_config() -> Any:
    return triton_definition()


def described(
    inputs: dict[str, tuple[Any, ...]],
    outputs: dict[str, tuple[Any, ...]],
    largest: dict[str, Shape] | None = None,
    mode: ShapeMode = ShapeMode.DYNAMIC,
    **candidate: Any,
) -> Manifest:
    """A manifest with this signature, every input of which may grow to ``largest``."""
    signature = Signature(
        tuple(TensorSpec(name, DType.FP32, dims) for name, dims in inputs.items()),
        tuple(TensorSpec(name, DType.FP32, dims) for name, dims in outputs.items()),
    )
    low = {name: tuple(1 if isinstance(d, str) else d for d in dims) for name, dims in inputs.items()}
    profile = Profile(low, largest or low, largest or low)
    chosen = bundles.candidate(profile=profile, shape_mode=mode, **candidate)
    return bundles.manifest(signature=signature, candidate=chosen)


def dims(tensors: Any) -> list[list[int]]:
    return [list(tensor.dims) for tensor in tensors]


def test_a_plain_engine_word_for_word() -> None:
    assert config_pbtxt(bundles.manifest()).decode() == (
        "# Written by Tailorbird from the manifest of the version it serves; publish and promote write it anew.\n"
        'name: "tiny"\n'
        'backend: "onnxruntime"\n'
        "max_batch_size: 8\n"
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
        'output [ { name: "y" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
        "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
        'parameters { key: "inter_op_thread_count" value: { string_value: "1" } }\n'
        'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }\n'
    )


def read(model_config: Any, manifest: Manifest, model: str | None = None) -> Any:
    return text_format.Parse(config_pbtxt(manifest, model), model_config())


def test_triton_reads_it(model_config: Any) -> None:
    config = read(model_config, bundles.manifest(), "other")
    assert (config.name, config.backend, config.max_batch_size) == ("other", "onnxruntime", 8)
    assert config.default_model_filename == ""
    assert config.instance_group[0].kind == 2  # KIND_CPU


def test_rows_that_lead_every_tensor_are_batched(model_config: Any) -> None:
    manifest = described({"a": ("n", 3, "h"), "b": ("n", 4)}, {"y": ("n", "h")}, {"a": (6, 3, 9), "b": (6, 4)})
    config = read(model_config, manifest)
    assert config.max_batch_size == 6
    assert dims(config.input) == [[3, -1], [4]]
    assert dims(config.output) == [[-1]]


FULL = [
    ({"a": ("n", 3)}, {"y": (1, 5)}, "an output without rows"),
    ({"a": ("n", 3), "b": ("m", 3)}, {"y": ("n", 3)}, "two leading dims"),
    ({"a": (1, 3)}, {"y": (1, 3)}, "fixed rows"),
    ({"a": ("n",)}, {"y": ("n", 3)}, "a tensor of nothing but rows"),
    ({"a": ("n", 3)}, {"y": ("n", 3), "z": ()}, "a scalar output"),
]


@pytest.mark.parametrize(("inputs", "outputs"), [case[:2] for case in FULL], ids=[case[2] for case in FULL])
def test_other_engines_get_full_shapes(model_config: Any, inputs: Any, outputs: Any) -> None:
    config = read(model_config, described(inputs, outputs))
    assert config.max_batch_size == 0
    wanted = [[-1 if isinstance(dim, str) else dim for dim in spec] for spec in inputs.values()]
    assert dims(config.input) == wanted


def test_an_engine_of_fixed_shapes_states_them(model_config: Any) -> None:
    manifest = described({"a": ("n", "h")}, {"y": ("n", "k")}, {"a": (2, 7)}, ShapeMode.STATIC)
    config = read(model_config, manifest)
    assert (config.max_batch_size, dims(config.input), dims(config.output)) == (0, [[2, 7]], [[2, -1]])


def test_a_scalar_is_reshaped(model_config: Any) -> None:
    config = read(model_config, described({"a": ()}, {"y": (1,)}))
    assert dims(config.input) == [[1]]
    assert config.input[0].HasField("reshape")
    assert list(config.input[0].reshape.shape) == []


@pytest.mark.parametrize("dtype", DType)
def test_every_dtype_has_a_name_in_triton(model_config: Any, dtype: DType) -> None:
    spec = TensorSpec("x", dtype, ("rows", bundles.WIDTH))
    config = read(model_config, bundles.manifest(signature=Signature((spec,), (spec,))))
    named = model_config.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"].enum_type
    name = named.values_by_number[config.input[0].data_type].name
    assert name == ("TYPE_STRING" if dtype is DType.BYTES else f"TYPE_{dtype}")


def parameters(config: Any) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


def openvino(**candidate: Any) -> Manifest:
    plain = bundles.manifest(format=EngineFormat("openvino", "openvino", "model.xml"))
    return msgspec.structs.replace(plain, candidate=bundles.candidate(**candidate))


def test_openvino_is_told_threads_and_precision(model_config: Any) -> None:
    config = read(model_config, openvino(threads=2, precision=Precision.BF16))
    assert parameters(config) == {
        "INFERENCE_NUM_THREADS": "2",
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        "HINT_BF16": "YES",
    }


def test_only_known_options_pass(model_config: Any) -> None:
    config = read(model_config, openvino(options={"CPU_EXTENSION_PATH": "/evil.so", "NUM_STREAMS": 4}))
    assert parameters(config) == {"INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "4", "PERFORMANCE_HINT": "LATENCY"}


def test_another_filename_is_named(model_config: Any) -> None:
    config = read(model_config, bundles.manifest(format=EngineFormat("onnxruntime", "", "engine.onnx")))
    assert config.default_model_filename == "engine.onnx"


def test_another_device_is_a_gpu_without_our_parameters(model_config: Any) -> None:
    manifest = bundles.manifest(
        candidate=bundles.candidate(target=Target("tensorrt", "cuda", "sm90")),
        format=EngineFormat("tensorrt", "tensorrt_plan", "model.plan"),
    )
    config = read(model_config, manifest)
    assert config.instance_group[0].kind == 1  # KIND_GPU
    assert (config.default_model_filename, parameters(config)) == ("", {})


@given(name=st.text())
def test_no_name_breaks_out_of_its_quotes(name: str) -> None:
    definition = DEFINITION or pytest.skip("tritonclient is not installed")
    spec = TensorSpec(name, DType.FP32, ("rows", bundles.WIDTH))
    manifest = bundles.manifest(signature=Signature((PLAIN_INPUT,), (spec,)))
    config = text_format.Parse(config_pbtxt(manifest, 'm" } evil: "'), definition())
    assert config.output[0].name == name.encode("utf-8", "replace").decode()
    assert config.name == 'm" } evil: "'
    assert config.max_batch_size == 8


PLAIN_INPUT = bundles.SIGNATURE.inputs[0]
DEFINITION = triton_definition() if importlib.util.find_spec("tritonclient") else None


class TestVersionPolicy:
    """What Triton and OpenVINO Model Server are told to serve."""

    @pytest.fixture
    def repository(self, tmp_path: Path) -> LocalRepository:
        store = LocalRepository(tmp_path / "repository")
        for threads in (1, 2, 3):
            store.publish(bundles.version(tmp_path / str(threads), candidate=bundles.candidate(threads=threads)))
        return store

    def told(self, repository: LocalRepository, model_config: Any) -> tuple[list[int] | None, str]:
        """The versions named, or None for the highest; and the threads of the engine described."""
        text = (repository.root / "tiny" / "config.pbtxt").read_bytes()
        config = text_format.Parse(text, model_config())
        named = config.version_policy.WhichOneof("policy_choice")
        assert named in (None, "specific")
        versions = list(config.version_policy.specific.versions) if named else None
        return versions, parameters(config)["intra_op_thread_count"]

    def test_the_highest_without_a_word(self, repository: LocalRepository, model_config: Any) -> None:
        assert self.told(repository, model_config) == (None, "3")

    def test_production_is_named(self, repository: LocalRepository, model_config: Any) -> None:
        repository.promote("tiny", 1, "production")
        assert self.told(repository, model_config) == ([1], "1")
        repository.promote("tiny", 2, "production")
        assert self.told(repository, model_config) == ([2], "2")
        repository.rollback("tiny", "production")
        assert self.told(repository, model_config) == ([1], "1")

    def test_another_channel_is_not(self, repository: LocalRepository, model_config: Any) -> None:
        repository.promote("tiny", 1, "canary")
        assert self.told(repository, model_config) == (None, "3")

    def test_publishing_leaves_production(self, repository: LocalRepository, model_config: Any, tmp_path: Path) -> None:
        repository.promote("tiny", 1, "production")
        repository.publish(bundles.version(tmp_path / "4", candidate=bundles.candidate(threads=4)))
        assert self.told(repository, model_config) == ([1], "1")

    def test_a_retired_version_is_not_served(self, repository: LocalRepository, model_config: Any) -> None:
        repository.retire("tiny", 3)
        assert self.told(repository, model_config) == ([2], "2")
        repository.restore("tiny", 3)
        assert self.told(repository, model_config) == (None, "3")
        for version in (1, 2, 3):
            repository.retire("tiny", version)
        assert self.told(repository, model_config) == ([], "3")

    def test_a_killed_promote_is_mended(self, repository: LocalRepository, model_config: Any, tmp_path: Path) -> None:
        config = repository.root / "tiny" / "config.pbtxt"
        repository.promote("tiny", 1, "production")
        before = config.read_bytes()
        repository.promote("tiny", 2, "production")
        config.write_bytes(before)  # as a kill between the log's entry and this file leaves it
        repository.publish(bundles.version(tmp_path / "other"), "other")
        assert self.told(repository, model_config) == ([2], "2")


def test_many_instances_and_text(model_config: Any) -> None:
    spec = TensorSpec("t", DType.BYTES, ("rows", 1))
    manifest = bundles.manifest(
        signature=Signature((spec,), (spec,)),
        candidate=bundles.candidate(instances=4, profile=Profile({"t": (1, 1)}, {"t": (2, 1)}, {"t": (8, 1)})),
    )
    config = read(model_config, manifest)
    assert (config.instance_group[0].count, config.max_batch_size, dims(config.input)) == (4, 8, [[1]])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_built_engine_is_described_as_its_manifest_says(model_config: Any, tmp_path: Path, runtime: str) -> None:
    store = LocalRepository(tmp_path / "repository")
    store.publish(bundles.version(tmp_path / "made", runtime))
    config = text_format.Parse((store.root / "tiny" / "config.pbtxt").read_bytes(), model_config())
    manifest = store.manifest("tiny")
    assert (config.name, config.backend) == (manifest.model, manifest.format.backend)
    assert [one.name for one in config.input] == [spec.name for spec in manifest.signature.inputs]
    assert [one.name for one in config.output] == [spec.name for spec in manifest.signature.outputs]
    assert config.max_batch_size == manifest.candidate.profile.max["x"][0]
    assert config.instance_group[0].count == manifest.candidate.instances
    named = config.default_model_filename or {"onnxruntime": "model.onnx", "openvino": "model.xml"}[runtime]
    assert named == manifest.format.filename
    assert (store.version_dir("tiny") / named).is_file()


def test_a_package_of_aotinductor_word_for_word() -> None:
    """Triton's PyTorch backend knows its tensors by their places, does not batch them, and is told the platform."""
    manifest = described({"ids": ("n", 16), "mask": ("n", 16)}, {"y": ("n", 8)}, {"ids": (8, 16), "mask": (8, 16)})
    pytorch = EngineFormat(backend="pytorch", platform="torch_aoti", filename="model.pt2")
    assert config_pbtxt(msgspec.structs.replace(manifest, format=pytorch)).decode().splitlines()[1:] == [
        'name: "tiny"',
        'backend: "pytorch"',
        'platform: "torch_aoti"',
        "max_batch_size: 0",
        'input [ { name: "INPUT__0" data_type: TYPE_FP32 dims: [ -1, 16 ] } ]',
        'input [ { name: "INPUT__1" data_type: TYPE_FP32 dims: [ -1, 16 ] } ]',
        'output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ -1, 8 ] } ]',
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        'parameters { key: "INTER_OP_THREAD_COUNT" value: { string_value: "1" } }',
        'parameters { key: "INTRA_OP_THREAD_COUNT" value: { string_value: "1" } }',
    ]
