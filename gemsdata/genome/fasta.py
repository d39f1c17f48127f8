"""Stream records out of sequence files: FASTA (plain, gzip, bgzip, zstd, stdin) and .2bit.

The parsing is htslib's (pysam), the decompression xopen's (ISA-L, zstd), the .2bit reader py2bit. What is added here:
one door for all of them, and checks that the parser leaves out (a truncated archive, FASTQ, text before the first
header).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import py2bit
import pysam
import xopen

STDIN = "-"
_TWOBIT_SIGNATURES = (b"\x43\x27\x41\x1a", b"\x1a\x41\x27\x43")
_COMPRESSED_SIGNATURES = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")
_PIPE_BYTES = 1 << 20

_as_utf8 = ctypes.pythonapi.PyUnicode_AsUTF8AndSize
_as_utf8.restype = ctypes.c_void_p
_as_utf8.argtypes = [ctypes.py_object, ctypes.POINTER(ctypes.c_ssize_t)]


class Record(NamedTuple):
    """One sequence as it stands in the file."""

    name: str
    """first word of the header"""
    sequence: str
    """ASCII letters in their original case, line breaks removed"""


def letters(sequence: str) -> np.ndarray:
    """Return a read-only view of an ASCII string's bytes, uint8[n]; valid only while the string lives.

    CPython keeps ASCII strings as plain bytes, so nothing is copied. (A copy of a chromosome costs more than parsing
    it.)
    """
    num_bytes = ctypes.c_ssize_t()
    address = _as_utf8(sequence, ctypes.byref(num_bytes))
    assert num_bytes.value == len(sequence)
    if not sequence:
        return np.empty(0, np.uint8)
    view = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes.value).from_address(address))
    view.flags.writeable = False
    return view


@dataclass
class FileReport:
    """What reading a file showed that the records do not carry."""

    path: str
    crlf: bool = False
    """the first 64 KiB have Windows line ends"""


def records(path: str, report: FileReport | None = None) -> Iterator[Record]:
    """Yield the records of a FASTA or .2bit file, or of standard input when ``path`` is ``-``.

    Raises FileNotFoundError for a missing file and ValueError for one that is empty, truncated, or not FASTA.
    """
    report = report or FileReport(path)
    if path == STDIN:
        yield from _stream_records(sys.stdin.buffer, path, report)
        return
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    if os.path.isdir(path):
        raise ValueError(f"{path} is a directory; give a FASTA or .2bit file")
    try:
        with open(path, "rb") as stream:
            if not Path(path).is_file():  # a named pipe or a process substitution: can be read only once
                yield from _stream_records(stream, path, report)
                return
            head = stream.read(1 << 16)
    except PermissionError:
        raise ValueError(f"{path} cannot be read: permission denied") from None
    if head.startswith(_TWOBIT_SIGNATURES):
        yield from _twobit_records(path)
    elif head.startswith(_COMPRESSED_SIGNATURES):
        with open(path, "rb") as stream:
            yield from _stream_records(stream, path, report)
    else:
        _check_head(head, path, report)
        yield from _parse(path, path)


def _check_head(head: bytes, path: str, report: FileReport) -> None:
    """Raise ValueError unless the first 64 KiB begin like a FASTA file; note its line ends."""
    where = "standard input" if path == STDIN else path
    text = head.lstrip()
    if head.startswith(_TWOBIT_SIGNATURES):
        raise ValueError(f"{where} is .2bit, which needs random access; give it as a file, not as a stream")
    if not text:
        raise ValueError(f"{where} is empty; a FASTA file with at least one sequence is needed")
    if text.startswith(b"@"):
        raise ValueError(f"{where} looks like FASTQ; a genome in FASTA or .2bit is needed")
    if not text.startswith(b">"):
        raise ValueError(f"{where} does not begin with a FASTA header line ('>name'); it begins with {text[:20]!r}")
    report.crlf = b"\r\n" in head


def _parse(fasta_path: str, shown_path: str) -> Iterator[Record]:
    """Yield the records that htslib's parser finds in ``fasta_path``."""
    with pysam.FastxFile(fasta_path, persist=False) as reader:
        iterator = iter(reader)
        while True:
            try:
                record = next(iterator)
                sequence = record.sequence
            except StopIteration:
                return
            except UnicodeDecodeError:
                raise ValueError(f"{shown_path} holds bytes that are no text: it is not DNA in FASTA") from None
            except (ValueError, OSError) as error:
                raise ValueError(f"{shown_path} cannot be read as FASTA: {error}") from None
            if not record.name:
                raise ValueError(
                    f"{shown_path} has a header line without a name; every '>' needs a name right after it"
                )
            if record.quality is not None:
                raise ValueError(
                    f"{shown_path} has a line that begins with '+' or '@' in record {record.name}: it is not FASTA"
                )
            if sequence and not sequence.isascii():
                raise ValueError(f"{shown_path}: record {record.name} holds letters beyond ASCII: it is not DNA")
            name = record.name
            del record
            yield Record(name, sequence or "")
            del sequence  # before the next one is made: a chromosome at a time in memory, not two


