"""The configuration of a model in service, as Triton states it: what clients look for in ``config.pbtxt``.

Facts of the engine, and how the batcher treats it; nothing can be configured through it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tailorbird.domain.candidate import ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.signature import TensorSpec
from tailorbird.repository.config_pbtxt import max_batch_size
from tailorbird.serving.hub import LoadedModel


class ConfigTensor(msgspec.Struct, frozen=True):
    """An input or output; without its batch dim where ``max_batch_size`` is not 0. -1 stands for a dynamic dim."""

    name: str
    data_type: str
    dims: tuple[int, ...]


class DynamicBatching(msgspec.Struct, frozen=True):
    """Requests are joined. Triton's other fields have no meaning here: the latency table decides what it pays for."""

    preserve_ordering: bool = False


class ModelConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of Triton's ``ModelConfig`` that say something here."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: tuple[ConfigTensor, ...]
    output: tuple[ConfigTensor, ...]
    default_model_filename: str
    dynamic_batching: DynamicBatching | None = None


def model_config(model: LoadedModel) -> ModelConfig:
    """The configuration of a version in service."""
    manifest, signature = model.manifest, model.signature
    candidate, rows = manifest.candidate, max_batch_size(manifest)
    fixed = signature.bind(candidate.profile.opt) if candidate.shape_mode is ShapeMode.STATIC else {}
    return ModelConfig(
        name=model.name,
        platform=manifest.format.platform,
        backend=manifest.format.backend,
        max_batch_size=rows,
        input=tuple(_tensor(spec, fixed, batched=rows > 0) for spec in signature.inputs),
        output=tuple(_tensor(spec, fixed, batched=rows > 0) for spec in signature.outputs),
        default_model_filename=manifest.format.filename,
        dynamic_batching=DynamicBatching(model.in_order) if rows > 1 else None,
    )


def _tensor(spec: TensorSpec, fixed: Mapping[str, int], *, batched: bool) -> ConfigTensor:
    dims = tuple(fixed.get(dim, -1) if isinstance(dim, str) else dim for dim in spec.dims[batched:])
    return ConfigTensor(spec.name, "TYPE_STRING" if spec.dtype is DType.BYTES else f"TYPE_{spec.dtype}", dims)
