"""Change the files of a shard set in many ways, and check that `verify` and a loader detect it.

    python -m tools.chaos.tamper --flips 1000 --seed 0 --markdown docs/reliability_tamper.md

A change is found when `gemsdata verify` names a difference or an error. The one change that it need not find is a
manifest as an older gemsdata wrote it: the set is then the same, which `verify --fasta` and the batches have to show.
A loader must raise an error or give the batches of the untouched set; with ``check="size"``, which does not read files
through, it cannot see a change that leaves the size and the structure of a shard as they are, and the table says how
many these were.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

import gemsdata as gd
from bench.table import commit, markdown
from gemsdata.files.publish import write_text
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import MANIFEST_FILE, VIEW_VERSION, Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.verify import VerificationError
from gemsdata.shards.verify.shard_set import verify
from gemsdata.shards.write import shard

_CLEAN = (ValueError, OSError, VerificationError)
_FORMATS = {
    "arrow": {"format": "arrow"},
    "arrow, zstd": {"format": "arrow", "compression": "zstd"},
    "webdataset": {"format": "webdataset"},
    "webdataset, zstd": {"format": "webdataset", "compression": "zstd"},
    "packed": {"format": "packed"},
    "view of BPE tokens": {"format": "packed"},
}
_TAR_BLOCK = 512
_NUM_CUTS = 10
"""of every file, at random places"""
_OLDER = "a manifest as an older gemsdata wrote it"
_OLDER_VERSIONS = {(2, 1), (5, 4)}
"""(version of a set, an older one that holds the same set)"""
_COMPARED = ("input_ids", "labels", "sample_ids")


@dataclass
class Tampered:
    """Outcomes of the changes of one kind."""

    change: str
    tries: int = 0
    found: int = 0
    """by verify"""
    irrelevant: int = 0
    """read as the same set, by `verify` with the FASTA and by the loader"""
    missed: int = 0
    """by verify; each is a failure"""
    refused: int = 0
    """by a loader with ``check="hash"``"""
    right: int = 0
    """batches of such a loader, as of the untouched set"""
    wrong: int = 0
    """batches of such a loader, without an error; each is a failure"""
    wrong_by_size: int = 0
    """batches of a loader with ``check="size"``, without an error"""


class Example:
    """A small set of one format, its batches, and one of a genome that has another base and files of the same sizes."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True)
        letters = "".join(random.Random(1).choices("ACGTacgt", k=1500))
        self.fasta, changed, table = folder / "g.fa", folder / "changed.fa", folder / "table.parquet"
        self.fasta.write_text(f">one\n{letters[:1000]}NNNN{letters[1000:]}\n>two\n{letters[100:450]}\n")
        changed.write_text(self.fasta.read_text().replace("a", "t", 1))
        NpmiTable.from_fasta(self.fasta, max_k=3, min_count=2).to_parquet(table)
        self._options: dict[str, object] = {"k": 3, "npmi": str(table), "valid_contigs": ("two",), **_FORMATS[name]}
        if self._options["format"] != "packed":
            self._options |= {"row_tokens": 24, "block_rows": 4, "rows_per_shard": 16}
        self.name = name
        self.folder = folder
        self.shards, self.other = folder / "set", folder / "other"
        self._make(self.fasta, self.shards, 1)
        self._make(changed, self.other, 2)
        self.right = self.batches(self.shards, "hash")

    def _make(self, fasta: Path, out: Path, seed: int) -> None:
        if not self.name.startswith("view"):
            shard([fasta], out, ShardOptions(**self._options, seed=seed))
            return
        packed, tokenizer = self.folder / f"packed-{seed}", self.folder / "tokenizer"
        shard([fasta], packed, ShardOptions(**self._options, seed=seed))
        if not tokenizer.exists():
            write_tokenizer(tokenizer)
        gd.view(packed, tokens=tokenizer, row_bases=60).write(out, format="both", seed=seed)

    @property
    def files(self) -> list[Path]:
        """The files of the set."""
        return sorted(path for path in self.shards.rglob("*") if path.is_file())

    def batches(self, folder: Path, check: str) -> list[dict[str, np.ndarray]]:
        """Return the batches of an epoch, as a loader gives them."""
        source = gd.view(folder, tokens="kmer:3", row_tokens=24) if self.name == "packed" else folder
        loader = gd.build_loader(source, batch_size=8, masking=gd.GeneMask(n=3), check=check, num_epochs=1)
        try:
            return [{name: batch[name].numpy().copy() for name in _COMPARED} for batch in loader]
        finally:
            loader.close()

    def differs(self, folder: Path, check: str) -> bool | None:
        """Return whether a loader gives other batches than those of the untouched set; None if it raises an error."""
        try:
            got = self.batches(folder, check)
        except _CLEAN:
            return None
        same = len(got) == len(self.right) and all(
            np.array_equal(one[name], other[name])
            for one, other in zip(got, self.right, strict=True)
            for name in _COMPARED
        )
        return not same


