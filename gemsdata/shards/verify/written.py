"""Verification of shards that were written from a view: tokens are decoded and compared as one byte per base."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xxhash

from gemsdata.files.hashing import sha256_of
from gemsdata.genome.vocab import BASES, NUM_SPECIAL, UNK_ID
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.manifest_fields import Shard, TokenInfo
from gemsdata.shards.member import column_bytes
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.reference import OTHER, ReferenceGenome
from gemsdata.shards.verify.rows import Block, check_bytes, read_blocks

_HASHED = ("input_ids", "num_tokens", "contig", "start")
_SUFFIXES = {"arrow": ".arrow", "webdataset": ".tar"}
_MARKS = ("##", "Ġ", "▁")
CheckBlock = Callable[[Block, "ReferenceGenome | None", str], None]
"""raises VerificationError for a block whose tokens do not match the bases at its positions"""


def check_tokenizer(folder: Path, tokens: TokenInfo) -> str:
    """Check that the tokenizer files are those that the rows were made with; return the check as text."""
    digests = {name: sha256_of(folder / name) for name in tokens.files}
    expected = dict(zip(tokens.files, tokens.files_sha256, strict=False))
    expected["tokenizer.json"] = tokens.identity.removeprefix("tokenizer:")
    for name, digest in expected.items():
        if digests[name] != digest:
            raise VerificationError(f"{name}: its sha256 is not the manifest's")
    unchecked = [name for name in tokens.files if name not in expected]
    checked = f"tokenizer of the rows: {', '.join(expected)}"
    return checked + (f"; not checked, without a hash in the manifest: {', '.join(unchecked)}" if unchecked else "")


def check_held_out(manifest: Manifest) -> None:
    """Check that the validation regions are disjoint and sorted, and complete contigs where contigs are held out."""
    regions, named = [tuple(region) for region in manifest.validation.regions], manifest.validation.contigs
    for before, after in itertools.pairwise(regions):
        if (before[0], before[2]) > (after[0], after[1]):
            raise VerificationError(f"validation.regions: {list(after)} overlaps or precedes {list(before)}")
    if not named:
        return
    contigs = [(index, 0, contig.num_bases) for index, contig in enumerate(manifest.contigs) if contig.name in named]
    if len(contigs) != len(named) or sorted(set(named)) != named:
        raise VerificationError(f"validation.contigs is {named}; these are not sorted names of contigs")
    if regions != contigs:
        raise VerificationError(f"validation.regions is {regions}; the contigs {named} are {contigs}")


def check_written_shard(
    folder: Path, manifest: Manifest, tokens: TokenInfo, where: str, shard: Shard, genome: ReferenceGenome | None
) -> np.ndarray:
    """Check every file of a shard; return (contig, start, num_bases, num_tokens) of its rows, int64[num_rows, 4].

    ``where`` is the split and the number of the shard. Without ``genome`` tokens are compared with the number of bases
    of each row and the hashes of the manifest only. Raises VerificationError.
    """
    check_block = _check_varying(folder, tokens) if tokens.spec == "tokenizer" else _check_kmers(tokens)
    places = np.empty((0, 4), np.int64)
    for file_format, file in shard.files.items():
        if file.path != where + _SUFFIXES[file_format]:
            raise VerificationError(f"the manifest lists {file.path} where {where + _SUFFIXES[file_format]} belongs")
        check_bytes(folder / file.path, file)
        content, row = xxhash.xxh3_64(), shard.first_row
        found = [np.empty((0, 4), np.int64)]
        most_bytes = column_bytes(manifest.block_rows, manifest.row_tokens, manifest.token_dtype)
        for block in read_blocks(folder / file.path, file.path, file_format, most_bytes):
            _check_columns(block, manifest, tokens, f"{file.path} row {row}")
            check_block(block, genome, f"{file.path}, in the block of row {row}")
            for name in _HASHED:
                content.update(np.ascontiguousarray(block[name]).data)
            columns = [block[name] for name in ("contig", "start", "num_bases", "num_tokens")]
            found.append(np.column_stack(columns).astype(np.int64))
            row += len(block["start"])
        places = np.concatenate(found)
        if (len(places), int(places[:, 3].sum())) != (shard.num_rows, shard.num_tokens):
            raise VerificationError(f"{file.path} has {len(places)} rows; the numbers in the manifest differ")
        if content.hexdigest() != shard.content_xxh3_64:
            raise VerificationError(f"{file.path}: the digest of its rows differs from the manifest")
    return places


def check_written_places(manifest: Manifest, tokens: TokenInfo, split: str, places: np.ndarray) -> None:
    """Check that rows lie in their split and that no two share a token; ``places`` is from `check_written_shard`."""
    stride = None if tokens.spec == "tokenizer" else int(tokens.spec.split(":")[2])
    contig, start, num_bases, num_tokens = places[np.lexsort((places[:, 1], places[:, 0]))].T
    next_token = start + (num_bases if stride is None else num_tokens * stride)
    twice = (contig[1:] == contig[:-1]) & (start[1:] < next_token[:-1])
    if twice.any():
        i = int(np.flatnonzero(twice)[0])
        name = manifest.contigs[int(contig[i])].name
        raise VerificationError(f"{split}: rows at {name}:{start[i]} and {name}:{start[i + 1]} have tokens in common")
    held_out = np.zeros(len(contig), bool)
    for region_contig, first, last in manifest.validation.regions:
        here = contig == region_contig
        inside = here & (start >= first) & (start + num_bases <= last)
        touches = here & (start < last) & (start + num_bases > first)
        if (touches if split == "train" else touches & ~inside).any():
            name = manifest.contigs[region_contig].name
            raise VerificationError(f"{split}: a row crosses the border of the validation region {name}:{first}-{last}")
        held_out |= inside
    if split == "valid" and not held_out.all():
        i = int(np.flatnonzero(~held_out)[0])
        place = f"{manifest.contigs[int(contig[i])].name}:{start[i]}"
        raise VerificationError(f"{split}: the row at {place} is in no validation region")


def _check_columns(block: Block, manifest: Manifest, tokens: TokenInfo, where: str) -> None:
    wanted = {
        "input_ids": manifest.token_dtype,
        "num_tokens": "uint16",
        "contig": "uint16" if len(manifest.contigs) <= 1 << 16 else "uint32",
        "start": "int64",
        "num_bases": "uint32",
    }
    if tokens.spec == "tokenizer":
        wanted["token_bases"] = "uint8"
    found = {name: column.dtype.name for name, column in block.items()}
    if found != wanted or block["input_ids"].shape[1] != manifest.row_tokens:
        raise VerificationError(f"{where}: its columns are {found}; wanted: {wanted}")
    counts, ids = block["num_tokens"], block["input_ids"]
    real = np.arange(ids.shape[1]) < counts[:, None]
    if counts.min() < 1 or counts.max() > ids.shape[1] or int(ids.max()) >= tokens.num_ids:
        raise VerificationError(f"{where}: it has no row of 1 to {ids.shape[1]} tokens below id {tokens.num_ids}")
    if len(np.unique(ids[~real])) > 1:
        raise VerificationError(f"{where}: the ids beyond the tokens of a row are not all the padding id")
    ends = np.array([contig.num_bases for contig in manifest.contigs])[
        np.minimum(block["contig"], len(manifest.contigs) - 1)
    ]
    last = block["start"] + block["num_bases"].astype(np.int64)
    if int(block["contig"].max()) >= len(manifest.contigs) or block["start"].min() < 0 or (last > ends).any():
        raise VerificationError(f"{where}: a row is outside the contigs of the manifest")


def _check_kmers(tokens: TokenInfo) -> CheckBlock:
    k, stride = (int(part) for part in tokens.spec.split(":")[1:])

    def check(block: Block, genome: ReferenceGenome | None, where: str) -> None:
        ids, counts = block["input_ids"], block["num_tokens"].astype(np.int64)
        if ((counts - 1) * stride + k != block["num_bases"]).any():
            raise VerificationError(f"{where}: num_bases differs from the bases that the tokens cover")
        if genome is None:
            return
        first = genome.offset[block["contig"].astype(np.int64)] + block["start"]
        position = first[:, None] + np.arange(ids.shape[1]) * stride
        expected = np.zeros(ids.shape, np.int64)
        broken = np.zeros(ids.shape, bool)
        for j in range(k):
            codes = genome.codes[np.minimum(position + j, len(genome.codes) - 1)] & 7
            expected = 4 * expected + codes
            broken |= codes == OTHER
        expected = np.where(broken, UNK_ID, expected + NUM_SPECIAL)
        real = np.arange(ids.shape[1]) < counts[:, None]
        if tokens.unknown == "break" and (broken & real).any():
            raise VerificationError(f"{where}: a row crosses a letter other than A, C, G, T")
        wrong = real & (expected != ids)
        if wrong.any():
            row, token_pos = np.argwhere(wrong)[0].tolist()
            base = f"{genome.names[int(block['contig'][row])]}:{block['start'][row] + token_pos * stride}"
            raise VerificationError(
                f"{where}: token {token_pos} of a row has id {ids[row, token_pos]}; the FASTA has id"
                f" {expected[row, token_pos]} at {base}"
            )

    return check


def _check_varying(folder: Path, tokens: TokenInfo) -> CheckBlock:
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    pairs = (
        list(vocabulary.items()) if isinstance(vocabulary, dict) else [(one[0], i) for i, one in enumerate(vocabulary)]
    )
    added = [token["id"] for token in content.get("added_tokens", [])]
    ids = {token_id for _, token_id in pairs}.union(added)
    if len(ids) != tokens.num_ids:
        raise VerificationError(f"tokens.num_ids is {tokens.num_ids} in the manifest, {len(ids)} in tokenizer.json")
    texts = [""] * (max(ids) + 1)
    for text, token_id in pairs:
        for mark in _MARKS:
            text = text.removeprefix(mark)
        texts[token_id] = text

    def check(block: Block, genome: ReferenceGenome | None, where: str) -> None:
        letters = np.array([*BASES, "N"])
        for i, count in enumerate(block["num_tokens"].tolist()):
            words = [texts[token_id] for token_id in block["input_ids"][i, :count].tolist()]
            sizes = block["token_bases"][i]
            if [len(word) for word in words] != sizes[:count].tolist() or sizes[count:].any():
                raise VerificationError(
                    f"{where}: token_bases of row {i} of the block are not the lengths of its tokens"
                )
            spelled, start, num_bases = "".join(words), int(block["start"][i]), int(block["num_bases"][i])
            if len(spelled) != num_bases:
                raise VerificationError(f"{where}: num_bases of row {i} of the block differs from its tokens")
            if genome is not None:
                contig = int(block["contig"][i])
                codes = genome.contig(contig)[start : start + num_bases] & 7
                if "".join(letters[np.minimum(codes, 4)]) != spelled:
                    place = f"{genome.names[contig]}:{start}-{start + num_bases}"
                    raise VerificationError(f"{where}: the tokens of row {i} of the block are not the FASTA's {place}")

    return check
