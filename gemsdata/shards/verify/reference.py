"""The genome read again for verification, by code that the writer does not use: one byte a base, one line at a time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import py2bit
import xopen

from gemsdata.genome.vocab import base_codes
from gemsdata.kernels.keys import key_of
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.shards.manifest import Manifest

OTHER = 4
SOFT_BIT = 8


@dataclass
class PlainBases:
    """The FASTA as one byte a base in a file: 0..3, 4 for any other letter, 8 added where soft-masked."""

    names: list[str]
    lengths: list[int]
    offsets: list[int]
    codes: np.ndarray

    def contig(self, index: int) -> np.ndarray:
        """Return the bytes of one contig."""
        return self.codes[self.offsets[index] : self.offsets[index] + self.lengths[index]]


def read_bases(paths: Sequence[str], scratch: Path) -> PlainBases:
    """Write the bases of FASTA or .2bit files to ``scratch`` and map them."""
    names: list[str] = []
    lengths: list[int] = []
    with open(scratch, "wb") as out:
        for path in paths:
            if not os.path.exists(path):
                raise FileNotFoundError(f"{path}: no such file")
            for name, lines in _python_records(path):
                names.append(name)
                lengths.append(0)
                for line in lines:
                    codes = base_codes(line)
                    codes = np.where(codes > 3, OTHER, codes).astype(np.uint8)
                    codes[np.frombuffer(line, np.uint8) >= ord("a")] |= SOFT_BIT
                    out.write(codes.tobytes())
                    lengths[-1] += len(line)
    offsets = [0, *itertools.accumulate(lengths)][:-1]
    codes = np.memmap(scratch, np.uint8, mode="r") if sum(lengths) else np.empty(0, np.uint8)
    return PlainBases(names, lengths, offsets, codes)


def _python_records(path: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield (name, pieces of the sequence) of a FASTA file, read line by line, or of a .2bit file."""
    with open(path, "rb") as stream:
        is_twobit = stream.read(4) in (b"\x43\x27\x41\x1a", b"\x1a\x41\x27\x43")
    if is_twobit:
        reader = py2bit.open(path, True)
        for name, length in reader.chroms().items():
            yield name, iter([reader.sequence(name).encode()] if length else [])
        reader.close()
        return
    with xopen.xopen(path, "rb", threads=0) as stream:
        groups = itertools.groupby(stream, key=lambda line: line.startswith(b">"))
        name = ""
        pending = False
        for is_header, group in groups:
            if is_header:
                for line in group:
                    if pending:
                        yield name, iter(())
                    name, pending = line[1:].split()[0].decode(), True
            else:
                pending = False
                yield name, (line.rstrip() for line in group)
        if pending:
            yield name, iter(())


def expected_windows(manifest: Manifest, split: str, bases: PlainBases) -> Iterator[tuple[int, int, int]]:
    """Yield (contig, start, num_tokens) in genome order."""
    k, row_tokens = manifest.k, manifest.row_tokens
    for contig in range(len(bases.names)):
        held_out = np.zeros(bases.lengths[contig], bool)
        for region_contig, start, end in manifest.validation["regions"]:
            if region_contig == contig:
                held_out[start:end] = True
        inside = ((bases.contig(contig) & ~np.uint8(SOFT_BIT)) != OTHER) & (held_out == (split == "valid"))
        edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
        for start, end in edges.reshape(-1, 2).tolist():
            if manifest.windows["scheme"] == "fixed":
                for first in range(start, end - k + 1, row_tokens):
                    yield contig, first, min(row_tokens, end - k + 1 - first)
            else:
                for first, last in _dnabert_pieces(manifest, contig, start, end):
                    if last - first >= k:
                        yield contig, first, last - first - k + 1


def _dnabert_pieces(manifest: Manifest, contig: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    shortest, longest = manifest.windows["shortest_bases"], manifest.windows["longest_bases"]
    key = key_of(manifest.seed, RandomStream.PIECE_LENGTH, contig, start)
    position = start
    for piece in itertools.count():
        if position >= end:
            return
        length = manifest.windows["full_bases"]
        if _splitmix(key, 2 * piece) >> 63:
            length = shortest + ((_splitmix(key, 2 * piece + 1) >> 32) * (longest - shortest + 1) >> 32)
        yield position, min(position + length, end)
        position += length


def _splitmix(key: int, counter: int) -> int:
    """Return output number ``counter`` of splitmix64 seeded by ``key``, in Python integers."""
    wrap = (1 << 64) - 1
    x = (key + (counter + 1) * 0x9E3779B97F4A7C15) & wrap
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & wrap
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & wrap
    return x ^ (x >> 31)
