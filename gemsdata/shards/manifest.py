"""The manifest of a shard set: ``_index.json``, written last, whose presence means that the set is complete.

This module also defines the names of all files of a set.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemsdata.files.checked_json import sha256_of_json
from gemsdata.files.publish import write_text
from gemsdata.files.typed_json import from_json, parse_object
from gemsdata.genome.vocab import MAX_K, token_dtype
from gemsdata.npmi.estimators import ESTIMATORS
from gemsdata.shards.manifest_checks import check_genome, check_shards, check_tokens, is_hex, require
from gemsdata.shards.manifest_fields import (
    SUFFIXES,
    ContigInfo,
    GenomeInfo,
    NpmiInfo,
    Shard,
    TokenInfo,
    ValidationInfo,
    WindowInfo,
)
from gemsdata.shards.manifest_text import json_pieces, read_splits, split_manifest
from gemsdata.shards.shard_table import ShardTable, column_of, num_bytes_of, row_pieces

MANIFEST_FILE = "_index.json"
NPMI_FILE = "npmi.parquet"
INTERVALS_FILE = "intervals.parquet"
WORK_FOLDER = "_work"
"""subfolder of a set that is being written, removed when it is complete"""
JOURNAL_FILE = "publish.json"
"""in the work folder: the set is encoded, and its files are being renamed into their places"""
SPLITS = ("train", "valid")
SCHEMES = ("fixed", "dnabert")
COMPRESSIONS = ("none", "zstd")

FORMAT = "gemsdata"
VERSION = 2
"""2 added manifest_sha256 and intervals_sha256; version 1 is still read"""
PACKED_VERSION = 3
"""version of sets of packed bases only"""
VIEW_VERSION = 5
"""version of sets written from a view only; 5 added tokens.files_sha256, 4 is still read"""
_VIEW_VERSIONS = (4, VIEW_VERSION)
_FINGERPRINT_VERSION = 1
_ADDED_IN_2 = ("manifest_sha256", "intervals_sha256")
_VOCABULARY = "5 special tokens, then the product over ATCG"
_CODEC = "tokens"
PACKED_VOCABULARY = "four bases a byte, the first in the highest bits: A 0, T 1, C 2, G 3"
PACKED_CODEC = "bases"
PACKED_SCHEME = "blocks"
VIEW_SCHEME = "view"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_TOKENIZER_VOCABULARY = "that of the Hugging Face tokenizer in tokenizer.json"
_MAX_ROW_TOKENS = 65535
_MAX_BLOCK_ROWS = 1 << 20
_MAX_SEED = (1 << 63) - 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a reader needs to know about a shard set."""

    version: int = VERSION
    fingerprint: str = ""
    """sha256 of what determines rows and ranks; independent of file format, compression and the genome file's name"""
    manifest_sha256: str = ""
    """sha256 of every other field; "" in version 1"""
    genome: GenomeInfo
    contigs: list[ContigInfo]
    k: int
    vocabulary: str = _VOCABULARY
    row_tokens: int
    """L: token positions in a row; in a packed set: bases that a block can hold"""
    token_dtype: str
    windows: WindowInfo
    seed: int
    validation: ValidationInfo
    formats: list[str]
    codec: str = _CODEC
    """"tokens", or "bases" if rows are blocks of packed bases"""
    compression: str
    block_rows: int
    """rows of a block (an Arrow record batch, a WebDataset sample); the last block of a shard may be shorter"""
    rank_column: bool
    npmi: NpmiInfo
    tokens: TokenInfo | None = None
    """tokens of a set that was written from a view; None: overlapping k-mers, or packed bases"""
    intervals_sha256: str = ""
    """of intervals.parquet; "" in version 1"""
    splits: Mapping[str, Sequence[Shard]] = field(default_factory=dict)
    """a `ShardTable` of each split where the manifest was read from a file of the writer's layout"""

    @property
    def packed(self) -> bool:
        """Whether the set stores blocks of packed bases, from which views cut rows, instead of rows of tokens."""
        return self.codec == PACKED_CODEC

    def num_rows(self, split: str) -> int:
        """Return the number of rows of a split; raise ValueError if there is no such split."""
        return sum(column_of(self.shards(split), "num_rows"))

    def shards(self, split: str) -> Sequence[Shard]:
        """Return the shards of a split in row order; raise ValueError if there is no such split."""
        if split not in self.splits:
            raise ValueError(f"split {split!r} is unknown; the set has {', '.join(self.splits)}")
        return self.splits[split]

    def num_tokens(self, split: str) -> int:
        """Return the number of tokens (of a packed set: of bases) of a split."""
        return sum(column_of(self.shards(split), "num_tokens"))

    def num_bytes(self, split: str) -> int:
        """Return the size of a split's files of all formats."""
        return sum(sum(num_bytes_of(self.shards(split), name)) for name in self.formats)

    def files(self) -> list[str]:
        """Return the paths of every file of the set except the manifest, relative to its folder."""
        shards = [shard for split in self.splits.values() for shard in split]
        tokenizer = [] if self.tokens is None else self.tokens.files
        return [
            NPMI_FILE,
            INTERVALS_FILE,
            *tokenizer,
            *(file.path for shard in shards for file in shard.files.values()),
        ]

    @property
    def identity(self) -> str:
        """The sha256 of the whole manifest, in any version: it differs if anything in the set differs."""
        return self.manifest_sha256 or sha256_of_json(self.as_json())

    def with_hashes(self) -> Manifest:
        """Return the manifest with its fingerprint and its hash computed."""
        whole = dataclasses.replace(self, fingerprint=fingerprint(self), manifest_sha256="")
        return dataclasses.replace(whole, manifest_sha256=_content_sha256(whole.as_json()))

    def save(self, folder: Path) -> None:
        """Publish the manifest in ``folder``."""
        write_text(folder / MANIFEST_FILE, self.to_json())

    def as_json(self) -> dict[str, Any]:
        """Return the manifest as the JSON object of its file."""
        content = self._head_json()
        content["splits"] = {
            split: [dataclasses.asdict(shard) for shard in shards] for split, shards in self.splits.items()
        }
        return content

    def _head_json(self) -> dict[str, Any]:
        """Return the manifest as a JSON object without shards."""
        content = {"format": FORMAT, **dataclasses.asdict(dataclasses.replace(self, splits={}))}
        content["windows"] = _windows_json(self.windows)
        if self.tokens is None:
            del content["tokens"]
        elif self.version == _VIEW_VERSIONS[0]:
            del content["tokens"]["files_sha256"]
        if self.version == 1:
            for name in _ADDED_IN_2:
                del content[name]
        return content

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps(self.as_json(), indent=1) + "\n"

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read the manifest of the shard set in ``folder``.

        Raises FileNotFoundError if there is none, ValueError if it is not from gemsdata, of a newer version, or
        damaged.
        """
        path = Path(folder) / MANIFEST_FILE
        try:
            return cls.parse(path.read_bytes(), str(path))
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(_why_absent(Path(folder))) from None

    @classmethod
    def parse(cls, text: bytes, path: str) -> Manifest:
        """Read a manifest from the content of its file; ``path`` is its name in messages. Raises as `load` does."""
        content, tables = _read(text)
        if content.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not the manifest of a gemsdata shard set")
        version = content.get("version")
        if type(version) is int and version > VIEW_VERSION:
            raise ValueError(
                f"{path} has format version {version}; this gemsdata reads up to {VIEW_VERSION}: upgrade it"
            )
        try:
            manifest = from_json(cls, content, "the manifest")
            if tables is not None:
                manifest = dataclasses.replace(manifest, splits=dict(tables))
            _check(manifest)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
        if manifest.version > 1 and manifest.manifest_sha256 != _content_sha256({"format": FORMAT, **content}, tables):
            raise ValueError(f"{path} is damaged or was edited: its manifest_sha256 does not follow from its content")
        if manifest.fingerprint != fingerprint(manifest):
            raise ValueError(f"{path} is damaged or was edited: its fingerprint does not follow from its content")
        return manifest


def _read(text: bytes) -> tuple[dict[str, Any], dict[str, ShardTable] | None]:
    """Return the JSON object of a manifest, and its splits as tables where the text has the writer's layout.

    Then the object has none; otherwise they are None and the object is whole, or empty where the text is no object.
    """
    head, position = split_manifest(text)
    try:
        content = parse_object(head)
        formats = content.get("formats")
        if position and isinstance(formats, list) and all(name in SUFFIXES for name in formats):
            tables = read_splits(text, position, formats)
            if tables is not None:
                return content, tables
    except (ValueError, TypeError):
        pass  # said below, of the whole text
    try:
        return parse_object(text), None
    except ValueError:
        return {}, None


def fingerprint(manifest: Manifest) -> str:
    """Return the hash of all that determines rows and ranks; independent of format, compression and file name."""
    content = {
        "version": _FINGERPRINT_VERSION,
        "genome": manifest.genome.sha256,
        "contigs": [dataclasses.asdict(contig) for contig in manifest.contigs],
        "k": manifest.k,
        "vocabulary": manifest.vocabulary,
        "row_tokens": manifest.row_tokens,
        "windows": _windows_json(manifest.windows),
        "seed": manifest.seed,
        "validation": manifest.validation.regions,
        "ranks": manifest.npmi.rank_sha256,
    }
    if manifest.tokens is not None:
        content["tokens"] = manifest.tokens.identity
    rows = {split: row_pieces(shards) for split, shards in manifest.splits.items()}
    return sha256_of_json(content, {"rows": json_pieces(rows)})


def vocabulary_of(*, varying: bool) -> str:
    """Return the description of the token ids for a manifest: of k-mers, or of tokens that vary in length."""
    return _TOKENIZER_VOCABULARY if varying else _VOCABULARY


def _windows_json(windows: WindowInfo) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(windows).items() if value is not None}


def _content_sha256(content: dict[str, Any], tables: Mapping[str, ShardTable] | None = None) -> str:
    """Return the hash of a manifest's JSON object, whose splits are ``tables`` where these are given."""
    content = {name: value for name, value in content.items() if name != "manifest_sha256"}
    if tables is None:
        return sha256_of_json(content)
    del content["splits"]
    return sha256_of_json(content, {"splits": json_pieces({split: t.json_pieces() for split, t in tables.items()})})


