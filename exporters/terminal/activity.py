"""Who calls whom, how often and how well: what the table shows, counted batch by batch.

A row is an :class:`Edge`. Which spans are of one edge is told by keys: each fragment, resource and port contributes a
hash of what it says about the edge, and the key of a span is their sum, so a batch is counted in a few passes of numpy
and only a new edge is looked at by Python. Rows are bounded. Row 0 is all others: an edge that finds no room is counted
there, until a row has been quiet for the whole window, or is the least of those that are kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ...pipeline.spans import AttributeValue, Fragment, FragmentTable, ResourceTable, SpanBatch, SpanKind, StatusCode
from .window import DurationWindow, SlidingSums

ROWS: Final = 256
#: rows that give up their place at once to edges that have none, and seconds between two such times
_REPLACED: Final = ROWS // 8
_REPLACED_EVERY: Final = 1.0
#: slots and seconds of each: rates follow what happens now, quantiles need more
_RATE: Final = (5, 1.0)
_RECENT: Final = (4, 20.0)
_OTHERS: Final = 0

_OF_THE_EDGE: Final = frozenset(("service.name", "server.address", "network.protocol.name", "network.transport"))
_CLIENT: Final = "client.address"
_MASK: Final = 2**64 - 1
_ODD: Final = np.uint64(0x9E37_79B9_7F4A_7C15)


@dataclass(frozen=True, slots=True)
class Edge:
    """What the spans of a row have in common, but for ``client``, the first client's address: a server may have thousands.
    service: the end that was observed; kind: which end that is."""

    service: str
    kind: SpanKind
    server: str
    port: int
    client: str
    protocol: str

    @property
    def is_server(self) -> bool:
        return self.kind in (SpanKind.SERVER, SpanKind.CONSUMER)


@dataclass(frozen=True, slots=True)
class Row:
    """edge: None for all others, whose durations are not known. service, peer: as they are to be called. rate: a second.
    requests, errors: since the start. queue: the median. Durations in seconds."""

    edge: Edge | None
    service: str
    peer: str
    rate: float
    requests: int
    errors: int
    recent_errors: int
    p50: float | None
    p99: float | None
    queue: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all spans. rate: a second, lately. spans, errors: since the start."""

    rate: float
    spans: int
    errors: int


class _Contributions:
    """Of each fragment, or resource, of a table: its part of the key of an edge, a hash of the client's address, if it has
    that, and whether it says that the span failed."""

    def __init__(self) -> None:
        self.keys: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self.clients: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self.failed: npt.NDArray[np.bool_] = np.empty(0, np.bool_)

    def extend(self, fragments: Sequence[Fragment]) -> None:
        keys = [_hash(pair for pair in fragment.attributes if pair[0] in _OF_THE_EDGE) for fragment in fragments]
        clients = [_hash(pair for pair in fragment.attributes if pair[0] == _CLIENT) for fragment in fragments]
        failed = [fragment.status is StatusCode.ERROR for fragment in fragments]
        self.keys = np.concatenate((self.keys, np.array(keys, np.uint64)))
        self.clients = np.concatenate((self.clients, np.array(clients, np.uint64)))
        self.failed = np.concatenate((self.failed, np.array(failed, np.bool_)))


