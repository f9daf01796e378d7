"""Counts of everything that happens to data, without importing the OpenTelemetry SDK.

The service reads :meth:`Counters.snapshot` and hands it to the SDK's observable instruments; the identity
``observed = exported + sampled_out + excluded + skipped + dropped{reason} + in_flight`` is computed from the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import TypeAlias, TypeVar

CounterKey: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
Number = TypeVar("Number", int, float)


class Counters:
    """Monotonic sums by (metric name, attributes), and gauges read when asked. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()  # guards the sums, the seconds, and which parts there are
        self._sums: dict[CounterKey, int] = {}
        self._seconds: dict[CounterKey, float] = {}
        self._parts: list[PartOfCounters] = []
        self._sources: list[Callable[[], dict[CounterKey, int]]] = []
        self._durations: list[Callable[[], dict[CounterKey, float]]] = []
        self._gauges: dict[CounterKey, Callable[[], int]] = {}

    def add(self, name: str, amount: int, **attributes: str) -> None:
        """Add to a sum. Called once a batch, never once a span."""
        key = (name, tuple(sorted(attributes.items())))
        with self._lock:
            self._sums[key] = self._sums.get(key, 0) + amount

    def add_seconds(self, name: str, seconds: float, **attributes: str) -> None:
        """Add to a sum of time."""
        key = (name, tuple(sorted(attributes.items())))
        with self._lock:
            self._seconds[key] = self._seconds.get(key, 0.0) + seconds

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
        with self._lock:
            sums, all_of = dict(self._seconds), (self, *self._parts)
        _add_up(sums, (read for one in all_of for read in tuple(one._durations)))
        return sums

    def snapshot(self) -> dict[CounterKey, int]:
        """All sums, by key."""
        with self._lock:
            sums, all_of = dict(self._sums), (self, *self._parts)
        _add_up(sums, (read for one in all_of for read in tuple(one._sources)))
        return sums

    def gauges(self) -> dict[CounterKey, int]:
        """All gauges, read now; of several with the same key the latest."""
        with self._lock:
            all_of = (self, *self._parts)
        return {key: read() for one in all_of for key, read in dict(one._gauges).items()}


class PartOfCounters(Counters):
    """What a component counts, as a part of the whole. When it has stopped, its gauges go, and its sums stay."""

    def __init__(self, whole: Counters) -> None:
        super().__init__()
        self._whole = whole
        with whole._lock:
            whole._parts.append(self)

    def add(self, name: str, amount: int, **attributes: str) -> None:
        self._whole.add(name, amount, **attributes)

    def add_seconds(self, name: str, seconds: float, **attributes: str) -> None:
        self._whole.add_seconds(name, seconds, **attributes)

    def snapshot(self) -> dict[CounterKey, int]:
        return self._whole.snapshot()

    def durations(self) -> dict[CounterKey, float]:
        return self._whole.durations()

    def gauges(self) -> dict[CounterKey, int]:
        return self._whole.gauges()

    def retire(self) -> None:
        """What sources count later is lost. May be called twice."""
        sums: dict[CounterKey, int] = {}
        seconds: dict[CounterKey, float] = {}
        _add_up(sums, self._sources)
        _add_up(seconds, self._durations)
        whole = self._whole
        with whole._lock:
            if self in whole._parts:
                whole._parts.remove(self)
                _add_up(whole._sums, [lambda: sums])
                _add_up(whole._seconds, [lambda: seconds])


def _add_up(sums: dict[CounterKey, Number], sources: Iterable[Callable[[], dict[CounterKey, Number]]]) -> None:
    for source in sources:
        for key, amount in source().items():
            sums[key] = sums.get(key, 0) + amount
