"""The stream of masked batches: batch s is a pure function of (shard sets, seed, global batch, options, s, stage log).

Nothing else enters: no worker or rank number beyond the choice of slots, no prefetch depth, no order of calls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gemsdata.kernels.gather import draw_below
from gemsdata.kernels.keys import key_of, keys_of
from gemsdata.kernels.random_streams import RandomStream
from gemsdata.masking.curriculum import Curriculum
from gemsdata.masking.masker import Masker
from gemsdata.stream.batch import BatchLayout, BufferedBatch, PendingBatch
from gemsdata.stream.config import StreamConfig, combined_fingerprint, rank_hash
from gemsdata.stream.mixture import Mixture
from gemsdata.stream.order import Order
from gemsdata.stream.permutation import PADDING, RowGroup
from gemsdata.stream.reader import RowReader
from gemsdata.stream.source import BatchInfo
from gemsdata.stream.stage_log import StageLog
from gemsdata.stream.world import World


class MaskedStream:
    """An endless, step-indexed stream of masked batches, a `BatchSource` that computes them in this process.

    Parameters
    ----------
    readers
        one for each shard set; all of the same k and row length.
    order
        which rows form batch s.
    curriculum
        which masking at which step.
    ranks
        NPMI rank of every token id for each set, integers[4**k + 5].
    seed
        of the order, the strands and the masks.
    reverse_complement
        probability that a row is shown as its reverse complement, drawn anew in every epoch.
    world
        rank and number of ranks.
    """

    prefers_step_ranges = False

    def __init__(
        self,
        readers: Sequence[RowReader],
        order: Order | Mixture,
        curriculum: Curriculum,
        *,
        ranks: Sequence[np.ndarray],
        seed: int,
        reverse_complement: float = 0.0,
        world: World,
    ) -> None:
        shapes = {(reader.k, reader.row_tokens) for reader in readers}
        if len(shapes) > 1:
            raise ValueError(f"shard sets of different (k, row tokens) cannot be mixed: {sorted(shapes)}")
        self._readers = list(readers)
        self._maskers = [
            [Masker(masking, ranks=table, seed=seed) for masking in curriculum.maskings()] for table in ranks
        ]
        self._first_id = np.concatenate([[0], np.cumsum([reader.num_rows for reader in readers])]).tolist()
        self.row_tokens, self.k = readers[0].row_tokens, readers[0].k
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
        self.layout = masked_layout(self.config.num_rows, self.row_tokens, self._maskers[0][0])

    def stage(self, step: int) -> int:  # noqa: D102
        return self.config.stage(step, self.log)

    def fill(self, step: int, buffer: np.ndarray, stage: int | None = None) -> BatchInfo:
        """Write this rank's batch ``step`` to ``buffer`` (uint8[layout.num_bytes]) as ``layout.views`` shows it.

        ``stage``: default as the stage log says now.
        """
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

    def interrupt(self) -> None:
        """Do nothing: `compute` waits for nothing here."""

    def _fill_group(self, group: RowGroup, stage: int, views: dict[str, np.ndarray]) -> tuple[int, str]:
        reader, maskers = self._readers[group.source], self._maskers[group.source]
        masker = maskers[min(stage, len(maskers) - 1)]
        row_ids, count = group.row_ids, group.row_ids.size
        sample_ids = row_ids + self._first_id[group.source]
        rows = reader.empty(count)
        lost, why = reader.read(group.epoch, row_ids, self._flips(group.epoch, sample_ids), rows)
        scattered = not isinstance(group.slots, slice)
        out = (
            masker.empty_batch(count, self.row_tokens)
            if scattered
            else {name: view[group.slots] for name, view in views.items() if name != "sample_ids"}
        )
        masker.batch(rows.input_ids, rows.num_tokens, sample_ids, epoch=group.epoch, stage=stage, out=out)
        if scattered:
            for name, values in out.items():
                views[name][group.slots] = values
        sample_ids[row_ids < 0] = PADDING
        views["sample_ids"][group.slots] = sample_ids
        return lost, why

    def _flips(self, epoch: int, sample_ids: np.ndarray) -> np.ndarray:
        """Return which rows are shown as their reverse complement in an epoch, uint8[B]."""
        flips = np.zeros(sample_ids.size, np.uint8)
        probability = self.config.reverse_complement
        if probability > 0:
            keys = keys_of((key_of(self.config.seed, RandomStream.STRAND), epoch, 0), sample_ids[:, None])
            draw_below(keys, np.uint64(min(int(probability * 2.0**64), 2**64 - 1)), flips)
        return flips


def masked_layout(num_rows: int, row_tokens: int, masker: Masker) -> BatchLayout:
    """Return the layout of batches of ``num_rows`` rows of up to ``row_tokens`` tokens that ``masker`` masks."""
    empty = masker.empty_batch(0, row_tokens)
    return BatchLayout.masked_lm(
        num_rows=num_rows,
        width=row_tokens + 2,
        id_dtype=empty["input_ids"].dtype.name,
        label_dtype=empty["labels"].dtype.name,
    )
