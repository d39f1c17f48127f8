"""Where kernels have a short way for the usual case, it gives what the general way gives."""

from __future__ import annotations

import numpy as np
import pytest

from gemsdata.genome.vocab import NUM_SPECIAL
from gemsdata.kernels import best_of_row, layout, mask, spans
from gemsdata.kernels.bases import encode_kmers
from gemsdata.masking.masker import Masker
from gemsdata.masking.selection import bases_of_kmers
from gemsdata.masking.strategies import resolve

N = 3


def kmer_rows(num_rows, num_tokens, letters=4):
    """Rows of overlapping 3-mers, (bases, token ids)."""
    bases = np.random.default_rng(letters).integers(0, letters, (num_rows, num_tokens + N - 1)).astype(np.uint8)
    ids = np.empty((num_rows, num_tokens), np.uint16)
    encode_kmers(bases, np.full(num_rows, num_tokens), N, 1, ids)
    return bases, ids


@pytest.mark.parametrize("options", [{"rate": 0.1}, {"budget": 0.3}])
@pytest.mark.parametrize("name", ["genemask", "global", "global-nms"])
def test_ranks_by_token_id_and_by_bases_give_the_same_spans(name, options):
    """The n-grams of overlapping k-mers with k = n are the tokens, so their ids need not be computed from bases."""
    _, ids = kmer_rows(6, 40, letters=2)  # two letters: many equal ranks
    ranks = np.random.default_rng(0).integers(1, 9, 4**N + NUM_SPECIAL)
    masker = Masker(resolve(name, **options), ranks=ranks)
    counts = np.array([40, 39, 1, 0, 17, 40])
    how = masker._selection(masker._kmers(ids, counts, np.arange(6), 0, 0), 0)
    assert how.chooser.by_id
    by_bases = how.chooser._replace(by_id=False, source=bases_of_kmers(ids, counts, N))
    found, expected = mask.select(how), mask.select(how._replace(chooser=by_bases))
    assert found.ends[-1] > 6
    np.testing.assert_array_equal(found.ends, expected.ends)
    np.testing.assert_array_equal(found.spans[: found.ends[-1]], expected.spans[: found.ends[-1]])


@pytest.mark.parametrize("skip", [0, 1, 4])
@pytest.mark.parametrize("wanted", [1, 30, 60])
def test_few_and_many_ngrams_of_a_row_are_the_same_ones(wanted, skip):
    """The best n-grams are found one by one, or by sorting; both ways skip what lies near a chosen one."""
    grams = 150
    values = np.random.default_rng(skip).integers(0, 40, grams)
    values[[61, 62, 65]] = 0  # near one another
    values[::7] = spans.NEVER
    task = layout.row_task(layout.Layout(N, 1, False, False, np.empty((0, 0, 0), np.int32)), 0, grams, grams + N - 1)
    task = task._replace(key=np.uint64(5), num_grams=grams, n=N, first=skip, wanted=wanted)
    marks = np.empty((0, 0, 0), np.int32)
    found = []
    for many in (False, True):
        work = np.zeros((spans.NUM_WORK_ROWS, best_of_row.NUM_BINS + 1), np.int64)
        rank, out = work[spans.RANK, :grams], np.full((grams, 4), -1, np.int32)
        rank[:] = values
        if many:
            chosen, placed = best_of_row._place_many(task, marks, rank, work, out)
        else:
            chosen, placed = best_of_row._place_few(task, marks, rank, work[spans.BINS], out)
        assert chosen == placed
        found.append(out[:placed].tolist())
    assert found[0] == found[1]
    anchors = np.array([span[2] for span in found[0]])
    gaps = np.abs(anchors[:, None] - anchors)[~np.eye(len(anchors), dtype=bool)]
    assert (gaps > skip).all()
