"""Views written as shard sets of their own: the same rows, for our readers and for others."""

from __future__ import annotations

import dataclasses
import json
import shutil

import duckdb
import numpy as np
import pyarrow.dataset
import pytest

import gemsdata as gd
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.manifest_fields import ValidationInfo
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.shard_set import verify
from gemsdata.views.view import View
from tests.genomes import awkward_genome, random_dna
from tests.test_views_stream import batches, same
from tests.test_views_tokens import bpe_folder
from tests.view_support import packed_set, text_of

TOKENS = ["base", "kmer:6:6", "kmer:3:3", "kmer:5", "bpe"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return packed_set(tmp_path_factory.mktemp("written"), valid_fraction=0.2)


def view_of(packed, tokens: str, **options) -> View:
    folder = packed.parent / "bpe"
    if tokens == "bpe" and not folder.exists():
        bpe_folder(folder)
    return gd.view(packed, **{"tokens": folder if tokens == "bpe" else tokens, "row_bases": 120, **options})


def content(view: View, split: str) -> list[tuple]:
    rows = view.rows(np.arange(view.num_rows(split)), split=split)
    counts = rows.tokens.num_tokens
    return sorted(
        (int(rows.contig[i]), int(rows.start[i]), int(rows.end[i]), rows.tokens.input_ids[i, : counts[i]].tolist())
        for i in range(len(counts))
    )


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("file_format", ["arrow", "webdataset"])
def test_written_rows_are_those_of_the_view(packed, tmp_path, tokens, file_format):
    view = view_of(packed, tokens)
    manifest = view.write(tmp_path / "out", format=file_format, workers=2)
    assert manifest.num_rows("train") == len(view)
    written = gd.view(tmp_path / "out")
    assert written.tokens.identity == view.tokens.identity
    for split in ("train", "valid"):
        assert content(written, split) == content(view, split)
    rows, contigs = written.rows(np.arange(len(written))), awkward_genome()
    for i in range(len(written)):
        bases = rows.tokens.bases[i, : rows.tokens.num_bases[i]]
        text = "".join("ATCGN"[base] for base in bases.tolist())
        assert text == text_of(contigs, rows.contig[i], rows.start[i], rows.end[i])


@pytest.mark.parametrize("tokens", ["base", "kmer:6:6", "bpe"])
def test_written_sets_are_verified(packed, tmp_path, tokens):
    fasta = packed.parent / "genome.fa"
    view_of(packed, tokens).write(tmp_path / "out", format="both", compression="zstd")
    verdict = verify(tmp_path / "out", [str(fasta)])
    assert any("every token spells the bases of the FASTA" in check for check in verdict.checks)
    assert verify(tmp_path / "out").num_rows == verdict.num_rows
    lines = fasta.read_text().splitlines()
    lines[1] = lines[1][:40] + ("A" if lines[1][40] in "cC" else "C") + lines[1][41:]
    (tmp_path / "other.fa").write_text("\n".join(lines) + "\n")
    with pytest.raises(VerificationError, match="FASTA"):
        verify(tmp_path / "out", [str(tmp_path / "other.fa")])


@pytest.fixture(scope="module")
def bpe_set(packed, tmp_path_factory):
    out = tmp_path_factory.mktemp("bpe") / "out"
    view_of(packed, "bpe").write(out)
    return out


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_changed_file_of_the_tokenizer_is_found(bpe_set, tmp_path, name):
    out = shutil.copytree(bpe_set, tmp_path / "out")
    with open(out / name, "ab") as stream:
        stream.write(b" ")
    with pytest.raises(VerificationError, match=f"{name}: its sha256 is not the manifest's"):
        verify(out)
    with pytest.raises(ValueError, match=f"{name} is not the one that its rows were made with; restore it"):
        gd.view(out)


@pytest.mark.parametrize("tokens", ["kmer:6:6", "bpe"])
def test_damaged_rows_that_no_hash_was_compared_with_are_an_error(packed, tmp_path, tokens):
    """Kernels do not check bounds: what they would read or write beyond an array is found before."""
    view = view_of(packed, tokens)
    kind, ids, counts = view.tokens, np.full((2, 7), 6, np.uint32), np.array([7, 3])
    assert len(kind.decode(ids, counts, 120)[1]) == 2
    for column, value in (("ids", kind.vocabulary.size), ("counts", 8)):
        damaged = {"ids": ids.copy(), "counts": counts.copy()}
        damaged[column].flat[0] = value
        with pytest.raises(ValueError, match="a shard is damaged; `gemsdata verify`"):
            kind.decode(damaged["ids"], damaged["counts"], 120)
    view.write(tmp_path / "out")
    (path,) = (tmp_path / "out" / "train").glob("*.arrow")
    first = ShardSet.open(tmp_path / "out").block("train", 0, 0).input_ids[0].tobytes()
    content = path.read_bytes()
    assert content.count(first) == 1
    path.write_bytes(content.replace(first, b"\xff" * len(first)))
    with pytest.raises(ValueError, match="a shard is damaged"):
        list(gd.build_loader(tmp_path / "out", batch_size=16, num_epochs=1, check="size"))


def test_the_tokenizer_of_a_written_set_is_saved_and_written_again(bpe_set, tmp_path):
    from transformers import AutoTokenizer

    view = gd.view(bpe_set)
    view.tokenizer(77).save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.model_max_length == 77
    ids = view.rows(np.array([0])).tokens.input_ids[0]
    assert saved("".join(view.tokens.text(i) for i in ids[:5]), add_special_tokens=False)["input_ids"]
    view.write(tmp_path / "again")
    again = gd.view(tmp_path / "again")
    assert again.tokens.identity == view.tokens.identity
    assert (tmp_path / "again" / "tokenizer_config.json").read_bytes() == (
        bpe_set / "tokenizer_config.json"
    ).read_bytes()


def test_version_4_has_no_hashes_of_the_companions_of_tokenizer_json(bpe_set, tmp_path):
    out = shutil.copytree(bpe_set, tmp_path / "out")
    manifest = Manifest.load(out)
    tokens = dataclasses.replace(manifest.tokens, files_sha256=[])
    dataclasses.replace(manifest, version=4, tokens=tokens).with_hashes().save(out)
    (check,) = [check for check in verify(out).checks if "tokenizer" in check]
    assert check == (
        "tokenizer of the rows: tokenizer.json; not checked, without a hash in the manifest: tokenizer_config.json"
    )
    assert len(gd.view(out)) == len(gd.view(bpe_set))


@pytest.mark.parametrize("tokens", ["kmer:6:6", "bpe"])
def test_a_written_set_streams_by_the_laws(packed, tmp_path, tokens):
    view_of(packed, tokens).write(tmp_path / "out")
    options = {"reverse_complement": 0.5, "coordinates": True}
    alone = batches(tmp_path / "out", 10, **options)
    assert same(alone, batches(tmp_path / "out", 10, num_workers=2, threads=True, **options))
    for batch in alone:
        masked = batch["labels"] >= 0
        assert masked.any()
        assert (batch["strand"] == -1).any()


def test_bytes_depend_on_neither_workers_nor_the_folder(packed, tmp_path):
    view = view_of(packed, "base")
    first = view.write(tmp_path / "a", workers=1, format="both")
    second = view.write(tmp_path / "b", workers=2, format="both")
    assert first == second
    assert view.write(tmp_path / "c", seed=1).fingerprint != first.fingerprint
    with pytest.raises(ValueError, match="already holds a shard set"):
        view.write(tmp_path / "a")
    assert view.write(tmp_path / "a", overwrite=True, format="both") == first


def test_pyarrow_and_duckdb_read_written_rows(packed, tmp_path):
    view = view_of(packed, "bpe")
    view.write(tmp_path / "out")
    rows = pyarrow.dataset.dataset(str(tmp_path / "out" / "train"), format="ipc")
    found = duckdb.connect().execute("SELECT count(*), sum(num_bases), sum(num_tokens) FROM rows").fetchall()
    wanted = view.rows(np.arange(len(view)))
    assert found == [(len(view), int(wanted.tokens.num_bases.sum()), int(wanted.tokens.num_tokens.sum()))]
    for row in rows.to_table().to_pylist():
        sizes = row["token_bases"][: row["num_tokens"]]
        assert sum(sizes) == row["num_bases"]
        assert [len(view.tokens.text(i)) for i in row["input_ids"][: row["num_tokens"]]] == sizes
    from transformers import AutoTokenizer

    text = "ACGTTGCAACG"
    own = AutoTokenizer.from_pretrained(view.tokens.folder)(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(text)["input_ids"] == own


def test_rows_with_nothing_to_predict_are_not_written(tmp_path):
    contigs = {"x": random_dna(300, 1) + "ACGNN" * 40 + random_dna(300, 2)}
    view = gd.view(packed_set(tmp_path, contigs, valid_fraction=0), tokens="kmer:6:6", row_bases=30, unknown="token")
    view.write(tmp_path / "out")
    written = gd.view(tmp_path / "out")
    rows = written.rows(np.arange(len(written)))
    assert len(set(rows.start.tolist())) == len(written) < len(view)
    real = np.arange(rows.tokens.input_ids.shape[1]) < rows.tokens.num_tokens[:, None]
    assert ((rows.tokens.input_ids != 1) & real).any(axis=1).all()


def test_what_cannot_be_written(packed, tmp_path):
    for options, message in (
        ({"loss_weight_soft_masked": 0.1}, "loss_weight_soft_masked is not stored in written rows"),
        ({"mask_soft_masked": False}, "mask_soft_masked is not stored in written rows"),
    ):
        with pytest.raises(ValueError, match=message):
            view_of(packed, "base", **options).write(tmp_path / "out")
    with pytest.raises(ValueError, match="with unknown tokens cannot be written"):
        view_of(packed, "bpe", unknown="token").write(tmp_path / "out")
    with pytest.raises(ValueError, match="format 'tar' is unknown; rows of tokens are written as arrow"):
        view_of(packed, "base").write(tmp_path / "out", format="tar")
    assert not (tmp_path / "out").exists()


def test_a_changed_tokenizer_is_noticed(packed, tmp_path):
    view_of(packed, "bpe").write(tmp_path / "out")
    path = tmp_path / "out" / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": "2.0"}))
    with pytest.raises(ValueError, match="tokenizer"):
        gd.view(ShardSet.open(tmp_path / "out"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": {"contigs": None, "fraction": None, "regions": []}}, "validation.regions is"),
        ({"validation": {"contigs": ["held_out"] * 2, "fraction": None, "regions": []}}, "not sorted names of contigs"),
        ({"validation": {"contigs": [], "fraction": 0.1, "regions": []}}, "is in no validation region"),
        ({"validation": {"contigs": [], "fraction": 0.1, "regions": [[1, 0, 1], [1, 0, 1]]}}, "overlaps or precedes"),
        ({"num_ids": 1060}, "tokens.num_ids is 1060 in the manifest"),
    ],
)
def test_an_edited_manifest_with_new_hashes_is_found(bpe_set, tmp_path, changes, message):
    copied = shutil.copytree(bpe_set, tmp_path / "set")
    manifest = Manifest.load(copied)
    if "validation" in changes:
        given = changes["validation"]
        contigs = [manifest.contigs[0].name] if given["contigs"] is None else given["contigs"]
        changed = dataclasses.replace(manifest, validation=ValidationInfo(**{**given, "contigs": contigs}))
    else:
        changed = dataclasses.replace(manifest, tokens=dataclasses.replace(manifest.tokens, **changes))
    changed.with_hashes().save(copied)
    with pytest.raises(VerificationError, match=message):
        verify(copied)
