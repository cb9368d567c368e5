"""The shadow: a version that is sent copies of what the live one answered, and whose answers nobody gets.

It never holds the live version up: a copy is made after the live answer, waits in a line of bounded length and bytes,
and is dropped and counted where there is no room. One copy runs at a time, in a task of its own.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque

import msgspec
import numpy as np

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.signature import Tensors
from tailorbird.serving.hub import LoadedModel
from tailorbird.serving.rollout.agreement import Agreement
from tailorbird.serving.rollout.options import RolloutOptions
from tailorbird.serving.rollout.split import Split
from tailorbird.serving.rollout.status import ShadowStatus, quantiles_ms

COPY_BYTES = 4 << 20
"""What has to be copied while the live answer waits may be so large: a fraction of a millisecond."""
WAITING_BYTES = 128 << 20
"""Of inputs and outputs that wait for the shadow."""
_ASIDE_BYTES = 32 << 10
"""Outputs that are larger are compared in a thread."""
_RECENT = 1024


class _Copy(msgspec.Struct, frozen=True, gc=False):
    """A request and its live answer."""

    inputs: Tensors
    outputs: Tensors
    seconds: float
    nbytes: int


class Shadow:
    """A shadow beside a live version. All of it happens in the event loop, but for :meth:`close` and :meth:`status`.

    Args:
        live: the live version.
        model: the shadow.
        options: how much of the traffic is copied.
        chance: which requests, where not all are.
    """

    def __init__(
        self, live: LoadedModel, model: LoadedModel, options: RolloutOptions, chance: random.Random | None = None
    ) -> None:
        self.live = live
        self.model = model
        self.options = options
        self._share = options.shadow_share
        self._most = options.shadow_waiting
        self._split = Split(options.shadow_share, chance)
        self._agreement = Agreement(live.signature)
        self._waiting: deque[_Copy] = deque()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._compared = self._errors = self._dropped = 0
        self._own: deque[float] = deque(maxlen=_RECENT)
        self._live: deque[float] = deque(maxlen=_RECENT)
        self._ratios = 0.0  # the sum of their logarithms
        self._last_error = ""

    def copy(self, inputs: Tensors, outputs: Tensors, seconds: float) -> None:
        """Let the shadow answer a request, too, if it is one of its share and there is room. Raises nothing.

        Args:
            inputs: of the request. What could change once the request is answered is copied here.
            outputs: the live answer's; they must not change any more.
            seconds: how long that took.
        """
        try:
            if self._closed or not self._split.seat().canary:
                return
            copy = self._copied(inputs, outputs, seconds)
            if copy is not None:
                if self._task is None or self._task.done():
                    self._task = asyncio.get_running_loop().create_task(self._work())
                self._waiting.append(copy)
                self._bytes += copy.nbytes
                return
        except Exception as error:  # no memory, say: the live answer is there and has to leave
            self._last_error = _reason(error)
        self._dropped += 1

    def goes_on_as(self, other: Shadow) -> bool:
        """Whether the other one would do the same."""
        return self.live is other.live and self.model is other.model and self.options == other.options

    def close(self) -> None:
        """Take no more copies, and forget those that wait; from any thread."""
        self._closed = True

    def status(self) -> ShadowStatus:
        """How it is doing; from any thread."""
        own, live, compared = quantiles_ms(self._own), quantiles_ms(self._live), self._compared
        return ShadowStatus(
            version=self.model.version,
            share=self._share,
            compared=compared,
            errors=self._errors,
            dropped=self._dropped,
            waiting=len(self._waiting),
            p50_ms=own[0],
            p99_ms=own[1],
            live_p50_ms=live[0],
            live_p99_ms=live[1],
            latency_ratio=math.exp(self._ratios / compared) if compared else None,
            outputs=self._agreement.status(),
            last_error=self._last_error,
        )

    def _copied(self, inputs: Tensors, outputs: Tensors, seconds: float) -> _Copy | None:
        """None where there is no room."""
        if len(self._waiting) >= self._most:
            return None
        nbytes = sum(_size(array) for tensors in (inputs, outputs) for array in tensors.values())
        if self._bytes + nbytes > WAITING_BYTES:
            return None
        kept = lasting(inputs)
        return None if kept is None else _Copy(kept, outputs, seconds, nbytes)

    async def _work(self) -> None:
        """Answer what waits, one after another, until nothing does."""
        while self._waiting:
            copy = self._waiting.popleft()
            try:
                if not self._closed:
                    await self._answer(copy)
            except Exception as error:  # whatever it is, it is the shadow's alone
                self._errors += 1
                self._last_error = _reason(error)
            finally:
                self._bytes -= copy.nbytes

    async def _answer(self, copy: _Copy) -> None:
        began = time.monotonic()
        outputs = await self.model.instance.run(copy.inputs)  # without a ticket: behind whoever names a priority
        seconds = time.monotonic() - began
        if sum(array.nbytes for array in copy.outputs.values()) > _ASIDE_BYTES:
            await asyncio.to_thread(self._agreement.add, copy.outputs, outputs)
        else:
            self._agreement.add(copy.outputs, outputs)
        self._compared += 1
        self._own.append(seconds)
        self._live.append(copy.seconds)
        self._ratios += math.log(max(seconds, 1e-9) / max(copy.seconds, 1e-9))


def lasting(tensors: Tensors) -> Tensors | None:
    """The same tensors in memory that nobody writes to, copied only where they are not; None if that is too much.

    Views of ``bytes``, as request bodies are, last as they are, and so do arrays that own their memory: a transport
    made them for this request alone. Anything else may be memory that somebody else writes to once the request is
    answered, as a client's shared memory is.
    """
    lent = {name for name, array in tensors.items() if not _lasts(array)}
    if sum(tensors[name].nbytes for name in lent) > COPY_BYTES:
        return None
    return {name: array.copy() if name in lent else array for name, array in tensors.items()}


def _size(array: Array) -> int:
    """Bytes; of texts their own, too, to which an array only points."""
    return array.nbytes + (sum(map(len, array.ravel().tolist())) if array.dtype.hasobject else 0)


def _reason(error: Exception) -> str:
    return error.what if isinstance(error, TailorbirdError) else type(error).__name__


def _lasts(array: Array) -> bool:
    base: object = array
    while (under := base.obj if isinstance(base, memoryview) else getattr(base, "base", None)) is not None:
        base = under
    return isinstance(base, bytes | np.ndarray)
