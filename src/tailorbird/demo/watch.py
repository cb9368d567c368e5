"""Whoever watches the demo: told of every step as it happens. The command line shows them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailorbird.api import Result
    from tailorbird.demo.models import Model
    from tailorbird.demo.reader import Reading

Observer = Callable[[dict[str, Any]], None]


class Watcher:
    """A watcher that says nothing; override what is to be shown."""

    def step(self, title: str) -> None:
        """The next step begins."""

    def note(self, text: str) -> None:
        """A fact about the step."""

    def building(self) -> AbstractContextManager[Observer]:
        """A build begins; the observer gets the events of its log."""
        return nullcontext(lambda _event: None)

    def built(self, model: Model, result: Result) -> None:
        """A model is built and published."""

    def read(self, reading: Reading) -> None:
        """A page is read."""
