"""What a run says of itself: metrics.jsonl, trackers, the progress bar."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm


class Meter:
    """Sums over the updates since the last line."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.loss_sum = self.num_correct = self.num_masked = self.num_rows = self.num_tokens = 0.0
        self.waited_s = 0.0
        self._began = time.perf_counter()

    def add(self, *, loss_sum: float, num_correct: float, counts: list[float], waited_s: float) -> None:
        """Add an update: sums over all processes; ``counts`` are its masked tokens, rows and tokens."""
        self.loss_sum += loss_sum
        self.num_correct += num_correct
        self.num_masked += counts[0]
        self.num_rows += counts[1]
        self.num_tokens += counts[2]
        self.waited_s += waited_s

    def values(self) -> dict[str, float]:
        """Return the means and rates since the last call to `clear`."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        return {
            "loss": self.loss_sum / max(self.num_masked, 1),
            "masked_accuracy": self.num_correct / max(self.num_masked, 1),
            "rows_per_s": self.num_rows / seconds,
            "tokens_per_s": self.num_tokens / seconds,
            "data_wait_share": self.waited_s / seconds,
        }

    def pause(self) -> Pause:
        """Return a context whose time does not count."""
        return Pause(self)


class Pause:
    """Leaves the time spent inside out of a meter's rates."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._meter._began += time.perf_counter() - self._entered


class RunLog:
    """Writes metrics.jsonl, tells the trackers, and moves the bar; silent on all processes but the main one."""

    def __init__(self, run: Path, accelerator: Accelerator, *, step: int, num_steps: int) -> None:
        self._path = run / "metrics.jsonl"
        self._accelerator = accelerator
        self._bar = tqdm(
            total=num_steps,
            initial=step,
            unit="step",
            disable=not (accelerator.is_main_process and sys.stderr.isatty()),
            file=sys.stderr,
            dynamic_ncols=True,
        )
        self._shown: dict[str, str] = {}
        if accelerator.is_main_process and self._path.exists():
            kept = [line for line in read_metrics(self._path) if line["step"] <= step]  # the rest is done once more
            self._path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        """Move the bar by an update."""
        self._bar.update()

    def write(self, step: int, **values: Any) -> None:
        """Append a line to metrics.jsonl, {"step": updates done, ...}, and pass its numbers to the trackers."""
        if not self._accelerator.is_main_process:
            return
        with open(self._path, "a") as stream:
            stream.write(json.dumps({"step": step, **{name: _finite(value) for name, value in values.items()}}) + "\n")
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        self._accelerator.log(numbers, step=step)
        shown = ("loss", "valid_perplexity", "stage")
        self._shown |= {name: f"{values[name]:.4g}" for name in shown if name in values}
        self._bar.set_postfix(self._shown)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; a last line that was cut off is left out."""
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
