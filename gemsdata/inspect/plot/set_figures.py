"""Figures of the sequences in a shard set: rank profile of a region, sequence logos around the top k-mers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import logomaker
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gemsdata.genome.vocab import BASES, NUM_SPECIAL, all_kmers
from gemsdata.inspect.plot.style import BASE_COLOURS, BLUE, FAINT, INK, THOUSANDS, set_title
from gemsdata.inspect.plot.table_figures import scored
from gemsdata.shards.schema import Rows
from gemsdata.shards.shard_set import ShardSet
from gemsdata.views.options import ViewOptions
from gemsdata.views.view import open_view

DEFAULT_REGION_BASES = 20_000
_SMOOTHED_SHARE = 100
_FLANK_BASES = 9
_OCCURRENCES = 3000
_FEWEST_OCCURRENCES = 20
_VIEWED_ROWS = 1024


@dataclass(frozen=True)
class Region:
    """Bases [start, end) of a contig, 0-based."""

    contig: int
    start: int
    end: int


def parse_region(shards: ShardSet, text: str | None) -> Region:
    """Parse ``contig:start-end`` (0-based, half-open; commas allowed); None is 20 kb in the longest contig."""
    contigs = shards.manifest.contigs
    if text is None:
        contig = max(range(len(contigs)), key=lambda i: contigs[i].num_bases)
        num_bases = contigs[contig].num_bases
        start = max(0, (num_bases - DEFAULT_REGION_BASES) // 2)
        return Region(contig, start, min(start + DEFAULT_REGION_BASES, num_bases))
    name, _, span = text.rpartition(":")
    first, _, last = span.replace(",", "").partition("-")
    if not name or not first.isdigit() or not last.isdigit():
        raise ValueError(f"region {text!r} is not of the form contig:start-end, such as chr1:1000000-1020000")
    if name not in shards.contig_names:
        known = ", ".join(shards.contig_names[:4]) + (", ..." if len(contigs) > 4 else "")
        raise ValueError(f"region {text!r} names the contig {name!r}, which is not in the set; its contigs are {known}")
    contig = shards.contig_names.index(name)
    start, end = int(first), int(last)
    if not start < end <= contigs[contig].num_bases:
        raise ValueError(f"region {text!r} is not within the contig, which has {contigs[contig].num_bases:,} bases")
    return Region(contig, start, end)


def rank_profile(shards: ShardSet, region: Region) -> Figure:
    """Return the figure of the running mean of the NPMI rank along a region; soft-masked intervals are shaded."""
    scored(shards.npmi, shards.k)
    ranks = ranks_along(shards, region)
    if not np.isfinite(ranks).any():
        raise ValueError("the region contains no token")
    width = max(1, (region.end - region.start) // _SMOOTHED_SHARE)
    smooth = _running_mean(ranks, width)
    base_pos = np.arange(region.start, region.end)
    soft = shards.soft_masked(region.contig, region.start, region.end)
    figure = Figure(figsize=(7.0, 2.5))
    axes = figure.subplots()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], soft, [False]]).astype(np.int8)))
    for i, (first, last) in enumerate(edges.reshape(-1, 2).tolist()):
        label = "soft-masked (repeats)" if i == 0 else None
        axes.axvspan(region.start + first, region.start + last, color=FAINT, alpha=0.45, linewidth=0, label=label)
    step = max(1, base_pos.size // 4000)
    axes.plot(base_pos[::step], smooth[::step], color=BLUE, linewidth=1, label=f"mean over {width:,} bases")
    axes.axhline(np.nanmean(ranks), color=INK, linewidth=0.7, linestyle=(0, (4, 3)), label="mean of the region")
    axes.set_xlim(region.start, region.end)
    axes.invert_yaxis()
    axes.set_xlabel(f"position in {shards.contig_names[region.contig]}")
    axes.set_ylabel("NPMI rank (best at the top)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(THOUSANDS)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3)
    set_title(figure, _profile_title(ranks, soft))
    return figure


def _profile_title(ranks: np.ndarray, soft: np.ndarray) -> str:
    """Return the mean ranks of a region, inside and outside of soft-masked intervals where it has both."""
    inside, outside = ranks[soft], ranks[~soft]
    if np.isfinite(inside).any() and np.isfinite(outside).any():
        return f"Mean rank in repeats {np.nanmean(inside):,.0f}, elsewhere {np.nanmean(outside):,.0f}"
    return f"Mean rank {np.nanmean(ranks):,.0f}"


def ranks_along(shards: ShardSet, region: Region) -> np.ndarray:
    """Return the rank of the token that starts at each base of a region, float64[end - start], NaN if there is none."""
    out = np.full(region.end - region.start, np.nan)
    for rows in _blocks(shards):
        near = (rows.contig == region.contig) & (rows.start < region.end)
        near &= rows.start + rows.num_tokens.astype(np.int64) > region.start
        for i in np.flatnonzero(near):
            first = int(rows.start[i]) - region.start
            skipped, count = max(0, -first), min(int(rows.num_tokens[i]), out.size - first)
            out[first + skipped : first + count] = shards.ranks[rows.input_ids[i, skipped:count]]
    return out


def logos(shards: ShardSet, num_kmers: int = 6) -> Figure:
    """Return the figure of sequence logos around the top k-mers, in bits relative to the mean composition."""
    scores = scored(shards.npmi, shards.k)
    order = np.argsort(scores.rank, kind="stable")
    top = order[np.isfinite(scores.npmi[order])][:num_kmers]
    counts, background = flanking_bases(shards, top + NUM_SPECIAL)
    seen = [i for i in range(top.size) if counts[i, 0].sum() >= _FEWEST_OCCURRENCES]
    if not seen:
        raise ValueError(f"no top {shards.k}-mer occurs {_FEWEST_OCCURRENCES} times with flanking bases in the rows")
    kmers = all_kmers(shards.k)
    figure = Figure(figsize=(7.0, 1.35 * -(-len(seen) // 2) + 0.3))
    grid = figure.subplots(-(-len(seen) // 2), 2, sharex=True, sharey=True, squeeze=False)
    most = 0.0
    offsets = np.arange(-_FLANK_BASES, shards.k + _FLANK_BASES)
    for axes, i in zip(grid.flat, seen, strict=False):
        bits = logomaker.transform_matrix(
            pd.DataFrame(counts[i], index=offsets, columns=list(BASES)),
            from_type="counts",
            to_type="information",
            background=background,
        )
        most = max(most, float(bits[(offsets < 0) | (offsets >= shards.k)].sum(axis=1).max()))
        axes.axvspan(-0.5, shards.k - 0.5, color=FAINT, alpha=0.3, linewidth=0, zorder=-1)
        logomaker.Logo(bits, ax=axes, color_scheme=BASE_COLOURS, show_spines=False)
        axes.spines[["left", "bottom"]].set_visible(True)
        rank = int(scores.rank[top[i]])
        axes.set_title(f"{rank}. {kmers[top[i]].decode()}", fontsize=8.5, loc="left", family="monospace", pad=3)
        axes.set_ylim(0, 1.15 * float(bits.to_numpy().sum(1).max()))
    for axes in list(grid.flat)[len(seen) :]:
        axes.set_visible(False)
    figure.supylabel("bits", fontsize=9)
    figure.supxlabel(f"bases from the start of the {shards.k}-mer", fontsize=9)
    set_title(figure, f"Bases beside the top {shards.k}-mers carry at most {most:.2f} bits")
    return figure


def flanking_bases(shards: ShardSet, token_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the bases around tokens in the rows, which are in random order, until each token has 3,000 occurrences.

    Returns counts int64[len(token_ids), flank + k + flank, 4] in the order A, T, C, G, and the base
    composition of the rows that were read, float64[4].
    """
    k, flank = shards.k, _FLANK_BASES
    counts = np.zeros((len(token_ids), k + 2 * flank, 4), np.int64)
    composition = np.zeros(4, np.int64)
    for rows in _blocks(shards):
        bases = ((rows.input_ids - NUM_SPECIAL) >> (2 * (k - 1))).astype(np.uint8)
        real = np.arange(bases.shape[1]) < rows.num_tokens[:, None]
        composition += np.bincount(bases[real], minlength=4)
        for i, token_id in enumerate(token_ids):
            missing = _OCCURRENCES - counts[i, 0].sum()
            row, place = np.nonzero((rows.input_ids == token_id) & real)
            inside = (place >= flank) & (place + k + flank <= rows.num_tokens[row])
            row, place = row[inside][:missing], place[inside][:missing]
            around = bases[row[:, None], place[:, None] + np.arange(-flank, k + flank)]
            for j in range(around.shape[1]):
                counts[i, j] += np.bincount(around[:, j], minlength=4)
        if (counts[:, 0].sum(1) >= _OCCURRENCES).all():
            break
    return counts, composition / composition.sum()


