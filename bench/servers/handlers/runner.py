"""The function that is served: an engine's own files in its own runtime, or a doubling in numpy."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rows = Callable[[Any], Any]

SPEC: dict[str, Any] = json.loads(Path(os.environ["BENCH_SPEC"]).read_text())
"""``runtime`` (``openvino``, ``onnxruntime`` or ``double``), ``model``, ``threads``, ``config``, ``input``, ``row``
(its shape), ``dtype``, ``batch`` (rows to join at most, 1 for none), ``wait`` (seconds), ``workers``."""


def opened() -> Rows:
    """From an array of rows to the first output's rows; called from several threads, it runs one at a time."""
    made = {"openvino": _openvino, "onnxruntime": _onnxruntime, "double": _double}[SPEC["runtime"]]()
    made(np.ones((1, *SPEC["row"]), SPEC["dtype"]))
    return made


def rows_of(content: bytes) -> Any:
    """The rows in a request's bytes."""
    return np.frombuffer(content, SPEC["dtype"]).reshape(-1, *SPEC["row"])


def _double() -> Rows:
    return lambda rows: rows * 2


def _openvino() -> Rows:
    import openvino

    request = openvino.Core().compile_model(SPEC["model"], "CPU", SPEC["config"]).create_infer_request()
    lock = threading.Lock()

    def run(rows: Any) -> Any:
        with lock:
            return np.array(request.infer({SPEC["input"]: rows}, share_inputs=True)[0])

    return run


def _onnxruntime() -> Rows:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = SPEC["threads"]
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(SPEC["model"], options, providers=["CPUExecutionProvider"])
    lock = threading.Lock()

    def run(rows: Any) -> Any:
        with lock:  # two runs at once would share the cores, and both come later
            return session.run(None, {SPEC["input"]: rows})[0]

    return run
