"""Series that have rows in a table of durations: so many at once, and idle ones give way to new ones."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

import numpy as np

from ..native.durations import DurationTable
from ..native.key_table import Numbers

#: looks without a change after which a series gives way to a new one
_IDLE: Final = 40

Key = TypeVar("Key", bound=Hashable)


class KeptSeries(Generic[Key]):
    """Not thread-safe. limit: series at once."""

    def __init__(self, table: DurationTable, limit: int) -> None:
        self._table = table
        self._limit = limit
        self._rows: dict[Key, int] = {}
        self._changed: dict[int, int] = {}  # at which look
        self._refused = False
        self._look = 1

    @property
    def is_full(self) -> bool:
        return len(self._rows) >= self._limit

    def row_of(self, series: Key) -> int | None:
        return self._rows.get(series)

    def all(self) -> tuple[list[Key], Numbers]:
        """The series, and their rows."""
        return list(self._rows), np.fromiter(self._rows.values(), np.int64, len(self._rows))

    def add(self, series: Key) -> int:
        """A row for one that has none."""
        row = self._rows[series] = self._table.new()
        self._changed[row] = self._look
        return row

    def refuse(self) -> None:
        """There is no room for a series."""
        self._refused = True

    def end_look(self, changed: Iterable[int]) -> None:
        """changed: the rows to which something was added since the last look."""
        self._changed.update(dict.fromkeys(changed, self._look))
        self._look += 1

    def make_room(self) -> dict[Key, int]:
        """If a series was refused, let idle ones give way: those that did, and their rows. If any did, rows may be of others
        now, and what was refused may find room."""
        if not self._refused:
            return {}
        overdue = self._look - _IDLE
        idle = {series: row for series, row in self._rows.items() if self._changed[row] < overdue}
        for series, row in idle.items():
            del self._rows[series], self._changed[row]
            self._table.free(row)
        self._refused = not idle
        return idle
