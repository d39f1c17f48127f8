"""Check HTML pages in Chromium with axe-core, on a narrow and a wide screen, in the light and the dark theme.

    python -m tools.check_pages demo/report.html site/index.html --screenshots shots

Needs Chromium (Debian: apt-get install chromium), ``pip install playwright`` and npm, from which axe-core comes. The
exit status is 1 if axe-core reports a serious or critical violation, or if a page is wider than its screen.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tools.build_docs import npm_file

AXE = ("axe-core@4.11.0", "axe.min.js")
WIDTHS = (400, 1400)
THEMES = ("light", "dark")
_HEIGHT = 900
_SERIOUS = ("serious", "critical")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Return the path of Chromium, or None."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def check(browser: Any, page: Path, axe: str, screenshots: Path | None) -> Iterator[str]:
    """Yield a line for each violation of a page, for each width and theme.

    ``browser`` is one of playwright, ``axe`` the source of axe-core, ``screenshots`` a folder for images of all views.
    """
    for width in WIDTHS:
        for theme in THEMES:
            with browser.new_context(viewport={"width": width, "height": _HEIGHT}, color_scheme=theme) as context:
                tab = context.new_page()
                tab.goto(page.resolve().as_uri())
                tab.wait_for_load_state()
                view = f"{page}, {width} px, {theme}"
                if screenshots is not None:
                    tab.screenshot(path=screenshots / f"{page.stem}-{width}-{theme}.png", full_page=True)
                if (wide := tab.evaluate("document.documentElement.scrollWidth")) > width:
                    yield f"{view}: serious: the page is {wide} px wide"
                tab.evaluate(axe)
                for found in tab.evaluate("axe.run()")["violations"]:
                    nodes = found["nodes"]
                    where = f"{len(nodes)} times, {nodes[0]['target']}"
                    yield f"{view}: {found['impact']}: {found['id']}: {found['help']} ({where})"


@click.command()
@click.argument("pages", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--screenshots", type=click.Path(path_type=Path), help="Folder for an image of each view.")
def main(pages: tuple[Path, ...], screenshots: Path | None) -> None:
    """Check PAGES and print what axe-core reports, page by page."""
    from playwright.sync_api import sync_playwright

    if screenshots is not None:
        screenshots.mkdir(parents=True, exist_ok=True)
    program = find_browser()
    if program is None:
        raise click.ClickException(f"none of {', '.join(_BROWSERS)} is installed; Debian: apt-get install chromium")
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        axe = npm_file(*AXE, Path(folder)).decode()
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for page in pages:
            for line in check(browser, page, axe, screenshots):
                click.echo(line)
                lines.append(line)
        browser.close()
    views = len(pages) * len(WIDTHS) * len(THEMES)
    serious = [line for line in lines if any(f": {impact}: " in line for impact in _SERIOUS)]
    click.echo(
        f"{views} views of {len(pages)} pages: {len(lines)} violations, {len(serious)} of them serious or critical"
    )
    sys.exit(bool(serious))


if __name__ == "__main__":
    main()
