"""The packed genome: 2 bits per base, plus the intervals that are not ACGT and those that are soft-masked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.files.npy_writer import NpyWriter, open_npy
from gemsdata.files.progress import Progress
from gemsdata.files.publish import write_text
from gemsdata.genome import fasta
from gemsdata.kernels import kmer

_IUPAC = frozenset("ACGTURYSWKMBDHVNX-.")
_INTERVAL_CHUNK = 1 << 16


GENOME_FILES = ("packed.bin", "gaps.npy", "soft.npy", "ambiguous.npy", "genome.json")
"""the files that a GenomeWriter writes"""


@dataclass(frozen=True)
class Contig:
    """One packed sequence of the genome."""

    name: str
    num_bases: int
    packed: np.ndarray
    """uint8[ceil(num_bases / 4)], four bases a byte, digits A0 T1 C2 G3; bases that are not ACGT hold 0"""
    gaps: np.ndarray
    """intervals that are not ACGT, int64[m, 2], 0-based, half-open"""
    soft: np.ndarray
    """lower-case intervals, int64[m, 2], 0-based, half-open"""
    letters: dict[str, int]
    """how often each letter other than ACGT occurs, in upper case"""
    ambiguous: np.ndarray
    """the gaps, split into maximal runs of one letter: (start, end, upper-case letter) int64[m, 3]"""
    num_rna: int = 0
    """how many U were read as T"""

    @property
    def acgt_runs(self) -> np.ndarray:
        """The maximal runs of ACGT, int64[m, 2]."""
        return complement(self.gaps, self.num_bases)


@dataclass
class GenomeReport:
    """Statistics collected while a genome is read, for the summary."""

    files: list[fasta.FileReport] = field(default_factory=list)
    num_contigs: int = 0
    num_bases: int = 0
    num_soft_masked: int = 0
    num_empty: int = 0
    num_rna: int = 0
    """U that were read as T"""
    letters: dict[str, int] = field(default_factory=dict)
    """letters other than ACGT and their counts"""

    @property
    def num_bytes_read(self) -> int:
        """Bytes of the files that have been read so far."""
        return sum(file.num_bytes_read for file in self.files)

    @property
    def num_not_acgt(self) -> int:
        """Bases that are not A, C, G or T."""
        return sum(self.letters.values())

    def add(self, contig: Contig) -> None:
        """Add a contig to the totals."""
        self.num_contigs += 1
        self.num_bases += contig.num_bases
        self.num_soft_masked += int((contig.soft[:, 1] - contig.soft[:, 0]).sum())
        self.num_empty += contig.num_bases == 0
        self.num_rna += contig.num_rna
        for letter, count in contig.letters.items():
            self.letters[letter] = self.letters.get(letter, 0) + count

    def merge(self, other: GenomeReport) -> None:
        """Add the report of other files."""
        self.files += other.files
        self.num_contigs += other.num_contigs
        self.num_bases += other.num_bases
        self.num_soft_masked += other.num_soft_masked
        self.num_empty += other.num_empty
        self.num_rna += other.num_rna
        for letter, count in other.letters.items():
            self.letters[letter] = self.letters.get(letter, 0) + count


def complement(intervals: np.ndarray, length: int) -> np.ndarray:
    """Return the parts of [0, length) that no interval of int64[m, 2] (sorted, disjoint, half-open) covers."""
    edges = np.concatenate([[0], intervals.ravel(), [length]]).reshape(-1, 2)
    return edges[edges[:, 1] > edges[:, 0]]


class ReadProgress:
    """Reports how much of sequence files has been read: bytes of a total, or bases if a file is a stream."""

    def __init__(self, paths: Iterable[str], report: GenomeReport, progress: Progress) -> None:
        sizes = [os.path.getsize(path) if os.path.isfile(path) else None for path in paths]
        self._total = None if None in sizes else sum(size for size in sizes if size is not None)
        self._report = report
        self._progress = progress
        self._done = 0

    def update(self, contig: Contig) -> None:
        """Report what has been read since the last call, after one more contig."""
        if self._total is None:
            self._progress("reading bases", contig.num_bases, None)
            return
        num_bytes = self._report.num_bytes_read
        self._progress("reading", num_bytes - self._done, self._total)
        self._done = num_bytes


def read_contigs(paths: Iterable[str], report: GenomeReport, *, soft: bool = True) -> Iterator[Contig]:
    """Yield the packed contigs of one or more sequence files, and fill ``report``; ``soft=False`` skips soft-masking.

    Raises ValueError for a file that is not a DNA FASTA or .2bit file, a contig name that occurs twice, or no ACGT at
    all.
    """
    names = ContigNames()
    for path in paths:
        for contig in read_file(path, report, soft=soft):
            names.add(contig.name, path)
            yield contig
    check_any_acgt(report)


def read_file(path: str, report: GenomeReport, *, soft: bool = True) -> Iterator[Contig]:
    """Yield the packed contigs of one sequence file, and add to ``report``; errors as in `read_contigs`."""
    file_report = fasta.FileReport(path)
    report.files.append(file_report)
    for record in fasta.records(path, file_report):
        contig = pack_record(record, path, soft=soft)
        del record  # free the text, so that memory holds one chromosome at a time
        report.add(contig)
        yield contig


class ContigNames:
    """The contig names read so far; each name may occur only once."""

    def __init__(self) -> None:
        self._path: dict[str, str] = {}

    def add(self, name: str, path: str) -> None:
        """Add a name; raise ValueError if it occurred before."""
        if name in self._path:
            raise ValueError(
                f"contig name {name!r} occurs twice (in {self._path[name]} and in {path}); "
                "contig names must differ: rename one"
            )
        self._path[name] = path


def check_any_acgt(report: GenomeReport) -> None:
    """Raise ValueError if no file contains an A, C, G or T."""
    if report.num_bases == report.num_not_acgt:
        names = ", ".join(file.path for file in report.files)
        raise ValueError(
            f"{names}: no A, C, G or T in {report.num_contigs} records; give a genome with DNA or RNA sequence"
        )


def pack_record(record: fasta.Record, path: str, *, soft: bool = True) -> Contig:
    """Pack one record, with U as T; raise ValueError if it contains letters other than IUPAC nucleotides."""
    name, sequence = record
    gaps = _intervals(sequence, kmer.NOT_ACGT)
    letters = _letters_within(sequence, gaps)
    for letter, count in letters.items():
        if letter not in _IUPAC:
            shown = letter if letter.isascii() and letter.isprintable() else f"byte {ord(letter):#04x}"
            kind = "it is FASTQ, not FASTA" if letter in "@+" else "DNA is needed, not protein or text"
            raise ValueError(f"{path}: record {name} holds {count} x {shown}, which is no IUPAC nucleotide; {kind}")
    num_rna = letters.pop("U", 0)
    if num_rna:  # RNA: find the gaps again, as U is not one
        sequence = np.where(sequence & 0xDF == ord("U"), sequence - 1, sequence)
        gaps = _intervals(sequence, kmer.NOT_ACGT)
    packed = np.empty((sequence.size + 3) // 4, np.uint8)
    kmer.pack(sequence, packed)
    kmer.clear(packed, gaps)
    soft_masked = _intervals(sequence, kmer.SOFT_MASKED) if soft else np.empty((0, 2), np.int64)
    return Contig(name, sequence.size, packed, gaps, soft_masked, letters, _letter_runs(sequence, gaps), num_rna)


class GenomeDigest:
    """The digest of names, bases and intervals of a genome; independent of file format and line length."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, contig: Contig) -> None:
        """Add the next contig."""
        self._digest.update(json.dumps([contig.name, contig.num_bases, len(contig.gaps), len(contig.soft)]).encode())
        for array in (contig.packed, contig.gaps, contig.soft):
            self._digest.update(np.ascontiguousarray(array).data)

    def hexdigest(self) -> str:
        """Return the sha256 of the contigs so far, in hex."""
        return self._digest.hexdigest()


