"""``config.pbtxt`` of an engine, by Triton's rules: what Triton and OpenVINO Model Server read.

Keys of ``parameters`` are those the READMEs of Triton's onnxruntime and openvino backends document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.manifest import Manifest
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Dim, TensorSpec

_HEADER = "# Written by Tailorbird from the manifest of the version it serves; publish and promote write it anew.\n"
_DEFAULT_FILENAMES = {
    "onnxruntime": "model.onnx",
    "openvino": "model.xml",
    "tensorrt": "model.plan",
    "pytorch": "model.pt2",
}
_BY_PLACE = frozenset({"torch_aoti"})
"""Platforms whose tensors have no names but their places: ``INPUT__0``, ``OUTPUT__0`` (README of Triton's PyTorch
backend, "AOT Inductor Support")."""


def config_pbtxt(manifest: Manifest, model: str | None = None, only: int | None = None) -> bytes:
    """The text of ``config.pbtxt``.

    Args:
        manifest: the engine to describe.
        model: the folder's name, when it is not the manifest's model.
        only: the version to serve; without it the other server takes the one of the highest number. 0 means none.
    """
    signature, rows = manifest.signature, max_batch_size(manifest)
    fixed = _fixed_dims(manifest)
    lines = [
        f"name: {_quoted(model or manifest.model)}",
        f"backend: {_quoted(manifest.format.backend)}",
        *_platform(manifest),
        *_filename(manifest),
        *_version_policy(only),
        f"max_batch_size: {rows}",
        *(_tensor("input", spec, fixed, batched=rows > 0) for spec in _named(manifest, "INPUT", signature.inputs)),
        *(_tensor("output", spec, fixed, batched=rows > 0) for spec in _named(manifest, "OUTPUT", signature.outputs)),
        f"instance_group [ {{ count: {manifest.candidate.instances} kind: {_kind(manifest.candidate)} }} ]",
        *(_parameter(key, value) for key, value in sorted(_parameters(manifest).items())),
    ]
    return (_HEADER + "\n".join(lines) + "\n").encode("ascii")


def max_batch_size(manifest: Manifest) -> int:
    """The most rows of one request, or 0 where Triton must see full shapes.

    Full shapes it is when the batch dim does not lead every input and output, when a tensor has no
    other dim (Triton allows none without), or when the engine's own shapes are fixed: Triton batches
    only engines whose first dim is open. Its PyTorch backend batches none that were compiled ahead of time.
    """
    signature, candidate = manifest.signature, manifest.candidate
    batch = signature.batch_dim
    specs = (*signature.inputs, *signature.outputs)
    if manifest.format.platform in _BY_PLACE:
        return 0
    led = all(len(spec.dims) > 1 and spec.dims[0] == batch for spec in specs)
    if batch is None or not led or candidate.shape_mode is ShapeMode.STATIC:
        return 0
    return min(candidate.profile.max[spec.name][0] for spec in signature.inputs)


def _fixed_dims(manifest: Manifest) -> Mapping[str, int]:
    """Sizes of named dims that the engine's shapes fix."""
    candidate = manifest.candidate
    return manifest.signature.bind(candidate.profile.opt) if candidate.shape_mode is ShapeMode.STATIC else {}


def _filename(manifest: Manifest) -> Iterable[str]:
    name = manifest.format.filename
    if _DEFAULT_FILENAMES.get(manifest.format.backend) != name:
        yield f"default_model_filename: {_quoted(name)}"


def _platform(manifest: Manifest) -> Iterable[str]:
    """Said where the backend alone does not tell which of its kinds of engine it is to load."""
    if manifest.format.platform in _BY_PLACE:
        yield f"platform: {_quoted(manifest.format.platform)}"


def _named(manifest: Manifest, kind: str, specs: Sequence[TensorSpec]) -> Iterable[TensorSpec]:
    """Tensors by the names that the other server knows them by."""
    if manifest.format.platform not in _BY_PLACE:
        return specs
    return (msgspec.structs.replace(spec, name=f"{kind}__{place}") for place, spec in enumerate(specs))


def _version_policy(only: int | None) -> Iterable[str]:
    if only is not None:
        yield f"version_policy: {{ specific {{ versions: [ {only or ''} ] }} }}"


def _tensor(field: str, spec: TensorSpec, fixed: Mapping[str, int], *, batched: bool) -> str:
    dims = ", ".join(str(_size(dim, fixed)) for dim in spec.dims[batched:])
    shape = f"dims: [ {dims} ]" if dims else "dims: [ 1 ] reshape: { shape: [ ] }"  # a scalar
    return f"{field} [ {{ name: {_quoted(spec.name)} data_type: {_type(spec.dtype)} {shape} }} ]"


def _size(dim: Dim, fixed: Mapping[str, int]) -> int:
    return fixed.get(dim, -1) if isinstance(dim, str) else dim


def _type(dtype: DType) -> str:
    return "TYPE_STRING" if dtype is DType.BYTES else f"TYPE_{dtype}"


def _kind(candidate: Candidate) -> str:
    return "KIND_CPU" if candidate.target.device == "cpu" else "KIND_GPU"


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_quoted(key)} value: {{ string_value: {_quoted(value)} }} }}"


def _parameters(manifest: Manifest) -> dict[str, str]:
    """What makes the other server run the engine as it was measured, where that server can be told."""
    known = _PARAMETERS.get(manifest.format.backend)
    return known(manifest.candidate) if known else {}


def _onnxruntime(candidate: Candidate) -> dict[str, str]:
    return {"intra_op_thread_count": str(candidate.threads), "inter_op_thread_count": "1"}


def _openvino(candidate: Candidate) -> dict[str, str]:
    chosen = {"INFERENCE_NUM_THREADS": str(candidate.threads), "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY"}
    # A list of what may pass: CPU_EXTENSION_PATH, for one, would load a library.
    chosen |= {key: str(value) for key, value in candidate.options.items() if key in chosen}
    rest = candidate.quantisation.rest if candidate.quantisation else candidate.precision
    return chosen | ({"HINT_BF16": "YES"} if rest is Precision.BF16 else {})


def _pytorch(candidate: Candidate) -> dict[str, str]:
    return {"INTRA_OP_THREAD_COUNT": str(candidate.threads), "INTER_OP_THREAD_COUNT": "1"}


_PARAMETERS: dict[str, Callable[[Candidate], dict[str, str]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "pytorch": _pytorch,
}


def _quoted(text: str) -> str:
    """A protocol buffers text string: whatever is not plain ASCII becomes an octal escape of its UTF-8."""
    return '"' + "".join(map(_escaped, text.encode("utf-8", "replace"))) + '"'


def _escaped(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03o}"
