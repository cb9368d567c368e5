"""Valid messages to begin with: every operation, every form of an inference request, every datatype."""

import gzip
import json
import struct
import zlib
from functools import cache

import numpy as np

from tailorbird.domain.dtype import DType
from tailorbird.service.rpc import schema
from tests.fuzz.documents import Document

NUMERIC = [dtype for dtype in DType if dtype not in (DType.BYTES, DType.FP16, DType.BF16)]
GETS = ["/", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/echo", "/v2/models/tiny/versions/1", "/metrics",
        "/v2/models/echo/ready", "/v2/models/echo/config", "/v2/models/echo/stats", "/v2/models/stats",
        "/v2/models/echo/versions/1/ready", "/v2/models/echo/versions/1/stats"]  # fmt: skip
POSTS = {
    "/v2/repository/index": b'{"ready": true}',
    "/v2/repository/models/echo/load": b'{"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}}',
    "/v2/repository/models/echo/unload": b'{"parameters": {"unload_dependents": true}}',
    "/v2/systemsharedmemory/region/r/register": b'{"key": "/r", "offset": 0, "byte_size": 64}',
    "/v2/systemsharedmemory/region/r/unregister": b"",
    "/v2/systemsharedmemory/status": b"",
    "/v2/trace/setting": b'{"trace_rate": "1"}',
    "/v2/logging": b'{"log_verbose_level": 1}',
}


@cache
def requests() -> tuple[bytes, ...]:
    """HTTP requests, as documents."""
    plain = [Document(b"GET", path.encode(), [], b"") for path in GETS]
    posted = [Document(b"POST", path.encode(), [], body) for path, body in POSTS.items()]
    return tuple(one.text() for one in (*plain, *posted, *_json(), *_binary(), *_packed()))


@cache
def messages() -> tuple[bytes, ...]:
    """``ModelInferRequest`` messages."""
    return tuple(
        message.SerializeToString() for message in (*map(_typed, NUMERIC), *map(_raw, DType), _strings(), _tiny())
    )


@cache
def small_messages() -> tuple[bytes, ...]:
    """Messages of the operations that describe."""
    index = schema.RepositoryIndexRequest(repository_name="", ready=True)
    about = schema.ModelMetadataRequest(name="echo", version="1")
    return (b"", about.SerializeToString(), index.SerializeToString(),
            schema.HealthCheckRequest(service="echo").SerializeToString())  # fmt: skip


def bodies() -> tuple[bytes, ...]:
    """Bodies of inference requests, each behind the two bytes that say how much of it is JSON."""
    found = []
    for one in (*_json(), *_binary()):
        sizes = [int(value) for name, value in one.headers if name == b"inference-header-content-length"]
        found.append(struct.pack("<H", sizes[0] if sizes else 0xFFFF) + one.body)
    return tuple(found)


def _infer(model: str, request: dict[str, object], blobs: bytes = b"") -> Document:
    text = json.dumps(request).encode()
    headers = [(b"inference-header-content-length", b"%d" % len(text))] if blobs else []
    return Document(b"POST", f"/v2/models/{model}/infer".encode(), headers, text + blobs)


def _json() -> list[Document]:
    echo = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1.5, 2], [3, 4]]}
    tiny = [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]},
            {"name": "k", "shape": [1, 1], "datatype": "INT64", "data": [5]}]  # fmt: skip
    text = {"name": "x", "shape": [2], "datatype": "BYTES", "data": ["a", "bc"]}
    terms = {"timeout": 1000000, "priority": 1, "binary_data_output": False}
    asked = {"id": "7", "parameters": terms, "inputs": tiny,
             "outputs": [{"name": "n", "parameters": {"binary_data": False}}, {"name": "y"}]}  # fmt: skip
    typed = [_infer(str(dtype).lower(), {"inputs": [{"name": "x", "shape": [2], "datatype": str(dtype),
                                                     "data": [True, False] if dtype is DType.BOOL else [0, 1]}]})
             for dtype in NUMERIC]  # fmt: skip
    classed = {"inputs": [echo], "outputs": [{"name": "y", "parameters": {"classification": 1}}]}
    return [_infer("echo", {"inputs": [echo]}), _infer("tiny", asked), _infer("text", {"inputs": [text]}),
            _infer("echo", classed), *typed]  # fmt: skip


def _binary() -> list[Document]:
    found = []
    for dtype in DType:
        blob = _blob(dtype)
        tensor = {"name": "x", "shape": [2], "datatype": str(dtype), "parameters": {"binary_data_size": len(blob)}}
        request = {"parameters": {"binary_data_output": True}, "inputs": [tensor]}
        found.append(_infer("text" if dtype is DType.BYTES else str(dtype).lower(), request, blob))
    raw = Document(b"POST", b"/v2/models/echo/infer", [(b"inference-header-content-length", b"0")], bytes(8))
    return [*found, raw]


def _packed() -> list[Document]:
    plain = _json()[0]
    return [
        plain._replace(headers=[(b"content-encoding", b"gzip")], body=gzip.compress(plain.body, mtime=0)),
        plain._replace(headers=[(b"content-encoding", b"deflate")], body=zlib.compress(plain.body)),
        plain._replace(headers=[(b"expect", b"100-continue")]),
        plain._replace(headers=[(b"connection", b"close")]),
        plain._replace(
            headers=[
                (b"connection", b"upgrade, http2-settings"),
                (b"upgrade", b"h2c"),
                (b"http2-settings", b"AAMAAABkAAQAAP__"),
            ]
        ),
    ]


def _blob(dtype: DType) -> bytes:
    if dtype is DType.BYTES:
        return struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + b"bc"
    return np.ones(2, np.uint8).tobytes() if dtype is DType.BOOL else bytes(2 * dtype.itemsize)


def _typed(dtype: DType) -> object:
    message = schema.ModelInferRequest(model_name=str(dtype).lower(), id="7")
    contents = message.inputs.add(name="x", datatype=str(dtype), shape=[2]).contents
    for field in contents.DESCRIPTOR.fields:
        if field.name == _FIELD[dtype]:
            getattr(contents, field.name).extend([1, 0])
    return message


def _raw(dtype: DType) -> object:
    message = schema.ModelInferRequest(model_name="text" if dtype is DType.BYTES else str(dtype).lower())
    message.inputs.add(name="x", datatype=str(dtype), shape=[2])
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    del message.outputs[0].parameters["classification"]
    message.raw_input_contents.append(_blob(dtype))
    return message


def _strings() -> object:
    message = schema.ModelInferRequest(model_name="text")
    message.inputs.add(name="x", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"a", b"\xff"])
    return message


def _tiny() -> object:
    message = schema.ModelInferRequest(model_name="tiny", model_version="1", id="9")
    message.parameters["timeout"].int64_param = 1_000_000
    message.parameters["priority"].uint64_param = 1
    message.inputs.add(name="x", datatype="FP32", shape=[1, 4]).parameters["p"].string_param = "q"
    message.inputs.add(name="k", datatype="INT64", shape=[1, 1])
    message.outputs.add(name="n").parameters["binary_data"].bool_param = True
    message.raw_input_contents.extend([bytes(16), bytes(8)])
    return message


_FIELD = {
    **dict.fromkeys((DType.INT8, DType.INT16, DType.INT32), "int_contents"),
    **dict.fromkeys((DType.UINT8, DType.UINT16, DType.UINT32), "uint_contents"),
    DType.BOOL: "bool_contents",
    DType.INT64: "int64_contents",
    DType.UINT64: "uint64_contents",
    DType.FP32: "fp32_contents",
    DType.FP64: "fp64_contents",
}
