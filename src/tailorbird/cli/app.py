"""The command line as a table. A command's module is loaded when that command is run: a server starts sooner."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from cyclopts import App

import tailorbird

_HERE = "tailorbird.cli"
_COMMANDS = {
    "inspect": "commands:inspect",
    "build": "commands:build",
    "qualify": "commands:qualify",
    "rebuild": "commands:rebuild",
    "run": "commands:run",
    "demo": "commands:demo",
    "bom": "commands:bom",
    "doctor": "commands:doctor",
    "bench": "bench:bench",
    "compare": "compare:compare",
    "serve": "serve:serve",
    "sign": "keys:sign",
    "export-signature": "keys:export_signature",
    "repo": "repo:app",
    "cache": "cache:app",
    "key": "keys:app",
    "token": "tokens:app",
    "admin": "admin:app",
}


def app_for(words: Sequence[str]) -> App:
    """The command line that is to read these words.

    Args:
        words: as typed. Where they begin with no command, help or a wrong one's neighbours are shown, and every
            module is loaded for its command's first sentence.
    """
    known = bool(words) and words[0] in _COMMANDS
    app = App(name="tailorbird", help="From a trained model to the fastest engine that is still right, served.",
              version=tailorbird.__version__, suppress_keyboard_interrupt=False)  # fmt: skip
    for name, path in _COMMANDS.items():
        app.command(f"{_HERE}.{path}" if known else _loaded(path), name=name)
    return app


def _loaded(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(f"{_HERE}.{module}"), attribute)
