"""Figures of shard sets and NPMI tables; needs the extra ``gemsdata[plot]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from gemsdata.inspect.plot import set_figures, table_figures
from gemsdata.inspect.plot.style import house_style, save
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import NPMI_FILE
from gemsdata.shards.shard_set import ShardSet

__all__ = ["Subject", "draw", "open_subject", "save"]

_USUAL_K = 6


@dataclass(frozen=True)
class Subject:
    """What the figures are of."""

    name: str
    table: NpmiTable
    k: int
    shards: ShardSet | None
    """None: an NPMI table alone"""


def open_subject(path: str | Path, k: int | None = None) -> Subject:
    """Open a shard set or an NPMI table; ``k`` chooses the k-mers of a table (by default 6, or the longest it has).

    Raises FileNotFoundError or ValueError for anything else, and for a set without an NPMI table.
    """
    path = Path(path)
    name = path.resolve().name.removesuffix(".parquet")
    if path.is_file():
        table = NpmiTable.from_parquet(path)
        return Subject(name, table, k or min(_USUAL_K, table.max_k), None)
    shards = ShardSet.open(path)
    if not (path / NPMI_FILE).exists():
        raise ValueError(f"{path} has no NPMI table ({NPMI_FILE}), and the figures are of NPMI; make the set again")
    return Subject(name, shards.npmi, k or shards.k, shards)


def draw(
    subject: Subject, other: Subject | None = None, region: str | None = None
) -> Iterator[tuple[str, Figure | str]]:
    """Yield (name, figure) of every figure, or (name, reason) of one that cannot be drawn.

    ``region`` (contig:start-end) is that of the rank profile; raises ValueError when it does not lie in the set.
    """
    table, k, shards = subject.table, subject.k, subject.shards
    figures: dict[str, Callable[[], Figure]] = {
        "npmi_by_k": lambda: table_figures.npmi_by_k(table),
        "rank_against_frequency": lambda: table_figures.rank_against_frequency(table, k),
        "rank_map": lambda: table_figures.rank_map(table, k),
    }
    if other is not None:
        figures["two_genomes"] = lambda: table_figures.two_genomes(table, other.table, k, subject.name, other.name)
    if shards is not None:
        place = set_figures.parse_region(shards, region)
        figures["rank_profile"] = lambda: set_figures.rank_profile(shards, place)
        figures["logos"] = lambda: set_figures.logos(shards)
    for name, figure in figures.items():
        with house_style():
            try:
                drawn: Figure | str = figure()
            except ValueError as reason:
                drawn = str(reason)
        yield name, drawn
