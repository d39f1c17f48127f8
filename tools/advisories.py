"""Look up the pinned packages in a clone of the Python advisory database, without a network.

    git clone https://github.com/pypa/advisory-database
    python -m tools.advisories advisory-database

Prints the advisories that name a version of constraints.txt, and the date of the database; exit status 1 if there are
any. With a network, ``pip-audit -r constraints.txt --no-deps`` queries the current database.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def pinned(constraints: Path) -> dict[str, Version]:
    """Return {package: version} of a file of constraints."""
    found = {}
    for line in constraints.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            found[canonicalize_name(requirement.name)] = Version(specifier.version)
    return found


def affects(affected: dict[str, Any], version: Version) -> bool:
    """Return whether an ``affected`` entry of an advisory (OSV format) names a version."""
    if str(version) in affected.get("versions", ()):
        return True
    return any(_in_range(one["events"], version) for one in affected.get("ranges", ()) if one["type"] == "ECOSYSTEM")


def _in_range(events: list[dict[str, str]], version: Version) -> bool:
    inside = False
    for event in events:  # in the order of versions
        ((kind, text),) = event.items()
        bound = Version(text)
        if kind == "introduced":
            inside = inside or version >= bound
        elif kind in ("fixed", "limit"):
            inside = inside and version < bound
        elif kind == "last_affected":
            inside = inside and version <= bound
    return inside


def advisories(database: Path, versions: dict[str, Version]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield (package, advisory, whether it names the version) of every advisory that is not withdrawn."""
    for path in sorted((database / "vulns").rglob("*.yaml")):
        name = canonicalize_name(path.parent.name)
        if name not in versions:
            continue
        advisory = yaml.safe_load(path.read_text())
        if "withdrawn" not in advisory:
            yield name, advisory, any(affects(one, versions[name]) for one in advisory["affected"])


@click.command(help=__doc__.replace("\n    git", "\n\b\n    git"))
@click.argument("database", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--constraints", type=click.Path(path_type=Path, exists=True), default=CONSTRAINTS)
def main(database: Path, constraints: Path) -> None:
    """Look up every pinned package."""
    if not (database / "vulns").is_dir():
        raise click.UsageError(f"{database} has no folder vulns; give a clone of pypa/advisory-database")
    versions = pinned(constraints)
    found = list(advisories(database, versions))
    for name, advisory, named in found:
        if named:
            click.echo(f"{name} {versions[name]}: {advisory['id']} {advisory.get('summary') or advisory['details']}")
    command = ["git", "-C", str(database), "log", "-1", "--format=%cs"]
    date = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    num_named = sum(named for *_, named in found)
    click.echo(
        f"{len(versions)} packages, {len(found)} advisories on {len({name for name, *_ in found})} of them in the"
        f" database of {date}; {num_named} name a pinned version"
    )
    sys.exit(num_named > 0)


if __name__ == "__main__":
    main()
