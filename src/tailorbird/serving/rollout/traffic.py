"""Traffic: who answers the requests of one model that name no version, and what becomes of the others beside it.

The controller makes one for each model with a canary or a shadow and gives it to the hub. It is used in the event
loop, but for :meth:`Traffic.status` and :meth:`Traffic.close`, which any thread may call.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable

from tailorbird.domain.errors import Overloaded, UsageError
from tailorbird.domain.signature import Tensors
from tailorbird.serving.hub import LoadedModel
from tailorbird.serving.rollout.canary import Canary, Turn
from tailorbird.serving.rollout.judge import Outcome
from tailorbird.serving.rollout.options import RolloutOptions
from tailorbird.serving.rollout.shadow import Shadow
from tailorbird.serving.rollout.status import RolloutStatus, Stop


class Traffic:
    """The traffic of one model.

    Args:
        live: answers, but for what the canary answers.
        canary: takes a share of the requests, until it is found to be worse.
        shadow: is sent copies of what the live version answered; its answers are compared and thrown away.
        options: how much of the traffic, and when a canary is worse.
        on_stop: told, in the event loop, that the canary was stopped; it must be quick and raise nothing.
        before: the model's traffic until now. What is the same in both goes on where it was: a canary beside the
            same live version with its evidence, or stopped; a shadow with its numbers.
    """

    def __init__(
        self,
        live: LoadedModel,
        canary: LoadedModel | None = None,
        shadow: LoadedModel | None = None,
        options: RolloutOptions | None = None,
        on_stop: Callable[[Stop], None] | None = None,
        *,
        before: Traffic | None = None,
    ) -> None:
        options = options or RolloutOptions()
        self.live = live
        self._canary = None if canary is None else Canary(live, canary, options, on_stop or _nobody)
        self._shadow = None if shadow is None else Shadow(live, shadow, options)
        if before is not None:
            self._go_on(before)

    @property
    def canary(self) -> LoadedModel | None:
        """The canary while it takes requests; None without one, or once it is stopped."""
        return None if self._canary is None or self._canary.stop is not None else self._canary.model

    @property
    def stop(self) -> Stop | None:
        """Why the canary was stopped; None while it was not."""
        return None if self._canary is None else self._canary.stop

    def choose(self) -> Turn | None:
        """The next request's turn, with the live version or with the canary; None where there is no choice.

        Each turn is given back to :meth:`over` once.
        """
        canary = self._canary
        return None if canary is None or canary.stop is not None else canary.turn()

    def over(self, turn: Turn | None, error: BaseException | None = None, *, rescued: bool = False) -> None:
        """A request is over. Raises nothing: that it could not be weighed is counted.

        Args:
            turn: as it was given; for None nothing happens.
            error: why it was not answered.
            rescued: it failed on the canary, and the live version answered it.
        """
        canary = self._canary
        if canary is None or turn is None:
            return
        try:
            _weigh(canary, turn, error, rescued)
        except Exception:  # whatever it is, the request has its answer
            canary.faults += 1

    def copy(self, inputs: Tensors, outputs: Tensors, seconds: float) -> None:
        """The live version answered a request in so many seconds: the shadow gets a copy, if there is one."""
        shadow = self._shadow  # another thread may take it out meanwhile
        if shadow is not None:
            shadow.copy(inputs, outputs, seconds)

    def _go_on(self, before: Traffic) -> None:
        was, now = before._canary, self._canary
        if was is not None and now is not None and was.live is now.live and was.model is now.model:
            if was.options == now.options:
                self._canary = was
            now.stop = was.stop
        shadow = before._shadow
        if shadow is not None and self._shadow is not None and shadow.goes_on_as(self._shadow):
            self._shadow, before._shadow = shadow, None  # whoever closes the traffic before must not close it

    def status(self) -> RolloutStatus:
        """Who answers, and how each is doing."""
        canary, shadow = self._canary, self._shadow
        return RolloutStatus(
            self.live.name,
            self.live.version,
            None if canary is None else canary.status(),
            None if shadow is None else shadow.status(),
        )

    def close(self) -> None:
        """Send no more copies to the shadow; before the shadow is put away."""
        shadow = self._shadow
        if shadow is not None:
            shadow.close()


def _weigh(canary: Canary, turn: Turn, error: BaseException | None, rescued: bool) -> None:
    if isinstance(error, CancelledError):
        canary.left(turn)
    elif isinstance(error, UsageError) and not rescued:  # the client's own doing
        canary.over(turn, None)
    else:
        broke = rescued and not isinstance(error, (UsageError, Overloaded))
        canary.over(turn, Outcome(turn.seconds(), error is not None), broke=broke)


def _nobody(_: Stop) -> None:
    pass
