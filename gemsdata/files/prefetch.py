"""Run an iterator one item ahead of its consumer, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items of an iterator while a thread already computes the next one.

    This saves time where both sides release the GIL. An exception of ``items`` is raised in the consumer. When the
    consumer stops early, the thread ends after its current item.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def put(item: Item | None, failure: BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put((item, failure), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
        except BaseException as failure:
            put(None, failure)
        else:
            put(None, StopIteration())

    thread = threading.Thread(target=run, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, failure = ready.get()
            if isinstance(failure, StopIteration):
                return
            if failure is not None:
                raise failure
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
