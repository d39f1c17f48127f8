"""Output of a run: metrics.jsonl, trackers, the progress bar or progress lines."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from tqdm import tqdm

from gemsdata.cli.output import is_quiet
from gemsdata.files.publish import write_text
from gemsdata.kernels import mask

SECONDS_BETWEEN_LINES = 30.0
"""interval of progress lines, if standard error is not a terminal"""


class BatchCounts(NamedTuple):
    """Numbers of a batch, over all processes."""

    masked: int
    """masked tokens"""
    rows: int
    tokens: int
    stops: int
    """processes that received a signal to stop"""
    weight: float
    """sum of the weights of the masked tokens in the loss; each is 1 unless the batch has ``loss_weights``"""


def batch_counts(batch: dict[str, Any], stop: bool, accelerator: Accelerator) -> BatchCounts:
    """Return the numbers of this update's batch, summed over all processes; must be called by all of them."""
    masked = batch["labels"] != -100
    num_masked, tokens = masked.sum(), batch["attention_mask"].sum()
    own = torch.stack([num_masked, tokens.new_tensor(len(batch["sample_ids"])), tokens, tokens.new_tensor(int(stop))])
    counts = accelerator.reduce(own, "sum").tolist()
    weight = counts[0]
    if "loss_weights" in batch:
        weight = float(accelerator.reduce(batch["loss_weights"][masked].sum(), "sum"))
    return BatchCounts(*counts, weight)


class Meter:
    """Means and rates over the updates since the last line of the log."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Set all sums to 0 and restart the clock."""
        self.loss_sum = self.weight = self.num_correct = self.waited_s = 0.0
        self.num_masked = self.num_rows = self.num_tokens = 0
        self._began = time.perf_counter()

    def timed(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield ``batches`` and add up the time spent waiting for them."""
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self.waited_s += time.perf_counter() - asked
            yield batch

    def add(self, counts: BatchCounts, *, loss_sum: float, num_correct: float) -> None:
        """Add an update: sums over all processes."""
        self.loss_sum += loss_sum
        self.num_correct += num_correct
        self.weight += counts.weight
        self.num_masked += counts.masked
        self.num_rows += counts.rows
        self.num_tokens += counts.tokens

    def values(self) -> dict[str, float]:
        """Return the means and rates since the last call of `clear`."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        return {
            "loss": self.loss_sum / max(self.weight, 1e-9),
            "masked_accuracy": self.num_correct / max(self.num_masked, 1),
            "rows_per_s": self.num_rows / seconds,
            "tokens_per_s": self.num_tokens / seconds,
            "data_wait_share": self.waited_s / seconds,
        }

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Exclude the time spent in the context from the rates."""
        entered = time.perf_counter()
        yield
        self._began += time.perf_counter() - entered


@dataclass
class _Progress:
    """Progress lines on standard error at fixed intervals, for logs of batch jobs."""

    num_steps: int
    first_step: int
    began: float
    last_line: float

    def line(self, step: int, shown: dict[str, str]) -> str | None:
        """Return the line to print after update ``step``; None if the interval is not over."""
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES and step < self.num_steps:
            return None
        self.last_line = now
        rate = (step - self.first_step) / max(now - self.began, 1e-9)
        left_s = int((self.num_steps - step) / rate) if rate > 0 else 0
        left = f"{left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02}"
        values = "".join(f", {name.replace('_', ' ')} {value}" for name, value in shown.items())
        return f"step {step:,} of {self.num_steps:,}{values}, {rate:.3g} steps/s, {left} left"


class RunLog:
    """Writes metrics.jsonl, passes values to the trackers, shows progress; only on the main process."""

    def __init__(self, run: Path, accelerator: Accelerator, *, step: int, num_steps: int) -> None:
        self._path = run / "metrics.jsonl"
        self._accelerator = accelerator
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=num_steps,
            initial=step,
            unit="step",
            disable=not (accelerator.is_main_process and terminal) or is_quiet(),
            file=sys.stderr,
            dynamic_ncols=True,
        )
        now = time.monotonic()
        lines = accelerator.is_main_process and not terminal and not is_quiet()
        self._progress = _Progress(num_steps, step, now, now) if lines else None
        self._shown: dict[str, str] = {}
        if accelerator.is_main_process and self._path.exists():
            kept = [line for line in read_metrics(self._path) if line["step"] <= step]  # later steps are repeated
            write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, step: int, loss: float) -> None:
        """Show that update ``step`` is done."""
        self._shown["loss"] = f"{loss:.4g}"
        self._bar.update()
        self._bar.set_postfix(self._shown, refresh=False)
        if self._progress is not None and (line := self._progress.line(step, self._shown)):
            print(line, file=sys.stderr, flush=True)

    def write(self, step: int, **values: Any) -> None:
        """Append a line to metrics.jsonl, {"step": updates done, ...}, and pass its numbers to the trackers."""
        if not self._accelerator.is_main_process:
            return
        with open(self._path, "a") as stream:
            stream.write(json.dumps({"step": step, **{name: _finite(value) for name, value in values.items()}}) + "\n")
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        self._accelerator.log(numbers, step=step)
        self._shown |= {name: f"{values[name]:.4g}" for name in ("valid_perplexity", "stage") if name in values}


def note_compilation(speaks: bool, *, model: bool) -> None:
    """Print a note that kernels (if their cache is empty) or the model (if requested) are compiled first."""
    parts = [] if _kernels_are_compiled() else ["the masking kernels are compiled once on this machine (half a minute)"]
    parts += ["the model is compiled during the first updates (minutes)"] if model else []
    if speaks and parts and not is_quiet():
        print(f"note: {' and '.join(parts)}", file=sys.stderr, flush=True)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl, without an incomplete last line."""
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def _kernels_are_compiled() -> bool:
    """Return whether numba's cache on disk contains kernels."""
    folders = {Path(kernel.stats.cache_path) for kernel in vars(mask).values() if hasattr(kernel, "stats")}
    return not folders or any(any(folder.glob("*.nbi")) for folder in folders)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
