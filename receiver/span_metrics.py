"""What spans add to metrics: durations by the semantic conventions, and exemplars for what the kernel counts.

Spans of a batch whose operation, resource, end and outcome are the same are one cell. A cell is looked at once, and then tells
in which series its spans count, and for how many exchanges each stands; all that is done for every span is C
(wirespan/native/durations.c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ctypes import byref
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..native.durations import Spans
from ..native.key_table import KeyTable, Numbers
from ..native.library import address, addresses, library, records_of
from ..pipeline.counters import Counters
from ..pipeline.spans import AttributeValue, Fragment, FragmentColumn, SpanBatch, SpanKind
from .edge_groups import EdgeNames
from .edges import ResourceItems, Series
from .exemplars import ExemplarAccounts, Exemplars, edge_series
from .process import LIMIT, ImageKey, Resource, image_key
from .scopes import Records
from .semantic_metrics import metric_of
from .semantic_series import SEMANTIC_SERIES_KEPT, SemanticAccounts, SemanticCounts

#: cells remembered, in each of two generations; an entry takes some 50 bytes
CELLS_KEPT: Final = 16_384

_NOTHING: Final = Fragment()
#: an attribute of a process that was looked up while it ran
_RESOLVED: Final = "process.executable.path"
_EXCHANGES: Final = (SpanKind.SERVER, SpanKind.CLIENT)


class SpanMetrics:
    """Not thread-safe.

    describe: what series have of a program image and the resource of its spans. rest: the resource of what finds no room. start: since when
    there are spans, Unix ns. exemplars: whether spans go up.
    """

    def __init__(
        self,
        names: EdgeNames,
        describe: Callable[[ImageKey, Resource], ResourceItems],
        rest: ResourceItems,
        counters: Counters,
        start: int,
        exemplars: bool,
        limit: int = SEMANTIC_SERIES_KEPT,
    ) -> None:
        self._names = names
        self._describe = describe
        self._counters = counters
        self._semantic = SemanticAccounts(rest, start, exemplars, limit)
        self._exemplars = ExemplarAccounts() if exemplars else None
        self._cells = _Cells()
        self._learned: dict[ImageKey, Resource] = {}

    def count(self, batch: SpanBatch, records: Records) -> None:
        """Once for every span. records: those of the batch."""
        if not len(batch):
            return
        rows = _Rows(batch, records)
        if self._cells.stale(rows):
            self._cells = _Cells(rows)
        cells = self._cells.of(rows, self._cell_of)
        spans = Spans(batch.start, batch.end, batch.trace_id, batch.span_id, cells)
        semantic, edges, weights = self._cells.places
        self._semantic.table.add(spans, semantic, weights)
        if self._exemplars is not None:
            self._exemplars.table.add(spans, edges, weights)

    def learned(self) -> dict[ImageKey, Resource]:
        """What is known of processes that were met since the last time."""
        learned, self._learned = self._learned, {}
        return learned

    def look(self, now: int) -> tuple[Iterator[SemanticCounts], dict[Series, Exemplars]]:
        """The semantic metrics, of which nothing that changes any more is asked, and exemplars of edges since the last look. now:
        Unix ns."""
        counts, overflowed = self._semantic.look(now)
        if overflowed:
            self._counters.add("wirespan.semantic_metrics.overflowed", overflowed)
        exemplars = {} if self._exemplars is None else self._exemplars.take()
        moved = self._semantic.make_room()
        if self._exemplars is not None:
            moved |= self._exemplars.make_room()
        if moved:
            self._cells = _Cells()
        return counts, exemplars

    def _cell_of(self, rows: _Rows, row: int) -> _Cell:
        kind = SpanKind(int(rows.batch.kind[row]))
        if kind not in _EXCHANGES:  # a message
            return _Cell(-1, -1, 1.0)
        resource = self._resource_of(rows, row)
        operation, remark = rows.operation(row), rows.remark(row)
        said = dict((*operation.attributes, *remark.attributes))
        metric = metric_of(kind, said)
        semantic = edges = -1
        if metric is not None:
            port: AttributeValue = int(rows.batch.numbers["server.port"][row])
            attributes = metric.attributes_of({**said, "server.port": port})
            semantic = self._semantic.row_of(metric, resource, attributes)
        if self._exemplars is not None:
            series = edge_series(rows.records[row], operation, resource, self._names)
            edges = self._exemplars.row_of(series)
        probability = said.get("wirespan.sampling.probability", 1.0)
        assert isinstance(probability, float)
        return _Cell(semantic, edges, 1.0 / probability)

    def _resource_of(self, rows: _Rows, row: int) -> ResourceItems:
        number = int(rows.batch.resource[row])
        known = self._cells.resources.get(number)
        if known is not None:
            return known
        image, resource = image_key(rows.records[row]["process"]), rows.resources.resources[number]
        if _RESOLVED in resource and len(self._learned) < LIMIT:
            self._learned[image] = resource
        described = self._cells.resources[number] = self._describe(image, resource)
        return described


class _Rows:
    """A batch, and what is repeated in it."""

    def __init__(self, batch: SpanBatch, records: Records) -> None:
        self.batch, self.records, self.resources = batch, records, batch.resources
        _, self.operations, *remarks = batch.fragments  # as ExchangeTranslator puts them together
        self.remarks = remarks[0] if remarks else None

    def operation(self, row: int) -> Fragment:
        return _fragment(self.operations, row)

    def remark(self, row: int) -> Fragment:
        return _NOTHING if self.remarks is None else _fragment(self.remarks, row)

    def keys(self) -> npt.NDArray[np.uint64]:
        keys = np.empty(len(self.batch), np.uint64)
        operations, resources = (np.ascontiguousarray(ids) for ids in (self.operations.ids, self.batch.resource))
        remarks = None if self.remarks is None else np.ascontiguousarray(self.remarks.ids)
        places = address(operations), None if remarks is None else address(remarks), address(resources)
        library().series_keys(byref(records_of(self.records)), *places, address(keys))
        return keys


def _fragment(column: FragmentColumn, row: int) -> Fragment:
    return column.table.fragments[int(column.ids[row])]


class _Cell(NamedTuple):
    """Rows of the series, -1: none. weight: of a span."""

    semantic: int
    edges: int
    weight: float


class _Cells:
    """Those of batches with the same tables."""

    def __init__(self, rows: _Rows | None = None) -> None:
        self._tables: list[object] = [] if rows is None else [rows.resources, rows.operations.table]
        self._remarks: object = None
        self.resources: dict[int, ResourceItems] = {}  # by index
        self._by_key = KeyTable(CELLS_KEPT)
        self._count = 0
        self._semantic: Numbers = np.empty(64, np.int64)
        self._edges: Numbers = np.empty(64, np.int64)
        self._weights: npt.NDArray[np.float64] = np.empty(64)
        self.places = addresses(self._semantic, self._edges, self._weights)

    def stale(self, rows: _Rows) -> bool:
        """Whether these are cells of other tables, or too many."""
        if self._count >= 2 * CELLS_KEPT or len(self._tables) != 2:
            return True
        if self._tables[0] is not rows.resources or self._tables[1] is not rows.operations.table:
            return True
        if rows.remarks is None:
            return False
        if self._remarks is None:
            self._remarks = rows.remarks.table
        return self._remarks is not rows.remarks.table

    def of(self, rows: _Rows, look_at: Callable[[_Rows, int], _Cell]) -> Numbers:
        """The cell of each row; ``look_at`` is asked once for each that is new."""
        return self._by_key.recall(rows.keys(), lambda row: self._add(look_at(rows, row)))

    def _add(self, cell: _Cell) -> int:
        if self._count == len(self._weights):
            self._semantic, self._edges = (np.concatenate((old, old)) for old in (self._semantic, self._edges))
            self._weights = np.concatenate((self._weights, self._weights))
            self.places = addresses(self._semantic, self._edges, self._weights)
        self._semantic[self._count], self._edges[self._count], self._weights[self._count] = cell
        self._count += 1
        return self._count - 1
