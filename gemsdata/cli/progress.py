"""Progress bars on standard error; nothing is written if it is not a terminal."""

from __future__ import annotations

import sys
import threading
from types import TracebackType

from tqdm import tqdm

from gemsdata.cli.output import is_quiet

_UNITS = {
    "reading": "B",
    "reading bases": "base",
    "reading rows": "row",
    "writing": "row",
    "checking": "row",
    "auditing": "row",
    "linting": "file",
    "auditing strategies": "strategy",
    "plotting": "figure",
}


class ProgressBars:
    """Progress bars, one per stage; thread-safe."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm] = {}
        self._lock = threading.Lock()
        self._hidden = is_quiet() or not sys.stderr.isatty()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Advance the bar of ``stage`` by ``done``."""
        with self._lock:
            if stage not in self._bars:
                self._bars[stage] = tqdm(
                    desc=stage,
                    total=total,
                    unit=_UNITS.get(stage, ""),
                    unit_scale=True,
                    disable=self._hidden,
                    file=sys.stderr,
                    dynamic_ncols=True,
                )
            self._bars[stage].update(done)

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bar in self._bars.values():
            bar.close()
