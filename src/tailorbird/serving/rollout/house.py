"""The house: what the models of one server share while versions come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial

from tailorbird.domain.errors import NotReady
from tailorbird.serving.hub import Hub, IdleModel, LoadedModel, State
from tailorbird.serving.processes.events import Event
from tailorbird.serving.rollout.control import ControlOptions
from tailorbird.serving.rollout.memory import Ledger
from tailorbird.serving.rollout.place import Place
from tailorbird.serving.rollout.record import Record, What
from tailorbird.serving.rollout.room import Lodger, Room
from tailorbird.serving.starting import Watch

_DRAINING = 64
"""Versions that are put away at once."""


class House:
    """What a server's models share.

    Args:
        hub: what is in service.
        place: where versions come from.
        options: how models change.
        record: told of what happens.
        watch: told of what happens to the instances' processes.
        lodgers: asked for all models.
    """

    def __init__(
        self, hub: Hub, place: Place, options: ControlOptions, record: Record, watch: Watch,
        lodgers: Callable[[], Iterable[Lodger]],
    ) -> None:  # fmt: skip
        self.hub = hub
        self.options = options
        self.record = record
        self.closing = threading.Event()
        self.ledger = Ledger()
        self.room = Room(options.memory_budget, options.pins, hub, self.ledger, lodgers)
        self._place = place
        self._watch = watch
        self._ending: Future[LoadedModel] = Future()  # never has a result
        self._draining = ThreadPoolExecutor(_DRAINING, "draining")

    def load(self, name: str, version: int, *, evicts: bool) -> None:
        """Bring a version into service, so far without traffic.

        Args:
            name: of the model.
            version: of it.
            evicts: other models may be put away to make room.

        Raises:
            NoRoom: the memory budget has none.
            NotReady: the server ends meanwhile.
            TailorbirdError: it cannot be trusted, loaded or started, or its smoke check failed.
        """
        if self.room.limit is not None:
            self.ledger.file_bytes((name, version), self._place.file_bytes(name, version))
        with self.room.for_load((name, version), evicts=evicts):
            wakes = evicts and self.room.limit is not None  # a request that meets it waits for it
            self.hub.wait(IdleModel(name, version, State.LOADING, "loading", wakes))
            started = time.monotonic()
            model = self._loaded(name, version)
            try:
                if self.closing.is_set():
                    raise NotReady("the server is being put away")
                self.room.admit((name, version), partial(self.hub.put, model), evicts=evicts)
            except BaseException:
                model.close()
                raise
        self.record.note(What.LOADED, name, version, seconds=time.monotonic() - started)

    def may_come_later(self, name: str, version: int) -> bool:
        """Whether a version for which there is no room now could have some."""
        return self.room.fits_alone((name, version))

    def put_away(self, name: str, version: int, after: IdleModel | None = None) -> Future[None]:
        """Take a version out of service and let it drain; the end of that is what is returned.

        Args:
            name: of the model.
            version: of it.
            after: how it is known afterwards; None to forget it.
        """
        model = self.hub.take_out(name, version, wakes=after is not None and after.wakes)
        ended: Future[None] = Future()
        if model is None:
            ended.set_result(None)
            return ended

        def drain() -> None:
            try:
                model.close()
            finally:
                self.hub.drained(name, version, after)
                self.record.note(What.PUT_AWAY, name, version)

        return self._draining.submit(drain)

    def end(self) -> None:
        """Load nothing from here on, and wait for no load that can be left behind; returns at once."""
        self.closing.set()
        with suppress(InvalidStateError):  # said before
            self._ending.set_exception(NotReady("the server is being put away"))

    def close(self) -> None:
        """Wait until everything that was put away has drained."""
        self._draining.shutdown(wait=True)

    def _loaded(self, name: str, version: int) -> LoadedModel:
        """In a thread of its own where the place allows that, so that it can be left behind."""
        if not self._place.leavable:
            return self._place.load(name, version, self._seen)
        coming: Future[LoadedModel] = Future()
        arguments = (coming, name, version)
        threading.Thread(target=self._bring, args=arguments, name=f"loading {name}", daemon=True).start()
        wait((coming, self._ending), return_when=FIRST_COMPLETED)
        if not coming.done():
            coming.add_done_callback(_put_down)
            coming = self._ending
        return coming.result()

    def _bring(self, coming: Future[LoadedModel], name: str, version: int) -> None:
        try:
            coming.set_result(self._place.load(name, version, self._seen))
        except BaseException as error:  # whoever waits gets it
            coming.set_exception(error)

    def _seen(self, name: str, version: int, event: Event) -> None:
        self.ledger.seen(name, version, event)
        self._watch(name, version, event)


def _put_down(late: Future[LoadedModel]) -> None:
    """What came when nobody waited for it any more."""
    if late.exception() is None:
        late.result().close()
