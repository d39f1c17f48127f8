"""Demo: from a genome to shards, audited masks and a trained model; it prints every command that it runs.

    python -m tools.demo [--fasta genome.fa] [--out demo]

Without ``--fasta`` the genome is synthetic (``tools/synthesize.py``).
"""

from __future__ import annotations

import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

DEMO_BASES = 6_000_000
PRETRAIN = {
    "model": "smoke", "masking": "cm-gems", "max-steps": 200, "batch-rows": 32, "peak-lr": 5e-3, "warmup-steps": 20,
    "eval-every": 25, "eval-rows": 256, "threads": 1,
}  # fmt: skip
"""Short rows of 3-mers, so that a small model learns enough in 200 steps for CM-GEMS to switch by the paper's rule"""
FINETUNE = {"epochs": 6, "batch-rows": 16, "peak-lr": 2e-3, "threads": 1}
MOTIF = "TGACTCA"


def show(*arguments: str | Path) -> None:
    """Print a command as a user would type it, then run it."""
    words = [str(word) for word in arguments]
    print(f"\n$ {shlex.join(words)}", flush=True)
    module = {"gemsdata": ["-m", "gemsdata.cli"], "python": []}[words[0]]
    status = subprocess.run([sys.executable, *module, *words[1:]], check=False).returncode
    if status:
        sys.exit(f"the demo stopped: exit status {status}")


@click.command()
@click.option("--fasta", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A genome of your own.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
def main(fasta: Path | None, out: Path) -> None:
    """Run the demo into the folder OUT."""
    began = time.monotonic()
    out.mkdir(exist_ok=True)
    if fasta is None:
        fasta = out / "genome.fa"
        show("python", "-m", "tools.synthesize", "-o", fasta, "--bases", str(DEMO_BASES))
    shards = out / "shards"
    overwrite = ["--overwrite"] if shards.exists() else []
    show("gemsdata", "shard", fasta, "-o", shards, *overwrite)
    show("gemsdata", "info", shards)
    show("gemsdata", "verify", shards, "--fasta", fasta)
    show("gemsdata", "audit", shards, "--masking", "genemask", "--plot", out / "audit.png")
    show("gemsdata", "show", shards, "--row", "7", "--masking", "genemask", "--positions", "0:60")
    show(
        "gemsdata",
        "query",
        shards,
        "SELECT rank, kmer, round(npmi, 3) AS npmi FROM npmi WHERE k = 6 ORDER BY rank LIMIT 5",
    )
    show("gemsdata", "plot", shards, "-o", out / "figures")
    show("gemsdata", "report", shards, "-o", out / "report.html")
    train_models(fasta, out)
    print(f"\nThe demo took {time.monotonic() - began:.0f} s. Look at {out / 'report.html'}, {out / 'audit.png'} and")
    print(f"{out / 'run' / 'training.png'}.")


def train_models(fasta: Path, out: Path) -> None:
    """Pretrain on short rows of 3-mers, fine-tune on a task with a planted motif, and print the results."""
    short, run, task = out / "shards-k3", out / "run", out / "task"
    for folder in (run, out / "pretrained", out / "random"):
        shutil.rmtree(folder, ignore_errors=True)
    overwrite = ["--overwrite"] if short.exists() else []
    show("gemsdata", "shard", fasta, "-o", short, "-k", "3", "--row-tokens", "126", *overwrite)
    show("python", "train/pretrain.py", "--shards", short, "--output-dir", run, *options(PRETRAIN))
    show("python", "-m", "tools.motif_task", fasta, "-o", task, "--motif", MOTIF)
    files = [word for name in ("train", "dev", "test") for word in (f"--{name}", task / f"{name}.tsv")]
    tune = ["python", "train/finetune.py", "--model", run / "final", *files, *options(FINETUNE)]
    show(*tune, "--output-dir", out / "pretrained")
    show(*tune, "--output-dir", out / "random", "--random-weights")
    print("\n" + table(run, out))


def options(chosen: dict[str, Any]) -> list[str]:
    """Return options as words of a command line."""
    return [word for name, value in chosen.items() for word in (f"--{name}", str(value))]


def table(run: Path, out: Path) -> str:
    """Return the results of the models, as text."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "valid_perplexity" in line]
    trained = [line for line in lines if "rows_per_s" in line]
    switches = [f"batch {step}" for step, _ in evaluations[-1]["stage_log"]]
    rows = [
        ("perplexity of guessing by frequency", f"{evaluations[0]['unigram_perplexity']:.1f}"),
        (f"validation perplexity after {evaluations[0]['step']} steps", f"{evaluations[0]['valid_perplexity']:.1f}"),
        ("lowest validation perplexity", f"{min(line['valid_perplexity'] for line in evaluations):.1f}"),
        ("CM-GEMS switched to global masking at", ", ".join(switches) or "no step"),
        ("tokens/s", f"{statistics.median(line['tokens_per_s'] for line in trained):,.0f}"),
        ("share of time waiting for data", f"{statistics.median(line['data_wait_share'] for line in trained):.2%}"),
    ]
    for name in ("pretrained", "random"):
        found = json.loads((out / name / "metrics.json").read_text())["test"]
        rows.append((f"{MOTIF} task, {name} weights", f"accuracy {found['accuracy']:.3f}, MCC {found['mcc']:.3f}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


if __name__ == "__main__":
    main()
