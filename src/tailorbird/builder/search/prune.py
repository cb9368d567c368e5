"""Pruning: candidates whose nearest relative already showed that they are not worth a heat. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tailorbird.domain.candidate import Candidate
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision


def reason_to_skip(candidate: Candidate, outcomes: Iterable[Outcome]) -> str:
    """Why a candidate needs no heat, in a sentence, or an empty text.

    Relatives are tried before it, because the order of promise puts more threads and bolder precisions first:
    the same engine on fewer threads computes the same numbers and is rarely more than the look's margin faster;
    float32 beside INT8 layers is slower than a lower precision that passed in its place.
    """
    for other in outcomes:
        if _on_more_threads(candidate, other.candidate) and other.status is not Status.SLOWER:
            return f"on {other.candidate.threads} threads it was {other.status}"
        if _with_bolder_rest(candidate, other.candidate) and other.status is Status.SLOWER:
            return f"with {_rest(other.candidate)} for the rest it passed"
    return ""


def _on_more_threads(candidate: Candidate, other: Candidate) -> bool:
    same = msgspec.structs.replace(other, threads=candidate.threads, instances=candidate.instances) == candidate
    return same and other.threads > candidate.threads


def _with_bolder_rest(candidate: Candidate, other: Candidate) -> bool:
    mine, theirs = candidate.quantisation, other.quantisation
    if mine is None or theirs is None or _rest(other).rank <= mine.rest.rank:
        return False
    like = msgspec.structs.replace(theirs, rest=mine.rest)
    return msgspec.structs.replace(other, quantisation=like, precision=candidate.precision) == candidate


def _rest(candidate: Candidate) -> Precision:
    return candidate.quantisation.rest if candidate.quantisation else candidate.precision