def _stream_records(stream: BinaryIO, path: str, report: FileReport) -> Iterator[Record]:
    """Yield the records of a byte stream, compressed or not.

    A thread decompresses into a pipe from which htslib reads. So nothing is spooled to disk, and an archive that ends
    early raises here, where htslib would take it for the end of the file.
    """
    read_end, write_end = os.pipe()
    failures: list[BaseException] = []

    def pump() -> None:
        try:
            with os.fdopen(write_end, "wb", buffering=0) as sink, xopen.xopen(stream, "rb", threads=0) as source:
                block = source.read(_PIPE_BYTES)
                while block.isspace():
                    block = source.read(_PIPE_BYTES)
                _check_head(block[: 1 << 16], path, report)
                while block:
                    sink.write(block)
                    block = source.read(_PIPE_BYTES)
        except BrokenPipeError:
            pass
        except BaseException as error:
            failures.append(error)

    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    thread = threading.Thread(target=pump, name="fasta-pump", daemon=True)
    thread.start()
    parse_error: ValueError | None = None
    try:
        yield from _parse(f"/dev/fd/{read_end}", path)
    except ValueError as error:
        parse_error = error
    finally:
        os.close(read_end)
        thread.join()
    if failures:
        failure = failures[0]
        if isinstance(failure, (EOFError, OSError)) or "zlib" in type(failure).__module__:
            where = "standard input" if path == STDIN else path
            raise ValueError(f"{where} is truncated or damaged: {failure}") from None
        raise failure
    if parse_error is not None:
        raise parse_error


def _twobit_records(path: str) -> Iterator[Record]:
    """Yield the records of a .2bit file, soft-masking kept as lower case."""
    try:
        reader = py2bit.open(path, True)
        lengths: dict[str, int] = reader.chroms()
        whole = _twobit_end(path) <= os.path.getsize(path)
    except (RuntimeError, struct.error, OSError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is a damaged or truncated .2bit file")
    with contextlib.closing(reader):
        for name, length in lengths.items():
            sequence = reader.sequence(name) if length else ""
            yield Record(name, sequence)


def _twobit_end(path: str) -> int:
    """Return where the last sequence of a .2bit file should end, in bytes (py2bit reads zeros past the end)."""
    with open(path, "rb") as stream:
        order = "<" if stream.read(4) == _TWOBIT_SIGNATURES[0] else ">"

        def integer() -> int:
            value: int = struct.unpack(f"{order}I", stream.read(4))[0]
            return value

        stream.seek(8)
        num_sequences = integer()
        stream.seek(16)
        offsets = []
        for _ in range(num_sequences):
            stream.seek(stream.read(1)[0], os.SEEK_CUR)
            offsets.append(integer())
        end = stream.tell()
        for offset in offsets:
            stream.seek(offset)
            num_bases = integer()
            for _ in range(2):  # runs of N, then soft-masked runs: a start and a size each
                stream.seek(8 * integer(), os.SEEK_CUR)
            end = max(end, stream.tell() + 4 + (num_bases + 3) // 4)
    return end
