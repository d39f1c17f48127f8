"""Masked batches of 512-token rows with two workers, from gemsdata and from other loaders.

    python -m bench.bench_loader [--rows 100000] [--rounds 3] [--seconds 4] [--write]

Every loader reads the same rows, shuffles in its own way, has two workers and batches of 256, and yields int64 tensors.
Other loaders run twice: with Hugging Face's masked-language collator, and without masking (gemsdata always masks, with
`genemask`). Loaders take turns within each round; the median of the rounds is reported. The time to the first batch
includes opening the data set.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import numpy as np
import torch

import gemsdata as gd
from bench.peers import stub_torchvision
from bench.table import machine, markdown, write_section
from gemsdata.shards import write as sharding
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from tools.synthesize import GenomeRecipe, write_fasta

BATCH = 256
WORKERS = 2
ROW_BASES = 515
MASKED = ["genemask", "HF collator"]
Loader = Iterable[dict[str, torch.Tensor]]


def plain(rows: list | np.ndarray) -> dict[str, torch.Tensor]:
    """Collate without masking."""
    if isinstance(rows, np.ndarray):
        return {"input_ids": torch.from_numpy(rows.astype(np.int64))}
    ids = [np.asarray(row["input_ids"] if isinstance(row, dict) else row) for row in rows]
    return {"input_ids": torch.from_numpy(np.stack(ids).astype(np.int64))}


class HuggingFaceMasking:
    """Collate with transformers' DataCollatorForLanguageModeling."""

    def __init__(self) -> None:
        from transformers import DataCollatorForLanguageModeling

        self.collator = DataCollatorForLanguageModeling(gd.KmerTokenizer(6), mlm=True, mlm_probability=0.15)

    def __call__(self, rows: list) -> dict[str, torch.Tensor]:
        ids = (row["input_ids"] if isinstance(row, dict) else row for row in rows)
        return dict(self.collator([{"input_ids": np.asarray(row).astype(np.int64)} for row in ids]))


def dataloader(dataset: object, collate: Callable, **options: object) -> Loader:
    return torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, collate_fn=collate, **options)


def write_tars(rows: np.ndarray, folder: Path, rows_of_member: int) -> None:
    """Write eight tars of .npy members."""
    folder.mkdir()
    members = np.array_split(np.arange(0, len(rows), rows_of_member), 8)
    for part, firsts in enumerate(members):
        with tarfile.open(folder / f"{part:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for first in firsts.tolist():
                content = io.BytesIO()
                np.save(content, rows[first] if rows_of_member == 1 else rows[first : first + rows_of_member])
                member = tarfile.TarInfo(f"{first:09d}.npy")
                member.size = content.tell()
                content.seek(0)
                tar.addfile(member, content)


def webdataset_rows(folder: Path, collate: Callable) -> Loader:
    import webdataset

    urls = [str(path) for path in sorted(folder.iterdir())]
    return dataloader(
        webdataset.WebDataset(urls, shardshuffle=8).shuffle(1000).decode().to_tuple("npy").map(_first), collate
    )


def webdataset_blocks(folder: Path, collate: Callable) -> Loader:
    import webdataset

    urls = [str(path) for path in sorted(folder.iterdir())]
    blocks = webdataset.WebDataset(urls, shardshuffle=8).decode().to_tuple("npy").map(_first).map(collate)
    return torch.utils.data.DataLoader(blocks, batch_size=None, num_workers=WORKERS)


def _first(sample: tuple) -> np.ndarray:
    return sample[0]


def mds(folder: Path, collate: Callable) -> Loader:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    return dataloader(StreamingDataset(local=str(folder), batch_size=BATCH, shuffle=True), collate)


def litdata(folder: Path, collate: Callable) -> Loader:
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder), shuffle=True)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, collate_fn=collate)


def litdata_tokens(folder: Path, collate: Callable) -> Loader:
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    dataset = StreamingDataset(str(folder), shuffle=True, item_loader=TokensLoader(block_size=512))
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, collate_fn=collate)


