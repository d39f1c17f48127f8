"""A decoder and a masking stage for webdataset pipelines over gemsdata shards.

wds.WebDataset(urls).decode(gemsdata.wds_decoder).compose(gemsdata.masked(masking="genemask", seed=0))
"""

from __future__ import annotations

import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from gemsdata.masking.masker import Masker
from gemsdata.masking.strategies import Strategy
from gemsdata.shards.manifest import SPLITS
from gemsdata.shards.member import MOST_COLUMN_BYTES, read_array
from gemsdata.shards.shard_set import ShardSet

_SUFFIXES = (".npy", ".npy.zst")


def wds_decoder(key: str, data: bytes) -> np.ndarray | None:
    """Decode a member ``COLUMN.npy`` or ``COLUMN.npy.zst`` of a sample; None for any other.

    A handler for ``webdataset.WebDataset(...).decode``: ``key`` is the member's extension, after a dot. Raises
    ValueError for a member that is damaged, or that expands to more than 1 GiB.
    """
    if not key.endswith(_SUFFIXES):
        return None
    try:
        return read_array(data, compressed=key.endswith(".zst"), most_bytes=MOST_COLUMN_BYTES)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"member {key} is damaged: {' '.join(str(error).split())}") from None


class masked:
    """A stage that masks the rows of each sample: for ``webdataset``'s ``compose``.

    A sample of gemsdata is a block of rows. For each sample, the stage yields {"__key__", "input_ids", "labels",
    "attention_mask"} of all its rows, [B, L + 2] in narrow dtypes, with [CLS] and [SEP], and its ``contig`` and
    ``start``. Masks follow from (seed, pass over the data, row), so they do not depend on the order of samples; a pass
    is one iteration of this stage in one process. For exact resume and a global shuffle use `build_loader`; this stage
    is for existing pipelines.

    Parameters
    ----------
    masking
        a strategy or the name of one.
    ranks
        NPMI rank of every token id, integers[4**k + 5]; default: those of the shard set that the sample's tar belongs
        to, found beside it.
    seed
        any integer 0 .. 2**64 - 1.

    Raises
    ------
    ValueError
        while samples are read: if a sample was not decoded by `wds_decoder`, or its set cannot be found.
    """

    def __init__(self, masking: str | Strategy = "genemask", *, ranks: np.ndarray | None = None, seed: int = 0) -> None:
        self._masking, self._ranks, self._seed = masking, ranks, seed
        self._epoch = 0
        self._maskers: dict[str, tuple[Masker, int]] = {}

    def __call__(self, samples: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the masked samples of one pass."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        for sample in samples:
            columns = {name.split(".")[0]: value for name, value in sample.items() if not name.startswith("__")}
            if not isinstance(columns.get("input_ids"), np.ndarray):
                raise ValueError(
                    f"sample {sample.get('__key__')!r} has no decoded input_ids: put .decode(gemsdata.wds_decoder)"
                    " before .compose(gemsdata.masked(...)), on tars of `gemsdata shard --format webdataset`"
                )
            masker, first_row = self._masker_of(sample, len(columns["input_ids"]))
            row_ids = first_row + np.arange(len(columns["input_ids"]))
            batch = masker.batch(columns["input_ids"], columns["num_tokens"], row_ids, epoch=epoch)
            yield {"__key__": sample["__key__"], **batch, "contig": columns["contig"], "start": columns["start"]}

    def _masker_of(self, sample: Mapping[str, Any], num_rows: int) -> tuple[Masker, int]:
        """Return the masker for a sample's rows, and the row id of the first."""
        place = PurePosixPath(str(sample.get("__url__", "")))
        folder = str(place.parent)
        if folder not in self._maskers:
            block_rows, ranks = num_rows, self._ranks
            try:
                if place.parent.name not in SPLITS:
                    raise FileNotFoundError
                shards = ShardSet.open(folder.rpartition("/")[0] or ".", "webdataset")
                if shards.manifest.tokens is not None:
                    raise ValueError(
                        f"{place} holds rows of tokens {shards.manifest.tokens.spec}: this stage masks overlapping"
                        " k-mers; read the set with gemsdata.build_loader"
                    )
                block_rows = shards.manifest.block_rows
                ranks = shards.ranks if ranks is None else ranks
            except FileNotFoundError:
                if ranks is None:
                    raise ValueError(
                        f"{place} does not lie in a shard set's folder, where its NPMI ranks are: give"
                        " masked(ranks=...)"
                    ) from None
            self._maskers[folder] = Masker(self._masking, ranks=ranks, seed=self._seed), block_rows
        masker, block_rows = self._maskers[folder]
        return masker, int(sample["__key__"].rpartition("/")[2]) * block_rows
