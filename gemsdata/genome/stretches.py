"""Read stretches of contigs separately: from .2bit files, and from FASTA files with an index of samtools.

A FASTA file needs a ``.fai`` beside it, and a ``.gzi`` as well when it is compressed by bgzip. An index gives the
position of each line of each contig; every byte that is read is compared with it, and together the stretches of a file
cover all of it, so that a file gives the same letters as reading it sequentially, or `IndexMisfitError`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gemsdata.files.remote_folder import is_url
from gemsdata.genome import decompress, fasta, twobit

_HEADER = re.compile(rb"(?:\s*\n)?>([^\n]*)\n", re.DOTALL)
_MOST_GAP_BYTES = 1 << 21
_MOST_CONTEXT = 64
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class IndexMisfitError(ValueError):
    """An index does not match its file; arguments are the path of the file and the contig that does not match."""

    @property
    def path(self) -> str:
        """Path of the file."""
        return str(self.args[0])

    def __str__(self) -> str:
        path, contig = self.args
        return (
            f"{path}.fai does not match the file at contig {contig}: make it again with `samtools faidx {path}`, or"
            " remove it"
        )


@dataclass(frozen=True)
class Stretch:
    """Bases [start, end) of a contig."""

    contig: int
    """which of its file"""
    name: str
    num_bases: int
    """of the whole contig"""
    start: int
    """a multiple of 4"""
    end: int
    line: tuple[int, int, int] = (0, 0, 0)
    """in a FASTA file: offset of the contig's first base, bases per line, bytes per line"""
    before: int = 0
    """in a FASTA file: end of the bases of the preceding contig"""


@dataclass(frozen=True)
class Portion:
    """Stretches of a file that one task reads, in the order of the file."""

    path: str
    state: tuple[int, int]
    """size in bytes and time of the last change in ns of the file"""
    stretches: tuple[Stretch, ...]
    is_twobit: bool
    blocks: np.ndarray | None
    """in a bgzip file: (compressed, uncompressed) offsets of its blocks, int64[m, 2]"""
    is_last: bool
    """whether it is the last portion of the file"""


