"""A Unix socket that its owner alone can connect to, at a path that a dead server may have left occupied."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.domain.files import reason

LONGEST = 107
"""Bytes of such a path; the system's."""
_BACKLOG = 64


def bind_file(path: Path) -> socket.socket:
    """A listening socket at a path, made with mode 0600; what a server that was killed left there is replaced.

    Raises:
        UsageError: the path is too long, or something else than a socket of ours is there.
        TailorbirdError: a server listens there, or it cannot be made.
    """
    if len(os.fsencode(path)) > LONGEST:
        raise UsageError(f"no socket at {path}", got=f"{len(os.fsencode(path))} bytes", expected=f"at most {LONGEST}")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        os.fchmod(bound.fileno(), 0o600)  # Linux makes the file with the socket's own mode: it is never open to others
        bound.bind(str(path))
        path.chmod(0o600)  # elsewhere
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise TailorbirdError(f"cannot listen on unix:{path}", got=reason(error)) from None
    except BaseException:
        bound.close()
        raise
    return bound


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
        raise UsageError(f"no socket at {path}", got="something else is there", expected="a free path")
    if _is_alive(path):
        raise TailorbirdError(f"cannot listen on unix:{path}", got="another server listens there")
    path.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:  # a full backlog, too: somebody is there
            return True
        return True
