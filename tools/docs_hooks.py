"""Hooks of mkdocs: convert notebooks to pages and formulas to MathML, and point links to notebooks to their pages."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parents[1]
_SEARCH = 'data-md-component="search" role="dialog" aria-label="Search"'
"""the search dialog with a name, which Material leaves out"""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for each notebook."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(file)
        text = page_of_notebook(json.loads(Path(str(file.abs_src_path)).read_text()))
        files.append(File.generated(config, file.src_uri.replace(".ipynb", ".md"), content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links to notebooks to their pages."""
    return re.sub(r"\]\(([\w/.-]+)\.ipynb\)", r"](\1.md)", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Replace formulas by MathML, which browsers render without a script."""

    def mathml(found: re.Match[str]) -> str:
        return convert(html.unescape(found[2]), display="block" if found[1] == "[" else "inline")

    return re.sub(r"\\([(\[])(.*?)\\[)\]](?=</(?:span|div)>)", mathml, content, flags=re.DOTALL)


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Name the search dialog, and load its helper from docs/assets instead of another host."""
    return _with_own_search(output, "../" * page.url.count("/"))


def on_post_template(output_content: str, **_: Any) -> str:
    """Do the same in the page for missing pages, which a server shows."""
    return _with_own_search(output_content, "/")


def _with_own_search(page: str, root: str) -> str:
    page = page.replace('data-md-component="search" role="dialog"', _SEARCH)
    return page.replace("https://unpkg.com/iframe-worker/shim", f"{root}assets/iframe-worker.js")


def page_of_notebook(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown: code, printed output, and figures as data URLs."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                parts.append("```text\n" + "".join(output["text"]).rstrip() + "\n```")
            elif "image/png" in output.get("data", {}):
                data = "".join(output["data"]["image/png"]).replace("\n", "")
                parts.append(f"![Figure drawn by the code above](data:image/png;base64,{data})")
            elif "text/plain" in output.get("data", {}):
                parts.append("```text\n" + "".join(output["data"]["text/plain"]) + "\n```")
    return "\n\n".join(parts) + "\n"
