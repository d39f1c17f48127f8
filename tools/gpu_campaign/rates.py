"""Rows per second, MFU and share of time spent waiting for data, of train/pretrain.py or of Hugging Face's Trainer.

    python -m tools.gpu_campaign.rates --shards SHARDS --side gemsdata --model logo --output rate.json

Trainer gets the same model, batch, precision and number of loader workers, tokenised rows in memory, and Hugging Face's
DataCollatorForLanguageModeling at 15 %. The first third of the updates is not counted.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

import gemsdata as gd
from gemsdata.files.publish import write_text
from gemsdata.genome.vocab import CLS_ID, SEP_ID
from gemsdata.views.options import ViewOptions
from tools.gpu_campaign.plan import SIDES
from train.config import PretrainConfig
from train.masked_lm import MaskedLM
from train.models import build_model
from train.pretrain import train
from train.rows import TrainingRows, open_rows
from train.run_log import read_metrics

_LOADER_WORKERS = 2
_ROWS_IN_MEMORY = 4096
_PEAK_TFLOPS = {"H100": 989.4, "H200": 989.4, "A100": 312.0, "L40S": 362.1, "L4": 121.0}
"""dense bf16, from NVIDIA's data sheets (H100 and H200: SXM)"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A training whose rate is measured."""

    shards: str
    model: str
    batch_rows: int
    micro_batch_rows: int
    num_steps: int
    mixed_precision: str
    compiled: bool

    @property
    def num_skipped(self) -> int:
        """Updates that are not counted."""
        return self.num_steps // 3


def measure_own(setting: Setting) -> dict[str, float]:
    """Return the rates of train/pretrain.py, from its log."""
    with tempfile.TemporaryDirectory() as folder:
        config = PretrainConfig(
            shards=(setting.shards,),
            output_dir=folder,
            model=setting.model,
            masking="genemask",
            max_steps=setting.num_steps,
            batch_rows=setting.batch_rows,
            micro_batch_rows=setting.micro_batch_rows,
            mixed_precision=setting.mixed_precision,
            compile=setting.compiled,
            workers=_LOADER_WORKERS,
            eval_every=setting.num_steps,
            eval_rows=setting.micro_batch_rows,
            log_every=1,
        )
        train(config)
        lines = [line for line in read_metrics(Path(folder) / "metrics.jsonl") if "rows_per_s" in line]
    counted = lines[setting.num_skipped :]
    seconds = sum(setting.batch_rows / line["rows_per_s"] for line in counted)
    waited = sum(line["data_wait_share"] * setting.batch_rows / line["rows_per_s"] for line in counted)
    return {"rows_per_s": setting.batch_rows * len(counted) / seconds, "data_wait_share": waited / seconds}


def measure_plain(setting: Setting) -> dict[str, float]:
    """Return the rates of Hugging Face's Trainer."""
    training = open_rows([setting.shards], ViewOptions())
    clock = _Clock(setting.num_skipped)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=setting.num_steps,
            per_device_train_batch_size=setting.micro_batch_rows,
            gradient_accumulation_steps=setting.batch_rows // setting.micro_batch_rows,
            bf16=setting.mixed_precision == "bf16",
            torch_compile=setting.compiled,
            dataloader_num_workers=_LOADER_WORKERS,
            use_cpu=not torch.cuda.is_available(),
            learning_rate=1e-4,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_steps=setting.num_steps,
        )
        trainer = _TimedTrainer(
            model=_model(setting, training),
            args=arguments,
            data_collator=DataCollatorForLanguageModeling(training.tokenizer(), mlm_probability=0.15),
            train_dataset=_rows(training),
            callbacks=[clock],
        )
        trainer.clock = clock
        trainer.train()
    rows = setting.batch_rows * (setting.num_steps - setting.num_skipped)
    return {"rows_per_s": rows / clock.seconds, "data_wait_share": clock.waited_s / clock.seconds}


