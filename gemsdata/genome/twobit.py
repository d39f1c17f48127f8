"""Read UCSC .2bit files (https://genome.ucsc.edu/FAQ/FAQformat.html#format7): either byte order, versions 0 and 1.

Not read with a library, because the available one ends the process with SIGBUS on a damaged file. Here every offset and
length is compared with the size of the file before it is used.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

_SIGNATURE = 0x1A412743
SIGNATURES = (_SIGNATURE.to_bytes(4, "little"), _SIGNATURE.to_bytes(4, "big"))
_LETTERS = np.frombuffer(b"TCAG", np.uint8)
_CHUNK_BYTES = 1 << 18


class _Entry(NamedTuple):
    name: str
    offset: int
    """offset of the sequence's record, in bytes"""


class RandomAccess:
    """Random access to the sequences of a .2bit file; arguments and errors as in `sequences`."""

    def __init__(self, stream: BinaryIO, path: str, most_bases: int) -> None:
        self._reader = _Reader(stream, path)
        self._entries = self._reader.bounded_index()
        self._most_bases = most_bases

    def lengths(self) -> list[tuple[str, int]]:
        """Return the name and the number of bases of each sequence."""
        return [(entry.name, self._record(index).num_bases) for index, (entry, _) in enumerate(self._entries)]

    def letters(self, index: int, start: int, end: int) -> np.ndarray:
        """Return bases [start, end) of a sequence, uint8[end - start]; ``start`` is a multiple of 4."""
        return self._reader.letters(self._record(index), start, end)

    def _record(self, index: int) -> _Record:
        entry, end = self._entries[index]
        return self._reader.record(entry, end, self._most_bases)


