"""Build the documentation site, without resources that a browser would load from other hosts; see `make docs`.

python -m tools.build_docs
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SITE = REPOSITORY / "site"
ASSETS = REPOSITORY / "docs" / "assets"
SCRIPTS = {
    "mermaid.min.js": ("mermaid@11.9.0", "dist/mermaid.min.js"),  # draws the diagrams in the browser
    "iframe-worker.js": ("iframe-worker@1.0.4", "shim/index.js"),  # lets search work in pages opened as files
}
"""{name in docs/assets: (npm package, file in it)}"""
_ENVIRONMENT = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
"""suppresses Material for MkDocs' advertisement of its successor"""
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b(?![^>]*rel=["']?(?:canonical|alternate|edit|next|prev))[^>]*\bhref=["']?(?:https?:)?//"""
    r"""|url\(["']?(?:https?:)?//|@import\s+["'](?:https?:)?//"""
)
"""resources that a browser loads from another host, in HTML and CSS; links are not resources"""


def npm_file(package: str, member: str, folder: Path) -> bytes:
    """Return a file of an npm package, such as "mermaid@11.9.0", which is downloaded into ``folder``."""
    pack = ["npm", "pack", "--silent", package]
    printed = subprocess.run(pack, cwd=folder, check=True, capture_output=True, text=True).stdout
    with tarfile.open(folder / printed.split()[-1]) as archive:
        content = archive.extractfile(f"package/{member}")
        assert content is not None
        return content.read()


def fetch_scripts() -> None:
    """Extract the scripts that are missing in docs/assets from their npm packages."""
    for name, (package, member) in SCRIPTS.items():
        if not (ASSETS / name).exists():
            with tempfile.TemporaryDirectory() as folder:
                script = npm_file(package, member, Path(folder))
            ASSETS.mkdir(exist_ok=True)
            (ASSETS / name).write_bytes(script)


def loaded_from_elsewhere(site: Path) -> list[str]:
    """Return the places in a site's pages and style sheets that load resources from another host."""
    return [
        f"{path.relative_to(site)}: {found[0]}"
        for path in sorted(site.rglob("*"))
        if path.suffix in (".html", ".css")
        for found in _LOADED.finditer(path.read_text())
    ]


def main() -> None:
    """Build the site; exit with status 1 on a warning of mkdocs, or if a page loads resources from another host."""
    fetch_scripts()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    status = subprocess.run(command, cwd=REPOSITORY, check=False, env=_ENVIRONMENT).returncode
    if status:
        sys.exit(status)
    found = loaded_from_elsewhere(SITE)
    if found:
        sys.exit("the site loads from other hosts:\n" + "\n".join(found))
    print(f"{SITE / 'index.html'}: {len(list(SITE.rglob('*.html')))} pages")


if __name__ == "__main__":
    main()
