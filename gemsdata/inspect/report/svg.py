"""Convert a matplotlib figure to inline SVG whose colours follow the light or dark theme of the page."""

from __future__ import annotations

import io
import re

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from gemsdata.inspect.plot.style import BLUE, FAINT, INK, figure_style

_DOTS_PER_INCH = 180
_COLOURS = {INK: "var(--ink)", FAINT: "var(--faint)", "#ffffff": "var(--page)", "#000000": "var(--ink)"}
_COLOURS[BLUE.lower()] = "var(--blue)"  # too dark on a dark page


def inline_svg(figure: Figure, name: str, label: str) -> Markup:
    """Return a figure as an SVG element; ``name`` is a prefix of its ids, ``label`` its aria-label."""
    stream = io.StringIO()
    with figure_style():
        figure.savefig(stream, format="svg", dpi=_DOTS_PER_INCH, transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    head = f'<svg role="img" aria-label="{escape(label)}" {box[0]} xmlns="http://www.w3.org/2000/svg" '
    head += 'xmlns:xlink="http://www.w3.org/1999/xlink">'
    return Markup(head + text[text.index(">") + 1 :])  # matplotlib escapes text in SVG
