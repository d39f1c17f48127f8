"""Shared fixtures: where the test data is, and rows of real DNA made from it."""

from __future__ import annotations

import csv
import gzip
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, settings

from gemsdata.genome import vocab

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # background jobs of a shell; commands inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("gemsdata", deadline=None, max_examples=30)  # the first call of a kernel compiles it
settings.register_profile("thorough", deadline=None, max_examples=300)
settings.register_profile("mutants", deadline=None, max_examples=25, phases=(Phase.explicit, Phase.generate))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gemsdata"))


def pytest_collection_modifyitems(items):
    if os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0"):
        return
    for item in items:
        if item.get_closest_marker("compiled"):
            item.add_marker(pytest.mark.skip(reason="too slow without the JIT"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep fetched files, and the record of checked ones, apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMSDATA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are not flushed to the disk: for tests of what a killed process leaves, as opposed to a power cut."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The public data that the tests read: $GEMSDATA_TEST_DATA, or shared/data beside the repository."""
    path = Path(os.environ.get("GEMSDATA_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no test data at {path}; set GEMSDATA_TEST_DATA")
    return path


@pytest.fixture(scope="session")
def published_ranks(data_dir) -> np.ndarray:
    """The published NPMI ranks, uint16[4101]."""
    ranks = np.full(4101, 4096, np.uint16)
    with open(data_dir / "npmi" / "published_6mer_npmi_grch38_chr1-3.csv") as lines:
        for row in csv.DictReader(lines):
            ranks[vocab.token_id(row["ngram"])] = int(row["norm_pmi_rank_rel"])
    return ranks


def tokens_of(sequence: bytes, k: int = 6) -> np.ndarray:
    """Token ids of the overlapping k-mers, 0 where one holds another letter than A, C, G, T; int64[n-k+1]."""
    codes = vocab.base_codes(sequence).astype(np.int64)
    size = max(0, len(codes) - k + 1)
    windows = [codes[i : i + size] for i in range(k)]
    ids = 5 + sum(code * 4 ** (k - 1 - i) for i, code in enumerate(windows))
    return np.where(np.max(windows, axis=0) > 3, 0, ids)


@pytest.fixture(scope="session")
def human_rows(data_dir) -> np.ndarray:
    """4096 rows of 510 tokens, spread over human_other_14Mb.fa.gz, uint16[4096, 510]."""
    rows = []
    with gzip.open(data_dir / "genomes" / "human_other_14Mb.fa.gz") as stream:
        for record in stream.read().split(b">")[1:]:
            ids = tokens_of(b"".join(record.split(b"\n")[1:]))
            whole = ids[: len(ids) // 515 * 515].reshape(-1, 515)[:, :510]
            rows.append(whole[(whole > 0).all(axis=1)].astype(np.uint16))
    rows = np.concatenate(rows)
    return rows[np.linspace(0, len(rows) - 1, 4096).astype(int)]


@pytest.fixture(scope="session")
def dna_ranks() -> np.ndarray:
    """A rank for every 6-mer, each once, and the worst for special ids, uint16[4101]; needs no data."""
    return np.append(np.full(5, 4096), np.random.default_rng(6).permutation(4096) + 1).astype(np.uint16)


@pytest.fixture(scope="session")
def dna_rows() -> np.ndarray:
    """1024 rows of 510 tokens of DNA from a Markov chain, in which some 6-mers are common, uint16[1024, 510]."""
    rng = np.random.default_rng(7)
    likely = rng.dirichlet([1.0, 1.0, 1.0, 1.0], 4**3).cumsum(axis=1)
    codes = np.zeros((1024, 515), np.int64)
    codes[:, :3] = rng.integers(0, 4, (1024, 3))
    for i in range(3, 515):
        state = codes[:, i - 3] * 16 + codes[:, i - 2] * 4 + codes[:, i - 1]
        codes[:, i] = (rng.random((1024, 1)) > likely[state][:, :3]).sum(axis=1)
    return (5 + sum(codes[:, i : i + 510] * 4 ** (5 - i) for i in range(6))).astype(np.uint16)
