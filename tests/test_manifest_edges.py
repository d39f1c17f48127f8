"""The least and the greatest value of every field of a manifest is read, and the next one beyond it is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from gemsdata.files.typed_json import from_json
from gemsdata.shards import manifest as module
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.manifest_fields import shard_path

HEX = "0123456789abcdef"
KMERS: dict[str, Any] = {
    "version": 2,
    "genome": {"name": "g", "sha256": HEX * 4, "num_bases": 40, "num_not_acgt": 2, "num_soft_masked": 3},
    "contigs": [{"name": "one", "num_bases": 30}, {"name": "two", "num_bases": 10}],
    "k": 3,
    "row_tokens": 8,
    "token_dtype": "uint16",
    "windows": {"scheme": "fixed", "full_bases": 10},
    "seed": 1,
    "validation": {"contigs": ["two"], "fraction": None, "regions": [[1, 2, 9]]},
    "formats": ["arrow"],
    "compression": "none",
    "block_rows": 4,
    "rank_column": False,
    "npmi": {
        "file": "npmi.parquet",
        "sha256": HEX * 4,
        "rank_sha256": HEX * 4,
        "estimator": "published",
        "min_count": 1,
        "canonical": False,
        "exclude_soft_masked": False,
        "from_this_genome": True,
    },
    "intervals_sha256": HEX * 4,
    "splits": {
        "train": [
            {
                "first_row": 0,
                "num_rows": 2,
                "num_tokens": 16,
                "content_xxh3_64": HEX,
                "files": {
                    "arrow": {"path": "train/000000.arrow", "num_bytes": 9, "xxh3_64": HEX, "sha256": HEX * 4},
                },
            },
            {
                "first_row": 2,
                "num_rows": 1,
                "num_tokens": 8,
                "content_xxh3_64": HEX,
                "files": {
                    "arrow": {"path": "train/000001.arrow", "num_bytes": 9, "xxh3_64": HEX, "sha256": HEX * 4},
                },
            },
        ],
        "valid": [],
    },
}
TOKENS = {"spec": "kmer:3:2", "identity": "kmer:3:2", "num_ids": 69, "unknown": "break", "view": HEX * 4}
TOKENS |= {"files": [], "files_sha256": []}
FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
VIEW = {**KMERS, "version": 5, "tokens": TOKENS, "windows": {"scheme": "view", "full_bases": 10}}
TOKENIZER = {
    **VIEW,
    "tokens": {**TOKENS, "spec": "tokenizer", "identity": "tokenizer:0", "files": FILES, "files_sha256": [HEX * 4] * 3},
    "vocabulary": "that of the Hugging Face tokenizer in tokenizer.json",
}
PACKED = {
    **KMERS,
    "version": 3,
    "vocabulary": module.PACKED_VOCABULARY,
    "codec": "bases",
    "token_dtype": "uint8",
    "formats": ["packed"],
    "windows": {"scheme": "blocks", "full_bases": 10},
    "splits": {"train": [], "valid": []},
}
DNABERT = {**KMERS, "windows": {"scheme": "dnabert", "full_bases": 10, "shortest_bases": 5, "longest_bases": 10}}
FIRST = "splits.train.0"


def _kmers(spec: str, num_ids: int) -> dict[str, Any]:
    return {"tokens.spec": spec, "tokens.identity": spec, "tokens.num_ids": num_ids}


def with_changes(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The manifest's content with the values at dotted paths replaced."""
    content = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        holder: Any = content
        for parent in parents:
            holder = holder[parent]
        holder[last] = value
    return content


