"""The manifest: typed, hashed as a whole, and read back; whatever is changed in it is found, in one line."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemsdata.cli import main
from gemsdata.files.typed_json import from_json
from gemsdata.shards.manifest import MANIFEST_FILE, Manifest, fingerprint
from gemsdata.shards.manifest_fields import Shard, shard_path
from gemsdata.shards.shard_table import ShardTable
from tests.stream_support import make_set


@pytest.fixture(scope="module", params=[2, 1])
def content(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a small manifest of each version."""
    folder = make_set(tmp_path_factory.mktemp("manifest") / "set", format="both")
    read: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text())
    return read if request.param == 2 else as_version_1(read)


def as_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """The manifest that the first version of the format had for the same set."""
    added = ("manifest_sha256", "intervals_sha256")
    return {name: value for name, value in {**content, "version": 1}.items() if name not in added}


def parse(content: Any) -> Manifest:
    return Manifest.parse(json.dumps(content).encode(), "file")


def as_written(content: Any) -> bytes:
    """The document in the layout of `Manifest.to_json`, of which shards are read as columns."""
    return (json.dumps(content, indent=1) + "\n").encode()


def parsed(text: bytes) -> tuple[Manifest | None, str]:
    """The manifest, or why it was refused; any other exception than ValueError is a defect."""
    try:
        return Manifest.parse(text, "file"), ""
    except ValueError as error:
        return None, str(error)


def test_both_versions_read_back_with_one_fingerprint(content: dict[str, Any]) -> None:
    manifest = parse(content)
    assert json.loads(manifest.to_json()) == content
    assert fingerprint(manifest) == content["fingerprint"]
    assert len(manifest.identity) == 64
    assert Manifest.parse(manifest.to_json().encode(), "file") == manifest


def test_a_manifest_as_it_was_written_is_read_as_columns(content: dict[str, Any]) -> None:
    manifest = Manifest.parse(as_written(content), "file")
    assert manifest == parse(content)
    for split, shards in manifest.splits.items():
        assert type(shards) is ShardTable
        assert list(shards) == parse(content).splits[split] == pickle.loads(pickle.dumps(shards))
        assert (shards[-1:], shards[1:3]) == (list(shards)[-1:], list(shards)[1:3])
    assert manifest.to_json().encode() == as_written(content)
    assert manifest.identity == parse(content).identity


@pytest.mark.once
def test_a_manifest_of_many_shards_is_read_in_chunks(content: dict[str, Any]) -> None:
    """More shards than are read at a time, without an object for each; anything wrong in the last one is found."""
    formats, count = content["formats"], 4200
    many = from_json(dict[str, list[Shard]], splits_of(count, formats), "splits")
    text = dataclasses.replace(parse(content), formats=formats, splits=many).with_hashes().to_json().encode()
    tracemalloc.start()
    manifest = Manifest.parse(text, "file")
    kept_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < count * 150 * len(formats)
    assert peak_bytes < len(text) + count * 1000 * len(formats)
    assert manifest.shards("train")[4199].files["arrow"].path == "train/004199.arrow"
    assert manifest.num_rows("train") == count * 7
    for before, after in ((b"004199.arrow", b"004200.arrow"), (b'"num_tokens": 70', b'"num_tokens": 071')):
        at = text.rindex(before)
        refused, problem = parsed(text[:at] + after + text[at + len(before) :])
        assert refused is None
        assert "is damaged" in problem or "is not the manifest" in problem


def splits_of(count: int, formats: list[str]) -> dict[str, Any]:
    """The splits of a set with as many shards of 7 rows."""
    digest = hashlib.sha256(b"").hexdigest()
    shards = [
        {
            "first_row": 7 * index,
            "num_rows": 7,
            "num_tokens": 70,
            "content_xxh3_64": f"{index:016x}",
            "files": {
                name: {
                    "path": shard_path("train", index, name),
                    "num_bytes": 1000 + index,
                    "xxh3_64": f"{index:016x}",
                    "sha256": digest,
                }
                for name in formats
            },
        }
        for index in range(count)
    ]
    return {"train": shards, "valid": []}


def test_why_there_is_no_manifest_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for make, message in (
        (None, "no such folder"),
        (folder.mkdir, "is not a shard set"),
        ((folder / "_work").mkdir, "holds an unfinished shard set"),
        ((folder / "_work" / "publish.json").touch, "holds a shard set that is not published yet"),
    ):
        if make:
            make()
        with pytest.raises(FileNotFoundError, match=message):
            Manifest.load(folder)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def changed(content: dict[str, Any], data: st.DataObject) -> Any:
    """The document with one value replaced, removed, repeated, renamed or nudged."""
    document = [copy.deepcopy(content)]
    *parents, key = (0, *data.draw(st.sampled_from(list(places(content)))))
    holder: Any = document
    for parent in parents:
        holder = holder[parent]
    kind = data.draw(st.sampled_from(["replace", "remove", "repeat", "rename", "nudge"]))
    value = holder[key]
    if kind == "nudge" and type(value) in (int, float):
        holder[key] = value + data.draw(st.sampled_from([-1, 1, 1000, 1 << 70]))
    elif kind == "nudge" and isinstance(value, str):
        holder[key] = data.draw(st.sampled_from([value + "0", value[:-1], "../" + value, "/etc/passwd", "\ud800"]))
    elif kind == "remove" and parents:
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict):
        holder[data.draw(st.text(max_size=5))] = holder.pop(key)
    elif kind == "repeat" and isinstance(holder, list) and parents:
        holder.append(copy.deepcopy(value))
    else:
        holder[key] = data.draw(JSON)
    return document[0]


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_changed_value_is_refused_in_one_line(content: dict[str, Any], data: st.DataObject) -> None:
    document = changed(content, data)
    manifest, problem = parsed(json.dumps(document).encode())
    assert parsed(as_written(document)) == (manifest, problem)
    if manifest is None:
        assert problem.startswith("file")
        assert "\n" not in problem
        assert len(problem) < 400
    elif content["version"] == 2:
        assert document == content
    else:  # no hash of the whole: what determines the rows is covered by the fingerprint, and the rest is plausible
        assert manifest.fingerprint == content["fingerprint"]


@settings(max_examples=100)
@given(data=st.data())
def test_any_damaged_bytes_are_refused_in_one_line(content: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from([json.dumps(content).encode(), as_written(content)])))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    text = text[: data.draw(st.just(len(text)) | st.integers(0, len(text)))]
    manifest, problem = parsed(bytes(text))
    if manifest is None:
        assert "\n" not in problem
    elif content["version"] == 2:
        assert json.loads(manifest.to_json()) == content


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("block_rows",), 8),
        (("token_dtype",), "uint32"),
        (("rank_column",), True),
        (("compression",), "zstd"),
        (("npmi", "min_count"), 7),
        (("npmi", "canonical"), True),
        (("genome", "name"), "other"),
        (("genome", "num_soft_masked"), 5),
        (("validation", "contigs"), []),
        (("splits", "train", 0, "num_tokens"), 450),
        (("splits", "train", 0, "files", "arrow", "num_bytes"), 4096),
    ],
)
def test_what_the_fingerprint_leaves_out_is_hashed_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: tuple[Any, ...], value: Any
) -> None:
    folder = make_set(tmp_path / "set")
    content = json.loads((folder / MANIFEST_FILE).read_text())
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    assert holder[path[-1]] != value
    holder[path[-1]] = value
    (folder / MANIFEST_FILE).write_text(json.dumps(content))
    for command in ("info", "verify"):
        assert main([command, str(folder)]) == 2
        assert " is damaged" in capsys.readouterr().err
