"""Join contigs from stretches that were read separately."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gemsdata.genome.packed import Contig


def join_stretches(parts: Sequence[Contig]) -> Contig:
    """Return the contig whose consecutive stretches are ``parts``, all but the last with a multiple of 4 bases."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(part.num_bases for part in parts)])
    letters: dict[str, int] = {}
    for part in parts:
        for letter, count in part.letters.items():
            letters[letter] = letters.get(letter, 0) + count
    return Contig(
        name=parts[0].name,
        num_bases=int(starts[-1]),
        packed=np.concatenate([part.packed for part in parts]),
        gaps=_joined([part.gaps for part in parts], starts),
        soft=_joined([part.soft for part in parts], starts),
        letters=letters,
        ambiguous=_joined([part.ambiguous for part in parts], starts),
        num_rna=sum(part.num_rna for part in parts),
    )


def _joined(parts: Sequence[np.ndarray], starts: np.ndarray) -> np.ndarray:
    """Join intervals (start, end, and a letter or nothing) int64[m, 2 or 3] of stretches that begin at ``starts``."""
    moved = [
        np.column_stack([part[:, :2] + start, part[:, 2:]]) for part, start in zip(parts, starts[:-1], strict=True)
    ]
    table = np.concatenate(moved)
    if len(table) == 0:
        return table
    goes_on = (table[1:, 0] == table[:-1, 1]) & (table[1:, 2:] == table[:-1, 2:]).all(axis=1)
    goes_on &= np.isin(table[1:, 0], starts)  # elsewhere, adjacent intervals have different letters
    begins = np.concatenate([[True], ~goes_on])
    last = np.concatenate([~goes_on, [True]])
    return np.column_stack([table[begins, 0], table[last, 1], table[begins, 2:]])
