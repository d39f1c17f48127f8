"""No data is unpickled, executed or unpacked to a path that a file names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
REPOSITORY = Path(__file__).parents[1]
FILES = sorted(path for name in ("gemsdata", "train", "eval") for path in (REPOSITORY / name).rglob("*.py"))
FORBIDDEN_MODULES = {"cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "extractall", "extract", "unpack_archive", "read_pickle", "unsafe_load"}
MUST_SAY = {"torch.load": ("weights_only", True)}
"""calls that unpickle unless told otherwise, and what they must be told; np.load does not"""


def findings(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle" and node.attr != "UnpicklingError":
            found.append(ast.unparse(node))  # torch raises that error
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in {*FORBIDDEN_MODULES, "pickle"}:
            found.append(str(node.module))
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        said = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
        bare = isinstance(node.func, ast.Name) and name in FORBIDDEN_CALLS
        method = isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_CALLS - {"eval", "exec"}
        if bare or method or said.get("allow_pickle") or said.get("trust_remote_code"):
            found.append(ast.unparse(node))
        option, wanted = MUST_SAY.get(name, ("", None))
        if option and said.get(option) is not wanted:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_module_unpickles_or_executes_data(path):
    assert findings(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle; pickle.load(stream)",
        "from pickle import loads",
        "from joblib import load",
        "np.load(path, allow_pickle=True)",
        "np.lib.format.read_array(stream, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "tar.extractall(folder)",
        "eval(text)",
    ],
)
def test_the_search_finds_what_it_is_for(source):
    assert findings(source)


def test_the_search_sees_all_modules():
    assert len(FILES) > 200