def portions_of(path: str, portion_bases: int) -> list[Portion] | None:
    """Divide a file into portions of about ``portion_bases`` bases; None without a valid index, or if it is small.

    Raises ValueError for a damaged .2bit file.
    """
    if path == fasta.STDIN or is_url(path) or not os.path.isfile(path):
        return None
    with open(path, "rb") as stream:
        head = stream.read(18)
        status = os.fstat(stream.fileno())
        blocks = None
        is_twobit = head.startswith(twobit.SIGNATURES)
        if is_twobit:
            lengths = twobit.RandomAccess(stream, path, fasta.MOST_BASES).lengths()
            found = [Stretch(number, name, size, 0, size) for number, (name, size) in enumerate(lengths)]
        else:
            if decompress.is_compressed(head):
                blocks = _read_gzi(path, stream, head)
                if blocks is None:
                    return None
            found = _read_fai(path, status)
    if sum(contig.num_bases for contig in found) <= portion_bases:
        return None
    groups = _grouped(found, max(4, portion_bases // 4 * 4))
    state = (status.st_size, status.st_mtime_ns)
    return [
        Portion(path, state, tuple(group), is_twobit, _blocks_of(group, blocks), is_last=group is groups[-1])
        for group in groups
    ]


def _blocks_of(group: list[Stretch], blocks: np.ndarray | None) -> np.ndarray | None:
    """Return the blocks of a bgzip file from the first that stretches need to their last."""
    if blocks is None:
        return None
    first, last = group[0], group[-1]
    begin = first.before if first.start == 0 else _byte(first, max(first.start - _MOST_CONTEXT, 0))
    end = _byte(last, last.end) if last.num_bases else last.line[0]
    chosen = np.searchsorted(blocks[:, 1], [max(begin - 1, 0), end], side="right")
    return blocks[chosen[0] - 1 : chosen[1] + 1]


def read_portion(portion: Portion, context: int) -> Iterator[tuple[Stretch, np.ndarray, int]]:
    """Yield each stretch, its letters with up to ``context`` more bases on either side, and how many are on its left.

    Letters are uint8[n]; those on the left are a multiple of 4. Raises ValueError if the file does not match its index
    (`IndexMisfitError`), or was changed.
    """
    with open(portion.path, "rb") as stream:
        status = os.fstat(stream.fileno())
        if (status.st_size, status.st_mtime_ns) != portion.state:
            raise fasta.changed(portion.path)
        records = twobit.RandomAccess(stream, portion.path, fasta.MOST_BASES) if portion.is_twobit else None
        for stretch in portion.stretches:
            left = min(stretch.start, -(-context // 4) * 4)
            begin, end = stretch.start - left, min(stretch.end + context, stretch.num_bases)
            if records is not None:
                yield stretch, records.letters(stretch.contig, begin, end), left
                continue
            if stretch.start == 0:
                _check_header(portion, stretch, stream)
            if portion.is_last and stretch is portion.stretches[-1]:
                _check_end(portion, stretch, stream)
            yield stretch, _letters(portion, stretch, stream, begin, end), left


def has_crlf(portion: Portion) -> bool:
    """Return whether the first lines of a file have Windows line ends; False for .2bit."""
    if portion.is_twobit:
        return False
    with open(portion.path, "rb") as stream:
        head = next(decompress.blocks(stream, portion.path), b"")
    return b"\r\n" in head[: fasta.HEAD_BYTES]


def _grouped(contigs: list[Stretch], size: int) -> list[list[Stretch]]:
    """Cut contigs into stretches of at most ``size`` bases, and join small ones up to that."""
    groups: list[list[Stretch]] = []
    room = 0
    for contig in contigs:
        for start in range(0, max(contig.num_bases, 1), size):
            end = min(start + size, contig.num_bases)
            if end - start > room or not groups:
                groups.append([])
                room = size
            groups[-1].append(dataclasses.replace(contig, start=start, end=end))
            room -= end - start
    return groups


def _read_fai(path: str, status: os.stat_result) -> list[Stretch]:
    """Return the contigs of an index; an empty result if it is absent, older than the file, or damaged."""
    index = Path(f"{path}.fai")
    try:
        if index.stat().st_mtime_ns < status.st_mtime_ns:
            return []
        lines = index.read_text().splitlines()
        before, found = 0, []
        for number, line in enumerate(lines):
            name, *fields = line.split("\t")
            num_bases, offset, line_bases, line_bytes = map(int, fields[:4])
            ends = line_bytes - line_bases
            if num_bases > fasta.MOST_BASES or not (0 <= before <= offset and line_bases >= 0 and 0 <= ends <= 2):
                return []
            if num_bases and (line_bases == 0 or (ends == 0 and num_bases > line_bases)):
                return []
            entry = Stretch(number, name, num_bases, 0, num_bases, (offset, line_bases, line_bytes), before)
            found.append(entry)
            before = _byte(entry, num_bases - 1) + 1 if num_bases else offset
    except (OSError, ValueError):
        return []
    return found


def _read_gzi(path: str, stream: BinaryIO, head: bytes) -> np.ndarray | None:
    """Return the offsets of the blocks of a bgzip file, int64[m, 2]; None if the file is incomplete or has no index."""
    stream.seek(max(0, os.fstat(stream.fileno()).st_size - len(_BGZIP_END)))
    if head[12:14] != b"BC" or stream.read() != _BGZIP_END:
        return None
    try:
        stored = np.fromfile(f"{path}.gzi", "<u8").astype(np.int64)
    except OSError:
        return None
    if stored.size == 0 or stored.size != 1 + 2 * stored[0]:
        return None
    blocks = np.concatenate([[[0, 0]], stored[1:].reshape(-1, 2)])
    return blocks if (np.diff(blocks, axis=0) > 0).all() else None


def _byte(contig: Stretch, base: int) -> int:
    """Return the offset of a base of a contig in the text of its file."""
    offset, line_bases, line_bytes = contig.line
    return offset + base // line_bases * line_bytes + base % line_bases


def _text(portion: Portion, stream: BinaryIO, begin: int, end: int | None) -> bytes:
    """Return bytes [begin, end) of the text of a FASTA file; ``end`` None: to its end, 2 MiB at most."""
    wanted = _MOST_GAP_BYTES if end is None else end - begin
    if wanted <= 0:
        return b""
    if portion.blocks is None:
        stream.seek(begin)
        return stream.read(wanted)
    block = int(np.searchsorted(portion.blocks[:, 1], begin, side="right")) - 1
    stream.seek(int(portion.blocks[block, 0]))
    skipped = begin - int(portion.blocks[block, 1])
    parts, have = [], 0
    for part in decompress.blocks(stream, portion.path):
        parts.append(part)
        have += len(part)
        if have >= skipped + wanted:
            break
    return b"".join(parts)[skipped : skipped + wanted]


def _letters(portion: Portion, contig: Stretch, stream: BinaryIO, begin: int, end: int) -> np.ndarray:
    """Return bases [begin, end) of a contig of a FASTA file, uint8[end - begin]."""
    if begin == end:
        return np.empty(0, np.uint8)
    _, line_bases, line_bytes = contig.line
    text = np.frombuffer(_text(portion, stream, _byte(contig, begin), _byte(contig, end - 1) + 1), np.uint8)
    first, rest = np.split(text, [line_bases - begin % line_bases])
    ends = line_bytes - line_bases
    whole = len(rest) // line_bytes * line_bytes
    lines, last = rest[:whole].reshape(-1, line_bytes), rest[whole:]
    letters = np.concatenate([first, lines[:, ends:].ravel(), last[ends:]])
    line_ends = np.concatenate([lines[:, :ends].ravel(), last[:ends]])
    wanted = np.frombuffer(b"\r\n"[2 - ends :], np.uint8)
    if letters.size != end - begin or (line_ends.reshape(-1, max(ends, 1)) != wanted).any():
        raise IndexMisfitError(portion.path, contig.name)
    if ((letters <= ord(" ")) | (letters == ord(">"))).any():
        raise IndexMisfitError(portion.path, contig.name)
    return letters


def _check_header(portion: Portion, contig: Stretch, stream: BinaryIO) -> None:
    """Raise ValueError unless a contig is preceded by its header line only."""
    begin, end = contig.before, contig.line[0]
    header = None if end - begin > _MOST_GAP_BYTES else _HEADER.fullmatch(_text(portion, stream, begin, end))
    if header is None or (contig.contig > 0 and header[0][:1] == b">" and not _begins_line(portion, stream, begin)):
        raise IndexMisfitError(portion.path, contig.name)
    if fasta.name_of(bytearray(header[1]), portion.path) != contig.name:
        raise IndexMisfitError(portion.path, contig.name)


def _begins_line(portion: Portion, stream: BinaryIO, begin: int) -> bool:
    return _text(portion, stream, begin - 1, begin) == b"\n"


def _check_end(portion: Portion, contig: Stretch, stream: BinaryIO) -> None:
    """Raise ValueError unless nothing but white space follows the last contig."""
    end = _byte(contig, contig.num_bases - 1) + 1 if contig.num_bases else contig.line[0]
    rest = _text(portion, stream, end, None)
    if rest.strip() or len(rest) == _MOST_GAP_BYTES:
        raise IndexMisfitError(portion.path, contig.name)
