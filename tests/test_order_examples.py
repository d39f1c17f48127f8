"""The order of batches against a slot-by-slot simulation, and its error messages: small, explicit cases."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from gemsdata.kernels.keys import key_of
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.stream.mixture import PARTS, Mixture, shares
from gemsdata.stream.order import Order, build_order
from gemsdata.stream.permutation import Permutation
from gemsdata.stream.world import World

ALONE = World(rank=0, num_ranks=1)


@dataclass
class Source:
    num_rows: int
    needs_windows: bool = False


def build(*num_rows: int, global_batch: int = 4, shuffle: bool | int = True, needs_windows: bool = False, **options):
    sources = [Source(rows, needs_windows) for rows in num_rows]
    options = {"remainder": "wrap", "weights": None, **options}
    return build_order(sources, global_batch=global_batch, seed=3, shuffle=shuffle, **options)


@pytest.mark.parametrize("remainder", ["wrap", "pad", "drop"])
@pytest.mark.parametrize(("num_rows", "global_batch"), [(10, 4), (8, 4), (7, 7), (9, 2), (5, 1)])
def test_the_epoch_of_a_batch_is_that_of_its_first_row(num_rows, global_batch, remainder):
    order = build(num_rows, global_batch=global_batch, remainder=remainder)
    for step in range(order.num_steps(4) + 3):
        assert order.epoch(step) == order.row_groups(step, ALONE)[0].epoch


@pytest.mark.parametrize(
    ("remainder", "steps"), [("wrap", [0, 3, 5, 8, 10]), ("pad", [0, 3, 6, 9, 12]), ("drop", [0, 2, 4, 6, 8])]
)
def test_the_number_of_batches_of_0_to_4_epochs_of_10_rows_in_batches_of_4(remainder, steps):
    order = build(10, remainder=remainder)
    assert [order.num_steps(epochs) for epochs in range(5)] == steps
    assert order.steps_per_epoch == steps[1]


@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize("shuffle", [True, 3])
def test_every_epoch_has_an_order_of_its_own(remainder, shuffle):
    order = build(40, global_batch=8, remainder=remainder, shuffle=shuffle)
    epochs = [
        np.concatenate([order.row_groups(step, ALONE)[0].row_ids for step in range(first, first + 5)]).tolist()
        for first in range(0, 20, 5)
    ]
    assert all(sorted(rows) == list(range(40)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 4


@pytest.mark.parametrize(("num_rows", "global_batch", "window"), [(36, 10, 5), (100, 64, 16), (70, 20, 7)])
def test_rows_that_a_windowed_drop_leaves_out_are_seen_in_other_epochs(num_rows, global_batch, window):
    order = build(num_rows, global_batch=global_batch, shuffle=window, remainder="drop")
    assert order.rotates
    seen = [set() for _ in range(40)]
    for step in range(order.num_steps(40)):
        [group] = order.row_groups(step, ALONE)
        assert not seen[group.epoch] & set(group.row_ids.tolist()), "a row twice in an epoch"
        seen[group.epoch] |= set(group.row_ids.tolist())
    assert set.union(*seen) == set(range(num_rows))
    assert all(len(rows) == num_rows // global_batch * global_batch for rows in seen)


@pytest.mark.parametrize(
    ("remainder", "shuffle", "num_rows"), [("drop", True, 10), ("drop", 3, 8), ("wrap", 3, 10), ("pad", 3, 10)]
)
def test_only_a_windowed_drop_with_rows_left_over_begins_elsewhere(remainder, shuffle, num_rows):
    assert not build(num_rows, remainder=remainder, shuffle=shuffle).rotates


def test_a_windowed_drop_begins_each_epoch_at_its_key_modulo_the_rows():
    order, whole = build(10, remainder="drop", shuffle=3), np.empty(10, np.int64)
    for epoch in range(6):
        order.permutation.rows(epoch, 0, whole)
        start = key_of(3, RandomStream.EPOCH_START, 0, epoch) % 10
        shown = np.concatenate([order.row_groups(2 * epoch + batch, ALONE)[0].row_ids for batch in range(2)])
        assert shown.tolist() == np.roll(whole, -start)[:8].tolist()


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.3), (5.0, 1.0, 2.0)])
def test_a_mixture_equals_a_simulation_slot_by_slot(weights):
    sizes = (7, 5, 3)[: len(weights)]
    permutations = tuple(
        Permutation(num_rows=size, seed=3, source=source, shuffle=False) for source, size in enumerate(sizes)
    )
    mixture = Mixture(permutations=permutations, weights=weights, global_batch=6)
    share = shares(weights)
    taken, in_cycle, complete = [0] * len(sizes), [0] * len(sizes), []
    for slot in itertools.count():
        if slot % 6 == 0:
            complete.append(min(count // size for count, size in zip(taken, sizes, strict=True)))
            if len(complete) == 40:
                break
        place = slot % sum(share)
        if place == 0:
            in_cycle = [0] * len(sizes)
        behind = [(place + 1) * part - sum(share) * count for part, count in zip(share, in_cycle, strict=True)]
        source = behind.index(max(behind))
        found = {
            slot_in_batch: (group.source, group.epoch, row)
            for group in mixture.row_groups(slot // 6, ALONE)
            for slot_in_batch, row in zip(group.slots.tolist(), group.row_ids.tolist(), strict=True)
        }
        assert found[slot % 6] == (source, taken[source] // sizes[source], taken[source] % sizes[source])
        taken[source] += 1
        in_cycle[source] += 1
    assert [mixture.epoch(step) for step in range(40)] == complete
    for epochs in (1, 2, 3):
        assert mixture.num_steps(epochs) == next(step for step, count in enumerate(complete) if count >= epochs)
    assert mixture.steps_per_epoch == mixture.num_steps(1)


def test_a_mixture_whose_epoch_fills_its_batches_exactly_has_no_batch_more():
    assert build(2, 2, global_batch=4).num_steps(1) == 1
    assert build(2, 2, global_batch=4).num_steps(3) == 3


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_the_ranks_of_a_mixture_share_its_batches_in_order(num_ranks):
    mixture = build(10, 30, global_batch=6)
    for step in range(8):
        shares_of_ranks = []
        for rank in range(num_ranks):
            slots = [()] * (6 // num_ranks)
            for group in mixture.row_groups(step, World(rank=rank, num_ranks=num_ranks)):
                for slot, row in zip(group.slots.tolist(), group.row_ids.tolist(), strict=True):
                    slots[slot] = (group.source, group.epoch, row)
            shares_of_ranks += slots
        alone = {
            slot: (group.source, group.epoch, row)
            for group in mixture.row_groups(step, ALONE)
            for slot, row in zip(group.slots.tolist(), group.row_ids.tolist(), strict=True)
        }
        assert shares_of_ranks == [alone[slot] for slot in range(6)]


def test_shares_are_thousandths_by_largest_remainder():
    assert shares([1, 1]) == (1, 1)
    assert shares([1, 1, 1]) == (334, 333, 333)
    assert shares([0.2, 0.8]) == (1, 4)
    assert shares([2.0006, 997.9994]) == (1, 499)
    assert shares([1, PARTS - 1]) == (1, PARTS - 1)


@pytest.mark.parametrize("weights", [[], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")], [1, 1e6]])
def test_weights_that_cannot_be_shares_are_refused(weights):
    with pytest.raises(ValueError, match="weights ="):
        shares(weights)


def test_what_build_order_returns():
    assert isinstance(build(10), Order)
    mixture = build(10, 30)
    assert isinstance(mixture, Mixture)
    assert mixture.weights == (10.0, 30.0)
    assert build(10, 30, weights=[1, 2]).weights == (1, 2)
    assert [permutation.source for permutation in mixture.permutations] == [0, 1]
    assert build(10, shuffle=5, needs_windows=True).permutation.shuffle == 5
    assert build(10, shuffle=False, needs_windows=True).permutation.shuffle is False


@pytest.mark.parametrize(
    ("num_rows", "options", "message"),
    [
        ((10,), {"weights": [1.0]}, "one is given"),
        ((10, 10), {"remainder": "pad"}, "for a single shard set"),
        ((10,), {"needs_windows": True}, "larger than cache_bytes"),
        ((10,), {"global_batch": 0}, "give 1 or more"),
        ((10, 10), {"global_batch": 0}, "give 1 or more"),
        ((10, 10), {"weights": [1.0]}, "1 weights for 2 shard sets"),
        ((10,), {"remainder": "keep"}, "give one of wrap, pad, drop"),
        ((3,), {"remainder": "drop"}, "would drop all of it"),
        ((0,), {}, "no rows"),
        ((10,), {"shuffle": 0}, "a number of rows"),
    ],
)
def test_options_that_do_not_fit_are_refused(num_rows, options, message):
    with pytest.raises(ValueError, match=message):
        build(*num_rows, **options)


def test_one_set_that_needs_windows_is_enough_to_refuse_a_shuffle_over_all_rows():
    sources = [Source(10), Source(10, needs_windows=True)]
    options = {"global_batch": 4, "seed": 3, "remainder": "wrap", "weights": None}
    with pytest.raises(ValueError, match="larger than cache_bytes"):
        build_order(sources, shuffle=True, **options)
    assert isinstance(build_order(sources, shuffle=5, **options), Mixture)


def test_a_drop_of_exactly_one_batch_an_epoch_is_allowed():
    order = build(4, remainder="drop")
    assert order.steps_per_epoch == 1
    assert sorted(order.row_groups(1, ALONE)[0].row_ids.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("remainder", ["wrap", "pad", "drop"])
def test_all_rows_of_a_single_set_are_of_source_0(remainder):
    order = build(10, remainder=remainder)
    assert {group.source for step in range(6) for group in order.row_groups(step, ALONE)} == {0}


@pytest.mark.parametrize("weights", [[], [1, 0], [0.0, 0.0], [1, -1], [1, float("inf")], [float("nan")]])
def test_weights_that_are_not_positive_numbers_are_refused(weights):
    with pytest.raises(ValueError, match="give positive numbers"):
        shares(weights)
