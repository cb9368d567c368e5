"""Process instances: an engine in a process of its own, so that its crash or leak touches no other model.

::

    ProcessInstance     one request in, one answer out
      Keeper            starts the process, watches it, starts it again          (a thread)
      Line              sends runs to the process that is ready, hears answers    (the event loop)
        Segment         the tensors: copied in once, copied out once
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain import bundle
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import Overloaded
from tailorbird.domain.manifest import Manifest
from tailorbird.domain.signature import Tensors
from tailorbird.repository.signing.trust import Signer
from tailorbird.serving.instance import OUTSTANDING
from tailorbird.serving.processes.events import Event, Observer
from tailorbird.serving.processes.supervise import Keeper, ProcessOptions


class ProcessInstance:
    """One engine in one process, which is started again when it dies.

    It may be made before the event loop runs; the first loop that calls :meth:`run` is the one it serves.
    The process starts at once; :meth:`wait_ready` waits for it.

    Args:
        version_dir: the folder of a sealed version; the process verifies it each time it starts.
        name: how errors and events name the instance.
        options: how its process is run.
        outstanding: requests accepted and not yet answered, at most.
        observer: told of starts, crashes and ends.

    Raises:
        BundleError: the folder has no manifest that can be read.
    """

    def __init__(
        self,
        version_dir: Path,
        name: str = "instance",
        *,
        options: ProcessOptions | None = None,
        outstanding: int = OUTSTANDING,
        observer: Observer | None = None,
    ) -> None:
        self.manifest: Manifest = bundle.read_manifest(version_dir)
        self._name = name
        self._limit = outstanding
        self._closing = False
        self._accepted: list[tuple[Any, ...]] | None = None
        watch = observer or _nobody
        self._keeper = Keeper(version_dir.absolute(), self.manifest, name, options or ProcessOptions(), watch)

    @property
    def alive(self) -> bool:
        """Whether a request would be taken now."""
        return self._keeper.line is not None and not self._closing

    @property
    def outstanding(self) -> int:
        """Requests accepted and not yet answered."""
        line = self._keeper.line
        return line.outstanding if line is not None else 0

    @property
    def signer(self) -> Signer | None:
        """Who signed the version; None where unsigned ones were explicitly allowed, and before the first start."""
        return self._keeper.signer

    @property
    def failure(self) -> str:
        """Why the process stays down, for the log; empty while it does not."""
        return self._keeper.failure.message if self._keeper.failure else ""

    def wait_ready(self) -> None:
        """Block until the process is ready for the first time.

        Raises:
            BundleError: the version is altered, not trusted, or not for this machine.
            BackendError: the runtime refused it, or the process died each time it was started.
        """
        self._keeper.wait_ready()

    async def run(self, inputs: Tensors) -> dict[str, Array]:
        """Answer one request, in turn, without blocking the event loop.

        Args:
            inputs: every input by name, with the signature's dtypes and a shape inside the profile. They must not
                change before the answer is there.

        Returns:
            Every output by name, owned by the caller.

        Raises:
            InputError: names, dtypes or shapes do not fit, or they are too large for one run.
            BackendError: the runtime failed; or the process crashed with this request in it.
            Overloaded: too many requests wait already.
            NotReady: the process is starting again, stays down, or is closing.
        """
        self._check(inputs)
        line = self._keeper.line
        if line is None or self._closing:
            raise self._keeper.refusal()
        if line.outstanding >= self._limit:
            raise Overloaded(f"{self._name} has too many requests waiting", got=line.outstanding,
                             expected=f"fewer than {self._limit}", hint="send fewer at once, or later")  # fmt: skip
        return await line.submit(inputs)

    def close(self) -> None:
        """Refuse new requests, answer those accepted, end the process; blocks until that is done.

        Not to be called in the thread of a running loop, which could answer nothing meanwhile.
        """
        self._closing = True
        self._keeper.close()

    def _check(self, inputs: Tensors) -> None:
        """Here, so that a wrong request never waits; the form of the last right one needs no second look."""
        form = [(name, type(array), getattr(array, "dtype", None), getattr(array, "shape", None))
                for name, array in inputs.items()]  # fmt: skip
        if form != self._accepted:
            self.manifest.signature.check(inputs)
            self.manifest.candidate.profile.check({name: array.shape for name, array in inputs.items()})
            self._accepted = form


def start_instances(
    version_dir: Path,
    count: int,
    name: str = "instance",
    *,
    options: ProcessOptions | None = None,
    cores: Sequence[tuple[int, ...]] = (),
    observer: Observer | None = None,
) -> tuple[ProcessInstance, ...]:
    """Start several instances of one version side by side, and wait until all are ready.

    Args:
        version_dir: as of :class:`ProcessInstance`.
        count: how many.
        name: of the model; each instance's own has its number behind it.
        options: how their processes are run.
        cores: CPU cores to keep to, for each instance in turn; empty to let the system choose.
        observer: told of starts, crashes and ends of all, from a thread of each.

    Raises:
        TailorbirdError: as of :meth:`ProcessInstance.wait_ready`, of the first that failed; none is left running.
    """
    options = options or ProcessOptions()
    with contextlib.ExitStack() as undo:
        instances = []
        for number in range(count):
            own = msgspec.structs.replace(options, cores=cores[number % len(cores)]) if cores else options
            instance = ProcessInstance(version_dir, f"{name} instance {number}", options=own, observer=observer)
            undo.callback(instance.close)
            instances.append(instance)
        for instance in instances:
            instance.wait_ready()
        undo.pop_all()
    return tuple(instances)


def _nobody(_: Event) -> None:
    pass
