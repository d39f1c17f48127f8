"""``build_loader``: open shard sets and build the loader of their masked batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from gemsdata.masking.curriculum import Curriculum, resolve_curriculum
from gemsdata.masking.registry import names
from gemsdata.masking.strategies import Strategy
from gemsdata.service.client import Servers
from gemsdata.service.remote_stream import RemoteSets, RemoteSplit, RemoteStream
from gemsdata.service.view_request import ServedView
from gemsdata.shards.shard_set import ShardSet
from gemsdata.stream.loader import Loader
from gemsdata.stream.order import RowSource, build_order
from gemsdata.stream.rows import ranks_of, reader_of, rows_of
from gemsdata.stream.source import BatchSource
from gemsdata.stream.stream import MaskedStream
from gemsdata.stream.world import World
from gemsdata.views.options import ViewOptions
from gemsdata.views.view import View

if TYPE_CHECKING:
    from typing import Unpack

    import torch

    Place = str | Path | ShardSet | View | Servers | ServedView

MODEL_INPUTS = ("input_ids", "labels", "attention_mask")


class LoaderOptions(TypedDict, total=False):
    """Options of `Loader`: how batches are computed and where they are put. Only stage_lag changes their content."""

    num_workers: int
    threads: bool
    prefetch_factor: int
    start_method: str | None
    device: str | torch.device | None
    stage_lag: int


def model_inputs(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the entries of a batch that a model takes: input_ids, labels and attention_mask."""
    return {name: batch[name] for name in MODEL_INPUTS}


def build_loader(
    shards: Place | Sequence[Place],
    *,
    split: str = "train",
    masking: str | Strategy = "genemask",
    curriculum: str | Curriculum | None = None,
    batch_size: int | None = None,
    global_batch_size: int | None = None,
    num_steps: int | None = None,
    num_epochs: int | None = None,
    seed: int = 0,
    shuffle: bool | int = True,
    remainder: str = "wrap",
    weights: Sequence[float] | None = None,
    reverse_complement: float = 0.0,
    ranks: np.ndarray | None = None,
    check: str = "hash",
    faults: str = "raise",
    world: World | None = None,
    coordinates: bool = False,
    **loader_options: Unpack[LoaderOptions],
) -> Loader:
    """Open shard sets and return a loader of masked batches.

    Parameters
    ----------
    shards
        folder or URL of a shard set (`ShardSet.open` takes options of the cache), a view of one (`gemsdata.view`), or
        several of either to mix; or the address of a server ("grpc://HOST:PORT"), or several of them that hold the same
        set (`gemsdata.Servers`, docs/service.md), or views of its sets (`gemsdata.Servers.view`).
    split
        "train" or "valid".
    masking, curriculum
        a strategy or its name; a `Curriculum` or its name, which may also be given as ``masking`` ("cm-gems").
    batch_size, global_batch_size
        number of rows per batch, on one rank or over all ranks; give one. The stream depends on the global size only.
    num_steps, num_epochs
        length of the run; give one or neither (endless).
    seed
        seed of the row order, the strands and the masks, 0 to 2**64 - 1.
    shuffle
        True: over all rows; an int: within windows of that many rows, for sets that are fetched or decoded; False: no.
    remainder
        what to do when an epoch ends inside a batch: "wrap", "pad" or "drop"; see `gemsdata.stream.order`.
    weights
        share of each set in every batch, kept exactly (rounded to 1/1000); default: proportional to the numbers of
        rows.
    reverse_complement
        probability that a row is shown as its reverse complement.
    ranks
        NPMI ranks to mask by, integers[4**k + 5]; default: each set's own.
    check, faults
        see `gemsdata.shards.split_reader.SplitReader`.
    world
        rank and number of ranks; default: detected.
    coordinates
        whether batches contain the origin of each row: ``contig``, ``start``, ``end``, ``strand`` and, in a mixture,
        ``source``.
    **loader_options
        num_workers, threads, prefetch_factor, start_method, device, stage_lag: see `Loader`. With servers, workers are
        always threads, each of which waits for one batch. Worker processes that read from a URL are started with
        "spawn", so a script needs ``if __name__ == "__main__":``.

    Raises
    ------
    FileNotFoundError, ValueError
        for a set that is missing or damaged, or for invalid options; the message says what to do.
    ConnectionError
        when no server answers, or one refuses the token.
    """
    world = World.detect() if world is None else world
    global_batch = _global_batch(batch_size, global_batch_size, world)
    if num_steps is not None and num_epochs is not None:
        raise ValueError("give num_steps or num_epochs, not both")
    _check_masking(masking)
    places = _places(shards)
    servers = Servers.of(places)
    if servers is None:
        places = [place if isinstance(place, ShardSet | View) else ShardSet.open(str(place)) for place in places]
        sources, make_stream = _open_sets(places, split, check, faults, ranks, coordinates)
        if not all((place if isinstance(place, ShardSet) else place.shards).store.survives_fork for place in places):
            loader_options = _without_fork(loader_options)
    else:
        sources, make_stream = _ask_servers(servers, _views(places), seed, split, check, faults, ranks, coordinates)
        loader_options = {**loader_options, "threads": True, "start_method": None}
    order = build_order(
        sources, global_batch=global_batch, seed=seed, shuffle=shuffle, remainder=remainder, weights=weights
    )
    if num_epochs is not None:
        num_steps = order.num_steps(num_epochs)
    stream = make_stream(
        order,
        resolve_curriculum(masking, curriculum, num_steps=num_steps),
        seed=seed,
        reverse_complement=reverse_complement,
        world=world,
    )
    return Loader(stream, num_steps=num_steps, **loader_options)


