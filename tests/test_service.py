"""A loader that asks servers gives what a local one gives, whatever happens to the servers."""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.flight as fl
import pytest

import gemsdata as gd
from gemsdata.genome.vocab import vocab_size
from gemsdata.masking.strategies import MASKING_VERSION
from gemsdata.service import server as server_module
from gemsdata.service.auth import Address
from gemsdata.service.remote_stream import RemoteSets
from gemsdata.service.server import Server
from gemsdata.service.stream_cache import StreamCache
from gemsdata.shards.shard_set import ShardSet
from tests.service_support import command_line, forked, served
from tests.stream_support import digest, global_batches, loaders_of_ranks, make_set

pytestmark = pytest.mark.once

RUN = {"masking": "cm-gems", "seed": 4, "reverse_complement": 0.5, "num_steps": 60, "stage_lag": 9}
OWN_RANKS = np.random.default_rng(1).permutation(vocab_size(3))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("service") / "set")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("service") / "other", genome_seed=2)


@pytest.fixture(scope="module")
def pair(shards):
    with served(shards, count=2, start=command_line) as servers:
        yield servers


@pytest.fixture(scope="module")
def addresses(pair):
    return [server.address for server in pair]


def whole(places, num_ranks=1, **options) -> str:
    return digest(global_batches(loaders_of_ranks(places, num_ranks, **options)))


