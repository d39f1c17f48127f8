"""Strategies and curricula from outside work by name: imported modules, and installed packages with entry points."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gemsdata as gd
from gemsdata.kernels import jit
from gemsdata.masking import registry
from gemsdata.masking.curriculum import Curriculum, resolve_curriculum
from gemsdata.masking.registry import curriculum_names, load_plugins, names, register_curriculum
from gemsdata.masking.strategies import resolve
from tests.stream_support import make_set

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
MODULE = '''
from dataclasses import dataclass
from gemsdata.masking.curriculum import Curriculum
from gemsdata.masking.registry import register, register_curriculum
from gemsdata.masking.strategies import GeneMask, RandomToken, Strategy, resolve


@register("every-third")
@dataclass(frozen=True, kw_only=True)
class EveryThird(RandomToken):
    """A strategy outside gemsdata."""

    def centre_rate(self, *arguments):
        return 1 / 3


@register_curriculum("third-later")
@dataclass(frozen=True, kw_only=True, repr=False)
class ThirdLater(Curriculum):
    """A curriculum outside gemsdata."""

    def maskings(self):
        return GeneMask(), EveryThird()

    def stage(self, step, logged_stage, seed):
        return int(step >= 2)
'''
LOADER = """
import sys, gemsdata as gd
if __name__ == "__main__":
    {first}
    for masking in sys.argv[2:]:
        loader = gd.build_loader(sys.argv[1], batch_size=16, masking=masking, num_steps=4, **{options})
        masked = [(batch["labels"] != -100).sum().item() / batch["attention_mask"].sum().item() for batch in loader]
        print(masking, *(f"{{rate:.3f}}" for rate in masked))
        loader.close()
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("plugins") / "set")


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("module")
    (folder / "my_masks.py").write_text(MODULE)
    return folder


