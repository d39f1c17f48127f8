"""``gemsdata info``: summary of a shard set."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gemsdata.cli.options import shards_argument
from gemsdata.cli.output import printable
from gemsdata.shards.manifest import MANIFEST_FILE, Manifest
from gemsdata.shards.manifest_fields import NpmiInfo
from gemsdata.shards.storage import store_of


@click.command("info")
@shards_argument
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def command(shards: str | Path, as_json: bool) -> None:
    """Print a summary of the shard set SHARDS.

    \b
    Examples:
      gemsdata info human
      gemsdata info human --json
    """
    store = store_of(shards)
    manifest = store.manifest()
    if as_json:
        with store.file(MANIFEST_FILE) as path:
            click.echo(json.dumps(json.loads(path.read_bytes())))
        return
    genome, npmi = manifest.genome, manifest.npmi
    regions = manifest.validation.regions
    how = f"{len(manifest.validation.contigs)} contigs" if manifest.validation.contigs else f"{len(regions)} regions"
    rows = [
        ("genome", f"{genome.name}: {genome.num_bases:,} bases, {len(manifest.contigs):,} contigs"),
        ("not ACGT", f"{genome.num_not_acgt:,}"),
        ("soft-masked", f"{genome.num_soft_masked:,}"),
        _tokens(manifest),
        ("windows", manifest.windows.scheme),
        ("validation", f"{sum(end - start for _, start, end in regions):,} bases in {how}"),
        ("NPMI", f"{npmi.estimator}, at least {npmi.min_count} occurrences" + _flags(npmi)),
        ("formats", f"{', '.join(manifest.formats)} (compression: {manifest.compression})"),
        ("seed", str(manifest.seed)),
        ("fingerprint", manifest.fingerprint),
    ]
    unit = ("blocks", "bases") if manifest.packed else ("rows", "tokens")
    for split, entries in manifest.splits.items():
        rows.append(
            (
                split,
                f"{manifest.num_rows(split):,} {unit[0]}, {manifest.num_tokens(split):,} {unit[1]},"
                f" {len(entries):,} shards, {manifest.num_bytes(split):,} bytes",
            )
        )
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        click.echo(f"{name:<{width}}  {printable(text)}")


def _tokens(manifest: Manifest) -> tuple[str, str]:
    """Return the line about the tokens of a set, or about the blocks of a packed one."""
    if manifest.packed:
        return "blocks", f"{manifest.row_tokens:,} bases, 2 bits a base; tokens are chosen by gemsdata.view"
    stored = manifest.tokens
    kind = f"{manifest.k}-mers"
    if stored is not None:
        kind = f"{stored.spec}, {stored.num_ids:,} ids, up to {manifest.windows.full_bases:,} bases"
    return "tokens", f"{kind}, {manifest.row_tokens} a row, {manifest.token_dtype}"


def _flags(npmi: NpmiInfo) -> str:
    texts = [
        ", both strands" if npmi.canonical else "",
        ", without soft-masked bases" if npmi.exclude_soft_masked else "",
        "" if npmi.from_this_genome else ", from another table",
    ]
    return "".join(texts)
