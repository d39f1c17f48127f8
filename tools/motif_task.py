"""Make a classification task from a genome: detect the sequences in which a motif was planted.

    python -m tools.motif_task genome.fa -o TASK --motif TGACTCA --bases 100

TASK/train.tsv, dev.tsv and test.tsv have columns sequence and label; 1 = planted at a random place. Both classes are
cut from the genome at random, without a letter other than A, C, G, T and without the motif, and are of equal size.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from gemsdata.genome.fasta import records
from gemsdata.genome.vocab import base_codes


def cut_sequences(genome: Path, motif: str, *, count: int, num_bases: int, rng: np.random.Generator) -> list[str]:
    """Return ``count`` sequences of ``num_bases`` upper-case bases without ``motif``, from all of the genome."""
    contigs = [record.sequence.upper() for record in records(str(genome)) if len(record.sequence) >= num_bases]
    if not contigs:
        raise click.ClickException(f"{genome} has no contig of {num_bases} bases")
    weights = np.array([len(contig) for contig in contigs], np.float64)
    found: list[str] = []
    for _ in range(100 * count):
        contig = contigs[rng.choice(len(contigs), p=weights / weights.sum())]
        start = int(rng.integers(0, len(contig) - num_bases + 1))
        sequence = contig[start : start + num_bases]
        if base_codes(sequence).max() < 4 and motif not in sequence:
            found.append(sequence)
            if len(found) == count:
                return found
    raise click.ClickException(f"{genome} has too few stretches of {num_bases} bases without {motif}")


def plant(sequence: str, motif: str, rng: np.random.Generator) -> str:
    """Return ``sequence`` with ``motif`` written over it at a random place."""
    at = int(rng.integers(0, len(sequence) - len(motif) + 1))
    return sequence[:at] + motif + sequence[at + len(motif) :]


@click.command()
@click.argument("genome", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--motif", default="TGACTCA", show_default=True)
@click.option("--bases", type=int, default=100, show_default=True, help="Length of a sequence.")
@click.option("--train-rows", type=int, default=1000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(genome: Path, out: Path, motif: str, bases: int, train_rows: int, seed: int) -> None:
    """Make a task from GENOME; dev and test have half as many rows as training."""
    rng = np.random.default_rng(seed)
    sizes = {"train": train_rows, "dev": train_rows // 2, "test": train_rows // 2}
    sequences = iter(cut_sequences(genome, motif, count=sum(sizes.values()), num_bases=bases, rng=rng))
    out.mkdir(parents=True, exist_ok=True)
    for name, size in sizes.items():
        lines = ["sequence\tlabel"]
        for row in range(size):
            sequence = next(sequences)
            lines.append(f"{plant(sequence, motif, rng) if row % 2 else sequence}\t{row % 2}")
        (out / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    click.echo(f"{out}: {', '.join(f'{name} {size}' for name, size in sizes.items())} rows; 1 = {motif} planted")


if __name__ == "__main__":
    main()
