"""Fuzz targets: sequence files. The second reader is that of `gemsdata verify`, which shares no code with the first."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gemsdata.genome.packed import Contig, GenomeReport, read_contigs
from gemsdata.shards.verify.reference import OTHER, SOFT_BIT, read_reference
from tools.fuzz.mutations import mutate_bytes
from tools.fuzz.runner import WrongAnswer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_FASTA_WORDS = (
    b">",
    b"\n>",
    b"\n>c\n",
    b"@",
    b"\n@r\n",
    b"+\n",
    b";",
    b"\r\n",
    b"\r",
    b"\0",
    b" ",
    b"N" * 70,
    b"U",
    b"*",
)


class GenomeTarget:
    """Sequence files of one format."""

    def __init__(self, name: str, folder: Path, encode: Callable[[bytes], bytes], words: Sequence[bytes] = ()) -> None:
        self.name = name
        self._path = folder / f"{name.replace(' ', '_')}.input"
        self._scratch = folder / f"{name.replace(' ', '_')}.codes"
        self._encode = encode
        self._words = words
        self._seeds: list[bytes] = []

    def prepare(self) -> None:
        """Make the files."""
        self._seeds = [self._encode(text) for text in _genomes()]

    def seeds(self) -> Sequence[bytes]:
        """Return the files' contents."""
        return self._seeds

    def mutate(self, seed: bytes, generator: random.Random) -> bytes:
        """Return a mutated file; of a compressed format half of the time the text was mutated, then compressed."""
        if self._encode is not _as_is and self.name != ".2bit" and generator.random() < 0.1:
            return self._encode(mutate_bytes(_genomes()[0], generator, _FASTA_WORDS))
        return mutate_bytes(seed, generator, self._words)

    def run(self, content: bytes) -> None:
        """Read a file with both readers and compare every base."""
        self._path.write_bytes(content)
        contigs = list(read_contigs([str(self._path)], GenomeReport()))
        try:
            reference = read_reference([str(self._path)], self._scratch)
        except ValueError as error:
            raise WrongAnswer(f"verify refuses what shard reads: {error}") from None
        if [contig.name for contig in contigs] != reference.names:
            raise WrongAnswer(f"names {[contig.name for contig in contigs]}, verify reads {reference.names}")
        for index, contig in enumerate(contigs):
            if not np.array_equal(_codes(contig), reference.contig(index)):
                raise WrongAnswer(f"contig {contig.name} has {contig.num_bases} bases, verify reads other ones")


def genome_targets(folder: Path) -> list[GenomeTarget]:
    """Return the targets of all sequence formats."""
    return [
        GenomeTarget("FASTA", folder, _as_is, _FASTA_WORDS),
        GenomeTarget(".2bit", folder, _twobit, (struct.pack("<I", 1), struct.pack("<I", 1 << 30))),
        GenomeTarget("gzip", folder, lambda text: gzip.compress(text[:1500], mtime=0) + gzip.compress(text[1500:])),
        GenomeTarget("bgzip", folder, bgzip),
        GenomeTarget("bzip2", folder, lambda text: bz2.compress(text[:1500]) + bz2.compress(text[1500:])),
        GenomeTarget("xz", folder, lambda text: lzma.compress(text[:1500]) + lzma.compress(text[1500:])),
        GenomeTarget("zstd", folder, _zstd, (b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd",)),
    ]


def bgzip(content: bytes) -> bytes:
    """Compress to the blocked format of bgzip (SAM specification, section 4.1)."""
    blocks = []
    for first in [*range(0, len(content), 1000), len(content)]:
        part = content[first : first + 1000]
        compressor = zlib.compressobj(wbits=-15)
        body = compressor.compress(part) + compressor.flush()
        header = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(body) + 25)
        blocks.append(header + body + struct.pack("<II", zlib.crc32(part), len(part)))
    return b"".join(blocks)


def _as_is(text: bytes) -> bytes:
    return text


def _zstd(text: bytes) -> bytes:
    checked = {zstd.CompressionParameter.checksum_flag: 1}
    return zstd.compress(text[:1500], options=checked) + zstd.compress(text[1500:])


def _genomes() -> list[bytes]:
    """Return small FASTA texts: soft-masking, gaps, IUPAC letters, RNA, short and empty records, Windows line ends."""
    generator = random.Random(0)

    def bases(count: int, letters: str = "ACGT") -> str:
        return "".join(generator.choices(letters, k=count))

    records = {
        "chr1 one": bases(700) + "N" * 90 + bases(300, "acgtACGT"),
        "chr2|x": bases(130, "ACGTacgtnNRYkm"),
        "none": "",
        "short": "ACG",
        "chr3": bases(900),
    }
    texts = []
    for newline, width in (("\n", 60), ("\r\n", 31)):
        lines = []
        for name, sequence in records.items():
            lines += [f">{name}", *(sequence[i : i + width] for i in range(0, len(sequence), width))]
        texts.append((newline.join(lines) + newline).encode())
    rna = bases(300, "ACGUacgu")
    texts.append(f"\n  >rna\n{rna}\n>dna\n{bases(200)}".encode())
    return texts


def _twobit(text: bytes) -> bytes:
    """Return the records of a FASTA text as .2bit; letters that .2bit does not know become N."""
    order = "<" if b"\r" in text else ">"
    records = [record.split(b"\n", 1) for record in text.split(b">")[1:]]
    names = [header.split()[0] for header, _ in records]
    offset = 16 + sum(5 + len(name) for name in names)
    index, bodies = b"", b""
    for name, (_, lines) in zip(names, records, strict=True):
        index += bytes([len(name)]) + name + struct.pack(order + "I", offset + len(bodies))
        letters = np.frombuffer(b"".join(lines.split()), np.uint8)
        upper = letters & 0xDF
        digits = np.select([upper == ord("C"), upper == ord("A"), upper == ord("G")], [1, 2, 3], 0).astype(np.uint8)
        unknown = ~np.isin(upper, np.frombuffer(b"ACGTU", np.uint8))
        body = struct.pack(order + "I", len(letters))
        for mask in (unknown, letters >= ord("a")):
            edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).reshape(-1, 2)
            values = [len(edges), *edges[:, 0].tolist(), *(edges[:, 1] - edges[:, 0]).tolist()]
            body += struct.pack(f"{order}{len(values)}I", *values)
        fours = np.append(digits, np.zeros(-len(digits) % 4, np.uint8)).reshape(-1, 4)
        bodies += body + bytes(4) + (fours << np.array([6, 4, 2, 0], np.uint8)).sum(axis=1, dtype=np.uint8).tobytes()
    return struct.pack(order + "4I", 0x1A412743, 0, len(records), 0) + index + bodies


def _codes(contig: Contig) -> np.ndarray:
    """Return a packed contig as one code a base, as `ReferenceGenome.codes` holds it, uint8[n]."""
    codes = (contig.packed[:, None] >> np.array([6, 4, 2, 0], np.uint8) & 3).ravel()[: contig.num_bases]
    for start, end in contig.gaps.tolist():
        codes[start:end] = OTHER
    for start, end in contig.soft.tolist():
        codes[start:end] |= SOFT_BIT
    return codes
