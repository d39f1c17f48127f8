"""Parts of a section of the report: pictures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as inline SVG with its caption; ``wide`` figures take the whole width of the page."""

    svg: Markup
    caption: str
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text; columns of numbers are right-aligned."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def numeric(self, index: int) -> bool:
        """Return whether all cells of a column are empty, a dash, or begin like a number."""
        cells = [row[index] for row in self.rows if row[index] not in ("", "–")]
        return all(cell.lstrip("−-")[:1].isdigit() for cell in cells)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page: facts (name, value), tables, pictures, HTML and notes."""

    anchor: str
    title: str
    text: str = ""
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    html: Sequence[Markup] = ()
    notes: Sequence[str] = field(default_factory=list)
