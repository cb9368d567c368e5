"""Servers with locked doors, and files of tokens for them."""

import socket
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from tailorbird.domain.dtype import DType
from tailorbird.service import app
from tailorbird.service.guard import tokenfile
from tailorbird.service.guard.options import Guarding
from tailorbird.service.guard.scopes import Scope
from tailorbird.service.guard.tokens import issue
from tailorbird.service.options import ServerOptions
from tailorbird.serving.hub import Hub
from tests.protocol.engines import echo_model

ECHO = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [7]}]}


def free_port():
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_tokens(path):
    """A file with a token for each scope, one for models that begin with ``a``, an expired and a revoked one."""
    now = datetime.now(UTC)
    wanted = {scope.value: ({scope}, ("*",)) for scope in Scope}
    wanted |= {"some": (set(Scope), ("a*",)), "all": (set(Scope), ("*",))}
    found = {}
    with tokenfile.changing(path) as known:
        for name, (scopes, models) in wanted.items():
            found[name], record = issue(name, frozenset(scopes), models)
            known[record.id] = record
        found["expired"], record = issue("expired", frozenset(Scope), expires=now - timedelta(seconds=1))
        known[record.id] = record
        found["revoked"], record = issue("revoked", frozenset(Scope))
        known[record.id] = _revoked(record, now)
    return found


def _revoked(record, now):
    from msgspec.structs import replace

    return replace(record, revoked=now)


class Running:
    """A server's addresses."""

    def __init__(self, url, grpc_port, metrics_port):
        self.url = url
        self.address = url.split("//")[1]
        self.host, port = self.address.rsplit(":", 1)
        self.port = int(port)
        self.grpc = f"127.0.0.1:{grpc_port}"
        self.metrics = f"{url.split(':')[0]}://127.0.0.1:{metrics_port}"


@contextmanager
def locked_server(guarding=None, models=None, *, grpc=True, metrics=False, **options):
    """A server over HTTP and gRPC with two models, ``alpha`` and ``beta``."""
    models = models or [echo_model("alpha", DType.FP32), echo_model("beta", DType.FP32)]
    grpc_port = free_port() if grpc else 0
    metrics_port = free_port() if metrics else None
    chosen = ServerOptions(
        port=0, grpc_port=grpc_port, metrics_port=metrics_port, guarding=guarding or Guarding(), **options
    )
    with app.running_server(Hub(models), chosen) as url:
        yield Running(url, grpc_port, metrics_port)


def bearer(token):
    """Headers that show a token."""
    return {"authorization": f"Bearer {token}"}