def _check(manifest: Manifest) -> None:
    """Raise ValueError, with the field, for a value that is not valid in a manifest."""
    packed, tokens = manifest.packed, manifest.tokens
    versions = (PACKED_VERSION,) if packed else range(1, VERSION + 1) if tokens is None else _VIEW_VERSIONS
    require(manifest.version in versions, "version", manifest.version)
    for name in _ADDED_IN_2:
        value = getattr(manifest, name)
        require((value == "") if manifest.version == 1 else is_hex(value, 64), name, value)
    require(1 <= manifest.k <= MAX_K, "k", manifest.k)
    vocabulary = PACKED_VOCABULARY if packed else vocabulary_of(varying=bool(tokens and tokens.spec == "tokenizer"))
    require(manifest.vocabulary == vocabulary, "vocabulary", manifest.vocabulary)
    require(manifest.codec in (_CODEC, PACKED_CODEC), "codec", manifest.codec)
    require(1 <= manifest.row_tokens <= _MAX_ROW_TOKENS, "row_tokens", manifest.row_tokens)
    dtype = "uint8" if packed else token_dtype(manifest.k).name
    if tokens is not None:
        check_tokens(tokens, TOKENIZER_FILES, hashed=manifest.version == VIEW_VERSION)
        dtype = "uint16" if tokens.num_ids <= 65536 else "uint32"
    require(manifest.token_dtype == dtype, "token_dtype", manifest.token_dtype)
    require(0 <= manifest.seed <= _MAX_SEED, "seed", manifest.seed)
    require(manifest.compression in COMPRESSIONS, "compression", manifest.compression)
    require(1 <= manifest.block_rows <= _MAX_BLOCK_ROWS, "block_rows", manifest.block_rows)
    known = [name for name in SUFFIXES if name in manifest.formats]
    require(bool(known) and known == manifest.formats, "formats", manifest.formats)
    require(packed == ("packed" in known) and (not packed or len(known) == 1), "formats", manifest.formats)
    check_genome(manifest.genome, manifest.contigs, manifest.validation)
    scheme = manifest.windows.scheme
    require(packed == (scheme == PACKED_SCHEME), "windows.scheme", scheme)
    require((tokens is not None) == (scheme == VIEW_SCHEME), "windows.scheme", scheme)
    _check_windows(manifest.windows)
    _check_npmi(manifest.npmi)
    require(tuple(manifest.splits) == SPLITS, "splits", list(manifest.splits))
    for split, shards in manifest.splits.items():
        check_shards(split, shards, manifest.row_tokens, manifest.formats)


