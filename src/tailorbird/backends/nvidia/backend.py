"""What both flavours are as backends: they build, check and open plans; a subclass says where they differ."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import ClassVar

from tailorbird.backends import cuda
from tailorbird.backends.base import MESSAGES, Backend, Capabilities, Session, copy_model
from tailorbird.backends.nvidia.build import Order, build
from tailorbird.backends.nvidia.flavour import Flavour, version
from tailorbird.backends.nvidia.inspection import planned
from tailorbird.backends.nvidia.loading import WEIGHTS
from tailorbird.backends.nvidia.messages import Heard
from tailorbird.backends.nvidia.options import SETTINGS, check_options
from tailorbird.backends.nvidia.plan import PLAN, PlanRecord, check_device, check_gated, check_plan, write_record
from tailorbird.backends.nvidia.session import NvidiaSession
from tailorbird.backends.nvidia.targets import architectures_of, check_target, floats_of, methods_of
from tailorbird.backends.nvidia.timing import KeptFile, TimingCache
from tailorbird.domain.candidate import Candidate, Form
from tailorbird.domain.errors import BackendUnavailable
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Signature
from tailorbird.domain.target import Target


class NvidiaBackend(Backend):
    """One flavour of TensorRT on this machine's device, or for one that is not here."""

    flavour: ClassVar[Flavour]
    format: ClassVar[EngineFormat]
    portable: ClassVar[str]
    """What its engines move between."""
    split: ClassVar[str]
    """Profiles that an engine gets where its candidate does not say."""

    def _version(self) -> str:
        return version(self.flavour)

    def _ready(self) -> None:
        arch, known = cuda.device().arch, self.flavour.architectures
        if known and arch not in known:
            raise BackendUnavailable(f"{self.flavour.title} has no kernels for this device", got=arch,
                                     expected=", ".join(known), hint="use another runtime")  # fmt: skip

    def _capabilities(self) -> Capabilities:
        return self._capabilities_for(Target(self.name, "cuda", cuda.device().arch))

    def _capabilities_for(self, target: Target) -> Capabilities:
        check_target(self.flavour, target)
        return self._able(target, self._arch_here() in architectures_of(target.arch))

    def _able(self, target: Target, here: bool) -> Capabilities:
        """What it can do for a target; ``here`` is whether engines of it run on this machine."""
        return Capabilities(
            target=target,
            precisions=floats_of(target.arch),
            format=self.format,
            form=Form.CAST,
            takes_threads=False,
            checks_arch=True,
            needs_device_to_build=not self.flavour.ahead_of_time,
            runs_here=here,
            builds_here=self._builds(here),
            portable=self.portable,
            quantised=methods_of(target.arch),
            options={name: SETTINGS[name].values for name in sorted(self.flavour.options)},
            variants_of={Precision.FP32: ({}, {"tf32": True})},
        )

    @abc.abstractmethod
    def _builds(self, here: bool) -> bool:
        """Whether engines can be built on this machine; ``here`` as of :meth:`_able`."""

    def _compile(self, model: Path, candidate: Candidate, workdir: Path) -> None:
        check_options(self.flavour, candidate.options)
        check_target(self.flavour, candidate.target)
        self._check_refit(candidate)
        heard = Heard(workdir / MESSAGES)
        split = str(candidate.options.get("profiles", self.split))
        plan = build(Order(self.flavour, model, candidate, split, self._timing(candidate)), heard)
        (workdir / PLAN).write_bytes(plan)
        if candidate.options.get("strip_weights"):
            copy_model(model, workdir, WEIGHTS)
        counts = planned(heard.layers)
        heard.add("info", "layers as planned: " + " ".join(f"{name} x{count}" for name, count in counts.items()))
        write_record(self._record(candidate, len(plan), counts), workdir)

    def _check(self, engine: Path, candidate: Candidate) -> None:
        record = check_plan(engine, self.flavour, version(self.flavour))
        check_device(record, cuda.device())
        check_gated(record, cuda.device(), architectures_of(candidate.target.arch))

    def _open(self, engine: Path, candidate: Candidate, signature: Signature) -> Session:
        self._check(engine, candidate)
        return NvidiaSession(self.flavour, engine, candidate, signature)

    def _record(self, candidate: Candidate, size: int, counts: dict[str, int]) -> PlanRecord:
        return PlanRecord(
            runtime=self.name,
            version=version(self.flavour),
            architectures=architectures_of(candidate.target.arch),
            size=size,
            driver=0 if self.flavour.ahead_of_time else cuda.device().driver,
            version_compatible=bool(candidate.options.get("version_compatible", False)),
            planned=counts,
            hardware=str(candidate.options.get("hardware_compatibility", "none")),
        )

    def _check_refit(self, candidate: Candidate) -> None:
        """Ahead of time, kernels that take weights later are compiled on a device (seen in TensorRT-RTX 1.7)."""
        asked = [name for name in ("refit", "strip_weights") if candidate.options.get(name)]
        if asked and self.flavour.ahead_of_time and not self._arch_here():
            raise BackendUnavailable(f"{self.flavour.title} builds with '{asked[0]}' only where there is a device",
                                     hint="leave the option out, or build on the device")  # fmt: skip

    def _timing(self, candidate: Candidate) -> TimingCache | None:
        """None where tactics are not timed: ahead of time there is no device, and a cache would ask for one."""
        if self.flavour.ahead_of_time or not candidate.options.get("timing_cache", True):
            return None
        here = cuda.device()
        return TimingCache(KeptFile(self.name, version(self.flavour), here.arch, here.name, str(here.driver)))

    def _arch_here(self) -> str:
        """The device's architecture; empty where there is none, for whatever reason."""
        found = self.probe()
        return cuda.device().arch if found.available else ""
