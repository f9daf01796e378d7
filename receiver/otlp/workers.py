"""The threads that take requests apart and hand them on, which may have to wait for an exporter's room: each signal has its own."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final

from ...pipeline.component import Signal
from ...pipeline.scheduling import schedule_as_batch

#: requests of a signal that are taken apart and handed on at a time; a thread starts when it is needed first
THREADS: Final = 4


class Workers:
    def __init__(self, component: str, signals: Iterable[Signal]) -> None:
        self._pools = {
            signal: ThreadPoolExecutor(THREADS, f"{component} {signal}", schedule_as_batch) for signal in signals
        }

    def of(self, signal: Signal) -> Executor:
        return self._pools[signal]

    def shutdown(self) -> None:
        """What has not begun does not any more."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
