"""Shards that are truncated or overwritten while they are mapped: an error that names the file, no dead process."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest

import gemsdata as gd
from gemsdata.files import mapped
from gemsdata.files.mapped import MappedFiles
from tests.service_support import served
from tests.stream_support import make_set

pytestmark = pytest.mark.once
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="SIGBUS is handled on Linux")

READ = """
import os, sys
from pathlib import Path
import gemsdata as gd

def main(shards, size, **options):
    loader = gd.build_loader(shards, batch_size=16, **options)
    iterator = iter(loader)
    for _ in range(20):
        next(iterator)
    (path,) = sorted(Path(shards, "train").iterdir())
    os.truncate(path, min(int(size), path.stat().st_size - 1))
    try:
        for _ in range(200):
            next(iterator)
    except ValueError as error:
        print(str(error).splitlines()[-1])
        loader.close()
        return
    sys.exit("nobody noticed")

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], **eval(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mapped")


@LINUX
@pytest.mark.compiled
@pytest.mark.parametrize(
    ("made_with", "options", "size"),
    [
        pytest.param({}, {}, 150_000, marks=pytest.mark.slow),
        ({}, {"num_workers": 2, "threads": True}, 0),
        pytest.param({}, {"num_workers": 2, "start_method": "fork"}, 0, marks=pytest.mark.slow),
        pytest.param({}, {"num_workers": 1, "start_method": "spawn"}, 150_000, marks=pytest.mark.slow),
        ({"format": "webdataset"}, {"num_workers": 2, "threads": True}, 150_000),
        pytest.param({"compression": "zstd"}, {}, 0, marks=pytest.mark.slow),
    ],
    ids=["inline", "threads", "fork", "spawn", "tar", "zstd"],
)
def test_a_shard_that_is_truncated_under_a_running_loader_is_named(folder, tmp_path, made_with, options, size):
    whole = folder / "-".join(["set", *made_with.values()])
    if not whole.exists():
        make_set(whole, num_bases=200_000, rows_per_shard=64_000, block_rows=64, **made_with)
    shards = shutil.copytree(whole, tmp_path / "set")
    (tmp_path / "read.py").write_text(READ)
    command = [sys.executable, tmp_path / "read.py", shards, str(size), repr(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    (path,) = (shards / "train").iterdir()
    assert f"shard {path}" in done.stdout
    assert "truncated" in done.stdout


@LINUX
@pytest.mark.compiled
def test_a_shard_that_is_truncated_under_a_server_is_named_and_the_server_goes_on(tmp_path):
    shards = make_set(tmp_path / "set", num_bases=200_000, rows_per_shard=64_000, block_rows=64)
    (path,) = (shards / "train").iterdir()
    with served(shards) as [server]:
        loader = gd.build_loader(server.address, batch_size=16, num_workers=1)
        iterator = iter(loader)
        next(iterator)
        os.truncate(path, 150_000)
        with pytest.raises(ValueError, match=rf"shard {path} .*truncated"):
            list(itertools.islice(iterator, 1000))
        loader.close()
        assert server.process.is_alive()
        assert server.counters()["active_streams"] == 0


@LINUX
def test_other_bus_errors_end_the_process_as_before():
    code = """
import ctypes, mmap, os, tempfile
from gemsdata.files.mapped import install_handler
install_handler()
with tempfile.TemporaryFile() as file:
    file.truncate(1 << 16)
    foreign = mmap.mmap(file.fileno(), 1 << 16)
    file.truncate(0)
    foreign[1 << 15]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGBUS


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000))
    with pa.memory_map(str(path)) as stream:
        return path, stream.read_buffer()


def touch(path):
    os.utime(path, (time.time() + 5, time.time() + 5))


def test_a_file_that_was_only_touched_renamed_or_replaced_is_as_good_as_before(file, tmp_path):
    path, buffer = file
    files = MappedFiles()
    files.add("one", path, buffer, lambda path: not any(path.read_bytes()))
    touch(path)
    files.check(now=True)
    path.rename(tmp_path / "elsewhere")
    files.check(now=True)
    path.write_bytes(b"another file of this name")
    files.check(now=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: os.truncate(path, 10), r"has 10 bytes, 100000 when it was opened: it was truncated"),
        (lambda path: (os.pwrite(os.open(path, os.O_WRONLY), b"x", 50), touch(path)), "was overwritten while"),
    ],
)
def test_a_file_that_was_changed_is_named(file, change, message):
    path, buffer = file
    files = MappedFiles()
    files.add("one", path, buffer, lambda path: not any(path.read_bytes()))
    files.check(now=True)
    change(path)
    with pytest.raises(ValueError, match=rf"shard {path} {message}"):
        files.check(now=True)


def test_files_are_looked_at_once_a_second_and_forgotten_with_their_reader(file, monkeypatch):
    path, buffer = file
    files, clock = MappedFiles(), [1000.0]
    monkeypatch.setattr(mapped.time, "monotonic", lambda: clock[0])
    files.add("one", path, buffer, lambda path: False)
    files.check(now=True)
    touch(path)
    clock[0] += 0.9
    files.check()
    clock[0] += 0.2
    with pytest.raises(ValueError, match="overwritten"):
        files.check()
    assert buffer.address in mapped._maps
    del files
    assert buffer.address not in mapped._maps


def test_a_shard_that_is_overwritten_in_place_is_noticed_on_resume_and_by_the_next_pass(tmp_path):
    shards = make_set(tmp_path / "set")
    loader = gd.build_loader(shards, batch_size=7, num_steps=20)
    list(loader)
    state = loader.state_dict()
    path = sorted((shards / "train").iterdir())[0]
    content = path.read_bytes()
    with open(path, "r+b") as stream:
        stream.write(content[:-100] + bytes(100))
    touch(path)
    for again in (lambda: loader.load_state_dict(state), lambda: next(iter(loader))):
        with pytest.raises(ValueError, match=f"{path.name} was overwritten"):
            again()


def test_a_set_that_was_made_again_is_noticed_on_resume_and_by_the_next_pass(tmp_path):
    shards = make_set(tmp_path / "set")
    loader = gd.build_loader(shards, batch_size=7, num_steps=20)
    list(loader)
    state = loader.state_dict()
    shutil.rmtree(shards)
    make_set(shards, genome_seed=2)
    for again in (lambda: loader.load_state_dict(state), lambda: next(iter(loader))):
        with pytest.raises(ValueError, match=r"set .* was made again or replaced .* open it again"):
            again()


def test_the_end_of_the_interpreter_prints_nothing(tmp_path):
    code = """
import sys
import pyarrow as pa
from gemsdata.files.mapped import MappedFiles
path = sys.argv[1]
with open(path, "wb") as stream:
    stream.write(bytes(8192))
files = MappedFiles()
files.add(0, __import__("pathlib").Path(path), pa.memory_map(path).read_buffer(), lambda path: True)
sys.held = files  # outlives the globals of modules
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
