"""Pruning: candidates whose nearest relative already showed that they are not worth a heat. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tailorbird.builder.quantise.methods import method
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision


def reason_to_skip(candidate: Candidate, outcomes: Iterable[Outcome]) -> str:
    """Why a candidate needs no heat, in a sentence, or an empty text.

    Relatives are tried before it, because the order of promise puts more threads and bolder precisions first:

    - the same engine on fewer threads computes the same numbers and is rarely more than the look's margin faster;
    - float32 beside INT8 layers is slower than a lower precision that passed in its place;
    - a method of the same kernels as one that was far behind is far behind, too;
    - weights in INT8 that are computed in float cannot catch up when float was far behind, and INT8 passed.
    """
    known = tuple(outcomes)
    for other in known:
        if _on_more_threads(candidate, other.candidate) and _same_fate(candidate, other):
            return f"on {other.candidate.threads} threads it was {other.status}"
        if _with_bolder_rest(candidate, other.candidate) and other.status is Status.SLOWER:
            return f"with {_rest(other.candidate)} for the rest it passed"
        if _of_kin(candidate, other.candidate) and other.status is Status.STOPPED:
            return f"much like {other.candidate.name}, which was stopped early"
        if _computed_as(candidate, other.candidate) and other.status is Status.STOPPED and _int8_passed(other, known):
            return f"computed as {other.candidate.name}, which was stopped early, and INT8 passed"
    return ""


def _same_fate(candidate: Candidate, other: Outcome) -> bool:
    """Whether what became of it on more threads says all; how quick several side by side are, it does not say."""
    slow = other.status in (Status.STOPPED, Status.NOT_TRIED)
    return other.status is not Status.SLOWER and not (slow and candidate.instances != other.candidate.instances)


def _on_more_threads(candidate: Candidate, other: Candidate) -> bool:
    same = msgspec.structs.replace(other, threads=candidate.threads, instances=candidate.instances) == candidate
    return same and other.threads > candidate.threads


def _with_bolder_rest(candidate: Candidate, other: Candidate) -> bool:
    mine, theirs = candidate.quantisation, other.quantisation
    if mine is None or theirs is None or _rest(other).rank <= mine.rest.rank:
        return False
    like = msgspec.structs.replace(theirs, rest=mine.rest)
    return msgspec.structs.replace(other, quantisation=like, precision=candidate.precision) == candidate


def _of_kin(candidate: Candidate, other: Candidate) -> bool:
    mine, theirs = candidate.quantisation, other.quantisation
    if mine is None or theirs is None or method(mine.method).kin != theirs.method:
        return False
    return msgspec.structs.replace(other, quantisation=mine) == candidate


def _computed_as(candidate: Candidate, other: Candidate) -> bool:
    """Whether the candidate has its weights quantised, and is otherwise the other, which has nothing quantised."""
    weights_only = candidate.quantisation is not None and candidate.precision is not Precision.INT8
    return weights_only and msgspec.structs.replace(candidate, quantisation=None) == other


def _int8_passed(like: Outcome, outcomes: Iterable[Outcome]) -> bool:
    return any(
        other.status is Status.SLOWER
        and other.candidate.precision is Precision.INT8
        and other.candidate.target == like.candidate.target
        for other in outcomes
    )


def _rest(candidate: Candidate) -> Precision:
    return candidate.quantisation.rest if candidate.quantisation else candidate.precision
