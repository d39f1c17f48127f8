"""Pretrain a masked LM on shard sets, on a laptop, one GPU or many.

    accelerate launch train/pretrain.py --shards SHARDS --model logo --masking cm-gems --output-dir RUN

One update takes one batch of the loader, split into micro-batches that fit in memory; its loss is the mean over the
masked tokens of all processes, however it is split. `train` contains the whole program, in order.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

if __package__ in (None, ""):  # started as a file: make the package `train` importable, not its modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object, set_seed
from transformers.utils import logging as transformers_logging

import gemsdata as gd
from gemsdata.cli.malloc import keep_freed_memory
from gemsdata.cli.output import print_json, say
from gemsdata.files.publish import write_text
from gemsdata.shards.card import write_card
from gemsdata.shards.storage import place_name
from train import checkpoint
from train.baselines import baselines
from train.card import model_card
from train.checkpoint import TrainingState
from train.config import PretrainConfig
from train.evaluate import ValidationRows, evaluate, validation_rows
from train.figure import draw_run
from train.masked_lm import IGNORED, MaskedLM
from train.models import build_model, load_model
from train.optimizer import adamw, set_learning_rate
from train.options import parsed
from train.program import INTERRUPTED, Interrupt, Stopped, exit_status, is_first_process, set_threads
from train.rows import TrainingRows, open_rows
from train.run_log import BatchCounts, Meter, RunLog, batch_counts, note_compilation, read_metrics
from train.token_bases import TokenBases


def train(config: PretrainConfig) -> bool:
    """Run a pretraining; return False if it was interrupted (and saved) before its end.

    Raises ValueError and FileNotFoundError for invalid values in ``config``, `Stopped` if the loss is not finite.
    """
    config = config.resolved()
    run = Path(config.output_dir)
    rows = open_rows(config.shards, config.view)
    accelerator = _start(config, run)
    note_compilation(accelerator.is_main_process, model=config.compile)
    newest = _checkpoint_to_resume(config, run)
    set_seed(config.seed)
    state = _state(config, rows, accelerator)
    validation = _validation(config, rows)
    baseline = dataclasses.asdict(baselines(rows, validation[0])) if accelerator.is_main_process else {}
    set_seed(config.seed, device_specific=True)  # dropout differs between processes
    if newest is not None:
        checkpoint.load(newest, state)

    model, optimizer, loader = state.model, state.optimizer, state.loader
    stopped = False
    meter = Meter()
    with Interrupt() as interrupt, RunLog(run, accelerator, step=state.step, num_steps=config.max_steps) as log:
        for batch in meter.timed(_batches(loader, config, rows)):
            lr = config.learning_rate(state.step)
            set_learning_rate(optimizer, lr)
            counts = batch_counts(batch, interrupt.received, accelerator)
            loss_sum, num_correct = _backward(model, batch, counts, config.micro_batch_rows, accelerator)
            loss = loss_sum / max(counts.weight, 1e-9)
            norm = float(accelerator.clip_grad_norm_(model.parameters(), config.clip_norm))
            if not math.isfinite(loss) or not (math.isfinite(norm) or accelerator.scaler):
                _stop_diverged(run, state, batch, loss, norm)
            optimizer.step()
            optimizer.zero_grad()
            state.step += 1

            ended = state.step == config.max_steps
            stopped = bool(counts.stops) and not ended
            meter.add(counts, loss_sum=loss_sum, num_correct=num_correct)
            log.advance(state.step, loss)
            if state.step % config.log_every == 0 or ended:
                position = {"stage": batch["stage"], "epoch": batch["epoch"]}
                log.write(state.step, **meter.values(), lr=lr, gradient_norm=norm, **position)
                meter.clear()
            with meter.pause():
                if state.step % config.eval_every == 0 or ended:
                    log.write(state.step, **_evaluate(state, validation, config), **baseline)
                if state.step % config.save_every == 0 or ended or stopped:
                    checkpoint.save(checkpoint.folder_of(run, state.step), state)
                    checkpoint.keep_last(run, config.keep_last, accelerator)
            if stopped:
                break
    _finish(run, state, config, rows, stopped=stopped)
    return not stopped


def _start(config: PretrainConfig, run: Path) -> Accelerator:
    """Return the accelerator, after checking the options that depend on it; create the run's folder."""
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, log_with=list(config.tracker) or None, project_dir=str(run)
    )
    config.check_processes(accelerator.num_processes)
    set_threads(accelerator, config.threads)
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        checkpoint.remove_unfinished(run)
    if config.tracker:
        accelerator.init_trackers("gemsdata", config={name: str(value) for name, value in vars(config).items()})
    return accelerator


