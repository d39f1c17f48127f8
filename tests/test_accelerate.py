"""Through accelerate: our prepare covers every row once on 1, 2 and 4 processes; accelerate's own is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

import gemsdata as gd
from gemsdata.shards.shard_set import ShardSet
from tests.ports import free_port
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set

pytestmark = pytest.mark.once
SCRIPT = """
import json, sys
from pathlib import Path
from accelerate import Accelerator
import gemsdata as gd

shards, out, num_workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
accelerator = Accelerator()
options = dict(masking="genemask", global_batch_size=8, num_epochs=2, num_workers=num_workers)
loader = gd.prepare(accelerator, gd.build_loader(shards, **options))
assert accelerator.prepare(loader) is loader
batches, stop = [], 13
def note(batch):
    batches.append({name: batch[name].tolist() for name in ("input_ids", "labels", "attention_mask", "sample_ids")}
                   | {name: batch[name] for name in ("step", "epoch", "stage")})
for batch in loader:
    note(batch)
    if len(batches) == stop:
        break
accelerator.wait_for_everyone()
accelerator.save_state(str(out / "state"))
loader.close()
next(iter(loader))  # moves on, and is brought back
loader.close()
accelerator.wait_for_everyone()
accelerator.load_state(str(out / "state"))
assert loader.step == stop
for batch in loader:
    note(batch)
    assert accelerator.gradient_state.end_of_dataloader == (batch["step"] == len(loader) - 1)
assert not accelerator.gradient_state.in_dataloader
result = {"world": accelerator.num_processes, "rank": accelerator.process_index, "batches": batches}
(out / f"{accelerator.process_index}.json").write_text(json.dumps(result))
accelerator.wait_for_everyone()
accelerator.end_training()
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("accelerate") / "set")


def launch(script, num_processes: int, *arguments, timeout: int = 250) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(num_processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--multi_gpu", "--main_process_port", str(free_port())] if num_processes > 1 else []
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.mark.compiled
@pytest.mark.slow  # tests/test_two_processes.py launches two processes as well
@pytest.mark.parametrize(
    ("num_processes", "num_workers"),
    [(2, 1), (1, 2), (4, 0)],
)
def test_every_row_once_an_epoch_on_any_number_of_processes(shards, tmp_path, num_processes, num_workers):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    launch(script, num_processes, shards, tmp_path, num_workers)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(num_processes)]
    assert [(result["world"], result["rank"]) for result in results] == [
        (num_processes, rank) for rank in range(num_processes)
    ]
    joined = []
    for parts in zip(*(result["batches"] for result in results), strict=True):
        whole = {name: parts[0][name] for name in ("step", "epoch", "stage")}
        whole |= {
            name: torch.tensor([row for part in parts for row in part[name]]).numpy()
            for name in ("input_ids", "labels", "attention_mask", "sample_ids")
        }
        joined.append(whole)
    options = {"masking": "genemask", "num_epochs": 2}
    assert digest(joined) == digest(global_batches(loaders_of_ranks(shards, 1, global_batch_size=8, **options)))
    num_rows = ShardSet.open(shards).num_rows("train")
    ids = [int(i) for batch in joined for i in batch["sample_ids"]]
    assert sorted(ids[:num_rows]) == sorted(ids[num_rows : 2 * num_rows]) == list(range(num_rows))


@pytest.fixture
def accelerator():
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_raw_loader_is_refused_by_accelerators_prepare_with_the_way_out(shards, accelerator):
    loader = gd.build_loader(shards, batch_size=4)
    with pytest.raises(RuntimeError, match=r"gemsdata\.prepare\(accelerator, loader\)"):
        accelerator.prepare(loader)
    with pytest.raises(RuntimeError, match=r"gemsdata\.prepare"):
        accelerator.prepare_data_loader(loader)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_foreign_loader_over_the_stream_raises_when_accelerate_iterates_it(shards, accelerator, num_workers):
    dataset = gd.build_loader(shards, batch_size=4).dataset
    options = {"multiprocessing_context": "fork"} if num_workers else {}
    foreign = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=num_workers, **options)
    prepared = accelerator.prepare(foreign)
    with pytest.raises(RuntimeError, match=r"gemsdata\.prepare"):
        list(prepared)


def test_prepare_refuses_what_does_not_fit(shards, accelerator):
    with pytest.raises(ValueError, match=r"takes a loader from gemsdata\.build_loader"):
        gd.prepare(accelerator, [1, 2])
    loader = gd.build_loader(shards, batch_size=4, world=gd.World(rank=1, num_ranks=2))
    with pytest.raises(ValueError, match="make the Accelerator first"):
        gd.prepare(accelerator, loader)


def test_prepare_moves_batches_to_the_accelerators_device_and_registers_once(shards, accelerator):
    loader = gd.build_loader(shards, batch_size=4, device=None)
    assert gd.prepare(accelerator, gd.prepare(accelerator, loader)) is loader
    assert accelerator._custom_objects == [loader]
    batch = next(iter(loader))
    assert batch["input_ids"].dtype == torch.int64
    assert batch["input_ids"].device == accelerator.device
