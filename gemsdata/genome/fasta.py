"""Read sequence records from FASTA files (plain, gzip, bgzip, bzip2, xz, zstd, standard input) and .2bit files.

The parser returns every byte of every sequence line, or raises. htslib and pyfastx drop the text after a NUL byte and
treat a line that begins with '@' as a header; CHANGELOG.md ("Reading sequence files") compares the libraries.
"""

from __future__ import annotations

import itertools
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from gemsdata.files.prefetch import prefetch
from gemsdata.files.remote_folder import downloaded, is_url
from gemsdata.genome import decompress, twobit

STDIN = "-"
MOST_BASES = (1 << 31) - 1
"""of one record"""
_MOST_HEADER_BYTES = 1 << 20
HEAD_BYTES = 1 << 16
_WHITESPACE = b" \t\n\r\x0b\x0c"


class Record(NamedTuple):
    """One sequence of the file, unchanged."""

    name: str
    """first word of the header"""
    letters: np.ndarray
    """uint8[n], ASCII codes in their original case, white space removed"""

    @property
    def sequence(self) -> str:
        """The letters as a string."""
        return self.letters.tobytes().decode("latin-1")


@dataclass
class FileReport:
    """Facts about a file that its records do not contain."""

    path: str
    crlf: bool = False
    """the first 64 KiB have Windows line ends"""
    num_bytes_read: int = 0
    """bytes of the file (as it is, compressed or not) that have been read so far; 0 for standard input"""


def records(path: str, report: FileReport | None = None) -> Iterator[Record]:
    """Yield the records of a FASTA or .2bit file, or of standard input when ``path`` is ``-``.

    A file at a URL is fetched to a temporary folder first. Raises FileNotFoundError for a missing file and ValueError
    for one that is empty, truncated, changed while it is read, or not FASTA.
    """
    report = report or FileReport(path)
    if is_url(path):
        with downloaded(path) as copy:
            yield from _file_records(copy, path, report)
        return
    if path == STDIN:
        yield from _fasta_records(sys.stdin.buffer, "standard input", report)
        return
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    if os.path.isdir(path):
        raise ValueError(f"{path} is a directory; give a FASTA or .2bit file")
    yield from _file_records(Path(path), path, report)


def _file_records(path: Path, shown: str, report: FileReport) -> Iterator[Record]:
    """Yield the records of a file; ``shown`` is its name in messages."""
    try:
        stream = open(path, "rb")  # noqa: SIM115  (closed below)
    except PermissionError:
        raise ValueError(f"{shown} cannot be read: permission denied") from None
    with stream:
        before = _state(stream)
        if path.is_file() and stream.peek(4).startswith(twobit.SIGNATURES):
            found: Iterator[Record] = (
                Record(name, letters) for name, letters in twobit.sequences(stream, shown, MOST_BASES)
            )
        else:
            found = _fasta_records(stream, shown, report)
        for record in found:
            if stream.seekable():
                report.num_bytes_read = stream.tell()
            yield record
        if _state(stream) != before:
            raise changed(shown)


def _state(stream: BinaryIO) -> tuple[int, int] | None:
    """Return size in bytes and time of the last change in ns of an open file; None for a pipe or device."""
    status = os.fstat(stream.fileno())
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def changed(shown: str) -> ValueError:
    """Return the error for a file that was changed while it was read."""
    return ValueError(f"{shown} was changed while it was read: wait until it is complete, and run the command again")


def too_long(shown: str, name: str) -> ValueError:
    """Return the error for a record of more than MOST_BASES bases."""
    return ValueError(f"{shown}: contig {name} has more than the {MOST_BASES:,} bases that are supported")


def _fasta_records(stream: BinaryIO, shown: str, report: FileReport) -> Iterator[Record]:
    """Yield the records of a FASTA stream, compressed or not; ``shown`` is its name in messages."""
    blocks = decompress.blocks(stream, shown)
    first = next(blocks, b"")
    if first.startswith(twobit.SIGNATURES):
        raise ValueError(f"{shown} is .2bit, which needs random access; give it as a file, not as a stream")
    report.crlf = b"\r\n" in first[:HEAD_BYTES]
    # A thread reads and decompresses the next block while this one is parsed.
    yield from _parse(prefetch(itertools.chain([first], blocks)), shown)


def _parse(blocks: Iterator[bytes], shown: str) -> Iterator[Record]:
    """Yield the records of FASTA text, given as non-empty blocks."""
    name: str | None = None
    header: bytearray | None = None  # while inside a header line
    letters = bytearray()
    previous = b"\n"
    for block in _from_first_header(blocks, shown):
        begin = 0
        while begin < len(block):
            if header is not None:
                end = block.find(b"\n", begin)
                header += block[begin : end if end >= 0 else len(block)]
                if len(header) > _MOST_HEADER_BYTES:
                    raise ValueError(f"{shown} has a header line of more than {_MOST_HEADER_BYTES:,} bytes")
                if end < 0:
                    break
                name, header, begin = name_of(header, shown), None, end + 1
                continue
            end = block.find(b">", begin)
            letters += _without_whitespace(block[begin : end if end >= 0 else len(block)])
            if len(letters) > MOST_BASES:
                raise too_long(shown, name or "")
            if end < 0:
                break
            if (block[end - 1 : end] if end else previous) != b"\n":
                raise ValueError(f"{shown}: record {name} has a '>' inside a line; a header must begin its line")
            if name is not None:
                yield Record(name, np.frombuffer(letters, np.uint8))
            name, letters, header, begin = None, bytearray(), bytearray(), end + 1
        previous = block[-1:]
    if header is not None:  # the last line is a header without a line end
        name = name_of(header, shown)
    if name is not None:
        yield Record(name, np.frombuffer(letters, np.uint8))


def _from_first_header(blocks: Iterator[bytes], shown: str) -> Iterator[bytes]:
    """Yield the blocks from the first header line on; raise ValueError if anything but white space precedes it."""
    for block in blocks:
        text = block.lstrip(_WHITESPACE)
        if not text:
            continue
        if text.startswith(b"@"):
            raise ValueError(f"{shown} looks like FASTQ; a genome in FASTA or .2bit is needed")
        if not text.startswith(b">"):
            raise ValueError(f"{shown} does not begin with a FASTA header line ('>name'); it begins with {text[:20]!r}")
        yield text
        yield from blocks
        return
    raise ValueError(f"{shown} is empty; a FASTA file with at least one sequence is needed")


def name_of(header: bytearray, shown: str) -> str:
    """Return the first word of a header line without its '>'."""
    text = bytes(header).removesuffix(b"\r")
    if b"\r" in text:
        raise ValueError(f"{shown} has a carriage return inside a header line; end the lines with \\n or \\r\\n")
    if not text or text[:1] in _WHITESPACE:
        raise ValueError(f"{shown} has a header line without a name; every '>' needs a name right after it")
    word = text.split(maxsplit=1)[0]
    name = word.decode(errors="replace")
    if not name.isprintable() or "\N{REPLACEMENT CHARACTER}" in name:
        raise ValueError(f"{shown} has a contig name that is not printable text: {word[:80]!r}")
    return name


def _without_whitespace(text: bytes) -> bytes:
    """Return sequence lines without white space (bytes.replace runs at 1.1 GB/s, bytes.translate at 0.7)."""
    text = text.replace(b"\n", b"")
    for character in (b"\r", b" ", b"\t", b"\x0b", b"\x0c"):
        if character in text:
            text = text.replace(character, b"")
    return text
