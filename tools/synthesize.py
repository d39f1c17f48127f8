"""Make a synthetic genome: repeats, planted motifs, gaps and soft-masking, all from one seed.

    python -m tools.synthesize -o genome.fa --bases 2000000 --contigs 3 --seed 0

Contents, known so that the results of a model or a table can be checked:

* background bases that are independent, with a GC content that drifts along the contig;
* families of interspersed repeats (a consensus each, copies 2..15 % diverged, either strand) and microsatellites, in
  lower case;
* on request, tandem repeats (satellites): arrays of copies of a short unit, in lower case;
* motifs planted at a known rate;
* runs of N at both ends of a contig and inside, as in an assembly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np

_LETTERS = np.frombuffer(b"ACGT", np.uint8)
_COMPLEMENT = np.array([3, 2, 1, 0], np.uint8)
_N = 4
_BLOCK_BASES = 1 << 24
_SATELLITE_DIVERGENCE = 0.04


@dataclass(frozen=True, kw_only=True)
class GenomeRecipe:
    """Composition of a synthetic genome; shares are fractions of the bases."""

    num_bases: int = 2_000_000
    num_contigs: int = 3
    repeat_share: float = 0.4
    microsatellite_share: float = 0.02
    gap_share: float = 0.005
    num_families: int = 6
    family_bases: tuple[int, int] = (120, 900)
    """shortest and longest consensus of a family"""
    motifs: tuple[str, ...] = ("TGACTCA", "GGGCGGGG", "CCGCCATC", "TATAAAAG")
    motif_spacing_bases: int = 2000
    """mean distance between planted copies of one motif"""
    satellite_share: float = 0.0
    satellite_bases: tuple[int, int] = (24, 240)
    """of a unit, and of an array of copies of it; each array has a unit of its own"""
    line_bases: int = 80
    seed: int = 0


def contigs(recipe: GenomeRecipe) -> Iterator[tuple[str, Iterator[np.ndarray]]]:
    """Yield (name, blocks of ASCII letters uint8[n]) of each contig; at most 16 Mb a block: memory stays flat."""
    if recipe.num_bases < 100 * recipe.num_contigs or recipe.num_contigs < 1:
        raise ValueError(
            f"{recipe.num_bases} bases in {recipe.num_contigs} contigs; at least 100 bases a contig are needed"
        )
    lengths = _contig_lengths(recipe)
    families = _families(recipe)
    for index, length in enumerate(lengths):
        yield f"synth{index + 1}", _contig_blocks(recipe, index, length, families)


def write_fasta(recipe: GenomeRecipe, stream: BinaryIO) -> None:
    """Write the genome as FASTA with lines of ``recipe.line_bases``."""
    for name, blocks in contigs(recipe):
        stream.write(f">{name} synthetic, seed {recipe.seed}\n".encode())
        rest = np.empty(0, np.uint8)
        for block in blocks:
            letters = np.concatenate([rest, block])
            whole = letters.size // recipe.line_bases * recipe.line_bases
            lines = np.full((whole // recipe.line_bases, recipe.line_bases + 1), ord("\n"), np.uint8)
            lines[:, :-1] = letters[:whole].reshape(-1, recipe.line_bases)
            stream.write(lines.tobytes())
            rest = letters[whole:]
        if rest.size:
            stream.write(rest.tobytes() + b"\n")


def _contig_lengths(recipe: GenomeRecipe) -> list[int]:
    """Split the bases into contigs of decreasing length, like chromosomes; the last is a third of the first."""
    weights = np.linspace(1.0, 1 / 3, recipe.num_contigs)
    lengths = np.maximum((weights / weights.sum() * recipe.num_bases).astype(np.int64), 100)
    lengths[0] += recipe.num_bases - lengths.sum()
    return lengths.tolist()


def _families(recipe: GenomeRecipe) -> list[np.ndarray]:
    rng = np.random.default_rng([recipe.seed, 1])
    lengths = (int(rng.integers(*recipe.family_bases)) for _ in range(recipe.num_families))
    return [rng.integers(0, 4, length, dtype=np.uint8) for length in lengths]


def _contig_blocks(recipe: GenomeRecipe, contig: int, length: int, families: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the letters of one contig block by block; each block has its own random stream."""
    for number, first in enumerate(range(0, length, _BLOCK_BASES)):
        size = min(_BLOCK_BASES, length - first)
        rng = np.random.default_rng([recipe.seed, 2, contig, number])
        bases = _background(rng, size)
        soft = np.zeros(size, bool)
        _plant_repeats(rng, recipe, bases, soft, families)
        _plant_microsatellites(rng, recipe, bases, soft)
        _plant_satellites(rng, recipe, bases, soft)
        _plant_motifs(rng, recipe, bases)
        _plant_gaps(rng, recipe, bases)
        letters = np.append(_LETTERS, np.uint8(ord("N")))[bases]
        letters[soft & (bases != _N)] |= 32
        yield letters


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    gc = np.clip(0.41 + 0.06 * np.repeat(rng.standard_normal(size // 5000 + 1), 5000)[:size], 0.25, 0.65)
    draw = rng.random(size, np.float32)
    return np.where(draw < gc, 1 + (draw < gc / 2), 3 * (draw < gc + (1 - gc) / 2)).astype(np.uint8)


def _plant_repeats(
    rng: np.random.Generator,
    recipe: GenomeRecipe,
    bases: np.ndarray,
    soft: np.ndarray,
    families: list[np.ndarray],
) -> None:
    share = recipe.repeat_share / max(len(families), 1)
    for consensus in families:
        if consensus.size >= bases.size:
            continue
        copies = int(share * bases.size / consensus.size)
        starts = rng.integers(0, bases.size - consensus.size, copies)
        both = np.stack([consensus, _COMPLEMENT[consensus[::-1]]])
        content = both[rng.integers(0, 2, copies)]
        divergence = rng.uniform(0.02, 0.15, (copies, 1)).astype(np.float32)
        changed = rng.random(content.shape, np.float32) < divergence
        content[changed] = rng.integers(0, 4, int(changed.sum()), dtype=np.uint8)
        where = starts[:, None] + np.arange(consensus.size)
        bases[where] = content
        soft[where] = True


def _plant_microsatellites(rng: np.random.Generator, recipe: GenomeRecipe, bases: np.ndarray, soft: np.ndarray) -> None:
    length = 60
    if bases.size <= length:
        return
    copies = int(recipe.microsatellite_share * bases.size / length)
    units = rng.integers(0, 4, (copies, 6), dtype=np.uint8)
    periods = rng.integers(1, 5, copies)
    where = rng.integers(0, bases.size - length, copies)[:, None] + np.arange(length)
    bases[where] = units[np.arange(copies)[:, None], np.arange(length)[None, :] % periods[:, None]]
    soft[where] = True


def _plant_satellites(rng: np.random.Generator, recipe: GenomeRecipe, bases: np.ndarray, soft: np.ndarray) -> None:
    """Replace a random choice of stretches by copies of a random unit each, 4 % of whose bases are changed."""
    unit, length = recipe.satellite_bases
    num_arrays = int(recipe.satellite_share * bases.size / length)
    if not num_arrays:
        return
    first = rng.permutation(bases.size // length)[:num_arrays] * length
    where = first[:, None] + np.arange(length)
    content = rng.integers(0, 4, (num_arrays, unit), dtype=np.uint8)[:, np.arange(length) % unit]
    changed = rng.random(content.shape, np.float32) < _SATELLITE_DIVERGENCE
    content[changed] = rng.integers(0, 4, int(changed.sum()), dtype=np.uint8)
    bases[where] = content
    soft[where] = True


def _plant_motifs(rng: np.random.Generator, recipe: GenomeRecipe, bases: np.ndarray) -> None:
    for motif in recipe.motifs:
        content = np.array([b"ACGT".index(letter) for letter in motif.encode()], np.uint8)
        copies = bases.size // recipe.motif_spacing_bases
        if bases.size > content.size:
            bases[rng.integers(0, bases.size - content.size, copies)[:, None] + np.arange(content.size)] = content


def _plant_gaps(rng: np.random.Generator, recipe: GenomeRecipe, bases: np.ndarray) -> None:
    total = int(recipe.gap_share * bases.size)
    if total < 4:
        return
    bases[: total // 4] = _N
    bases[bases.size - total // 4 :] = _N
    start = int(rng.integers(0, bases.size - total // 2))
    bases[start : start + total // 2] = _N


@click.command()
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="FASTA file to write.")
@click.option("--bases", type=int, default=2_000_000, show_default=True)
@click.option("--contigs", "num_contigs", type=int, default=3, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--repeat-share", type=float, default=0.4, show_default=True, help="Share of interspersed repeats.")
@click.option("--satellite-share", type=float, default=0.0, show_default=True, help="Share of tandem repeats.")
def main(out: Path, **recipe: Any) -> None:
    """Write a synthetic genome as FASTA."""
    found = GenomeRecipe(num_bases=recipe.pop("bases"), **recipe)
    with open(out, "wb") as stream:
        write_fasta(found, stream)
    bases, num_contigs, seed = found.num_bases, found.num_contigs, found.seed
    click.echo(f"{out}: {bases:,} bases in {num_contigs} contigs, seed {seed}")


if __name__ == "__main__":
    main()
