"""Segment mode: exchanges out of the byte streams of connections whose requests overlap.

The kernel sends every I/O of such a connection with its position, times and first bytes. Per connection, a
protocol's :class:`~.protocols.parser.ConnectionParser` finds and pairs messages by position alone; this module
keeps which I/O, hence which times, each position belongs to, and writes the pairs as rows of the same dtype as
the kernel's own exchange records.

Two threads of a process may report a response a little before its request. I/Os are therefore put in order by the
time at which they can have begun, and the youngest are held back until the next drain.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.counters import Counters
from .exchanges import Abi, Records
from .protocols.parser import ConnectionParser, Parser, StreamExchange

#: how long the hook of a call may lag behind another thread's (measured: microseconds)
HOLD_BACK_NS = 5_000_000
#: I/Os of one direction whose times are kept until their exchange is complete
IOS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Io:
    """One I/O. ``arrivals``: (time, begin, end) of received bytes that reached the socket's buffer."""

    cookie: int
    position: int
    size: int
    start: int
    end: int
    direction: int
    protocol: int
    arrivals: tuple[tuple[int, int, int], ...]
    data: bytes
    connection: Any
    process: Any

    def arrival_of(self, position: int) -> int:
        """When the byte at this position was in the socket's buffer; 0 if that is not known."""
        for time, begin, end in self.arrivals:
            if begin <= position < end:
                return time
        return 0


class Stream:
    """The I/Os of one direction, by position, as far back as an unfinished exchange needs them."""

    __slots__ = ("_ios",)

    def __init__(self) -> None:
        self._ios: deque[Io] = deque(maxlen=IOS_KEPT)

    def append(self, io: Io) -> None:
        self._ios.append(io)

    def covering(self, begin: int, end: int) -> tuple[Io, Io] | None:
        """The I/Os of the first and the last byte of [begin, end); None if they are not kept (any more). Forgets
        what lies before: exchanges come in the order of their positions."""
        ios = self._ios
        while ios and ios[0].position + ios[0].size <= begin:
            ios.popleft()
        if not ios or ios[0].position > begin:
            return None
        for io in ios:
            if io.position + io.size >= end:
                return ios[0], io
        return None


@dataclass(slots=True)
class Connection:
    """A connection in segment mode. ``info``: its ``connection_info`` record."""

    parser: Parser
    streams: ConnectionParser
    request_direction: int
    info: Any
    requests: Stream = field(default_factory=Stream)
    responses: Stream = field(default_factory=Stream)
    rows: list[tuple[int, ...]] = field(default_factory=list)
    summaries: list[Hashable] = field(default_factory=list)
    processes: list[Any] = field(default_factory=list)


