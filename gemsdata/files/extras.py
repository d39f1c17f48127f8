"""The extra of gemsdata that installs each optional package, for error messages."""

from __future__ import annotations

EXTRA_OF = {
    "accelerate": "train",
    "fsspec": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "torch": "train",
    "transformers": "train",
    "jinja2": "plot",
    "logomaker": "plot",
    "markdown_it": "plot",
    "matplotlib": "plot",
    "obstore": "s3",
    "dask": "dask",
    "ray": "ray",
    "distributed": "dask",
    "submitit": "slurm",
    "sklearn": "lint",
    "scipy": "lint",
    "sourmash": "lint",
    "pyBigWig": "track",
    "lightning": "lightning",
    "memelite": "eval",
    "pandas": "eval",
    "statsmodels": "eval",
}
"""extra by top-level module name"""


def missing_module(error: ModuleNotFoundError, what: str, *, extra: str | None = None) -> ImportError:
    """Return an ImportError that names the extra which installs a missing module; ``what`` is the part that needs it.

    ``extra`` is the extra of that part; by default, the extra of the module. The error itself is returned if no extra
    installs the module.
    """
    module = (error.name or "").partition(".")[0]
    if module not in EXTRA_OF:
        return error
    return ImportError(
        f"{what} needs {module}; install it with: pip install 'gemsdata[{extra or EXTRA_OF[module]}]'", name=error.name
    )
