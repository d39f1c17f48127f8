"""OUT/report.md: what a campaign has found so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eval.fewshot.tasks import PAIR_BY
from eval.gue.published import CM_GEMS
from eval.gue.report import report as gue_report
from eval.results.statistics import paired, summary
from eval.results.tables import comparisons_table, markdown, wide_table
from gemsdata.files.publish import write_text
from tools.gpu_campaign.plan import COMPARISONS, Piece, Scale
from tools.gpu_campaign.slices import COMPLETE, read_record, remaining
from train.run_log import read_metrics


def write_report(pieces: Sequence[Piece], scale: Scale, out: Path) -> Path:
    """Write the report from the results of the pieces that are complete; return its path."""
    parts = [
        "# GPU campaign",
        _state(pieces, out),
        "## CUDA against the CPU\n\n" + _check(out),
        "## Rates\n\n" + _rates(out),
        "## Pretrainings\n\n" + _pretrainings(out),
        "## Few-shot tasks\n\n" + _fewshot(out),
        "## GUE\n\n" + _gue(scale, out),
        "## Pieces\n\n" + _pieces(pieces, out),
    ]
    path = out / "report.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _state(pieces: Sequence[Piece], out: Path) -> str:
    num_complete = sum(read_record(out, piece).status == COMPLETE for piece in pieces)
    left = remaining(pieces, out)
    text = f"{num_complete} of {len(pieces)} pieces are complete"
    failed = len(pieces) - num_complete - len(left)
    text += f", {failed} failed" if failed else ""
    return f"{text}; the next is {left[0].name}." if left else f"{text}."


def _check(out: Path) -> str:
    if not (out / "check.json").exists():
        return "Not run."
    found = json.loads((out / "check.json").read_text())
    batches, losses = found["batches"], found["losses"]
    differing = ", ".join(batches["differing"]) or "none"
    lines = [
        ["tensors that differ from those on the CPU", f"{differing}, in {batches['batches']} batches"],
        ["bytes transferred", f"{batches['transferred_bytes']:,}; {batches['wide_bytes']:,} after widening"],
        ["loss of the unmodified model, CPU, fp32", f"{losses['cpu_fp32']:.6f}"],
        ["loss of gemsdata's, device, fp32", f"{losses['device_fp32']:.6f}"],
        ["loss of gemsdata's, device, bf16", f"{losses['device_bf16']:.6f}"],
        ["GPUs that each worker sees", ", ".join(map(str, found["gpus_of_workers"]))],
    ]
    return f"{'Passed' if found['passed'] else '**Failed**'} on {found['device']}.\n\n" + markdown(["", ""], lines)


def _rates(out: Path) -> str:
    found = [json.loads(path.read_text()) for path in sorted((out / "rates").glob("*.json"))]
    if not found:
        return "Not run."
    plain = {one["model"]: one["rows_per_s"] for one in found if one["side"] == "plain"}
    lines = []
    for one in found:
        faster = one["rows_per_s"] / plain[one["model"]] if one["model"] in plain else float("nan")
        lines.append([
            one["model"],
            "plain Trainer" if one["side"] == "plain" else "gemsdata" + ", compiled" * one["compiled"],
            f"{one['rows_per_s']:,.1f}",
            f"{faster:.2f}",
            f"{one['mfu']:.1%}",
            f"{one['mfu'] * one['computed_share']:.1%}",
            f"{one['data_wait_share']:.2%}",
        ])  # fmt: skip
    peak = f"{found[0]['peak_tflops']:,.3g} TFLOP/s of {found[0]['device']}, from {found[0]['peak_from']}"
    header = ["model", "program", "rows/s", "times plain", "MFU", "computed", "waiting for data"]
    return (
        f"MFU: operations of the unmodified model for these rows (forward and backward) by {peak}, bf16. Computed: of"
        f" the operations that the program does, without what the loss does not depend on.\n\n{markdown(header, lines)}"
    )


def _pretrainings(out: Path) -> str:
    rows: list[dict[str, Any]] = []
    for path in sorted((out / "models").glob("*/seed-*/metrics.jsonl")):
        last: dict[str, Any] = {}
        for line in read_metrics(path):
            last |= line
        rows.append({"arm": path.parents[1].name, "seed": path.parent.name.removeprefix("seed-"), **last})
    names = ("step", "valid_perplexity", "valid_loss_mask", "valid_bits_per_base", "rows_per_s", "data_wait_share")
    lines = [[row["arm"], row["seed"], *(_number(row.get(name)) for name in names)] for row in rows]
    return markdown(["arm", "seed", *(name.replace("_", " ") for name in names)], lines) if lines else "None yet."


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def _fewshot(out: Path) -> str:
    found = _tables(out, "fewshot", "results.parquet")
    if found is None:
        return "None yet."
    means = summary(found, by=["dataset", "shots", "model"], metric="accuracy")
    num_seeds = found["seed"].nunique()
    text = f"Accuracy, mean and Student's 95 % interval over {num_seeds} pretrainings; the best of a line is bold.\n\n"
    text += wide_table(means, rows=["dataset", "shots"], columns="model")
    tests = paired(
        found, of="model", metric="accuracy", pair_by=PAIR_BY, within="dataset", pairs=COMPARISONS, unit="seed"
    )
    if tests.empty:
        return text
    return (
        f"{text}\n\nThe comparisons were planned. Intervals are over pretrainings; Wilcoxon's signed-rank test over all"
        f" pairs, with Holm's correction. The runs of a seed share a pretraining, so these p are too small.\n\n"
        f"{comparisons_table(tests)}"
    )


def _gue(scale: Scale, out: Path) -> str:
    found = _tables(out, "gue", "gue.parquet")
    if found is None:
        return "None yet."
    steps = scale.gue[scale.gue.index("--max-steps") + 1] if "--max-steps" in scale.gue else None
    text = gue_report(found, published=list(CM_GEMS), missing={}, max_steps=None if steps is None else int(steps))
    return text.removeprefix("# GUE\n").strip().replace("\n## ", "\n### ")


def _tables(out: Path, folder: str, name: str) -> pd.DataFrame | None:
    """Return the tables of all seeds in one; None if there is none."""
    paths = sorted((out / folder).glob(f"seed-*/{name}"))
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True) if paths else None


def _pieces(pieces: Sequence[Piece], out: Path) -> str:
    lines = []
    for piece in pieces:
        record = read_record(out, piece)
        lines.append([piece.name, record.status, f"{record.seconds:.0f}", record.message.replace("|", "/")])
    return markdown(["piece", "status", "seconds", "message"], lines)
