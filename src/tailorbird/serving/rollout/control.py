"""Control: when a server's models change, and what limits it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tailorbird.domain.errors import UsageError
from tailorbird.serving.rollout.options import RolloutOptions

FOLDER_POLL_S = 2.0
REMOTE_POLL_S = 15.0


class Mode(StrEnum):
    """When models are loaded and put away, in Triton's words."""

    NONE = "none"
    """At the start, and never again."""
    EXPLICIT = "explicit"
    """When somebody asks for it: the load and unload operations."""
    POLL = "poll"
    """When the repository changes."""


class Channels(msgspec.Struct, frozen=True, kw_only=True):
    """Which of a repository's channels say what about this server."""

    live: str = ""
    """The one that is served; without one ``production``, or the latest version of a model that lacks it."""
    canary: str = "canary"
    """Gets :attr:`weight` of the requests."""
    weight: float = 0.0
    """0 for no canary, whatever the channel points at."""
    shadow: str = ""
    """Gets copies; empty for no shadow."""


class ControlOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server's models change."""

    mode: Mode | None = None
    """None to poll a repository, and to serve anything else as it is."""
    load: tuple[str, ...] = ()
    """Explicit mode: models to load at the start; ``*`` alone for all."""
    poll_s: float | None = None
    """Seconds between two looks at the repository; None for 2 s for folders, 15 s for object storage."""
    keep_previous_s: float = 60.0
    """Seconds for which a version that was live stays loaded, so that a rollback is immediate."""
    channels: Channels = Channels()
    rollout: RolloutOptions = RolloutOptions()
    memory_budget: int | None = None
    """Bytes that all engines together may take; None for no limit."""
    pins: tuple[str, ...] = ()
    """Models that are never put away to make room."""

    def __post_init__(self) -> None:
        if self.poll_s is not None and not 0.05 <= self.poll_s <= 86400:
            raise UsageError("--repository-poll-secs is wrong", got=self.poll_s, expected="0.05 to 86400 seconds")
        if not 0 <= self.keep_previous_s <= 86400:
            raise UsageError("--keep-previous-secs is wrong", got=self.keep_previous_s, expected="0 to 86400 seconds")
        self._check_weight()
        if self.memory_budget is not None and self.memory_budget < 1:
            raise UsageError("--memory-budget is wrong", got=self.memory_budget, expected="1 byte or more")
        if self.load and self.mode is not Mode.EXPLICIT:
            raise UsageError("--load-model belongs to another mode", got=f"--model-control-mode {self.mode or 'poll'}",
                             expected="--model-control-mode explicit")  # fmt: skip
        if "*" in self.load and len(self.load) > 1:
            raise UsageError("--load-model '*' stands alone", got=", ".join(self.load))

    def _check_weight(self) -> None:
        """By the rule of those who use it."""
        try:
            msgspec.structs.replace(self.rollout, weight=self.channels.weight)
        except UsageError as error:
            raise UsageError("--canary-weight is wrong", got=error.got, expected=error.expected,
                             hint=error.hint) from None  # fmt: skip
