"""From published bundles to answers: a repository with one altered model, and one ``.engine`` file."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from tailorbird.repository.store import LocalRepository
from tailorbird.service.app import running_server
from tests import bundles

REQUEST = {
    "inputs": [{"name": "x", "shape": [2, bundles.WIDTH], "datatype": "FP32", "data": bundles.INPUTS["x"].tolist()}]
}


def check(url: str, model: str, version: str) -> None:
    answer = httpx.post(f"{url}/v2/models/{model}/infer", json=REQUEST).json()
    assert (answer["model_name"], answer["model_version"]) == (model, version)
    values = np.array(answer["outputs"][0]["data"]).reshape(2, bundles.WIDTH)
    np.testing.assert_allclose(values, bundles.expected(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_repository_with_an_altered_model(tmp_path: Path, runtime: str) -> None:
    repository = LocalRepository(tmp_path / "repository")
    version = bundles.version(tmp_path / "made", runtime)
    for name in ("good", "good", "bad"):
        repository.publish(version, name, again=True)
    next(repository.version_dir("bad").glob("model.*")).write_bytes(b"altered")
    with running_server(repository.root) as url:
        check(url, "good", "2")
        assert httpx.get(f"{url}/v2/models/good/ready").json() == {"name": "good", "ready": True}
        assert httpx.get(f"{url}/v2/models/bad/ready").json() == {"name": "bad", "ready": False}
        assert httpx.get(f"{url}/v2/health/ready").json() == {"ready": False}
        refused = httpx.post(f"{url}/v2/models/bad/infer", json=REQUEST)
        assert refused.status_code == 503
        assert refused.json()["error"].startswith("model 'bad' is not ready: it failed to load")
        assert httpx.post(f"{url}/v2/models/good/versions/1/infer", json=REQUEST).status_code == 404


def test_an_engine_file(tmp_path: Path) -> None:
    packed = bundles.engine_file(bundles.version(tmp_path / "made"), tmp_path / "tiny.engine")
    with running_server(packed) as url:
        check(url, "tiny", "1")
