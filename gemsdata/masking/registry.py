"""The registry of strategies and curricula: those of gemsdata, of installed packages and of modules imported by a user.

A package adds its own through entry points of the groups `STRATEGY_GROUP` and `CURRICULUM_GROUP`, each of which names a
class. Entry points are loaded if a name is not registered yet, or if all names are listed.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from gemsdata.masking.curriculum import Curriculum
    from gemsdata.masking.strategies import Strategy

STRATEGY_GROUP = "gemsdata.strategies"
CURRICULUM_GROUP = "gemsdata.curricula"
_OWN_MODULES = ("gemsdata.masking.strategies", "gemsdata.masking.curriculum")

_S = TypeVar("_S", bound="type[Strategy]")
_C = TypeVar("_C", bound="type[Curriculum]")
_STRATEGIES: dict[str, type[Strategy]] = {}
_CURRICULA: dict[str, type[Curriculum]] = {}


def register(name: str) -> Callable[[_S], _S]:
    """Register a strategy class under a name that commands and loaders accept."""

    def add(cls: _S) -> _S:
        cls.name = name
        _STRATEGIES[name] = cls
        return cls

    return add


def register_curriculum(name: str) -> Callable[[_C], _C]:
    """Register a curriculum class under a name that commands and loaders accept."""

    def add(cls: _C) -> _C:
        cls.name = name
        _CURRICULA[name] = cls
        return cls

    return add


def names(*, plugins: bool = True) -> list[str]:
    """Return the names of all strategies; with ``plugins``, including those of installed packages."""
    if plugins:
        _load_all()
    return list(_STRATEGIES)


def curriculum_names() -> list[str]:
    """Return the names of all curricula, including those of installed packages."""
    _load_all()
    return list(_CURRICULA)


def find_strategy(name: str) -> type[Strategy]:
    """Return the strategy class of a name; raise ValueError, with the nearest name, if there is none."""
    if name not in _STRATEGIES:
        _load_all()
    if name in _STRATEGIES:
        return _STRATEGIES[name]
    if name in _CURRICULA:
        raise ValueError(
            f"masking {name!r} is a curriculum, which changes between strategies; here give one strategy:"
            f" {', '.join(_STRATEGIES)}"
        )
    raise ValueError(_unknown("masking", name))


def find_curriculum(name: str) -> type[Curriculum]:
    """Return the curriculum class of a name; raise ValueError, with the nearest name, if there is none."""
    if name not in _CURRICULA:
        _load_all()
    if name not in _CURRICULA:
        raise ValueError(_unknown("curriculum", name))
    return _CURRICULA[name]


def is_curriculum(name: str) -> bool:
    """Return whether a name is that of a curriculum."""
    if name not in _CURRICULA and name not in _STRATEGIES:
        _load_all()
    return name in _CURRICULA


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules by name, which register strategies and curricula of their own.

    A module is searched on Python's import path, then in the current folder. Raises ValueError for one that cannot be
    imported.
    """
    for module in modules:
        try:
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name != module.partition(".")[0] or os.getcwd() in sys.path:
                    raise
                sys.path.insert(0, os.getcwd())  # worker processes get the same path
                importlib.import_module(module)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"module {module!r} cannot be imported: {reason}") from error


def _unknown(kind: str, name: str) -> str:
    near = difflib.get_close_matches(name, [*_STRATEGIES, *_CURRICULA], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return (
        f"{kind} {name!r} is unknown{hint}: use a strategy ({', '.join(_STRATEGIES)})"
        f" or a curriculum ({', '.join(_CURRICULA)}), or import the module that registers it (--import MODULE)"
    )


@functools.cache
def _load_all() -> None:
    """Import gemsdata's own classes and those of installed packages; a plug-in that fails gives a warning."""
    for module in _OWN_MODULES:
        importlib.import_module(module)
    for group, known, add in (
        (STRATEGY_GROUP, _STRATEGIES, register),
        (CURRICULUM_GROUP, _CURRICULA, register_curriculum),
    ):
        for entry in importlib.metadata.entry_points(group=group):
            try:
                cls = entry.load()
                if cls not in known.values():  # its module did not register it
                    add(entry.name)(cls)
            except Exception as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                warnings.warn(
                    f"plug-in {entry.name} = {entry.value} is ignored: {reason}", RuntimeWarning, stacklevel=2
                )
