"""Figures of shard sets and NPMI tables; requires the extra ``gemsdata[plot]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.remote_folder import is_url
from gemsdata.inspect.plot import set_figures, table_figures
from gemsdata.inspect.plot.style import figure_style, save, set_title
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.manifest import NPMI_FILE
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.storage import place_name

__all__ = ["PlotSource", "make_figures", "open_source", "save"]

_USUAL_K = 6


@dataclass(frozen=True)
class PlotSource:
    """The shard set or NPMI table that figures are made of."""

    name: str
    table: NpmiTable
    k: int
    shards: ShardSet | None
    """None for an NPMI table without a shard set"""


def open_source(place: ShardSet | str | Path, k: int | None = None) -> PlotSource:
    """Open a shard set, in a folder or at a URL, or an NPMI table in a file.

    ``k`` is by default that of the set; for a table it is 6, or the longest if that is shorter.

    Raises FileNotFoundError or ValueError for any other path, and for a set without an NPMI table.
    """
    if not isinstance(place, ShardSet) and not is_url(place) and Path(place).is_file():
        table = NpmiTable.from_parquet(place)
        name = place_name(place).removesuffix(".parquet")
        return PlotSource(name, table, k or min(_USUAL_K, table.max_k), None)
    shards = place if isinstance(place, ShardSet) else ShardSet.open(place)
    if not shards.has_npmi:
        raise ValueError(
            f"{shards.store} has no NPMI table ({NPMI_FILE}), which the figures need; run `gemsdata shard` again"
        )
    return PlotSource(shards.name, shards.npmi, k or shards.k, shards)


def make_figures(
    source: PlotSource,
    other: PlotSource | None = None,
    region: str | None = None,
    *,
    progress: Progress = no_progress,
) -> Iterator[tuple[str, Figure | str]]:
    """Yield (name, figure) for each figure, or (name, reason) for one that cannot be drawn.

    ``region`` (contig:start-end) is the region of the rank profile; raises ValueError if it is not in the set.
    """
    table, k, shards = source.table, source.k, source.shards
    figures: dict[str, Callable[[], Figure]] = {
        "npmi_by_k": lambda: table_figures.npmi_by_k(table),
        "rank_against_frequency": lambda: table_figures.rank_against_frequency(table, k),
        "rank_map": lambda: table_figures.rank_map(table, k),
    }
    if other is not None:
        figures["two_genomes"] = lambda: table_figures.two_genomes(table, other.table, k, source.name, other.name)
    if shards is not None:
        place = set_figures.parse_region(shards, region)
        figures["rank_profile"] = lambda: set_figures.rank_profile(shards, place)
        figures["logos"] = lambda: set_figures.logos(shards)
    for name, figure in figures.items():
        with figure_style():
            drawn: Figure | str
            try:
                drawn = made = figure()
                set_title(made, made.get_suptitle(), _subject(name, source, region))
            except ValueError as reason:
                drawn = str(reason)
        progress("plotting", 1, len(figures))
        yield name, drawn


def _subject(name: str, source: PlotSource, region: str | None) -> str:
    """Return the line below the title of a figure, which names its source."""
    if name == "two_genomes":
        return ""
    return source.name + (f", {region}" if name == "rank_profile" and region else "")