def sequences(stream: BinaryIO, path: str, most_bases: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, ASCII letters uint8[n]) of each sequence in the order of the index; soft-masked ones in lower case.

    ``stream`` is the seekable file, ``path`` its name in messages. Raises ValueError for a file that is damaged or
    truncated, of an unknown version, or that has a sequence of more than ``most_bases`` bases.
    """
    reader = _Reader(stream, path)
    for entry, end in reader.bounded_index():
        record = reader.record(entry, end, most_bases)
        yield entry.name, reader.letters(record, 0, record.num_bases)


class _Record(NamedTuple):
    num_bases: int
    unknown: np.ndarray
    """intervals of N, int64[m, 2], half-open"""
    soft: np.ndarray
    """soft-masked intervals, int64[m, 2], half-open"""
    offset: int
    """of the packed bases, in bytes"""


class _Reader:
    """A .2bit file with its byte order and size."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._stream = stream
        self._path = path
        self.num_bytes = os.fstat(stream.fileno()).st_size
        stream.seek(0)
        self._order = "<" if stream.read(4) == SIGNATURES[0] else ">"

    def damaged(self, why: str) -> ValueError:
        """Return the error for a damaged file."""
        return ValueError(f"{self._path} is a damaged or truncated .2bit file: {why}")

    def index(self) -> list[_Entry]:
        """Read the names and offsets of all sequences."""
        version, num_sequences, _ = self._integers(3, self.num_bytes)
        if version > 1:
            raise ValueError(f"{self._path} is .2bit of version {version}; versions 0 and 1 can be read")
        entries = []
        for _ in range(num_sequences):
            (length,) = self._read(1, self.num_bytes)
            word = self._read(length, self.num_bytes)
            name = word.decode(errors="replace")
            if not name or not name.isprintable() or "\N{REPLACEMENT CHARACTER}" in name:
                raise self.damaged(f"{word!r} is not a valid sequence name")
            offset = int(self._integers(1, self.num_bytes, "u8" if version == 1 else "u4")[0])
            entries.append(_Entry(name, offset))
        header_end = self._stream.tell()
        for entry in entries:
            if not header_end <= entry.offset < self.num_bytes:
                raise self.damaged(f"{entry.name} should begin at byte {entry.offset:,} of {self.num_bytes:,}")
        return entries

    def bounded_index(self) -> list[tuple[_Entry, int]]:
        """Return each sequence with the byte before which its record ends; raise ValueError if two share an offset."""
        entries = self.index()
        offsets = sorted(entry.offset for entry in entries)
        found = []
        for entry in entries:
            following = bisect.bisect_right(offsets, entry.offset)
            if following and bisect.bisect_left(offsets, entry.offset) != following - 1:
                raise self.damaged(f"two sequences begin at byte {entry.offset}")
            found.append((entry, offsets[following] if following < len(offsets) else self.num_bytes))
        return found

    def record(self, entry: _Entry, end: int, most_bases: int) -> _Record:
        """Read the part before the bases of the sequence whose record lies before byte ``end``."""
        self._stream.seek(entry.offset)
        num_bases = int(self._integers(1, end)[0])
        if num_bases > most_bases:
            raise ValueError(
                f"{self._path}: contig {entry.name} has more than the {most_bases:,} bases that are supported"
            )
        unknown = self._intervals(num_bases, end, entry.name)
        soft = self._intervals(num_bases, end, entry.name)
        self._integers(1, end)  # reserved
        offset = self._stream.tell()
        if offset + (num_bases + 3) // 4 > end:
            raise self.damaged(f"{entry.name} has {num_bases:,} bases, which do not fit in before byte {end:,}")
        return _Record(num_bases, unknown, soft, offset)

    def letters(self, record: _Record, start: int, end: int) -> np.ndarray:
        """Read bases [start, end) of a sequence, uint8[end - start]; ``start`` is a multiple of 4."""
        num_packed = (end - start + 3) // 4
        begin = record.offset + start // 4
        self._stream.seek(begin)
        letters = np.empty(4 * num_packed, np.uint8)
        for first in range(0, num_packed, _CHUNK_BYTES):
            packed = np.frombuffer(self._read(min(_CHUNK_BYTES, num_packed - first), begin + num_packed), np.uint8)
            _FOUR_LETTERS.take(packed, axis=0, out=letters[4 * first : 4 * (first + packed.size)].reshape(-1, 4))
        letters = letters[: end - start]
        for first, last in _within(record.unknown, start, end).tolist():
            letters[first:last] = ord("N")
        for first, last in _within(record.soft, start, end).tolist():
            letters[first:last] |= 0x20
        return letters

    def _intervals(self, num_bases: int, end: int, name: str) -> np.ndarray:
        """Read intervals of a sequence as int64[m, 2], half-open."""
        count = int(self._integers(1, end)[0])
        starts = self._integers(count, end).astype(np.int64)
        ends = starts + self._integers(count, end)
        if count and ((starts[1:] < ends[:-1]).any() or ends[-1] > num_bases):
            raise self.damaged(f"the blocks of {name} overlap or reach beyond its {num_bases:,} bases")
        return np.column_stack([starts, ends])

    def _integers(self, count: int, end: int, kind: str = "u4") -> np.ndarray:
        dtype = np.dtype(self._order + kind)
        return np.frombuffer(self._read(count * dtype.itemsize, end), dtype)

    def _read(self, num_bytes: int, end: int) -> bytes:
        """Read exactly ``num_bytes`` that must lie before byte ``end`` of the file."""
        if self._stream.tell() + num_bytes > end:
            raise self.damaged(f"{num_bytes:,} bytes are missing at byte {self._stream.tell():,}")
        content = self._stream.read(num_bytes)
        if len(content) != num_bytes:
            raise self.damaged(f"it ends at byte {self._stream.tell():,}")
        return content


def _within(intervals: np.ndarray, start: int, end: int) -> np.ndarray:
    """Return the parts of intervals int64[m, 2] (sorted, disjoint) in [start, end), relative to ``start``."""
    first = np.searchsorted(intervals[:, 1], start, side="right")
    last = np.searchsorted(intervals[:, 0], end, side="left")
    return np.clip(intervals[first:last], start, end) - start


def _four_letters() -> np.ndarray:
    """Return the letters of every packed byte, the first base in the highest bits, uint8[256, 4]."""
    values = np.arange(256)[:, None] >> np.array([6, 4, 2, 0])
    return np.ascontiguousarray(_LETTERS[values & 3])


_FOUR_LETTERS = _four_letters()