def _blocks(shards: ShardSet) -> Iterator[Rows]:
    """Yield blocks of rows of k-mers in random order; a packed set is read through a view."""
    manifest = shards.manifest
    if manifest.tokens is not None:
        raise ValueError(f"{shards.store} holds rows of tokens {manifest.tokens.spec}; overlapping k-mers are needed")
    if manifest.packed:
        yield from _viewed_blocks(shards)
        return
    for split, entries in manifest.splits.items():
        for index, entry in enumerate(entries):
            for block in range(-(-entry.num_rows // manifest.block_rows)):
                yield shards.block(split, index, block)


def _viewed_blocks(shards: ShardSet) -> Iterator[Rows]:
    view = open_view(shards, ViewOptions(tokens=f"kmer:{shards.k}", jitter=False))
    for split in shards.manifest.splits:
        order = np.random.default_rng(0).permutation(view.num_rows(split))
        for first in range(0, len(order), _VIEWED_ROWS):
            rows = view.rows(order[first : first + _VIEWED_ROWS], split=split)
            yield Rows(
                input_ids=rows.tokens.input_ids, num_tokens=rows.tokens.num_tokens, contig=rows.contig, start=rows.start
            )


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean of the finite values in a window of ``width`` around each value; NaN if there is none."""
    window = np.ones(width)
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0), window, mode="same")[: values.size]
    number = np.convolve(finite.astype(float), window, mode="same")[: values.size]
    return np.divide(total, number, out=np.full(values.size, np.nan), where=number > 0.5)
