"""Which version of a model is in service, for our server and for others that read ``config.pbtxt``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tailorbird.domain.errors import BundleError
from tailorbird.domain.manifest import decode_manifest
from tailorbird.repository.channels import PRODUCTION, Standing
from tailorbird.repository.config_pbtxt import config_pbtxt


def latest_of(standing: Standing, model: str, versions: Iterable[int]) -> int | None:
    """The newest of a model's versions that is not retired, or None."""
    return max((version for version in versions if standing.serves(model, version)), default=None)


def in_service(standing: Standing, model: str, versions: Sequence[int], channel: str = "") -> int | None:
    """The version to serve: the channel's; without one what ``production`` points at, otherwise the latest.

    Args:
        standing: the log.
        model: the model.
        versions: its versions, ascending.
        channel: a channel's name, or empty.

    Returns:
        None where the channel points at nothing of the model that is there, or every version is retired.
    """
    live = standing.live(model, channel or PRODUCTION)
    if live in versions:
        return live
    return None if channel else latest_of(standing, model, versions)


def described(
    standing: Standing, model: str, versions: Sequence[int], highest: int, manifest: Callable[[int], bytes]
) -> bytes | None:
    """``config.pbtxt`` of what is in service.

    The version is named where other servers would take another one: when a channel says which, or when the
    folder of the highest number is retired or on its way out.

    Args:
        standing: the log.
        model: the model.
        versions: its versions, ascending; at least one.
        highest: the highest number among its folders.
        manifest: reads a version's manifest; raises :class:`BundleError`.

    Returns:
        None where that version is not ours to describe.
    """
    chosen = in_service(standing, model, versions)
    named = chosen if standing.live(model, PRODUCTION) or chosen != highest else None
    try:
        found = decode_manifest(manifest(chosen or versions[-1]))
    except BundleError:
        return None
    return config_pbtxt(found, model, 0 if chosen is None else named)