def hf_map(folder: Path, collate: Callable) -> Loader:
    import datasets

    return dataloader(datasets.load_from_disk(str(folder)).with_format("numpy"), collate, shuffle=True)


def hf_iterable(folder: Path, collate: Callable) -> Loader:
    import datasets

    stream = datasets.load_from_disk(str(folder)).to_iterable_dataset(num_shards=8)
    return dataloader(stream.shuffle(buffer_size=1000, seed=0).with_format("numpy"), collate)


def ours(folder: Path, threads: bool) -> Loader:
    return gd.build_loader(folder, masking="genemask", batch_size=BATCH, num_workers=WORKERS, threads=threads)


def measured(open_loader: Callable[[], Loader], seconds: float) -> tuple[float, float]:
    """Return (rows a second, seconds to the first batch)."""
    began = time.perf_counter()
    iterator = iter(open_loader())
    num_rows = -len(next(iterator)["input_ids"])
    first = time.perf_counter() - began
    began = time.perf_counter()
    for batch in itertools.chain([{"input_ids": range(-num_rows)}], iterator):
        num_rows += len(batch["input_ids"])
        if time.perf_counter() - began > seconds:
            break
    return num_rows / (time.perf_counter() - began), first


def make_sets(scratch: Path, num_rows: int, notes: list[str]) -> dict[str, Path]:
    """Write the same rows in the formats of all loaders."""
    fasta = scratch / "genome.fa"
    with open(fasta, "wb") as stream:
        write_fasta(GenomeRecipe(num_bases=num_rows * ROW_BASES, num_contigs=4), stream)
    sharding.shard([fasta], scratch / "ours", ShardOptions(valid_fraction=0.0), workers=WORKERS)
    shards = ShardSet.open(scratch / "ours")
    stored = shards.read("train", np.arange(shards.num_rows("train")))
    rows = np.zeros((len(stored), 512), np.uint16)
    rows[:, 0], rows[:, 1:-1] = 2, stored.input_ids
    rows[np.arange(len(rows)), stored.num_tokens.astype(int) + 1] = 3
    rows = rows[stored.num_tokens == 510]
    folders = {"ours": scratch / "ours"}
    write_tars(rows, scratch / "wds", 1)
    write_tars(rows, scratch / "wds_blocks", BATCH)
    folders |= {"wds": scratch / "wds", "wds_blocks": scratch / "wds_blocks"}
    try:
        stub_torchvision()
        from streaming import MDSWriter

        with MDSWriter(out=str(scratch / "mds"), columns={"input_ids": "ndarray:uint16:512"}) as writer:
            for row in rows:
                writer.write({"input_ids": row})
        folders["mds"] = scratch / "mds"
    except ImportError as error:
        notes.append(f"MosaicML streaming is not installed ({error}): see `make bench`.")
    np.save(scratch / "rows.npy", rows)
    for name, more in (("lit", []), ("lit_tokens", ["tokens"])):
        command = [
            sys.executable,
            "-m",
            "bench.write_litdata",
            scratch / "rows.npy",
            scratch / name,
            str(WORKERS),
            *more,
        ]
        wrote = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if wrote.returncode == 0:
            folders[name] = scratch / name
        else:
            notes.append(f"litdata ({name}) is left out ({wrote.stderr.strip().splitlines()[-1]}): see `make bench`.")
    try:
        import datasets

        datasets.disable_progress_bars()
        lists = [rows[i : i + 1000] for i in range(0, len(rows), 1000)]
        features = datasets.Features({"input_ids": datasets.List(datasets.Value("uint16"), length=512)})
        generated = datasets.Dataset.from_generator(
            lambda: ({"input_ids": row} for part in lists for row in part),
            features=features,
            cache_dir=str(scratch / "hf_cache"),
        )
        generated.save_to_disk(str(scratch / "hf"))
        folders["hf"] = scratch / "hf"
    except ImportError as error:
        notes.append(f"HF datasets is not installed ({error}).")
    return folders


