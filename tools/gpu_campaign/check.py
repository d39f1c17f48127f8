"""CUDA against the CPU: the same batches, transferred in narrow dtypes, and the same loss; one GPU for each worker.

    python -m tools.gpu_campaign.check --shards SHARDS --output check.json

Without a GPU the CPU is compared with itself.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gemsdata as gd
from eval.results.jobs import Job, run_jobs
from gemsdata.files.publish import write_text
from gemsdata.views.options import ViewOptions
from train.masked_lm import MaskedLM
from train.models import build_model
from train.rows import open_rows

_NUM_BATCHES = 4
_FP32_TOLERANCE, _BF16_TOLERANCE = 1e-4, 2e-2
"""largest relative differences of a loss from that of the unmodified model in fp32 on the CPU"""


class Transfers(TorchDispatchMode):
    """Counts the bytes that are copied from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = next((value for value in args if isinstance(value, torch.Tensor)), None)
        if given is not None and isinstance(out, torch.Tensor) and given.device.type == "cpu" != out.device.type:
            self.num_bytes += out.nbytes
        return out


def compare_batches(shards: str, device: torch.device, rows: int) -> dict[str, Any]:
    """Compare the first batches on ``device`` with those on the CPU; count the bytes of their transfer."""
    options = {"masking": "genemask", "batch_size": rows, "num_workers": 1, "threads": True, "seed": 0}
    sources = open_rows([shards], ViewOptions()).sources
    own, other = (iter(gd.build_loader(sources, device=name, **options)) for name in (device, torch.device("cpu")))
    differing, wide_bytes = [], 0
    transfers = Transfers()
    for expected in itertools.islice(other, _NUM_BATCHES):
        with transfers:
            batch = next(own)
        for name, values in gd.model_inputs(expected).items():
            found = batch[name]
            wide_bytes += values.nbytes
            if found.device.type != device.type or found.dtype != values.dtype or not torch.equal(found.cpu(), values):
                differing.append(f"{name} of batch {expected['step']}")
    found = {"batches": _NUM_BATCHES, "differing": differing, "transferred_bytes": transfers.num_bytes}
    return {
        **found,
        "wide_bytes": wide_bytes,
        "narrow": device.type == "cpu" or 0 < transfers.num_bytes < wide_bytes / 2,
    }


def compare_losses(shards: str, device: torch.device, model_name: str, rows: int) -> dict[str, Any]:
    """Compare the loss of the unmodified model on the CPU in fp32 with `MaskedLM` on ``device`` in fp32 and bf16."""
    training = open_rows([shards], ViewOptions())
    torch.manual_seed(0)
    model = build_model(model_name, training.vocabulary, max_positions=training.max_positions).eval()
    loader = gd.build_loader(training.sources, masking="genemask", batch_size=rows, seed=1, device="cpu", threads=True)
    batch = gd.model_inputs(next(iter(loader)))
    with torch.no_grad():
        expected = float(model(**batch).loss)
        wrapped = MaskedLM(model).to(device)
        moved = {name: values.to(device) for name, values in batch.items()}
        fp32 = float(wrapped(**moved).losses.mean())
        with torch.autocast(device.type, torch.bfloat16):
            bf16 = float(wrapped(**moved).losses.mean())
    return {
        "cpu_fp32": expected,
        "device_fp32": fp32,
        "device_bf16": bf16,
        "fp32_within": abs(fp32 / expected - 1) <= _FP32_TOLERANCE,
        "bf16_within": abs(bf16 / expected - 1) <= _BF16_TOLERANCE,
    }


def gpus_of_workers() -> list[int]:
    """Return the number of GPUs that each of the worker processes of an evaluation sees, one process a GPU."""
    count = max(1, torch.cuda.device_count())
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(number) for number in range(count)]
        run_jobs(
            [Job(file.name, note_gpus, (file,)) for file in files],
            workers=count,
            label="worker",
            log=Path(folder) / "log",
        )
        return [int(file.read_text()) for file in files]


def note_gpus(path: Path) -> None:
    """Write the number of GPUs that this process sees to a file."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    path.write_text(
        str(torch.cuda.device_count() if visible is None else len([name for name in visible.split(",") if name]))
    )


@click.command()
@click.option("--shards", required=True)
@click.option("--model", default="logo", show_default=True)
@click.option("--rows", type=int, default=64, show_default=True, help="Rows of a batch.")
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(shards: str, model: str, rows: int, output: Path) -> None:
    """Write what was compared; exit status 1 if something differs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches, losses = compare_batches(shards, device, rows), compare_losses(shards, device, model, rows)
    gpus = gpus_of_workers()
    passed = not batches["differing"] and batches["narrow"] and losses["fp32_within"] and losses["bf16_within"]
    passed = passed and max(gpus) <= 1
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    found = {"device": name, "passed": passed, "batches": batches, "losses": losses, "gpus_of_workers": gpus}
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(found, indent=1) + "\n")
    click.echo(json.dumps(found))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
