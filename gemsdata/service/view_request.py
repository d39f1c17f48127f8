"""Views in batch requests: the options of a view as JSON, with files by their content or their hash.

A BED file is sent as a whole, because it is small. A tokenizer or a track is named by its sha256, and the server must
have been started with it: a server never parses such a file from a client, and never opens a path that a client names.
"""

from __future__ import annotations

import base64
import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemsdata.files.hashing import sha256_of
from gemsdata.views.options import ViewOptions
from gemsdata.views.regions import Bed, BedText, bed_text
from gemsdata.views.tokens import resolve_tokens

if TYPE_CHECKING:
    from gemsdata.service.client import Servers

MAX_BED_BYTES = 4 << 20
"""limit for the content of a BED file"""
MAX_SENT_BED_BYTES = 400_000
"""limit for a BED file as sent, compressed and in base64"""
_TOKENIZER, _TRACK = "tokenizer:", "track:"
_BEDS = ("regions", "exclude")
_MAX_NAME_CHARS = 200


@dataclass(frozen=True, kw_only=True)
class ServedView:
    """A view of each shard set of servers, for `gemsdata.build_loader`; made by `gemsdata.Servers.view`."""

    servers: Servers
    options: ViewOptions


def portable(options: ViewOptions) -> ViewOptions:
    """Return the options as sent to servers; raise FileNotFoundError or ValueError for files that cannot be sent."""
    changes: dict[str, Any] = {}
    if options.tokens is not None:
        changes["tokens"] = resolve_tokens(options.tokens).identity
    if options.track is not None:
        if not Path(options.track).exists():
            raise FileNotFoundError(f"{options.track}: no such file; a bigWig file is needed")
        changes["track"] = _TRACK + sha256_of(Path(options.track))
    for name in _BEDS:
        bed: Bed | None = getattr(options, name)
        if bed is not None:
            changes[name] = BedText(name=_short_name(bed), content=bed_text(bed).content)
            content = changes[name].content
            if len(content) > MAX_BED_BYTES or len(_encoded(content)) > MAX_SENT_BED_BYTES:
                raise ValueError(
                    f"{bed} is too large for a request, which can contain {MAX_SENT_BED_BYTES:,} bytes of a BED file,"
                    f" compressed: start the server with --{name} {bed}"
                )
    return dataclasses.replace(options, **changes)


def local(options: ViewOptions, own: Sequence[ViewOptions]) -> ViewOptions:
    """Return portable options in which hashes are replaced by the tokenizer and the track of ``own`` options.

    Raises ValueError if ``own`` has no such file.
    """
    changes: dict[str, Any] = {}
    fitting: list[Any]
    if str(options.tokens).startswith(_TOKENIZER):
        kinds = [resolve_tokens(entry.tokens) for entry in own if entry.tokens is not None]
        fitting = [kind for kind in kinds if kind.identity == options.tokens]
        changes["tokens"] = _first(fitting, options.tokens, "tokens", "tokenizer folder")
    if options.track is not None:
        tracks = [entry.track for entry in own if entry.track is not None]
        fitting = [track for track in tracks if _TRACK + sha256_of(Path(track)) == options.track]
        changes["track"] = _first(fitting, options.track, "track", "bigWig file")
    return dataclasses.replace(options, **changes)


def view_json(options: ViewOptions) -> dict[str, Any]:
    """Return portable options as a JSON object."""
    content = options.changed()
    for name in _BEDS:
        if name in content:
            content[name] = {"name": content[name].name, "content": _encoded(content[name].content)}
    return content


def read_view(name: str, value: Any) -> ViewOptions:
    """Return the portable options in a JSON value; raise ValueError that names what is wrong."""
    if not isinstance(value, dict):
        raise ValueError(f"batch request: {name} has an entry that is not an object; give the options of a view")
    given = dict(value)
    for option, setting in value.items():
        if option not in _KINDS:
            raise ValueError(f"batch request: {name} has no option {ascii(option)[:80]}")
        if option in _BEDS:
            given[option] = _read_bed(f"{name} {option}", setting)
        elif type(setting) not in _KINDS[option]:
            raise ValueError(f"batch request: {name} has {option} = {ascii(setting)[:80]}; give another type")
    if "tokens" in given and not _is_tokens(given["tokens"]):
        raise ValueError(f"batch request: {name} has tokens = {ascii(given['tokens'])[:80]}, which is not an identity")
    if "track" in given and not given["track"].startswith(_TRACK):
        raise ValueError(f"batch request: {name} has track = {ascii(given['track'])[:80]}, which is not a hash")
    try:
        return ViewOptions(**given)
    except ValueError as error:
        raise ValueError(f"batch request: {name}: {str(error)[:300]}") from None


_KINDS: dict[str, tuple[type, ...]] = {
    "tokens": (str,),
    "row_tokens": (int,),
    "row_bases": (int,),
    "regions": (dict,),
    "flank": (int,),
    "exclude": (dict,),
    "jitter": (bool,),
    "unknown": (str,),
    "loss_weight_soft_masked": (int, float),
    "mask_soft_masked": (bool,),
    "track": (str,),
    "seed": (int,),
}
"""the JSON types of every option"""
assert _KINDS.keys() == {field.name for field in dataclasses.fields(ViewOptions)}


def _short_name(bed: Bed) -> str:
    """Return the name of a BED file in the errors of a server."""
    name = Path(str(bed)).name[-_MAX_NAME_CHARS:]
    return name if name.isprintable() else "BED file"


def _is_tokens(identity: str) -> bool:
    return identity.startswith((_TOKENIZER, "kmer:"))


def _encoded(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


def _read_bed(where: str, value: Any) -> BedText:
    """Return the BED file in a JSON value."""
    if not isinstance(value, dict) or value.keys() != {"name", "content"}:
        raise ValueError(f"batch request: {where} is not a BED file; give its name and its content")
    name, content = value["name"], value["content"]
    if not isinstance(name, str) or len(name) > _MAX_NAME_CHARS or not name.isprintable():
        raise ValueError(f"batch request: {where} has an invalid name")
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(content, validate=True), MAX_BED_BYTES)
    except (TypeError, ValueError, zlib.error):
        raise ValueError(f"batch request: {where} has invalid content; give it compressed, in base64") from None
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError(f"batch request: {where} has more than {MAX_BED_BYTES:,} bytes, or is incomplete")
    return BedText(name=name, content=text)


def _first(fitting: list[Any], wanted: object, option: str, what: str) -> Any:
    if not fitting:
        raise ValueError(f"this server has no {what} with {wanted}: start it with --{option} and the same file")
    return fitting[0]
