"""What the child processes of ``test_isolated`` run: a builder on a device, both stand-ins."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[4]))

from tailorbird.backends.tensorrt import TensorRtBackend
from tailorbird.domain.candidate import Candidate
from tests.stand_ins.cuda_runtime import CudaRuntime
from tests.stand_ins.installed import tensorrt_on


class Build(msgspec.Struct):
    model: str
    candidate: Candidate
    folder: str


class Done(msgspec.Struct):
    pass


def build_and_crash(given: Build) -> Done:
    return _build(given, lambda: os.kill(os.getpid(), signal.SIGSEGV))


def build_for_ever(given: Build) -> Done:
    return _build(given, lambda: time.sleep(600))


def _build(given: Build, fate: Callable[[], None]) -> Done:
    with tensorrt_on(CudaRuntime()) as trt:
        trt.crash = fate
        TensorRtBackend().compile(Path(given.model), given.candidate, Path(given.folder))
    return Done()
