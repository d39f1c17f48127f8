"""Small awkward genomes built in memory, and writers of the formats that only others write."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np

COMPLEMENT = str.maketrans("ACGTacgtNn", "TGCAtgcaNn")


def random_dna(num_bases: int, seed: int, letters: str = "ACGT") -> str:
    """Return ``num_bases`` letters; the same for the same seed."""
    return "".join(random.Random(seed).choices(letters, k=num_bases))


def letters(sequence: str) -> np.ndarray:
    """Return a sequence as a record holds it, uint8[n]."""
    return np.frombuffer(sequence.encode("latin-1"), np.uint8)


def awkward_genome() -> dict[str, str]:
    """Contigs with gaps, IUPAC letters, lower case, one too short for a k-mer, one empty, one without ACGT."""
    return {
        "NC_000001.11": random_dna(3000, 1) + "N" * 50 + random_dna(2000, 2).lower() + random_dna(1200, 3),
        "short": "ACGT",
        "empty": "",
        "iupac": random_dna(700, 4) + "RYSWKM" + random_dna(20, 5) + "n" + random_dna(900, 6, "ACGTacgt"),
        "gaps_only": "NNNNNNNN",
        "last": random_dna(1700, 7),
    }


def write_fasta(path: Path, contigs: dict[str, str], line_bases: int = 60, newline: str = "\n") -> Path:
    """Write contigs as FASTA."""
    lines = []
    for name, sequence in contigs.items():
        lines.append(f">{name} made for a test")
        lines += [sequence[i : i + line_bases] for i in range(0, len(sequence), line_bases)]
    path.write_bytes((newline.join(lines) + newline).encode())
    return path


def write_twobit(path: Path, contigs: dict[str, str], order: str = "<", version: int = 0) -> Path:
    """Write contigs as UCSC .2bit (https://genome.ucsc.edu/FAQ/FAQformat.html#format7), with N and mask blocks.

    ``order`` is the byte order as in struct; from version 1 on the offsets have 64 bits.
    """

    def blocks(sequence: str, inside: str) -> list[tuple[int, int]]:
        found = []
        for i, letter in enumerate(sequence):
            if letter in inside:
                if found and found[-1][0] + found[-1][1] == i:
                    found[-1] = (found[-1][0], found[-1][1] + 1)
                else:
                    found.append((i, 1))
        return found

    offset_code, offset_bytes = ("I", 4) if version == 0 else ("Q", 8)
    header = struct.pack(f"{order}IIII", 0x1A412743, version, len(contigs), 0)
    offset = len(header) + sum(1 + len(name.encode()) + offset_bytes for name in contigs)
    index, bodies = b"", b""
    for name, sequence in contigs.items():
        word = name.encode()
        index += struct.pack("<B", len(word)) + word + struct.pack(order + offset_code, offset + len(bodies))
        body = struct.pack(f"{order}I", len(sequence))
        for inside in ("Nn", "acgtn"):
            found = blocks(sequence, inside)
            body += struct.pack(f"{order}I", len(found))
            body += b"".join(struct.pack(f"{order}I", start) for start, _ in found)
            body += b"".join(struct.pack(f"{order}I", size) for _, size in found)
        body += struct.pack(f"{order}I", 0)
        digits = ["TCAG".find(letter) if letter in "TCAG" else 0 for letter in sequence.upper()]
        digits += [0] * (-len(digits) % 4)
        for i in range(0, len(digits), 4):
            a, b, c, d = digits[i : i + 4]
            body += bytes([a << 6 | b << 4 | c << 2 | d])
        bodies += body
    path.write_bytes(header + index + bodies)
    return path
