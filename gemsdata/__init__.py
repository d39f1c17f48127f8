"""From FASTA to masked batches: deterministic shards, NPMI tables and span masking for DNA language models."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "CMGems": "gemsdata.masking.curriculum",
    "CMGemsReleased": "gemsdata.masking.curriculum",
    "CMStep": "gemsdata.masking.curriculum",
    "CMStepReleased": "gemsdata.masking.curriculum",
    "Constant": "gemsdata.masking.curriculum",
    "Dnabert": "gemsdata.masking.strategies",
    "GeneMask": "gemsdata.masking.strategies",
    "GeneMaskReleased": "gemsdata.masking.strategies",
    "GlobalMask": "gemsdata.masking.strategies",
    "GlobalNms": "gemsdata.masking.strategies",
    "GlobalReleased": "gemsdata.masking.strategies",
    "KmerTokenizer": "gemsdata.views.tokenizer",
    "Loader": "gemsdata.stream.loader",
    "MLMCollator": "gemsdata.stream.collate",
    "Masker": "gemsdata.masking.masker",
    "NpmiTable": "gemsdata.npmi.table",
    "RandomMask": "gemsdata.masking.strategies",
    "RandomSpan": "gemsdata.masking.strategies",
    "RandomToken": "gemsdata.masking.strategies",
    "Servers": "gemsdata.service.client",
    "ShardSet": "gemsdata.shards.shard_set",
    "Steps": "gemsdata.masking.curriculum",
    "View": "gemsdata.views.view",
    "World": "gemsdata.stream.world",
    "build_loader": "gemsdata.build",
    "catalog": "gemsdata.inspect.sql",
    "mask_rows": "gemsdata.masking.masker",
    "model_inputs": "gemsdata.build",
    "prepare": "gemsdata.stream.accelerate",
    "view": "gemsdata.views.view",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import gemsdata`` needs neither torch nor a compiler."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'gemsdata' has no attribute {name!r}")
