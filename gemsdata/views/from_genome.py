"""Write rows of any tokens from a genome: through a temporary packed set and a view of it."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gemsdata.files.output_folder import OutputFolder
from gemsdata.files.progress import Progress, no_progress
from gemsdata.files.remote_folder import is_url
from gemsdata.shards.manifest import Manifest
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.plan_at_url import check_writable_url
from gemsdata.shards.work_folder import check_writable
from gemsdata.shards.write import shard
from gemsdata.shards.write_at_url import put_set
from gemsdata.views.materialise import WriteOptions, check_writable_options, write_view
from gemsdata.views.options import ViewOptions
from gemsdata.views.tokens import resolve_tokens
from gemsdata.views.view import open_view


def shard_view(
    paths: Iterable[str | Path],
    out: str | Path,
    genome_options: ShardOptions,
    view_options: ViewOptions,
    write_options: WriteOptions,
    *,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> tuple[Manifest, dict[str, Any]]:
    """Write rows of a genome, cut and tokenized according to the view options, to the folder or URL ``out``.

    The genome is first packed in a hidden folder beside ``out``, which takes about 0.26 bytes per base; the folder is
    removed at the end, but kept for ``resume`` if the run is interrupted. For a URL, the whole set is written to a
    temporary folder and then uploaded; there is no ``resume``. Windows are not shifted unless ``jitter`` is True.
    Returns the manifest and the report of the genome. Raises as `gemsdata.shards.write.shard` and `View.write`.
    """
    if is_url(out):
        if resume:
            raise ValueError(f"{out}: rows of a view are not resumed at a URL; begin anew, with --overwrite if needed")
        output = OutputFolder(str(out))
        check_writable_url(output, resume=False, overwrite=overwrite)
        with tempfile.TemporaryDirectory(prefix="gemsdata-") as scratch:
            local, options = Path(scratch, "set"), (genome_options, view_options, write_options)
            manifest, summary = shard_view(paths, local, *options, workers=workers, progress=progress)
            put_set(local, output, manifest)
        return manifest, summary
    folder = Path(out)
    view_options = dataclasses.replace(view_options, jitter=bool(view_options.jitter))
    check_writable(folder, resume=resume, overwrite=overwrite)
    check_writable_options(view_options)
    view_options.single_regions()
    if view_options.tokens is not None:
        view_options.geometry(resolve_tokens(view_options.tokens))
    packed = folder.parent / f".{folder.name}.packed"
    genome_options = dataclasses.replace(genome_options, format="packed")
    try:
        _, summary = shard(
            paths,
            packed,
            genome_options,
            workers=workers,
            resume=resume and packed.exists(),
            overwrite=packed.exists() and not resume,
            progress=progress,
        )
        view = open_view(packed, view_options)
        manifest = write_view(
            view, folder, write_options, workers=workers, resume=resume, overwrite=overwrite, progress=progress
        )
    except (ValueError, FileNotFoundError):  # invalid input, not an interruption: nothing to continue
        shutil.rmtree(packed, ignore_errors=True)
        raise
    shutil.rmtree(packed)
    notes = [note for note in summary["notes"] if "nothing was written" not in note]
    return manifest, {**summary, "notes": notes}
