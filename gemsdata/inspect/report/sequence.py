"""Sections of the report about the sequences: contents of the set, contigs, NPMI."""

from __future__ import annotations

from pathlib import Path

from gemsdata.files.progress import Progress
from gemsdata.genome.vocab import BASES
from gemsdata.inspect.plot import make_figures, open_source
from gemsdata.inspect.report.section import Picture, Section, Table
from gemsdata.inspect.report.svg import inline_svg
from gemsdata.inspect.sql import catalog
from gemsdata.shards.manifest import NPMI_FILE, Manifest
from gemsdata.shards.shard_set import ShardSet

_MOST_CONTIGS = 50
_DEPLETED = 0.5
"""ratio of observed to expected CpG below which it is called depleted"""
_WIDE = {"rank_profile", "logos"}
_CAPTIONS = {
    "npmi_by_k": "Distribution of the NPMI of all k-mers with a score, by k, with quartiles and median.",
    "rank_against_frequency": "Number of occurrences and NPMI rank of every k-mer.",
    "rank_map": "The NPMI rank of every k-mer; bright is best, blank is without a score.",
    "two_genomes": "The NPMI rank of every k-mer in two genomes.",
    "rank_profile": "Running mean of the NPMI rank along a region; soft-masked (repeat) intervals are shaded.",
    "logos": "Sequence logos of the top k-mers with their flanking bases, in bits relative to the mean composition.",
}


def set_section(shards: ShardSet) -> Section:
    """Return the section about the contents of the set."""
    manifest = shards.manifest
    genome, npmi = manifest.genome, manifest.npmi
    regions = manifest.validation.regions
    facts = [
        ("bases", f"{genome.num_bases:,}"),
        ("contigs", f"{len(manifest.contigs):,}"),
        ("soft-masked", _percent(genome.num_soft_masked, genome.num_bases)),
        ("not ACGT", f"{genome.num_not_acgt:,}"),
        ("blocks", f"{manifest.row_tokens:,} bases") if manifest.packed else _token_fact(manifest),
        ("windows", str(manifest.windows.scheme)),
        ("validation", f"{sum(end - start for _, start, end in regions):,} bases"),
        ("NPMI estimator", f"{npmi.estimator}, at least {npmi.min_count:,} times"),
        (
            "formats",
            ", ".join(manifest.formats) + ("" if manifest.compression == "none" else f", {manifest.compression}"),
        ),
        ("seed", str(manifest.seed)),
    ]
    rows = [_split_row(manifest, split) for split in manifest.splits]
    units = ["blocks", "bases"] if manifest.packed else ["rows", "tokens"]
    table = Table(columns=["split", *units, "shards", "bytes"], rows=rows)
    return Section(anchor="set", title="Contents", facts=facts, tables=[table])


def _token_fact(manifest: Manifest) -> tuple[str, str]:
    kind = f"{manifest.k}-mers" if manifest.tokens is None else manifest.tokens.spec
    return "tokens", f"{kind}, {manifest.row_tokens} a row"


def contig_section(shards: ShardSet) -> Section:
    """Return the section with the longest contigs and their rows in each split."""
    with catalog(shards) as connection:
        contigs = connection.execute("FROM contigs ORDER BY num_bases DESC, contig_index").fetchall()
        counted = connection.execute("SELECT contig, split, count(*) FROM rows GROUP BY ALL").fetchall()
    num_rows = {(contig, split): count for contig, split, count in counted}
    splits = list(shards.manifest.splits)
    rows = [
        [name, f"{bases:,}", f"{gaps:,}", _percent(soft, bases), *(f"{num_rows.get((name, s), 0):,}" for s in splits)]
        for name, _, bases, gaps, soft in contigs[:_MOST_CONTIGS]
    ]
    notes = []
    if len(contigs) > _MOST_CONTIGS:
        rest = sum(contig[2] for contig in contigs[_MOST_CONTIGS:])
        notes.append(f"and {len(contigs) - _MOST_CONTIGS:,} shorter contigs with {rest:,} bases together")
    unit = "blocks" if shards.manifest.packed else "rows"
    columns = ["contig", "bases", "not ACGT", "soft-masked", *(f"{split} {unit}" for split in splits)]
    return Section(anchor="contigs", title="Contigs", tables=[Table(columns=columns, rows=rows)], notes=notes)


def npmi_section(shards: ShardSet, other: str | Path | None, region: str | None, progress: Progress) -> Section:
    """Return the section with the figures of NPMI and the top k-mers."""
    title = "NPMI"
    if not shards.has_npmi:
        return Section(anchor="npmi", title=title, notes=[f"This set has no NPMI table ({NPMI_FILE})."])
    source = open_source(shards)
    compared = open_source(other, source.k) if other else None
    pictures, notes = [], []
    for name, figure in make_figures(source, compared, region, progress=progress):
        if isinstance(figure, str):
            notes.append(f"{name.replace('_', ' ')}: not drawn: {figure}")
        else:
            caption = _CAPTIONS[name] + (f" {_cpg_text(shards)}" if name == "rank_map" else "")
            svg = inline_svg(figure, name.replace("_", "-"), caption)
            pictures.append(Picture(svg=svg, caption=caption, wide=name in _WIDE))
    top = _top_table(shards)
    text = (
        "Normalised pointwise mutual information (NPMI) is high for k-mers that occur more often than expected from "
        "their parts. In genomes with repeats, most top-ranked k-mers are from repeats or of low complexity."
    )
    return Section(anchor="npmi", title=title, text=text, tables=[top], pictures=pictures, notes=notes)


def _cpg_text(shards: ShardSet) -> str:
    """Say how often CpG occurs, relative to its bases, and what that does to the map of ranks."""
    single, pairs = shards.npmi.counts[1].astype(float), shards.npmi.counts[2].astype(float)
    c, g = BASES.index("C"), BASES.index("G")
    expected = single[c] * single[g] / single.sum() ** 2 * pairs.sum()
    if not expected:
        return ""
    ratio = pairs[4 * c + g] / expected
    text = f"CpG occurs {ratio:.2f} times as often as expected from its bases"
    if ratio < _DEPLETED:
        return text + ", so k-mers with CpG rank low: they form the dark lines."
    return text + "."


def _top_table(shards: ShardSet) -> Table:
    query = "SELECT rank, kmer, npmi, count FROM npmi WHERE k = ? AND npmi IS NOT NULL ORDER BY rank, kmer LIMIT 10"
    with catalog(shards) as connection:
        top = connection.execute(query, [shards.k]).fetchall()
    rows = [[f"{rank:,}", kmer, f"{npmi:.3f}", f"{count:,}"] for rank, kmer, npmi, count in top]
    return Table(columns=["rank", "k-mer", "NPMI", "occurrences"], rows=rows, caption=f"Top {shards.k}-mers")


def _split_row(manifest: Manifest, split: str) -> list[str]:
    shards = manifest.shards(split)
    counts = (manifest.num_rows(split), manifest.num_tokens(split), len(shards), manifest.num_bytes(split))
    return [split, *(f"{count:,}" for count in counts)]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
