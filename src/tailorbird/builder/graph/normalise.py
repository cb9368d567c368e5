"""Normalise: one ONNX form that every backend takes, reached by passes that declare and prove themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from tailorbird.builder.graph import passes
from tailorbird.domain.errors import ModelError, TailorbirdError

Transform = Callable[[onnx.ModelProto], onnx.ModelProto]


@dataclass(frozen=True)
class Pass:
    """One transformation. ``version`` is raised whenever its output can change: it enters provenance."""

    name: str
    version: int
    needed: Callable[[onnx.ModelProto], bool]
    apply: Transform
    optional: bool = False
    """An optional pass that fails is left out and noted; a failing one that is not ends the build."""
    rewrites: bool = False
    """Whether it replaces operators by others, so that it is undone when the proof fails."""


def _always(_: onnx.ModelProto) -> bool:
    return True


_LIFT = Pass("lift-constants", 2, passes.has_constant_nodes, passes.lift_constants)

PASSES = (
    Pass("unique-names", 2, passes.has_clashing_names, passes.make_names_unique),
    _LIFT,
    Pass("upgrade-opset", 2, passes.has_old_opset, passes.upgrade_opset, optional=True, rewrites=True),
    _LIFT,  # again: the upgrade turns attributes into Constant nodes
    Pass("drop-unused", 2, _always, passes.drop_unused),
    Pass("name-nodes", 1, passes.has_unnamed_nodes, passes.name_nodes),
    Pass("infer-shapes", 1, _always, passes.infer_shapes, optional=True),
)


@dataclass(frozen=True)
class Normalised:
    """The model after the passes, which of them ran (``name@version``), and what was left out and why."""

    model: onnx.ModelProto
    applied: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def rewrites(self) -> tuple[str, ...]:
        """Names of the passes that ran and replaced operators."""
        return tuple(step.name for step in PASSES if step.rewrites and f"{step.name}@{step.version}" in self.applied)


def normalise(model: onnx.ModelProto, skip: frozenset[str] = frozenset()) -> Normalised:
    """Run every pass that is needed, in order, checking the graph after each.

    Args:
        model: a whole model, weights inside.
        skip: names of passes to leave out, because an earlier proof against the reference failed.

    Raises:
        ModelError: a pass that is not optional failed; the message names it and those that ran before.
    """
    applied: list[str] = []
    notes: list[str] = []
    for step in PASSES:
        if step.name in skip or not step.needed(model):
            continue
        try:
            model = _ensured(step.apply(model))
            applied.append(f"{step.name}@{step.version}")
        except Exception as error:  # the checker and converters raise classes of their own
            if not step.optional:
                raise _pass_error(step, applied, error) from error
            notes.append(f"{step.name} left out: {_brief(error)}")
    return Normalised(model, tuple(applied), tuple(notes))


def _ensured(model: onnx.ModelProto) -> onnx.ModelProto:
    """What every pass promises: values defined once, before use, and at least one output."""
    if passes.has_clashing_names(model):
        raise ModelError("two values share one name")
    if not model.graph.output:
        raise ModelError("the graph lost its outputs")
    passes.check_order(model)
    return model


def _pass_error(step: Pass, applied: list[str], error: Exception) -> TailorbirdError:
    ran = ", ".join(applied) or "no pass"
    return ModelError(f"the model cannot be normalised: pass '{step.name}' failed after {ran}", got=_brief(error))


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + " …"