def _without_fork(options: LoaderOptions) -> LoaderOptions:
    """Return the options with the start method "spawn", which is safe for clients of object stores.

    A forkserver would give workers the environment of the time when it was started, including old credentials.
    """
    if options.get("start_method") == "fork":
        raise ValueError('start_method = "fork" is not for sets at URLs; give "spawn", or threads=True')
    return {**options, "start_method": options.get("start_method") or "spawn"}


def _global_batch(batch_size: int | None, global_batch_size: int | None, world: World) -> int:
    """Return the rows of a batch of all ranks together."""
    if (batch_size is None) == (global_batch_size is None):
        raise ValueError("give either batch_size (rows of one rank) or global_batch_size (rows of all ranks)")
    given = batch_size if global_batch_size is None else global_batch_size
    if not isinstance(given, int | np.integer) or isinstance(given, bool) or given < 1:
        raise ValueError(f"batch_size = {batch_size}, global_batch_size = {global_batch_size}; give 1 or more")
    return int(given) * (world.num_ranks if global_batch_size is None else 1)


def _check_masking(masking: object) -> None:
    if not isinstance(masking, str | Strategy):
        raise ValueError(
            f"masking = {masking!r}; give a strategy or the name of one: {', '.join(names())}. Rows that are not masked"
            " come from gemsdata.ShardSet.open(...).read(...)"
        )


def _places(shards: Any) -> list[Any]:
    if isinstance(shards, str | Path | ShardSet | View | Servers | ServedView):
        return [shards]
    places = list(shards)
    if not places:
        raise ValueError("no shard set is given")
    return places


def _views(places: Sequence[Any]) -> tuple[ViewOptions, ...] | None:
    """Return the views to request from servers; None if the places are servers and are to send their own rows."""
    views = tuple(place.options for place in places if isinstance(place, ServedView))
    return views or None


def _open_sets(
    places: Sequence[ShardSet | View], split: str, check: str, faults: str, ranks: np.ndarray | None, coordinates: bool
) -> tuple[Sequence[RowSource], Callable[..., BatchSource]]:
    """Return the readers of shard sets and views, and a function that makes their stream, given the order and so on."""
    sources = [place if isinstance(place, View) else rows_of(place) for place in places]
    readers = [reader_of(rows, split, check=check, faults=faults) for rows in sources]
    tables = [ranks_of(rows) if ranks is None else ranks for rows in sources]
    return readers, functools.partial(MaskedStream, readers, ranks=tables, coordinates=coordinates)


def _ask_servers(
    servers: Servers,
    views: tuple[ViewOptions, ...] | None,
    seed: int,
    split: str,
    check: str,
    faults: str,
    ranks: np.ndarray | None,
    coordinates: bool,
) -> tuple[Sequence[RowSource], Callable[..., BatchSource]]:
    """Return the splits that servers offer, and a function that makes their stream, given the order and so on."""
    remote = RemoteSets(servers, seed, views)
    splits = [RemoteSplit(source=source, split=split, check=check, faults=faults) for source in remote.sources]
    return splits, functools.partial(RemoteStream, remote, splits, own_ranks=ranks, coordinates=coordinates)
