"""Metrics of exchanges: what the kernel counts of edges becomes cumulative series.

An edge of the kernel is a program image at a port, with an outcome; a series is a service there. What was counted since the
last look is added to the edge's series, so edges may come and go: one that has been idle is taken out of the kernel, and its
series goes on. Both are bounded. What finds no room in the kernel, or here, is counted in one series of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..pipeline.spans import AttributeValue, SpanKind
from .edge_groups import EdgeNames, Grouped
from .histogram import SLOTS
from .kernel.edges import Counted, EdgeCounts
from .process import ImageKey

#: series at once; one takes 5 KB
SERIES_KEPT: Final = 4_096
#: looks without a change after which an edge is taken out of the kernel; where they fill three quarters of it, fewer
_IDLE: Final = 20
_IDLE_WHEN_FULL: Final = 2
#: edges taken out at one look, each a system call
_TAKEN_AT_ONCE: Final = 1_024
#: looks without a change after which a series gives way to a new one
_SERIES_IDLE: Final = 2 * _IDLE

_ROWS: Final = 64

#: attributes of a resource, sorted
ResourceItems: TypeAlias = tuple[tuple[str, AttributeValue], ...]
#: what series tell apart: services, or each process
Level: TypeAlias = Literal["workload", "instance"]
Rows: TypeAlias = npt.NDArray[np.int64]


class EdgeSource(Protocol):
    """The kernel's edges; see :class:`.kernel.edges.EdgeMap`."""

    key_dtype: np.dtype[np.void]
    counted: Counted

    @property
    def capacity(self) -> int: ...
    def parts(self) -> Iterator[tuple[npt.NDArray[np.uint8], EdgeCounts]]: ...
    def take(self, key: bytes) -> EdgeCounts | None: ...
    def overflow(self) -> EdgeCounts: ...


class Series(NamedTuple):
    """Whose counts these are: a resource, and what the attributes of a point say; empty if it does not apply, or is not known."""

    resource: ResourceItems
    kind: SpanKind
    server_port: int
    transport: str
    protocol: str
    status: str
    error: str
    peer: str


#: of all exchanges that found no room
OVERFLOW: Final = Series((), SpanKind.INTERNAL, 0, "", "", "", "", "")


def series_of(
    edge: Any, comm: npt.NDArray[np.uint8], names: EdgeNames, describe: Callable[[ImageKey], ResourceItems]
) -> Series:
    """The series of a ``struct edge``."""
    process = edge["process"]
    image = ImageKey(
        int(process["tgid"]),
        int(process["start_time"]),
        int(process["exec_id"]),
        comm.tobytes().split(b"\0", 1)[0],
    )
    return Series(
        describe(image),
        names.kinds[int(edge["role"])],
        int(edge["server_port"]),
        names.transports[int(edge["transport"])],
        names.protocols[int(edge["protocol"])],
        names.statuses[int(edge["status"])],
        names.outcomes[int(edge["outcome"])],
        names.peers[int(edge["peer"])],
    )


@dataclass(frozen=True, slots=True)
class SeriesCounts:
    """What was counted of a series since ``start`` (Unix ns). sums, slots: one, and (SLOTS,), for each name of Counted."""

    series: Series
    start: int
    sums: npt.NDArray[np.uint64]
    slots: npt.NDArray[np.uint64]


