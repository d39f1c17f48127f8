"""Values along a genome from a bigWig file, used as loss weights."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from gemsdata.files.hashing import sha256_of
from gemsdata.views.regions import Contigs

_MAGIC = (b"\x26\xfc\x8f\x88", b"\x88\x8f\xfc\x26")
"""first bytes of a bigWig file, in either byte order"""


class Track:
    """A bigWig file; where it has no value, the weight is 0.

    Raises FileNotFoundError, or ValueError for a file that is not bigWig, that lacks a contig of the genome or has it
    with another length; ValueError if pyBigWig is not installed.
    """

    def __init__(self, path: str | Path, contigs: Contigs) -> None:
        self.path, self._names = str(path), contigs.names
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such file; a bigWig file is needed")
        with open(path, "rb") as stream:
            if stream.read(4) not in _MAGIC:  # for other files the library prints its own messages
                raise ValueError(f"{path} is not a bigWig file")
        self._start()
        lengths = self._open().chroms()
        for name, num_bases in zip(contigs.names, contigs.num_bases.tolist(), strict=True):
            if num_bases and lengths.get(name) != num_bases:
                has = "does not have" if name not in lengths else f"has with {lengths[name]} bases, not {num_bases}"
                raise ValueError(f"{path} is of another genome: contig {name} of the set it {has}")
        self.sha256 = sha256_of(Path(path))

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._opened_by, self._file = -1, None

    def weights(self, contig: np.ndarray, start: np.ndarray, num_bases: np.ndarray, out: np.ndarray) -> None:
        """Write the values of rows of bases (integers[B] each) to out float32[B, W]; raise ValueError below 0."""
        with self._lock:
            file = self._open()
            for i, (c, s, n) in enumerate(zip(contig.tolist(), start.tolist(), num_bases.tolist(), strict=True)):
                if n:
                    out[i, :n] = np.nan_to_num(file.values(self._names[c], s, s + n, numpy=True), nan=0.0)
                    if out[i, :n].min() < 0:
                        raise ValueError(
                            f"{self.path} has a negative value near {self._names[c]}:{s}-{s + n}; weights are 0 or more"
                        )

    def _open(self) -> Any:
        """Open the file in this process: a handle does not survive a fork."""
        if self._opened_by != os.getpid():
            try:
                import pyBigWig
            except ImportError:
                raise ValueError(f"track {self.path} needs pyBigWig: pip install 'gemsdata[track]'") from None
            try:
                self._file = pyBigWig.open(self.path)
            except RuntimeError:
                self._file = None
            if self._file is None or not self._file.isBigWig():
                raise ValueError(f"{self.path} is not a bigWig file")
            self._opened_by = os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("path", "_names", "sha256")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()
