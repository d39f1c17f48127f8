"""Fine-tune a pretrained model on labelled sequences, or predict with a fine-tuned one.

    accelerate launch train/finetune.py --model RUN/final --train train.tsv --test test.tsv --output-dir FT
    accelerate launch train/finetune.py --model FT/final --predict new.tsv --output-dir PREDICTED

`finetune` and `_train` contain the whole program, in order.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a file: make the package `train` importable, not its modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from gemsdata.cli.malloc import keep_freed_memory
from gemsdata.cli.output import is_quiet, print_json, say
from gemsdata.files.publish import write_text
from train.classifier import ClassLogits, classification_loss, load_classifier, probabilities
from train.encoder import Encoder
from train.labelled import Labelled, batches, class_ids, class_names, read_labelled
from train.metrics import scores
from train.optimizer import adamw, learning_rate, set_learning_rate
from train.options import option, parsed
from train.pooling import POOLINGS, check_pooling
from train.program import Stopped, exit_status, is_first_process, set_threads
from train.recipes import FinetuneRecipe, finetune_recipe, finetune_recipe_names

_SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Options of train/finetune.py; None stands for the recipe's value."""

    model: str = option("Hugging Face folder of a pretrained model; without --train, of a fine-tuned one")
    output_dir: str = option("folder of the results")
    train: str | None = option("TSV or CSV file to train on, with columns sequence and label", None)
    dev: str | None = option("file whose loss selects the best state; default: the last state", None)
    test: str | None = option("file to score once at the end", None)
    predict: tuple[str, ...] = option("files to predict, with or without labels", ())
    recipe: str = option("recipe: " + ", ".join(finetune_recipe_names()), "fewshot")
    epochs: int | None = option("passes over the training rows", None)
    max_steps: int | None = option("updates, instead of epochs", None)
    batch_rows: int | None = option("rows per update, over all processes", None)
    peak_lr: float | None = option("highest learning rate", None)
    dropout: float | None = option("dropout of all layers and the classifier", None)
    pooling: str | None = option(
        f"classify by the states of {', '.join(POOLINGS)}; default: the architecture's own classifier", None
    )
    random_weights: bool = option("start from random weights, as a baseline", False)
    trust_remote_code: bool = option("run the Python code in the model's folder", False)
    text_form: str | None = option("form of the text for the tokenizer: bases or kmers; default: detected", None)
    other_letters: str = option("what to do with sequences with N and other letters: error, drop or unk", "error")
    sequence_column: str = option("name of the column of sequences", "sequence")
    label_column: str = option("name of the column of labels", "label")
    seed: int = option("random seed of new weights, dropout and the order of rows", 42)
    mixed_precision: str | None = option("precision: no, bf16 or fp16; default: that of `accelerate config`", None)
    threads: int | None = option(
        "threads of torch on CPU for each process; default: the cores divided among the processes", None
    )
    no_model: bool = option("write scores and predictions, but no model", False)
    scores_only: bool = option("write metrics.json only", False)


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Train, select, score and predict according to ``config``; return the contents of metrics.json.

    Raises ValueError and FileNotFoundError for invalid values in ``config``, `Stopped` if the loss is not finite.
    """
    _check(config)
    files = {name: _read(path, config) for name in _SPLITS if (path := getattr(config, name))}
    to_predict = [_read(path, config, needs_labels=False) for path in config.predict]
    recipe = _recipe(config, files.get("train"))
    unused_weights = DistributedDataParallelKwargs(find_unused_parameters=True)  # such as ESM's head for contacts
    accelerator = Accelerator(mixed_precision=config.mixed_precision, kwargs_handlers=[unused_weights])
    set_threads(accelerator, config.threads)
    set_seed(config.seed)
    classifier = load_classifier(
        config.model,
        class_names(files["train"].labels or []) if "train" in files else None,
        pooling=config.pooling,
        dropout=recipe.dropout,
        random_weights=config.random_weights,
        text_form=config.text_form,
        trust_remote_code=config.trust_remote_code,
    )
    encoder, classes = classifier.encoder, classifier.classes
    truth = {name: class_ids(rows, classes) for name, rows in files.items()}
    tokens = {name: encoder.encode(rows.sequences) for name, rows in files.items()}
    results: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "k": encoder.k,
        "classes": classes,
        "rows": {name: _rows(rows, tokens[name], encoder, accelerator) for name, rows in files.items()},
    }
    model = accelerator.prepare(ClassLogits(classifier.model))
    if "train" in files:
        results["recipe"] = dataclasses.asdict(recipe)
        results |= _train(model, tokens, truth, recipe, config.seed, accelerator, encoder.pad_id)
    scored = [name for name in files if name != "train"]
    found = {name: probabilities(model, tokens[name], accelerator, pad_id=encoder.pad_id) for name in scored}
    results |= {name: scores(found[name], truth[name]) for name in scored}
    predicted = []
    for rows in to_predict:
        encoded = encoder.encode(rows.sequences)
        _rows(rows, encoded, encoder, accelerator)
        predicted.append(probabilities(model, encoded, accelerator, pad_id=encoder.pad_id))

    if accelerator.is_main_process:
        out = Path(config.output_dir)
        out.mkdir(parents=True, exist_ok=True)
        if "train" in files and not config.no_model and not config.scores_only:
            accelerator.unwrap_model(model).model.save_pretrained(out / "final", save_original_format=False)
            encoder.tokenizer.save_pretrained(out / "final")
        if "test" in files and not config.scores_only:
            write_text(
                out / "test.predictions.tsv", _table("label", files["test"].labels or [], found["test"], classes)
            )
        for rows, probability in zip(to_predict, predicted, strict=True):
            table = _table("sequence", rows.sequences, probability, classes)
            write_text(out / f"{rows.path.stem}.predictions.tsv", table)
        write_text(out / "metrics.json", json.dumps(results, indent=1) + "\n")
    accelerator.wait_for_everyone()
    return results


def _train(
    model: torch.nn.Module,
    tokens: dict[str, list[np.ndarray]],
    truth: dict[str, np.ndarray],
    recipe: FinetuneRecipe,
    seed: int,
    accelerator: Accelerator,
    pad_id: int,
) -> dict[str, Any]:
    """Train ``model`` in place; return the curve and, with dev rows, the step of the selected state."""
    num_rows = len(truth["train"])
    steps_per_epoch = -(-num_rows // recipe.batch_rows)
    num_steps = recipe.max_steps or steps_per_epoch * (recipe.epochs or 1)
    warmup_steps = min(recipe.warmup_steps or int(recipe.warmup_share * num_steps), num_steps - 1)
    eval_every = recipe.eval_every or steps_per_epoch
    optimizer = accelerator.prepare(adamw(model, lr=recipe.peak_lr, weight_decay=recipe.weight_decay))
    set_seed(seed, device_specific=True)  # dropout differs between processes
    order = np.random.default_rng(seed)
    curve: list[dict[str, Any]] = []
    losses: list[float] = []
    best: dict[str, Any] = {"loss": math.inf}
    step = 0
    silent = not (accelerator.is_main_process and sys.stderr.isatty()) or is_quiet()
    model.train()
    with tqdm(total=num_steps, unit="step", disable=silent, dynamic_ncols=True) as bar:
        while step < num_steps:
            rows = order.permutation(num_rows)
            for chosen, batch in batches(tokens["train"], rows, recipe.batch_rows, pad_id=pad_id):
                if step == num_steps:
                    break
                lr = learning_rate(step, peak=recipe.peak_lr, warmup_steps=warmup_steps, num_steps=num_steps)
                set_learning_rate(optimizer, lr)
                loss = classification_loss(model, batch, truth["train"][chosen], accelerator)
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                losses.append(float(accelerator.reduce(loss.detach(), "mean")))
                if not math.isfinite(losses[-1]):
                    raise Stopped(f"the loss is {losses[-1]} at step {step}; try a lower --peak-lr, or bf16 for fp16")
                optimizer.step()
                optimizer.zero_grad()
                step += 1
                bar.update()
                if step % eval_every == 0 or step == num_steps:
                    curve.append({"step": step, "loss": float(np.mean(losses))})
                    losses = []
                    if "dev" in truth:
                        guessed = probabilities(model, tokens["dev"], accelerator, pad_id=pad_id)
                        found = scores(guessed, truth["dev"])
                        curve[-1] |= {f"dev_{name}": value for name, value in found.items()}
                        if found["loss"] < best["loss"]:
                            weights = accelerator.unwrap_model(model).state_dict()
                            copied = {name: value.detach().cpu().clone() for name, value in weights.items()}
                            best = {"loss": found["loss"], "step": step, "weights": copied}
                    bar.set_postfix({name: f"{value:.4g}" for name, value in curve[-1].items() if "loss" in name})
    if "weights" not in best:
        return {"curve": curve}
    accelerator.unwrap_model(model).load_state_dict(best["weights"])
    return {"curve": curve, "best_step": best["step"]}


def _check(config: FinetuneConfig) -> None:
    if not config.train and not config.test and not config.predict:
        raise ValueError("nothing to do: give --train, --test or --predict files")
    if config.dev and not config.train:
        raise ValueError("--dev selects a state of a training, but no --train is given; use --test to score the file")
    for name in ("epochs", "max_steps", "batch_rows"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value}; give 1 or more")
    if config.pooling is not None:
        check_pooling(config.pooling)
        if not config.train:
            raise ValueError(
                "--pooling is for a new classifier, but no --train is given; a fine-tuned model has its own"
            )
    if config.epochs and config.max_steps:
        raise ValueError("give --epochs or --max-steps, not both")
    if config.predict and config.scores_only:
        raise ValueError("--scores-only writes no predictions; omit it or --predict")
    stems = [Path(path).stem for path in config.predict] + ["test"] * bool(config.test)
    if len(set(stems)) < len(stems):
        raise ValueError(f"two files would have the same predictions.tsv ({', '.join(stems)}); use separate runs")


def _read(path: str, config: FinetuneConfig, *, needs_labels: bool = True) -> Labelled:
    return read_labelled(
        path,
        needs_labels=needs_labels,
        other_letters=config.other_letters,
        sequence_column=config.sequence_column,
        label_column=config.label_column,
    )


def _recipe(config: FinetuneConfig, rows: Labelled | None) -> FinetuneRecipe:
    """Return the recipe, overridden by the given options."""
    labels = (rows.labels if rows is not None else None) or []
    found = finetune_recipe(config.recipe, num_rows=len(labels), num_classes=len(set(labels)))
    names = ("epochs", "max_steps", "batch_rows", "peak_lr", "dropout")
    own = {name: value for name in names if (value := getattr(config, name)) is not None}
    if "epochs" in own or "max_steps" in own:
        found = dataclasses.replace(found, epochs=None, max_steps=None)
    return dataclasses.replace(found, **own)


def _rows(rows: Labelled, tokens: list[np.ndarray], encoder: Encoder, accelerator: Accelerator) -> dict[str, int]:
    """Return how many rows of a file are used, dropped and truncated; print a note if any are truncated."""
    num_cut = encoder.num_cut(rows.sequences, tokens)
    if num_cut and accelerator.is_main_process and not is_quiet():
        longest = f"{encoder.max_tokens} tokens"
        if encoder.k and encoder.max_tokens:
            longest = f"{encoder.max_tokens - 2 + encoder.k - 1} bases"
        print(f"note: {num_cut} sequences of {rows.path} are truncated to {longest}", file=sys.stderr)
    return {"used": len(rows), "dropped": rows.num_dropped, "cut": num_cut}


def _table(column: str, cells: list[str], found: np.ndarray, classes: list[str]) -> str:
    """Return predictions as TSV: a column of ``cells``, the prediction, a probability for each class."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow([column, "prediction", *(f"p_{name}" for name in classes)])
    for cell, row in zip(cells, found, strict=True):
        writer.writerow([cell, classes[int(row.argmax())], *(f"{value:.6f}" for value in row)])
    return stream.getvalue()


def _print_results(results: dict[str, Any], config: FinetuneConfig, as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    for name in ("dev", "test"):
        found = {key: value for key, value in results.get(name, {}).items() if value is not None}
        if found:
            print(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in found.items()))
    say(f"{config.output_dir}: complete")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    transformers_logging.disable_progress_bar()
    keep_freed_memory()  # activations are tens of megabytes; page faults on new memory cost a tenth of a step

    def run() -> int:
        description = __doc__.split("\n")[0]
        with parsed(FinetuneConfig, arguments, prog="train/finetune.py", description=description) as (config, as_json):
            results = finetune(config)
            if is_first_process():
                _print_results(results, config, as_json)
        return 0

    left = "nothing was written; run the same command again"
    return exit_status(run, interrupted=left, report=is_first_process)


if __name__ == "__main__":
    sys.exit(main())
