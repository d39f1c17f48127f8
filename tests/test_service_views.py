"""Servers of packed and of written sets, and views that clients ask for: the batches are those of a local view."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pyarrow.flight as fl
import pytest

import gemsdata as gd
from gemsdata.service.auth import Address
from gemsdata.service.batch_request import BatchRequest
from gemsdata.service.server import Server, _messages
from gemsdata.service.stream_cache import StreamCache
from gemsdata.service.view_request import portable
from gemsdata.shards.shard_set import ShardSet
from gemsdata.stream.batch import BatchLayout
from gemsdata.views.options import ViewOptions
from tests.batch_requests import GOOD, changed
from tests.genomes import random_dna
from tests.test_views_stream import batches, same
from tests.test_views_tokens import bpe_folder
from tests.view_support import packed_set

pytestmark = pytest.mark.once

BASES = {"tokens": "base", "row_bases": 70}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A packed set and its rows as 3-mers of stride 3, a tokenizer, and a BED file."""
    folder = tmp_path_factory.mktemp("served")
    packed_set(folder, valid_fraction=0.2)
    gd.view(folder / "set", tokens="kmer:3:3", row_bases=60).write(folder / "written")
    bpe_folder(folder / "bpe")
    (folder / "some.bed").write_text("# regions\nlast\t100\t900\textra\nNC_000001.11\t0\t1500\n")
    return folder


def server_of(*sets, **view) -> Server:
    here = Address(host="127.0.0.1", port=0, tls=False)
    return Server(StreamCache([ShardSet.open(place) for place in sets], view=ViewOptions(**view)), here, workers=1)


@pytest.fixture(scope="module")
def server(folder):
    with server_of(folder / "set", tokens=folder / "bpe", row_bases=120) as server:
        yield server


def address_of(server: Server) -> str:
    return f"grpc://127.0.0.1:{server.port}"


def view_of(server: Server, **options):
    return gd.Servers(addresses=(address_of(server),)).view(**options)


