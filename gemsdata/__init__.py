"""From FASTA to masked batches: deterministic shards, NPMI tables and span masking for DNA language models.

Public names are imported on first use, so that ``import gemsdata`` loads neither torch nor numba nor pyarrow.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from gemsdata.build import build_loader, model_inputs
    from gemsdata.inspect.audit import audit
    from gemsdata.inspect.sql import catalog
    from gemsdata.inspect.to_dask import to_dask
    from gemsdata.inspect.to_ray import to_ray_dataset
    from gemsdata.masking.curriculum import (
        CMGems,
        CMGemsReleased,
        CMStep,
        CMStepReleased,
        Constant,
        Curriculum,
        Steps,
    )
    from gemsdata.masking.masker import Masker, mask_rows
    from gemsdata.masking.registry import register, register_curriculum
    from gemsdata.masking.strategies import (
        Dnabert,
        GeneMask,
        GeneMaskReleased,
        GlobalMask,
        GlobalNms,
        GlobalReleased,
        RandomMask,
        RandomSpan,
        RandomToken,
        Strategy,
    )
    from gemsdata.npmi.table import NpmiTable
    from gemsdata.service.client import Servers
    from gemsdata.shards.options import ShardOptions
    from gemsdata.shards.shard_set import ShardSet
    from gemsdata.shards.write import shard
    from gemsdata.stream.accelerate import prepare
    from gemsdata.stream.collate import MLMCollator
    from gemsdata.stream.datamodule import LoaderDataModule
    from gemsdata.stream.loader import Loader
    from gemsdata.stream.loss import masked_lm_loss
    from gemsdata.stream.trainer import LoaderTrainer
    from gemsdata.stream.world import World
    from gemsdata.views.tokenizer import KmerTokenizer
    from gemsdata.views.view import View, view
    from gemsdata.views.webdataset import masked, wds_decoder

__all__ = [
    "CMGems",
    "CMGemsReleased",
    "CMStep",
    "CMStepReleased",
    "Constant",
    "Curriculum",
    "Dnabert",
    "GeneMask",
    "GeneMaskReleased",
    "GlobalMask",
    "GlobalNms",
    "GlobalReleased",
    "KmerTokenizer",
    "Loader",
    "LoaderDataModule",
    "LoaderTrainer",
    "MLMCollator",
    "Masker",
    "NpmiTable",
    "RandomMask",
    "RandomSpan",
    "RandomToken",
    "Servers",
    "ShardOptions",
    "ShardSet",
    "Steps",
    "Strategy",
    "View",
    "World",
    "__version__",
    "audit",
    "build_loader",
    "catalog",
    "mask_rows",
    "masked",
    "masked_lm_loss",
    "model_inputs",
    "prepare",
    "register",
    "register_curriculum",
    "shard",
    "to_dask",
    "to_ray_dataset",
    "view",
    "wds_decoder",
]

_MODULES = {
    "build": ["build_loader", "model_inputs"],
    "inspect.audit": ["audit"],
    "inspect.sql": ["catalog"],
    "inspect.to_dask": ["to_dask"],
    "inspect.to_ray": ["to_ray_dataset"],
    "masking.curriculum": [
        "CMGems",
        "CMGemsReleased",
        "CMStep",
        "CMStepReleased",
        "Constant",
        "Curriculum",
        "Steps",
    ],
    "masking.masker": ["Masker", "mask_rows"],
    "masking.registry": ["register", "register_curriculum"],
    "masking.strategies": [
        "Dnabert",
        "GeneMask",
        "GeneMaskReleased",
        "GlobalMask",
        "GlobalNms",
        "GlobalReleased",
        "RandomMask",
        "RandomSpan",
        "RandomToken",
        "Strategy",
    ],
    "npmi.table": ["NpmiTable"],
    "service.client": ["Servers"],
    "shards.options": ["ShardOptions"],
    "shards.shard_set": ["ShardSet"],
    "shards.write": ["shard"],
    "stream.accelerate": ["prepare"],
    "stream.collate": ["MLMCollator"],
    "stream.datamodule": ["LoaderDataModule"],
    "stream.loader": ["Loader"],
    "stream.loss": ["masked_lm_loss"],
    "stream.trainer": ["LoaderTrainer"],
    "stream.world": ["World"],
    "views.tokenizer": ["KmerTokenizer"],
    "views.view": ["View", "view"],
    "views.webdataset": ["masked", "wds_decoder"],
}
"""Where each public name lives: the imports above once more, as data (tests/test_public.py compares the two)"""
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
_NEEDS = {
    "build": "torch",
    "inspect.to_dask": "dask",
    "inspect.to_ray": "ray",
    "service": "torch",
    "stream": "torch",
    "stream.accelerate": "accelerate",
    "stream.datamodule": "lightning",
    "stream.trainer": "transformers",
    "views.tokenizer": "transformers",
}
"""Modules and packages that need an extra: ``pip install gemsdata`` alone does not install what they import"""


if not TYPE_CHECKING:  # a type checker would take any name for a public one

    def __getattr__(name: str) -> object:
        """Import a public name on first use, and store it in the module."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        missing = _missing(name)
        if missing:
            from gemsdata.files.extras import EXTRA_OF

            extra = EXTRA_OF[missing]
            raise ModuleNotFoundError(f"gemsdata.{name} needs {missing}: pip install 'gemsdata[{extra}]'", name=missing)
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the public names that can be imported here, for help() and completion."""
    dunders = [name for name in globals() if name.startswith("__") and name.endswith("__")]
    return sorted({*dunders, *(name for name in __all__ if name not in _MODULE_OF or not _missing(name))})


def _missing(name: str) -> str:
    """Return the package that a public name needs and that is not installed; "" if all are installed."""
    module = _MODULE_OF[name].removeprefix(f"{__name__}.")
    needed = [_NEEDS[place] for place in (module.split(".")[0], module) if place in _NEEDS]
    return next((package for package in needed if importlib.util.find_spec(package) is None), "")
