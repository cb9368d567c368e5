"""The course of one model: which of its versions are loaded, which of them answers, and how one follows another.

A version takes traffic only once it is loaded, warm and checked; until then, and where that fails, the one before
goes on. What is no longer wanted drains: it answers what it accepted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

import msgspec

from tailorbird.domain.errors import TailorbirdError
from tailorbird.serving.hub import Direction, FailedModel, IdleModel, State
from tailorbird.serving.rollout.house import House
from tailorbird.serving.rollout.memory import NoRoom
from tailorbird.serving.rollout.record import What
from tailorbird.serving.rollout.status import Stop
from tailorbird.serving.rollout.traffic import Traffic

RETRY_S = 5.0
RETRY_MOST_S = 300.0
EVICTED = "evicted: memory budget"
NO_ROOM = "not loaded: memory budget"


class _Failure(msgspec.Struct, frozen=True):
    times: int
    due: float
    """When it may be tried again, by the monotonic clock."""


class Course:
    """One model.

    Args:
        name: of the model.
        house: what all models share.
    """

    def __init__(self, name: str, house: House) -> None:
        self.name = name
        self.lock = threading.RLock()
        """Held while versions come and go."""
        self.asleep = False
        """Not loaded until somebody asks for it."""
        self.touched = 0.0
        """Unix time when something of it was loaded."""
        self._house = house
        self._wish: Direction | None = None
        self._followed: Direction | None = None
        self._failures: dict[int, _Failure] = {}
        self._fault: _Failure | None = None
        self._stopped: set[int] = set()
        self._previous: int | None = None
        self._leaves = 0.0
        self._unloaded = ""
        self._was: int | None = None

    @property
    def live(self) -> int | None:
        """The version that answers."""
        found = self._house.hub.direction(self.name)
        return found.live if found else None

    @property
    def due(self) -> float | None:
        """When there is something to do though nothing is wished anew, by the monotonic clock."""
        wish = self._wish
        wanted = () if wish is None or self.asleep else {wish.live, wish.canary, wish.shadow} - self._stopped
        times = [one.due for version, one in self._failures.copy().items() if version in wanted]
        if (fault := self._fault) is not None:
            times.append(fault.due)
        if self._previous is not None:
            times.append(self._leaves)
        return min(times, default=None)

    @property
    def previous(self) -> int | None:
        """A version that answers nobody any more, and is kept for a rollback."""
        return self._previous

    def wishes(self, direction: Direction | None, unloaded: str = "") -> bool:
        """Say who should answer; whether that is news. What failed is tried again then.

        Args:
            direction: the versions; None for the model to be put away.
            unloaded: what the index says of a model that was put away; empty where it should be forgotten.
        """
        if direction == self._wish:
            return False
        self._failures, self._fault = {}, None
        canary = direction.canary if direction else None
        self._stopped &= {canary}
        self._unloaded = unloaded
        self._was = direction.live if direction else self._wish.live if self._wish else None
        self._wish = direction
        return True

    def retry(self) -> None:
        """What failed may be tried again at once."""
        self._failures = {}

    def steer(self, *, evicts: bool = False) -> None:
        """Bring about what is wished, as far as it goes; blocks while versions load.

        Args:
            evicts: other models may be put away to make room.

        Raises:
            Exception: a fault of ours; it is tried again after a while, not at once.
        """
        with self.lock:
            while not self._house.closing.is_set():
                wish = self._wish
                try:
                    self._take(wish, evicts)
                    self._fault = None
                except Exception:
                    self._fault = _later(self._fault)
                    raise
                finally:
                    self._followed = wish
                if wish is self._wish:
                    return

    @property
    def behind(self) -> bool:
        """Whether something else is wished than was last steered to."""
        return self._wish is not self._followed

    def leave(self) -> Sequence[Future[None]]:
        """Put everything away; its end is what is returned."""
        with self.lock:
            live = self.live
            self._quieten()
            self._forget((), rests=True)
            if live is None and self._unloaded and self._was is not None:  # it had failed
                self._house.hub.wait(IdleModel(self.name, self._was, State.UNAVAILABLE, self._unloaded))
            versions = tuple(self._house.hub.loaded_versions(self.name))
            ends = [self._put_away(version, self._unloaded if version == live else "") for version in versions]
            self._previous = None
            return ends

    def evict(self) -> Sequence[Future[None]]:
        """Put everything away until somebody asks for it again."""
        with self.lock:
            live, self.asleep = self.live, True
            self._quieten()
            versions = tuple(self._house.hub.loaded_versions(self.name))
            ends = [self._put_away(one, EVICTED if one == live else "", wakes=one == live) for one in versions]
            self._previous = None
            self._house.record.note(What.EVICTED, self.name, live or 0)
            return ends

    def drop_previous(self) -> Sequence[Future[None]]:
        """Put away what is only kept for a rollback."""
        with self.lock:
            if self._previous is None:
                return ()
            version, self._previous = self._previous, None
            return (self._put_away(version),)

    def awaken(self) -> None:
        """Load it because somebody asks for it; raises what prevents it."""
        with self.lock:
            if self.live is None:
                self.asleep = False
                self.retry()  # what had no room then may have it now
                self.steer(evicts=True)

    def stopped(self, stop: Stop) -> None:
        """The canary was found to be worse; told by the traffic, which has ended its share already."""
        self._stopped.add(stop.canary.version)
        self._house.record.note(What.STOPPED, self.name, stop.canary.version, reason=stop.words)

    # --- steps, under the lock ---

    def _take(self, wish: Direction | None, evicts: bool) -> None:
        if wish is None:
            self.leave()
        elif self.asleep and not evicts:
            self._sleep(wish)
        else:
            self._follow(wish, evicts)

    def _follow(self, wish: Direction, evicts: bool) -> None:
        hub = self._house.hub
        promoted = self.live is not None  # which somebody asked for, so that others may have to make room
        live = wish.live if self._have(wish.live, evicts or promoted) else self.live
        if live is None:
            self._forget((wish.live, wish.canary, wish.shadow))
            return
        if live != self.live:
            self._point(Direction(live))
        canary = wish.canary if self._takes_canary(live, wish.canary) else None
        shadow = wish.shadow if wish.shadow != live and self._had(wish.shadow) else None
        self._point(Direction(live, canary, wish.weight if canary is not None else 0.0, shadow))
        kept = {live, canary, shadow}
        if self._previous in kept or time.monotonic() >= self._leaves:
            self._previous = None
        for version in tuple(hub.loaded_versions(self.name)):
            if version not in kept and version != self._previous:
                self._put_away(version)
        self._forget((wish.live, wish.canary, wish.shadow))

    def _takes_canary(self, live: int, canary: int | None) -> bool:
        """One that was stopped stays beside the version it was held against, without traffic, and begins no more."""
        now = self._house.hub.direction(self.name)
        stays = now is not None and (now.live, now.canary) == (live, canary)
        return canary != live and (stays or canary not in self._stopped) and self._had(canary)

    def _had(self, version: int | None) -> bool:
        return version is not None and self._have(version, evicts=False)

    def _have(self, version: int, evicts: bool) -> bool:
        """Whether a version is in service, if need be after loading it."""
        if version in self._house.hub.loaded_versions(self.name):
            return True
        failure = self._failures.get(version)
        if failure is not None and time.monotonic() < failure.due:
            return False
        try:
            self._house.load(self.name, version, evicts=evicts)
        except NoRoom as error:
            self._has_no_room(version, error)
            return False
        except TailorbirdError as error:
            self._has_failed(version, error.message)
            return False
        except Exception as error:  # one model's fault, of whatever kind, is not the others'
            self._has_failed(version, f"{type(error).__name__}: {error}")
            return False
        self._failures.pop(version, None)
        self.touched = time.time()
        return True

    def _has_no_room(self, version: int, error: NoRoom) -> None:
        if not self._house.may_come_later(self.name, version):
            self._has_failed(version, error.message)
            return
        self._try_later(version)
        alone = self.live is None
        self.asleep = alone
        self._house.hub.wait(IdleModel(self.name, version, State.UNAVAILABLE, NO_ROOM, wakes=alone))
        self._house.record.note(What.REFUSED, self.name, version, reason=error.message)

    def _try_later(self, version: int) -> None:
        self._failures[version] = _later(self._failures.get(version))

    def _has_failed(self, version: int, reason: str) -> None:
        if self._house.closing.is_set():
            return
        self._try_later(version)
        self._house.hub.fail(self.name, version, reason)
        self._house.record.note(What.FAILED, self.name, version, reason=reason)

    def _point(self, direction: Direction) -> None:
        """Let requests go where the direction says, all of them from one moment on."""
        hub = self._house.hub
        now = hub.direction(self.name)
        if now == direction:
            return
        before, versions = hub.traffic(self.name), hub.loaded_versions(self.name)
        traffic = None
        if direction.canary is not None or direction.shadow is not None:
            canary, shadow = (None if one is None else versions[one] for one in (direction.canary, direction.shadow))
            options = msgspec.structs.replace(self._house.options.rollout, weight=direction.weight)
            traffic = Traffic(versions[direction.live], canary, shadow, options, self.stopped, before=before)
        hub.direct(self.name, direction, traffic)
        if before is not None:
            before.close()
        self._tell(now, direction)

    def _tell(self, now: Direction | None, then: Direction) -> None:
        record = self._house.record
        if now is None or now.live != then.live:
            record.note(What.LIVE, self.name, then.live)
            if now is not None and self._house.options.keep_previous_s:
                self._previous = now.live
                self._leaves = time.monotonic() + self._house.options.keep_previous_s
        if then.canary is not None and (now is None or now.canary != then.canary):
            record.note(What.CANARY, self.name, then.canary)
        if then.shadow is not None and (now is None or now.shadow != then.shadow):
            record.note(What.SHADOW, self.name, then.shadow)

    def _quieten(self) -> None:
        traffic = self._house.hub.traffic(self.name)
        if traffic is not None:
            traffic.close()

    def _put_away(self, version: int, words: str = "", *, wakes: bool = False) -> Future[None]:
        after = IdleModel(self.name, version, State.UNAVAILABLE, words, wakes) if words else None
        return self._house.put_away(self.name, version, after)

    def _sleep(self, wish: Direction) -> None:
        """What sleeps is known by the version that would be loaded."""
        waking = {one.version for one in self._house.hub.idle if one.name == self.name and one.wakes}
        if wish.live not in waking:
            self._house.hub.wait(IdleModel(self.name, wish.live, State.UNAVAILABLE, NO_ROOM, wakes=True))
        self._forget((wish.live,))

    def _forget(self, wanted: Sequence[int | None], *, rests: bool = False) -> None:
        """Versions that were to be loaded and are not wanted any more; with ``rests`` not those that nobody loads."""
        hub = self._house.hub
        absent: tuple[FailedModel | IdleModel, ...] = (*hub.failed, *hub.idle)
        for one in absent:
            if one.name == self.name and one.version not in wanted and not _stays(one, rests):
                hub.gone(one.name, one.version)


def _later(before: _Failure | None) -> _Failure:
    """The next failure: ever longer until another try."""
    times = before.times + 1 if before is not None else 1
    return _Failure(times, time.monotonic() + min(RETRY_S * 2 ** (times - 1), RETRY_MOST_S))


def _stays(one: FailedModel | IdleModel, rests: bool) -> bool:
    if isinstance(one, FailedModel):
        return False
    return one.state is State.UNLOADING or (rests and one.state is State.UNAVAILABLE and not one.wakes)
