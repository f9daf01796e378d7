"""How many connections there are at each look, by series. Counted anew each time, so that nothing can drift."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from .edge_groups import EdgeNames
from .edges import OVERFLOW, SERIES_KEPT, ResourceItems, Series, series_of
from .process import ImageKey
from .scopes import Records

#: looks for which a series goes on to say that there is none any more
_IDLE: Final = 40


class OpenCount(NamedTuple):
    """connections: now. start: when the series began, Unix ns."""

    series: Series
    start: int
    connections: int


class OpenConnections:
    """Not thread-safe. describe: the resource of a program image."""

    def __init__(
        self, names: EdgeNames, describe: Callable[[ImageKey], ResourceItems], limit: int = SERIES_KEPT
    ) -> None:
        self._names = names
        self._describe = describe
        self._limit = limit
        self._look = 0
        self._counts: dict[Series, int] = {}
        self._starts: dict[Series, int] = {}
        self._met: dict[Series, int] = {}  # at which look last
        self._series: dict[bytes, Series] = {}  # of the edges of the last look

    def look(self, found: Records, now: int) -> None:
        """found: ``struct open_connection``; of a socket that several processes have, the first one counts. now: Unix ns."""
        self._look += 1
        _, firsts = np.unique(found["cookie"], return_index=True)
        edges, comms = found["edge"][firsts], found["comm"][firsts]
        keys = np.ascontiguousarray(edges).view(f"V{edges.dtype.itemsize}")
        _, rows, counts = np.unique(keys, return_index=True, return_counts=True)
        named: dict[bytes, Series] = {}
        self._counts = dict.fromkeys(self._counts, 0)
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            key = keys[row].tobytes()
            series = self._series.get(key) or series_of(edges[row], comms[row], self._names, self._describe)
            named[key] = series
            self._add(series, count, now)
        self._series = named
        self._forget()

    def counts(self) -> Iterator[OpenCount]:
        """Those of the last look, and for a while those that there were before."""
        for series, connections in self._counts.items():
            yield OpenCount(series, self._starts[series], connections)

    def _add(self, series: Series, count: int, now: int) -> None:
        if series not in self._counts and len(self._counts) >= self._limit:
            series = OVERFLOW
        self._counts[series] = self._counts.get(series, 0) + count
        self._starts.setdefault(series, now)
        self._met[series] = self._look

    def _forget(self) -> None:
        for series in [series for series, met in self._met.items() if met <= self._look - _IDLE]:
            del self._counts[series], self._starts[series], self._met[series]
