"""What a section of the page is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as inline SVG with its caption; ``wide`` ones take the whole width of the page."""

    svg: Markup
    caption: str
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells as text; cells that read as numbers are set to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def numeric(self, index: int) -> bool:
        """Say whether every cell of a column that is not empty begins like a number."""
        cells = [row[index] for row in self.rows if row[index] not in ("", "–")]
        return bool(cells) and all(cell.lstrip("−-")[:1].isdigit() for cell in cells)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: facts (name, value), tables, pictures, ready-made HTML, notes."""

    anchor: str
    title: str
    text: str = ""
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    html: Sequence[Markup] = ()
    notes: Sequence[str] = field(default_factory=list)
