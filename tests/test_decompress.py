"""Compressed streams: every member is read, and whatever is damaged is one line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import sys
from collections.abc import Callable

import pytest

from gemsdata.genome import decompress
from tests.genomes import random_dna

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.once
SKIPPABLE_FRAME = b"\x51\x2a\x4d\x18\x03\x00\x00\x00abc"
TEXT = b">a\n" + random_dna(30_000, 1).encode() + b"\n"


def bgzip(content: bytes) -> bytes:
    """Compress to the blocked format of bgzip (SAM specification, section 4.1), with its final empty block."""
    blocks = []
    for first in [*range(0, len(content), 10_000), len(content)]:
        member = gzip.compress(content[first : first + 10_000], mtime=0)
        body = member[10:]
        size = len(body) + 18
        blocks.append(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + (size - 1).to_bytes(2, "little") + body)
    return b"".join(blocks)


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bgzip": bgzip,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda content: zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1}),
}


def read(content: bytes) -> bytes:
    return b"".join(decompress.blocks(io.BytesIO(content), "file"))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [0, 1, 1 << 20, 3_000_000])
def test_what_was_compressed_is_read(codec: str, size: int) -> None:
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    compressed = CODECS[codec](content)
    assert decompress.is_compressed(compressed)
    assert read(compressed) == content


@pytest.mark.parametrize("codec", CODECS)
def test_all_members_are_read_and_padding_is_not(codec: str) -> None:
    compress = CODECS[codec]
    assert read(compress(b"one ") + compress(b"") + compress(b"two") + b"\0" * 512) == b"one two"


def test_a_frame_without_content_may_come_first() -> None:
    assert read(SKIPPABLE_FRAME + CODECS["zstd"](b"text")) == b"text"


@pytest.mark.parametrize("codec", CODECS)
def test_any_cut_is_an_error(codec: str) -> None:
    compressed = CODECS[codec](TEXT) + (CODECS[codec](TEXT) if codec != "bgzip" else b"")
    whole_members = {len(compressed) // 2} if codec != "bgzip" else set()
    for size in {*range(6, 60), *range(60, len(compressed), 97), len(compressed) - 1, len(compressed) // 2 + 3}:
        if size not in whole_members:
            with pytest.raises(ValueError, match="file is truncated or damaged"):
                read(compressed[:size])


def test_a_bgzip_file_cut_between_two_blocks_is_truncated() -> None:
    compressed = bgzip(TEXT)
    end_block = compressed.rindex(b"\x1f\x8b\x08\x04")
    assert read(compressed) == TEXT
    with pytest.raises(ValueError, match="lacks the empty block that ends a bgzip file"):
        read(compressed[:end_block])


@pytest.mark.parametrize("codec", CODECS)
def test_what_follows_the_last_member_is_an_error(codec: str) -> None:
    for rest in (b"x", b"\0\0rest of a file", b"ACGT" * 100):
        with pytest.raises(ValueError, match=r"its \w+ data is followed by"):
            read(CODECS[codec](TEXT) + rest)


@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_second_member_is_not_the_end_of_the_file(codec: str) -> None:
    """The file objects of the standard library stop there (bz2, lzma) and give what came before."""
    first, second = CODECS[codec](TEXT), bytearray(CODECS[codec](TEXT))
    for position in range(4):
        damaged = bytearray(second)
        damaged[position] ^= 255
        with pytest.raises(ValueError, match="truncated or damaged"):
            read(first + bytes(damaged))


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_is_an_error_of_one_line_or_changes_nothing(codec: str) -> None:
    compressed = CODECS[codec](TEXT)
    generator = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(compressed)
        damaged[generator.randrange(6, len(damaged))] ^= 1 << generator.randrange(8)
        message = ""
        try:
            assert read(bytes(damaged)) == TEXT
        except ValueError as error:
            message = str(error)
            refused += 1
        assert "\n" not in message
    assert refused > 120


@pytest.mark.parametrize("codec", CODECS)
def test_a_block_is_small_however_much_comes_out_of_it(codec: str) -> None:
    compressed = CODECS[codec](bytes(20_000_000))
    assert max(map(len, decompress.blocks(io.BytesIO(compressed), "file"))) <= 2 * decompress.BLOCK_BYTES
