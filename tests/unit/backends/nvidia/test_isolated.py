"""Builders that crash or never end, in a process of their own: an error, their last words, and the caller goes on."""

from pathlib import Path

import pytest

from tailorbird.backends.base import MESSAGES
from tailorbird.backends.isolate import Worker
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import StepCrashed, StepError, StepTimedOut
from tests.contract import models
from tests.unit.backends.nvidia.isolated_steps import Build, Done


@pytest.mark.parametrize(
    ("step", "seconds", "error", "message"),
    [
        ("build_and_crash", 60.0, StepCrashed, "step 'build_and_crash' crashed: got SIGSEGV"),
        (
            "build_for_ever",
            4.0,
            StepTimedOut,
            "step 'build_for_ever' took too long and was stopped: expected at most 4 s",
        ),
    ],
)
def test_the_caller_gets_an_error_and_the_builders_last_words(
    step: str, seconds: float, error: type[StepError], message: str, candidate: Candidate, folder: Path, tmp_path: Path
) -> None:
    order = Build(str(models.dense().write(tmp_path)), candidate, str(folder))
    with (
        Worker(Limits(seconds=seconds), search_path=(str(Path(__file__).parent),)) as worker,
        pytest.raises(error) as ended,
    ):
        worker.call(f"isolated_steps:{step}", order, Done)
    assert ended.value.message.startswith(message)
    assert (folder / MESSAGES).read_text() == "warning: about to crash\n"
