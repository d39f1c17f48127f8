"""Test whether the top NPMI k-mers are motifs of transcription factors.

    python -m eval.motifs --npmi SET --motifs JASPAR.pfm --genome GENOME.fa --labelled prom=train.tsv --output-dir OUT

`evaluate` contains the whole program, in order; docs/motifs.md has the method and results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from eval.motifs.conclusion import conclude, correlations
from eval.motifs.enrichment import count_in_repeats, kmer_enrichment, motif_enrichment, read_set
from eval.motifs.figure import draw
from eval.motifs.files import read_motifs
from eval.motifs.matches import align, match
from eval.motifs.ranking import pairs_of, read_ranking, strata
from eval.motifs.report import report
from eval.motifs.results import MATCH, Results, as_json_of, enrichment_table, kmer_table
from eval.motifs.statistics import Comparison, compare_within_strata
from gemsdata.cli.output import is_quiet, print_json, say
from gemsdata.files.publish import publish, write_text
from gemsdata.inspect.plot.style import figure_style, save
from train.options import option, parsed
from train.program import exit_status

Value = TypeVar("Value")
_SETTINGS = ("top", "estimator", "draws", "match_q", "fimo_p", "seed")


@dataclass(frozen=True, kw_only=True)
class MotifConfig:
    """Options of python -m eval.motifs."""

    npmi: str = option("shard set, NPMI table (Parquet), or CSV file with columns kmer, count, npmi")
    motifs: str = option("motifs in JASPAR, PFM or MEME format")
    output_dir: str = option("folder of the results")
    genome: str | None = option("soft-masked FASTA or .2bit file, to count occurrences in repeats", None)
    labelled: tuple[str, ...] = option("labelled sequences, NAME=FILE or NAME=FILE:ROWS for the first ROWS rows", ())
    top: int = option("number of top k-mers, those with the best NPMI ranks", 100)
    k: int | None = option("bases of a k-mer; default: that of the set", None)
    estimator: str | None = option("estimator of NPMI; default: that of the table", None)
    draws: int = option("number of permutations of a test", 10_000)
    match_q: float = option("largest q-value of a match of a k-mer and a motif", 0.1)
    fimo_p: float = option("largest p-value of a motif's hit in a sequence", 1e-4)
    seed: int = option("random seed of the permutations", 1)

    def __post_init__(self) -> None:
        if self.top < 1 or self.draws < 1:
            raise ValueError(f"--top {self.top} and --draws {self.draws}; give 1 or more")
        for name, value in (("--match-q", self.match_q), ("--fimo-p", self.fimo_p)):
            if not 0 < value < 1:
                raise ValueError(f"{name} {value}; give a number between 0 and 1")


def evaluate(config: MotifConfig, *, silent: bool = False) -> Results:
    """Run all tests and write the results; raise ValueError or FileNotFoundError for unusable input."""
    rng = np.random.default_rng(config.seed)
    pairs = pairs_of(ranking := read_ranking(config.npmi, k=config.k, estimator=config.estimator))
    motifs = read_motifs(config.motifs)
    sets = [read_set(argument) for argument in config.labelled]
    if len({labelled.name for labelled in sets}) < len(sets):
        raise ValueError(f"--labelled {' '.join(config.labelled)}: two sets have the same name")
    top = pairs.rank <= config.top
    Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    num_steps = 4 + 2 * bool(config.genome) + 3 * len(sets)
    with tqdm(total=num_steps, disable=silent or None, unit="step", dynamic_ncols=True) as bar:

        def step(name: str, work: Callable[..., Value], *arguments: Any) -> Value:
            bar.set_description(name)
            result = work(*arguments)
            bar.update()
            return result

        matches = step("TOMTOM", match, pairs, motifs)
        repeats = step("repeats", count_in_repeats, config.genome, pairs) if config.genome else None
        kmer_sets = {entry.name: step(f"k-mers in {entry.name}", kmer_enrichment, entry, pairs) for entry in sets}
        motif_sets = {
            entry.name: step(f"FIMO in {entry.name}", motif_enrichment, entry, motifs, config.fimo_p) for entry in sets
        }
        quantities = {
            MATCH: matches.score,
            f"has a motif (q at most {config.match_q:g})": (matches.q_value <= config.match_q).astype(float),
            **({"share of occurrences in repeats": repeats.share} if repeats else {}),
            **{f"log2 odds ratio in {name}": found.log2_odds for name, found in kmer_sets.items()},
        }
        controls = strata(pairs)

        def compare(values: np.ndarray) -> dict[str, Comparison]:
            return {
                name: compare_within_strata(values, top, stratum, draws=config.draws, rng=rng)
                for name, stratum in controls.items()
            }

        comparisons = {
            quantity: step(f"permutations: {quantity}", compare, values) for quantity, values in quantities.items()
        }
        related = correlations(pairs, matches.score)
        subject = f"{ranking.name} (k = {ranking.k}, top {config.top:,} k-mers in {top.sum():,} pairs)"
        results = Results(
            ranking=ranking,
            pairs=pairs,
            top=top,
            motifs=motifs,
            matches=matches,
            matched_q=config.match_q,
            repeats=repeats,
            kmer_sets=kmer_sets,
            motif_sets=motif_sets,
            correlations=related,
            comparisons=comparisons,
            conclusion=conclude(subject, comparisons[MATCH], related),
        )
        step("writing", _write, results, config)
    return results


def _write(results: Results, config: MotifConfig) -> None:
    pairs, top, out = results.pairs, results.top, Path(config.output_dir)
    with figure_style():
        figure = draw(
            pairs,
            results.matches.score,
            top,
            align(pairs.digits[top], results.motifs),
            results.motifs,
            results.comparisons[MATCH],
            results.correlations["nothing"],
        )
    save(figure, out, "motifs")
    _write_parquet(kmer_table(results), out / "motifs.parquet")
    if results.kmer_sets:
        _write_parquet(enrichment_table(results), out / "enrichment.parquet")
    else:
        (out / "enrichment.parquet").unlink(missing_ok=True)  # of an earlier run
    write_text(out / "motifs.md", report(results))
    found = {**as_json_of(results), "settings": {name: getattr(config, name) for name in _SETTINGS}}
    write_text(out / "conclusion.json", json.dumps(found, indent=2) + "\n")


def _write_parquet(table: pa.Table, path: Path) -> None:
    with publish(path) as stream:
        pq.write_table(table, stream, compression="zstd")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""

    def run() -> int:
        description = __doc__.split("\n")[0]
        with parsed(MotifConfig, arguments, prog="python -m eval.motifs", description=description) as (config, as_json):
            found = evaluate(config, silent=is_quiet())
            print_json(as_json_of(found)) if as_json else print(found.conclusion.sentence)
            if not as_json:
                say(f"{config.output_dir}: complete")
        return 0

    return exit_status(run, interrupted="no results were written; run the same command again")


if __name__ == "__main__":
    sys.exit(main())
