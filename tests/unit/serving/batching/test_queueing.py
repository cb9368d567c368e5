"""The queue: levels first, then age; batches of one bucket; nobody starves; sums that stay right."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tailorbird.serving.batching.queueing import LAST, Piece, Queue, Reason


def price(bucket, rows, count):
    return {"a": 1.0, "b": 10.0}.get(bucket, 100.0) * rows + count


def queue(*pieces, in_order=False):
    found = Queue(price, in_order=in_order)
    for order, (bucket, rows, *rank) in enumerate(pieces):
        found.add(Piece(bucket, rows, rank[0] if rank else LAST, order))
    return found


def taken(found, most):
    batch, reason = found.take(most)
    return [piece.order for piece in batch], reason


def test_all_of_one_bucket_go_together():
    found = queue(("a", 1), ("a", 2), ("a", 1))
    assert taken(found, 8) == ([0, 1, 2], Reason.IDLE)
    assert len(found) == 0


def test_a_batch_is_full_when_no_row_more_fits():
    found = queue(("a", 2), ("a", 2), ("a", 1))
    assert taken(found, 4) == ([0, 1], Reason.FULL)
    assert taken(found, 4) == ([2], Reason.IDLE)


def test_a_request_that_does_not_fit_is_not_overtaken():
    found = queue(("a", 2), ("a", 3), ("a", 1))
    assert taken(found, 4) == ([0], Reason.FULL)
    assert taken(found, 4) == ([1, 2], Reason.FULL)


def test_the_oldest_bucket_goes_first():
    found = queue(("a", 1), ("b", 1), ("a", 1), ("b", 1))
    assert taken(found, 8) == ([0, 2], Reason.BUCKET)
    assert taken(found, 8) == ([1, 3], Reason.IDLE)


def test_a_rare_bucket_is_not_starved_by_a_busy_one():
    found = queue(*[("a", 1)] * 3, ("b", 1), *[("a", 1)] * 20)
    assert [taken(found, 2)[0] for _ in range(3)] == [[0, 1], [2, 4], [3]]


def test_levels_come_before_age_and_zero_is_last():
    found = queue(("a", 1), ("b", 1, 2), ("c", 1, 1))
    assert [taken(found, 8)[0] for _ in range(3)] == [[2], [1], [0]]


def test_room_left_is_given_to_later_levels_of_the_bucket():
    found = queue(("a", 1), ("a", 1, 2), ("b", 1, 2), ("a", 1, 1))
    assert taken(found, 3) == ([3, 1, 0], Reason.FULL)


def test_in_order_a_batch_ends_at_another_bucket():
    found = queue(("a", 1), ("a", 1), ("b", 1), ("a", 1), in_order=True)
    assert taken(found, 8) == ([0, 1], Reason.ORDERING)
    assert taken(found, 8) == ([2], Reason.ORDERING)
    assert taken(found, 8) == ([3], Reason.IDLE)


def test_what_is_alone_joins_nobody():
    found = queue(("a", 1), ("a", 1), ("a", 1))
    list(found)[1].alone = True
    assert [taken(found, 8) for _ in range(3)] == [([0], Reason.ALONE), ([1], Reason.ALONE), ([2], Reason.IDLE)]


def test_what_is_put_back_goes_first_in_its_own_order():
    found = queue(("a", 1), ("a", 1), ("a", 1), ("b", 1))
    batch, _ = found.take(2)
    found.put_back(batch)
    assert [piece.order for piece in found] == [0, 1, 2, 3]
    assert taken(found, 8)[0] == [0, 1, 2]


def test_removing_is_for_those_that_wait():
    found = queue(("a", 1), ("a", 1))
    first, second = found
    assert found.remove(first)
    assert not found.remove(first)
    assert taken(found, 8)[0] == [second.order]
    assert not found.remove(second)


def test_joinable_counts_rows_only_where_all_could_be_one_batch():
    assert queue(("a", 1), ("a", 2, 1)).joinable() == 3
    assert queue(("a", 1), ("b", 2)).joinable() is None
    assert queue(("a", 1), ("b", 2, 1)).joinable() is None


def test_what_goes_before_a_newcomer():
    found = queue(("a", 2), ("b", 1), ("a", 1), ("c", 1, 1))
    assert found.ahead(LAST, "a") == (101.0 + 11.0, 5.0, 3)
    assert found.ahead(LAST, "z") == (101.0 + 11.0 + 5.0, 0.0, 0)
    assert found.ahead(1, "c") == (0.0, 101.0, 1)
    assert found.ahead(2, "a") == (101.0, 0.0, 0)


BUCKETS = st.sampled_from("abc")


class Waiting(RuleBasedStateMachine):
    """Against a plain list, searched anew each time."""

    def __init__(self):
        super().__init__()
        self.queue = Queue(price)
        self.pieces = []
        self.order = 0

    @rule(bucket=BUCKETS, rows=st.integers(1, 5), rank=st.sampled_from([1, 2, LAST]))
    def add(self, bucket, rows, rank):
        piece = Piece(bucket, rows, rank, self.order)
        self.order += 1
        self.queue.add(piece)
        self.pieces.append(piece)

    @precondition(lambda self: self.pieces)
    @rule(choice=st.integers(0, 100))
    def remove(self, choice):
        assert self.queue.remove(self.pieces.pop(choice % len(self.pieces)))

    @precondition(lambda self: self.pieces)
    @rule(most=st.integers(1, 8), back=st.booleans())
    def take(self, most, back):
        first = min(self.pieces, key=lambda piece: (piece.rank, piece.order))
        same = sorted((p for p in self.pieces if p.bucket == first.bucket), key=lambda p: (p.rank, p.order))
        expected, rows = [first], first.rows
        for piece in same[1:]:
            if rows + piece.rows > most:
                break
            expected.append(piece)
            rows += piece.rows
        batch, reason = self.queue.take(most)
        assert batch == expected
        left_behind = len(expected) < len(same)
        assert (reason is Reason.FULL) == (left_behind or rows >= most)
        oldest = sorted(self.pieces, key=lambda piece: (piece.rank, piece.order))[: len(batch)]
        if back and oldest == batch and batch[-1].rank == first.rank:  # in front of all is then their own place
            self.queue.put_back(batch)
        else:
            self.pieces = [piece for piece in self.pieces if piece not in batch]

    @invariant()
    def sums_are_right(self):
        assert len(self.queue) == len(self.pieces)
        assert set(self.queue) == set(self.pieces)
        for rank in (1, 2, LAST):
            level = [piece for piece in self.pieces if piece.rank == rank]
            lanes = {bucket: [p for p in level if p.bucket == bucket] for bucket in "abc"}
            sums = {bucket: price(bucket, sum(p.rows for p in lane), len(lane)) for bucket, lane in lanes.items()}
            earlier, own, rows = self.queue.ahead(rank, "a")
            before = [piece for piece in self.pieces if piece.rank < rank]
            assert rows == sum(piece.rows for piece in lanes["a"])
            assert own == sums["a"]
            if not before:
                assert abs(earlier - sums["b"] - sums["c"]) < 1e-6


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