def throughput(folders: dict[str, Path], rounds: int, seconds: float) -> str:
    peers = {
        "webdataset, one row a member": ("wds", webdataset_rows),
        "webdataset, 256 rows a member": ("wds_blocks", webdataset_blocks),
        "MosaicML streaming": ("mds", mds),
        "litdata": ("lit", litdata),
        "litdata, TokensLoader": ("lit_tokens", litdata_tokens),
        "HF datasets, map style": ("hf", hf_map),
        "HF datasets, iterable": ("hf", hf_iterable),
    }
    runs: dict[tuple[str, str], Callable[[], Loader]] = {
        ("gemsdata, 2 processes", "genemask"): lambda: ours(folders["ours"], False),
        ("gemsdata, 2 threads", "genemask"): lambda: ours(folders["ours"], True),
    }
    for name, (key, build) in peers.items():
        for masking, collate in (("HF collator", HuggingFaceMasking), ("none", lambda: plain)):
            if key in folders:
                runs[name, masking] = lambda b=build, k=key, c=collate: b(folders[k], c())
    results: dict[tuple[str, str], list[tuple[float, float]]] = {run: [] for run in runs}
    for _ in range(rounds):
        for run, open_loader in runs.items():
            results[run].append(measured(open_loader, seconds))
    rate = {run: statistics.median(value for value, _ in found) for run, found in results.items()}
    first = {run: statistics.median(value for _, value in found) for run, found in results.items()}
    processes, threads = (rate[run] for run in list(runs)[:2])
    tables = []
    for title, chosen in (("loaders that mask", MASKED), ("without masking", ["none"])):
        faster = [f"gemsdata, 2 {kind}, genemask: times faster" for kind in ("processes", "threads")]
        lines = [
            [
                run[0],
                run[1],
                f"{value:,.0f}",
                f"{processes / value:,.1f}",
                f"{threads / value:,.1f}",
                f"{first[run] * 1000:,.0f} ms",
            ]
            for run, value in rate.items()
            if run[1] in chosen
        ]
        tables.append(markdown([title, "masking", "rows/s", *faster, "first batch"], lines))
    return "\n\n".join(tables)


def resuming(folder: Path) -> str:
    """Time to the first batch at step 10,000,000 of an index of 10**9 rows, in which the shards are repeated."""
    shards = ShardSet.open(folder)
    manifest = shards.manifest
    copies = -(-(10**9) // manifest.num_rows("train"))
    fields = {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}
    huge = ShardSet(folder, Manifest(**{**fields, "splits": {"train": list(manifest.shards("train")) * copies}}))
    rows = []
    for step in (0, 10_000_000):
        began = time.perf_counter()
        loader = gd.build_loader(huge, masking="genemask", batch_size=BATCH)
        loader.load_state_dict({**loader.state_dict(), "step": step})
        next(iter(loader))
        rows.append([f"{step:,}", f"{huge.num_rows('train'):,}", f"{(time.perf_counter() - began) * 1000:,.0f} ms"])
    return markdown(["resume at step", "rows in the index", "build the loader, load the state, first batch"], rows)


@click.command()
@click.option("--rows", type=int, default=100_000, show_default=True)
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Of each loader in a round.")
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--write", is_flag=True, help="Write the tables into docs/benchmarks.md.")
def main(rows: int, seconds: float, rounds: int, write: bool) -> None:
    """Print Markdown tables of batches per second."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    notes: list[str] = []
    scratch = Path(tempfile.mkdtemp(prefix="gemsdata-bench-"))
    try:
        folders = make_sets(scratch, rows, notes)
        next(iter(ours(folders["ours"], False)))  # kernels are compiled once
        text = "\n\n".join(
            [
                f"Measured by `make bench` on {machine()}; {rows:,} rows of 512 tokens, page cache warm;"
                f" medians of {rounds} rounds in which the loaders take turns.",
                throughput(folders, rounds, seconds),
                resuming(folders["ours"]),
                *notes,
            ]
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    click.echo(text)
    if write:
        write_section("loader", text)


if __name__ == "__main__":
    main()