def write_tokenizer(folder: Path) -> None:
    """Write a byte-pair tokenizer of a few tokens of bases as a Hugging Face folder."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import PreTrainedTokenizerFast

    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "cls", "sep", "pad", "mask")}
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    corpus = ["".join(random.Random(number).choices("ACGT", k=400)) for number in range(20)]
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=list(roles.values()), show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)


Change = Callable[[Path], None]
"""changes the copy of a set in a folder"""


def changes(example: Example, flips: int, rng: random.Random, cuts: int = _NUM_CUTS) -> Iterator[tuple[str, Change]]:
    """Yield (kind, change) for all changes of a set."""
    names = [path.relative_to(example.shards).as_posix() for path in example.files]
    for number in range(flips):
        name = names[number % len(names)]
        at, bit = rng.randrange((example.shards / name).stat().st_size), 1 << rng.randrange(8)
        yield f"a bit flipped in {_kind(name, example)}", _edit(name, _flipped(at, bit))
    for name in names:
        for extra in (b"\0", b"x" * 511, b"\0" * 10240):
            yield "bytes appended", _edit(name, lambda data, extra=extra: data + extra)
        for _ in range(cuts):
            size = rng.randrange((example.shards / name).stat().st_size)
            yield "a file cut", _edit(name, lambda data, size=size: data[:size])
        yield "a file removed", lambda folder, name=name: (folder / name).unlink()
    yield "a file added", lambda folder: (folder / "train" / "000099.arrow").write_bytes(b"x")
    tars = [name for name in names if name.endswith(".tar")][:1]
    for name in tars:
        for size in range(0, (example.shards / name).stat().st_size, _TAR_BLOCK):
            yield "a tar cut at 512 bytes", _edit(name, lambda data, size=size: data[:size])
    of_train = [name for name in names if name.startswith("train/")]
    for one, other in itertools.pairwise(of_train):
        yield "two shards swapped", lambda folder, one=one, other=other: _swap(folder / one, folder / other)
    for name in of_train:
        yield "a shard of another set", lambda folder, name=name: _copy(example.other / name, folder / name)
    yield "a shard under the name of another format", lambda folder: _swap_suffix(folder / of_train[0])
    own = Manifest.load(example.shards).version
    for version in (number for number in range(VIEW_VERSION + 3) if number != own):
        yield "a manifest of another version", lambda folder, version=version: _set_version(folder, version)
        is_older = (own, version) in _OLDER_VERSIONS
        kind = _OLDER if is_older else "a manifest of another version, hashes made again"
        yield kind, lambda folder, version=version: _set_version(folder, version, hashes=True)
    yield "the manifest of another set", lambda folder: _copy(example.other / MANIFEST_FILE, folder / MANIFEST_FILE)


def _kind(name: str, example: Example) -> str:
    if "/" in name:
        return f"{example.name} shards"
    return name


def _flipped(at: int, bit: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def _edit(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda folder: _rewrite(folder / name, change)


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _swap_suffix(path: Path) -> None:
    path.rename(path.with_suffix(".tar" if path.suffix == ".arrow" else ".arrow"))


def _set_version(folder: Path, version: int, *, hashes: bool = False) -> None:
    """Write another version of the format into the manifest; with ``hashes`` all of its hashes are made again."""
    path = folder / MANIFEST_FILE
    if not hashes:
        path.write_text(json.dumps({**json.loads(path.read_text()), "version": version}))
        return
    manifest = dataclasses.replace(Manifest.load(folder), version=version)
    if version == 1:
        manifest = dataclasses.replace(manifest, intervals_sha256="")
    path.write_text(manifest.with_hashes().to_json())


def campaign(
    folder: Path, flips: int, seed: int, formats: list[str] | None = None, cuts: int = _NUM_CUTS
) -> list[Tampered]:
    """Try every change on sets of every format; ``flips`` are divided among them, ``cuts`` are those of each file."""
    outcomes: dict[str, Tampered] = {}
    chosen = formats or list(_FORMATS)
    for name in chosen:
        example = Example(folder / name.replace(", ", "-"), name)
        copy = example.folder / "copy"
        for kind, change in changes(example, -(-flips // len(chosen)), random.Random(f"{seed}:{name}"), cuts):
            shutil.copytree(example.shards, copy)
            change(copy)
            _try(example, copy, outcomes.setdefault(kind, Tampered(kind)))
            shutil.rmtree(copy)
    return list(outcomes.values())


def _try(example: Example, copy: Path, outcome: Tampered) -> None:
    outcome.tries += 1
    by_hash = example.differs(copy, "hash")
    try:
        verify(copy)
    except _CLEAN:
        outcome.found += 1
    else:
        if outcome.change == _OLDER and by_hash is False and verify(copy, [str(example.fasta)]):
            outcome.irrelevant += 1
        else:
            outcome.missed += 1
    outcome.refused += by_hash is None
    outcome.right += by_hash is False
    outcome.wrong += by_hash is True
    outcome.wrong_by_size += example.differs(copy, "size") is True


def report(outcomes: list[Tampered], flips: int, seed: int) -> str:
    """Return the outcomes as a Markdown document."""
    header = ["change", "tries", "found by verify", "irrelevant", "missed", "loader, hash: error", "right", "wrong",
              "loader, size: wrong without an error"]  # fmt: skip
    rows = [
        [one.change, *(str(value) for name, value in dataclasses.asdict(one).items() if name != "change")]
        for one in outcomes
    ]
    totals = [sum(int(row[column]) for row in rows) for column in range(1, len(header))]
    rows.append(["**all**", *map(str, totals)])
    return f"""# Changed files

