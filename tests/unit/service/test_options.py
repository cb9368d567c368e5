"""Settings of a server: what people say, and what becomes of it."""

import pytest

from tailorbird.domain.errors import UsageError
from tailorbird.service.options import ServerOptions, options_of
from tailorbird.serving.batching.admission import BatchOptions
from tailorbird.serving.rollout.control import Channels, ControlOptions, Mode
from tailorbird.serving.rollout.options import RolloutOptions
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
        (
            {"model_control_mode": "pol"},
            "no such model control mode: got pol, expected none, explicit, poll\nHint: did you mean 'poll'?",
        ),
        (
            {"load_model": ["resnet"]},
            "--load-model belongs to another mode: got --model-control-mode poll, "
            "expected --model-control-mode explicit",
        ),
        (
            {"repository_poll_secs": 0.0},
            "--repository-poll-secs is wrong: got 0.0, expected 0.05 to 86400 seconds",
        ),
        ({"keep_previous_secs": -1.0}, "--keep-previous-secs is wrong: got -1.0, expected 0 to 86400 seconds"),
        ({"canary_weight": 1.5}, "--canary-weight is wrong: got 1.5, expected 0, or 0.001 to 0.999"),
        ({"canary_weight": float("nan")}, "--canary-weight is wrong: got nan, expected 0, or 0.001 to 0.999"),
        ({"memory_budget": "0"}, "--memory-budget is wrong: got 0, expected 1 byte or more"),
        ({"memory_budget": "4 apples"}, "that is no size: got '4 apples', expected a number and a unit, "
         "as 256MiB or 4GiB"),
        ({"max_queue": 0}, "max_queue is no number of requests: got 0, expected 1 or more"),
        ({"grpc_port": 70000}, "--grpc-port is no port: got 70000, expected 0 to 65535"),
        ({"metrics_port": -1}, "--metrics-port is no port: got -1, expected 0 to 65535"),
        (
            {"allow_client_shm": True},
            "clients' shared memory could be registered nowhere: got --allow-client-shm alone, "
            "expected --admin or --admin-on-public beside it",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(settings, message):
    with pytest.raises(UsageError) as caught:
        options_of(**settings)
    assert caught.value.message == message


def test_how_models_change():
    found = options_of(
        model_control_mode="explicit",
        load_model=["a", "b"],
        repository_poll_secs=7,
        keep_previous_secs=8,
        channel="stable",
        canary_weight=0.2,
        canary_channel="next",
        canary_slowdown=1.5,
        shadow_channel="dark",
        shadow_share=0.5,
        memory_budget="4GiB",
        pin=["a"],
    )
    assert found.control == ControlOptions(
        mode=Mode.EXPLICIT,
        load=("a", "b"),
        poll_s=7,
        keep_previous_s=8,
        channels=Channels(live="stable", canary="next", weight=0.2, shadow="dark"),
        rollout=RolloutOptions(slowdown=1.5, shadow_share=0.5),
        memory_budget=4 << 30,
        pins=("a",),
    )


def test_shared_memory_is_off_unless_it_is_asked_for():
    assert not options_of().client_shm
    found = options_of(allow_client_shm=True, client_shm_user=[1000], admin="8003")
    assert (found.client_shm, found.client_shm_users) == (True, (1000,))
