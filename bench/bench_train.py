"""Training steps against plain transformers: pretraining, and fine-tuning on few examples.

    python -m bench.bench_train [SHARDS] [--model logo] [--rows 4] [--steps 7] [--write]

Each side has a process of its own, and the two take turns step by step, so that changes of the machine's speed affect
both; the figures are medians. A step is the next batch, forward, backward, clipping and
AdamW. In addition to the wall clock, the CPU time of the process is reported, which other programs do not affect.
Before the steps, both compute the loss of the same batch, without dropout.

* Pretraining: BertForMaskedLM with labels=, HF's DataCollatorForLanguageModeling at 15 % on unmasked rows of the set,
  torch's AdamW; against train/pretrain.py's model, loader and optimizer.
* Fine-tuning, with the recipe for few examples (dropout 0.1): BertForSequenceClassification with labels= and HF's
  DataCollatorWithPadding on tokenised sequences; against train/finetune.py's.

Without SHARDS a synthetic genome is used.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import BertForSequenceClassification, DataCollatorForLanguageModeling, DataCollatorWithPadding

import gemsdata as gd
from bench.table import machine, markdown, write_section
from gemsdata.cli.malloc import keep_freed_memory
from gemsdata.masking.token_rows import Vocabulary
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.write import shard
from tools.synthesize import GenomeRecipe, write_fasta
from train.classifier import ClassLogits, classification_loss
from train.labelled import batches, tokenise
from train.masked_lm import MaskedLM
from train.models import build_model
from train.optimizer import adamw

Batch = dict[str, torch.Tensor]
FEW_SHOTS = ((5, 70), (15, 70), (5, 300))
"""rows of an update and bases of a sequence: up to 100 shots and above of Prom-core, up to 100 of Prom-300"""


@dataclass(frozen=True)
class Setup:
    """One comparison."""

    shards: str
    model: str
    rows: int
    masking: str
    bf16: bool
    device: str
    bases: int = 0
    """length of the sequences for fine-tuning; 0: a pretraining"""


@dataclass(frozen=True)
class Side:
    """A model, its optimizer, its batches, and the loss of a batch."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    batches: Iterator[Batch]
    loss: Callable[[Batch], torch.Tensor]
    same_batch: Batch
    """the batch whose loss both sides compute"""


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


def pretraining(side: str, setup: Setup) -> Side:
    shards = gd.ShardSet.open(setup.shards)
    model = build_model(setup.model, Vocabulary.of_kmers(shards.k), max_positions=shards.row_tokens + 2)
    model.to(setup.device)
    same_batch = next(own_batches(setup))
    if side == "plain":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        return Side(model, optimizer, collated_batches(setup), lambda batch: model(**batch).loss, same_batch)
    wrapped = MaskedLM(model)
    optimizer = adamw(model, lr=1e-4, weight_decay=0.01)
    return Side(wrapped, optimizer, own_batches(setup), lambda batch: wrapped(**batch).losses.mean(), same_batch)


def finetuning(side: str, setup: Setup) -> Side:
    """Return a fine-tuning on tokenised rows of one length, as in the few-shot sets."""
    k = gd.ShardSet.open(setup.shards).k
    config = build_model(setup.model, Vocabulary.of_kmers(k), max_positions=setup.bases + 2).config
    config.num_labels, config.hidden_dropout_prob, config.attention_probs_dropout_prob = 2, 0.1, 0.1
    model = BertForSequenceClassification(config).to(setup.device)
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGT"), setup.bases)) for _ in range(200)]
    tokens = [tokenise(sequence, k=k, max_tokens=None) for sequence in sequences]
    truth = rng.integers(0, 2, len(tokens))

    def plain_batches() -> Iterator[Batch]:
        collate = DataCollatorWithPadding(gd.KmerTokenizer(k))
        samples = [{"input_ids": ids.tolist(), "label": int(label)} for ids, label in zip(tokens, truth, strict=True)]
        loader = DataLoader(samples, batch_size=setup.rows, shuffle=True, collate_fn=collate)
        while True:
            for batch in loader:
                yield {name: values.to(setup.device) for name, values in batch.items()}

    def numbered_batches() -> Iterator[Batch]:
        while True:
            for chosen, batch in batches(tokens, rng.permutation(len(tokens)), setup.rows, pad_id=0):
                yield {**batch, "labels": torch.from_numpy(truth[chosen])}

    (chosen, inputs), *_ = batches(tokens, np.arange(setup.rows), setup.rows, pad_id=0)
    same_batch = {**inputs, "labels": torch.from_numpy(truth[chosen])}
    if side == "plain":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        return Side(model, optimizer, plain_batches(), lambda batch: model(**batch).loss, same_batch)
    wrapped, accelerator = ClassLogits(model), Accelerator(cpu=setup.device == "cpu")

    def loss(batch: Batch) -> torch.Tensor:
        inputs = {name: values for name, values in batch.items() if name != "labels"}
        return classification_loss(wrapped, inputs, batch["labels"].numpy(), accelerator)

    return Side(wrapped, adamw(model, lr=1e-4, weight_decay=0.01), numbered_batches(), loss, same_batch)


