"""JSON files that contain a digest of their content, so that a damaged one is not read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gemsdata.files.publish import write_text
from gemsdata.files.typed_json import parse_object

_DIGEST = "sha256"


def write_checked(path: Path, content: dict[str, Any]) -> None:
    """Publish a JSON object and its digest under ``path``."""
    write_text(path, json.dumps({**content, _DIGEST: sha256_of_json(content)}))


def read_checked(path: Path) -> dict[str, Any]:
    """Return the object that `write_checked` wrote; raise ValueError when the file is damaged."""
    return parse_checked(path.read_bytes(), str(path))


def parse_checked(text: bytes, place: str) -> dict[str, Any]:
    """Return the object in the content of a file written by `write_checked`; errors as there, naming ``place``."""
    content = parse_object(text)
    if content.pop(_DIGEST, None) != sha256_of_json(content):
        raise ValueError(f"{place} is damaged: its {_DIGEST} does not match its content")
    return content


def sha256_of_json(content: dict[str, Any], streamed: Mapping[str, Iterable[bytes]] | None = None) -> str:
    """Return the sha256 of a JSON object in hex; it does not depend on white space or on the order of the names.

    ``streamed`` has values of further names as pieces of JSON text, with sorted names and without spaces.
    """
    digest = hashlib.sha256(b"{")
    parts = {**content, **(streamed or {})}
    for index, name in enumerate(sorted(parts)):
        digest.update(b"," * (index > 0) + _compact(name) + b":")
        for piece in streamed[name] if streamed and name in streamed else (_compact(parts[name]),):
            digest.update(piece)
    digest.update(b"}")
    return digest.hexdigest()


def _compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
