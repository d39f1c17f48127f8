"""Transcription-factor motifs from files: position frequency matrices in three layouts, and MEME."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from memelite.io import read_meme

LETTERS = "ACGT"
PSEUDO_SITES = 1.0
"""number of pseudo-count sites of equal composition that are added to the counts of a motif"""


@dataclass(frozen=True)
class Motif:
    """One motif."""

    name: str
    """identifier and factor, such as ``MA0004.1 Arnt``"""
    probabilities: np.ndarray
    """float64[4, width] in the order A, C, G, T; columns sum to 1"""

    @property
    def consensus(self) -> str:
        """The most frequent letter of each column."""
        return "".join(LETTERS[i] for i in self.probabilities.argmax(axis=0))


def read_motifs(path: str | Path) -> list[Motif]:
    """Read the motifs of a file: MEME, or headers ``>name`` over counts.

    Counts are rows of four (A C G T, one row per position: HOMER, gimmemotifs) or four rows (one per letter: JASPAR,
    with or without ``A [ ... ]``).

    Raises
    ------
    FileNotFoundError, ValueError
        the message has the file, the motif and the problem.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give motifs in JASPAR, PFM or MEME format")
    text = path.read_text(errors="replace")
    motifs = _meme(path) if text.lstrip().startswith("MEME version") else _matrices(text, path)
    if not motifs:
        raise ValueError(f"{path} contains no motif; a file in JASPAR, PFM or MEME format is needed")
    names = [motif.name for motif in motifs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}: the motif {twice!r} occurs twice; names must differ")
    return motifs


def _meme(path: Path) -> list[Motif]:
    try:
        matrices = read_meme(str(path))
    except (ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} cannot be read as MEME: {error}") from None
    return [_motif(name, matrix.T, 0.0, path) for name, matrix in matrices.items()]


def _matrices(text: str, path: Path) -> list[Motif]:
    motifs = []
    for block in re.split(r"^>", text, flags=re.MULTILINE)[1:]:
        header, _, body = block.partition("\n")
        lines = [line for line in body.splitlines() if line.strip() and not line.startswith("#")]
        name = _name(header)
        try:
            rows = [[float(word) for word in re.sub(r"^\s*[ACGT]\s*\[|[\[\]|]", " ", line).split()] for line in lines]
        except ValueError as error:
            raise ValueError(f"{path}: motif {name!r}: {error}") from None
        lengths = {len(row) for row in rows}
        lettered = lines and all(re.match(r"\s*[ACGT]\s*\[", line) for line in lines)
        if len(lengths) != 1 or (lengths != {4} and len(rows) != 4):
            raise ValueError(f"{path}: motif {name!r} is neither rows of four counts nor four rows of counts")
        if lengths == {4} and len(rows) == 4 and not lettered:
            raise ValueError(
                f"{path}: motif {name!r} is four by four, so rows and columns cannot be told apart; write it as MEME"
            )
        counts = np.array(rows)
        motifs.append(_motif(name, counts if lengths == {4} and not lettered else counts.T, PSEUDO_SITES, path))
    return motifs


def _motif(name: str, counts: np.ndarray, pseudo_sites: float, path: Path) -> Motif:
    """Return the motif of counts or probabilities float64[width, 4]."""
    sites = counts.sum(axis=1, keepdims=True)
    if not np.isfinite(counts).all() or counts.min() < 0 or sites.min() <= 0:
        raise ValueError(f"{path}: motif {name!r} has a negative count or an empty column")
    probabilities = (counts + pseudo_sites / 4) / (sites + pseudo_sites)
    return Motif(name, np.ascontiguousarray(probabilities.T))


def _name(header: str) -> str:
    """Return ``MA0004.1 Arnt`` for JASPAR's own header and for gimmemotifs' ``MA0004.1_MA0004.1.Arnt``."""
    name = " ".join(header.split())
    doubled = re.fullmatch(r"(?P<id>[^_]+)_(?P=id)\.(?P<factor>.+)", name)
    return f"{doubled['id']} {doubled['factor']}" if doubled else name
