"""The gate: the exact engine, at every place it will serve, against the FP32 source. Fails closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec
import numpy as np

from tailorbird.builder.cases.places import Place
from tailorbird.builder.gate.fidelity import at_least, compare, winners
from tailorbird.builder.gate.rows import Rows, Run, row_checks
from tailorbird.builder.gate.scoring import Answers, metric_check, reference_score
from tailorbird.domain.budget import Budget, Check, GateReport
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import StepError
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Tensors

ROW_SETS = 4
"""Sets of the user's data at each place whose rows are moved about; synthetic ones all are."""

_FLOATS = frozenset({"fp64", "fp32", "fp16", "bf16", "int8", "fp8"})
_BELOW_FP32 = frozenset({"fp16", "bf16"})
"""What an engine asked for FP32 must not run. Not INT8: truth values and pictures are bytes in the source, too."""


class Case(msgspec.Struct, frozen=True):
    """Inputs at one place, and what the source answers to them; all are ``.npz`` files."""

    place: Place
    inputs: str
    outputs: str
    real: bool
    """Whether the inputs are the user's data."""
    labels: str = ""
    """One array ``labels`` of the first rows, those that are scored; empty where there are none."""


class Trial(msgspec.Struct, frozen=True):
    """A loaded case."""

    case: Case
    inputs: dict[str, Array]
    references: dict[str, Array]
    labels: Array | None = None

    @property
    def where(self) -> str:
        """The place, for people: its edge and the shape of the first input."""
        place = self.case.place
        return f"{place.edge} {'x'.join(map(str, next(iter(place.shapes.values()), ())))}"


def judge(run: Run, trials: Iterable[Trial], budget: Budget, precision: Precision,  # noqa: PLR0913, PLR0917
          executed: dict[str, str], min_rows: int | None, metric: str = "") -> GateReport:  # fmt: skip
    """Every check of one engine.

    Trials are taken one after another and let go, so that a generator of them needs the memory of one; only what a
    metric is taken of is kept.

    Args:
        run: runs the engine. What it raises is a failed check.
        trials: at least one case for every place of the profile.
        budget: the allowed loss.
        precision: what the candidate asked for.
        executed: precision of each layer, from the runtime.
        min_rows: the fewest rows the engine takes, or None when the model has no batch dim.
        metric: what scores labelled rows; empty where there are none, and fidelity decides alone.
    """
    court = _Court(run, budget, Rows(0, min_rows, precision.consistency_db), metric)
    for trial in trials:
        court.hear(trial)
    if not court.heard:
        return GateReport(())
    own = {"fp16"} if court.halves else set()
    return GateReport((executed_check(precision, executed, own), *court.checks()))


def reference_scores(metric: str, trials: Iterable[Trial], min_rows: int | None) -> dict[str, float]:
    """What FP32 itself scores at each place with labels, by edge: a metric that fails here is no engine's fault.

    Raises:
        UsageError, InputError: the metric cannot be taken of the source's own outputs.
    """
    labelled = (trial for trial in trials if trial.labels is not None)
    return {  # trials come place by place, so that those of one place are in memory at once
        edge: reference_score(metric, [_answers(trial, trial.references, min_rows) for trial in group])
        for edge, group in groupby(labelled, key=lambda trial: trial.case.place.edge)
    }


def executed_check(asked: Precision, executed: dict[str, str], own: Iterable[str] = ()) -> Check:
    """Asked for a lower precision and running none of it, or the other way round, is a failure.

    Args:
        asked: what the candidate asked for.
        executed: precision of each layer, from the runtime.
        own: precisions below FP32 that are the source's own.
    """
    counts = Counter(kind for kind in executed.values() if kind in _FLOATS)
    whole = f"{len(executed)} layers, none of them float" if executed else "nothing reported"
    text = " ".join(f"{kind} x{count}" for kind, count in counts.most_common()) or whole
    if asked is Precision.FP32:
        held = bool(executed) and not counts.keys() & (_BELOW_FP32 - set(own))
    else:
        held = counts[asked] > 0
    return Check("executed precision", held, "all layers", text, asked.value)


class _EngineRaised(Exception):
    """Carries what an engine raised past whatever else may go wrong around it."""


