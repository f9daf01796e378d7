"""Durations of spans, counted by bucket in the rows of a table, with one span of each bucket as exemplar; see durations.c."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .key_table import Numbers
from .library import Durations, DurationTableStruct, Exemplar, address, addresses, library

EXEMPLAR: Final = np.dtype(Exemplar)

_ROWS: Final = 64

Column: TypeAlias = npt.NDArray[np.uint64]


class Spans:
    """n spans: columns of a batch, (n,) uint64, trace_id (n, 2). cells: (n,), of each its cell."""

    def __init__(self, start: Column, end: Column, trace_id: Column, span_id: Column, cells: Numbers) -> None:
        self._columns = [np.ascontiguousarray(column) for column in (cells, start, end, trace_id, span_id)]
        self.argument = byref(Durations(len(cells), *addresses(*self._columns)))


class DurationTable:
    """Rows of ``len(bounds) + 1`` buckets. Rows that were given back are used again.

    bounds: ns, ascending; a duration that equals one lies below it. counting, exemplars: what is kept; the rest takes no memory.
    """

    def __init__(self, bounds: Sequence[int], counting: bool, exemplars: bool) -> None:
        self.bounds = np.array(bounds, np.uint64)
        self._counting, self._keeping = counting, exemplars
        buckets = len(bounds) + 1
        self.counts: npt.NDArray[np.float64] = np.zeros((_ROWS, buckets if counting else 0))
        self.sums: npt.NDArray[np.float64] = np.zeros(_ROWS)  # ns
        self.exemplars: npt.NDArray[Any] = np.zeros((_ROWS, buckets if exemplars else 0), EXEMPLAR)
        self._free: list[int] = []
        self._used = 0
        self._argument = self._described()

    def new(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used == len(self.sums):
            self.counts = np.concatenate((self.counts, np.zeros_like(self.counts)))
            self.sums = np.concatenate((self.sums, np.zeros_like(self.sums)))
            self.exemplars = np.concatenate((self.exemplars, np.zeros_like(self.exemplars)))
            self._argument = self._described()
        self._used += 1
        return self._used - 1

    def free(self, row: int) -> None:
        self.counts[row] = 0
        self.sums[row] = 0
        self.exemplars[row] = 0
        self._free.append(row)

    def take_exemplars(self, rows: Numbers) -> npt.NDArray[Any]:
        """Those of these rows, (n, buckets), since the last time. Others are forgotten."""
        taken: npt.NDArray[Any] = self.exemplars[rows]
        self.exemplars[:] = 0
        return taken

    def add(self, spans: Spans, rows: int, weights: int) -> None:
        """rows, weights: addresses of what each cell has: its row, -1 where it has none, int64; and for how many exchanges one of
        its spans stands, double."""
        library().durations_add(spans.argument, rows, weights, self._argument)

    def _described(self) -> Any:
        counted = addresses(self.counts, self.sums) if self._counting else (None, None)
        exemplars = address(self.exemplars) if self._keeping else None
        return byref(DurationTableStruct(address(self.bounds), len(self.bounds), *counted, exemplars))
