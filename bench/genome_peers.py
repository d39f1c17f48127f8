"""Loaders of other projects for genomes, written following their published descriptions."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import gemsdata as gd

try:  # Python 3.14
    from compression import zstd
except ImportError:
    from backports import zstd

if TYPE_CHECKING:
    from pyfaidx import Fasta

OWN_IDS = {letter: i + 5 for i, letter in enumerate("ATCG")} | {"N": 1}
Loader = Iterable[dict[str, torch.Tensor]]


class PyfaidxWindows(torch.utils.data.Dataset):
    """A window of the FASTA for each sample, letters to ids by a dict, as in HyenaDNA's dataset."""

    def __init__(self, fasta: Path, num_bases: int) -> None:
        self.path, self.num_bases = fasta, num_bases
        self.starts = [
            (record.name, start) for record in self.fasta for start in range(0, len(record) - num_bases, num_bases)
        ]
        del self.fasta  # each worker opens its own: the position in an open file is shared by forked processes

    @functools.cached_property
    def fasta(self) -> Fasta:
        from pyfaidx import Fasta

        return Fasta(str(self.path), sequence_always_upper=True)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        name, start = self.starts[index]
        letters = str(self.fasta[name][start : start + self.num_bases])
        return torch.LongTensor([OWN_IDS.get(letter, 1) for letter in letters])


class MappedWindows(torch.utils.data.Dataset):
    """A window of a memory map of one byte per base, like the token files of BioNeMo's Evo 2."""

    def __init__(self, path: Path, num_bases: int) -> None:
        self.path, self.num_bases = path, num_bases
        self.count = path.stat().st_size // num_bases

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        window = np.memmap(self.path, np.uint8, mode="r")[index * self.num_bases :][: self.num_bases]
        return torch.from_numpy(window.astype(np.int64))


def masking_collator(num_tokens: int) -> Callable:
    """Return Hugging Face's collator for masked language models, of single bases."""
    from transformers import DataCollatorForLanguageModeling

    return DataCollatorForLanguageModeling(gd.KmerTokenizer(1, model_max_length=num_tokens + 2), mlm_probability=0.15)


def stacked(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Collate without masking."""
    return {"input_ids": torch.stack(rows)}


def shuffled(dataset: torch.utils.data.Dataset, collate: Callable, *, batch_size: int = 4) -> Loader:
    """Return torch's DataLoader with two worker processes."""
    return torch.utils.data.DataLoader(
        dataset, batch_size=batch_size, num_workers=2, persistent_workers=True, shuffle=True, collate_fn=collate
    )


def jsonl_stream(files: list[str], num_bases: int, *, batch_size: int = 4) -> Loader:
    """Return windows as text, streamed by Hugging Face datasets, tokenized and masked, as in GPN's training."""
    import datasets

    datasets.disable_progress_bars()
    tokenizer = gd.KmerTokenizer(1, model_max_length=num_bases + 2)
    stream = datasets.load_dataset("json", data_files=files, split="train", streaming=True).shuffle(0, buffer_size=16)
    stream = stream.map(
        lambda rows: {"input_ids": tokenizer([s.upper() for s in rows["seq"]])["input_ids"]},
        batched=True,
        batch_size=16,
        remove_columns=["seq"],
    )
    return torch.utils.data.DataLoader(
        stream,
        batch_size=batch_size,
        num_workers=2,
        persistent_workers=True,
        collate_fn=masking_collator(num_bases),
    )


def sequences(fasta: Path) -> list[bytes]:
    """Return the sequences of a FASTA file, without line breaks."""
    return [record.split(b"\n", 1)[1].replace(b"\n", b"") for record in fasta.read_bytes().split(b">")[1:]]


def write_peers(fasta: Path, folder: Path, num_bases: int) -> None:
    """Write the input of these loaders: one byte per base in bases.bin, and windows as jsonl.zst in two files."""
    records = sequences(fasta)
    ids = np.full(256, 1, np.uint8)
    for letter, token_id in OWN_IDS.items():
        ids[ord(letter)] = ids[ord(letter.lower())] = token_id
    with open(folder / "bases.bin", "wb") as out:
        for record in records:
            ids[np.frombuffer(record, np.uint8)].tofile(out)
    windows = [r[i : i + num_bases] for r in records for i in range(0, len(r) - num_bases, num_bases)]
    for part in range(2):
        with zstd.open(folder / f"{part}.jsonl.zst", "wt") as out:
            for window in windows[part::2]:
                out.write(json.dumps({"seq": window.decode()}) + "\n")


def bpe_folder(fasta: Path, folder: Path, *, num_ids: int = 4096, num_bases: int = 1_000_000) -> Path:
    """Train a byte-pair tokenizer with the vocabulary size of DNABERT-2 on the first bases of a genome, and save it."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import PreTrainedTokenizerFast

    text = max(sequences(fasta), key=len)[:num_bases].decode().upper()
    roles = {
        role: f"[{role.removesuffix('_token').upper()}]"
        for role in ("unk_token", "cls_token", "sep_token", "pad_token", "mask_token")
    }
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    trainer = trainers.BpeTrainer(
        vocab_size=num_ids, special_tokens=list(roles.values()), show_progress=False, initial_alphabet=list("ACGT")
    )
    pieces = [piece for i in range(0, len(text), 500) for piece in text[i : i + 500].split("N") if piece]
    tokenizer.train_from_iterator(pieces, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
    return folder