class Activity:
    """Not thread-safe. Times are those of a monotonic clock."""

    def __init__(self, now: float) -> None:
        self._edges: list[Edge | None] = [None] * ROWS
        self._first_client = np.zeros(ROWS, np.uint64)
        self._has_several_clients = np.zeros(ROWS, np.bool_)
        self._rows: dict[int, int] = {}  # by key
        self._sorted_keys: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self._sorted_rows: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._contributions: WeakKeyDictionary[FragmentTable | ResourceTable, _Contributions] = WeakKeyDictionary()
        self._rates = SlidingSums(ROWS, *_RATE, now)
        self._requests = SlidingSums(ROWS, *_RECENT, now)
        self._errors = SlidingSums(ROWS, *_RECENT, now)
        self._durations = DurationWindow(ROWS, *_RECENT, now)
        self._queues = DurationWindow(ROWS, *_RECENT, now)
        self._next_replacement = now
        self._windows = (self._rates, self._requests, self._errors, self._durations, self._queues)

    def add(self, batch: SpanBatch, now: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Count a batch. Returns a number of each span's edge, and which spans failed, (n,) both."""
        self._advance(now)
        keys, clients, failed = self._keys_of(batch)
        rows = self._rows_of(keys)
        if (rows == _OTHERS).any() and self._admit(batch, keys, clients, rows, now):
            rows = self._rows_of(keys)
        self._has_several_clients[rows[clients != self._first_client[rows]]] = True
        self._rates.add(rows)
        self._requests.add(rows)
        self._errors.add(rows[failed])
        self._durations.add(rows, batch.end - batch.start)
        queues = batch.numbers.get("wirespan.queue.duration")
        if queues is not None:
            known = ~np.isnan(queues)
            self._queues.add(rows[known], queues[known] * 1e9)
        return rows, failed

    def recent(self, now: float, limit: int, by_errors: bool = False) -> list[Row]:
        """The first ``limit`` edges of those that something happened to lately, the busiest first, or those with most
        errors; then, if there are more, all others as one row."""
        self._advance(now)
        rates = self._rates.recent() / max(self._rates.covered(now), 1.0)
        return self._first(self._requests.recent(), rates, self._errors.recent(), limit, by_errors)

    def all_time(self, limit: int) -> list[Row]:
        """The same over all time, without rates."""
        return self._first(self._requests.total, np.zeros(ROWS), self._errors.total, limit, False, all_time=True)

    def _first(
        self,
        requests: npt.NDArray[np.int64],
        rates: npt.NDArray[np.float64],
        errors: npt.NDArray[np.int64],
        limit: int,
        by_errors: bool,
        all_time: bool = False,
    ) -> list[Row]:
        def rank(row: int) -> tuple[int, float, int, str, int, bool]:
            """The two ends of an edge, which are as busy, stand together, the client first."""
            edge = self._edges[row]
            assert edge is not None
            first = -int(errors[row]) if by_errors else 0
            return first, -round(rates[row], 1), -int(requests[row]), edge.server, edge.port, edge.is_server

        active = np.flatnonzero(requests[1:]) + 1
        order = sorted(active.tolist(), key=rank)
        shown, others = order[:limit], order[limit:]
        # Of the others too: they may be peers.
        names = labels({edge: bool(self._has_several_clients[row]) for row in order if (edge := self._edges[row])})
        rows = [self._row(row, names, rates, errors, all_time) for row in shown]
        if others or requests[_OTHERS]:
            rows.append(self._summed_up(np.array([_OTHERS, *others]), rates, errors))
        return rows

    def _row(
        self,
        row: int,
        names: Mapping[Edge, tuple[str, str]],
        rates: npt.NDArray[np.float64],
        errors: npt.NDArray[np.int64],
        all_time: bool,
    ) -> Row:
        p50, p99 = self._durations.quantiles(row, 0.5, 0.99, all_time=all_time)
        (queue,) = self._queues.quantiles(row, 0.5, all_time=all_time)
        requests, failed = int(self._requests.total[row]), int(self._errors.total[row])
        edge = self._edges[row]
        assert edge is not None
        return Row(edge, *names[edge], float(rates[row]), requests, failed, int(errors[row]), p50, p99, queue)

    def _summed_up(
        self, rows: npt.NDArray[np.int64], rates: npt.NDArray[np.float64], errors: npt.NDArray[np.int64]
    ) -> Row:
        requests, failed = int(self._requests.total[rows].sum()), int(self._errors.total[rows].sum())
        recent = float(rates[rows].sum()), requests, failed, int(errors[rows].sum())
        return Row(None, "others", "", *recent, None, None, None)

    def totals(self, now: float) -> Totals:
        self._advance(now)
        rate = float(self._rates.recent().sum()) / max(self._rates.covered(now), 1.0)
        return Totals(rate, int(self._requests.total.sum()), int(self._errors.total.sum()))

    def _advance(self, now: float) -> None:
        for window in self._windows:
            window.advance(now)

    def _keys_of(
        self, batch: SpanBatch
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
        """Of each span the key of its edge, a hash of its client's address, and whether it failed."""
        port = batch.numbers.get("server.port", np.zeros(len(batch), np.int64))
        keys = (port.astype(np.uint64) << np.uint64(8) | batch.kind) * _ODD
        keys += self._of(batch.resources).keys[batch.resource]
        clients, failed = np.zeros(len(batch), np.uint64), np.zeros(len(batch), np.bool_)
        for column in batch.fragments:
            contributions = self._of(column.table)
            keys += contributions.keys[column.ids]
            clients += contributions.clients[column.ids]
            failed |= contributions.failed[column.ids]
        return keys, clients, failed

    def _of(self, table: FragmentTable | ResourceTable) -> _Contributions:
        contributions = self._contributions.get(table)
        if contributions is None:
            contributions = self._contributions[table] = _Contributions()
        known = len(contributions.keys)
        if known < len(table):
            if isinstance(table, ResourceTable):
                services = [(("service.name", _service(resource)),) for resource in table.resources[known:]]
                contributions.extend([Fragment(attributes=service) for service in services])
            else:
                contributions.extend(table.fragments[known:])
        return contributions

    def _rows_of(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        if not len(self._sorted_keys):
            return np.zeros(len(keys), np.int64)
        at = np.minimum(np.searchsorted(self._sorted_keys, keys), len(self._sorted_keys) - 1)
        rows: npt.NDArray[np.int64] = np.where(self._sorted_keys[at] == keys, self._sorted_rows[at], _OTHERS)
        return rows

    def _admit(
        self,
        batch: SpanBatch,
        keys: npt.NDArray[np.uint64],
        clients: npt.NDArray[np.uint64],
        rows: npt.NDArray[np.int64],
        now: float,
    ) -> bool:
        """Give edges that have no row one, as far as there is room; whether any got one."""
        if len(self._rows) == ROWS - 1:
            if now < self._next_replacement:
                return False
            self._next_replacement = now + _REPLACED_EVERY
            self._make_room()
        unknown = np.flatnonzero(rows == _OTHERS)
        new, first, counts = np.unique(keys[unknown], return_index=True, return_counts=True)
        free = [row for row in range(1, ROWS) if self._edges[row] is None]
        most = np.argsort(-counts, kind="stable")[: len(free)].tolist()
        for row, index in zip(free, most, strict=False):
            span = int(unknown[first[index]])
            self._edges[row] = _edge(batch, span)
            self._first_client[row], self._has_several_clients[row] = clients[span], False
            self._rows[int(new[index])] = row
        self._sort()
        return bool(most)

    def _make_room(self) -> None:
        """Count rows that were quiet among the others, and if there are none, those of least activity."""
        recent = self._requests.recent()
        quiet = [row for row in self._rows.values() if not recent[row]]
        least = quiet or sorted(self._rows.values(), key=lambda row: int(recent[row]))[:_REPLACED]
        leaving = set(least)
        self._rows = {key: row for key, row in self._rows.items() if row not in leaving}
        for row in leaving:
            self._edges[row] = None
            for sums in (self._rates, self._requests, self._errors):
                sums.move(row, row + 1, _OTHERS)
            for durations in (self._durations, self._queues):
                durations.move(row, _OTHERS)

    def _sort(self) -> None:
        keys = np.array(list(self._rows), np.uint64)
        order = np.argsort(keys)
        self._sorted_keys = keys[order]
        self._sorted_rows = np.array(list(self._rows.values()), np.int64)[order]


def labels(edges: Mapping[Edge, bool]) -> Mapping[Edge, tuple[str, str]]:
    """Of each edge, which may have several clients' addresses, how to name its service and its peer: the end that serves
    with its port, and the other end by its service, if that is observed too and cannot be mistaken, else by its address.
    """
    servers: dict[tuple[str, int], dict[str, None]] = defaultdict(dict)
    clients: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)  # each with its address
    for edge in edges:
        if edge.is_server:
            servers[edge.server, edge.port][edge.service] = None
        else:
            clients[edge.server, edge.port][edge.service] = edge.client

    def of(edge: Edge, has_several: bool) -> tuple[str, str]:
        if edge.is_server:
            return f"{edge.service}:{edge.port}", _callers(edge, has_several, clients.get((edge.server, edge.port), {}))
        serving = servers.get((edge.server, edge.port), {})
        address = f"[{edge.server}]" if ":" in edge.server else edge.server
        return edge.service, f"{next(iter(serving)) if len(serving) == 1 else address}:{edge.port}"

    return {edge: of(edge, has_several) for edge, has_several in edges.items()}


def _callers(edge: Edge, has_several: bool, known: Mapping[str, str]) -> str:
    """known: services on this machine that call it, with their addresses, the busiest first."""
    if has_several:
        return f"{next(iter(known))}, other hosts" if known else "several hosts"
    names = [name for name, address in known.items() if address == edge.client]
    if not names:
        return edge.client
    return names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"


def _hash(pairs: Iterable[tuple[str, AttributeValue]]) -> int:
    """Of these pairs in any order."""
    return sum(hash(pair) for pair in pairs) & _MASK


def _service(resource: Mapping[str, AttributeValue]) -> str:
    return str(resource.get("service.name", ""))


def _edge(batch: SpanBatch, row: int) -> Edge:
    attributes = {
        key: value for column in batch.fragments for key, value in column.table.fragments[column.ids[row]].attributes
    }
    port = batch.numbers.get("server.port")
    return Edge(
        service=_service(batch.resources.resources[batch.resource[row]]),
        kind=SpanKind(batch.kind[row]),
        server=str(attributes.get("server.address", "")),
        port=0 if port is None else max(0, int(port[row])),
        client=str(attributes.get("client.address", "")),
        protocol=str(attributes.get("network.protocol.name") or attributes.get("network.transport", "")),
    )