class _Clock(TrainerCallback):
    """Times the updates after the first ones."""

    def __init__(self, num_skipped: int) -> None:
        self._num_skipped = num_skipped
        self.began = time.perf_counter()
        self.seconds = self.waited_s = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step == self._num_skipped:
            self.began, self.waited_s = time.perf_counter(), 0.0
        self.seconds = time.perf_counter() - self.began


class _TimedTrainer(Trainer):
    clock: _Clock

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        found = super().get_batch_samples(*args, **kwargs)
        self.clock.waited_s += time.perf_counter() - began
        return found


def _rows(training: TrainingRows) -> list[dict[str, list[int]]]:
    """Return tokenised rows, in memory."""
    (source,) = training.sources
    chosen = np.arange(min(_ROWS_IN_MEMORY, source.num_rows("train")))
    found = source.rows(chosen).tokens if isinstance(source, gd.View) else source.read("train", chosen)
    rows = zip(found.input_ids, found.num_tokens, strict=True)
    return [{"input_ids": [CLS_ID, *ids[:num_tokens].tolist(), SEP_ID]} for ids, num_tokens in rows]


def flops_of_a_row(setting: Setting, side: str) -> float:
    """Return the floating-point operations of forward and backward pass for a row, counted by torch."""
    training = open_rows([setting.shards], ViewOptions())
    loader = gd.build_loader(training.sources, masking="genemask", batch_size=setting.micro_batch_rows, threads=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = {name: values.to(device) for name, values in gd.model_inputs(next(iter(loader))).items()}
    model = _model(setting, training).to(device)
    with FlopCounterMode(display=False) as counter, torch.autocast(device.type, torch.bfloat16):
        loss = model(**batch).loss if side == "plain" else MaskedLM(model)(**batch).losses.mean()
        loss.backward()
    return counter.get_total_flops() / setting.micro_batch_rows


def _model(setting: Setting, training: TrainingRows) -> Any:
    torch.manual_seed(0)
    return build_model(setting.model, training.vocabulary, max_positions=training.max_positions)


def peak_tflops() -> tuple[float, str]:
    """Return the peak rate of the device in bf16, and where it is from; measured if the device is not known."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        for known in sorted(_PEAK_TFLOPS, key=len, reverse=True):
            if known in name.replace("-", " ").split():
                return _PEAK_TFLOPS[known], "data sheet"
    device, size = ("cuda", 8192) if torch.cuda.is_available() else ("cpu", 1024)
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times) / 1e12, "a matrix product"


@click.command()
@click.option("--shards", required=True)
@click.option("--side", type=click.Choice(SIDES), required=True)
@click.option("--model", required=True)
@click.option("--batch-rows", type=int, default=256, show_default=True)
@click.option("--micro-batch-rows", type=int, default=128, show_default=True)
@click.option("--steps", type=int, default=30, show_default=True)
@click.option("--mixed-precision", default="bf16", show_default=True)
@click.option("--compile", "compiled", is_flag=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(
    shards: str,
    side: str,
    model: str,
    batch_rows: int,
    micro_batch_rows: int,
    steps: int,
    mixed_precision: str,
    compiled: bool,
    output: Path,
) -> None:
    """Measure one side and write its rates."""
    setting = Setting(
        shards=shards,
        model=model,
        batch_rows=batch_rows,
        micro_batch_rows=micro_batch_rows,
        num_steps=steps,
        mixed_precision=mixed_precision,
        compiled=compiled,
    )
    found = measure_plain(setting) if side == "plain" else measure_own(setting)
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    of_model, computed = (flops_of_a_row(setting, name) for name in SIDES)
    peak, source = peak_tflops()
    content = {
        "side": side,
        "model": model,
        "compiled": compiled,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        **found,
        "mfu": found["rows_per_s"] * of_model / (peak * 1e12),
        "computed_share": 1.0 if side == "plain" else computed / of_model,
        "gflops_of_a_row": of_model / 1e9,
        "peak_tflops": peak,
        "peak_from": source,
        "memory_gib": memory,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
