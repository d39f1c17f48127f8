"""Independent genome reader for verification: line by line, one byte per base, by code that the writer does not use.

The writer parses blocks of bytes and packs two bits per base. Here Python iterates over lines, decompression uses the
standard library, and .2bit is decoded by arithmetic on one array.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import mmap
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.remote_folder import downloaded, is_url

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OTHER = 4
"""code of letters other than A, C, G and T, and of the position after each contig"""
SOFT_BIT = 8
"""added to the code of a soft-masked letter"""
_CHUNK_BASES = 1 << 24
_PIECE_BYTES = 1 << 22
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_ZSTD = b"\x2a\x4d\x18"
"""from the second byte on: an empty frame, written first by some writers"""
_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    _ZSTD: zstd.open,
}


@dataclass(frozen=True)
class ReferenceGenome:
    """All contigs concatenated, one byte per base, with a separator after each."""

    names: list[str]
    num_bases: np.ndarray
    """bases of each contig, int64[C]"""
    offset: np.ndarray
    """offset of each contig in ``codes``, int64[C]"""
    codes: np.ndarray
    """uint8[N + C]: 0..3 for A T C G, OTHER for other letters and separators, plus SOFT_BIT where soft-masked"""
    num_rna: int
    """how many U were read as T"""

    def contig(self, index: int) -> np.ndarray:
        """Return the codes of one contig."""
        return self.codes[self.offset[index] : self.offset[index] + self.num_bases[index]]

    def is_letter(self, first: int, codes: np.ndarray) -> np.ndarray:
        """Return which positions of ``codes``, which begin at ``first``, are letters, not separators, bool[n]."""
        ends = self.offset + self.num_bases
        low, high = np.searchsorted(ends, [first, first + len(codes)])
        mask = np.ones(len(codes), bool)
        mask[ends[low:high] - first] = False
        return mask

    def runs(self, wanted: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the maximal runs within contigs that ``wanted`` selects: (contig, start, end), int64[m, 3].

        ``wanted`` maps (first position in ``codes``, codes uint8[n]) to bool[n], a chunk at a time.
        """
        edges: list[np.ndarray] = []
        last = False
        for first in range(0, len(self.codes), _CHUNK_BASES):
            codes = self.codes[first : first + _CHUNK_BASES]
            mask = wanted(first, codes) & self.is_letter(first, codes)
            edges.append(first + np.flatnonzero(np.diff(mask, prepend=last)))
            last = bool(mask[-1])
        if last:
            edges.append(np.array([len(self.codes)]))
        pairs = np.concatenate([np.empty(0, np.int64), *edges]).reshape(-1, 2)
        contig = np.searchsorted(self.offset, pairs[:, 0], side="right") - 1
        return np.column_stack([contig, pairs - self.offset[contig, None]])

    def gaps(self) -> np.ndarray:
        """Return the runs of letters other than A, C, G and T: (contig, start, end), int64[m, 3]."""
        return self.runs(lambda _, codes: codes & 7 == OTHER)

    def soft(self) -> np.ndarray:
        """Return the soft-masked runs: (contig, start, end), int64[m, 3]."""
        return self.runs(lambda _, codes: codes >= SOFT_BIT)

    def sha256(self) -> str:
        """Return the digest of the genome as in the manifest: of names, packed bases and intervals."""
        digest = hashlib.sha256()
        gaps, soft = self.gaps(), self.soft()
        contigs = np.arange(len(self.names) + 1)
        gap_rows, soft_rows = np.searchsorted(gaps[:, 0], contigs), np.searchsorted(soft[:, 0], contigs)
        for index, name in enumerate(self.names):
            contig_gaps = gaps[gap_rows[index] : gap_rows[index + 1], 1:]
            contig_soft = soft[soft_rows[index] : soft_rows[index + 1], 1:]
            header = [name, int(self.num_bases[index]), len(contig_gaps), len(contig_soft)]
            digest.update(json.dumps(header).encode())
            codes = self.contig(index)
            for first in range(0, len(codes), _CHUNK_BASES):
                chunk = codes[first : first + _CHUNK_BASES]
                digits = np.zeros((len(chunk) + 3) // 4 * 4, np.uint8)
                digits[: len(chunk)] = _DIGIT_OF_CODE[chunk]
                digest.update((digits[0::4] << 6 | digits[1::4] << 4 | digits[2::4] << 2 | digits[3::4]).data)
            digest.update(np.ascontiguousarray(contig_gaps).data)
            digest.update(np.ascontiguousarray(contig_soft).data)
        return digest.hexdigest()


def read_reference(
    paths: Sequence[str], scratch: Path, num_bases: int | None = None, progress: Progress = no_progress
) -> ReferenceGenome:
    """Write the codes of FASTA or .2bit files to the file ``scratch`` and map it.

    ``num_bases`` is the expected total, for ``progress``.

    Raises FileNotFoundError for a missing file and ValueError for one that cannot be read.
    """
    names: list[str] = []
    ends: list[int] = []
    num_rna = 0
    with open(scratch, "wb") as out:
        for path in paths:
            if not is_url(path) and not os.path.exists(path):
                raise FileNotFoundError(f"{path}: no such file")
            for name, piece in _sequence_pieces(path):
                if name is not None:
                    if names:
                        out.write(bytes([OTHER]))
                        ends.append(out.tell() - 1)
                    names.append(name)
                num_rna += piece.count(b"U") + piece.count(b"u")
                out.write(piece.translate(_CODE_OF_LETTER))
                progress("reading bases", len(piece), num_bases)
        if names:
            out.write(bytes([OTHER]))
            ends.append(out.tell() - 1)
    end = np.array(ends, np.int64)
    offset = np.concatenate([np.zeros(min(1, len(end)), np.int64), end[:-1] + 1])
    mapped = np.memmap(scratch, np.uint8, mode="r") if names else np.empty(0, np.uint8)
    codes = mapped.view(np.ndarray)  # a slice of a memmap costs ten times as much, and there is one per contig
    return ReferenceGenome(names, end - offset, offset, codes, num_rna)


def _sequence_pieces(path: str) -> Iterator[tuple[str | None, bytes]]:
    """Yield (name, b"") at the beginning of each contig and (None, letters) for pieces of its sequence."""
    if is_url(path):
        with downloaded(path) as copy:
            yield from _sequence_pieces(str(copy))
        return
    with open(path, "rb") as stream:
        head = stream.read(6)
        stream.seek(0)
        if head[:4] in (b"\x43\x27\x41\x1a", b"\x1a\x41\x27\x43"):
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield from _twobit_pieces(content, path)
            return
        signature = _ZSTD if head[1:].startswith(_SKIPPABLE_ZSTD) else head
        opener = next((opener for magic, opener in _OPENERS.items() if signature.startswith(magic)), None)
        try:
            with opener(stream) if opener else stream as lines:
                yield from _fasta_pieces(lines, path)
        except (EOFError, zstd.ZstdError, lzma.LZMAError, zlib.error, OSError) as error:
            raise ValueError(f"{path} is truncated or damaged: {' '.join(str(error).split())}") from None


def _fasta_pieces(lines: IO[bytes], path: str) -> Iterator[tuple[str | None, bytes]]:
    pending: list[bytes] = []
    num_bytes = 0
    any_record = False
    begins = ends = True
    while line := lines.readline(_PIECE_BYTES):  # a part of a longer line
        begins, ends = ends, line.endswith(b"\n")
        if not any_record:
            line = line.lstrip()
        if line.startswith(b">") and (begins or not any_record):
            if len(line) == _PIECE_BYTES:
                raise ValueError(f"{path} has a header line of {_PIECE_BYTES:,} bytes or more")
            yield None, b"".join(pending)
            pending, num_bytes = [], 0
            any_record = True
            yield (line[1:].split() or [b""])[0].decode(errors="replace"), b""
        elif any_record:
            pending.append(b"".join(line.split()))
            num_bytes += len(line)
            if num_bytes > _PIECE_BYTES:
                yield None, b"".join(pending)
                pending, num_bytes = [], 0
        elif line:
            raise ValueError(f"{path} does not begin with a FASTA header line ('>name')")
    if pending:
        yield None, b"".join(pending)


def _twobit_pieces(content: mmap.mmap, path: str) -> Iterator[tuple[str | None, bytes]]:
    """Yield the sequences of a memory-mapped .2bit file."""
    order = "<" if content[:4] == b"\x43\x27\x41\x1a" else ">"

    def integers(at: int, count: int, dtype: str = "u4") -> list[int]:
        kind = np.dtype(order + dtype)
        values: list[int] = np.frombuffer(content[at : at + count * kind.itemsize], kind, count).tolist()
        return values

    try:
        version, num_sequences = integers(4, 2)
        at = 16
        for _ in range(num_sequences):
            name = content[at + 1 : at + 1 + content[at]].decode(errors="replace")
            at += 1 + content[at]
            (begin,) = integers(at, 1, "u8" if version else "u4")
            at += 8 if version else 4
            (num_bases,) = integers(begin, 1)
            begin += 4
            blocks = []
            for _ in range(2):
                (count,) = integers(begin, 1)
                values = integers(begin + 4, 2 * count)
                blocks.append(list(zip(values[:count], values[count:], strict=True)))
                begin += 4 + 8 * count
            packed = np.frombuffer(content[begin + 4 : begin + 4 + (num_bases + 3) // 4], np.uint8)
            letters = np.empty((len(packed), 4), np.uint8)
            for first in range(0, len(packed), _PIECE_BYTES):
                for place in range(4):
                    digits = packed[first : first + _PIECE_BYTES] >> np.uint8(6 - 2 * place) & 3
                    letters[first : first + _PIECE_BYTES, place] = np.frombuffer(b"TCAG", np.uint8)[digits]
            flat = letters.ravel()
            for start, size in blocks[0]:
                flat[start : start + size] = ord("N")
            for start, size in blocks[1]:
                flat[start : start + size] += 32
            yield name, b""
            yield None, flat[:num_bases].tobytes()
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is a damaged or truncated .2bit file: {error}") from None


def _code_table() -> bytes:
    codes = bytearray([OTHER]) * 256
    for letter in range(ord("a"), ord("z") + 1):
        codes[letter] |= SOFT_BIT
    for digit, bases in enumerate(("A", "TU", "C", "G")):
        for base in bases:
            codes[ord(base)] = digit
            codes[ord(base.lower())] = digit | SOFT_BIT
    return bytes(codes)


_CODE_OF_LETTER = _code_table()
_DIGIT_OF_CODE = np.array([0, 1, 2, 3, 0, 0, 0, 0, 0, 1, 2, 3, 0], np.uint8)
"""2-bit digit of a code; 0 for letters other than A, C, G and T"""
