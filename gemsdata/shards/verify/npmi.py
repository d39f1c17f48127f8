"""Verification of an NPMI table: counts by ``bincount``, PMI by listing segmentations, ranks by sorting."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gemsdata.genome.vocab import kmer_of_value, num_kmers
from gemsdata.npmi.estimators import DISCOUNT_COUNT
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.verify.error import Difference
from gemsdata.shards.verify.reference import OTHER, SOFT_BIT, PlainBases

_CHUNK_BASES = 1 << 22
_MOST_K_FOR_SEGMENTATIONS = 10


def check_counts(manifest: Manifest, table: NpmiTable, bases: PlainBases, path: Path) -> str:
    """Recount every order with bincount and compare with the table; return what was checked."""
    if not manifest.npmi["from_this_genome"]:
        return "the NPMI table is another genome's: its counts were not checked"
    for k, stored in table.counts.items():
        counts = np.zeros(num_kmers(k), np.int64)
        for contig in range(len(bases.names)):
            codes = bases.contig(contig)
            for first in range(0, max(len(codes) - k + 1, 0), _CHUNK_BASES):
                chunk = np.asarray(codes[first : first + _CHUNK_BASES + k - 1])
                if not table.exclude_soft_masked:
                    chunk = chunk & ~np.uint8(SOFT_BIT)
                _add_counts(chunk, k, counts)
                if table.canonical:  # the other strand: complement flips the lowest bit of a digit
                    _add_counts(np.where(chunk < OTHER, chunk ^ 1, chunk)[::-1], k, counts)
        if not np.array_equal(counts, stored):
            value = int(np.flatnonzero(counts != stored)[0])
            raise Difference(
                f"{path.name}: {kmer_of_value(value, k)} has count {stored[value]}, but occurs "
                f"{counts[value]} times in the FASTA"
            )
    return f"the counts of all n-grams of 1 to {table.max_k} bases are the FASTA's"


def _add_counts(codes: np.ndarray, k: int, counts: np.ndarray) -> None:
    num_windows = len(codes) - k + 1
    values = np.zeros(num_windows, np.int64)
    whole = np.ones(num_windows, bool)
    for j in range(k):
        digit = codes[j : j + num_windows]
        values = 4 * values + digit
        whole &= digit < OTHER
    counts += np.bincount(values[whole], minlength=counts.size)


def check_scores(manifest: Manifest, table: NpmiTable, path: Path) -> str:
    """Score the set's k-mers by listing segmentations, rank them by sorting, and compare with the table at ``path``."""
    k, estimator = manifest.k, table.estimator
    if k == 1:
        return "single bases have no PMI: no scores to check"
    if k > _MOST_K_FOR_SEGMENTATIONS:
        return f"the scores of {k}-mers were not checked (too many segmentations to list)"
    longest = {"published": 2, "levine": k - 1, "naive": 1}[estimator]
    frequency = table.counts
    shared = frequency[1].sum() + frequency[2].sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = {
            n: np.log(frequency[n] / (frequency[n].sum() if estimator == "levine" else shared)) for n in range(1, k + 1)
        }
        pmi = np.full(num_kmers(k), np.inf)
        for pieces in _compositions(k, longest):
            total = np.zeros(1)
            for piece in pieces:
                total = (total[:, None] + log_p[piece][None, :]).ravel()
            pmi = np.fmin(pmi, log_p[k] - total)
        npmi = pmi * np.log(frequency[k]) / (np.log(frequency[k]) + np.log(DISCOUNT_COUNT))
    scored = frequency[k] >= table.min_count
    columns = {"npmi": f"npmi_{estimator}", "rank": f"rank_{estimator}"}
    stored = pq.read_table(path, columns=list(columns.values()), filters=[("k", "=", k)])
    stored_npmi = stored[columns["npmi"]].to_numpy()
    stored_rank = stored[columns["rank"]].fill_null(num_kmers(k)).to_numpy()
    if not np.array_equal(np.isnan(stored_npmi), ~scored):
        value = int(np.flatnonzero(np.isnan(stored_npmi) != ~scored)[0])
        raise Difference(
            f"{path.name}: {kmer_of_value(value, k)} should have a score exactly if it occurs often enough"
        )
    if not np.allclose(stored_npmi[scored], npmi[scored], rtol=0, atol=1e-9):
        value = int(np.flatnonzero(scored)[np.argmax(np.abs(stored_npmi[scored] - npmi[scored]))])
        raise Difference(f"{path.name}: NPMI of {kmer_of_value(value, k)} is {stored_npmi[value]}, not {npmi[value]}")
    order = np.sort(-stored_npmi[scored])
    expected = np.full(num_kmers(k), num_kmers(k))
    expected[scored] = 1 + np.searchsorted(order, -stored_npmi[scored], side="left")
    if not np.array_equal(expected, stored_rank):
        value = int(np.flatnonzero(expected != stored_rank)[0])
        raise Difference(
            f"{path.name}: rank of {kmer_of_value(value, k)} is {stored_rank[value]}, not {expected[value]}"
        )
    return f"the {estimator} scores and ranks of the {k}-mers follow from the counts"


def _compositions(k: int, longest: int) -> Iterator[tuple[int, ...]]:
    """Yield the ways to write k as an ordered sum of two or more pieces of 1 .. longest."""
    for cuts in itertools.product((False, True), repeat=k - 1):
        pieces = [1]
        for cut in cuts:
            if cut:
                pieces.append(1)
            else:
                pieces[-1] += 1
        if len(pieces) > 1 and max(pieces) <= longest:
            yield tuple(pieces)
