"""The stream of masked batches: batch s is a pure function of (shard sets, seed, global batch, options, s, stage log).

Nothing else has an influence: no worker number, no rank beyond the choice of slots, no prefetch depth, no order of
calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from gemsdata.kernels.gather import draw_below
from gemsdata.kernels.keys import key_of, keys_of
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.masking.curriculum import Curriculum
from gemsdata.masking.masker import Masker
from gemsdata.masking.strategies import Strategy
from gemsdata.masking.token_rows import Vocabulary
from gemsdata.stream.batch import BatchArray, BatchLayout, BufferedBatch, PendingBatch
from gemsdata.stream.config import StreamConfig, combined_fingerprint, rank_hash
from gemsdata.stream.look_ahead import LookAhead
from gemsdata.stream.mixture import Mixture
from gemsdata.stream.order import Order
from gemsdata.stream.permutation import PADDING, RowGroup
from gemsdata.stream.row_reader import RowReader
from gemsdata.stream.source import BatchInfo
from gemsdata.stream.stage_log import StageLog
from gemsdata.stream.world import World

Ranks = np.ndarray | Callable[[int], np.ndarray]
MIN_GRAM = 3
"""k-mers shorter than this are ranked by longer n-grams"""
MASKED = ("input_ids", "labels", "attention_mask")
COORDINATES = (
    BatchArray(name="contig", row_shape=(), dtype="int32"),
    BatchArray(name="start", row_shape=(), dtype="int64"),
    BatchArray(name="end", row_shape=(), dtype="int64"),
    BatchArray(name="strand", row_shape=(), dtype="int8"),
    BatchArray(name="source", row_shape=(), dtype="int16"),
)
"""index into the set's contigs, 0-based half-open bases, 1 or -1, and the number of the set; for a slot without a row
-1, and strand 0"""


class MaskedStream:
    """An endless, step-indexed stream of masked batches, a `BatchSource` that computes them in this process.

    Parameters
    ----------
    readers
        one for each shard set; all of the same k and row length.
    order
        the rows of batch s.
    curriculum
        the masking at each step.
    ranks
        for each set the NPMI rank of every n-gram's id, integers[4**n + 5], or a function that gives them for an n.
    seed
        seed of the order, the strands and the masks.
    reverse_complement
        probability that a row is shown as its reverse complement, drawn anew in every epoch.
    world
        rank and number of ranks.
    coordinates
        whether batches have ``contig``, ``start``, ``end``, ``strand`` and ``source`` of each row.
    """

    prefers_step_ranges = False

    def __init__(
        self,
        readers: Sequence[RowReader],
        order: Order | Mixture,
        curriculum: Curriculum,
        *,
        ranks: Sequence[Ranks],
        seed: int,
        reverse_complement: float = 0.0,
        world: World,
        coordinates: bool = False,
    ) -> None:
        check_mixable(readers)
        self._readers = list(readers)
        self._maskers = [
            [masker_of(masking, reader, table, seed) for masking in curriculum.maskings()]
            for reader, table in zip(readers, ranks, strict=True)
        ]
        self._first_id = np.concatenate([[0], np.cumsum([reader.num_rows for reader in readers])]).tolist()
        self.row_tokens, self.token_identity = readers[0].row_tokens, readers[0].token_identity
        self.config = StreamConfig(
            fingerprint=combined_fingerprint([reader.fingerprint for reader in readers]),
            splits=tuple(reader.split for reader in readers),
            order=order,
            curriculum=curriculum,
            rank_hashes=tuple(rank_hash(maskers[0].ranks) for maskers in self._maskers),
            seed=seed,
            reverse_complement=reverse_complement,
            world=world,
        )
        self.log = StageLog()
        self._look_ahead = LookAhead(self._readers, order, world)
        self._weighted, self._coordinates = any(reader.weighted for reader in readers), coordinates
        self.layout = masked_layout(
            self.config.num_rows,
            self.row_tokens,
            self._maskers[0][0],
            weighted=self._weighted,
            coordinates=coordinates,
        )

    def stage(self, step: int) -> int:  # noqa: D102
        return self.config.stage(step, self.log)

    def fill(self, step: int, buffer: np.ndarray, stage: int | None = None) -> BatchInfo:
        """Write this rank's batch ``step`` to ``buffer`` (uint8[layout.num_bytes]) as ``layout.views`` shows it.

        ``stage``: by default the one in the stage log.
        """
        self._look_ahead.begin(step)
        views = self.layout.views(buffer)
        stage = self.stage(step) if stage is None else stage
        order = self.config.order
        num_skipped, why = 0, ""
        for group in order.row_groups(step, self.config.world):
            lost, reason = self._fill_group(group, stage, views)
            num_skipped, why = num_skipped + lost, why or reason
        return BatchInfo(step=step, epoch=order.epoch(step), stage=stage, num_skipped=num_skipped, why_skipped=why)

    def compute(self, steps: range) -> list[tuple[PendingBatch, BatchInfo]]:  # noqa: D102
        batches: list[tuple[PendingBatch, BatchInfo]] = []
        for step in steps:
            batch = BufferedBatch(layout=self.layout, buffer=self.layout.empty(), owned=True)
            batches.append((batch, self.fill(step, batch.buffer)))
        return batches

    def check_unchanged(self) -> None:  # noqa: D102
        for reader in self._readers:
            reader.check_unchanged()

    def interrupt(self) -> None:
        """Do nothing: `compute` does not wait for anything."""

    def _fill_group(self, group: RowGroup, stage: int, views: dict[str, np.ndarray]) -> tuple[int, str]:
        reader, maskers = self._readers[group.source], self._maskers[group.source]
        masker = maskers[min(stage, len(maskers) - 1)]
        row_ids, count = group.row_ids, group.row_ids.size
        sample_ids = row_ids + self._first_id[group.source]
        rows = reader.empty(count)
        flips = self._flips(group.epoch, sample_ids)
        lost, why = reader.read(group.epoch, row_ids, flips, rows)
        scattered = not isinstance(group.slots, slice)
        out = (
            masker.empty_batch(count, self.row_tokens)
            if scattered
            else {name: views[name][group.slots] for name in MASKED}
        )
        if rows.tokens is None:
            masker.batch(rows.input_ids, rows.num_tokens, sample_ids, epoch=group.epoch, stage=stage, out=out)
        else:
            masker.batch_of(rows.tokens, sample_ids, epoch=group.epoch, stage=stage, out=out)
        if scattered:
            for name, values in out.items():
                views[name][group.slots] = values
        sample_ids[row_ids < 0] = PADDING
        views["sample_ids"][group.slots] = sample_ids
        if self._weighted:
            views["loss_weights"][group.slots] = self._weights_of(reader, rows, views["attention_mask"][group.slots])
        if self._coordinates:
            empty = row_ids < 0
            places = reader.places(row_ids, rows)
            columns = (*places, np.where(flips > 0, -1, 1), np.full(count, group.source))
            for array, values in zip(COORDINATES, columns, strict=True):
                views[array.name][group.slots] = np.where(empty, 0 if array.name == "strand" else -1, values)
        return lost, why

    def _weights_of(self, reader: RowReader, rows: Any, attention_mask: np.ndarray) -> np.ndarray:
        """Return the weights of the tokens of rows, 0 at [CLS], [SEP] and [PAD], float16[B, L + 2]."""
        weights = np.zeros(attention_mask.shape, np.float16)
        own = reader.loss_weights(rows)
        if own is None:
            weights[:, 1:-1] = attention_mask[:, 2:]  # the last position that is attended to is [SEP]
        else:
            weights[:, 1:-1] = own
        return weights

    def _flips(self, epoch: int, sample_ids: np.ndarray) -> np.ndarray:
        """Return which rows are shown as their reverse complement in an epoch, uint8[B]."""
        flips = np.zeros(sample_ids.size, np.uint8)
        probability = self.config.reverse_complement
        if probability > 0:
            keys = keys_of((key_of(self.config.seed, RandomStream.STRAND), epoch, 0), sample_ids[:, None])
            draw_below(keys, np.uint64(min(int(probability * 2.0**64), 2**64 - 1)), flips)
        return flips


class TokenSource(Protocol):
    """The properties of the tokens that masking and mixing depend on."""

    @property
    def token_identity(self) -> str:
        """The kind of tokens."""

    @property
    def k(self) -> int:
        """Bases of a token."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The token ids."""

    @property
    def row_tokens(self) -> int:
        """Most tokens of a row, L."""


