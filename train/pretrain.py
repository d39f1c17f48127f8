"""Pretrain a masked LM on shard sets, on a laptop, one GPU or many.

    accelerate launch train/pretrain.py --shards OUT --model logo --masking cm-gems --output-dir RUN

One update is one batch of the loader, cut into micro-batches that fit in memory; its loss is the mean over the masked
tokens of all processes, however it is cut. Everything that happens is in `train`, from top to bottom.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

if __package__ in (None, ""):  # started as a file: make `train` importable, and nothing in it by its bare name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from transformers.utils import logging as transformers_logging

import gemsdata as gd
from gemsdata.files.publish import write_text
from train import checkpoint
from train.config import PretrainConfig, open_shards
from train.evaluate import evaluate, unigram_perplexity, validation_loader
from train.figure import draw_run
from train.hardware import use_cores
from train.metrics import Meter, RunLog
from train.models import MaskedLM, build_model, load_model
from train.optimizer import adamw, set_learning_rate
from train.options import INTERRUPTED, Interrupt, Stopped, exit_status, parse
from train.schedule import learning_rate


def train(config: PretrainConfig) -> bool:
    """Run a pretraining; return False when it was interrupted (and saved) before its end.

    Raises ValueError and FileNotFoundError for mistakes in ``config``, `Stopped` when the loss is no longer a number.
    """
    config = config.resolved()
    run = Path(config.output_dir)
    shards = open_shards(config)
    k, max_positions = shards[0].k, shards[0].row_tokens + 2
    accelerator = _start(config, run)
    last = _checkpoint_to_resume(config, run)

    set_seed(config.seed)
    if config.init_from:
        bert = load_model(config.init_from, k=k, max_positions=max_positions)
    else:
        bert = build_model(config.model, k=k, max_positions=max_positions)
    loader = gd.build_loader(
        shards,
        curriculum=config.curriculum(),
        global_batch_size=config.batch_rows,
        num_steps=config.max_steps,
        seed=config.seed,
        reverse_complement=config.reverse_complement,
        num_workers=config.workers,
        threads=True,
        stage_lag=config.switch_lag,
    )
    loader = gd.prepare(accelerator, loader)
    valid = [
        validation_loader(
            shards, masking, max_rows=config.eval_rows, batch_rows=config.micro_batch_rows, accelerator=accelerator
        )
        for masking in _validation_maskings(config)
    ]
    baseline = unigram_perplexity(shards, valid[0], accelerator)
    model = MaskedLM(bert, compiled=config.compile)
    optimizer = adamw(bert, lr=config.peak_lr, weight_decay=config.weight_decay, beta2=config.beta2, eps=1e-6)
    model, optimizer = accelerator.prepare(model, optimizer)
    parts = {"accelerator": accelerator, "bert": bert, "optimizer": optimizer}
    set_seed(config.seed, device_specific=True)  # dropout differs from process to process
    step = 0 if last is None else checkpoint.load(last, loader=loader, **parts)

    stopped = False
    meter = Meter()
    with Interrupt() as interrupt, RunLog(run, accelerator, step=step, num_steps=config.max_steps) as log:
        for batch, waited_s in _timed(loader):
            lr = learning_rate(step, peak=config.peak_lr, warmup_steps=config.warmup_steps, num_steps=config.max_steps)
            set_learning_rate(optimizer, lr)
            *counts, num_stops = _over_processes(batch, interrupt.received, accelerator)
            sums = torch.zeros(2, device=accelerator.device)
            micro_batches = list(_cut(batch, config.micro_batch_rows))
            for i, micro in enumerate(micro_batches, start=1):
                with nullcontext() if i == len(micro_batches) else accelerator.no_sync(model):
                    loss_sum, num_correct = model(**micro)
                    # gradients are averaged over processes; this makes it the mean over all masked tokens:
                    accelerator.backward(loss_sum * accelerator.num_processes / max(counts[0], 1))
                sums += torch.stack([loss_sum.detach(), num_correct.float()])
            loss_sum, num_correct = accelerator.reduce(sums, "sum").tolist()
            norm = float(accelerator.clip_grad_norm_(model.parameters(), config.clip_norm))
            if not math.isfinite(loss_sum) or not (math.isfinite(norm) or accelerator.scaler):
                _stop_diverged(run, config, step, batch, loss_sum / max(counts[0], 1), norm, loader, parts)
            optimizer.step()
            optimizer.zero_grad()
            step += 1

            ended = step == config.max_steps
            stopped = bool(num_stops) and not ended
            meter.add(loss_sum=loss_sum, num_correct=num_correct, counts=counts, waited_s=waited_s)
            log.advance()
            if step % config.log_every == 0 or ended:
                log.write(step, **meter.values(), lr=lr, gradient_norm=norm, stage=batch["stage"], epoch=batch["epoch"])
                meter.clear()
            with meter.pause():
                if step % config.eval_every == 0 or ended:
                    masks = valid[min(loader.stage, len(valid) - 1)]
                    found = evaluate(accelerator.unwrap_model(model), masks, accelerator)
                    if loader.stream.config.curriculum.adaptive:
                        loader.observe(found.perplexity)  # decided on rank 0; takes effect switch_lag batches later
                    log.write(
                        step,
                        valid_loss=found.loss,
                        valid_perplexity=found.perplexity,
                        valid_accuracy=found.accuracy,
                        unigram_perplexity=baseline,
                        stage_log=loader.state_dict()["stage_log"],
                    )
                if step % config.save_every == 0 or ended or stopped:
                    _save(checkpoint.folder_of(run, step), config, step, loader.state_dict(), parts)
                    checkpoint.keep_last(run, config.keep_last, accelerator)
            if stopped:
                break
    _finish(run, bert, accelerator, k=k, max_positions=max_positions, stopped=stopped)
    return not stopped


def _start(config: PretrainConfig, run: Path) -> Accelerator:
    """Return the accelerator, after a check of what depends on it; make the run's folder."""
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with=list(config.tracker) or None, project_dir=str(run)
    )
    config.check_processes(accelerator.num_processes)
    use_cores(accelerator, config.threads)
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
    if config.tracker:
        accelerator.init_trackers("gemsdata", config={name: str(value) for name, value in vars(config).items()})
    return accelerator


