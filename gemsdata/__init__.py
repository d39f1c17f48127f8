"""From FASTA to masked batches: deterministic shards, NPMI tables and span masking for DNA language models."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "CMGems": "gemsdata.curriculum",
    "CMGemsReleased": "gemsdata.curriculum",
    "CMStep": "gemsdata.curriculum",
    "CMStepReleased": "gemsdata.curriculum",
    "Constant": "gemsdata.curriculum",
    "Dnabert": "gemsdata.strategies",
    "GeneMask": "gemsdata.strategies",
    "GeneMaskReleased": "gemsdata.strategies",
    "GlobalMask": "gemsdata.strategies",
    "GlobalNms": "gemsdata.strategies",
    "GlobalReleased": "gemsdata.strategies",
    "KmerTokenizer": "gemsdata.tokenizer",
    "Loader": "gemsdata.loader",
    "MLMCollator": "gemsdata.collate",
    "Masker": "gemsdata.masking",
    "NpmiTable": "gemsdata.npmi",
    "RandomMask": "gemsdata.strategies",
    "RandomSpan": "gemsdata.strategies",
    "RandomToken": "gemsdata.strategies",
    "ShardSet": "gemsdata.shardset",
    "Steps": "gemsdata.curriculum",
    "World": "gemsdata.world",
    "build_loader": "gemsdata.build",
    "catalog": "gemsdata.sql",
    "mask_rows": "gemsdata.masking",
    "model_inputs": "gemsdata.build",
    "prepare": "gemsdata.accelerate_glue",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import gemsdata`` needs neither torch nor a compiler."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'gemsdata' has no attribute {name!r}")
