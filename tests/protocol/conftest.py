"""One real server with real engines, for the tests of this folder."""

import pytest

from tailorbird.domain.dtype import DType
from tailorbird.service.app import running_server
from tailorbird.service.limits import Limits
from tailorbird.service.options import ServerOptions
from tailorbird.serving.hub import Hub
from tests.protocol import engines


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """``http://host:port`` of a server with ``tiny`` (ONNX Runtime 1, OpenVINO 2), ``echo`` and ``text``."""
    folder = tmp_path_factory.mktemp("engines")
    models = [
        engines.real_model("onnxruntime", folder, version=1),
        engines.real_model("openvino", folder, version=2),
        engines.echo_model("echo", DType.FP32, ("N", 2)),
        engines.echo_model("text", DType.BYTES),
        engines.echo_model("half", DType.FP16),
    ]
    with running_server(Hub(models), ServerOptions(port=0, grpc_port=0, limits=Limits(body_bytes=1 << 20))) as url:
        yield url
