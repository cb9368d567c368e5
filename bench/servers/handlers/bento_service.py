"""BentoML: JSON, with large tensors in base64; requests joined by its adaptive batching."""

from __future__ import annotations

import base64
from typing import Any

import bentoml
import numpy as np
from runner import SPEC, opened, rows_of


def _joined(tensors: list[str]) -> Any:
    return np.concatenate([rows_of(base64.b64decode(one)) for one in tensors])


@bentoml.service(workers=SPEC["workers"], traffic={"timeout": 60, "max_concurrency": 1024})
class Served:
    """What is served."""

    def __init__(self) -> None:
        self.run = opened()

    if SPEC["batch"] > 1:

        @bentoml.api(batchable=True, max_batch_size=SPEC["batch"], max_latency_ms=60000)
        def infer(self, tensors: list[str]) -> list[list[float]]:
            found: list[list[float]] = self.run(_joined(tensors)).tolist()
            return found

        @bentoml.api(batchable=True, max_batch_size=SPEC["batch"], max_latency_ms=60000)
        def plain(self, x: list[list[float]]) -> list[list[float]]:
            found: list[list[float]] = self.run(np.array(x, np.float32)).tolist()
            return found

    else:

        @bentoml.api
        def infer(self, tensors: list[str]) -> list[list[float]]:
            found: list[list[float]] = self.run(_joined(tensors)).tolist()
            return found

        @bentoml.api
        def plain(self, x: list[list[float]]) -> list[list[float]]:
            found: list[list[float]] = self.run(np.array(x, np.float32)).tolist()
            return found
