"""What a loader leaves behind, wrong uses of its stream, and its error messages."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import re
import threading
from pathlib import Path

import duckdb
import pytest
import torch

import gemsdata as gd
from gemsdata.files import mapped
from gemsdata.shards.shard_set import ShardSet
from gemsdata.stream import loader as loader_module
from gemsdata.stream.batch import to_device
from tests.stream_support import make_set

pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes"),  # on two cores
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("stream") / "set")


def test_no_named_shared_memory_no_files_and_no_descriptors_are_left(shards):
    def census():
        gc.collect()
        mapped_names = set(re.findall(r"/dev/shm/\S+$", Path("/proc/self/maps").read_text(), re.MULTILINE))
        return mapped_names, len(os.listdir("/proc/self/fd"))  # a name that was removed is followed by "(deleted)"

    list(gd.build_loader(shards, batch_size=8, num_steps=3, num_workers=2, start_method="fork"))
    before, files = census(), sorted(shards.rglob("*"))
    loaders = [gd.build_loader(shards, batch_size=8, num_workers=2, start_method="fork") for _ in range(2)]
    iterators = [iter(loader) for loader in loaders]
    named = []
    for _ in range(10):
        assert [next(iterator)["step"] for iterator in iterators].count(loaders[0].step - 1) == 2
        named.append(census()[0] - before[0])
    assert not set.intersection(*named)
    del iterators
    for loader in loaders:
        loader.close()
    del loader, loaders
    assert census()[1] == before[1]
    assert sorted(shards.rglob("*")) == files


@pytest.mark.slow
def test_two_hundred_loaders_leave_nothing_behind(shards):
    def census():
        gc.collect()
        return (
            len(os.listdir("/proc/self/fd")),
            len(mapped._maps),
            sum(thread.name.startswith("gemsdata") for thread in threading.enumerate()),
            len(multiprocessing.active_children()),
            len(re.findall(r"/set/train/|/dev/shm", Path("/proc/self/maps").read_text())),
        )

    def use(number):
        start_method = "fork" if number % 20 == 0 else None
        modes = [{}, {"num_workers": 2, "threads": True}, {"num_workers": 1, "start_method": start_method}]
        loader = gd.build_loader(shards, batch_size=8, num_steps=4, **(modes[2] if start_method else modes[number % 2]))
        if number % 3:
            list(loader)
        else:
            next(iter(loader))  # left in the middle, not closed

    for number in (0, 1, 2):
        use(number)
    before = census()
    for number in range(200):
        use(number)
    assert census() == before


def test_a_copied_stream_raises_instead_of_going_deaf(shards):
    loader = gd.build_loader(shards, batch_size=8)
    next(iter(loader))
    for stream in (copy.deepcopy(loader.stream), pickle.loads(pickle.dumps(loader.stream))):
        copied = gd.Loader(stream)
        with pytest.raises(RuntimeError, match="is a copy"):
            next(iter(copied))
        with pytest.raises(RuntimeError, match="is a copy"):
            copied.set_stage(1)
    assert loader.set_stage(1) == loader.stage_lag  # the original still hears


def test_a_stream_in_a_foreign_dataloader_raises_with_the_way_out(shards):
    dataset = gd.build_loader(shards, batch_size=8).dataset
    with pytest.raises(RuntimeError, match=r"gemsdata\.prepare"):
        list(torch.utils.data.DataLoader(dataset, batch_size=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either batch_size"),
        ({"batch_size": 4, "global_batch_size": 4}, "give either batch_size"),
        ({"batch_size": 0}, "give 1 or more"),
        ({"batch_size": 4, "num_steps": 1, "num_epochs": 1}, "not both"),
        ({"batch_size": 4, "split": "test"}, "split 'test' is unknown"),
        ({"batch_size": 4, "masking": "genmask"}, "masking 'genmask' is unknown"),
        ({"batch_size": 4, "masking": None}, "masking = None; give a strategy or the name of one: .*genemask"),
        ({"batch_size": 4, "shuffle": "yes"}, "shuffle = 'yes'; give True, False or a number of rows"),
        ({"batch_size": 2.5}, r"batch_size = 2\.5.*give 1 or more"),
        ({"batch_size": 4, "curriculum": "cm"}, "curriculum 'cm' is unknown"),
        ({"batch_size": 4, "masking": "cm-step"}, "needs the length of the run"),
        ({"batch_size": 4, "curriculum": "steps"}, "needs its stages"),
        ({"batch_size": 4, "reverse_complement": 2}, "a probability"),
        ({"batch_size": 4, "weights": (1,)}, "weights are for mixing"),
        ({"batch_size": 4, "check": "crc"}, "check = 'crc'"),
        ({"batch_size": 4, "faults": "ignore"}, "faults = 'ignore'"),
        ({"batch_size": 4, "num_workers": -1}, "num_workers = -1"),
        ({"batch_size": 4, "num_workers": 1, "prefetch_factor": 0}, "prefetch_factor = 0"),
        ({"batch_size": 4, "num_steps": -1}, "num_steps = -1"),
        ({"global_batch_size": 2, "world": gd.World(rank=2, num_ranks=3)}, "has none for rank 2"),
        ({"batch_size": 500, "remainder": "drop"}, "larger than the split"),
    ],
)
def test_mistakes_are_told_when_the_loader_is_built(shards, options, message):
    with pytest.raises(ValueError, match=message):
        gd.build_loader(shards, **options)


def test_mistakes_in_the_sets_are_told(shards, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        gd.build_loader(tmp_path / "nowhere", batch_size=4)
    with pytest.raises(ValueError, match="no shard set"):
        gd.build_loader([], batch_size=4)
    with pytest.raises(ValueError, match="the sets of a mixture always wrap"):
        gd.build_loader([shards, shards], batch_size=4, remainder="pad")
    with pytest.raises(ValueError, match="has no webdataset shards"):
        ShardSet.open(shards, "webdataset")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_threads_deliver_tensors_for_the_cpu_and_for_no_other_device(shards, monkeypatch, device):
    """Each thread has its own current device, so the thread that iterates makes the tensors of other devices."""
    delivered_in = set()

    def deliver(*arguments, **options):
        delivered_in.add(threading.current_thread() is threading.main_thread())
        return to_device(*arguments, **options)

    monkeypatch.setattr(loader_module, "to_device", deliver)
    loader = gd.build_loader(shards, batch_size=4, num_workers=2, threads=True, num_steps=6, device=device)
    assert {batch["input_ids"].device.type for batch in loader} == {device}
    assert delivered_in == {device != "cpu"}


class Collecting(gd.Strategy):
    """Collects garbage in the process that masks."""

    name = "collecting"

    def place(self, row, centres):
        gc.collect()
        return [(c, c + 1) for c in centres]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_worker_does_not_collect_the_garbage_of_its_parent(shards):
    """A DuckDB connection that is collected in a forked process joins threads that do not exist there: it crashes."""
    gc.collect()
    gc.disable()
    try:
        garbage = {"connection": duckdb.connect(config={"threads": 4})}
        garbage["connection"].execute("SELECT sum(range) FROM range(10_000_000)").fetchall()
        garbage["itself"] = garbage
        del garbage
        loader = gd.build_loader(
            shards, masking=Collecting(), batch_size=4, num_workers=2, num_steps=6, start_method="fork"
        )
        assert sum(1 for _ in loader) == 6
    finally:
        gc.enable()
