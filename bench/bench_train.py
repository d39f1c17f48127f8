"""A pretraining step beside a plain loop over `BertForMaskedLM`, on the same batches with the same weights.

    python -m bench.bench_train OUT [--model logo] [--rows 16] [--steps 8]

OUT is a shard set. Both loops do forward, backward, clipping and AdamW; the plain one as its documentation has it, on
whole batches with ``labels=``. Steps alternate, so that a change of the machine's speed hits both; the figures are
medians. Beside the wall clock stands the time that the process spent computing, which other programs do not lengthen.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

import gemsdata as gd
from bench.table import machine, markdown
from train.masked_lm import MaskedLM
from train.models import build_model
from train.optimizer import adamw

Batch = dict[str, torch.Tensor]


def plain(model: torch.nn.Module) -> Callable[[Batch], torch.Tensor]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(batch: Batch) -> torch.Tensor:
        loss = model(**batch).loss
        finish(loss, model, optimizer)
        return loss.detach()

    return step


def ours(model: torch.nn.Module) -> Callable[[Batch], torch.Tensor]:
    wrapped = MaskedLM(model)
    optimizer = adamw(model, lr=1e-4, weight_decay=0.01)

    def step(batch: Batch) -> torch.Tensor:
        loss = wrapped(**batch).losses.mean()
        finish(loss, model, optimizer)
        return loss.detach()

    return step


def finish(loss: torch.Tensor, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def measure(loader: gd.Loader, model: torch.nn.Module, *, steps: int, bf16: bool, device: str) -> dict[str, Any]:
    """Median seconds of both steps, the ratio of each pair, the losses of the first step, the share of waiting."""
    contenders = {"plain": plain(copy.deepcopy(model)), "ours": ours(copy.deepcopy(model))}
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    losses: dict[str, float] = {}
    waited = []
    batches = iter(loader)
    for turn in range(steps + 2):  # two to warm up
        asked = time.perf_counter()
        batch = gd.model_inputs(next(batches))
        waited.append(time.perf_counter() - asked)
        for name, step in contenders.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                loss = float(step(batch))
            if turn == 0:
                losses[name] = loss
            if turn > 1:
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - began_cpu)
    loader.close()
    median = statistics.median
    return {
        "wall": {name: median(values) for name, values in wall.items()},
        "cpu": {name: median(values) for name, values in cpu.items()},
        "losses": losses,
        "waiting": median(waited[2:]) / median(wall["ours"]),
    }


@click.command()
@click.argument("shards", type=click.Path(exists=True, path_type=Path))
@click.option("--model", "name", default="logo", show_default=True)
@click.option("--rows", type=int, default=16, show_default=True, help="Rows of a batch.")
@click.option("--steps", type=int, default=8, show_default=True)
@click.option("--masking", default="genemask", show_default=True)
@click.option("--precision", type=click.Choice(["bf16", "fp32", "both"]), default="both", show_default=True)
def main(shards: Path, name: str, rows: int, steps: int, masking: str, precision: str) -> None:
    """Print a Markdown table of the seconds of a step and their ratio."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines = []
    for bf16 in {"bf16": [True], "fp32": [False], "both": [True, False]}[precision]:
        torch.manual_seed(0)
        loader = gd.build_loader(
            shards, masking=masking, batch_size=rows, num_workers=1, threads=True, device=device, num_steps=steps + 2
        )
        model = build_model(name, k=gd.ShardSet.open(shards).k, max_positions=loader.stream.layout.width).to(device)
        found = measure(loader, model, steps=steps, bf16=bf16, device=device)
        wall, cpu, losses = found["wall"], found["cpu"], found["losses"]
        tokens = rows * (loader.stream.layout.width)
        lines.append(
            [
                f"{name}, {rows} rows of {loader.stream.layout.width}, {'bf16' if bf16 else 'fp32'}",
                f"{wall['plain']:.3f}",
                f"{wall['ours']:.3f}",
                f"{wall['plain'] / wall['ours']:.2f}",
                f"{cpu['plain'] / cpu['ours']:.2f}",
                f"{tokens / wall['ours']:,.0f}",
                f"{losses['plain']:.5f} / {losses['ours']:.5f}",
                f"{found['waiting']:.2%}",
            ]
        )
    click.echo(f"{machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}\n")
    header = ["step", "plain s", "ours s", "ratio", "ratio of CPU time", "ours tokens/s", "first loss", "waiting"]
    click.echo(markdown(header, lines))


if __name__ == "__main__":
    main()