def check_mixable(sources: Sequence[TokenSource]) -> None:
    """Raise ValueError for rows of different tokens or lengths, which do not fit one batch."""
    shapes = {(source.token_identity, source.row_tokens) for source in sources}
    if len(shapes) > 1:
        kinds = ", ".join(f"rows of {row_tokens} tokens {identity}" for identity, row_tokens in sorted(shapes))
        raise ValueError(f"shard sets of different tokens or row lengths cannot be mixed: {kinds}")


def masker_of(masking: str | Strategy, reader: TokenSource, ranks: Ranks, seed: int) -> Masker:
    """Return the masker for the rows of a reader; overlapping k-mers are masked by their own ranks."""
    if reader.token_identity == f"kmer:{reader.k}:1" and reader.k >= MIN_GRAM:
        return Masker(masking, ranks=ranks, k=reader.k, seed=seed)
    return Masker(masking, ranks=ranks, vocabulary=reader.vocabulary, seed=seed)


def masked_layout(num_rows: int, row_tokens: int, masker: Masker, *, weighted: bool, coordinates: bool) -> BatchLayout:
    """Return the layout of batches of ``num_rows`` rows of up to ``row_tokens`` tokens that ``masker`` masks."""
    extra: tuple[BatchArray, ...] = COORDINATES if coordinates else ()
    if weighted:
        extra = (BatchArray(name="loss_weights", row_shape=(row_tokens + 2,), dtype="float16"), *extra)
    empty = masker.empty_batch(0, row_tokens)
    return BatchLayout.masked_lm(
        num_rows=num_rows,
        width=row_tokens + 2,
        id_dtype=empty["input_ids"].dtype.name,
        label_dtype=empty["labels"].dtype.name,
        extra=extra,
    )
