"""Rows of 512 tokens masked per second on one core: every strategy, HF's collator and vectorised numpy.

    python -m bench.bench_masking [--rounds 7] [--write]

All compute the same output from the same rows: corrupted ids, labels and an attention mask, 512 wide. The rounds are
interleaved, so that changes of the machine's speed affect all of them; the figures are medians. HF's collator gets
samples that are already tensors, its fastest input, and masks independent tokens, the simplest strategy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import click
import numpy as np

from bench.table import machine, markdown, write_section
from gemsdata.masking import masker as masking
from gemsdata.masking.registry import names
from gemsdata.masking.strategies import Strategy, resolve

BATCH_ROWS = 256
ROW_TOKENS = 510
K = 6
NUM_KMERS = 4**K


def make_rows(num_rows: int) -> np.ndarray:
    """Overlapping 6-mers of random bases, uint16[num_rows, 510]."""
    bases = np.random.default_rng(0).integers(0, 4, (num_rows, ROW_TOKENS + K - 1))
    return sum(bases[:, i : i + ROW_TOKENS] * 4 ** (K - 1 - i) for i in range(K)).astype(np.uint16) + np.uint16(5)


def ours(strategy: Strategy, rows: np.ndarray, ranks: np.ndarray) -> Callable[[], None]:
    masker = masking.Masker(strategy, ranks=ranks)
    num_tokens = np.full(BATCH_ROWS, ROW_TOKENS, np.uint16)
    out = masker.empty_batch(BATCH_ROWS, ROW_TOKENS)
    row_ids = np.arange(len(rows))

    def run() -> None:
        for first in range(0, len(rows), BATCH_ROWS):
            here = slice(first, first + BATCH_ROWS)
            masker.batch(rows[here], num_tokens, row_ids[here], out=out)

    return run


def hugging_face(rows: np.ndarray) -> Callable[[], None]:
    import torch
    from transformers import DataCollatorForLanguageModeling

    from gemsdata.views.tokenizer import KmerTokenizer

    torch.set_num_threads(1)
    collator = DataCollatorForLanguageModeling(KmerTokenizer(K), mlm_probability=0.15)
    framed = np.pad(rows.astype(np.int64), ((0, 0), (1, 1)))
    framed[:, 0], framed[:, -1] = 2, 3
    ones = torch.ones(ROW_TOKENS + 2, dtype=torch.int64)
    samples = [{"input_ids": torch.from_numpy(row), "attention_mask": ones} for row in framed]

    def run() -> None:
        for first in range(0, len(samples), BATCH_ROWS):
            collator(samples[first : first + BATCH_ROWS])

    return run


def vectorised(select: Callable[..., np.ndarray], rows: np.ndarray, ranks: np.ndarray) -> Callable[[], None]:
    """Mask with numpy only: no loop over rows or tokens, random numbers only where needed."""
    rng = np.random.default_rng(0)
    shape = (BATCH_ROWS, ROW_TOKENS + 2)
    input_ids, labels, mask = np.empty(shape, np.uint16), np.empty(shape, np.int16), np.ones(shape, np.uint8)

    def run() -> None:
        for first in range(0, len(rows), BATCH_ROWS):
            ids = rows[first : first + BATCH_ROWS]
            masked = select(ids, ranks, rng)
            input_ids[:, 0], input_ids[:, 1:-1], input_ids[:, -1] = 2, ids, 3
            labels.fill(-100)
            row, token_pos = np.nonzero(masked)
            labels[row, token_pos + 1] = ids[row, token_pos]
            draw = rng.random(len(row), np.float32)
            seen = np.where(draw < 0.8, 4, ids[row, token_pos])
            at_random = draw >= 0.9
            seen[at_random] = rng.integers(5, NUM_KMERS + 5, int(at_random.sum()))
            input_ids[row, token_pos + 1] = seen
            mask.fill(1)

    return run


def numpy_random_token(ids: np.ndarray, ranks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.random(ids.shape, np.float32) < 0.15


def cover(shape: tuple[int, int], row: np.ndarray, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """True inside the spans (clipped): +1 where one begins, -1 where it ends, and a running sum."""
    edges = np.zeros((shape[0], shape[1] + 1), np.int8)
    np.add.at(edges, (row, np.maximum(lo, 0)), 1)
    np.add.at(edges, (row, np.minimum(hi, shape[1])), -1)
    return np.cumsum(edges, axis=1, dtype=np.int8)[:, :-1] > 0


def numpy_genemask(ids: np.ndarray, ranks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row, centre = np.nonzero(rng.random(ids.shape, np.float32) < 0.0176)
    window = np.clip(centre[:, None] + np.arange(-2, 4), 0, ids.shape[1] - 1)
    window_ranks = ranks[ids[row[:, None], window]]
    which = window_ranks.argmin(1)
    best = window[np.arange(len(row)), which]
    order = np.lexsort((window_ranks[np.arange(len(row)), which], row))
    row, centre, best = row[order], centre[order], best[order]
    count = np.bincount(row, minlength=len(ids))
    place = np.arange(len(row)) - (np.cumsum(count) - count)[row]
    high = place < (count[row] + 1) // 2
    return cover(ids.shape, row, np.where(high, best - 5, centre - 2), np.where(high, best + 6, centre + 4))


def numpy_global(ids: np.ndarray, ranks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    count = rng.binomial(ids.shape[1], 0.0136, len(ids))
    most = count.max()
    row_ranks = ranks[ids]
    top = np.argpartition(row_ranks, most, axis=1)[:, :most]
    top = np.take_along_axis(top, np.take_along_axis(row_ranks, top, 1).argsort(1), 1)
    row, place = np.nonzero(np.arange(most) < count[:, None])
    chosen = top[row, place]
    return cover(ids.shape, row, chosen - 5, chosen + 6)


NUMPY = {"random-token": numpy_random_token, "genemask": numpy_genemask, "global": numpy_global}


def measure(num_rows: int, rounds: int) -> dict[str, float]:
    """Median rows per second of each contender."""
    rows = make_rows(num_rows)
    ranks = np.append(np.full(5, NUM_KMERS), np.random.default_rng(1).permutation(NUM_KMERS) + 1).astype(np.uint16)
    few = rows[: max(BATCH_ROWS, num_rows // 16)]
    contenders = {"HF DataCollatorForLanguageModeling": (hugging_face(few), len(few))}
    for name, select in NUMPY.items():
        part = rows[: max(BATCH_ROWS, num_rows // 4)]
        contenders[f"numpy {name}"] = (vectorised(select, part, ranks), len(part))
    for name in names():
        contenders[name] = (ours(resolve(name), rows, ranks), len(rows))
    for name in ("genemask", "global"):
        contenders[f"{name}, budget 0.15"] = (ours(resolve(name, budget=0.15), rows, ranks), len(rows))
        contenders[f"{name}, corruption span"] = (
            ours(resolve(name, corruption="span"), rows, ranks),
            len(rows),
        )
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, (run, count) in contenders.items():
            began = time.perf_counter()
            run()
            if turn:  # the first turn compiles and warms up
                speeds[name].append(count / (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in speeds.items()}


@click.command()
@click.option("--rows", type=int, default=8192, show_default=True, help="Rows in a round.")
@click.option("--rounds", type=int, default=7, show_default=True)
@click.option("--write", is_flag=True, help="Write the table into docs/benchmarks.md.")
def main(rows: int, rounds: int, write: bool) -> None:
    """Print a Markdown table of rows per second on one core."""
    speeds = measure(rows // BATCH_ROWS * BATCH_ROWS, rounds)
    collator = speeds["HF DataCollatorForLanguageModeling"]
    lines = []
    for name, speed in speeds.items():
        same = speeds.get("numpy " + name.split(",")[0])
        versus = f"{speed / same:.1f}" if same and not name.startswith("numpy") else ""
        lines.append([name, f"{speed:,.0f}", f"{speed / collator:.1f}", versus])
    header = ["masking, one core", "rows of 512 tokens/s", "times faster than HF's collator", "times faster than numpy"]
    text = (
        f"Measured by `make bench` on {machine()}; medians of {rounds} rounds in which the contenders take turns; numpy"
        f" masks by the same strategy.\n\n{markdown(header, lines)}"
    )
    click.echo(text)
    if write:
        write_section("masking", text)


if __name__ == "__main__":
    main()
