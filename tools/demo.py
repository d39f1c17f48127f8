"""Demo: from a genome to shards, audited masks, pretrained models, and what pretraining is worth with few labels.

    python -m tools.demo [--fasta genome.fa] [--out demo]

It prints every command that it runs. Without ``--fasta`` the genome is synthetic (``tools/synthesize.py``) and full of
tandem repeats, each of a unit of its own, so that no frequencies of k-mers tell which base comes next. The task is to
tell such repeats from the same bases in random order, with few labelled examples (``tools/repeat_task.py``): a model
that has learnt from the genome to look a unit back needs few, one with random weights does not find it.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import pandas as pd

from tools.demo_study import ARM, HELD_OUT, SHOTS, STUDY
from train.run_log import read_metrics

BASES = 3_000_000
NUM_STEPS = 10
RANKS = "SELECT rank, kmer, round(npmi, 3) AS npmi FROM npmi WHERE k = 6 ORDER BY rank LIMIT 5"


class Demo:
    """Runs commands one after the other, each under its number."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._step = 0

    def run(self, what: str, *arguments: str | Path) -> None:
        """Say what comes, print a command as a user would type it, then run it; exit if it fails."""
        self._step += 1
        words = [str(word) for word in arguments]
        print(f"\n[{self._step}/{NUM_STEPS}] {what}\n$ {shlex.join(words)}", flush=True)
        module = ["-m", "gemsdata"] if words[0] == "gemsdata" else []
        status = subprocess.run([sys.executable, *module, *words[1:]], check=False).returncode
        if status:
            sys.exit(f"the demo stopped: exit status {status}")


@click.command()
@click.option("--fasta", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A genome of your own.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
def main(fasta: Path | None, out: Path) -> None:
    """Run the demo into the folder OUT."""
    began = time.monotonic()
    shutil.rmtree(out / "study", ignore_errors=True)
    out.mkdir(exist_ok=True)
    demo = Demo(out)
    genome, held_out = fasta or out / "genome.fa", [] if fasta else ["--valid-contigs", HELD_OUT]
    if fasta is None:
        made_of = ["--bases", str(BASES), "--satellite-share", "0.85"]
        demo.run("Make up a genome", "python", "-m", "tools.synthesize", "-o", genome, *made_of)
    shards, short, tasks, study = (out / name for name in ("shards", "shards-k3", "tasks", "study"))
    look(demo, genome, shards, held_out)
    again = ["--overwrite"] if short.exists() else []
    rows = ["-k", "3", "--row-tokens", "62", "--quiet", *held_out, *again]
    demo.run("Short rows of 3-mers, for small models", "gemsdata", "shard", genome, "-o", short, *rows)
    task = ["--bases", "64", "--shots", str(SHOTS), *([] if fasta else ["--contig", HELD_OUT])]
    demo.run("Few labelled examples", "python", "-m", "tools.repeat_task", genome, "-o", tasks, *task)
    compare = ["tools/demo_study.py", "--shards", short, "--data", tasks, "--output-dir", study, "--quiet"]
    demo.run("Pretrain with three seeds, fine-tune each", "gemsdata", "eval", "compare", *compare)
    run = study / "models" / ARM / f"seed-{STUDY.seeds[0]}"
    page = out / "report.html"
    demo.run("One page about the set and the run", "gemsdata", "report", shards, run, study, "-o", page, "--quiet")
    print("\n" + summary(run, study))
    print(f"\nThe demo took {time.monotonic() - began:.0f} s. What to do next:")
    print(f"  1. open {page} in a browser, and {run / 'training.png'}")
    print("  2. run it on a genome of yours: make demo FASTA=genome.fa.gz")
    print("  3. write your own training loop: README.md, Sixty seconds; docs/getting-started.md")


def look(demo: Demo, genome: Path, shards: Path, held_out: list[str]) -> None:
    """Make a shard set of 6-mers, compare it with the genome, and look at it."""
    again = ["--overwrite"] if shards.exists() else []
    demo.run("Shards of 6-mers", "gemsdata", "shard", genome, "-o", shards, *held_out, *again)
    demo.run("Compare them with the genome", "gemsdata", "verify", shards, "--fasta", genome)
    masking = ["--masking", "genemask"]
    demo.run("What a strategy masks", "gemsdata", "audit", shards, *masking, "--plot", demo.out / "audit.png")
    demo.run("One masked row", "gemsdata", "show", shards, "--row", "7", *masking, "--positions", "0:33")
    demo.run("The best-ranked 6-mers", "gemsdata", "query", shards, RANKS)


def summary(run: Path, study: Path) -> str:
    """Return the results of the models, as text."""
    evaluations = [line for line in read_metrics(run / "metrics.jsonl") if "valid_perplexity" in line]
    first, last = evaluations[0], evaluations[-1]
    switch = ", ".join(f"batch {step}" for step, _ in last["stage_log"]) or "no step"
    found = pd.read_parquet(study / "comparisons.parquet").iloc[0]
    accuracy = pd.read_parquet(study / "results.parquet").groupby("model")["accuracy"].mean()
    rows = [
        ("bits per hidden base, by base frequencies", f"{last['unigram_bits_per_base']:.2f}"),
        ("by a Markov chain that sees both sides", f"{last['markov_bits_per_base']:.2f}"),
        (f"by the model, after {first['step']} and {last['step']} steps",
         f"{first['valid_bits_per_base']:.2f}, {last['valid_bits_per_base']:.2f}"),
        ("CM-GEMS switched to global masking at", switch),
        *((f"accuracy with {SHOTS} labels a class, {name}", f"{value:.3f}") for name, value in accuracy.items()),
        ("what pretraining adds, mean and 95 % interval over 3 seeds",
         f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"),
    ]  # fmt: skip
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


if __name__ == "__main__":
    main()
