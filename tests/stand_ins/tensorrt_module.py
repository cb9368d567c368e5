"""A stand-in for TensorRT's Python module: builds a plan that holds the graph, and runs it with ONNX Runtime.

It has the vendor's names and habits as far as our code meets them: what fails gives back None or False and tells the
logger; a context runs only with memory it was given, at shapes inside its profile.
"""

import ctypes
import enum
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from tests.stand_ins.cuda_runtime import CudaRuntime

VERSION = "10.16.1.11"
HEADER = 64


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class DataType(enum.Enum):
    FLOAT, HALF, BF16, INT8, INT32, INT64, BOOL, UINT8 = range(8)


_KINDS = {"float": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32", "int64": "INT64", "bool": "BOOL",
          "uint8": "UINT8", "bfloat16": "BF16"}  # fmt: skip
_WORDS = {"FLOAT": "Float", "HALF": "Half", "INT8": "Int8", "INT32": "Int32", "INT64": "Int64", "BOOL": "Bool",
          "UINT8": "UInt8", "BF16": "BFloat16"}  # fmt: skip


class Logger:
    Severity = Severity


class Profiler:
    pass


class Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model: Any = None

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, index: int) -> Any:
        return Tensor(self.model.graph.input[index])


class Tensor:
    is_shape_tensor = False

    def __init__(self, value: Any) -> None:
        self._value = value
        self.name = value.name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(dim.dim_value or -1 for dim in self._value.type.tensor_type.shape.dim)

    @shape.setter
    def shape(self, dims: tuple[int, ...]) -> None:
        for dim, size in zip(self._value.type.tensor_type.shape.dim, dims, strict=True):
            dim.dim_value = size


class Parser:
    def __init__(self, network: Network, logger: Any) -> None:
        self._network = network
        self.errors: list[str] = []

    num_errors = property(lambda self: len(self.errors))

    def get_error(self, index: int) -> Any:
        text = self.errors[index]
        return SimpleNamespace(desc=lambda: text, node_name=lambda: "first", node_operator=lambda: "Conv",
                               node=lambda: 0)  # fmt: skip

    def parse_from_file(self, path: str) -> bool:
        return self.parse(Path(path).read_bytes(), path)

    def parse(self, content: bytes, path: str) -> bool:
        try:
            self._network.model = onnx.load_from_string(content)
            onnx.load_external_data_for_model(self._network.model, str(Path(path).parent))
            onnx.checker.check_model(self._network.model)
        except Exception as error:
            self.errors.append(str(error))
        return not self.errors


class OptimizationProfile(dict[str, Any]):
    def set_shape(self, name: str, *edges: Any) -> None:
        self[name] = [list(edge) for edge in edges]


class Config:
    def __init__(self) -> None:
        self.profiles: list[OptimizationProfile] = []
        self.set: dict[str, Any] = {}
        self.timing = b""
        self.architectures: dict[int, str] = {}

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        self.architectures[index] = capability.name
        return True

    def set_flag(self, flag: Any) -> None:
        self.set[flag.name] = True

    def clear_flag(self, flag: Any) -> None:
        self.set[flag.name] = False

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.set[pool] = size

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        return SimpleNamespace(serialize=lambda: content + b"t") if not content or content[:1] == b"t" else None

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.timing = cache.serialize()
        return True


def plan_of(network: Network, config: Config, magic: bytes, version: str) -> bytes:
    fixed = {value.name: [list(Tensor(value).shape)] * 3 for value in network.model.graph.input}
    profiles = [{**fixed, **one} for one in config.profiles] or [fixed]
    flags = {name: value for name, value in config.set.items() if isinstance(value, bool)}
    body = json.dumps({"profiles": profiles, "flags": flags}).encode() + b"\n" + network.model.SerializeToString()
    head = magic + bytes(12) + (HEADER + len(body)).to_bytes(8, "little") + bytes(map(int, version.split(".")))
    return head.ljust(HEADER, b"\0") + body