class SegmentReader:
    """Turns the segments of each drain into exchange rows.

    exchange: dtype of the rows. segment: dtype of a segment's header. parsers: by the kernel's protocol number.
    settle_ns: a connection without I/O for so long is quiet. limit: connections followed at once; the one idle for longest is given up, which is counted.
    """

    def __init__(
        self,
        abi: Abi,
        exchange: np.dtype[np.void],
        segment: np.dtype[np.void],
        parsers: dict[int, Parser],
        counters: Counters,
        settle_ns: int,
        limit: int = 10_000,
    ) -> None:
        self._abi = abi
        self._exchange = exchange
        self._segment = segment
        self._parsers = parsers
        self._counters = counters
        self._settle_ns = settle_ns
        self._limit = limit
        self._connections: OrderedDict[int, Connection] = OrderedDict()
        self._active: OrderedDict[int, int] = OrderedDict()  # by cookie, time of the last I/O, oldest first
        self._held: list[Io] = []
        self._touched: dict[int, Connection] = {}  # by cookie, those that have rows

    def read(
        self, data: bytes, extents: Sequence[tuple[int, int]], until: int
    ) -> tuple[Records, list[tuple[Parser, Hashable]]]:
        """The exchanges that these segments complete, and their summaries.

        data, extents: what the ring gave, (offset, length) of each record. until: kernel time of this drain; I/Os
        younger than ``HOLD_BACK_NS`` before it wait for the next one.
        """
        ios = self._held + self._ios(data, extents)
        ios.sort(key=lambda io: io.start)
        ready = [io for io in ios if io.start <= until - HOLD_BACK_NS]
        self._held = ios[len(ready) :]
        for io in ready:
            if io.size:
                self._feed(io)
            else:
                self._close(io.cookie)
        self._settle(until)
        touched, self._touched = self._touched, {}
        return self._rows(list(touched.values()))

    def _settle(self, until: int) -> None:
        """Tell the parsers of connections that have gone quiet, each once."""
        while self._active:
            cookie, last = next(iter(self._active.items()))
            if last > until - self._settle_ns:
                break
            del self._active[cookie]
            if cookie in self._connections:
                self._connections[cookie].streams.quiet()

    def stop(self) -> None:
        """Count what the parsers of the connections that are still open have to say. Requests under way are no loss."""
        for connection in self._connections.values():
            self._count(connection.streams)
        self._connections.clear()

    def _ios(self, data: bytes, extents: Sequence[tuple[int, int]]) -> list[Io]:
        width = self._segment.itemsize
        headers = np.frombuffer(b"".join(data[at : at + width] for at, _ in extents), self._segment)
        columns = [headers["connection"]["cookie"], *(headers[name] for name in _SEGMENT_FIELDS)]
        ios: list[Io] = []
        for row, (at, length), (cookie, position, size, start, end, direction, protocol, arrivals) in zip(
            headers, extents, zip(*(column.tolist() for column in columns), strict=True), strict=True
        ):
            payload = data[at + width : at + length]
            times = tuple((time, begin, to) for time, begin, to in arrivals if time)
            info, process = row["connection"], row["process"]
            ios.append(Io(cookie, position, size, start, end, direction, protocol, times, payload, info, process))
        return ios

    def _feed(self, io: Io) -> None:
        connection = self._connections.get(io.cookie) or self._open(io)
        if connection is None:
            return
        self._connections.move_to_end(io.cookie)
        self._active[io.cookie] = io.end
        self._active.move_to_end(io.cookie)
        if io.direction == connection.request_direction:
            connection.requests.append(io)
            found = connection.streams.feed_request(io.position, io.data, io.size)
        else:
            connection.responses.append(io)
            found = connection.streams.feed_response(io.position, io.data, io.size)
        self._complete(io.cookie, connection, found)

    def _open(self, io: Io) -> Connection | None:
        parser = self._parsers.get(io.protocol)
        if parser is None:
            self._counters.add("wirespan.segments.dropped", 1, reason="unknown_protocol")
            return None
        if len(self._connections) >= self._limit:
            self._close(next(iter(self._connections)))
            self._counters.add("wirespan.segments.connections_evicted", 1)
        is_client = io.connection["role"] == self._abi.role_client
        sent = self._abi.direction_sent
        connection = Connection(parser, parser.connection(), sent if is_client else 1 - sent, io.connection.copy())
        self._connections[io.cookie] = connection
        return connection

    def _close(self, cookie: int) -> None:
        connection = self._connections.pop(cookie, None)
        if connection is None:
            return
        self._active.pop(cookie, None)
        streams = connection.streams
        self._complete(cookie, connection, streams.finish())
        self._count(streams)
        self._count_dropped(streams.pending(), "unanswered")

    def _count(self, streams: ConnectionParser) -> None:
        self._counters.add("wirespan.segments.skipped_bytes", streams.skipped_bytes, reason="no_boundary")
        self._counters.add("wirespan.messages", streams.pushes, kind="push")
        self._counters.add("wirespan.messages", streams.one_way, kind="one_way")
        self._count_dropped(streams.unpaired, "unpaired")

    def _count_dropped(self, exchanges: int, reason: str) -> None:
        self._counters.add("wirespan.exchanges.observed", exchanges)
        self._counters.add("wirespan.exchanges.dropped", exchanges, reason=reason)

    def _complete(self, cookie: int, connection: Connection, found: Sequence[StreamExchange]) -> None:
        if not found:
            return
        self._counters.add("wirespan.exchanges.observed", len(found))
        self._touched[cookie] = connection
        for exchange in found:
            self._add_row(connection, exchange)

    def _add_row(self, connection: Connection, exchange: StreamExchange) -> None:
        request = connection.requests.covering(exchange.request_start, exchange.request_end)
        response = connection.responses.covering(exchange.response_start, exchange.response_end)
        if request is None or response is None:
            self._counters.add("wirespan.exchanges.dropped", 1, reason="times_unknown")
            return
        if connection.request_direction == self._abi.direction_sent:
            arrived = response[0].arrival_of(exchange.response_start)
        else:
            arrived = request[0].arrival_of(exchange.request_start)
        connection.rows.append(
            (
                exchange.request_start,
                arrived,
                request[0].start,
                request[1].end,
                response[0].start,
                response[1].end,
                exchange.request_end - exchange.request_start,
                exchange.response_end - exchange.response_start,
            )
        )
        connection.summaries.append(exchange.summary)
        connection.processes.append(request[0].process)

    def _rows(self, touched: Sequence[Connection]) -> tuple[Records, list[tuple[Parser, Hashable]]]:
        connections = [connection for connection in touched if connection.rows]
        records: npt.NDArray[np.void] = np.zeros(sum(len(c.rows) for c in connections), self._exchange)
        summaries: list[tuple[Parser, Hashable]] = []
        at = 0
        for connection in connections:
            rows = records[at : at + len(connection.rows)]
            at += len(rows)
            rows["connection"] = connection.info
            rows["process"] = np.array(connection.processes, rows["process"].dtype)
            rows["flags"] = connection.info["flags"]
            for name, column in zip(_ROW_FIELDS, zip(*connection.rows, strict=True), strict=True):
                rows[name] = column
            summaries += [(connection.parser, summary) for summary in connection.summaries]
            connection.rows, connection.summaries, connection.processes = [], [], []
        return records, summaries


#: fields of ``struct segment`` behind the connection's
_SEGMENT_FIELDS = ("position", "size", "start", "end", "direction", "protocol", "arrivals")

#: the fields that ``SegmentReader._complete`` fills, in its order
_ROW_FIELDS = (
    "position",
    "arrived",
    "request_start",
    "request_end",
    "response_start",
    "response_end",
    "request_size",
    "response_size",
)