def hashed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a manifest with these changes and the hashes that follow."""
    manifest = from_json(Manifest, with_changes(base, changes), "").with_hashes()
    if manifest.version == 1:
        manifest = dataclasses.replace(manifest, manifest_sha256="")
    content: dict[str, Any] = json.loads(manifest.to_json())
    return content


def read(content: dict[str, Any]) -> Manifest:
    return Manifest.parse(json.dumps(content).encode(), "file")


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (KMERS, {}),
        (KMERS, {"version": 1, "intervals_sha256": ""}),
        (KMERS, {"k": 1, "row_tokens": 65535}),
        (KMERS, {"k": 12, "token_dtype": "uint32"}),
        (KMERS, {"seed": 0}),
        (KMERS, {"seed": (1 << 63) - 1}),
        (KMERS, {"compression": "zstd"}),
        (KMERS, {"block_rows": 1}),
        (KMERS, {"block_rows": 1 << 20}),
        (KMERS, {"genome.num_not_acgt": 0, "genome.num_soft_masked": 0}),
        (KMERS, {"genome.num_not_acgt": 40, "genome.num_soft_masked": 40}),
        (KMERS, {"contigs.0.num_bases": 40, "contigs.1.num_bases": 0, "validation.regions": []}),
        (KMERS, {"contigs.0.num_bases": (1 << 62) - 10, "genome.num_bases": 1 << 62}),
        (KMERS, {"validation": {"contigs": [], "fraction": 0.0, "regions": [[0, 0, 30], [1, 0, 0], [1, 10, 10]]}}),
        (KMERS, {"validation.regions": [[0, 0, 0], [0, 1, 2], [1, 0, 10]]}),
        (KMERS, {"windows.full_bases": 1}),
        (KMERS, {"row_tokens": 1, f"{FIRST}.num_tokens": 2, "splits.train.1.num_tokens": 1}),
        (KMERS, {f"{FIRST}.num_tokens": 2, f"{FIRST}.files.arrow.num_bytes": 1}),
        (KMERS, {f"{FIRST}.files.arrow.num_bytes": 1 << 62}),
        (KMERS, {"splits.train": []}),
        (DNABERT, {}),
        (DNABERT, {"windows.shortest_bases": 1, "windows.longest_bases": 1}),
        (PACKED, {}),
        (VIEW, {}),
        (VIEW, _kmers("kmer:1:1", 9)),
        (VIEW, {**_kmers("kmer:12:12", 4**12 + 5), "token_dtype": "uint32"}),
        (VIEW, {"tokens.unknown": "token"}),
        (TOKENIZER, {"tokens.num_ids": 1}),
        (TOKENIZER, {"tokens.num_ids": 65536}),
        (TOKENIZER, {"tokens.num_ids": 65537, "token_dtype": "uint32"}),
        (TOKENIZER, {"tokens.num_ids": 1 << 32, "token_dtype": "uint32"}),
        (TOKENIZER, {}),
        (TOKENIZER, {"tokens.files": FILES[:1], "tokens.files_sha256": [HEX * 4]}),
        (TOKENIZER, {"tokens.files": FILES[::2], "tokens.files_sha256": [HEX * 4] * 2}),
        (TOKENIZER, {"version": 4, "tokens.files_sha256": []}),
    ],
)
def test_values_that_can_be_are_read_back(base: dict[str, Any], changes: dict[str, Any]) -> None:
    content = hashed(base, changes)
    assert json.loads(read(content).to_json()) == content


@pytest.mark.parametrize(
    ("base", "changes", "where"),
    [
        (KMERS, {"version": 0}, "version"),
        (KMERS, {"version": 3}, "version"),
        (KMERS, {"version": 4}, "version"),
        (PACKED, {"version": 2}, "version"),
        (VIEW, {"version": 2}, "version"),
        (VIEW, {"version": 3}, "version"),
        (KMERS, {"intervals_sha256": ""}, "intervals_sha256"),
        (KMERS, {"k": 0}, "k"),
        (KMERS, {"k": 13, "token_dtype": "uint32"}, "k"),
        (KMERS, {"vocabulary": module.PACKED_VOCABULARY}, "vocabulary"),
        (VIEW, {"vocabulary": TOKENIZER["vocabulary"]}, "vocabulary"),
        (TOKENIZER, {"vocabulary": "5 special tokens, then the product over ATCG"}, "vocabulary"),
        (KMERS, {"codec": "letters"}, "codec"),
        (KMERS, {"row_tokens": 0}, "row_tokens"),
        (KMERS, {"row_tokens": 65536}, "row_tokens"),
        (KMERS, {"token_dtype": "uint32"}, "token_dtype"),
        (PACKED, {"token_dtype": "uint16"}, "token_dtype"),
        (TOKENIZER, {"tokens.num_ids": 65536, "token_dtype": "uint32"}, "token_dtype"),
        (TOKENIZER, {"tokens.num_ids": 65537}, "token_dtype"),
        (KMERS, {"seed": -1}, "seed"),
        (KMERS, {"seed": 1 << 63}, "seed"),
        (KMERS, {"compression": "gzip"}, "compression"),
        (KMERS, {"block_rows": 0}, "block_rows"),
        (KMERS, {"block_rows": (1 << 20) + 1}, "block_rows"),
        (KMERS, {"formats": []}, "formats"),
        (KMERS, {"formats": ["webdataset", "arrow"]}, "formats"),
        (KMERS, {"formats": ["packed"]}, "formats"),
        (PACKED, {"formats": ["arrow"]}, "formats"),
        (PACKED, {"formats": ["arrow", "packed"]}, "formats"),
        (KMERS, {"windows.scheme": "blocks"}, "windows.scheme"),
        (KMERS, {"windows.scheme": "view"}, "windows.scheme"),
        (KMERS, {"windows.scheme": "odd"}, "windows.scheme"),
        (PACKED, {"windows.scheme": "fixed"}, "windows.scheme"),
        (VIEW, {"windows.scheme": "fixed"}, "windows.scheme"),
        (KMERS, {"windows.full_bases": 0}, "windows.full_bases"),
        (KMERS, {"windows.longest_bases": 8}, "windows"),
        (DNABERT, {"windows.shortest_bases": None}, "windows"),
        (DNABERT, {"windows.shortest_bases": 0}, "windows"),
        (DNABERT, {"windows.longest_bases": 11}, "windows"),
        (VIEW, {"tokens.spec": "kmer:3:0"}, "tokens.spec"),
        (VIEW, {"tokens.spec": "kmer:3:4"}, "tokens.spec"),
        (VIEW, {"tokens.spec": "kmer:13:1"}, "tokens.spec"),
        (VIEW, {"tokens.spec": "words"}, "tokens.spec"),
        (VIEW, {"tokens.num_ids": 70}, "tokens.num_ids"),
        (VIEW, {"tokens.identity": "kmer:3:1"}, "tokens.identity"),
        (TOKENIZER, {"tokens.num_ids": 0}, "tokens.num_ids"),
        (TOKENIZER, {"tokens.num_ids": (1 << 32) + 1}, "tokens.num_ids"),
        (TOKENIZER, {"tokens.identity": "kmer:3:2"}, "tokens.identity"),
        (VIEW, {"tokens.unknown": "skip"}, "tokens.unknown"),
        (VIEW, {"tokens.view": HEX}, "tokens.view"),
        (VIEW, {"tokens.files": FILES}, "tokens.files"),
        (TOKENIZER, {"tokens.files": []}, "tokens.files"),
        (TOKENIZER, {"tokens.files": FILES[1:]}, "tokens.files"),
        (TOKENIZER, {"tokens.files": FILES[::-1]}, "tokens.files"),
        (TOKENIZER, {"tokens.files": [*FILES, "../other"]}, "tokens.files"),
        (TOKENIZER, {"tokens.files_sha256": [HEX * 4] * 2}, "tokens.files_sha256"),
        (TOKENIZER, {"tokens.files_sha256": [HEX * 4, HEX * 4, HEX]}, "tokens.files_sha256"),
        (TOKENIZER, {"tokens.files_sha256": []}, "tokens.files_sha256"),
        (KMERS, {"genome.sha256": HEX}, "genome.sha256"),
        (KMERS, {"contigs": [], "genome.num_bases": 0}, "contigs"),
        (KMERS, {"contigs.0.num_bases": 41, "contigs.1.num_bases": -1}, "contigs"),
        (KMERS, {"contigs.1.name": "one"}, "contigs"),
        (KMERS, {"genome.num_bases": 41}, "genome.num_bases"),
        (KMERS, {"contigs.0.num_bases": 1 << 62, "genome.num_bases": (1 << 62) + 10}, "genome.num_bases"),
        (KMERS, {"genome.num_not_acgt": -1}, "genome.num_not_acgt"),
        (KMERS, {"genome.num_not_acgt": 41}, "genome.num_not_acgt"),
        (KMERS, {"genome.num_soft_masked": -1}, "genome.num_soft_masked"),
        (KMERS, {"genome.num_soft_masked": 41}, "genome.num_soft_masked"),
        (KMERS, {"validation.contigs": [], "validation.fraction": -0.1}, "validation.fraction"),
        (KMERS, {"validation.contigs": [], "validation.fraction": 1.0}, "validation.fraction"),
        (KMERS, {"validation.contigs": []}, "validation.contigs"),
        (KMERS, {"validation.fraction": 0.5}, "validation.contigs"),
        (KMERS, {"validation.regions": [[-1, 0, 1]]}, "validation.regions"),
        (KMERS, {"validation.regions": [[2, 0, 1]]}, "validation.regions"),
        (KMERS, {"validation.regions": [[0, -1, 1]]}, "validation.regions"),
        (KMERS, {"validation.regions": [[0, 2, 1]]}, "validation.regions"),
        (KMERS, {"validation.regions": [[1, 0, 11]]}, "validation.regions"),
        (KMERS, {"npmi.file": "other.parquet"}, "npmi.file"),
        (KMERS, {"npmi.sha256": HEX * 4 + "0"}, "npmi.sha256"),
        (KMERS, {"npmi.rank_sha256": HEX.upper() * 4}, "npmi.rank_sha256"),
        (KMERS, {"npmi.estimator": "best"}, "npmi.estimator"),
        (KMERS, {"npmi.min_count": 0}, "npmi.min_count"),
        (KMERS, {"splits": {"train": []}}, "splits"),
        (KMERS, {"splits": {"valid": [], "train": []}}, "splits"),
        (KMERS, {f"{FIRST}.first_row": 1}, "splits.train[0].first_row"),
        (KMERS, {"splits.train.1.first_row": 1}, "splits.train[1].first_row"),
        (KMERS, {f"{FIRST}.num_rows": 0}, "splits.train[0].num_rows"),
        (KMERS, {f"{FIRST}.num_rows": (1 << 62) + 1}, "splits.train[0].num_rows"),
        (KMERS, {f"{FIRST}.num_tokens": 1}, "splits.train[0].num_tokens"),
        (KMERS, {f"{FIRST}.num_tokens": 17}, "splits.train[0].num_tokens"),
        (KMERS, {f"{FIRST}.content_xxh3_64": HEX[1:]}, "splits.train[0].content_xxh3_64"),
        (KMERS, {"formats": ["arrow", "webdataset"]}, "splits.train[0].files"),
        (KMERS, {f"{FIRST}.files.arrow.path": "train/000001.arrow"}, "splits.train[0].files.arrow.path"),
        (KMERS, {f"{FIRST}.files.arrow.num_bytes": 0}, "splits.train[0].files.arrow.num_bytes"),
        (KMERS, {f"{FIRST}.files.arrow.num_bytes": (1 << 62) + 1}, "splits.train[0].files.arrow.num_bytes"),
        (KMERS, {f"{FIRST}.files.arrow.xxh3_64": ""}, "splits.train[0].files.arrow"),
        (KMERS, {f"{FIRST}.files.arrow.sha256": HEX}, "splits.train[0].files.arrow"),
    ],
)
def test_values_that_no_writer_gives_are_refused_by_their_place(
    base: dict[str, Any], changes: dict[str, Any], where: str
) -> None:
    with pytest.raises(ValueError, match="file is damaged: ") as caught:
        read(hashed(base, changes))
    assert str(caught.value).startswith(f"file is damaged: {where} = ")


def test_the_newest_version_is_read_and_a_newer_one_asks_for_an_upgrade() -> None:
    content = hashed(VIEW, {})
    assert read(content).version == 5
    with pytest.raises(ValueError, match="file has format version 6; this gemsdata reads up to 5: upgrade it"):
        read({**content, "version": 6})
    with pytest.raises(ValueError, match="file is not the manifest of a gemsdata shard set"):
        read({**content, "format": "other"})


def test_what_the_hashes_cover_is_not_changed_unseen() -> None:
    content = hashed(KMERS, {})
    with pytest.raises(ValueError, match="its manifest_sha256 does not follow"):
        read({**content, "rank_column": True})
    old = hashed(KMERS, {"version": 1, "intervals_sha256": ""})
    with pytest.raises(ValueError, match="its fingerprint does not follow"):
        read({**old, "seed": 2})
    with pytest.raises(ValueError, match=r"intervals_sha256 = .* is not a valid value"):
        read({**old, "intervals_sha256": HEX * 4})
    assert read({**old, "rank_column": True}).identity != read(old).identity
    assert read(content).fingerprint == read(old).fingerprint


def test_the_files_of_a_set_are_those_of_every_shard_and_of_its_tokenizer(tmp_path: Path) -> None:
    shards = ["train/000000.arrow", "train/000001.arrow"]
    assert read(hashed(KMERS, {})).files() == ["npmi.parquet", "intervals.parquet", *shards]
    assert read(hashed(TOKENIZER, {})).files() == ["npmi.parquet", "intervals.parquet", *FILES, *shards]
    manifest = read(hashed(KMERS, {}))
    assert (manifest.num_rows("train"), manifest.num_rows("valid"), manifest.packed) == (3, 0, False)
    with pytest.raises(ValueError, match="split 'test' is unknown; the set has train, valid"):
        manifest.shards("test")
    manifest.save(tmp_path)
    assert Manifest.load(tmp_path) == manifest
    assert shard_path("valid", 12, "webdataset") == "valid/000012.tar"
