"""Flask under gunicorn's threads: bytes in and out, or JSON where the numbers are few. It joins no requests."""

from __future__ import annotations

from typing import Any

import numpy as np
from flask import Flask, request
from runner import opened, rows_of

app = Flask(__name__)
run = opened()


@app.get("/ready")
def ready() -> str:
    return "ready"


@app.post("/infer")
def infer() -> bytes:
    found: bytes = run(rows_of(request.get_data())).tobytes()
    return found


@app.post("/json")
def plain() -> dict[str, Any]:
    return {"y": run(np.array(request.get_json()["x"], np.float32)).tolist()}
