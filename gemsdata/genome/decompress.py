"""Decompress byte streams block by block: gzip, bgzip, bzip2, xz and zstd, recognised by their first bytes.

The codecs are libraries (ISA-L, the standard library's bz2 and lzma, zstd). The loop over their members is here,
because the file objects of the standard library treat a damaged second member as the end of the file (bz2, xz), and
none of them detects a bgzip file that was truncated between two members.
"""

from __future__ import annotations

import bz2
import lzma
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from isal import igzip_lib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES = 1 << 20
MOST_WHOLE_BYTES = 1 << 30
"""limit for compressed files that are read at once: a small one can expand a thousandfold and more"""
_RAW_BYTES = 1 << 17
_XZ_MEMORY_BYTES = 1 << 30
_ZSTD_WINDOW_LOG = 31
"""the window size of `zstd --long=31`, which compresses genomes well"""


@dataclass(frozen=True)
class _Codec:
    name: str
    signatures: tuple[bytes, ...]
    decompressor: Callable[[], Any]
    """returns a decompressor for one member, with the interface of bz2.BZ2Decompressor"""


_CODECS = (
    _Codec("gzip", (b"\x1f\x8b",), lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)),
    _Codec("bzip2", (b"BZh",), bz2.BZ2Decompressor),
    _Codec("xz", (b"\xfd7zXZ\x00",), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)),
    _Codec(
        "zstd",
        (b"\x28\xb5\x2f\xfd", *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))),  # and skippable frames
        lambda: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}),
    ),
)
_LONGEST_SIGNATURE = 6


def is_compressed(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` (6 bytes or more) is in one of the compressed formats."""
    return _codec_of(head) is not None


def blocks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the content of a byte stream in non-empty blocks of about 1 MiB, decompressed if it is compressed.

    ``name`` is the name of the stream in messages. Raises ValueError for compressed data that is truncated, damaged or
    followed by something else.
    """
    raw = stream.read(_RAW_BYTES)
    codec = _codec_of(raw)
    if codec is not None:
        yield from _joined(_decompressed(stream, raw, codec, name))
        return
    while raw:
        yield raw
        raw = stream.read(BLOCK_BYTES)


def whole(stream: BinaryIO, name: str) -> bytes:
    """Return all content of a file, decompressed if it is compressed.

    Raises ValueError as `blocks` does, and if compressed data expands to more than MOST_WHOLE_BYTES.
    """
    parts: list[bytes] = []
    num_bytes = 0
    for block in blocks(stream, name):
        parts.append(block)
        num_bytes += len(block)
        if num_bytes > max(MOST_WHOLE_BYTES, stream.tell()):  # the size of a plain file is known
            raise ValueError(
                f"{name} expands to more than {MOST_WHOLE_BYTES:,} bytes, and is read at once; decompress it first if"
                " it is valid"
            )
    return b"".join(parts)


def _codec_of(head: bytes) -> _Codec | None:
    return next((codec for codec in _CODECS if head.startswith(codec.signatures)), None)


def _decompressed(stream: BinaryIO, raw: bytes, codec: _Codec, name: str) -> Iterator[bytes]:
    """Yield the content of all members of a compressed stream whose first bytes are ``raw``."""
    is_bgzip = codec.name == "gzip" and raw[12:14] == b"BC"
    while True:
        decompressor = codec.decompressor()
        num_bytes = 0
        while not decompressor.eof:
            if not raw and decompressor.needs_input:
                raw = stream.read(_RAW_BYTES)
                if not raw:
                    raise ValueError(f"{name} is truncated or damaged: its {codec.name} data ends too early")
            try:
                block = decompressor.decompress(raw, BLOCK_BYTES)
            except MemoryError:
                raise
            except Exception as error:  # each codec has its own exception type
                text = " ".join(str(error).split())
                raise ValueError(f"{name} is truncated or damaged: its {codec.name} data is invalid ({text})") from None
            raw = b""
            if block:
                num_bytes += len(block)
                yield block
        raw = decompressor.unused_data
        while not (raw := raw.lstrip(b"\0")) and (more := stream.read(_RAW_BYTES)):  # padding with zeros is legal
            raw = more
        if not raw:
            break
        if len(raw) < _LONGEST_SIGNATURE:
            raw += stream.read(_RAW_BYTES)
        if not raw.startswith(codec.signatures):
            raise ValueError(f"{name} is truncated or damaged: its {codec.name} data is followed by {raw[:8]!r}")
    if is_bgzip and num_bytes:
        raise ValueError(f"{name} is truncated or damaged: it lacks the empty block that ends a bgzip file")


def _joined(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Join parts to blocks of BLOCK_BYTES or more; the last one may be smaller."""
    pending: list[bytes] = []
    num_bytes = 0
    for part in parts:
        pending.append(part)
        num_bytes += len(part)
        if num_bytes >= BLOCK_BYTES:
            yield b"".join(pending)
            pending, num_bytes = [], 0
    if pending:
        yield b"".join(pending)