class _Court:
    """Hears the trials of one engine, one after another, and holds what is judged over several of them."""

    def __init__(self, run: Run, budget: Budget, rows: Rows, metric: str) -> None:
        self._engine = run
        self._budget = budget
        self._rows = rows
        self._metric = metric
        self._single: list[Check] = []
        self._comparable: Counter[str] = Counter()
        self._winners: dict[tuple[str, str, bool], tuple[int, int]] = {}
        self._answers: dict[str, list[Answers]] = {}
        self._moved: Counter[str] = Counter()
        self._unscorable: set[str] = set()
        self.heard = 0
        self.halves = False
        """Whether the source itself answers in FP16."""

    def hear(self, trial: Trial) -> None:
        """Run the engine on one trial and take down what is found."""
        self.heard += 1
        for name, reference in trial.references.items():
            self._comparable[name] += _comparable(reference)
            self.halves |= reference.dtype == np.float16
        if trial.case.real:
            self._answers.setdefault(trial.where, [])
        try:
            outputs = self._run(trial.inputs)
            self._compare(trial, outputs)
            if self._moves_rows(trial):
                rows = msgspec.structs.replace(self._rows, count=trial.case.place.rows)
                self._single += row_checks(self._run, trial.inputs, outputs, rows, trial.where)
        except _EngineRaised as raised:
            self._unscorable.add(trial.where)
            self._single.append(Check("engine runs", False, trial.where, str(raised), "outputs"))

    def checks(self) -> Iterator[Check]:
        """Everything found, each rule once for each place and output, as its worst case."""
        for name, count in self._comparable.items():
            yield Check("elements to compare", count > 0, f"all places, {name}", float(count), 1.0)
        yield from self._scores()
        yield from _worst_of_each(self._single)
        for (where, name, judged), (equal, rows) in self._winners.items():
            yield at_least("top1", f"{where}, {name}", equal / rows, self._budget.top1, judged)

    def _run(self, tensors: Tensors) -> dict[str, Array]:
        try:
            return self._engine(tensors)
        except (StepError, MemoryError):  # the process failed, not the engine's answer
            raise
        except Exception as error:
            raise _EngineRaised(f"{type(error).__name__}: {' '.join(str(error).split())}") from error

    def _compare(self, trial: Trial, outputs: dict[str, Array]) -> None:
        labelled = bool(self._metric) and trial.labels is not None
        judged = not labelled or self._budget.fidelity
        found = list(compare(trial.references, outputs, self._budget, trial.where, judged))
        self._single += found
        if trial.case.real:
            for name, equal, rows in winners(trial.references, outputs):
                key = (trial.where, name, judged)
                known = self._winners.get(key, (0, 0))
                self._winners[key] = (known[0] + equal, known[1] + rows)
        if not labelled:
            return
        if all(check.passed for check in found if check.rule in _FORM):
            self._answers.setdefault(trial.where, []).append(_answers(trial, outputs, self._rows.fewest))
        else:
            self._unscorable.add(trial.where)

    def _moves_rows(self, trial: Trial) -> bool:
        self._moved[trial.where] += trial.case.real
        return not trial.case.real or self._moved[trial.where] <= ROW_SETS

    def _scores(self) -> Iterator[Check]:
        """A score for every place with data. None where a failed check says already why there is nothing to score."""
        if not self._metric:
            return
        for where, answers in (self._answers or {"all places": []}).items():
            if where not in self._unscorable:
                yield metric_check(self._metric, answers, self._budget, where)


_FORM = frozenset({"output", "dtype and shape", "NaN or Inf"})
"""Rules without which there is nothing to score."""


def _answers(trial: Trial, outputs: Tensors, min_rows: int | None) -> Answers:
    """What the labels are of, copied: a runtime may use its buffers again."""
    assert trial.labels is not None
    rows = len(trial.labels) if min_rows is None else trial.case.place.rows
    return Answers(trial.references, {name: np.array(array) for name, array in outputs.items()}, trial.labels, rows)


def _comparable(reference: Array) -> int:
    return int(np.isfinite(reference).sum()) if reference.dtype.kind == "f" else reference.size


def _worst_of_each(checks: Sequence[Check]) -> list[Check]:
    """One check for each rule, place, output and limit: a broken one before one that held, then the worse number."""
    worst: dict[tuple[str, str, float | str], Check] = {}
    for check in checks:
        key = (check.rule, check.where, check.limit)
        worst[key] = check if key not in worst or _is_worse(check, worst[key]) else worst[key]
    return list(worst.values())


def _is_worse(check: Check, than: Check) -> bool:
    if check.passed != than.passed:
        return than.passed
    if not isinstance(check.measured, float) or not isinstance(than.measured, float):
        return False
    return check.measured > than.measured if check.rule == "NaN or Inf" else check.measured < than.measured
