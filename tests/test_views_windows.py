"""Windows of views: laws of cutting and shifting, and of intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemsdata.kernels.rows import count_rows, locate_rows
from gemsdata.views.regions import Contigs, check_each_leaves_a_row, read_bed
from gemsdata.views.windows import cut_stretches
from tests import naive_masking as naive

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=5)


def stretches_of(lengths: list[int]) -> np.ndarray:
    starts = np.cumsum([0, *(length + 3 for length in lengths[:-1])])
    return np.array([(m % 2, s, s + n) for m, (s, n) in enumerate(zip(starts, lengths, strict=True))], np.int64)


def tokens_of_rows(windows, epoch: int) -> list[tuple[int, int]]:
    """Return (contig, first base) of every token of every row, row by row."""
    located = windows.locate(epoch, np.arange(len(windows)))
    assert (located.num_bases >= windows.token_bases).all()
    tokens = []
    for contig, start, bases in zip(located.contig, located.start, located.num_bases, strict=True):
        row = list(range(start, start + bases - windows.token_bases + 1, windows.token_stride))
        assert 1 <= len(row) <= windows.row_tokens
        assert row[-1] + windows.token_bases == start + bases
        tokens += [(int(contig), base) for base in row]
    return tokens


@given(LENGTHS, st.integers(1, 12), st.integers(1, 6), st.booleans(), st.integers(0, 3), st.data())
def test_every_token_is_in_one_row_of_every_epoch(lengths, row_tokens, k, jitter, epoch, data):
    stride = data.draw(st.integers(1, k))
    stretches = stretches_of(lengths)
    windows = cut_stretches(stretches, row_tokens=row_tokens, token_bases=k, token_stride=stride, jitter=jitter, seed=1)
    wanted = [(contig, base) for contig, start, end in stretches.tolist() for base in range(start, end - k + 1, stride)]
    assert tokens_of_rows(windows, epoch) == wanted
    if not jitter:
        rows = sum(-(-((n - k) // stride + 1) // row_tokens) for n in lengths if n >= k)
        assert len(windows) == rows


@settings(max_examples=30)
@given(st.integers(1, 90), st.integers(2, 16), st.integers(0, 5))
def test_there_are_at_least_half_a_row_of_shifts(tokens, row_tokens, seed):
    """All shifts that the definition allows occur, and no other; only a stretch of half a row or less has just one."""
    windows = cut_stretches(
        np.array([[0, 0, tokens]]), row_tokens=row_tokens, token_bases=1, token_stride=1, jitter=True, seed=seed
    )
    rows = -(-tokens // row_tokens)
    last = tokens - (rows - 1) * row_tokens
    allowed = range(last, row_tokens + 1) if 2 * last <= row_tokens else range(1, last)
    if rows == 1 and 2 * last <= row_tokens:
        allowed = range(last, last + 1)
    else:
        assert len(allowed) >= row_tokens // 2
    assert len(windows) == rows + (2 * last > row_tokens)
    first = {int(windows.locate(epoch, np.array([0])).num_bases[0]) for epoch in range(40 * row_tokens)}
    assert first <= set(allowed)
    assert len(first) > 0.8 * len(allowed)


def test_rows_of_one_token_cannot_be_shifted():
    windows = cut_stretches(np.array([[0, 0, 5]]), row_tokens=1, token_bases=1, token_stride=1, jitter=True, seed=0)
    assert len(windows) == 5
    assert windows.locate(3, np.arange(5)).start.tolist() == [0, 1, 2, 3, 4]


def test_a_row_does_not_depend_on_the_others_asked_for():
    windows = cut_stretches(
        stretches_of([500, 41, 800]), row_tokens=20, token_bases=6, token_stride=1, jitter=True, seed=0
    )
    everything = windows.locate(7, np.arange(len(windows)))
    for row in (0, 5, len(windows) - 1):
        alone = windows.locate(7, np.array([row]))
        assert (alone.contig[0], alone.start[0], alone.num_bases[0]) == (
            everything.contig[row],
            everything.start[row],
            everything.num_bases[row],
        )
    assert not np.array_equal(everything.start, windows.locate(8, np.arange(len(windows))).start)


@pytest.mark.parametrize("jitter", [True, False])
def test_stretches_are_cut_into_rows_and_one_more_where_the_last_is_long(jitter):
    tokens = np.arange(12)
    out = np.full(12, -1)
    count_rows(tokens, 4, jitter, out)
    longer = [0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1]  # the last row has 3 or 4 tokens
    assert out.tolist() == [-(-n // 4) + (jitter and more) for n, more in enumerate(longer)]


@pytest.mark.parametrize("row_tokens", [1, 4, 5])
@pytest.mark.parametrize("key", range(4))
def test_the_first_row_of_a_stretch_is_drawn_by_the_key_and_its_number(key, row_tokens):
    tokens = np.array([9, 1, 20, 11, 5])
    counts = np.empty(5, np.int64)
    count_rows(tokens, row_tokens, True, counts)
    wanted = []
    for m, total in enumerate(tokens.tolist()):
        bits = naive.draw(naive.fold(key, m), 0)
        rest = total - (-(-total // row_tokens) - 1) * row_tokens
        if row_tokens > 1 and 2 * rest > row_tokens:
            first = 1 + naive.below(bits, rest - 1)
        else:
            first = rest if total <= row_tokens else rest + naive.below(bits, row_tokens - rest + 1)
        begins = [0, *range(first, total, row_tokens)]
        wanted += [[m, a, b - a] for a, b in zip(begins, [*begins[1:], total], strict=True)]
    out = np.full((int(counts.sum()), 3), -1)
    first_row = np.cumsum([0, *counts.tolist()])
    locate_rows(first_row, tokens, row_tokens, True, np.uint64(key), np.arange(len(out)), out)
    assert out.tolist() == wanted


CONTIGS = Contigs(names=["a", "b", "c"], num_bases=np.array([20, 0, 15]))
INTERVALS = st.lists(st.tuples(st.sampled_from([0, 2]), st.integers(0, 14), st.integers(1, 6)), max_size=6)


def flags_of(intervals) -> np.ndarray:
    flags = np.zeros((3, 20), bool)
    for contig, start, end in np.asarray(intervals).reshape(-1, 3).tolist():
        flags[contig, start:end] = True
    return flags


def intervals_of(drawn) -> np.ndarray:
    array = np.array([(c, s, min(s + n, int(CONTIGS.num_bases[c]))) for c, s, n in drawn], np.int64).reshape(-1, 3)
    return CONTIGS.merged(array) if len(array) else array


@given(INTERVALS, INTERVALS)
def test_intervals_are_sets_of_bases(first, second):
    a, b = intervals_of(first), intervals_of(second)
    assert np.array_equal(flags_of(CONTIGS.without(a, b)), flags_of(a) & ~flags_of(b))
    assert np.array_equal(flags_of(CONTIGS.within(a, b)), flags_of(a) & flags_of(b))
    for result in (CONTIGS.without(a, b), CONTIGS.within(a, b)):
        assert (result[:, 1] < result[:, 2]).all()
        assert np.array_equal(result, result[np.lexsort((result[:, 1], result[:, 0]))])
    assert CONTIGS.whole().tolist() == [[0, 0, 20], [2, 0, 15]]


@pytest.mark.once
def test_bed_files(tmp_path):
    import gzip

    text = "track name=x\nbrowser position a\n# comment\n\na\t0\t5\tname\t0\t+\nc 3 15\na\t4\t9\n"
    (tmp_path / "r.bed").write_text(text)
    with gzip.open(tmp_path / "r.bed.gz", "wt") as stream:
        stream.write(text)
    for name in ("r.bed", "r.bed.gz"):
        bed = read_bed(tmp_path / name, CONTIGS)
        assert bed.intervals.tolist() == [[0, 0, 5], [2, 3, 15], [0, 4, 9]]
        assert bed.flanked(3, CONTIGS).tolist() == [[0, 0, 8], [2, 0, 15], [0, 1, 12]]
        assert CONTIGS.merged(bed.intervals).tolist() == [[0, 0, 9], [2, 3, 15]]


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "chrA\t0\t5\n",
            r"r.bed:1: region chrA:0-5 is on a contig that the genome does not have; its contigs are a",
        ),
        ("a\t0\t5\na\t9\t3\n", r"r.bed:2: region a:9-3 is empty or inverted"),
        ("a\t5\t5\n", r"region a:5-5 is empty or inverted"),
        ("a\t-1\t5\n", r"region a:-1-5 is empty or inverted"),
        ("a\t5\t21\n", r"region a:5-21 ends beyond a, which has 20 bases; is it of another assembly\?"),
        ("# nothing\n", r"holds no interval; give a BED file"),
        ("a\tfive\t6\n", r"r.bed:1: 'a\\tfive\\t6' is not a BED line; contig, start and end are needed"),
    ],
)
def test_bed_files_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "r.bed").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_bed(tmp_path / "r.bed", CONTIGS)


@pytest.mark.once
def test_a_region_that_leaves_no_row_is_named(tmp_path):
    (tmp_path / "r.bed").write_text("a\t0\t6\nc\t0\t4\nc\t9\t15\n")
    bed = read_bed(tmp_path / "r.bed", CONTIGS)
    stretches = np.array([[0, 0, 20], [2, 0, 3], [2, 4, 15]])
    with pytest.raises(ValueError, match=r"r.bed:2: region c:0-4 leaves no row: it holds no run of 6 bases"):
        check_each_leaves_a_row(bed, 0, CONTIGS, stretches, 6)
    check_each_leaves_a_row(bed, 8, CONTIGS, stretches, 6)
    check_each_leaves_a_row(bed, 0, CONTIGS, stretches, 3)
    with pytest.raises(FileNotFoundError, match="no such file; a BED file"):
        read_bed(tmp_path / "none.bed", CONTIGS)
