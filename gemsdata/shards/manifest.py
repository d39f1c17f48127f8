"""The manifest of a shard set: ``_index.json``, written last, whose presence means that the set is complete."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemsdata.files.publish import write_text

MANIFEST_FILE = "_index.json"
NPMI_FILE = "npmi.parquet"
INTERVALS_FILE = "intervals.parquet"
WORK_FOLDER = "_work"
"""what a set that is being written keeps in its folder until it is complete"""
SUFFIXES = {"arrow": ".arrow", "webdataset": ".tar"}
FORMAT = "gemsdata"
VERSION = 1
SPLITS = ("train", "valid")


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One file of a shard."""

    path: str
    """relative to the set's folder"""
    num_bytes: int
    xxh3_64: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A run of rows of a split, in one file per format."""

    first_row: int
    num_rows: int
    num_tokens: int
    content_xxh3_64: str
    """digest of the rows themselves: equal for every format and compression"""
    files: dict[str, ShardFile]
    """{"arrow": ..., "webdataset": ...}"""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a reader needs to know of a shard set."""

    version: int = VERSION
    fingerprint: str = ""
    """sha256 of the canonical content; independent of file format, compression and the genome file's name"""
    genome: dict[str, Any]
    """name, sha256 of the packed genome, num_bases, num_not_acgt, num_soft_masked"""
    contigs: list[dict[str, Any]]
    """name, num_bases"""
    k: int
    vocabulary: str = "5 special tokens, then the product over ATCG"
    row_tokens: int
    """L: token positions in a row"""
    token_dtype: str
    windows: dict[str, Any]
    """scheme and its parameters"""
    seed: int
    validation: dict[str, Any]
    """how it was chosen, and its regions [contig, start, end]"""
    formats: list[str]
    codec: str = "tokens"
    compression: str
    block_rows: int
    """rows of a block (an Arrow record batch, a WebDataset sample); the last block of a shard may be shorter"""
    rank_column: bool
    npmi: dict[str, Any]
    """file and its sha256, estimator, min_count, canonical, exclude_soft_masked, sha256 of the ranks"""
    splits: dict[str, list[Shard]] = field(default_factory=dict)

    def num_rows(self, split: str) -> int:
        """Return the number of rows of a split; raise ValueError when there is no such split."""
        return sum(shard.num_rows for shard in self.shards(split))

    def shards(self, split: str) -> list[Shard]:
        """Return the shards of a split in row order; raise ValueError when there is no such split."""
        if split not in self.splits:
            raise ValueError(f"split {split!r} is unknown; the set has {', '.join(self.splits)}")
        return self.splits[split]

    def with_fingerprint(self) -> Manifest:
        """Return the manifest with its fingerprint computed."""
        return dataclasses.replace(self, fingerprint=fingerprint(self))

    def save(self, folder: Path) -> None:
        """Publish the manifest in ``folder``."""
        write_text(folder / MANIFEST_FILE, self.to_json())

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read the manifest of the shard set in ``folder``.

        Raises FileNotFoundError when there is none, ValueError when it is not ours, of a newer version, or damaged.
        """
        path = Path(folder) / MANIFEST_FILE
        if not path.exists():
            raise FileNotFoundError(_why_absent(Path(folder)))
        return cls.parse(path.read_bytes(), str(path))

    @classmethod
    def parse(cls, text: bytes, path: str) -> Manifest:
        """Read a manifest from the content of its file; ``path`` is what messages call it. Raises as `load` does."""
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise ValueError
        except (ValueError, KeyError, AttributeError):
            raise ValueError(f"{path} is not the manifest of a gemsdata shard set") from None
        if content.get("version", 0) > VERSION:
            raise ValueError(
                f"{path} has format version {content['version']}; this gemsdata reads up to {VERSION}: upgrade it"
            )
        known = {f.name for f in dataclasses.fields(cls)}
        try:
            splits = {
                split: [
                    Shard(**{**shard, "files": {name: ShardFile(**file) for name, file in shard["files"].items()}})
                    for shard in shards
                ]
                for split, shards in content.pop("splits").items()
            }
            manifest = cls(splits=splits, **{name: value for name, value in content.items() if name in known})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        if manifest.fingerprint != fingerprint(manifest):
            raise ValueError(f"{path} is damaged or was edited: its fingerprint does not follow from its content")
        return manifest


def fingerprint(manifest: Manifest) -> str:
    """Hash what determines the rows and their ranks: the same for every file format, compression and file name."""
    content = {
        "version": manifest.version,
        "genome": manifest.genome["sha256"],
        "contigs": manifest.contigs,
        "k": manifest.k,
        "vocabulary": manifest.vocabulary,
        "row_tokens": manifest.row_tokens,
        "windows": manifest.windows,
        "seed": manifest.seed,
        "validation": manifest.validation["regions"],
        "ranks": manifest.npmi["rank_sha256"],
        "rows": {
            split: [[shard.first_row, shard.num_rows, shard.content_xxh3_64] for shard in shards]
            for split, shards in manifest.splits.items()
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _why_absent(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: no such folder"
    if (folder / WORK_FOLDER).exists():
        return f"{folder} holds an unfinished shard set; finish it with the same `gemsdata shard` command and --resume"
    return f"{folder} is not a shard set (no {MANIFEST_FILE}); make one with `gemsdata shard GENOME.fa -o {folder}`"
