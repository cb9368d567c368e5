"""Forms: what a request's tensors look like, checked once for each look: how many rows, and in which bucket."""

from __future__ import annotations

from math import prod

import msgspec

from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Shape, Signature, Tensors
from tailorbird.serving.batching.brief import BRIEF_SECONDS, Brief
from tailorbird.serving.batching.costs import Costs, CostTable
from tailorbird.serving.batching.waiting import Arrivals

REMEMBERED = 4096
"""Forms kept; clients choose the shapes, so that there must be an end."""

QUIET = 1.0
"""Seconds; longer gaps between requests all mean that nobody comes."""


class Rules(msgspec.Struct, frozen=True):
    """What may be done with the rows of one engine's requests."""

    joins: bool
    """Whether rows are independent of one another by the signature: a batch dim leads every input and output."""
    fewest: int
    """Rows that a run has at least; fewer are padded with copies of a real row."""
    most: int
    """Rows that a run has at most."""
    batch_dim: str | None

    @classmethod
    def of(cls, signature: Signature, profile: Profile) -> Rules:
        """The rules for an engine; where rows may not be joined, a request is what it is, and runs alone.

        That a row's answer does not depend on its neighbours, whoever they are, is the gate's proof. It
        holds between the profile's fewest and most rows, so a batch is padded to the fewest. An engine for
        one static shape is the case where both are the same. Other dims are never padded: nothing proves that.
        """
        dim = signature.batch_dim
        if dim is None:
            return cls(joins=False, fewest=1, most=1, batch_dim=None)
        fewest, most = (signature.bind(edge)[dim] for edge in (profile.min, profile.max))
        joins = all(spec.dims and spec.dims[0] == dim for spec in signature.outputs)
        return cls(joins=joins, fewest=fewest, most=most, batch_dim=dim)

    def widened(self, profile: Profile, rows: int) -> Profile:
        """The profile of requests, from that of runs: from 1 to ``rows`` rows, where rows are joined and split."""
        if not self.joins:
            return profile
        low, high = ({name: (count, *shape[1:]) for name, shape in edge.items()}
                     for edge, count in ((profile.min, 1), (profile.max, max(rows, self.most))))  # fmt: skip
        return Profile(min=low, opt=profile.opt, max=high)


class Bucket:
    """Requests that may be joined: equal dtypes, and equal dims but for the rows.

    Args:
        costs: what its runs cost.
        most: rows of a run.
        bound: seconds up to which a run is brief.
    """

    __slots__ = ("arrivals", "brief", "costs")

    def __init__(self, costs: Costs, most: int = 1, bound: float = 0.0) -> None:
        self.costs = costs
        self.brief = Brief(costs, most, bound)
        self.arrivals = Arrivals(QUIET)


class Form(msgspec.Struct, frozen=True, gc=False):
    """An accepted look of a request."""

    bucket: Bucket
    rows: int


class Forms:
    """Checks requests and sorts them into buckets.

    Args:
        signature: what the tensors must fit.
        profile: the shapes that runs may have.
        rules: what may be done with rows.
        table: what runs cost.
        most_rows: of one request.
        instances: executors that share the event loop.
    """

    def __init__(
        self,
        signature: Signature,
        profile: Profile,
        rules: Rules,
        table: CostTable,
        most_rows: int,
        instances: int = 1,
    ) -> None:
        self._rules = rules
        self._brief = BRIEF_SECONDS / instances
        self._signature = signature
        self._profile = rules.widened(profile, most_rows)
        self._table = table
        self._forms: dict[tuple[object, ...], Form] = {}
        self._buckets: dict[tuple[Shape, ...], Bucket] = {}

    def of(self, inputs: Tensors) -> Form:
        """The request's form.

        Raises:
            InputError: names, dtypes or shapes do not fit, in the words of the session itself.
        """
        look = tuple([(name, array.__class__, getattr(array, "dtype", None), getattr(array, "shape", None))
                      for name, array in inputs.items()])  # fmt: skip
        try:
            return self._forms[look]
        except (KeyError, TypeError):  # a TypeError: what pretends to be a shape cannot be hashed
            return self._new(look, inputs)

    def _new(self, look: tuple[object, ...], inputs: Tensors) -> Form:
        self._signature.check(inputs)
        shapes = {name: array.shape for name, array in inputs.items()}
        self._profile.check(shapes)
        rows = self._signature.bind(shapes)[self._rules.batch_dim] if self._rules.batch_dim else 1
        if len(self._forms) >= REMEMBERED:
            self._forms.clear()
            self._buckets.clear()
        form = self._forms[look] = Form(self._bucket(shapes, rows), rows)
        return form

    def _bucket(self, shapes: dict[str, Shape], rows: int) -> Bucket:
        skipped = 1 if self._rules.batch_dim else 0
        key = tuple(shapes[spec.name][skipped:] for spec in self._signature.inputs)
        bucket = self._buckets.get(key)
        if bucket is None:
            elements = sum(map(prod, shapes.values())) / rows
            bucket = self._buckets[key] = Bucket(Costs(self._table, elements), self._rules.most, self._brief)
        return bucket
