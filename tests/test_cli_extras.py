"""Messages about packages that are not installed, and the extras of the package that they name."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gemsdata.files import extras

pytestmark = pytest.mark.once

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("command", "module", "extra"), [("pretrain", "torch", "train"), ("eval fewshot", "torch", "eval")]
)
def test_a_program_without_its_packages_names_its_extra(command: str, module: str, extra: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None\nfrom gemsdata.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *command.split(), "--help"], capture_output=True, text=True)
    assert (
        done.stderr == f"error: gemsdata {command} needs {module}; install it with: pip install 'gemsdata[{extra}]'\n"
    )
    assert done.returncode == 2


def test_a_missing_package_is_named_with_its_extra() -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom gemsdata.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "serve", "SHARDS"], capture_output=True, text=True)
    assert done.stderr == "error: gemsdata serve needs torch; install it with: pip install 'gemsdata[train]'\n"
    assert done.returncode == 2


def test_the_extras_in_messages_are_those_of_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    modules = {"scikit-learn": "sklearn", "markdown-it-py": "markdown_it"}
    packages = {
        extra: {modules.get(name, name) for name in (re.split(r"[\[><=]", line)[0] for line in lines)}
        for extra, lines in project.items()
    }
    for module, extra in extras.EXTRA_OF.items():
        assert module in packages[extra], (module, extra)
    mentioned = {extra: packages[extra] for extra in project if extra not in ("dev", "docs")}
    assert set().union(*mentioned.values()) == {*extras.EXTRA_OF, "gemsdata"}


def test_the_extra_all_has_every_extra_of_users_but_the_engines() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    left_out = ("all", "dev", "docs", "lightning", "ray", "dask", "slurm")
    assert project["all"] == [f"gemsdata[{','.join(name for name in project if name not in left_out)}]"]


@pytest.mark.parametrize(
    ("module", "extra", "url"), [("fsspec", "train", "hf://datasets/set"), ("obstore", "s3", "s3://bucket/set")]
)
def test_a_url_without_its_package_names_the_extra(module: str, extra: str, url: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None\nfrom gemsdata.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "serve", url], capture_output=True, text=True)
    assert done.stderr == (f"error: the URL {url} needs {module}; install it with: pip install 'gemsdata[{extra}]'\n")
    assert done.returncode == 2
