"""Building a plan: network, profiles, configuration, and what the builder gives back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.backends.nvidia.flavour import Flavour, vendor
from tailorbird.backends.nvidia.graph import fitted
from tailorbird.backends.nvidia.messages import Heard
from tailorbird.backends.nvidia.network import fix_shapes, network_of, open_inputs
from tailorbird.backends.nvidia.options import apply_options
from tailorbird.backends.nvidia.ranges import ranges_of
from tailorbird.backends.nvidia.targets import architectures_of
from tailorbird.backends.nvidia.timing import TimingCache
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.errors import BackendError
from tailorbird.domain.profile import Profile


class Order(msgspec.Struct, frozen=True):
    """What is to be built."""

    flavour: Flavour
    model: Path
    candidate: Candidate
    split: str
    """Which profiles, as :func:`ranges_of` takes it."""
    timing: TimingCache | None = None


def build(order: Order, heard: Heard) -> bytes:
    """The plan's bytes.

    Raises:
        BackendError: the parser or the builder refused, in their own words, which ``heard`` has, too.
    """
    trt = vendor(order.flavour)
    logger = heard.logger(trt)
    builder = trt.Builder(logger)
    ranges = ranges_of(order.candidate, order.split)
    network, parser = network_of(trt, builder, fitted(order.model, ranges), heard, logger)
    if order.candidate.shape_mode is ShapeMode.STATIC:
        fix_shapes(network, order.candidate.profile.opt)
    config = _config(trt, builder, order)
    _add_profiles(builder, config, ranges, open_inputs(network))
    cache = order.timing.attach(config) if order.timing else None
    plan = builder.build_serialized_network(network, config)
    del parser  # it owned weights until here
    if plan is None:
        raise heard.failure("the builder gave no engine", otherwise="no reason given")
    if order.timing and cache is not None:
        order.timing.keep(cache)
    return bytes(plan)


def _config(trt: Any, builder: Any, order: Order) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # executed precision is read from it
    apply_options(trt, config, order.candidate)
    if order.flavour.ahead_of_time:
        _name_architectures(trt, config, architectures_of(order.candidate.target.arch))
    return config


def _add_profiles(builder: Any, config: Any, ranges: Iterable[Profile], names: tuple[str, ...]) -> None:
    """One for each range; a network without open shapes needs none."""
    for one in ranges if names else ():
        profile = builder.create_optimization_profile()
        for name in names:
            profile.set_shape(name, one.min[name], one.opt[name], one.max[name])
        if config.add_optimization_profile(profile) < 0:
            raise BackendError("the builder refused the profile", got=one)


def _name_architectures(trt: Any, config: Any, names: tuple[str, ...]) -> None:
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        known = trt.ComputeCapability.__members__
        if name.upper() not in known:
            raise BackendError(
                f"this version builds nothing for {name}",
                expected=", ".join(name.lower() for name in known if name[-1].isdigit()),
            )
        if not config.set_compute_capability(known[name.upper()], index):
            raise BackendError(f"the builder refused {name}")