@pytest.fixture(scope="module")
def site_folder(tmp_path_factory):
    """What an installed package leaves in site-packages."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "their_masks.py").write_text(MODULE)
    info = folder / "their_masks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-masks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[gemsdata.strategies]\nevery-third = their_masks:EveryThird\nbroken = no_such_module:Thing\n"
        "[gemsdata.curricula]\nthird-later = their_masks:ThirdLater\n"
    )
    return folder


def run(arguments, folder, *, path=()):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *path]))}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def rates(output: str) -> dict[str, list[float]]:
    lines = [line.split() for line in output.splitlines()]
    return {name: [float(value) for value in values] for name, *values in lines}


def assert_third(output: str) -> None:
    found = rates(output)
    assert all(0.2 < rate < 0.45 for rate in found["every-third"])
    if "third-later" in found:
        assert all(rate < 0.2 for rate in found["third-later"][:2])
        assert all(0.2 < rate < 0.45 for rate in found["third-later"][2:])


def test_an_imported_module_works_in_audit_and_show(shards, module_folder, tmp_path):
    options = [shards, "--masking", "every-third", "--import", "my_masks"]
    audit = run(["-m", "gemsdata.cli", "audit", *options], module_folder).stdout
    rate = float(re.search(r"masked tokens +([0-9.]+)%", audit)[1])
    assert 28 < rate < 39
    assert "every-third: " in run(["-m", "gemsdata.cli", "show", *options], module_folder).stdout
    curriculum = [shards, "--masking", "third-later", "--import", "my_masks", "--stage"]
    assert "genemask: " in run(["-m", "gemsdata.cli", "show", *curriculum, "0"], module_folder).stdout
    assert "every-third: " in run(["-m", "gemsdata.cli", "show", *curriculum, "1"], module_folder).stdout


def test_an_installed_package_works_in_audit_and_show_and_a_broken_one_is_named(shards, site_folder, tmp_path):
    done = run(["-m", "gemsdata.cli", "show", shards, "--masking", "every-third"], tmp_path, path=[site_folder])
    assert "every-third: " in done.stdout
    assert "plug-in broken = no_such_module:Thing is ignored: No module named 'no_such_module'" in done.stderr


@pytest.mark.slow
@pytest.mark.compiled
def test_an_imported_module_works_in_spawned_workers(shards, module_folder, tmp_path):
    script = tmp_path / "loop.py"
    first = 'from gemsdata.masking.registry import load_plugins; load_plugins(["my_masks"])'
    script.write_text(LOADER.format(first=first, options={"num_workers": 1, "start_method": "spawn"}))
    assert_third(run([script, shards, "every-third"], module_folder).stdout)


@pytest.mark.slow
@pytest.mark.compiled
def test_a_server_knows_strategies_of_installed_packages_and_of_imported_modules(
    shards, site_folder, module_folder, tmp_path
):
    script = tmp_path / "loop.py"
    for path, options, first in (
        ([site_folder], [], "pass"),
        ([module_folder], ["--import", "my_masks"], "import my_masks"),
    ):
        script.write_text(LOADER.format(first=first, options={}))
        command = [sys.executable, "-m", "gemsdata.cli", "serve", str(shards), "--port", "0", *options]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *path]))}
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().split()[-1]
            assert_third(run([script, address, "every-third", "third-later"], tmp_path, path=path).stdout)
        finally:
            server.terminate()
            server.communicate(timeout=60)


def test_unknown_names_are_told_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"masking 'cmgems' is unknown \(did you mean 'cm-gems'\?\)") as caught:
        resolve("cmgems")
    assert all(name in str(caught.value) for name in [*names(), *curriculum_names()])
    with pytest.raises(ValueError, match=r"did you mean 'global-nms'\?"):
        gd.Constant(masking="globalnms").maskings()
    with pytest.raises(ValueError, match=r"curriculum 'cmstep' is unknown \(did you mean 'cm-step'\?\)"):
        resolve_curriculum("genemask", "cmstep")
    with pytest.raises(ValueError, match=r"masking 'xyz' is unknown: use a strategy \(random-token"):
        resolve_curriculum("xyz")
    with pytest.raises(ValueError, match=r"masking 'cm-gems' is a curriculum.* here give one strategy: random-token"):
        resolve("cm-gems")
    with pytest.raises(ValueError, match="masking None is neither a strategy nor the name of one"):
        resolve(None)


def test_a_command_names_curricula_that_it_has_not_imported():
    code = "from gemsdata.masking.strategies import resolve\nresolve('{}')"
    said = [
        subprocess.run([sys.executable, "-c", code.format(name)], capture_output=True, text=True).stderr
        for name in ("cmgems", "cm-gems")
    ]
    assert "did you mean 'cm-gems'?" in said[0]
    assert "cm-step-released" in said[0]
    assert "masking 'cm-gems' is a curriculum" in said[1]


def test_a_module_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="module 'no_such_masks' cannot be imported: No module named"):
        load_plugins(["no_such_masks"])
    (tmp_path / "bad_masks.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="module 'bad_masks' cannot be imported: division by zero"):
        load_plugins(["bad_masks"])


def test_a_curriculum_of_a_users_own_is_found_by_name(monkeypatch):
    monkeypatch.setattr(registry, "_CURRICULA", dict(registry._CURRICULA))

    @register_curriculum("always-dnabert")
    class Always(Curriculum):
        def maskings(self):
            return (resolve("dnabert"),)

        def stage(self, step, logged_stage, seed):
            return 0

    assert isinstance(resolve_curriculum("always-dnabert"), Always)
    assert "always-dnabert" in curriculum_names()


@pytest.mark.parametrize("curriculum", [gd.Constant(), gd.CMGems(), gd.CMStep(num_steps=7)])
def test_a_curriculum_says_in_two_lines_what_it_is(curriculum):
    first, second = repr(curriculum).splitlines()
    assert f"curriculum {curriculum.name!r}" in first
    assert "stage 0 genemask" in first
    assert second.startswith("  the stage changes ")


@pytest.mark.compiled
def test_kernels_compile_without_a_folder_for_their_cache(tmp_path):
    """A read-only install in a container without a home: files stand where folders would have to be made."""
    package = tmp_path / "site" / "gemsdata"
    for part in ("kernels", "genome", "masking"):
        (package / part).mkdir(parents=True)
        for source in (ROOT / "gemsdata" / part).glob("*.py"):
            (package / part / source.name).write_text(source.read_text())
        (package / part / "__pycache__").write_text("")
    (package / "__init__.py").write_text((ROOT / "gemsdata" / "__init__.py").read_text())
    code = (
        "import numpy as np\nfrom gemsdata.kernels.keys import key_of, keys_of\n"
        "assert keys_of((1, 2), np.arange(3)[:, None]).tolist() == [key_of(1, 2, i) for i in range(3)]\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    home = str(package / "__init__.py" / "home")
    environment |= {"PYTHONPATH": str(tmp_path / "site"), "HOME": home, "XDG_CACHE_HOME": home}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("set NUMBA_CACHE_DIR") == 1


def _next_integer(x):
    return x + 1


@pytest.mark.compiled
@pytest.mark.parametrize(("operation", "error"), [("save", OSError(28, "No space left")), ("load", EOFError())])
def test_a_cache_of_kernels_that_fails_is_done_without(monkeypatch, operation, error):
    def fail(*_):
        raise error

    jit._say_that_nothing_is_cached.cache_clear()
    kernel = jit.jit(_next_integer)
    monkeypatch.setattr(kernel._cache._cache_file, operation, fail)
    monkeypatch.setattr(kernel._cache._cache_file, "load" if operation == "save" else "save", lambda *_: None)
    with pytest.warns(RuntimeWarning, match="set NUMBA_CACHE_DIR"):
        assert kernel(1) == 2