def _checkpoint_to_resume(config: PretrainConfig, run: Path) -> Path | None:
    """Return the newest checkpoint; raise ValueError if --resume is not given, or the run had other options."""
    found = checkpoint.all_of(run)
    if not found:
        return None
    if not config.resume:
        raise ValueError(
            f"{run} already has a run, up to {found[-1].name}; continue with --resume, or give another --output-dir"
        )
    config.check_resumable(checkpoint.read_state(found[-1])["config"])
    return found[-1]


def _state(config: PretrainConfig, rows: TrainingRows, accelerator: Accelerator) -> TrainingState:
    """Return model, optimizer and loader at step 0."""
    if config.init_from:
        hf_model = load_model(config.init_from, rows.vocabulary, max_positions=rows.max_positions)
    else:
        hf_model = build_model(config.model, rows.vocabulary, max_positions=rows.max_positions)
    loader = gd.build_loader(
        rows.sources,
        curriculum=config.curriculum(),
        global_batch_size=config.batch_rows,
        num_steps=config.max_steps,
        seed=config.seed,
        weights=config.weights or None,
        reverse_complement=config.reverse_complement,
        num_workers=config.workers,
        threads=True,
        stage_lag=config.switch_lag,
    )
    loader = gd.prepare(accelerator, loader)
    model = MaskedLM(
        hf_model,
        compiled=config.compile,
        checkpointed=config.gradient_checkpointing,
        plain=accelerator.distributed_type == DistributedType.FSDP,
    )
    optimizer = adamw(model, lr=config.peak_lr, weight_decay=config.weight_decay, beta2=config.beta2, eps=1e-6)
    model, optimizer = accelerator.prepare(model, optimizer)
    return TrainingState(
        accelerator=accelerator,
        model=model,
        hf_model=hf_model,
        optimizer=optimizer,
        loader=loader,
        config=dataclasses.asdict(config),
    )


def _validation(config: PretrainConfig, rows: TrainingRows) -> list[ValidationRows]:
    """Return the validation rows of each stage: all the same, unless the curriculum evaluates with its own maskings."""
    curriculum = config.curriculum()
    maskings = [config.eval_masking] if curriculum.frozen_evaluation else curriculum.maskings()
    return [validation_rows(rows, masking, max_rows=config.eval_rows) for masking in maskings]


def _batches(loader: Iterable[dict[str, Any]], config: PretrainConfig, rows: TrainingRows) -> Iterator[dict[str, Any]]:
    """Yield the batches, with labels at the tokens that the loss is computed at."""
    tokens = TokenBases.of(rows.tokens)
    for batch in loader:
        if config.loss_on == "hidden":
            batch["labels"] = tokens.hidden_labels(batch["input_ids"], batch["labels"], IGNORED)
        yield batch


def _backward(
    model: torch.nn.Module, batch: dict[str, Any], counts: BatchCounts, micro_batch_rows: int, accelerator: Accelerator
) -> tuple[float, float]:
    """Compute the gradients of a batch; return its loss sum and number of correct predictions over all processes.

    If the batch has ``loss_weights``, they weight the loss of each masked token.
    """
    sums = torch.zeros(2, device=accelerator.device)
    micro_batches = list(_micro_batches(batch, micro_batch_rows))
    for i, micro_batch in enumerate(micro_batches, start=1):
        weights = micro_batch.pop("loss_weights", None)
        with nullcontext() if i == len(micro_batches) else accelerator.no_sync(model):
            found = model(**micro_batch)
            losses = found.losses if weights is None else found.losses * weights[micro_batch["labels"] != IGNORED]
            loss_sum = losses.sum()
            # gradients are averaged over processes; this factor makes it the mean over all masked tokens
            accelerator.backward(loss_sum * accelerator.num_processes / max(counts.weight, 1e-9))
        sums += torch.stack([loss_sum.detach(), found.correct.sum().float()])
    loss_sum, num_correct = accelerator.reduce(sums, "sum").tolist()
    return loss_sum, num_correct


