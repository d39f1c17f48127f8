"""The public names of gemsdata: listed, documented, imported lazily, and typed in the wheel."""

from __future__ import annotations

import pydoc
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import gemsdata as gd

pytestmark = pytest.mark.once

REPOSITORY = Path(__file__).parents[1]
HEAVY = ("torch", "numba", "numpy", "pyarrow", "duckdb", "transformers", "pysam", "pandas")
NAMES = sorted(set(gd.__all__) - {"__version__"})
NOT_FOLLOWED = {"KmerTokenizer": "-> Any", "prepare": "accelerator: Any"}
"""Types of packages that mypy does not follow here, which would take it minutes"""

USER_PROGRAM = """
import numpy as np
import gemsdata as gd

loader = gd.build_loader("OUT", masking=gd.GeneMask(), batch_size=4, num_workers=2, device=None)
reveal_type(loader.step)
reveal_type(loader.set_stage(1))
reveal_type(gd.ShardSet.open("OUT").ranks)
reveal_type(gd.NpmiTable.from_fasta("g.fa").ranks(6))
reveal_type(gd.World(rank=0, num_ranks=2).rank_slice(7))
"""
MISTAKES = """
import gemsdata as gd

gd.build_loader("OUT", batch_size="four")
gd.build_loader("OUT", batch_size=4, num_worker=2)
gd.mask_row
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_loads_nothing_heavy_and_names_stay_lazy():
    code = "import sys, gemsdata; names = dir(gemsdata); [n in names or n for n in gemsdata.__all__]; "
    assert run(code + "print(*sys.modules)").split()
    loaded = run(code + "print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)
    assert not [name for name in loaded if name.startswith("gemsdata.")]


def test_the_two_lists_of_public_names_agree():
    imports = re.search(r"if TYPE_CHECKING:\n(.*?)\n\n__all__", Path(gd.__file__).read_text(), re.DOTALL)[1]
    found = {}
    for module, block in re.findall(r"from gemsdata\.([\w.]+) import (\([^)]*\)|[^\n]*)", imports):
        found[module] = re.findall(r"\w+", block)
    assert found == gd._MODULES
    assert sorted(name for names in found.values() for name in names) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_reachable_listed_and_documented(name):
    value = getattr(gd, name)
    assert name in dir(gd)
    assert value.__name__ == name
    assert (value.__doc__ or "").strip(), f"gemsdata.{name} has no docstring"


def test_help_shows_every_public_name_with_its_docstring():
    text = pydoc.plain(pydoc.render_doc(gd))
    for name in NAMES:
        assert re.search(rf"\b{name}\b", text)
        first_line = getattr(gd, name).__doc__.strip().splitlines()[0]
        assert first_line in text, name


def test_a_name_that_is_not_there_and_a_package_that_is_missing():
    with pytest.raises(AttributeError, match="module 'gemsdata' has no attribute 'build_loaders'"):
        gd.build_loaders  # noqa: B018
    code = """
import sys
sys.modules["torch"] = None
import gemsdata, pydoc
assert "ShardSet" in dir(gemsdata) and "build_loader" not in dir(gemsdata)
assert "ShardSet" in pydoc.render_doc(gemsdata)
try:
    gemsdata.build_loader
except ModuleNotFoundError as error:
    print(error)
"""
    assert run(code).strip() == "gemsdata.build_loader needs torch: pip install 'gemsdata[train]'"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment with the wheel of this working tree, beside the packages of the one that runs the tests."""
    pytest.importorskip("hatchling", reason="an environment of before hatchling; make test installs it")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("gemsdata", "train", "eval", "tools"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import hatchling.build as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    scheme = sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")})
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scheme)
    (Path(scheme) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv"


def checked(environment: Path, program: str) -> list[str]:
    """What mypy says of a user's program."""
    (environment / "program.py").write_text(program)
    options = ["--python-executable", environment / "bin" / "python", "--cache-dir", environment / "cache"]
    skipped = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in ("torch", "transformers", "accelerate"))
    (environment / "mypy.ini").write_text(f"[mypy]\n{skipped}")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "program.py"],
        cwd=environment,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "MYPY_CACHE_DIR": ""},
    )
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_the_wheel_is_typed_and_no_public_name_is_any(environment):
    reveals = "".join(f"reveal_type(gd.{name})\n" for name in NAMES)
    lines = checked(environment, USER_PROGRAM + reveals)
    types = [line.split('Revealed type is "')[1].rstrip('"') for line in lines if "Revealed type" in line]
    assert not [line for line in lines if "error:" in line]
    assert len(types) == 5 + len(NAMES)
    for name, revealed in zip(["the program"] * 5 + NAMES, types, strict=True):
        if name in ("LoaderTrainer", "LoaderDataModule", "masked_lm_loss"):
            continue  # their arguments are those of transformers and Lightning, which are not typed here
        known = revealed.replace("dict[builtins.str, Any]", "dict").replace(NOT_FOLLOWED.get(name, "dict"), "")
        assert not re.search(r"(^|-> |: )Any\b", known), revealed


def test_a_type_checker_finds_the_mistakes_of_a_user(environment):
    errors = [line for line in checked(environment, MISTAKES) if "error:" in line]
    assert len(errors) == 3
    for line, wanted in zip(errors, ('"batch_size"', '"num_worker"', '"mask_row"'), strict=True):
        assert wanted in line


def test_the_wheel_has_one_package_at_the_top(environment):
    folder = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    version = gd.__version__
    assert {path.name for path in folder.iterdir()} - {"others.pth"} == {"gemsdata", f"gemsdata-{version}.dist-info"}
    ours = {path.relative_to(REPOSITORY / "gemsdata") for path in (REPOSITORY / "gemsdata").rglob("*.*")}
    ours |= {
        "_programs" / path.relative_to(REPOSITORY)
        for name in ("train", "eval")
        for path in (REPOSITORY / name).rglob("*.*")
    }
    packed = {path.relative_to(folder / "gemsdata") for path in (folder / "gemsdata").rglob("*.*")}
    assert packed == {path for path in ours if "__pycache__" not in path.parts}


@pytest.mark.parametrize("command", ["pretrain", pytest.param("eval compare", marks=pytest.mark.slow)])
def test_the_programs_run_from_the_wheel(environment, tmp_path, command):
    """Also in a folder that has files and folders with the names of our packages."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "__init__.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "eval.py").write_text("raise RuntimeError('not this one')")
    python = environment / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "gemsdata", *command.split(), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"Usage: gemsdata {command} [OPTIONS]"), done.stderr
    assert f"Examples:\n    gemsdata {command} " in done.stdout
    absent = [python, "-c", "import importlib.util as i; print(i.find_spec('train'), i.find_spec('eval'))"]
    assert subprocess.run(absent, cwd=environment, capture_output=True, text=True).stdout == "None None\n"
