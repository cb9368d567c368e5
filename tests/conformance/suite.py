"""What a check is, where checks ask, and how what they see is told."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType

import grpc
import httpx
import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

HTTP, GRPC = "http", "grpc"
BOTH = (HTTP, GRPC)


@dataclass(frozen=True)
class Server:
    """A server under test: ``host:port`` of each of its doors."""

    name: str
    version: str
    http: str
    grpc: str
    changing_http: str
    """Where models can be loaded and unloaded: in Triton the same server."""
    changing_grpc: str

    def doors(self):
        """One by each protocol."""
        return {protocol: Door(self, protocol, getattr(self, protocol)) for protocol in BOTH}

    def changing(self, protocol):
        return Door(self, protocol, getattr(self, f"changing_{protocol}"))


class Door:
    """One protocol of one server, with the official client for it."""

    def __init__(self, server, protocol, address):
        self.server = server
        self.protocol = protocol
        self.address = address
        self._closing = contextlib.ExitStack()

    @property
    def module(self) -> ModuleType:
        return tritonclient.http if self.protocol == HTTP else tritonclient.grpc

    @cached_property
    def client(self):
        options = {"concurrency": 8} if self.protocol == HTTP else {}
        return self._closing.enter_context(self.module.InferenceServerClient(self.address, **options))

    @cached_property
    def raw(self):
        """HTTP without a client's help. Triton compresses for whoever says that he reads gzip."""
        headers = {"accept-encoding": "identity"}
        return self._closing.enter_context(
            httpx.Client(base_url=f"http://{self.address}", headers=headers, timeout=20.0)
        )

    @cached_property
    def stub(self):
        return service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    @cached_property
    def channel(self):
        return self._closing.enter_context(grpc.insecure_channel(self.address))

    @cached_property
    def changing(self):
        """The door where models are loaded and unloaded."""
        return self._closing.enter_context(contextlib.closing(self.server.changing(self.protocol)))

    def close(self):
        self._closing.close()

    def tensor(self, name, array, datatype, **data):
        """An input of the official client."""
        made = self.module.InferInput(name, list(np.shape(array)), datatype)
        made.set_data_from_numpy(array, **data)
        return made

    def wanted(self, name, **options):
        """An output to ask the official client for."""
        return self.module.InferRequestedOutput(name, **options)

    def post(self, path, body=None, **options):
        """The status of a POST: a mapping is sent as JSON, bytes as they are."""
        kind = {"content": body} if isinstance(body, bytes | type(None)) else {"json": body}
        return self.raw.post(path, **kind, **options)


@dataclass(frozen=True)
class Check:
    """One check over one protocol."""

    name: str
    area: str
    protocol: str
    run: Callable[[Door], str] = field(repr=False)
    expected: str
    """What is right."""

    @property
    def key(self):
        return f"{self.name} [{self.protocol}]"


CHECKS: list[Check] = []


def check(expected="ok", *, name="", over=BOTH, **by_protocol):
    """Register a function ``(door) -> what was seen``; its name, or ``name``, is the check's.

    Args:
        expected: what is right.
        name: instead of the function's.
        over: the protocols it is made for.
        by_protocol: ``http=`` or ``grpc=``, where they differ by nature.
    """

    def register(function):
        area = function.__module__.rpartition(".")[2].replace("_", " ")
        called = name or function.__name__.strip("_").replace("_", " ")
        for protocol in over:
            CHECKS.append(Check(called, area, protocol, function, by_protocol.get(protocol, expected)))
        return function

    return register


def seen(doors, one):
    """Run a check; whatever an exception says of a status is what was seen."""
    try:
        return one.run(doors[one.protocol])
    except Exception as error:
        return status(error)


def status(error):
    """A refusal in one word: HTTP's status, or gRPC's code."""
    if isinstance(error, InferenceServerException) and error.status():
        return str(error.status()).removeprefix("StatusCode.")
    if isinstance(error, grpc.RpcError):
        return error.code().name
    return f"{type(error).__name__}: {error}"[:120]


def refusal(call, *arguments, **options):
    """The status that a call is refused with."""
    try:
        call(*arguments, **options)
    except (InferenceServerException, grpc.RpcError) as error:
        return status(error)
    return "ok"


def same(got, wanted):
    """``ok``, or both."""
    return "ok" if got == wanted else f"{got!r}, not {wanted!r}"[:200]


def refused_as(http, code):
    """Keywords of :func:`check` for a refusal."""
    return {HTTP: http, GRPC: code}


INVALID = refused_as("400", "INVALID_ARGUMENT")
NOT_FOUND = refused_as("404", "NOT_FOUND")
NOT_OFFERED = refused_as("501", "UNIMPLEMENTED")
