"""The entry point: run a command, turn errors into messages and exit codes.

Exit codes: 0 done, 1 the thing failed (gate, build), 2 bad usage or input, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import tailorbird
from tailorbird.domain.errors import NoEngineError, TailorbirdError


def main() -> NoReturn:
    """Run the command line in ``sys.argv`` and exit."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run one command; returns its exit code."""
    if words == ["--version"]:  # needs nothing that takes time to load
        print(tailorbird.__version__)
        return 0

    from cyclopts import CycloptsError

    from tailorbird.cli.app import app_for

    as_json = "--json" in words
    try:
        code = app_for(words)(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _usage(str(error))
    except TailorbirdError as error:
        return _failed(error, as_json)
    except KeyboardInterrupt:
        print("interrupted; nothing was published", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    return code if isinstance(code, int) else 0


def _usage(message: str) -> int:
    print(f"error: {message}\nHint: tailorbird --help, or tailorbird COMMAND --help", file=sys.stderr)
    return 2


def _failed(error: TailorbirdError, as_json: bool) -> int:
    from tailorbird.cli import render

    if as_json:
        outcomes = {"table": error.outcomes} if isinstance(error, NoEngineError) else {}
        render.write_json(error.to_dict() | outcomes)
    elif isinstance(error, NoEngineError) and error.outcomes:
        render.err.print(render.outcomes_table(error.outcomes))
    print(f"error: {error.message}", file=sys.stderr)
    return error.exit_code
