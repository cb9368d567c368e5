"""Supervision: how long to wait, when to stop, and what is said of processes that misbehave."""

import asyncio

import pytest

from tailorbird.domain.errors import BackendError, NotReady
from tailorbird.serving.processes.backoff import HEALTHY_S, Backoff
from tailorbird.serving.processes.events import Happening
from tailorbird.serving.processes.process import ProcessInstance
from tailorbird.serving.processes.supervise import ProcessOptions
from tests import bundles, processes


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return bundles.version(tmp_path_factory.mktemp("supervise") / "1")


@pytest.fixture
def events():
    return []


@pytest.fixture
def start(version, monkeypatch, tmp_path, events):
    """An instance whose process is a program of the test's."""
    made = []

    def started(program, **options):
        processes.stand_in(monkeypatch, tmp_path, program)
        monkeypatch.setenv("STAND_IN_VERSION", str(version))
        settings = ProcessOptions(**{"grace_s": 1.0, "starts": 2, **options})
        made.append(ProcessInstance(version, "tiny", options=settings, observer=events.append))
        return made[-1]

    yield started
    for instance in made:
        instance.close()


def kinds(events):
    return [event.what for event in events]


def failure(instance):
    with pytest.raises(BackendError) as caught:
        instance.wait_ready()
    return caught.value.message


def answer(instance):
    async def one():
        try:
            return await instance.run(bundles.INPUTS)
        except Exception as error:
            return error

    return asyncio.run(one())


def test_waits_double_up_to_thirty_seconds():
    backoff = Backoff(starts=99)
    waits = [backoff.after(1.0) for _ in range(12)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]


def test_a_minute_of_health_forgives_all():
    backoff = Backoff(starts=99)
    assert [backoff.after(1.0) for _ in range(4)][-1] == 0.8
    assert backoff.after(HEALTHY_S) == 0.1
    assert backoff.after(HEALTHY_S - 0.1) == 0.2


def test_starts_that_fail_in_a_row_are_counted():
    backoff = Backoff(starts=3)
    assert [backoff.after(None), backoff.after(None)] == [0.1, 0.2]
    assert backoff.after(0.5) == 0.4  # it started: the count begins anew
    assert [backoff.after(None), backoff.after(None), backoff.after(None)] == [0.8, 1.6, None]


def test_one_that_never_starts_stays_down_and_says_why(start, events):
    instance = start("print('no such kernel', flush=True); os._exit(7)", starts=3)
    assert failure(instance) == "tiny crashed: got exit status 7"
    assert kinds(events) == [*[Happening.STARTED, Happening.CRASHED, Happening.RESTARTING] * 2,
                             Happening.STARTED, Happening.CRASHED, Happening.GAVE_UP]  # fmt: skip
    assert [event.seconds for event in events if event.what is Happening.RESTARTING] == [0.1, 0.2]
    crash = events[1]
    assert (crash.cause, crash.words) == ("tiny crashed: got exit status 7", "no such kernel")
    assert events[-1].cause == "tiny crashed: got exit status 7"
    assert not instance.alive
    assert instance.failure == "tiny crashed: got exit status 7"
    error = answer(instance)
    assert type(error) is NotReady
    assert error.message == "tiny is down: its process does not start\nHint: the server's log has the reason"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "tiny crashed: got SIGSEGV"),
        ("line.send(b'nonsense'); time.sleep(60)", "tiny gave an answer that cannot be: got "),
        ("line.close(); time.sleep(60)", "tiny closed its line"),
        ("time.sleep(60)", "tiny took too long to start: expected ready within 0.5 s"),
        (
            "import msgspec; line.send(msgspec.msgpack.encode(dict(type='ready', manifest='sha256:0', signer=None)))",
            "tiny opened another version than it was told: got sha256:0, expected sha256:",
        ),
    ],
)
def test_starts_gone_wrong(start, program, words):
    assert failure(start(program, starts=1, start_limit_s=0.5, grace_s=0.2)).startswith(words)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("line.send(b'\\xff\\x00garbage')", "tiny gave an answer that cannot be: got "),
        ("line.send(os.urandom(60000))", "tiny gave an answer that cannot be: got "),
        (
            "line.send(done(number=2))",
            "tiny gave an answer that cannot be: got an answer that nobody waits for: got 2, expected 1",
        ),
        ("line.send(done(places=[]))", "tiny gave an answer that cannot be: got a wrong count of tensors"),
        ("line.send(done(extent=1 << 40))", "tiny gave an answer that cannot be: got shared memory is too small"),
        ("line.send(done(extent=1 << 20))", "tiny gave an answer that cannot be: got shared memory ends too early"),
        (
            "line.send(done(places=[((2, 17), 0, 136)]))",
            "tiny gave an answer that cannot be: got tensor 'y' has the wr",
        ),
        (
            "line.send(done(places=[((2, 16), 1 << 20, 128)]))",
            "tiny gave an answer that cannot be: got tensor 'y' lies",
        ),
        ("line.close()", "tiny closed its line"),
    ],
)
def test_answers_gone_wrong_end_the_process_and_that_request_alone(start, events, program, words):
    instance = start(f"""
import msgspec
def done(number=1, extent=64, places=(((2, 16), 0, 128),)):
    return msgspec.msgpack.encode(dict(type="done", number=number, extent=extent, tensors=places))
ready()
line.recv(65536)
{program}
time.sleep(60)
""")
    instance.wait_ready()
    error = answer(instance)
    assert type(error) is BackendError
    assert words in error.message
    processes.eventually(lambda: Happening.CRASHED in kinds(events))
    assert kinds(events)[:3] == [Happening.STARTED, Happening.READY, Happening.CRASHED]
    assert not processes.is_running(events[0].pid)


def test_an_answer_that_nobody_asked_for(start, events):
    instance = start("ready(); line.recv(65536); line.send(b'x' * 9); line.send(b'x' * 9); time.sleep(60)")
    instance.wait_ready()
    assert type(answer(instance)) is BackendError


def test_the_refusal_says_when_the_next_try_is(start):
    instance = start("ready(); line.recv(65536); os._exit(3)")
    instance.wait_ready()

    async def twice():
        with pytest.raises(BackendError, match=r"^tiny crashed: got exit status 3$"):
            await instance.run(bundles.INPUTS)
        with pytest.raises(NotReady) as caught:
            await instance.run(bundles.INPUTS)
        return caught.value.message

    assert asyncio.run(twice()) == "tiny crashed and is started again\nHint: send the request again in 0.1 s"


def test_whoever_watches_cannot_end_what_is_watched(version):
    def broken(event):
        raise RuntimeError("no disk for logs")

    instance = ProcessInstance(version, observer=broken)
    instance.wait_ready()
    instance.close()


def test_it_is_not_kept_waiting_by_one_that_is_still_starting(start):
    instance = start("time.sleep(60)")
    processes.eventually(lambda: instance._keeper._child)
    assert answer(instance).message == "tiny is starting\nHint: send the request again in a moment"
    took = processes.eventually(lambda: instance.close() or True)
    assert took < 5
    with pytest.raises(NotReady, match=r"^tiny is being put away"):
        instance.wait_ready()


def test_one_that_will_not_end_is_ended(start, events):
    instance = start("ready(); line.recv(65536); time.sleep(60)", grace_s=0.2)
    instance.wait_ready()
    instance.close()
    assert kinds(events) == [Happening.STARTED, Happening.READY, Happening.ENDED]
    assert not processes.is_running(events[0].pid)