def _check_windows(windows: WindowInfo) -> None:
    require(windows.scheme in (*SCHEMES, PACKED_SCHEME, VIEW_SCHEME), "windows.scheme", windows.scheme)
    require(windows.full_bases >= 1, "windows.full_bases", windows.full_bases)
    bounds = (windows.shortest_bases, windows.longest_bases)
    if windows.scheme in ("fixed", PACKED_SCHEME, VIEW_SCHEME):
        require(bounds == (None, None), "windows", _windows_json(windows))
    else:
        known = None not in bounds and bounds[0] >= 1 and bounds[1] <= windows.full_bases  # type: ignore[operator]
        require(known, "windows", _windows_json(windows))


def _check_npmi(npmi: NpmiInfo) -> None:
    require(npmi.file == NPMI_FILE, "npmi.file", npmi.file)
    require(is_hex(npmi.sha256, 64), "npmi.sha256", npmi.sha256)
    require(is_hex(npmi.rank_sha256, 64), "npmi.rank_sha256", npmi.rank_sha256)
    require(npmi.estimator in ESTIMATORS, "npmi.estimator", npmi.estimator)
    require(npmi.min_count >= 1, "npmi.min_count", npmi.min_count)


def _why_absent(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: no such folder"
    if (folder / WORK_FOLDER / JOURNAL_FILE).exists():
        return f"{folder} holds a shard set that is not published yet; complete it with `gemsdata finalise {folder}`"
    if (folder / WORK_FOLDER).exists():
        return f"{folder} holds an unfinished shard set; finish it with the same `gemsdata shard` command and --resume"
    return f"{folder} is not a shard set (no {MANIFEST_FILE}); make one with `gemsdata shard GENOME.fa -o {folder}`"