def _micro_batches(batch: dict[str, Any], num_rows: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield micro-batches of a process's batch: rows of similar length together, without all-padding columns."""
    lengths = batch["attention_mask"].sum(1)
    order = torch.argsort(lengths, stable=True)
    inputs = gd.model_inputs(batch)
    if "loss_weights" in batch:
        inputs["loss_weights"] = batch["loss_weights"]
    for chosen in order.split(num_rows):
        longest = int(lengths[chosen].max())
        yield {name: values[chosen, :longest] for name, values in inputs.items()}


def _evaluate(state: TrainingState, validation: list[ValidationRows], config: PretrainConfig) -> dict[str, Any]:
    """Evaluate the model, report to an adaptive curriculum, and return the values to log."""
    loader = state.loader
    rows = validation[min(loader.stage, len(validation) - 1)]
    found = evaluate(state.model, rows, state.accelerator, micro_batch_rows=config.micro_batch_rows)
    if config.curriculum().adaptive:
        observed = found.all if config.switch_on == "all" else found.by_kind["mask"]
        loader.observe(observed.perplexity)  # decided on process 0; takes effect switch_lag batches later
    return {**found.as_log(), "stage_log": loader.state_dict()["stage_log"]}


def _stop_diverged(run: Path, state: TrainingState, batch: dict[str, Any], loss: float, norm: float) -> NoReturn:
    """Save the state before the update that failed, and raise `Stopped`."""
    folder = run / "diverged" / checkpoint.folder_of(run, state.step).name
    checkpoint.save(folder, state, loader={**state.loader.state_dict(), "step": state.step})
    rows = gather_object(batch["sample_ids"].tolist())
    if state.accelerator.is_main_process:
        content = {"step": state.step, "stage": batch["stage"], "sample_ids": rows}
        write_text(folder / "rows.json", json.dumps(content) + "\n")
    shown = ", ".join(str(row) for row in rows[:8]) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
    raise Stopped(
        f"at step {state.step} the loss is {loss:.4g} and the gradient norm {norm:.4g}, on rows {shown} (all in"
        f" {folder / 'rows.json'}); the state before that step is saved too; try a lower --peak-lr, or bf16 for fp16"
    )


def _finish(run: Path, state: TrainingState, config: PretrainConfig, rows: TrainingRows, *, stopped: bool) -> None:
    """Write the model folder (of a complete run) and the figure."""
    if not stopped:
        state.save_model(run / "final")
    if state.accelerator.is_main_process:
        if not stopped:
            rows.tokenizer().save_pretrained(run / "final")
            if config.card:
                write_card(run / "final", model_card(config, rows, read_metrics(run / "metrics.jsonl")))
        sets = ", ".join(place_name(place) for place in config.shards)
        subject = f"{place_name(config.model)}, {config.masking}, {sets}, seed {config.seed}"
        decided_by = "valid_loss" if config.switch_on == "all" else "valid_loss_mask"
        draw_run(run, config.curriculum(), subject, decided_by=decided_by)
    state.accelerator.end_training()


def _line(config: PretrainConfig, complete: bool) -> str:
    """Return a line that says where the results of a run are, or how to continue it."""
    run = Path(config.output_dir)
    if complete:
        return f"{run}: complete; the model is in {run / 'final'}, the figure in {run / 'training.png'}"
    return f"{run}: interrupted after {checkpoint.all_of(run)[-1].name}; continue with --resume"


def _summary(config: PretrainConfig, complete: bool) -> dict[str, Any]:
    """Return the summary of a run: the last logged values of the training and of the validation."""
    run = Path(config.output_dir)
    last: dict[str, Any] = {}
    for line in read_metrics(run / "metrics.jsonl"):
        last |= line
    model = str(run / "final") if complete else None
    return {"run": str(run), "complete": complete, "model": model, "last": last}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    transformers_logging.disable_progress_bar()
    keep_freed_memory()  # activations are tens of megabytes; page faults on new memory cost a tenth of a step

    def run() -> int:
        description = __doc__.split("\n")[0]
        with parsed(PretrainConfig, arguments, prog="train/pretrain.py", description=description) as (config, as_json):
            complete = train(config)
            if is_first_process():
                print_json(_summary(config, complete)) if as_json else say(_line(config, complete))
        return 0 if complete else INTERRUPTED

    left = "checkpoints in the output folder are kept; the same command with --resume continues"
    return exit_status(run, interrupted=left, report=is_first_process)


if __name__ == "__main__":
    sys.exit(main())