def serve(side: str, threads: int, pipe: Connection) -> None:
    """Answer a `Setup` with the loss of the common batch, and "step" with (wall s, CPU s) of a step, until None."""
    torch.set_num_threads(threads)
    if side == "ours":
        keep_freed_memory()  # as train/pretrain.py does
    while (asked := pipe.recv()) is not None:
        if isinstance(asked, Setup):
            torch.manual_seed(0)
            setup, own = asked, (finetuning if asked.bases else pretraining)(side, asked)
            own.model.eval()
            with torch.no_grad():
                same_batch = {name: values.to(setup.device) for name, values in own.same_batch.items()}
                pipe.send(float(loss_of(own, setup, same_batch)))
            own.model.train()
        else:
            pipe.send(timed_step(own, setup))


def loss_of(side: Side, setup: Setup, batch: Batch) -> torch.Tensor:
    """Return the loss of a batch in the precision of the setup."""
    with torch.autocast(setup.device, torch.bfloat16, enabled=setup.bf16):
        return side.loss(batch)


def timed_step(side: Side, setup: Setup) -> tuple[float, float]:
    """Do a step; return its wall and CPU seconds."""
    began, began_cpu = time.perf_counter(), time.process_time()
    loss_of(side, setup, next(side.batches)).backward()
    torch.nn.utils.clip_grad_norm_(side.model.parameters(), 1.0)
    side.optimizer.step()
    side.optimizer.zero_grad()
    if setup.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, time.process_time() - began_cpu


@contextmanager
def both_sides(threads: int) -> Iterator[dict[str, Connection]]:
    """Yield the pipes to a process of each side; if one ends, reading from its pipe raises EOFError."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for side in ("plain", "ours"):
        pipes[side], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(side, threads, theirs), daemon=True))
        processes[-1].start()
        theirs.close()  # the process has the only other end
    yield pipes
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()


def measure(pipes: dict[str, Connection], setup: Setup, steps: int) -> dict[str, Any]:
    """Return medians of wall and CPU seconds of a step, and the losses of the first batch, by side."""

    def ask(side: str, what: Setup | str) -> Any:
        pipes[side].send(what)
        return pipes[side].recv()

    losses = {side: ask(side, setup) for side in pipes}
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in pipes}
    for turn in range(steps + 2):  # two to warm up
        for side in pipes if turn % 2 else reversed(pipes):
            found = ask(side, "step")
            if turn > 1:
                seconds[side].append(found)
    medians = {side: [statistics.median(column) for column in zip(*seconds[side], strict=True)] for side in seconds}
    return {"losses": losses, "medians": medians}


def line(pipes: dict[str, Connection], setup: Setup, row_tokens: int, steps: int) -> list[str]:
    """Return a line of the table."""
    found = measure(pipes, setup, steps)
    (wall, cpu), (own_wall, own_cpu) = found["medians"]["plain"], found["medians"]["ours"]
    precision = "bf16" if setup.bf16 else "fp32"
    cells = [
        f"{'fine-tune' if setup.bases else 'pretrain'} {setup.model}, {setup.rows} rows of {row_tokens}, {precision}",
        f"{wall:.3f}",
        f"{own_wall:.3f}",
        f"{wall / own_wall:.2f}",
        f"{cpu / own_cpu:.2f}",
        f"{setup.rows * row_tokens / own_wall:,.0f}",
        f"{found['losses']['plain']:.5f} / {found['losses']['ours']:.5f}",
    ]
    click.echo(" | ".join(cells), err=True)  # print each line at once
    return cells


@click.command()
@click.argument("shards", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--model", "names", default=("logo", "small"), show_default=True, multiple=True)
@click.option("--rows", type=int, default=4, show_default=True, help="Rows of a batch of a pretraining.")
@click.option("--steps", type=int, default=7, show_default=True)
@click.option("--masking", default="genemask", show_default=True)
@click.option("--precision", type=click.Choice(["bf16", "fp32", "both"]), default="both", show_default=True)
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True, help="Threads of each side.")
@click.option("--write", is_flag=True, help="Write the table into docs/benchmarks.md.")
def main(
    shards: Path | None,
    names: tuple[str, ...],
    rows: int,
    steps: int,
    masking: str,
    precision: str,
    threads: int,
    write: bool,
) -> None:
    """Print a Markdown table of the seconds of a step and their ratio."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines = []
    with tempfile.TemporaryDirectory() as folder, both_sides(threads) as pipes:
        if shards is None:
            shards = Path(folder) / "shards"
            with open(Path(folder) / "genome.fa", "wb") as stream:
                write_fasta(GenomeRecipe(num_bases=4_000_000, num_contigs=4), stream)
            shard([Path(folder) / "genome.fa"], shards, ShardOptions())
        row_tokens = gd.ShardSet.open(shards).row_tokens + 2
        k = gd.ShardSet.open(shards).k
        for name in names:
            for bf16 in {"bf16": [True], "fp32": [False], "both": [True, False]}[precision]:
                setup = Setup(str(shards), name, rows, masking, bf16, device)
                lines.append(line(pipes, setup, row_tokens, steps))
            for few_rows, bases in FEW_SHOTS if precision != "bf16" else ():
                setup = Setup(str(shards), name, few_rows, masking, False, device, bases=bases)
                lines.append(line(pipes, setup, bases - k + 3, 2 * steps))
    header = ["step", "plain s", "gemsdata s", "times faster", "in CPU time", "tokens/s", "loss of one batch"]
    text = (
        f"Measured on {machine()}, {threads} threads a side, torch {torch.__version__}, {device}; medians of steps"
        f" taken in turns.\n\n{markdown(header, lines)}"
    )
    click.echo(text)
    if write:
        write_section("train", text)


if __name__ == "__main__":
    main()
