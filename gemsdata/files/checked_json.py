"""JSON files that contain a digest of their content, so that a damaged one is not read."""

from __future__ import annotations

import hashlib
import json
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
    content = parse_object(path.read_bytes())
    if content.pop(_DIGEST, None) != sha256_of_json(content):
        raise ValueError(f"{path} is damaged: its {_DIGEST} does not match its content")
    return content


def sha256_of_json(content: dict[str, Any]) -> str:
    """Return the sha256 of a JSON object in hex; it does not depend on white space or on the order of the names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
