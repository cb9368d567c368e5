"""MLServer: the Open Inference Protocol, with large tensors in base64; requests joined by its adaptive batching."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from runner import opened, rows_of


class Served(MLModel):
    """The runtime."""

    async def load(self) -> bool:
        self.run = opened()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        found = self.run(_rows(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", found)])


def _rows(tensor: Any) -> Any:
    if tensor.datatype != "BYTES":
        return NumpyCodec.decode_input(tensor)
    texts = getattr(tensor.data, "root", tensor.data)
    return np.concatenate([rows_of(base64.b64decode(one)) for one in texts])
