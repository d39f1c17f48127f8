"""SIGKILL at random moments: the set is absent or complete, and a resumed run ends with the same bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gemsdata.cli import main
from gemsdata.files.hashing import xxh3_of
from gemsdata.shards.manifest import MANIFEST_FILE, Manifest
from tests.test_sharding import hashes
from tools.synthesize import GenomeRecipe, write_fasta

NUM_KILLS = 3
"""`make chaos` kills hundreds of times"""
OPTIONS = ["--format", "both", "--rows-per-shard", "1024", "--row-tokens", "100"]
VICTIM = """
import sys
from gemsdata.cli import main
import gemsdata.cli.shard, gemsdata.shards.write
print("ready", flush=True)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.compiled
def test_killed_at_any_moment_the_set_is_absent_or_complete(tmp_path: Path) -> None:
    fasta = tmp_path / "g.fa"
    with open(fasta, "wb") as stream:
        write_fasta(GenomeRecipe(num_bases=600_000, seed=4), stream)
    whole = tmp_path / "whole"
    assert main(["shard", str(fasta), "-o", str(whole), *OPTIONS]) == 0
    expected = hashes(whole)
    moments = random.Random(20)
    found = {"absent": 0, "unfinished": 0, "complete": 0}
    for trial in range(NUM_KILLS):
        out = tmp_path / f"out{trial}"
        command = ["shard", str(fasta), "-o", str(out), *OPTIONS]
        with subprocess.Popen(
            [sys.executable, "-c", VICTIM, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"ready\n"
            wanted = moments.randrange(
                len(expected) + 3
            )  # files and folders, some of which are there for a moment only
            while victim.poll() is None and sum(1 for _ in out.rglob("*")) < wanted:
                time.sleep(0.0005)
            time.sleep(moments.uniform(0, 0.01))
            victim.send_signal(signal.SIGKILL)
        if (out / MANIFEST_FILE).exists():
            found["complete"] += 1
            for shards in Manifest.load(out).splits.values():
                for shard in shards:
                    for file in shard.files.values():
                        assert xxh3_of(out / file.path) == file.xxh3_64
        else:
            found["unfinished" if out.exists() else "absent"] += 1
        resume = ["--resume"] if out.exists() and any(out.iterdir()) else []
        assert main([*command, *resume]) == 0
        assert hashes(out) == expected
    assert found["unfinished"] >= 1, found  # the kills did hit the work
