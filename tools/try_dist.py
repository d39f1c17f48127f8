"""Install the wheel and the sdist of a folder in fresh environments, without torch and with all extras, and use them.

    python -m build && python -m tools.try_dist dist

Each command must print the expected text, and the installed files must be one package, gemsdata. Installing torch takes
a minute or more. ``make dist`` does both steps. With ``--lowest`` the wheel alone is used, with the extra train and the
oldest versions that pyproject.toml allows; ``--torch`` replaces that of torch, for machines which cannot install it.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import click

REPOSITORY = Path(__file__).parents[1]
CONSTRAINTS = REPOSITORY / "constraints.txt"
OFFLINE = [
    ("gemsdata --version", "gemsdata, version"),
    ("gemsdata", "pretrain"),
    ("gemsdata shard g.fa -o SHARDS --row-tokens 64 --valid-fraction 0.1 --overwrite", "complete, fingerprint"),
    ("gemsdata verify SHARDS --fasta g.fa", "every token and its position match the FASTA"),
    ("gemsdata npmi g.fa -o table.parquet --max-k 4 --min-count 2", "table.parquet"),
    ("gemsdata query SHARDS 'SELECT count(*) AS rows FROM npmi WHERE k = 6' --json", "4096"),
    ("python -m gemsdata info SHARDS", "row"),
    ("python -c 'import gemsdata as gd; print(gd.NpmiTable.from_fasta(\"g.fa\", max_k=3).ranks(3).shape)'", "(69,)"),
    ('python -c \'import importlib.util as i; print(i.find_spec("train"), i.find_spec("eval"))\'', "None None"),
]
"""(command, text in its output); these need no extra"""
WITHOUT_TORCH = [
    *OFFLINE,
    ("! gemsdata pretrain --help", "pip install 'gemsdata[train]'"),
    ("! gemsdata eval fewshot --help", "pip install 'gemsdata[eval]'"),
]
LOOP = """
import gemsdata as gd
batch = next(iter(gd.build_loader("SHARDS", masking="genemask", batch_size=8, num_workers=2)))
print(tuple(batch["input_ids"].shape))
"""
PRETRAIN = "gemsdata pretrain --shards SHARDS --output-dir RUN --model smoke --eval-rows 16"
WITH_ALL_EXTRAS = [
    *OFFLINE,
    ("python loop.py", "(8, 66)"),
    ("gemsdata audit SHARDS --masking genemask --rows 50 --plot audit.png", "masked tokens"),
    (f"{PRETRAIN} --max-steps 2 --eval-every 2", "RUN: complete"),
    (f"ACCELERATE_USE_CPU=1 accelerate launch -m {PRETRAIN} --max-steps 4 --eval-every 2 --resume", "RUN: complete"),
    ("gemsdata report SHARDS RUN -o report.html", "report.html"),
    ("gemsdata finetune --model RUN/final --train t.tsv --test t.tsv --output-dir FT --max-steps 2", "FT: complete"),
    ("gemsdata eval gue --help", "Usage: gemsdata eval gue"),
    ("gemsdata eval motifs --help", "Usage: gemsdata eval motifs"),
    ("gemsdata eval compare --help", "Usage: gemsdata eval compare"),
    ("gemsdata eval fewshot --data few --models m=RUN/final --shots 4 --output-dir FS --workers 1", "3 runs"),
]


WITH_LOWEST_VERSIONS = [
    *OFFLINE,
    ("python loop.py", "(8, 66)"),
    (f"{PRETRAIN} --max-steps 2 --eval-every 2", "RUN: complete"),
    ("gemsdata finetune --model RUN/final --train t.tsv --test t.tsv --output-dir FT --max-steps 2", "FT: complete"),
]


@click.command()
@click.argument("dist", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--lowest", is_flag=True, help="Use the oldest versions that pyproject.toml allows.")
@click.option("--torch", metavar="VERSION", help="With --lowest: this version of torch instead of the oldest.")
def main(dist: Path, lowest: bool, torch: str | None) -> None:
    """Install and use the wheel and the sdist in the folder DIST."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    if lowest:
        return try_lowest(wheel, torch)
    for archive in (wheel, sdist):
        click.echo(f"{archive.name}: {archive.stat().st_size:,} bytes")
    for extra, commands in (("", WITHOUT_TORCH), ("[all]", WITH_ALL_EXTRAS)):
        with tempfile.TemporaryDirectory() as folder:
            environment = Path(folder) / "venv"
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
            for archive, options in ((wheel, ()), (sdist, ("--force-reinstall", "--no-deps"))):
                began = time.monotonic()
                install(environment, f"{archive.resolve()}{extra}", CONSTRAINTS, *options, torch=bool(extra))
                use(environment, commands)
                click.echo(f"{archive.name}{extra}: {len(commands)} commands, {time.monotonic() - began:.0f} s")


