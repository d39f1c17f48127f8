"""The demo: from a genome to shards, ranks and audited masks, every command shown as a user would type it.

    python -m tools.demo [--fasta genome.fa] [--out demo]

Without ``--fasta`` the genome is synthetic (``tools/synthesize.py``).
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import click

DEMO_BASES = 6_000_000


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
    show("gemsdata", "show", shards, "--row", "7", "--masking", "genemask", "--tokens", "0:60")
    show(
        "gemsdata",
        "query",
        shards,
        "SELECT rank, kmer, round(npmi, 3) AS npmi FROM npmi WHERE k = 6 ORDER BY rank LIMIT 5",
    )
    show("gemsdata", "plot", shards, "-o", out / "figures")
    show("gemsdata", "report", shards, "-o", out / "report.html")
    print(f"\nThe demo took {time.monotonic() - began:.0f} s. Look at {out / 'report.html'} and {out / 'audit.png'}.")


if __name__ == "__main__":
    main()
