"""LitServe: JSON, with large tensors in base64; requests joined by its own batcher."""

import base64
import sys
from typing import Any

import litserve
import numpy as np
from fastapi import Request
from runner import SPEC, opened, rows_of


class Served(litserve.LitAPI):
    """The API."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe names it
        self.run = opened()

    def decode_request(self, request: Request) -> Any:
        body: Any = request  # what is named so is its JSON, parsed
        if "x" in body:
            return np.array(body["x"], np.float32)
        return rows_of(base64.b64decode(body["tensor"]))[0]

    def predict(self, x: Any) -> Any:
        return self.run(x if SPEC["batch"] > 1 else x[None])

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"y": np.ravel(output).tolist()}


if __name__ == "__main__":
    api = Served(max_batch_size=SPEC["batch"], batch_timeout=SPEC["wait"], api_path="/infer")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=SPEC["workers"], timeout=60)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        generate_client_file=False,
        log_level="warning",
        timeout_keep_alive=75,
    )
