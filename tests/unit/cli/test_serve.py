"""``tailorbird serve``: its flags reach the server, and wrong ones are named."""

import pytest

from tailorbird.cli.main import run
from tailorbird.service import app
from tailorbird.service.options import ServerOptions, options_of


@pytest.fixture
def asked(monkeypatch):
    """What the server was asked to do."""
    seen = []
    monkeypatch.setattr(app, "serve", lambda *about: seen.append(about))
    return seen


def test_without_flags_it_serves_as_the_record_says(asked):
    assert run(["serve", "models"]) == 0
    assert asked == [("models", ServerOptions())]


def test_every_flag_reaches_the_server(asked):
    flags = {
        "host": "0.0.0.0",
        "port": 1,
        "grpc_port": 2,
        "metrics_port": 3,
        "channel": "canary",
        "isolation": "thread",
        "instances": 4,
        "max_queue_delay_ms": 5.0,
        "default_timeout_ms": 6.0,
        "max_queue": 7,
        "model_control_mode": "explicit",
        "repository_poll_secs": 8.0,
        "keep_previous_secs": 9.0,
        "canary_weight": 0.1,
        "canary_channel": "next",
        "canary_slowdown": 1.5,
        "shadow_channel": "dark",
        "shadow_share": 0.5,
        "memory_budget": "4GiB",
    }
    words = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--load-model", "a", "--load-model", "b", "--pin", "a"]
    flags |= {"load_model": ["a", "b"], "pin": ["a"]}
    assert run(["serve", "models", *words, "--access-log", "--preserve-ordering", "--allow-unsigned"]) == 0
    assert asked == [("models", options_of(**flags, access_log=True, preserve_ordering=True, allow_unsigned=True))]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--isolaton", "thread"], "Did you mean --isolation?"),
        (["--isolation", "thraed"], 'Did you mean "thread"?'),
        (["--instances", "0"], "the number of instances is wrong: got 0, expected 1 or more"),
        (["--grpc-port", "70000"], "--grpc-port is no port: got 70000, expected 0 to 65535"),
        (["--max-queue", "0"], "max_queue is no number of requests: got 0, expected 1 or more"),
    ],
)
def test_what_is_wrong_is_named(asked, capsys, words, said):
    assert run(["serve", "models", *words]) == 2
    assert said in capsys.readouterr().err
    assert asked == []