def _checkpoint_to_resume(config: PretrainConfig, run: Path) -> Path | None:
    """Return the newest checkpoint; raise ValueError when it is not to be resumed, or of a run with other options."""
    found = checkpoint.all_of(run)
    if not found:
        return None
    if not config.resume:
        raise ValueError(f"{run} holds a run already, up to {found[-1].name}; go on with --resume, or choose another")
    config.check_resumable(checkpoint.read_state(found[-1])["config"])
    return found[-1]


def _validation_maskings(config: PretrainConfig) -> list[Any]:
    """Return the masking of the validation rows in each stage: one, unless the curriculum wants its own."""
    curriculum = config.curriculum()
    return [config.eval_masking] if curriculum.frozen_evaluation else list(curriculum.maskings())


def _timed(loader: gd.Loader) -> Iterator[tuple[dict[str, Any], float]]:
    """Yield batches with the seconds that each was waited for."""
    batches = iter(loader)
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - asked


def _over_processes(batch: dict[str, Any], stop: bool, accelerator: Accelerator) -> list[int]:
    """Return masked tokens, rows, tokens, and how many processes were asked to stop, over all processes."""
    masked, tokens = (batch["labels"] != -100).sum(), batch["attention_mask"].sum()
    own = torch.stack([masked, tokens.new_tensor(len(batch["sample_ids"])), tokens, tokens.new_tensor(int(stop))])
    return accelerator.reduce(own, "sum").tolist()


def _cut(batch: dict[str, Any], rows: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield micro-batches of a process's batch: rows of like length together, without columns of padding only."""
    lengths = batch["attention_mask"].sum(1)
    order = torch.argsort(lengths, stable=True)
    for chosen in order.split(rows):
        longest = int(lengths[chosen].max())
        yield {name: values[chosen, :longest] for name, values in gd.model_inputs(batch).items()}


def _save(folder: Path, config: PretrainConfig, step: int, stream: dict[str, Any], parts: dict[str, Any]) -> None:
    checkpoint.save(folder, step=step, loader=stream, config=dataclasses.asdict(config), **parts)


def _stop_diverged(
    run: Path,
    config: PretrainConfig,
    step: int,
    batch: dict[str, Any],
    loss: float,
    norm: float,
    loader: gd.Loader,
    parts: dict[str, Any],
) -> NoReturn:
    """Save the state before the update that failed, and raise `Stopped`."""
    folder = run / "diverged" / checkpoint.folder_of(run, step).name
    _save(folder, config, step, {**loader.state_dict(), "step": step}, parts)
    rows = gather_object(batch["sample_ids"].tolist())
    if parts["accelerator"].is_main_process:
        write_text(folder / "rows.json", json.dumps({"step": step, "stage": batch["stage"], "sample_ids": rows}) + "\n")
    shown = ", ".join(str(row) for row in rows[:8]) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
    raise Stopped(
        f"at step {step} the loss is {loss:.4g} and the gradient's norm {norm:.4g}, on rows {shown} (all in"
        f" {folder / 'rows.json'}); the state before that step is saved beside; try a lower --peak-lr, or bf16 for fp16"
    )


def _finish(
    run: Path, bert: torch.nn.Module, accelerator: Accelerator, *, k: int, max_positions: int, stopped: bool
) -> None:
    """Write the model folder (of a complete run) and the figure, and say where they are."""
    if accelerator.is_main_process:
        if not stopped:
            bert.save_pretrained(run / "final", save_original_format=False)
            gd.KmerTokenizer(k, model_max_length=max_positions).save_pretrained(run / "final")
        draw_run(run)
        print(
            f"{run}: interrupted after {checkpoint.all_of(run)[-1].name}; --resume goes on"
            if stopped
            else f"{run}: complete; the model is in {run / 'final'}, the figure {run / 'training.png'}"
        )
    accelerator.end_training()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    transformers_logging.disable_progress_bar()

    def run() -> int:
        config = parse(PretrainConfig, arguments, prog="train/pretrain.py", description=__doc__.split("\n")[0])
        return 0 if train(config) else INTERRUPTED

    return exit_status(run, report=lambda: int(os.environ.get("RANK", "0")) == 0)


if __name__ == "__main__":
    sys.exit(main())
