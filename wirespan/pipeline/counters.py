"""Counts of everything that happens to data, without importing the OpenTelemetry SDK.

The service reads :meth:`Counters.snapshot` and hands it to the SDK's observable instruments; the identity
``observed = exported + sampled_out + excluded + skipped + dropped{reason} + in_flight`` is computed from the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeAlias

CounterKey: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


class Counters:
    """Monotonic sums by (metric name, attributes), and gauges read when asked. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._sums: dict[CounterKey, int] = {}
        self._sources: list[Callable[[], dict[CounterKey, int]]] = []
        self._durations: list[Callable[[], dict[CounterKey, float]]] = []
        self._gauges: dict[CounterKey, Callable[[], int]] = {}

    def add(self, name: str, amount: int, **attributes: str) -> None:
        """Add to a sum. Called once a batch, never once a span."""
        key = (name, tuple(sorted(attributes.items())))
        with self._lock:
            self._sums[key] = self._sums.get(key, 0) + amount

    def gauge(self, name: str, read: Callable[[], int], **attributes: str) -> None:
        """Register a value that is read at every snapshot (a queue's length)."""
        self._gauges[(name, tuple(sorted(attributes.items())))] = read

    def source(self, read: Callable[[], dict[CounterKey, int]]) -> None:
        """Register sums that live elsewhere (the kernel's per-CPU counters) and are read at every
        snapshot; a sum of the same name counted here is added."""
        self._sources.append(read)

    def duration_source(self, read: Callable[[], dict[CounterKey, float]]) -> None:
        """Register sums of time, in s, that are read when asked."""
        self._durations.append(read)

    def durations(self) -> dict[CounterKey, float]:
        """All sums of time, in s, by key; of several sources added up."""
        sums: dict[CounterKey, float] = {}
        for source in self._durations:
            for key, amount in source().items():
                sums[key] = sums.get(key, 0.0) + amount
        return sums

    def snapshot(self) -> dict[CounterKey, int]:
        """All sums, by key."""
        with self._lock:
            sums = dict(self._sums)
        for source in self._sources:
            for key, amount in source().items():
                sums[key] = sums.get(key, 0) + amount
        return sums

    def gauges(self) -> dict[CounterKey, int]:
        """All gauges, read now."""
        return {key: read() for key, read in dict(self._gauges).items()}
