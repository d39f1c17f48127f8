"""Make a few-shot classification task from a soft-masked genome: repeats, and the same sequences with shuffled bases.

    python -m tools.repeat_task genome.fa -o TASKS --contig synth3 --shots 10

Class 1 are windows of soft-masked sequence (repeats); class 0 are other such windows with their bases in random order,
so that composition is not informative. TASKS/repeats has the layout that ``gemsdata eval fewshot --data TASKS`` reads:
a training file of ten times the shots for each number of shots, of which it draws, and test.tsv. In a genome without
soft-masked sequence, windows from anywhere are used instead of repeats.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from gemsdata.genome.fasta import records

_POOLED_DRAWS = 10
"""number of training sets for which a file has rows"""
_SOFT_SHARE = 0.9
"""fraction of lower-case bases from which a window is a repeat"""


def windows(genome: Path, contig: str | None, *, count: int, num_bases: int, rng: np.random.Generator) -> list[str]:
    """Return ``count`` different windows of ``num_bases`` upper-case bases that lie in repeats, in random order."""
    sequences = [record.sequence for record in records(str(genome)) if contig in (None, record.name)]
    if not sequences:
        raise click.ClickException(f"{genome} has no contig {contig}")
    whole = [sequence[at : at + num_bases] for sequence in sequences for at in range(0, len(sequence), num_bases)]
    clean = [window for window in whole if len(window) == num_bases and set(window.upper()) <= set("ACGT")]
    soft = [window for window in clean if sum(map(str.islower, window)) >= _SOFT_SHARE * num_bases]
    chosen = soft if len(soft) >= count else clean
    if len(chosen) < count:
        raise click.ClickException(f"{genome} has {len(chosen)} windows of {num_bases} bases; {count} are needed")
    return [chosen[i].upper() for i in rng.permutation(len(chosen))[:count]]


def shuffled(window: str, rng: np.random.Generator) -> str:
    """Return the bases of ``window`` in random order."""
    return "".join(rng.permutation(list(window)))


@click.command()
@click.argument("genome", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of few-shot sets to write.")
@click.option("--contig", help="Use windows of this contig only, such as one that no model was pretrained on.")
@click.option("--bases", type=int, default=100, show_default=True, help="Length of a sequence.")
@click.option("--shots", type=int, multiple=True, default=(10,), show_default=True, help="Training rows of each class.")
@click.option("--test-rows", type=int, default=1000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(
    genome: Path, out: Path, contig: str | None, bases: int, shots: tuple[int, ...], test_rows: int, seed: int
) -> None:
    """Make a task from GENOME."""
    rng = np.random.default_rng(seed)
    folder = out / "repeats"
    files = {folder / "test.tsv": test_rows}
    files |= {folder / str(number) / "train.tsv": 2 * _POOLED_DRAWS * number for number in shots}
    rows = iter(windows(genome, contig, count=sum(files.values()), num_bases=bases, rng=rng))
    for path, count in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{next(rows)}\t1" if row % 2 else f"{shuffled(next(rows), rng)}\t0" for row in range(count)]
        path.write_text("sequence\tlabel\n" + "\n".join(lines) + "\n")
    click.echo(f"{folder}: {test_rows} test rows; 1 = repeat, 0 = repeat with shuffled bases")


if __name__ == "__main__":
    main()
