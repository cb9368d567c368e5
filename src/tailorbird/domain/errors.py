"""Every error Tailorbird raises on purpose.

::

    TailorbirdError            something failed (exit code 1)
      UsageError               the command line, a setting or an argument is wrong (exit code 2)
        ModelError             the source cannot be used as a model (exit code 2)
        InputError             tensors contradict the signature or the profile (exit code 2)
      BackendError             a runtime refused or failed
        BackendUnavailable     the runtime is not installed or not usable here
      StepError                an isolated step ended without an answer
        StepCrashed            a signal or an exit without a result
        StepTimedOut           over its time limit
        StepOutOfMemory        over its memory limit
      NoEngineError            no candidate passed the gate
      BundleError              a bundle is incomplete, altered, or of a newer schema
      RepositoryError          the repository refused
        ModelNotFound          no model of that name
        VersionNotFound        no such version of the model
      ServingError             a server cannot take a request now
        Overloaded             as many requests as allowed are waiting already
        NotReady               the model did not load, or is being put away

An error says what failed, what it got against what it expected, and a hint. Messages are part of the
interface: tests assert them.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TailorbirdError(Exception):
    """Something failed.

    Args:
        what: what failed, as one sentence without a full stop.
        got: what was found, if that helps.
        expected: what would have been right, if there is such a thing.
        hint: what to do next, as a sentence.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, got: object = None, expected: object = None, hint: str | None = None) -> None:
        self.what = what
        self.got = None if got is None else str(got)
        self.expected = None if expected is None else str(expected)
        self.hint = hint
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The whole text: what, got against expected, hint."""
        facts = [f"got {self.got}" if self.got else "", f"expected {self.expected}" if self.expected else ""]
        line = f"{self.what}: {', '.join(fact for fact in facts if fact)}" if any(facts) else self.what
        return f"{line}\nHint: {self.hint}" if self.hint else line

    def to_dict(self) -> dict[str, Any]:
        """The error as plain data, for ``--json`` and for crossing a process border."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "got": self.got,
            "expected": self.expected,
            "hint": self.hint,
        }


class UsageError(TailorbirdError):
    """The command line, a setting or an argument is wrong."""

    exit_code = 2


class ModelError(UsageError):
    """The source cannot be used as a model."""


class InputError(UsageError):
    """Tensors contradict the signature or the profile."""


class BackendError(TailorbirdError):
    """A runtime refused or failed; the vendor's own words are in the message."""


class BackendUnavailable(BackendError):
    """The runtime is not installed, or not usable on this machine."""


class StepError(TailorbirdError):
    """An isolated step ended without an answer."""


class StepCrashed(StepError):
    """The step's process died: a signal, or an exit without a result."""


class StepTimedOut(StepError):
    """The step went over its time limit and was killed."""


class StepOutOfMemory(StepError):
    """The step went over its memory limit and was killed."""


class NoEngineError(TailorbirdError):
    """No candidate passed the gate. ``outcomes`` is the table, of ``domain.outcome.Outcome``."""

    outcomes: tuple[Any, ...] = ()


class BundleError(TailorbirdError):
    """A bundle is incomplete, altered, or of a newer schema."""


class RepositoryError(TailorbirdError):
    """The repository refused."""


class ModelNotFound(RepositoryError):
    """The repository or server has no model of that name."""

    def __init__(self, model: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(f"unknown model '{model}'", hint=_nearest_hint(model, known))


class VersionNotFound(RepositoryError):
    """The model has no such version."""

    def __init__(self, model: str, version: object, known: tuple[int, ...] = ()) -> None:
        listed = ", ".join(map(str, known)) or "none"
        super().__init__(f"model '{model}' has no version {version}", hint=f"versions: {listed}")


class ServingError(TailorbirdError):
    """A server cannot take a request now; the same request may succeed in ``retry_after_s`` seconds."""

    retry_after_s: int = 1


class Overloaded(ServingError):
    """As many requests as allowed are waiting already."""


class NotReady(ServingError):
    """The model did not load, or is being put away."""

    retry_after_s = 5


def nearest(name: str, known: tuple[str, ...]) -> str | None:
    """The known name most like ``name``, or None when nothing is close."""
    import difflib

    found = difflib.get_close_matches(name, known, n=1)
    return found[0] if found else None


def _nearest_hint(name: str, known: tuple[str, ...]) -> str | None:
    close = nearest(name, known)
    if close:
        return f"did you mean '{close}'?"
    return f"known: {', '.join(known)}" if known else None


def error_from_dict(data: dict[str, Any]) -> TailorbirdError:
    """Rebuild an error from :meth:`TailorbirdError.to_dict`; an unknown kind becomes the base class."""
    kinds = {kind.__name__: kind for kind in _descendants(TailorbirdError)}
    kind = kinds.get(str(data.get("error")), TailorbirdError)
    error = kind.__new__(kind)
    TailorbirdError.__init__(
        error, str(data["what"]), got=data.get("got"), expected=data.get("expected"), hint=data.get("hint")
    )
    return error


def _descendants(kind: type[TailorbirdError]) -> list[type[TailorbirdError]]:
    found = [kind]
    for child in kind.__subclasses__():
        found += _descendants(child)
    return found
