"""Settings of a server: what people say, and what becomes of it."""

import pytest

from tailorbird.domain.errors import UsageError
from tailorbird.service.options import ServerOptions, options_of
from tailorbird.serving.batching.admission import BatchOptions
from tailorbird.serving.starting import HubOptions, Isolation


def test_what_is_not_said_is_the_default():
    assert options_of() == ServerOptions()
    assert options_of().models.isolation is Isolation.PROCESS


def test_milliseconds_become_seconds():
    options = options_of(isolation="thread", instances=2, max_queue_delay_ms=5, default_timeout_ms=250.0,
                         preserve_ordering=True, max_queue=9, allow_unsigned=True)  # fmt: skip
    batching = BatchOptions(max_queue_delay=0.005, default_timeout=0.25, preserve_ordering=True, most_requests=9)
    assert options.models == HubOptions(isolation=Isolation.THREAD, instances=2, batching=batching, allow_unsigned=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"isolaton": "thread"}, "unknown setting 'isolaton'\nHint: did you mean 'isolation'?"),
        (
            {"isolation": "thraed"},
            "no such isolation: got thraed, expected process or thread\nHint: did you mean 'thread'?",
        ),
        ({"instances": 0}, "the number of instances is wrong: got 0, expected 1 or more"),
        ({"max_queue_delay_ms": -1.0}, "max_queue_delay_ms is no time: got -1.0, expected milliseconds, 0 or more"),
        ({"default_timeout_ms": 0}, "default_timeout_ms is no time: got 0, expected milliseconds, 0.001 or more"),
        (
            {"default_timeout_ms": float("nan")},
            "default_timeout_ms is no time: got nan, expected milliseconds, 0.001 or more",
        ),
        ({"max_queue": 0}, "max_queue is no number of requests: got 0, expected 1 or more"),
        ({"grpc_port": 70000}, "--grpc-port is no port: got 70000, expected 0 to 65535"),
        ({"metrics_port": -1}, "--metrics-port is no port: got -1, expected 0 to 65535"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(settings, message):
    with pytest.raises(UsageError) as caught:
        options_of(**settings)
    assert caught.value.message == message