class _Table:
    """Counts in numbered rows; rows that were given back are used again."""

    def __init__(self, counted: Counted, slots_dtype: npt.DTypeLike) -> None:
        self.sums = np.zeros((_ROWS, len(counted.sums)), np.uint64)
        self.slots: npt.NDArray[Any] = np.zeros((_ROWS, len(counted.histograms) * SLOTS), slots_dtype)
        self.changed = np.zeros(_ROWS, np.int64)  # at which look
        self._free: list[int] = []
        self._used = 0

    def new(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used == len(self.sums):
            self.sums = np.concatenate((self.sums, np.zeros_like(self.sums)))
            self.slots = np.concatenate((self.slots, np.zeros_like(self.slots)))
            self.changed = np.concatenate((self.changed, np.zeros_like(self.changed)))
        self._used += 1
        return self._used - 1

    def free(self, row: int) -> None:
        self.sums[row] = 0
        self.slots[row] = 0
        self._free.append(row)


class EdgeAccounts:
    """The series of all edges. Not thread-safe.

    describe: the resource of a program image. start: since when the kernel counts, Unix ns.
    """

    def __init__(
        self,
        source: EdgeSource,
        names: EdgeNames,
        describe: Callable[[ImageKey], ResourceItems],
        start: int,
        limit: int = SERIES_KEPT,
    ) -> None:
        self._source = source
        self._names = names
        self._describe = describe
        self._limit = limit
        self._width = len(source.counted.histograms) * SLOTS
        self._look = 1  # the number of the next one
        self._last_look = start
        self._edges = _Table(source.counted, np.uint32)
        self._rows: dict[bytes, int] = {}
        self._series_of: dict[int, int] = {}  # edge's row → series' row
        self._series = _Table(source.counted, np.uint64)
        self._series_rows: dict[Series, int] = {}
        self._starts: dict[int, int] = {}
        self._overflow = self._new_series(OVERFLOW)
        self._overflow_edge = self._edges.new()

    def look(self, now: int) -> None:
        """Add what was counted since the last look. now: Unix ns."""
        for keys, counts in self._source.parts():
            self._add(_bytes_of(keys), counts)
        self._add_delta([self._overflow], *self._delta(np.array([self._overflow_edge]), self._source.overflow()))
        self._take_idle()
        self._last_look = now
        self._look += 1

    def add(self, found: Grouped) -> None:
        """Count here what the kernel does not."""
        rows = [self._row_of_series(Series(self._describe(image), *rest)) for image, rest in found.groups]
        self._add_delta(rows, found.sums, found.slots.reshape(len(rows), self._width))

    def series(self) -> Iterator[SeriesCounts]:
        """All that counted something."""
        for series, row in self._series_rows.items():
            if self._series.changed[row]:
                slots = self._series.slots[row].reshape(-1, SLOTS)
                yield SeriesCounts(series, self._starts[row], self._series.sums[row], slots)

    def _add(self, keys: Sequence[bytes], counts: EdgeCounts) -> None:
        rows = np.array([self._row_of(key) for key in keys], np.int64)
        sums, slots = self._delta(rows, counts)
        changed = np.flatnonzero(sums.any(axis=1) | slots.any(axis=1))
        if not len(changed):
            return
        self._edges.changed[rows[changed]] = self._look
        series = [self._series_of_edge(int(rows[i]), keys[i], counts.comms[i]) for i in changed.tolist()]
        self._add_delta(series, sums[changed], slots[changed])

    def _delta(self, rows: Rows, counts: EdgeCounts) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        """What was added to edges since they were looked at last."""
        slots = counts.slots.reshape(len(rows), self._width)
        delta = counts.sums - self._edges.sums[rows], slots - self._edges.slots[rows]
        self._edges.sums[rows], self._edges.slots[rows] = counts.sums, slots
        return delta

    def _add_delta(self, series: Sequence[int], sums: npt.NDArray[np.uint64], slots: npt.NDArray[np.uint32]) -> None:
        rows = np.array(series, np.int64)
        order = np.argsort(rows, kind="stable")
        found, begins = np.unique(rows[order], return_index=True)
        added = np.add.reduceat(sums[order], begins, axis=0)
        added_slots = np.add.reduceat(slots[order], begins, axis=0, dtype=np.uint64)
        self._series.sums[found] += added
        self._series.slots[found] += added_slots
        self._series.changed[found[added.any(axis=1) | added_slots.any(axis=1)]] = self._look

    def _row_of(self, key: bytes) -> int:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._edges.new()
            self._edges.changed[row] = self._look
        return row

    def _series_of_edge(self, row: int, key: bytes, comm: npt.NDArray[np.uint8]) -> int:
        found = self._series_of.get(row)
        if found is None:
            edge = np.frombuffer(key, self._source.key_dtype)[0]
            found = self._row_of_series(series_of(edge, comm, self._names, self._describe))
            self._series_of[row] = found
        self._series.changed[found] = self._look  # so that it does not give way before its counts are added
        return found

    def _row_of_series(self, series: Series) -> int:
        row = self._series_rows.get(series)
        if row is None:
            row = self._new_series(series) if self._has_room() else self._overflow
        self._series.changed[row] = self._look
        return row

    def _new_series(self, series: Series) -> int:
        row = self._series_rows[series] = self._series.new()
        self._starts[row] = self._last_look
        self._series.changed[row] = 0
        return row

    def _has_room(self) -> bool:
        if len(self._series_rows) < self._limit:
            return True
        overdue = self._look - _SERIES_IDLE
        idle = [(s, row) for s, row in self._series_rows.items() if self._series.changed[row] < overdue]
        for series, row in idle:
            if row != self._overflow:
                self._forget_series(series, row)
        return len(self._series_rows) < self._limit

    def _forget_series(self, series: Series, row: int) -> None:
        del self._series_rows[series], self._starts[row]
        self._series_of = {edge: of for edge, of in self._series_of.items() if of != row}
        self._series.free(row)

    def _take_idle(self) -> None:
        """Take edges out of the kernel that have not changed for long. What they counted last is not lost."""
        patience = _IDLE_WHEN_FULL if len(self._rows) * 4 > self._source.capacity * 3 else _IDLE
        overdue = self._look - patience
        idle = [key for key, row in self._rows.items() if self._edges.changed[row] <= overdue]
        for key in idle[:_TAKEN_AT_ONCE]:
            counts = self._source.take(key)
            if counts is not None:
                self._add([key], counts)
            row = self._rows.pop(key)
            self._series_of.pop(row, None)
            self._edges.free(row)


def _bytes_of(keys: npt.NDArray[np.uint8]) -> list[bytes]:
    data, size = keys.tobytes(), keys.shape[1]
    return [data[at : at + size] for at in range(0, len(data), size)]