Made by `python -m tools.chaos.tamper --flips {flips} --seed {seed}` (`make tamper`) at commit {commit()}, on sets of
every format.

* `gemsdata verify`, without a FASTA, has to find every change. Irrelevant is only a manifest as an older
  gemsdata wrote it: `verify --fasta` then holds, and the batches are the same.
* A loader with the default `check="hash"` has to raise an error, or to give the batches of the untouched set: it reads
  `intervals.parquet` of packed sets only.
* A loader with `check="size"` compares sizes and structure and does not read files through. The last column counts
  the changes that it did not see and that changed a batch: bits within rows, and files of the same size and shape.

{markdown(header, rows)}
"""


@click.command(help=__doc__.replace("\n    python", "\n\b\n    python"))
@click.option("--flips", type=click.IntRange(0), default=1000, show_default=True, help="Flipped bits over all files.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--markdown", "markdown_path", type=click.Path(path_type=Path), help="Write the table to this file.")
def main(flips: int, seed: int, markdown_path: Path | None) -> None:
    """Run the campaign; exit status 1 if a change was missed."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="gemsdata-tamper-") as name:
        outcomes = campaign(Path(name), flips, seed)
    text = report(outcomes, flips, seed)
    if markdown_path:
        write_text(markdown_path, text)
    click.echo(text)
    sys.exit(any(outcome.missed or outcome.wrong for outcome in outcomes))


if __name__ == "__main__":
    main()
