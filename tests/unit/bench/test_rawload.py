"""The cheap load generator counts what was answered, and accepts nothing else; with a compiler and without."""

import shutil
from urllib.parse import urlsplit

import pytest

from bench import rawload
from tailorbird.domain.dtype import DType
from tailorbird.service.app import running_server
from tailorbird.service.options import ServerOptions
from tailorbird.serving.hub import Hub
from tests.protocol.engines import echo_model

BODY = b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}]}'


@pytest.fixture(scope="module")
def place():
    model = echo_model("echo", DType.FP32)
    with running_server(Hub([model]), ServerOptions(port=0, grpc_port=0)) as url:
        found = urlsplit(url)
        yield found.hostname, found.port


@pytest.mark.parametrize("compiled", [True, False])
def test_it_counts_answers(place, compiled):
    if compiled and shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no compiler here")
    rates = rawload.run(*place, rawload.post("/v2/models/echo/infer", BODY), 3, 0.3, compiled=compiled)
    assert rates.requests >= 3
    assert rates.seconds > 0.25
    assert 0 < rates.p50 <= rates.p99 < 10
    assert rates.rate == pytest.approx(rates.requests / rates.seconds)
    assert rates.cpu >= 0


@pytest.mark.parametrize("compiled", [True, False])
def test_an_error_is_no_answer(place, compiled):
    with pytest.raises(RuntimeError, match="not answered"):
        rawload.run(*place, rawload.post("/v2/models/nobody/infer", BODY), 2, 0.2, compiled=compiled)
