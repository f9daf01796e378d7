"""Series of the semantic metrics: durations of spans, by resource and attributes, cumulative and bounded.

A span stands for 1 / p exchanges if such ones were sampled with probability p, so counts may be estimates. A resource that has
too many series of a metric gets one more for the rest, as an SDK has it; all resources together are bounded, too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..native.durations import DurationTable
from .edges import ResourceItems
from .semantic_metrics import OVERFLOW_ATTRIBUTES, Attributes, SemanticMetric, all_bounds, semantic_metrics

#: series at once; one takes 1 KB, or 2 with exemplars
SEMANTIC_SERIES_KEPT: Final = 8_192
#: looks without a change after which a series gives way to a new one
_SERIES_IDLE: Final = 40
_NANOSECONDS: Final = 1e9


class SemanticSeries(NamedTuple):
    """metric: its name."""

    metric: str
    resource: ResourceItems
    attributes: Attributes

    @property
    def is_overflow(self) -> bool:
        return self.attributes == OVERFLOW_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class SemanticCounts:
    """What was counted of a series since ``start`` (Unix ns). counts: by bucket, one more than ``bounds``, s. total: of the
    durations, s. exemplars: of EXEMPLAR, those since the last look."""

    series: SemanticSeries
    start: int
    bounds: tuple[float, ...]
    counts: npt.NDArray[np.int64]
    total: float
    exemplars: npt.NDArray[Any]


class SemanticAccounts:
    """Not thread-safe. rest: the resource of what finds no room at all. start: since when spans are counted, Unix ns."""

    def __init__(self, rest: ResourceItems, start: int, exemplars: bool, limit: int = SEMANTIC_SERIES_KEPT) -> None:
        self._rest = rest
        self._limit = limit
        bounds = all_bounds()
        self.table = DurationTable([round(bound * _NANOSECONDS) for bound in bounds], True, exemplars)
        self._merges = {metric.name: _merge(bounds, metric.bounds) for metric in semantic_metrics()}
        self._bounds = {metric.name: metric.bounds for metric in semantic_metrics()}
        self._rows: dict[SemanticSeries, int] = {}
        self._starts: dict[int, int] = {}
        self._changed: dict[int, int] = {}  # at which look
        self._totals: dict[int, float] = {}  # of counts, at the last look
        self._of_resource: Counter[tuple[str, ResourceItems]] = Counter()
        self._refused = False
        self._look = 1
        self._last_look = self._look_before = start

    def row_of(self, metric: SemanticMetric, resource: ResourceItems, attributes: Attributes) -> int:
        """Of the series, or of that which overflows have instead."""
        series = SemanticSeries(metric.name, resource, attributes)
        row = self._rows.get(series)
        if row is not None:
            return row
        if self._of_resource[metric.name, resource] < metric.limit and len(self._rows) < self._limit:
            return self._new(series)
        self._refused = True
        room = len(self._rows) < self._limit
        overflow = SemanticSeries(metric.name, resource if room else self._rest, OVERFLOW_ATTRIBUTES)
        row = self._rows.get(overflow)
        return self._new(overflow) if row is None else row

    def look(self, now: int) -> tuple[list[SemanticCounts], int]:
        """All series, and how many exchanges were added to overflows since the last look. now: Unix ns."""
        found, overflowed = [], 0.0
        for series, row in self._rows.items():
            total = float(self.table.counts[row].sum())
            if total != self._totals[row]:
                self._changed[row] = self._look
                overflowed += total - self._totals[row] if series.is_overflow else 0.0
                self._totals[row] = total
            found.append(self._counts(series, row))
        self.table.exemplars[:] = 0
        self._look += 1
        self._look_before, self._last_look = self._last_look, now
        return found, round(overflowed)

    def make_room(self) -> bool:
        """If a series was refused, let idle ones give way. Whether cells are to be looked at anew: their rows may be of others
        now, and what was refused may find room."""
        if not self._refused:
            return False
        overdue = self._look - _SERIES_IDLE
        idle = [series for series, row in self._rows.items() if self._changed[row] < overdue]
        for series in idle:
            self._forget(series)
        self._of_resource += Counter()  # those of 0 go
        self._refused = not idle
        return bool(idle)

    def _new(self, series: SemanticSeries) -> int:
        # A span is counted a drain or more after it ended, maybe before the last look; two looks ago nobody had counted one.
        row = self._rows[series] = self.table.new()
        self._starts[row], self._changed[row], self._totals[row] = self._look_before, self._look, 0.0
        if not series.is_overflow:
            self._of_resource[series.metric, series.resource] += 1
        return row

    def _forget(self, series: SemanticSeries) -> None:
        row = self._rows.pop(series)
        del self._starts[row], self._changed[row], self._totals[row]
        if not series.is_overflow:
            self._of_resource[series.metric, series.resource] -= 1
        self.table.free(row)

    def _counts(self, series: SemanticSeries, row: int) -> SemanticCounts:
        merge = self._merges[series.metric]
        counts = np.bincount(merge, self.table.counts[row], minlength=int(merge[-1]) + 1)
        exemplars = self.table.exemplars[row]
        return SemanticCounts(
            series,
            self._starts[row],
            self._bounds[series.metric],
            np.rint(counts).astype(np.int64),
            float(self.table.sums[row]) / _NANOSECONDS,
            exemplars[exemplars["span_id"] != 0],
        )


def _merge(bounds: tuple[float, ...], coarse: tuple[float, ...]) -> npt.NDArray[np.int64]:
    """Of each bucket by ``bounds`` the one by ``coarse``, some of these bounds, that holds it."""
    return np.searchsorted(np.array(coarse), np.array([*bounds, np.inf]), side="left").astype(np.int64)
