"""Memory of batches is used again, and never while something refers to it."""

import gc

import numpy as np
import pytest
import torch

import gemsdata as gd
from gemsdata.stream.reused_memory import ReusedMemory
from tests.stream_support import make_set

BYTES = 1 << 17


def test_memory_comes_back_when_the_last_view_is_gone():
    memory = ReusedMemory()
    array = memory.empty(BYTES)
    address = array.ctypes.data
    tensor = torch.from_numpy(array.view(np.int64).reshape(2, -1))
    del array
    piece = tensor[1, 5:]
    del tensor
    shown = piece.numpy()[3:].view(np.uint8)
    del piece
    gc.collect()
    assert memory.empty(BYTES).ctypes.data != address  # ``shown`` is a view of a view of a tensor of a view
    del shown
    assert memory.empty(BYTES).ctypes.data == address


def test_memory_outlives_its_pool():
    memory = ReusedMemory()
    arrays = [memory.empty(BYTES) for _ in range(3)]
    del memory
    for i, array in enumerate(arrays):
        array[:] = i
    assert [int(array.sum()) for array in arrays] == [0, BYTES, 2 * BYTES]


@pytest.mark.parametrize("num_bytes", [0, 1, 1 << 10, BYTES])
def test_arrays_have_the_size_and_alignment_that_was_asked_for(num_bytes):
    memory = ReusedMemory()
    arrays = [memory.empty(num_bytes) for _ in range(20)]
    assert {(array.dtype, array.shape) for array in arrays} == {(np.dtype(np.uint8), (num_bytes,))}
    assert num_bytes == 0 or all(array.ctypes.data % 64 == 0 for array in arrays)
    addresses = {array.ctypes.data for array in arrays}
    assert num_bytes == 0 or len(addresses) == 20  # all are in use
    del arrays
    assert sum(len(blocks) for blocks in memory._free.values()) <= 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("memory") / "set")


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "threads": True}, {"num_workers": 2}])
def test_batches_that_are_kept_do_not_change(shards, workers):
    """Among batches that are dropped, of which later ones take the memory."""
    loader = gd.build_loader(shards, masking="genemask", batch_size=512, num_steps=24, **workers)
    kept, before = {}, {}
    addresses = []
    for step, batch in enumerate(loader):
        addresses.append(batch["labels"].data_ptr())
        if step % 5 == 0:
            kept[step] = batch["labels"][3:, ::2]
            before[step] = kept[step].clone()
    assert len(set(addresses)) < len(addresses)
    assert all(torch.equal(kept[step], before[step]) for step in kept)
    again = gd.build_loader(shards, masking="genemask", batch_size=512, num_steps=24)
    for step, batch in enumerate(again):
        assert step not in kept or torch.equal(batch["labels"][3:, ::2], kept[step])