def compare(local, remote, **options) -> None:
    """Assert that batches, their names, dtypes and the state of the loader are equal."""
    options = {"reverse_complement": 0.5, "coordinates": True, **options}
    assert same(batches(local, 9, **options), batches(remote, 9, num_workers=2, **options))
    states = [gd.build_loader(place, batch_size=7, **options).state_dict() for place in (local, remote)]
    assert states[0] == states[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        BASES,
        {"tokens": "kmer:6:6", "row_bases": 90, "jitter": False, "seed": 5},
        {"tokens": "kmer:6", "row_tokens": 50, "unknown": "token"},
        {**BASES, "loss_weight_soft_masked": 0.1, "mask_soft_masked": False},
        {**BASES, "regions": "some.bed", "flank": 10},
        {**BASES, "exclude": "some.bed"},
        {"tokens": "bpe", "row_bases": 90},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_view_that_a_client_asks_for_gives_the_local_batches(folder, server, monkeypatch, options):
    monkeypatch.chdir(folder)
    compare(gd.view("set", **options), view_of(server, **options))


@pytest.mark.parametrize("options", [{"coordinates": False}, {"coordinates": False, "masking": "random-token"}])
def test_batches_of_single_bases_travel_compactly(folder, server, options):
    compare(gd.view(folder / "set", **BASES), view_of(server, **BASES), **options)
    loader = gd.build_loader(view_of(server, **BASES), batch_size=64, num_steps=2)
    before = server.counters.num_bytes
    assert len(list(loader)) == 2
    assert server.counters.num_bytes - before < loader.stream.layout.num_bytes * 2 / 3


def test_without_a_view_the_rows_are_those_of_the_command_line(folder, server):
    compare(gd.view(folder / "set", tokens=folder / "bpe", row_bases=120), address_of(server))
    with server_of(folder / "set") as plain:
        compare(gd.view(folder / "set"), address_of(plain))
    with server_of(folder / "written") as written:
        compare(folder / "written", address_of(written), masking="global")


def test_mixtures_of_sets_and_of_regions(folder, tmp_path):
    fasta = {"x": random_dna(3000, 5)}
    other = packed_set(tmp_path, fasta, valid_fraction=0)
    regions = (str(folder / "some.bed"), "anywhere")
    weights = {"weights": [0.5, 0.5]}
    with server_of(folder / "set", other, **BASES) as two:
        compare([gd.view(place, **BASES) for place in (folder / "set", other)], address_of(two), **weights)
        local = [gd.view(place, tokens="base", row_bases=50) for place in (folder / "set", other)]
        compare(local, view_of(two, tokens="base", row_bases=50))
    with server_of(folder / "set", regions=regions, **BASES) as one:
        local = [gd.view(folder / "set", regions=regions[0], **BASES), gd.view(folder / "set", **BASES)]
        compare(local, address_of(one), **weights)
        remote = [view_of(one, regions=regions[0], **BASES), view_of(one, **BASES)]
        compare(local, remote, **weights)
        with pytest.raises(ValueError, match="are mixed with other views of the same servers only"):
            gd.build_loader([remote[0], folder / "written"], batch_size=7)


def test_regions_weights_and_coordinates_of_stored_rows(folder):
    with server_of(folder / "written") as server:
        options = {"regions": str(folder / "some.bed"), "loss_weight_soft_masked": 0.5}
        compare(gd.view(folder / "written", **options), view_of(server, **options))


def test_own_ranks_and_other_n(folder, server):
    ranks = np.random.default_rng(0).permutation(4**4 + 5)
    compare(gd.view(folder / "set", **BASES), view_of(server, **BASES), ranks=ranks, masking=gd.GeneMask(n=4))
    compare(gd.view(folder / "set", **BASES), view_of(server, **BASES), masking=gd.GlobalNms(n=5, budget=0.2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "kmer:6", "row_bases": 9999}, r"row_bases = 9,999 is longer than any stretch"),
        ({"regions": "unknown.bed"}, r"unknown\.bed:2: region chrZ:0-9 is on a contig that the genome does not have"),
        ({"tokens": "other", "row_bases": 90}, r"has no tokenizer folder with tokenizer:\w+: start it with --tokens"),
        ({"track": "some.bed"}, r"has no bigWig file with track:\w+: start it with --track"),
    ],
)
def test_what_a_server_cannot_give_is_an_error_of_one_line(folder, server, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    (folder / "unknown.bed").write_text("\nchrZ\t0\t9\n")
    if "other" in options.values() and not (folder / "other").exists():
        bpe_folder(folder / "other")
        content = json.loads((folder / "other" / "tokenizer.json").read_text())
        (folder / "other" / "tokenizer.json").write_text(json.dumps(content, indent=1))
    with pytest.raises(ValueError, match=message) as caught:
        gd.build_loader(view_of(server, **options), batch_size=7)
    assert str(caught.value).startswith("grpc://127.0.0.1:")
    assert "\n" not in str(caught.value)


def test_options_that_cannot_be_sent(folder, tmp_path):
    servers = gd.Servers(addresses=("grpc://127.0.0.1:1",))
    random = np.random.default_rng(0)
    lines = [f"last\t{start}\t{start + 1}\n" for start in random.integers(0, 1 << 40, 60_000)]
    (tmp_path / "huge.bed").write_text("".join(lines))
    with pytest.raises(ValueError, match=r"huge\.bed is too large for a request.*start the server with --regions"):
        servers.view(regions=tmp_path / "huge.bed")
    with pytest.raises(FileNotFoundError, match=r"none\.bed: no such file; a BED file of regions is needed"):
        servers.view(regions=tmp_path / "none.bed")
    with pytest.raises(FileNotFoundError, match=r"none\.bw: no such file; a bigWig file is needed"):
        servers.view(track=tmp_path / "none.bw")
    with pytest.raises(ValueError, match="one view has one BED file"):
        servers.view(regions=("a.bed", "b.bed"))


def test_views_in_a_request_round_trip_and_are_checked(folder):
    bed = str(folder / "some.bed")
    options = ViewOptions(tokens="kmer:3:3", row_bases=90, regions=bed, flank=3, seed=2, jitter=False)
    travelling = portable(options)
    content = {**json.loads(GOOD.to_json()), "views": [json.loads(json.dumps(view)) for view in views_of(travelling)]}
    request = BatchRequest.parse(json.dumps(content).encode())
    assert request.views == (travelling,)
    assert BatchRequest.parse(request.to_json()) == request
    assert request.stream_key() != GOOD.stream_key()


def views_of(*options: ViewOptions) -> list[dict]:
    from gemsdata.service.view_request import view_json

    return [view_json(view) for view in options]


def bed(content: bytes, name: str = "a.bed") -> dict:
    return {"name": name, "content": base64.b64encode(content).decode()}


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("base", "views has an entry that is not an object"),
        ({"masking": "genemask"}, "views has no option 'masking'"),
        ({"row_bases": "9"}, "views has row_bases = '9'; give another type"),
        ({"jitter": 1}, "views has jitter = 1"),
        ({"row_tokens": True}, "views has row_tokens = True"),
        ({"row_tokens": 0}, "views: row_tokens = 0; give a number from 1"),
        ({"tokens": "/etc"}, "views has tokens = '/etc', which is not an identity"),
        ({"track": "/etc/passwd"}, "views has track = '/etc/passwd', which is not a hash"),
        ({"regions": "/etc/passwd"}, "views regions is not a BED file"),
        ({"regions": bed(b"a\t0\t9\n")}, "views regions has invalid content"),
        ({"regions": bed(zlib.compress(b"a\t0\t9\n"), name="\x1b")}, "views regions has an invalid name"),
        ({"exclude": bed(zlib.compress(bytes(5 << 20)))}, "views exclude has more than 4,194,304 bytes"),
        ({"exclude": bed(zlib.compress(b"a" * 99)[:-5])}, "views exclude has more than .*or is incomplete"),
        ({"flank": 9}, "views: flank = 9 without regions"),
    ],
)
def test_a_view_that_is_none_is_refused_by_name(view, message):
    with pytest.raises(ValueError, match=message):
        BatchRequest.parse(changed(views=[view]))


@pytest.mark.parametrize(
    ("action", "body", "message"),
    [
        ("sources", b"[]", "not a JSON object"),
        ("sources", b'{"views": null, "more": 1}', "a request for sources has one field, views"),
        ("sources", b'{"views": [{"tokens": "kmer:99"}]}', "k = 99 is out of range"),
        ("ranks", b"7 6", "this server has no shard set b'7'"),
        ("ranks", b"0 six", "n = b'six'; give the bases of the n-grams"),
        ("ranks", b"0 16", "n-grams of 1 to 10 bases, not of 16"),
    ],
)
def test_actions_with_a_wrong_body_are_refused(server, action, body, message):
    client = fl.FlightClient(address_of(server))
    with pytest.raises(fl.FlightServerError, match=message):
        list(client.do_action(fl.Action(action, body)))


def test_long_rows_are_sent_a_few_at_a_time():
    layout = BatchLayout.masked_lm(num_rows=4, width=1 << 20, id_dtype="uint16", label_dtype="int16")
    assert [len(steps) for steps in _messages(range(3), layout)] == [1, 1, 1]


def test_the_validation_split(folder):
    with server_of(folder / "set", **BASES) as server:
        compare(gd.view(folder / "set", **BASES), address_of(server), split="valid", remainder="pad")