class TensorRt:
    """The module, over a stand-in device."""

    __version__ = VERSION
    magic = b"ftrt"
    ILogger, IProfiler, DataType, OnnxParser = Logger, Profiler, DataType, Parser
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    HardwareCompatibilityLevel = SimpleNamespace(NONE="none", AMPERE_PLUS="ampere", SAME_COMPUTE_CAPABILITY="same")
    BuilderFlag = enum.Enum("BuilderFlag", "REFIT STRIP_PLAN TF32 VERSION_COMPATIBLE")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    TensorLocation = SimpleNamespace(DEVICE="device", HOST="host")
    LayerInformationFormat = SimpleNamespace(JSON="json")

    def __init__(self, runtime: CudaRuntime) -> None:
        self.cuda = runtime
        self.configs: list[Config] = []
        self.refusal = ""
        """What the builder says before it gives nothing back."""
        self.crash: Callable[[], None] | None = None
        self.refitted: list[str] = []
        self.runtimes: list[Any] = []

    def Builder(self, logger: Any) -> Any:  # noqa: N802 - a class of the vendor's
        def build(network: Network, config: Config) -> bytes | None:
            if self.crash:
                logger.log(Severity.WARNING, "about to crash")
                self.crash()
            if self.refusal:
                logger.log(Severity.ERROR, self.refusal)
                return None
            logger.log(Severity.INFO, "Engine generation completed")
            return plan_of(network, config, self.magic, self.__version__)

        def configuration() -> Config:
            self.configs.append(Config())
            return self.configs[-1]

        return SimpleNamespace(create_network=Network, create_builder_config=configuration,
                               create_optimization_profile=OptimizationProfile,
                               build_serialized_network=build)  # fmt: skip

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        def deserialize(plan: bytes) -> Engine | None:
            if len(plan) != int.from_bytes(plan[16:24], "little"):
                logger.log(Severity.ERROR, "deserializeCudaEngine: Error Code 1: Serialization (truncated)")
                return None
            return Engine(self, plan[HEADER:])

        self.runtimes.append(SimpleNamespace(deserialize_cuda_engine=deserialize, engine_host_code_allowed=False))
        return self.runtimes[-1]

    def Refitter(self, engine: Any, logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(refit_cuda_engine=lambda: True)

    def OnnxParserRefitter(self, refitter: Any, logger: Any) -> Any:  # noqa: N802
        def refit(path: str) -> bool:
            self.refitted.append(Path(path).name)
            return True

        return SimpleNamespace(refit_from_file=refit)


class RuntimeCache:
    """Kernels, a byte each: what was known, and one more for every context made since."""

    def __init__(self) -> None:
        self.content = b""

    def deserialize(self, content: bytes) -> bool:
        self.content = content
        return True

    def serialize(self) -> bytes:
        return self.content


class RuntimeConfig:
    def __init__(self, trt: Any) -> None:
        self._trt = trt
        self.strategy = ""
        self.dynamic_shapes_kernel_specialization_strategy = ""

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self._trt.caches.append(cache)
        return True


class TensorRtRtx(TensorRt):
    """The module of TensorRT-RTX: capabilities are named, kernels come at load."""

    __version__ = "1.7.1.116"
    magic = b"vtrt"
    ComputeCapability = enum.Enum("ComputeCapability", "NONE CURRENT SM75 SM80 SM86 SM89 SM120 SM121")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

    EngineValidity = enum.Enum("EngineValidity", "VALID SUBOPTIMAL INVALID")
    EngineInvalidityDiagnostics = enum.IntFlag("EngineInvalidityDiagnostics", {
        "VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4, "INSUFFICIENT_GPU_MEMORY": 16,
    })  # fmt: skip

    def __init__(self, runtime: CudaRuntime) -> None:
        super().__init__(runtime)
        self.caches: list[RuntimeCache] = []
        self.lacking = 0
        """What the device lacks for any plan, as the module's flags."""

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        made = super().Runtime(logger)
        made.engine_header_size = HEADER
        made.get_engine_validity = self._validity
        return made

    def _validity(self, header: bytes) -> tuple[Any, int]:
        assert len(header) == HEADER
        return (self.EngineValidity.INVALID if self.lacking else self.EngineValidity.VALID), self.lacking


class Engine:
    def __init__(self, trt: TensorRt, body: bytes) -> None:
        told, _, graph = body.partition(b"\n")
        self.trt, self.facts = trt, json.loads(told)
        self.model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph))
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.inputs = {one.name: one for one in self.session.get_inputs()}
        self.outputs = {one.name: one for one in self.session.get_outputs()}
        self.device_memory_size_v2 = 1000
        self.num_optimization_profiles = len(self.facts["profiles"])
        self.num_io_tensors = len(self.inputs) + len(self.outputs)
        self.location = "device"
        self.unknown_outputs = False

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self.kind(name)]

    def kind(self, name: str) -> str:
        return _KINDS[({**self.inputs, **self.outputs})[name].type[len("tensor(") : -1]]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.inputs else "out"

    def get_tensor_location(self, name: str) -> str:
        return self.location

    def get_tensor_profile_shape(self, name: str, index: int) -> Any:
        return self.facts["profiles"][index][name]

    def create_execution_context(self, way: Any) -> "Context":
        assert getattr(way, "strategy", way) == "user"
        return Context(self)

    def create_runtime_config(self) -> Any:
        return RuntimeConfig(self.trt)

    def create_engine_inspector(self) -> Any:
        layers = json.dumps({"Layers": [self._layer(node) for node in self.model.graph.node]})
        return SimpleNamespace(execution_context=None, get_engine_information=lambda form: layers)

    def _layer(self, node: Any) -> dict[str, Any]:
        return {"Name": node.name or node.output[0], "LayerType": node.op_type,
                "Metadata": f"[ONNX Layer: {node.name}]",
                "Inputs": self._tensors(node.input), "Outputs": self._tensors(node.output)}  # fmt: skip

    def _tensors(self, names: Any) -> list[dict[str, str]]:
        graph = self.model.graph
        kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output,
                 *graph.value_info)} | {tensor.name: tensor.data_type for tensor in graph.initializer}  # fmt: skip
        words = {code: _WORDS[_KINDS[helper.tensor_dtype_to_np_dtype(code).name.replace("float32", "float")]]
                 for code in set(kinds.values())}  # fmt: skip
        return [{"Name": name, "Datatype": words[kinds[name]]} for name in names if name in kinds]


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.active_optimization_profile = 0
        self.profiler: Any = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._inner = 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.active_optimization_profile = index
        return index < self.engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.engine.get_tensor_profile_shape(name, self.active_optimization_profile)
        self._shapes[name] = tuple(shape)
        return all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self._inner = self.engine.trt.cuda.inside(address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self.engine.unknown_outputs:
            return (-1,)
        return tuple(self._answer(self._zeros(self._shapes))[name].shape)

    def get_max_output_size(self, name: str) -> int:
        profile = self.engine.facts["profiles"][self.active_optimization_profile]
        return int(self._answer(self._zeros({one: edges[2] for one, edges in profile.items()}))[name].nbytes)

    def execute_async_v3(self, stream: int) -> bool:
        assert self._inner
        assert self._addresses.keys() == {*self.engine.inputs, *self.engine.outputs}
        shapes = dict(self._shapes)
        self.engine.trt.cuda.queue(stream, lambda: self._execute(shapes))
        return True

    def _execute(self, shapes: dict[str, tuple[int, ...]]) -> None:
        feeds = {name: self._read(name, shape) for name, shape in shapes.items()}
        for name, array in self._answer(feeds).items():
            address = self.engine.trt.cuda.inside(self._addresses[name], array.nbytes)
            ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        for node in self.engine.model.graph.node if self.profiler else ():
            self.profiler.report_layer_time(node.name or node.output[0], 0.25)

    def _read(self, name: str, shape: tuple[int, ...]) -> Any:
        empty = self._zeros({name: shape})[name]
        address = self.engine.trt.cuda.inside(self._addresses[name], empty.nbytes)
        ctypes.memmove(empty.ctypes.data, address, empty.nbytes)
        return empty

    def _zeros(self, shapes: dict[str, Any]) -> dict[str, Any]:
        names = {"FLOAT": "float32", "HALF": "float16", "BF16": "uint16"}
        return {name: np.zeros(shape, names.get(self.engine.kind(name), self.engine.kind(name).lower()))
                for name, shape in shapes.items()}  # fmt: skip

    def _answer(self, feeds: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(self.engine.outputs, self.engine.session.run(None, feeds), strict=True))
