"""Capacity: how many connections this process has descriptors for, so that it refuses before the system does.

A process without descriptors cannot accept, cannot start an instance again, and cannot say why.
"""

from __future__ import annotations

import contextlib
import resource

from msgspec.structs import replace

from tailorbird.service.options import ServerOptions

RESERVED = 256
"""Descriptors for engines, processes, files and logs."""


def within_reach(options: ServerOptions, *, own_process: bool) -> ServerOptions:
    """The options, with no more connections than there are descriptors for.

    Args:
        options: as asked.
        own_process: the process is the server's alone: its soft limit of descriptors may be raised.
    """
    limits = options.limits
    wanted = limits.connections + limits.grpc_connections + RESERVED
    most = _raised(wanted) if own_process else _soft()
    room = max(most - RESERVED, most // 2)  # where even the reserve is not there
    asked = limits.connections + limits.grpc_connections
    if asked <= room:
        return options
    share = room / asked
    fewer = replace(limits, connections=max(1, int(limits.connections * share)),
                    grpc_connections=max(1, int(limits.grpc_connections * share)))  # fmt: skip
    return replace(options, limits=fewer)


def _raised(wanted: int) -> int:
    """The soft limit, raised as far as it is wanted and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return _soft()


def _soft() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft
