"""Which rows form batch s: laws over topologies, epochs and remainders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemsdata.stream.mixture import Mixture, shares
from gemsdata.stream.order import Order
from gemsdata.stream.permutation import Permutation
from gemsdata.stream.world import World

SIZES = st.integers(1, 60)
GOLDEN_ORDER = [4, 5, 8, 0, 9, 6, 3, 7, 1, 2]
GOLDEN_WINDOWED = [1, 2, 0, 3, 7, 6, 4, 5, 9, 8]


def places(order: Order | Mixture, step: int, num_ranks: int) -> list[tuple[int, int, int]]:
    """(source, epoch, row id) of every slot of a global batch, ranks in turn."""
    found = []
    for rank in range(num_ranks):
        world = World(rank=rank, num_ranks=num_ranks)
        slots = [None] * len(world.rank_slice(order.global_batch))
        for group in order.row_groups(step, world):
            for slot, row_id in zip(np.arange(len(slots))[group.slots].tolist(), group.row_ids.tolist(), strict=True):
                assert slots[slot] is None, "two rows in one slot"
                slots[slot] = (group.source, group.epoch, row_id)
        assert None not in slots
        found += slots
    return found


def order_of(num_rows: int, global_batch: int, remainder: str = "wrap", **options) -> Order:
    return Order(
        permutation=Permutation(num_rows=num_rows, seed=5, **options), global_batch=global_batch, remainder=remainder
    )


@given(SIZES, SIZES, st.integers(1, 5), st.sampled_from([True, False, 1, 7, 100]))
@settings(max_examples=40)
def test_wrap_shows_each_row_once_an_epoch_and_fills_every_slot(num_rows, global_batch, num_ranks, shuffle):
    order = order_of(num_rows, global_batch, shuffle=shuffle)
    flat = [place for step in range(order.num_steps(3)) for place in places(order, step, num_ranks)]
    assert [epoch for _, epoch, _ in flat] == [i // num_rows for i in range(len(flat))]
    for epoch in range(3):
        assert sorted(row for _, e, row in flat if e == epoch) == list(range(num_rows))
    assert len(flat) - 3 * num_rows < global_batch


@given(SIZES, SIZES, st.integers(1, 5))
@settings(max_examples=40)
def test_pad_shows_each_row_once_an_epoch_and_fills_up_with_padding(num_rows, global_batch, num_ranks):
    order = order_of(num_rows, global_batch, "pad")
    for epoch in range(2):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        flat = [place for step in steps for place in places(order, step, num_ranks)]
        assert {place[1] for place in flat} == {epoch}
        assert sorted(row for _, _, row in flat if row >= 0) == list(range(num_rows))
        assert len(flat) == -(-num_rows // global_batch) * global_batch
        assert [order.epoch(step) for step in steps] == [epoch] * len(steps)


@given(SIZES, SIZES, st.integers(1, 5), st.sampled_from([True, False, 1, 7]))
@settings(max_examples=40)
def test_drop_leaves_out_the_rows_that_fill_no_batch(num_rows, global_batch, num_ranks, shuffle):
    if num_rows < global_batch:
        with pytest.raises(ValueError, match="drop all of it"):
            order_of(num_rows, global_batch, "drop")
        return
    order = order_of(num_rows, global_batch, "drop", shuffle=shuffle)
    for epoch in range(2):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        rows = [row for step in steps for _, e, row in places(order, step, num_ranks) if e == epoch]
        assert len(set(rows)) == len(rows) == num_rows // global_batch * global_batch


@pytest.mark.parametrize("remainder", ["wrap", "pad", "drop"])
@pytest.mark.parametrize("shuffle", [True, 10])
def test_no_epoch_repeats_another(remainder, shuffle):
    order = order_of(60, 12, remainder, shuffle=shuffle)
    epochs = [[row for step in range(5 * e, 5 * e + 5) for _, _, row in places(order, step, 1)] for e in range(4)]
    assert all(sorted(rows) == list(range(60)) for rows in epochs)
    assert all(one != other for one, other in itertools.combinations(epochs, 2))


@pytest.mark.parametrize(("num_rows", "global_batch", "window"), [(3468, 1000, 500), (3468, 1000, 100), (100, 64, 16)])
@pytest.mark.parametrize("shuffle", ["windows", "all"])
def test_drop_leaves_no_row_out_for_ever(num_rows, global_batch, window, shuffle):
    order = order_of(num_rows, global_batch, "drop", shuffle=window if shuffle == "windows" else True)
    never = set(range(num_rows))
    for epoch in range(80):  # (36 / 100)**80: no row is left out of all of them by chance
        if not never:
            break
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        rows = [group.row_ids for step in steps for group in order.row_groups(step, World())]
        kept = np.concatenate(rows)
        assert len(set(kept.tolist())) == kept.size == num_rows // global_batch * global_batch
        never -= set(kept.tolist())
    assert not never


def test_drop_of_a_windowed_order_still_stays_in_its_windows():
    order = order_of(3468, 1000, "drop", shuffle=100)
    for step in range(9):
        (group,) = order.row_groups(step, World())
        assert len(set((group.row_ids // 100).tolist())) <= 1000 // 100 + 2


def test_drop_that_drops_nothing_begins_each_epoch_where_its_order_begins():
    order, rows = order_of(60, 12, "drop", shuffle=10), np.empty(60, np.int64)
    order.permutation.rows(1, 0, rows)
    assert [row for step in range(5, 10) for _, _, row in places(order, step, 1)] == rows.tolist()


@given(SIZES, SIZES, st.integers(2, 5), st.sampled_from(["wrap", "pad"]))
@settings(max_examples=40)
def test_the_ranks_together_hold_what_one_rank_would(num_rows, global_batch, num_ranks, remainder):
    order = order_of(num_rows, global_batch, remainder)
    for step in range(order.num_steps(2)):
        alone = [place for place in places(order, step, 1) if place[2] >= 0]
        assert [place for place in places(order, step, num_ranks) if place[2] >= 0] == alone


def test_padding_is_spread_so_that_no_rank_is_left_without_rows():
    order = order_of(13, 8, "pad")
    for rank in range(4):
        (group,) = order.row_groups(1, World(rank=rank, num_ranks=4))
        assert (group.row_ids >= 0).any()


def test_the_order_is_pinned():
    rows = np.empty(10, np.int64)
    Permutation(num_rows=10, seed=0).rows(0, 0, rows)
    assert rows.tolist() == GOLDEN_ORDER
    Permutation(num_rows=10, seed=0, shuffle=4).rows(0, 0, rows)
    assert rows.tolist() == GOLDEN_WINDOWED


def test_epochs_and_seeds_are_shuffled_apart():
    rows = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        rows[seed, epoch] = np.empty(200, np.int64)
        Permutation(num_rows=200, seed=seed).rows(epoch, 0, rows[seed, epoch])
    assert (rows[0, 0] != rows[0, 1]).any()
    assert (rows[0, 0] != rows[1, 0]).any()


@given(st.integers(1, 80), st.integers(1, 90), st.data())
@settings(max_examples=40)
def test_a_windowed_order_is_the_same_wherever_it_is_entered_and_stays_in_its_windows(num_rows, window, data):
    permutation = Permutation(num_rows=num_rows, seed=3, shuffle=window)
    whole = np.empty(num_rows, np.int64)
    permutation.rows(1, 0, whole)
    first = data.draw(st.integers(0, num_rows - 1))
    part = np.empty(data.draw(st.integers(0, num_rows - first)), np.int64)
    permutation.rows(1, first, part)
    assert part.tolist() == whole[first : first + part.size].tolist()
    for start in range(0, num_rows // window * window, window):
        assert len(set((whole[start : start + window] // window).tolist())) == 1


@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), st.integers(1, 25), st.integers(1, 3), st.data())
@settings(max_examples=40)
def test_a_mixture_keeps_the_proportions_exactly_and_each_set_its_epochs(sizes, global_batch, num_ranks, data):
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    mixture = Mixture(
        permutations=tuple(Permutation(num_rows=n, seed=2, source=i) for i, n in enumerate(sizes)),
        weights=tuple(weights),
        global_batch=global_batch,
    )
    share = shares(weights)
    steps = -(-2 * sum(share) // global_batch)
    flat = [place for step in range(steps) for place in places(mixture, step, num_ranks)]
    by_set = [[place for place in flat[: sum(share)] if place[0] == source] for source in range(len(sizes))]
    assert [len(found) for found in by_set] == list(share)
    for source, num_rows in enumerate(sizes):
        taken = [(epoch, row) for s, epoch, row in flat if s == source]
        assert [epoch for epoch, _ in sorted(taken)] == [i // num_rows for i in range(len(taken))]
        assert len(set(taken)) == len(taken)


def test_a_mixture_is_spread_evenly():
    mixture = Mixture(
        permutations=tuple(Permutation(num_rows=100, seed=2, source=i) for i in range(2)),
        weights=(3, 1),
        global_batch=4,
    )
    for step in range(20):
        assert [source for source, _, _ in places(mixture, step, 1)].count(1) == 1


def test_a_mixture_counts_its_steps_and_epochs_by_the_slowest_set():
    mixture = Mixture(
        permutations=(Permutation(num_rows=10, seed=0), Permutation(num_rows=10, seed=0, source=1)),
        weights=(1, 4),
        global_batch=5,
    )
    assert mixture.steps_per_epoch == 10
    assert [mixture.epoch(step) for step in (0, 9, 10, 19, 20)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("weights", [(), (1, -1), (1, float("nan")), (1, 0), (1, 1e-9)])
def test_weights_that_make_no_mixture_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        shares(weights)


def test_weights_become_whole_numbers_by_largest_remainder():
    assert shares((0.7, 0.3)) == (7, 3)
    assert shares((1, 1, 1)) == (334, 333, 333)
    assert shares((2.0, 2.0)) == (1, 1)


@given(st.integers(0, 200), st.integers(1, 9))
def test_shares_of_the_ranks_are_disjoint_in_order_and_differ_by_one_at_most(count, num_ranks):
    worlds = [World(rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    assert [i for world in worlds for i in world.rank_slice(count)] == list(range(count))
    assert (
        max(len(world.rank_slice(count)) for world in worlds) - min(len(world.rank_slice(count)) for world in worlds)
        <= 1
    )
    assert all(len(world.rank_slice(max(0, count - 1))) <= len(world.rank_slice(count)) for world in worlds)


def test_a_world_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="rank 2 of 2"):
        World(rank=2, num_ranks=2)


def test_a_world_is_found_in_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert World.detect() == World(rank=1, num_ranks=3)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert World.detect() == World()


def test_orders_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="remainder = 'keep'"):
        order_of(5, 2, "keep")
    with pytest.raises(ValueError, match="global_batch = 0"):
        order_of(5, 0)
    with pytest.raises(ValueError, match="no rows"):
        Permutation(num_rows=0, seed=0)
    for shuffle in (0, -3, "yes", 2.5, None):
        with pytest.raises(ValueError, match=f"shuffle = {shuffle!r}; give True, False or a number of rows"):
            Permutation(num_rows=5, seed=0, shuffle=shuffle)
