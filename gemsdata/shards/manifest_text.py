"""Fast parser for a manifest in the layout of its writer, into columns.

A JSON parser makes ten objects of each shard; a regular expression finds 100,000 shards in a third of a second without
creating them. A manifest in any other layout is read as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from gemsdata.shards.shard_table import FileColumns, ShardTable, shard_paths

_CHUNK = 4096
"""shards that are parsed at a time"""
_SPLITS = b'\n "splits": {\n'
_SPLIT = re.compile(rb'  "([a-z]+)": \[(\])?')
_NUMBER = rb"(0|[1-9][0-9]{0,17})"
_XXH3, _SHA256 = rb'"([0-9a-f]{16})"', rb'"([0-9a-f]{64})"'
_SHARD = rb"""   \{
    "first_row": %b,
    "num_rows": %b,
    "num_tokens": %b,
    "content_xxh3_64": %b,
    "files": \{
%b
    \}
   \}(,?)
"""
_FILE = rb"""     "%b": \{
      "path": "([a-z]+/[0-9]+[.][a-z]+)",
      "num_bytes": %b,
      "xxh3_64": %b,
      "sha256": %b
     \}"""
_END = b"\n }\n}\n"


def split_manifest(text: bytes) -> tuple[bytes, int]:
    """Return the text of a manifest without its shards, and their position: 0 in a layout other than the writer's.

    Where the first part is a JSON object, what follows are the values of its "splits": no text of JSON has a line
    break, and a brace closes the object that began the file.
    """
    found = text.find(_SPLITS)
    if found < 0:
        return text, 0
    return text[:found] + _SPLITS.rstrip() + b"}\n}\n", found + len(_SPLITS)


def read_splits(text: bytes, position: int, formats: Sequence[str]) -> dict[str, ShardTable] | None:
    """Return the splits that the text of a manifest has from ``position`` on; None for another layout or other paths.

    Numbers have the type of their column, and digests their length; whether they are plausible is not checked.
    """
    shard = _shard_pattern(formats)
    splits: dict[str, ShardTable] = {}
    while True:
        start = _SPLIT.match(text, position)
        if start is None or start[1].decode() in splits:
            return None
        rows = _Columns(start[1].decode(), formats)
        position = start.end()
        if start[2] is None:
            end = rows.read(shard, text, position + 1) if text[position : position + 1] == b"\n" else None
            if end is None or text[end : end + 3] != b"  ]":
                return None
            position = end + 3
        splits[rows.split] = rows.table()
        if text[position : position + 2] != b",\n":
            return splits if text.startswith(_END, position) and position + len(_END) == len(text) else None
        position += 2


class _Columns:
    """Columns of shards, which grow by chunks."""

    def __init__(self, split: str, formats: Sequence[str]) -> None:
        self.split, self.formats = split, formats
        self.count = 0
        self.numbers: list[np.ndarray] = []
        """first row, rows, tokens and, of each format, bytes: int64[3 + F, n]"""
        self.digests: list[list[bytes]] = []
        """of the rows and, of each format, xxh3 and sha256: 1 + 2 F of them"""

    def read(self, shard: re.Pattern[bytes], text: bytes, position: int) -> int | None:
        """Append the shards from ``position`` on; return where the last one ends, None for another layout."""
        more = b","
        while more:
            groups: list[tuple[bytes, ...]] = []
            while more and len(groups) < _CHUNK:
                found = shard.match(text, position)
                if found is None:
                    return None
                groups.append(found.groups())
                position, more = found.end(), found[found.re.groups]
            if not self._append(list(zip(*groups, strict=True))):
                return None
        return position

    def _append(self, columns: list[tuple[bytes, ...]]) -> bool:
        """Append a chunk of columns of text; return whether its paths are those of the shards."""
        numbers, digests = columns[:3], [columns[3]]
        here = range(self.count, self.count + len(columns[0]))
        for name, first in zip(self.formats, range(4, len(columns) - 1, 4), strict=True):
            if list(columns[first]) != shard_paths(self.split, here, name):
                return False
            numbers.append(columns[first + 1])
            digests += columns[first + 2 : first + 4]
        self.count = here.stop
        self.numbers.append(np.array([np.array(column).astype(np.int64) for column in numbers]))
        self.digests.append([bytes.fromhex(b"".join(column).decode()) for column in digests])
        return True

    def table(self) -> ShardTable:
        """Return the appended shards."""
        rows = 3 + len(self.formats)
        numbers = np.concatenate([np.empty((rows, 0), np.int64), *self.numbers], axis=1)
        digests = [b"".join(pieces) for pieces in zip(*self.digests, strict=True)] or [b""] * (2 * rows - 5)
        files = {
            name: FileColumns(num_bytes=numbers[3 + i], xxh3_64=digests[1 + 2 * i], sha256=digests[2 + 2 * i])
            for i, name in enumerate(self.formats)
        }
        return ShardTable(
            split=self.split,
            first_row=numbers[0],
            num_rows=numbers[1],
            num_tokens=numbers[2],
            content_xxh3_64=digests[0],
            files=files,
        )


def _shard_pattern(formats: Sequence[str]) -> re.Pattern[bytes]:
    files = [_FILE % (name.encode(), _NUMBER, _XXH3, _SHA256) for name in formats]
    return re.compile(_SHARD % (_NUMBER, _NUMBER, _NUMBER, _XXH3, b",\n".join(files)))


def json_pieces(lists: Mapping[str, Iterable[bytes]]) -> Iterator[bytes]:
    """Yield a JSON object of lists that are given in pieces, with sorted names."""
    for index, name in enumerate(sorted(lists)):
        yield b'%b"%b":' % (b"," if index else b"{", name.encode())
        yield from lists[name]
    yield b"}" if lists else b"{}"
