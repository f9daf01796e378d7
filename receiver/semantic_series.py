"""Series of the semantic metrics: durations of spans, by resource and attributes, cumulative and bounded.

A span stands for 1 / p exchanges if such ones were sampled with probability p, so counts may be estimates. A resource that has
too many series of a metric gets one more for the rest, as an SDK has it; all resources together are bounded, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..native.durations import DurationTable
from .edges import ResourceItems
from .kept_series import KeptSeries
from .semantic_metrics import OVERFLOW_ATTRIBUTES, Attributes, SemanticMetric, all_bounds, semantic_metrics

#: series at once; one takes 1 KB, or 2 with exemplars
SEMANTIC_SERIES_KEPT: Final = 8_192
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
        bounds = all_bounds()
        self.table = DurationTable([round(bound * _NANOSECONDS) for bound in bounds], True, exemplars)
        self._merges = {metric.name: _merge(bounds, metric.bounds) for metric in semantic_metrics()}
        self._bounds = {metric.name: metric.bounds for metric in semantic_metrics()}
        self._kept: KeptSeries[SemanticSeries] = KeptSeries(self.table, limit)
        self._starts: dict[SemanticSeries, int] = {}
        self._totals: dict[SemanticSeries, float] = {}  # of counts, at the last look
        self._of_resource: Counter[tuple[str, ResourceItems]] = Counter()
        self._last_look = self._look_before = start

    def row_of(self, metric: SemanticMetric, resource: ResourceItems, attributes: Attributes) -> int:
        """Of the series, or of that which overflows have instead."""
        series = SemanticSeries(metric.name, resource, attributes)
        row = self._kept.row_of(series)
        if row is not None:
            return row
        has_room = not self._kept.is_full
        if has_room and self._of_resource[metric.name, resource] < metric.limit:
            return self._new(series)
        self._kept.refuse()
        overflow = SemanticSeries(metric.name, resource if has_room else self._rest, OVERFLOW_ATTRIBUTES)
        row = self._kept.row_of(overflow)
        return self._new(overflow) if row is None else row

    def look(self, now: int) -> tuple[Iterator[SemanticCounts], int]:
        """All series, as they are now, and how many exchanges were added to overflows since the last look. now: Unix ns."""
        series, rows = self._kept.all()
        counts, sums, exemplars = self.table.counts[rows], self.table.sums[rows], self.table.take_exemplars(rows)
        totals, before = counts.sum(axis=1), np.array([self._totals[one] for one in series])
        changed = np.flatnonzero(totals != before).tolist()
        overflowed = sum(totals[one] - before[one] for one in changed if series[one].is_overflow)
        self._totals.update((series[one], totals[one]) for one in changed)
        self._kept.end_look(rows[changed].tolist())
        self._look_before, self._last_look = self._last_look, now
        starts = [self._starts[one] for one in series]
        found = map(self._counts, series, starts, counts, sums, exemplars)
        return found, round(overflowed)

    def make_room(self) -> bool:
        """If a series was refused, let idle ones give way. Whether cells are to be looked at anew."""
        gone = self._kept.make_room()
        for series in gone:
            del self._starts[series], self._totals[series]
            if not series.is_overflow:
                self._of_resource[series.metric, series.resource] -= 1
        if gone:
            self._of_resource += Counter()  # those of 0 go
        return bool(gone)

    def _new(self, series: SemanticSeries) -> int:
        # A span is counted a drain or more after it ended, maybe before the last look; two looks ago nobody had counted one.
        self._starts[series], self._totals[series] = self._look_before, 0.0
        if not series.is_overflow:
            self._of_resource[series.metric, series.resource] += 1
        return self._kept.add(series)

    def _counts(
        self, series: SemanticSeries, start: int, counts: Any, total: Any, exemplars: npt.NDArray[Any]
    ) -> SemanticCounts:
        merge = self._merges[series.metric]
        merged = np.bincount(merge, counts, minlength=int(merge[-1]) + 1)
        return SemanticCounts(
            series,
            start,
            self._bounds[series.metric],
            np.rint(merged).astype(np.int64),
            float(total) / _NANOSECONDS,
            exemplars[exemplars["span_id"] != 0],
        )


def _merge(bounds: tuple[float, ...], coarse: tuple[float, ...]) -> npt.NDArray[np.int64]:
    """Of each bucket by ``bounds`` the one by ``coarse``, some of these bounds, that holds it."""
    return np.searchsorted(np.array(coarse), np.array([*bounds, np.inf]), side="left").astype(np.int64)