@pytest.mark.parametrize(
    ("num_ranks", "options"),
    [
        (1, {}),
        (3, {"num_workers": 2, "remainder": "pad"}),
        (2, {"num_workers": 3, "prefetch_factor": 1, "remainder": "drop", "shuffle": 16}),
        (1, {"num_workers": 2, "threads": True, "split": "valid", "masking": "randommask", "seed": 2**64 - 1}),
        (1, {"masking": "cm-step", "num_workers": 1, "start_method": "spawn"}),
        (1, {"masking": gd.GlobalNms(budget=0.2, budget_unit="nucleotide", corruption="span"), "shuffle": False}),
        (1, {"masking": gd.RandomMask(min_tokens=2, max_tokens=(3, 5)), "check": "hash", "faults": "skip-and-count"}),
        (1, {"masking": "genemask", "ranks": OWN_RANKS, "num_workers": 2}),
        (1, {"curriculum": gd.Steps(stages=("dnabert", gd.GeneMask(rate=0.1)), boundaries=(33,)), "num_workers": 2}),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_batches_and_state_are_the_local_ones(shards, addresses, num_ranks, options):
    options = {**RUN, **options}
    assert whole(addresses, num_ranks, **options) == whole(shards, num_ranks, **{**options, "num_workers": 0})
    options["num_workers"] = 0
    states = [gd.build_loader(place, batch_size=7, **options).state_dict() for place in (shards, addresses)]
    assert states[0] == states[1]


def test_dtypes_are_the_local_ones(shards, addresses):
    for device in (None, "cpu"):
        batches = [next(iter(gd.build_loader(place, batch_size=7, device=device))) for place in (shards, addresses)]
        kinds = [{name: getattr(value, "dtype", int) for name, value in batch.items()} for batch in batches]
        assert kinds[0] == kinds[1]


def test_several_sets_behind_a_server_are_mixed(shards, other):
    options = {**RUN, "weights": [2, 1], "num_workers": 2}
    with served(shards, other) as [server]:
        assert whole(server.address, 2, **options) == whole([shards, other], 2, **{**options, "num_workers": 0})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stage_switch_takes_effect_at_the_same_step(shards, addresses, num_workers):
    """A switch after every third batch, with a lag of one more than the depth."""
    digests = []
    for place, workers in ((shards, 0), (addresses, num_workers)):
        loader = gd.build_loader(place, batch_size=5, masking="randommask", num_workers=workers, stage_lag=5)
        batches = []
        for batch in itertools.islice(loader, 50):
            if batch["step"] % 3 == 0:
                loader.set_stage(batch["step"] // 3)
            batches.append({name: np.asarray(value) for name, value in batch.items()})
        loader.close()
        assert [int(batch["stage"]) for batch in batches] == [0] * 5 + [(step - 5) // 3 for step in range(5, 50)]
        digests.append(digest(batches))
    assert digests[0] == digests[1]


def test_goes_on_locally_and_remotely_in_turns(shards, addresses):
    batches, state = [], None
    for place, stop in ((addresses, 11), (shards, 25), (addresses, 40), (shards, 60)):
        [loader] = loaders_of_ranks(place, 1, num_workers=2, threads=True, **RUN)
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        iterator = iter(loader)
        while len(batches) < stop:
            batch = next(iterator)
            if batch["step"] in (8, 9):
                loader.observe(20.0)  # no better than before: the second time fires
            batches.append({name: np.asarray(value) for name, value in batch.items()})
        state = loader.state_dict()
        loader.close()
    assert [int(batch["stage"]) for batch in batches] == [0] * 18 + [1] * 42
    [loader] = loaders_of_ranks(shards, 1, **RUN)
    loader.load_state_dict({**loader.state_dict(), "stage_log": state["stage_log"]})
    assert digest(global_batches([loader])) == digest(batches)


def test_a_killed_server_is_replaced_by_the_other(shards):
    with served(shards, count=2) as servers:
        [loader] = loaders_of_ranks([server.address for server in servers], 1, num_workers=2, **RUN)
        batches = []
        for batch in loader:
            if batch["step"] == 20:
                counted = [server.counters()["batches"] for server in servers]
                servers[0].process.kill()
            batches.append({name: np.asarray(value) for name, value in batch.items()})
    assert min(counted) > 0, "one of the servers was never asked"
    assert digest(batches) == whole(shards, **RUN)


def test_a_restarted_server_is_found_again(shards):
    with served(shards) as [server]:
        [loader] = loaders_of_ranks(server.address, 1, num_workers=2, **RUN)
        restarted = []
        timer = threading.Timer(0.3, lambda: restarted.append(forked(shards, "--port", str(server.port))))
        batches = []
        for batch in loader:
            if batch["step"] == 20:
                server.process.kill()
                timer.start()
            batches.append({name: np.asarray(value) for name, value in batch.items()})
        timer.join()
        restarted[0].end()
    assert digest(batches) == whole(shards, **RUN)


def test_a_batch_that_cannot_be_opened_does_not_count_as_taken(shards, addresses, monkeypatch):
    [loader] = loaders_of_ranks(addresses, 1, **RUN)
    iterator = iter(loader)
    next(iterator)
    with monkeypatch.context() as patch:
        patch.setattr("gemsdata.service.codec.expand", lambda *arguments: -1)
        with pytest.raises(ValueError, match="its rows have -1; the server is broken"):
            next(iterator)
    assert loader.state_dict()["step"] == 1
    [local] = loaders_of_ranks(shards, 1, **RUN)
    assert digest(global_batches([loader])) == digest(global_batches([local])[1:])


def test_a_server_of_another_set_is_refused_by_name(shards, other, addresses):
    prints = [ShardSet.open(folder).manifest.fingerprint for folder in (shards, other)]
    with served(other) as [stranger]:
        with pytest.raises(ValueError, match=f"{stranger.address} holds shard set {prints[1]}, .*{prints[0]}"):
            gd.build_loader([addresses[0], stranger.address], batch_size=7)
        [loader] = loaders_of_ranks(addresses[0], 1, **RUN)
        loader.stream.connections = RemoteSets(gd.Servers(addresses=(stranger.address,)), 0).connections
        with pytest.raises(
            ValueError, match=f"{stranger.address}: the request is for shard set {prints[0]}, .* has {prints[1]}"
        ):
            next(iter(loader))
        state = gd.build_loader(stranger.address, batch_size=7, **RUN).state_dict()
    with pytest.raises(ValueError, match="open the shard set that the run began with"):
        gd.build_loader(shards, batch_size=7, **RUN).load_state_dict(state)


def test_seeds_and_versions_that_do_not_fit_are_refused_by_name(shards, monkeypatch):
    here = Address(host="127.0.0.1", port=0, tls=False)
    with Server(StreamCache([ShardSet.open(shards)], seeds=(10, 19)), here, workers=1) as server:
        address = f"grpc://127.0.0.1:{server.port}"
        with pytest.raises(ValueError, match=f"{address} answers seeds 10 to 19; seed = 9 is given"):
            gd.build_loader(address, batch_size=7, seed=9)
        loader = gd.build_loader(address, batch_size=7, seed=10)
        next(iter(loader))
        loader.stream._options["seed"] = 20
        with pytest.raises(ValueError, match=f"{address}: the request has seed 20, .* answers seeds 10 to 19"):
            next(iter(loader))
        loader.stream._options["masking_version"] = 99
        with pytest.raises(ValueError, match=f"{address}: the request is for masking version 99"):
            next(iter(loader))
        monkeypatch.setattr(server_module, "VERSION", 2)
        with pytest.raises(ValueError, match=f"{address} has protocol version 2, this client 4; use the same"):
            gd.build_loader(address, batch_size=7, seed=10)
        monkeypatch.undo()
        monkeypatch.setattr(server_module, "MASKING_VERSION", 99)
        with pytest.raises(ValueError, match=f"{address} has masking version 99, this client {MASKING_VERSION}"):
            gd.build_loader(address, batch_size=7, seed=10)


def test_eight_clients_at_once(shards, addresses):
    def run(seed):
        return whole(addresses, num_workers=2, **{**RUN, "seed": seed % 4})

    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(run, range(8)))
    assert digests == [whole(shards, **{**RUN, "seed": seed % 4}) for seed in range(8)]
    assert len(set(digests)) == 4


def test_flights_and_actions(shards, pair):
    client = pair[0].client
    manifest = ShardSet.open(shards).manifest
    flights = list(client.list_flights())
    assert [flight.descriptor.path for flight in flights] == [
        [manifest.fingerprint.encode(), split.encode()] for split in ("train", "valid")
    ]
    assert [flight.total_records for flight in flights] == [manifest.num_rows(split) for split in ("train", "valid")]
    assert json.loads(flights[0].schema.metadata[b"manifest"])["fingerprint"] == manifest.fingerprint
    assert client.get_flight_info(flights[1].descriptor).total_records == manifest.num_rows("valid")
    assert {action.type for action in client.list_actions()} == set(server_module.ACTIONS)
    [health] = client.do_action(fl.Action("health", b""))
    assert json.loads(health.body.to_pybytes()) == {
        "status": "serving",
        "gemsdata": gd.__version__,
        "protocol_version": 4,
        "masking_version": MASKING_VERSION,
        "fingerprint": manifest.fingerprint,
        "seeds": [0, 2**64 - 1],
    }
    before = pair[0].counters()
    loader = gd.build_loader(pair[0].address, batch_size=7, num_steps=5)
    assert len(list(loader)) == 5
    after = pair[0].counters()
    grown = {name: after[name] - before[name] for name in ("requests", "refused", "batches", "rows")}
    assert grown == {"requests": 5, "refused": 0, "batches": 5, "rows": 35}
    assert 0 < after["num_bytes"] - before["num_bytes"] < 5 * loader.stream.layout.num_bytes
    table = RemoteSets(gd.Servers(addresses=(pair[0].address,)), 0).npmi()
    assert (table.ranks(3) == ShardSet.open(shards).ranks).all()
