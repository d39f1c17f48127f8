"""A pretraining step against plain transformers: BertForMaskedLM with labels=, HF's collator, torch's AdamW.

    python -m bench.bench_train SHARDS [--model logo] [--rows 16] [--steps 8]

Each side runs in a process of its own, as its users would start it, and the two take turns step by step, so that a
change of the machine's speed affects both; the figures are medians. A step is the next batch, forward, backward,
clipping and AdamW. The plain side masks unmasked rows of the set with DataCollatorForLanguageModeling at 15 %. Beside
the wall clock stands the CPU time of the process, which other programs do not lengthen. Before the steps both compute
the loss of one and the same masked batch.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling

import gemsdata as gd
from bench.table import machine, markdown
from gemsdata.cli.malloc import keep_freed_memory
from gemsdata.masking.token_rows import Vocabulary
from train.masked_lm import MaskedLM
from train.models import build_model
from train.optimizer import adamw

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Setup:
    shards: str
    model: str
    rows: int
    masking: str
    bf16: bool
    threads: int
    device: str


def own_batches(setup: Setup) -> Iterator[Batch]:
    loader = gd.build_loader(
        setup.shards,
        masking=setup.masking,
        batch_size=setup.rows,
        num_workers=1,
        threads=True,
        device=setup.device,
    )
    return (gd.model_inputs(batch) for batch in loader)


def collated_batches(setup: Setup) -> Iterator[Batch]:
    shards = gd.ShardSet.open(setup.shards)
    tokenizer = gd.KmerTokenizer(shards.k, model_max_length=shards.row_tokens + 2)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    order = np.random.default_rng(0)
    while True:
        rows = shards.read("train", order.integers(0, shards.num_rows("train"), setup.rows))
        samples = []
        for ids, num_tokens in zip(rows.input_ids, rows.num_tokens, strict=True):
            samples.append({"input_ids": [2, *ids[:num_tokens].tolist(), 3]})
        yield {name: values.to(setup.device) for name, values in collate(samples).items()}


def serve(side: str, setup: Setup, pipe: Connection) -> None:
    """Answer "loss" with the loss of the loader's first batch, and "step" with (wall s, CPU s) of one step."""
    torch.set_num_threads(setup.threads)
    if side == "ours":
        keep_freed_memory()  # as train/pretrain.py does
    torch.manual_seed(0)
    shards = gd.ShardSet.open(setup.shards)
    model = build_model(setup.model, Vocabulary.of_kmers(shards.k), max_positions=shards.row_tokens + 2).to(
        setup.device
    )
    wrapped = MaskedLM(model)
    optimizer: torch.optim.Optimizer
    if side == "ours":
        optimizer, batches = adamw(model, lr=1e-4, weight_decay=0.01), own_batches(setup)
    else:
        optimizer, batches = torch.optim.AdamW(model.parameters(), lr=1e-4), collated_batches(setup)

    def loss_of(batch: Batch) -> torch.Tensor:
        with torch.autocast(setup.device, torch.bfloat16, enabled=setup.bf16):
            return wrapped(**batch).losses.mean() if side == "ours" else model(**batch).loss

    while (asked := pipe.recv()) is not None:
        if asked == "loss":
            with torch.no_grad():
                pipe.send(float(loss_of(next(own_batches(setup)))))
            continue
        began, began_cpu = time.perf_counter(), time.process_time()
        loss_of(next(batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if setup.device == "cuda":
            torch.cuda.synchronize()
        pipe.send((time.perf_counter() - began, time.process_time() - began_cpu))


def measure(setup: Setup, steps: int) -> dict[str, Any]:
    """Return medians of wall and CPU seconds of a step, and the losses of the first batch, by side."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for side in ("plain", "ours"):
        pipes[side], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(side, setup, theirs), daemon=True))
        processes[-1].start()

    def ask(side: str, what: str) -> Any:
        pipes[side].send(what)
        return pipes[side].recv()

    losses = {side: ask(side, "loss") for side in pipes}
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in pipes}
    for turn in range(steps + 2):  # two to warm up
        for side in pipes if turn % 2 else reversed(pipes):
            found = ask(side, "step")
            if turn > 1:
                seconds[side].append(found)
    for side, process in zip(pipes, processes, strict=True):
        pipes[side].send(None)
        process.join()
    medians = {side: [statistics.median(column) for column in zip(*seconds[side], strict=True)] for side in seconds}
    return {"losses": losses, "medians": medians}


@click.command()
@click.argument("shards", type=click.Path(exists=True, path_type=Path))
@click.option("--model", "names", default=("logo",), show_default=True, multiple=True)
@click.option("--rows", type=int, default=16, show_default=True, help="Rows of a batch.")
@click.option("--steps", type=int, default=8, show_default=True)
@click.option("--masking", default="genemask", show_default=True)
@click.option("--precision", type=click.Choice(["bf16", "fp32", "both"]), default="both", show_default=True)
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True, help="Threads of each side.")
def main(
    shards: Path, names: tuple[str, ...], rows: int, steps: int, masking: str, precision: str, threads: int
) -> None:
    """Print a Markdown table of the seconds of a step and their ratio."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    row_tokens = gd.ShardSet.open(shards).row_tokens + 2
    lines = []
    for name in names:
        for bf16 in {"bf16": [True], "fp32": [False], "both": [True, False]}[precision]:
            found = measure(Setup(str(shards), name, rows, masking, bf16, threads, device), steps)
            (wall, cpu), (own_wall, own_cpu) = found["medians"]["plain"], found["medians"]["ours"]
            lines.append(
                [
                    f"{name}, {rows} rows of {row_tokens}, {'bf16' if bf16 else 'fp32'}",
                    f"{wall:.3f}",
                    f"{own_wall:.3f}",
                    f"{wall / own_wall:.2f}",
                    f"{cpu / own_cpu:.2f}",
                    f"{rows * row_tokens / own_wall:,.0f}",
                    f"{found['losses']['plain']:.5f} / {found['losses']['ours']:.5f}",
                ]
            )
    click.echo(f"{machine()}, {threads} threads a side, torch {torch.__version__}, {device}\n")
    header = ["step", "plain s", "ours s", "ratio", "ratio of CPU time", "ours tokens/s", "loss of one batch"]
    click.echo(markdown(header, lines))


if __name__ == "__main__":
    main()
