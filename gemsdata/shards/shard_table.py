"""The shards of a split as columns, without an object for each of them.

A set of many terabases has more than 100,000 shards. As objects they take 90 MB, as columns 8 MB.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from gemsdata.shards.manifest_fields import Shard, ShardFile, shard_path

_CHUNK = 4096
"""number of shards that are converted to text at a time"""


@dataclass(frozen=True, kw_only=True, eq=False)
class FileColumns:
    """The files of one format, one for each of S shards."""

    num_bytes: np.ndarray
    """int64[S]"""
    xxh3_64: bytes
    """8 bytes for each file"""
    sha256: bytes
    """32 bytes for each file"""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardTable(Sequence[Shard]):
    """The S shards of a split: a sequence of `Shard` objects, which are created on access."""

    split: str
    first_row: np.ndarray
    """int64[S]"""
    num_rows: np.ndarray
    """int64[S]"""
    num_tokens: np.ndarray
    """int64[S]"""
    content_xxh3_64: bytes
    """8 bytes for each shard"""
    files: dict[str, FileColumns]
    """by format"""

    def __len__(self) -> int:
        return len(self.first_row)

    @overload
    def __getitem__(self, index: int) -> Shard: ...
    @overload
    def __getitem__(self, index: slice) -> list[Shard]: ...
    def __getitem__(self, index: int | slice) -> Shard | list[Shard]:
        numbers = range(len(self))[index]
        return self._shard(numbers) if isinstance(numbers, int) else [self._shard(i) for i in numbers]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def json_pieces(self) -> Iterator[bytes]:
        """Yield the JSON list of the shards in pieces, with sorted names and without spaces."""
        names = sorted(self.files)
        file = b'"%b":{"num_bytes":%%d,"path":"%%b","sha256":"%%b","xxh3_64":"%%b"}'
        template = (
            b'{"content_xxh3_64":"%b","files":{'
            + b",".join(file % name.encode() for name in names)
            + b'},"first_row":%d,"num_rows":%d,"num_tokens":%d}'
        )

        def columns(rows: slice) -> Iterator[Sequence[object]]:
            yield _hex(self.content_xxh3_64, 8, rows)
            for name in names:
                of = self.files[name]
                yield of.num_bytes[rows].tolist()
                yield shard_paths(self.split, range(len(self))[rows], name)
                yield _hex(of.sha256, 32, rows)
                yield _hex(of.xxh3_64, 8, rows)
            yield from (column[rows].tolist() for column in (self.first_row, self.num_rows, self.num_tokens))

        return _json_list(template, columns, len(self))

    def _shard(self, i: int) -> Shard:
        files = {
            name: ShardFile(
                path=shard_path(self.split, i, name),
                num_bytes=int(of.num_bytes[i]),
                xxh3_64=of.xxh3_64[8 * i : 8 * i + 8].hex(),
                sha256=of.sha256[32 * i : 32 * i + 32].hex(),
            )
            for name, of in self.files.items()
        }
        return Shard(
            first_row=int(self.first_row[i]),
            num_rows=int(self.num_rows[i]),
            num_tokens=int(self.num_tokens[i]),
            content_xxh3_64=self.content_xxh3_64[8 * i : 8 * i + 8].hex(),
            files=files,
        )

    def is_plausible(self, row_tokens: int, most: int) -> bool:
        """Return whether each shard begins where the one before ends and all numbers are from 1 to ``most``."""
        follows = np.array_equal(self.first_row[1:], (self.first_row + self.num_rows)[:-1])
        counts = [self.num_rows, *(of.num_bytes for of in self.files.values())]
        in_range = all(bool(((count >= 1) & (count <= most)).all()) for count in counts)
        tokens = (self.num_tokens >= self.num_rows) & (-(-self.num_tokens // row_tokens) <= self.num_rows)
        return follows and in_range and bool(tokens.all()) and (not len(self) or self.first_row[0] == 0)


def column_of(shards: Sequence[Shard], name: str) -> list[int]:
    """Return a field of every shard: "first_row", "num_rows" or "num_tokens"."""
    if isinstance(shards, ShardTable):
        column: list[int] = getattr(shards, name).tolist()
        return column
    return [getattr(shard, name) for shard in shards]


def num_bytes_of(shards: Sequence[Shard], file_format: str) -> list[int]:
    """Return the size of every shard's file of a format, in bytes."""
    if isinstance(shards, ShardTable):
        num_bytes: list[int] = shards.files[file_format].num_bytes.tolist()
        return num_bytes
    return [shard.files[file_format].num_bytes for shard in shards]


def row_pieces(shards: Sequence[Shard]) -> Iterator[bytes]:
    """Yield the JSON list of (first row, number of rows, digest of the rows) in pieces, without spaces."""
    if isinstance(shards, ShardTable):
        table = shards

        def columns(rows: slice) -> Iterator[Sequence[object]]:
            yield table.first_row[rows].tolist()
            yield table.num_rows[rows].tolist()
            yield _hex(table.content_xxh3_64, 8, rows)

        return _json_list(b'[%d,%d,"%b"]', columns, len(table))
    rows = [[shard.first_row, shard.num_rows, shard.content_xxh3_64] for shard in shards]
    return iter([json.dumps(rows, separators=(",", ":")).encode()])


def shard_paths(split: str, shards: range, file_format: str) -> list[bytes]:
    """Return the paths of shards' files, as `shard_path` does."""
    before, after = shard_path(split, 0, file_format).split("000000")
    template = f"{before}%06d{after}".encode()
    return [template % i for i in shards]


def _hex(digests: bytes, num_bytes: int, rows: slice) -> list[bytes]:
    text = digests[rows.start * num_bytes : rows.stop * num_bytes].hex().encode()
    return [text[i : i + 2 * num_bytes] for i in range(0, len(text), 2 * num_bytes)]


def _json_list(
    template: bytes, columns: Callable[[slice], Iterator[Sequence[object]]], num_rows: int
) -> Iterator[bytes]:
    """Yield a JSON list of ``template`` for each row of ``columns``, which are made a chunk at a time."""
    yield b"["
    for first in range(0, num_rows, _CHUNK):
        rows = zip(*columns(slice(first, first + _CHUNK)), strict=True)
        yield (b"," if first else b"") + b",".join(map(template.__mod__, rows))
    yield b"]"
