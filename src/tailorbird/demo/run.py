"""The demo, as a table of contents: fetch, build, publish, serve, read, show."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tailorbird.api import Result, build
from tailorbird.builder.workdir import workdir
from tailorbird.demo.ctc import alphabet
from tailorbird.demo.models import DETECTOR, RAPIDOCR, RECOGNISER, Model
from tailorbird.demo.pages import pages
from tailorbird.demo.reader import Reader, Reading
from tailorbird.demo.server import served
from tailorbird.demo.show import write_show
from tailorbird.demo.watch import Watcher
from tailorbird.domain.config import BuildConfig

MODELS = (DETECTOR, RECOGNISER)


SECONDS = 60.0
"""Time budget of each build: somebody is watching."""


@dataclass(frozen=True)
class Demo:
    """What the demo came to."""

    results: tuple[tuple[Model, Result], ...]
    readings: tuple[Reading, ...]
    page: Path
    """The file to look at."""
    seconds: float

    @property
    def right(self) -> float:
        """The share of all pages' characters that were read, 0 to 1."""
        sizes = [sum(map(len, reading.page.lines)) for reading in self.readings]
        weighed = zip(self.readings, sizes, strict=True)
        return sum(reading.right * size for reading, size in weighed) / sum(sizes)


def run(output: Path, watcher: Watcher) -> Demo:
    """Take two trained models to a running server, and read three pages with it.

    Everything but the downloaded wheel and the file to look at is gone in the end, however it ends; what a
    ``kill -9`` leaves is swept by the next build or demo.

    Args:
        output: a folder for the file to look at, made if it is absent.
        watcher: told of every step.

    Raises:
        TailorbirdError: a model cannot be fetched, built or served.
    """
    start = time.monotonic()
    with _ended_in_order(), workdir() as folder:
        files = _fetched(folder, watcher)
        results = tuple((model, _built(model, files[model.name], folder, watcher)) for model in MODELS)
        readings = _read(folder, alphabet(files[RECOGNISER.name]), watcher)
        output.mkdir(parents=True, exist_ok=True)
        page = write_show(output / "demo.html", results, readings)
        return Demo(results, readings, page, time.monotonic() - start)


def _fetched(folder: Path, watcher: Watcher) -> dict[str, Path]:
    watcher.step(f"Two trained models, PP-OCRv6, out of the published wheel {RAPIDOCR.package} {RAPIDOCR.version}")
    files = {model.name: model.fetch(folder) for model in MODELS}
    for model in MODELS:
        size = files[model.name].stat().st_size / 1e6
        watcher.note(f"{model.name:<10}  {model.does}; {size:.1f} MB")
    return files


def _built(model: Model, file: Path, folder: Path, watcher: Watcher) -> Result:
    watcher.step(f"Build {model.name} for {model.shapes}, with real inputs, and publish what wins")
    inputs = str(model.write_inputs(folder))
    config = BuildConfig(opt_shapes=model.shapes, data=inputs, time_budget=SECONDS)
    with watcher.building() as observer:
        result = build(file, repository=folder / "repository", name=model.name, config=config, observers=[observer])
    watcher.built(model, result)
    return result


def _read(folder: Path, characters: list[str], watcher: Watcher) -> tuple[Reading, ...]:
    watcher.step("Serve the repository, and read three pages over HTTP with tritonclient")
    readings = []
    with served(folder / "repository", folder / "server.log") as url, Reader(url, characters) as reader:
        watcher.note(f"tailorbird serve REPOSITORY: ready on {url}")
        for page in pages():
            readings.append(reader.read(page))
            watcher.read(readings[-1])
    return tuple(readings)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Being told to end (SIGTERM, a closed terminal) unwinds like Ctrl-C, so that nothing is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
