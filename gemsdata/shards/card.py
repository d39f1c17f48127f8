"""The dataset card of a shard set: README.md in the format of the Hugging Face Hub, written on request."""

from __future__ import annotations

import json
from pathlib import Path

from gemsdata.files.output_folder import OutputFolder
from gemsdata.files.publish import write_text
from gemsdata.files.remote_folder import is_url
from gemsdata.shards.manifest import MANIFEST_FILE, Manifest
from gemsdata.shards.summary import counted

CARD_FILE = "README.md"
_MARK = "<!-- written by gemsdata -->"
_HUB_SPLITS = {"train": "train", "valid": "validation"}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip
"""(rows below, the Hub's name of that size)"""


def write_card(place: str | Path, text: str) -> None:
    """Publish a card as README.md of a folder, also at a URL; raise ValueError as `check_card` does."""
    check_card(place)
    content = f"{text.rstrip()}\n\n{_MARK}\n"
    if is_url(place):
        OutputFolder(str(place)).put(CARD_FILE, content.encode())
    else:
        write_text(Path(place) / CARD_FILE, content)


def check_card(place: str | Path) -> None:
    """Raise ValueError if a folder or URL has a README.md that was not written by `write_card`."""
    if is_url(place):
        found = OutputFolder(str(place)).get_or_none(CARD_FILE)
    else:
        path = Path(place) / CARD_FILE
        found = path.read_bytes() if path.exists() else None
    if found is not None and not found.rstrip().endswith(_MARK.encode()):
        raise ValueError(f"{place}/{CARD_FILE} was not written by --card; remove or rename it, or leave --card out")


def front_matter(lines: list[str]) -> str:
    """Return lines of YAML as the front matter of a card."""
    return "\n".join(["---", *lines, "---"])


def dataset_card(manifest: Manifest) -> str:
    """Return the card of a shard set, from its manifest."""
    num_rows = sum(manifest.num_rows(split) for split in manifest.splits)
    size = next((name for limit, name in _SIZES if num_rows < limit), "n>1B")
    splits = [split for split in manifest.splits if manifest.shards(split)]
    suffix = "tar" if manifest.formats == ["webdataset"] else "arrow"
    lines = [
        f"pretty_name: {json.dumps(manifest.genome.name)}",
        "tags: [biology, dna, genomics, gemsdata]",
        "task_categories: [fill-mask]",
        f"size_categories: [{json.dumps(size)}]",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *(f"  - {{split: {_HUB_SPLITS[split]}, path: {split}/*.{suffix}}}" for split in splits),
    ]
    unit = "blocks" if manifest.packed else "rows"
    facts = [
        ("genome", f"{manifest.genome.num_bases:,} bases in {counted(len(manifest.contigs), 'contig')}"),
        ("not A, C, G, T", f"{manifest.genome.num_not_acgt:,} bases"),
        ("soft-masked", f"{manifest.genome.num_soft_masked:,} bases"),
        ("stored as", _kind(manifest)),
        *(
            (split, f"{manifest.num_rows(split):,} {unit} in {counted(len(manifest.shards(split)), 'shard')}")
            for split in splits
        ),
        ("NPMI", f"{manifest.npmi.estimator}, at least {manifest.npmi.min_count} occurrences"),
        ("sha256 of the genome", f"`{manifest.genome.sha256}`"),
        ("fingerprint", f"`{manifest.fingerprint}`"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in facts)
    return f"""{front_matter(lines)}

# {manifest.genome.name}

A genome for pretraining masked language models, written by gemsdata; `{MANIFEST_FILE}` describes every file, and
`gemsdata verify` checks them.

| | |
|---|---|
{table}

```python
import gemsdata as gd

loader = gd.build_loader("FOLDER", masking="genemask", batch_size=32)
```

```python
import datasets

datasets.load_dataset("FOLDER", streaming=True)  # the rows as they are stored, typed, not masked
```
"""


def _kind(manifest: Manifest) -> str:
    """Return how a set stores its bases."""
    if manifest.packed:
        return "two bits a base"
    tokens = f"overlapping {manifest.k}-mers"
    if manifest.tokens is not None:
        files = bool(manifest.tokens.files)
        tokens = "tokens of the tokenizer in this folder" if files else f"tokens {manifest.tokens.spec}"
    return f"{tokens}, at most {manifest.row_tokens} tokens a row"