class GenomeWriter:
    """Writes contigs to a folder one by one; the folder is complete once ``finish`` has returned."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._contigs: list[dict[str, Any]] = []
        with contextlib.ExitStack() as files:  # closes those that are open if one cannot be opened
            self._stream = files.enter_context(open(folder / "packed.bin", "wb"))
            self._gaps, self._soft, self._ambiguous = (
                files.enter_context(contextlib.closing(NpyWriter(folder / f"{name}.npy", np.int64, (width,))))
                for name, width in (("gaps", 3), ("soft", 3), ("ambiguous", 4))
            )
            self._files = files.pop_all()
        self._digest = GenomeDigest()
        self._byte_offset = 0

    def add(self, contig: Contig) -> None:
        """Append one contig."""
        index = len(self._contigs)
        self._stream.write(contig.packed.data)
        self._contigs.append({"name": contig.name, "num_bases": contig.num_bases, "byte_offset": self._byte_offset})
        self._byte_offset += contig.packed.size
        self._gaps.append(_with_contig(index, contig.gaps))
        self._soft.append(_with_contig(index, contig.soft))
        self._ambiguous.append(_with_contig(index, contig.ambiguous))
        self._digest.add(contig)

    def __enter__(self) -> GenomeWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()

    def finish(self) -> PackedGenome:
        """Complete the folder and open it."""
        self.__exit__()
        index = {"sha256": self._digest.hexdigest(), "contigs": self._contigs}
        write_text(self._folder / "genome.json", json.dumps(index))
        return PackedGenome.open(self._folder)


@dataclass(frozen=True)
class PackedGenome:
    """A genome on disk, memory-mapped."""

    sha256: str
    """digest of names, bases and intervals: the same for the same genome in any file format or line length"""
    names: list[str]
    num_bases: np.ndarray
    """bases of each contig, int64[C]"""
    base_offset: np.ndarray
    """offset of each contig in ``packed``, in bases, int64[C]"""
    packed: np.ndarray
    """uint8[...], four bases a byte"""
    gaps: np.ndarray
    """(contig, start, end) of each interval that is not ACGT, int64[m, 3]"""
    soft: np.ndarray
    """(contig, start, end) of each soft-masked interval, int64[m, 3]"""
    ambiguous: np.ndarray
    """(contig, start, end, upper-case letter) of each maximal run of one letter other than ACGT, int64[m, 4]"""

    @classmethod
    def open(cls, folder: Path) -> PackedGenome:
        """Memory-map the genome that a GenomeWriter wrote to ``folder``."""
        index = json.loads((folder / "genome.json").read_text())
        contigs = index["contigs"]
        size = (folder / "packed.bin").stat().st_size
        return cls(
            sha256=index["sha256"],
            names=[contig["name"] for contig in contigs],
            num_bases=np.array([contig["num_bases"] for contig in contigs], np.int64),
            base_offset=4 * np.array([contig["byte_offset"] for contig in contigs], np.int64),
            packed=np.memmap(folder / "packed.bin", np.uint8, mode="r") if size else np.empty(0, np.uint8),
            gaps=open_npy(folder / "gaps.npy"),
            soft=open_npy(folder / "soft.npy"),
            ambiguous=open_npy(folder / "ambiguous.npy"),
        )

    def mapped_anew(self) -> PackedGenome:
        """Return the genome with its bases in another memory map: what is read of it is freed with the object."""
        if not isinstance(self.packed, np.memmap) or self.packed.filename is None:
            return self
        return replace(self, packed=np.memmap(self.packed.filename, np.uint8, mode="r"))


def _intervals(sequence: np.ndarray, what: int) -> np.ndarray:
    flags = np.empty(sequence.size // kmer.BLOCK, np.uint8)
    kmer.count_flags(sequence, what, flags)
    state = np.array([0, -1], np.int64)
    chunk = np.empty((_INTERVAL_CHUNK, 2), np.int64)
    parts = [np.empty((0, 2), np.int64)]
    while True:
        found = kmer.find_intervals(sequence, what, flags, state, chunk)
        parts.append(chunk[:found].copy())
        if state[0] >= sequence.size:
            return np.concatenate(parts)


def _letters_within(sequence: np.ndarray, intervals: np.ndarray) -> dict[str, int]:
    """Return how often each letter, in upper case, occurs inside the intervals."""
    counts = np.zeros(256, np.int64)
    for start, end in intervals.tolist():
        for first in range(start, end, 1 << 20):  # in chunks, because bincount casts to int64
            counts += np.bincount(sequence[first : min(end, first + (1 << 20))], minlength=256)
    letters: dict[str, int] = {}
    for code in np.flatnonzero(counts).tolist():
        letter = chr(code).upper() if code < 128 else chr(code)
        letters[letter] = letters.get(letter, 0) + int(counts[code])
    return letters


def _letter_runs(sequence: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Cut intervals int64[m, 2] where the letter changes; return (start, end, upper-case letter) int64[r, 3]."""
    single = intervals[:, 1] - intervals[:, 0] == 1  # many runs only if a genome has ambiguity letters
    starts = [intervals[single, 0]]
    for start, end in intervals[~single].tolist():
        letters = _upper(sequence[start:end])
        starts.append(start + np.concatenate([[0], np.flatnonzero(letters[1:] != letters[:-1]) + 1]))
    first = np.sort(np.concatenate(starts))
    index = np.searchsorted(intervals[:, 0], first, side="right") - 1
    end = np.minimum(np.append(first[1:], np.iinfo(np.int64).max)[: len(first)], intervals[index, 1])
    return np.column_stack([first, end, _upper(sequence[first])])


def _upper(letters: np.ndarray) -> np.ndarray:
    return np.where(letters >= ord("a"), letters & 0xDF, letters)


def _with_contig(index: int, intervals: np.ndarray) -> np.ndarray:
    return np.column_stack([np.full(len(intervals), index, np.int64), intervals])
