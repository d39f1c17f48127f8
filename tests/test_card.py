"""The dataset card, read by the Hub's own library, and the set that `datasets` loads by it."""

from __future__ import annotations

import datasets
import pytest
from huggingface_hub import DatasetCard

import gemsdata as gd
from gemsdata.cli import main
from tests.genomes import random_dna, write_fasta

pytestmark = pytest.mark.once

SETS = {
    "arrow": ([], {"input_ids", "num_tokens"}, "overlapping 6-mers, at most 510 tokens a row"),
    "packed": (["--format", "packed"], {"contig", "start", "num_bases", "packed"}, "two bits a base"),
    "view": (["--tokens", "base", "--row-bases", "90"], {"input_ids"}, "tokens kmer:1:1, at most 90 tokens a row"),
}
"""{name: (options, columns, what the card says)}"""


@pytest.mark.parametrize("name", SETS)
def test_a_set_with_a_card_is_loaded_by_its_splits_with_typed_columns(tmp_path, name, capsys, monkeypatch):
    options, columns, stored_as = SETS[name]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fasta = write_fasta(tmp_path / "genome.fa", {"a": random_dna(3000, 1), "b": random_dna(500, 2)})
    words = ["shard", str(fasta), "-o", str(tmp_path / "set"), "--card", *options]
    words += ["--min-count", "1", "--valid-contigs", "b", "--quiet"]
    assert main(words) == 0
    shards = gd.ShardSet.open(tmp_path / "set")
    card = DatasetCard.load(tmp_path / "set" / "README.md")
    assert card.data.pretty_name == "genome"
    assert shards.manifest.fingerprint in card.text
    assert f"| stored as | {stored_as} |" in card.text
    assert "| genome | 3,500 bases in 2 contigs |" in card.text
    assert "rows in 1 shard |" in card.text or shards.manifest.packed
    loaded = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    numbers = {"train": shards.num_rows("train"), "validation": shards.num_rows("valid")}
    if not shards.manifest.packed:
        assert {split: len(rows) for split, rows in loaded.items()} == numbers
    assert set(loaded) == set(numbers)
    assert columns <= set(loaded["train"].features)

    assert main([*words, "--overwrite"]) == 0, "a card is replaced"
    (tmp_path / "set" / "README.md").write_text("my notes")
    capsys.readouterr()
    assert main([*words, "--overwrite"]) == 2
    assert "README.md was not written by --card" in capsys.readouterr().err
    assert main([word for word in [*words, "--overwrite"] if word != "--card"]) == 0
    assert (tmp_path / "set" / "README.md").read_text() == "my notes", "and what others wrote stays"