def try_lowest(wheel: Path, torch: str | None) -> None:
    """Install the wheel with the lowest versions, and use it; ``torch`` is another version of torch."""
    with tempfile.TemporaryDirectory() as folder:
        environment, constraints = Path(folder) / "venv", Path(folder) / "lowest.txt"
        versions = lowest_versions("train")
        if torch is not None:
            versions = [f"torch=={torch}" if version.startswith("torch==") else version for version in versions]
        constraints.write_text("\n".join(versions) + "\n")
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        for extra, commands in (("", OFFLINE), ("[train]", WITH_LOWEST_VERSIONS)):
            install(environment, f"{wheel.resolve()}{extra}", constraints, torch=bool(extra))
            use(environment, commands)
            click.echo(
                f"{wheel.name}{extra}: {len(commands)} commands with {' '.join(constraints.read_text().split())}"
            )


def lowest_versions(extra: str) -> list[str]:
    """Return ``name==version`` of the lower bound of each requirement of the package and of an extra."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"][extra]]
    return [re.sub(r"^([\w.-]+)(?:\[\w+\])?>=([\w.]+).*$", r"\1==\2", requirement) for requirement in requirements]


def install(environment: Path, requirement: str, constraints: Path, *options: str, torch: bool) -> None:
    """Install a file of dist, and torch before it, by pip with the versions of a file of constraints."""
    for wanted in (["torch"] if torch else []) + [requirement]:
        chosen = options if wanted == requirement else ()
        call = [environment / "bin" / "python", "-m", "pip", "install", "-q", "-c", constraints, *chosen, wanted]
        subprocess.run(call, check=True)


def use(environment: Path, commands: list[tuple[str, str]]) -> None:
    """Run commands in a new folder with some input; exit with the output of the first that fails."""
    with tempfile.TemporaryDirectory() as folder:
        write_input(Path(folder))
        path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        for command, wanted in commands:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=folder,
                env={**os.environ, "PATH": path, "PYTHONPATH": ""},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode or wanted not in done.stdout:
                sys.exit(f"$ {command}\n{done.stdout}\nexit status {done.returncode}; expected: {wanted}")


def write_input(folder: Path) -> None:
    """Write a genome, labelled rows, a few-shot set and a training loop."""
    rng = random.Random(0)
    genome = "".join(rng.choices("ACGT", k=60_000))
    (folder / "g.fa").write_text(f">one\n{genome}\n")
    rows = [f"{genome[at : at + 60]}\t{at // 60 % 2}" for at in range(0, 1200, 60)]
    (folder / "few" / "set" / "4").mkdir(parents=True)
    for name, chosen in (("t.tsv", rows), ("few/set/4/train.tsv", rows[:8]), ("few/set/test.tsv", rows[8:])):
        (folder / name).write_text("sequence\tlabel\n" + "\n".join(chosen) + "\n")
    (folder / "loop.py").write_text(LOOP)


if __name__ == "__main__":
    main()
