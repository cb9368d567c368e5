"""What happens to the server meanwhile: instances killed and stopped, versions promoted and rolled back."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from threading import Event

from tailorbird.domain.errors import TailorbirdError
from tailorbird.repository.base import Repository
from tests.stress.server import Server

_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP)


def kill_instances(server: Server, stop: Event, every_s: float, done: Counter[str]) -> None:
    """Kill one of the instances now and then; one that is stopped goes on a moment later."""
    chance = random.Random(1)
    while not stop.wait(chance.uniform(0.5, 1.5) * every_s):
        if not (pids := server.children()):
            continue
        pid, number = chance.choice(pids), chance.choice(_SIGNALS)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            done[number.name] += 1
            if number is signal.SIGSTOP:
                time.sleep(chance.uniform(0.05, 0.5))
                os.kill(pid, signal.SIGCONT)


def swap_versions(
    repository: Repository, stop: Event, every_s: float, done: Counter[str], channels: tuple[str, ...] = ("production",)
) -> None:
    """Let channels of every model point elsewhere now and then: forwards, and one step back."""
    chance = random.Random(2)
    while not stop.wait(chance.uniform(0.5, 1.5) * every_s):
        model, channel = chance.choice(repository.models()), chance.choice(channels)
        try:
            if chance.random() < 0.3:
                repository.rollback(model, channel, "stress")
                done[f"{channel} rolled back"] += 1
            else:
                repository.promote(model, chance.choice(repository.versions(model)), channel, "stress")
                done[f"{channel} promoted"] += 1
        except TailorbirdError:  # nothing was live before
            done[f"{channel} refused"] += 1
