"""The controller: which versions a server has loaded follows the repository, or what an operator asks for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from tailorbird.domain.errors import ModelNotFound, NotReady, Overloaded, TailorbirdError, UsageError
from tailorbird.serving.hub import Hub, IdleModel, State
from tailorbird.serving.rollout.control import ControlOptions, Mode
from tailorbird.serving.rollout.course import Course
from tailorbird.serving.rollout.house import House
from tailorbird.serving.rollout.memory import NoRoom, Version
from tailorbird.serving.rollout.place import Look, Place
from tailorbird.serving.rollout.record import Change, Record, Told, What
from tailorbird.serving.rollout.wanted import wanted
from tailorbird.serving.starting import Watch

WAITING = 64
"""Requests that may wait for one sleeping model."""
_WHOLE_LOOK = 30
"""Every so many looks the repository is read even if its folders' times say that nothing changed."""
_MEASURE_S = 5.0
_REST_S = 1.0
"""Between two looks at what is due: it may have become so at any moment."""
_FAULT_S = 5.0
_OPERATORS = 2
"""Loads and unloads that are asked for and run at once; others wait for them, and no request does."""


class Controller:
    """What changes a hub.

    Args:
        hub: what is served; closed by :meth:`close`.
        place: where versions come from; None for a hub that stays as it is.
        options: how models change.
        watch: told of what happens to the instances' processes.
        told: of every change.
    """

    def __init__(
        self, hub: Hub, place: Place | None = None, options: ControlOptions | None = None,
        watch: Watch | None = None, told: Told | None = None,
    ) -> None:  # fmt: skip
        self.hub = hub
        hub.changer = self
        self.record = Record(told)
        self._place = place
        self._options = options or ControlOptions()
        self.mode = (self._options.mode or Mode.POLL) if place is not None else Mode.NONE
        self._courses: dict[str, Course] = {}
        self._house = None if place is None else House(
            hub, place, self._options, self.record, watch or _nobody, lambda: tuple(self._courses.values())
        )  # fmt: skip
        self._pool = ThreadPoolExecutor(os.cpu_count(), "loading")
        self._operators = ThreadPoolExecutor(_OPERATORS, "operating")
        self._lock = threading.Lock()
        self._steering: set[str] = set()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stamp: object = None
        self._looks = 0
        self._blind = False
        self._crowded = False
        self._follow_at = 0.0
        self._measured = 0.0
        self._weights: dict[Version, int] = {}
        self._weigh_again = 0.0
        self._waking: dict[str, asyncio.Future[None]] = {}
        self._waiting: Counter[str] = Counter()

    # --- from start to end ---

    def begin(self) -> None:
        """Load what should be there from the start, side by side; blocks until that is done.

        A model that does not load is a row of :attr:`Hub.failed`; the others are served.

        Raises:
            ModelNotFound: a model that was named is not there.
            TailorbirdError: the repository cannot be read.
        """
        if self._place is None:
            return
        for _ in range(2):  # what was collected between the look and its load is not there; another version is
            look = self._looked()
            self._wish_first(look)
            pinned = [course for name, course in self._courses.items() if name in self._options.pins]
            others = [course for name, course in self._courses.items() if name not in self._options.pins]
            for some in (pinned, others):
                list(self._pool.map(Course.steer, some))
            if not self.hub.failed:
                break
        self.hub.all_vital()

    def start(self) -> None:
        """Go on from what is there: follow the repository, retry what failed, keep the memory budget."""
        if self._house is None:
            return
        self.memory()  # so that the first who asks is told
        self._follow_at = time.monotonic() + self._poll_s
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Load nothing from here on, and refuse who waits for a load; what is served goes on. Returns at once."""
        if self._house is not None:
            self._house.end()
        self._wake.set()

    def close(self) -> None:
        """End, and close the hub: what is accepted is answered; blocks until that is done."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        for pool in (self._pool, self._operators):
            pool.shutdown(wait=True, cancel_futures=True)
        if self._house is not None:
            self._house.close()
        self.hub.close()

    def changes(self) -> tuple[Change, ...]:
        """The latest changes, the newest first."""
        return self.record.recent

    def memory(self) -> dict[Version, int]:
        """Bytes that each version in service takes, by model and version; without those of which nothing is known.

        As they were a moment ago: a thread looks, as that takes milliseconds for each process, and the event loop asks.
        """
        now = time.monotonic()
        if self._house is not None and now >= self._weigh_again:
            self._weigh_again = now + _MEASURE_S
            with contextlib.suppress(RuntimeError):  # the pool is closed
                self._pool.submit(self._weigh)
        return self._weights

    def _weigh(self) -> None:
        assert self._house is not None
        loaded = [(model.name, model.version) for model in self.hub.loaded]
        self._weights = {one: size for one in loaded if (size := self._house.ledger.measured(one))}

    # --- what operators ask for ---

    def load(self, name: str) -> None:
        """Load a model, or follow what the repository says of it now; blocks until it serves.

        Raises:
            UsageError: the server's mode does not allow it.
            ModelNotFound: the repository has no version of it in service.
            NotReady: it did not load; the record has the reason.
        """
        self._check_explicit("load")
        assert self._place is not None
        look = self._place.look()
        wishes = wanted(look.serving, look.channels, self._options.channels)
        if name not in wishes:
            raise ModelNotFound(name, tuple(wishes))
        course = self._course(name)
        course.asleep = False
        course.wishes(wishes[name])
        course.retry()
        course.steer(evicts=True)
        if course.live != wishes[name].live:
            self._check_open()
            raise NotReady(f"model '{name}' did not load", hint="the server's log has the reason")

    def unload(self, name: str) -> None:
        """Put a model away; blocks until it has answered what it accepted.

        Raises:
            UsageError: the server's mode does not allow it.
            ModelNotFound: there is no such model here.
        """
        self._check_explicit("unload")
        self.hub.versions(name)
        course = self._course(name)
        course.wishes(None, unloaded="unloaded")
        self.hub.release(name)
        for end in course.leave():
            end.result()

    async def aside(self, action: Callable[[str], None], name: str) -> None:
        """Let :meth:`load` or :meth:`unload` block in a thread that no request needs.

        Raises:
            NotReady: the server is being put away.
            TailorbirdError: what the action raises.
        """
        self._check_open()
        await asyncio.get_running_loop().run_in_executor(self._operators, action, name)

    async def awaken(self, name: str, deadline: float | None = None) -> None:
        """Wait until a sleeping model is loaded; those who wait share one load.

        Args:
            name: of the model.
            deadline: by the monotonic clock; None to wait as long as it takes.

        Raises:
            Overloaded: too many wait already, or the deadline passed.
            NotReady: it did not load; the record has the reason.
        """
        if self._waiting[name] >= WAITING:
            raise Overloaded(f"too many requests wait for model '{name}' to be loaded", got=self._waiting[name],
                             expected=f"fewer than {WAITING}")  # fmt: skip
        self._waiting[name] += 1
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                await asyncio.shield(self._awakening(name))
        except TimeoutError:
            raise Overloaded(f"the deadline has passed while model '{name}' was loaded") from None
        finally:
            self._waiting[name] -= 1

    # --- steps ---

    def _awakening(self, name: str) -> asyncio.Future[None]:
        found = self._waking.get(name)
        if found is None:
            found = asyncio.get_running_loop().run_in_executor(self._pool, self._awakened, name)
            self._waking[name] = found
            found.add_done_callback(lambda done: self._awoken(name, done))
        return found

    def _awoken(self, name: str, done: asyncio.Future[None]) -> None:
        self._waking.pop(name, None)
        if not done.cancelled():
            done.exception()  # whoever still waits gets it; nobody may be left

    def _awakened(self, name: str) -> None:
        course = self._course(name)
        course.awaken()
        if course.live is None:
            self._check_open()
            full = course.asleep
            raise NotReady(f"model '{name}' is not loaded: " + ("the server has no room for it now" if full else
                           "it failed to load"), hint="the server's log has the reason")  # fmt: skip

    def _check_open(self) -> None:
        if self._wake.is_set():
            raise NotReady("the server is being put away")

    def _check_explicit(self, action: str) -> None:
        if self.mode is not Mode.EXPLICIT:
            raise UsageError(f"this server does not {action} models on request", got=f"model control mode {self.mode}",
                             expected="serve --model-control-mode explicit")  # fmt: skip

    def _course(self, name: str) -> Course:
        assert self._house is not None
        with self._lock:
            return self._courses.setdefault(name, Course(name, self._house))

    def _looked(self) -> Look:
        assert self._place is not None
        stamp = self._place.stamp()  # first: what changes during the look is found by the next one
        look = self._place.look()
        self._stamp = stamp
        return look

    def _wish_first(self, look: Look) -> None:
        wishes = wanted(look.serving, look.channels, self._options.channels)
        names = tuple(wishes)
        if self.mode is Mode.EXPLICIT and self._options.load != ("*",):
            names = self._options.load
        for name in names:
            if name not in wishes:
                raise ModelNotFound(name, tuple(wishes))
            self._course(name).wishes(wishes[name])
        for name in sorted(wishes.keys() - set(names)):
            self.hub.wait(IdleModel(name, wishes[name].live, State.UNAVAILABLE, "not loaded"))

    def _run(self) -> None:
        pause = self._pause()
        while not self._wake.wait(pause):
            pause = self._turn()

    def _turn(self) -> float:
        """Do what is due; seconds until the next turn. Whatever goes wrong, there is one."""
        try:
            self._tick()
            return self._pause()
        except Exception as error:
            self._own(error)
            return _FAULT_S

    @property
    def _poll_s(self) -> float:
        assert self._place is not None
        return self._options.poll_s or self._place.poll_s

    def _pause(self) -> float:
        """Seconds until there may be something to do. What a model that is steered now has to do, it does then."""
        with self._lock:
            idle = [course for name, course in self._courses.items() if name not in self._steering]
        dues = [due for course in idle if (due := course.due) is not None]
        if self.mode is Mode.POLL:
            dues.append(self._follow_at)
        soonest = min(dues, default=float("inf")) - time.monotonic()
        return max(0.02, min(_REST_S, soonest))

    def _tick(self) -> None:
        now = time.monotonic()
        if self.mode is Mode.POLL and now >= self._follow_at:
            self._follow_at = now + self._poll_s
            self.follow()
        for course in tuple(self._courses.values()):
            if (due := course.due) is not None and due <= now:
                self._steer(course)
        if self._options.memory_budget is not None and now - self._measured > _MEASURE_S:
            self._measured = now
            self._keep_budget()

    def _keep_budget(self) -> None:
        assert self._house is not None
        was, self._crowded = self._crowded, False
        try:
            self._house.room.settle()
        except NoRoom as error:  # all else is pinned, or the one model has grown
            self._crowded = True
            if not was:
                self.record.note(What.REFUSED, reason=error.message)

    def follow(self) -> None:
        """Look at the repository, and begin to bring about what is found there. Of poll mode, now and then."""
        if self._place is None:
            return
        self._looks += 1
        stamp = self._place.stamp()
        if stamp is not None and stamp == self._stamp and self._looks % _WHOLE_LOOK:
            return
        try:
            look = self._place.look()
        except Exception as error:  # whatever it is, what is loaded goes on
            self._lose_sight(error)
            return
        self._stamp = stamp
        if self._blind:
            self._blind = False
            self.record.note(What.SIGHTED)
        self._wish(look)

    def _lose_sight(self, error: Exception) -> None:
        if not self._blind:
            self._blind = True
            reason = error.message if isinstance(error, TailorbirdError) else f"{type(error).__name__}: {error}"
            self.record.note(What.BLIND, reason=reason)

    def _wish(self, look: Look) -> None:
        wishes = wanted(look.serving, look.channels, self._options.channels)
        for name, course in tuple(self._courses.items()):
            if name not in wishes and course.wishes(None):
                self.hub.release(name)
                self._steer(course)
        for name, direction in wishes.items():
            course = self._course(name)
            if course.wishes(direction):
                self._steer(course)

    def _steer(self, course: Course) -> None:
        """In a thread of its own, one for each model at a time."""
        with self._lock:
            if course.name in self._steering:
                return  # it looks at the wish again when it ends
            self._steering.add(course.name)

        def steer() -> None:
            try:
                course.steer()
            finally:
                with self._lock:
                    self._steering.discard(course.name)
                if course.behind and not self._wake.is_set():
                    self._steer(course)

        done: Future[None] = self._pool.submit(steer)
        done.add_done_callback(self._report)

    def _report(self, done: Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._own(error)

    def _own(self, error: BaseException) -> None:
        """A fault of ours: it must be seen."""
        self.record.note(What.FAILED, reason=f"{type(error).__name__}: {error}")


def _nobody(*_: object) -> None:
    pass
