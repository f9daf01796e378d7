"""Segment mode: exchanges out of the byte streams of connections whose requests overlap.

The kernel sends every I/O of such a connection with its position, times and first bytes. Per connection, a
protocol's :class:`~.protocols.parser.ConnectionParser` finds and pairs messages by position alone; :mod:`.io_times`
keeps which times each position has, and the pairs are written as rows of the same dtype as the kernel's own exchange
records. A request without an answer when its connection closes is a row too, as in the kernel.

Two threads of a process may report a response a little before its request. I/Os are therefore put in order by the
time at which they can have begun, and the youngest are held back until the next drain.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.counters import Counters
from .exchanges import Abi, Records
from .io_times import IoTime, IoTimes
from .protocols.parser import ConnectionParser, Parser, SegmentParser, StreamExchange, UnansweredRequest
from .segment_records import Segment, segments_of

#: how long the hook of a call may lag behind another thread's (measured: microseconds)
HOLD_BACK_NS = 5_000_000


@dataclass(slots=True)
class Connection:
    """A connection in segment mode.

    info: its ``connection_info`` record. process: of its last request I/O; those of one process share the bytes.
    rows: what is complete and was not handed out yet, in the order of ``_ROW_FIELDS``, with summaries and processes.
    """

    parser: Parser
    streams: ConnectionParser
    request_direction: int
    info: Any
    requests: IoTimes = field(default_factory=IoTimes)
    responses: IoTimes = field(default_factory=IoTimes)
    process: bytes = b""
    rows: list[tuple[int, ...]] = field(default_factory=list)
    summaries: list[Hashable] = field(default_factory=list)
    processes: list[bytes] = field(default_factory=list)

    def feed(self, segment: Segment) -> list[StreamExchange]:
        """Note the times of this I/O and give its bytes to the parser."""
        begin, end = segment.position, segment.position + segment.size
        arrivals = tuple(
            arrival for arrival in segment.arrivals if arrival[0] and arrival[1] < end and begin < arrival[2]
        )
        io = (begin, end, segment.start, segment.end, arrivals)
        if segment.direction != self.request_direction:
            self.responses.append(IoTime(*io, b""))
            return self.streams.feed_response(segment.position, segment.data, segment.size)
        if segment.process != self.process:
            self.process = segment.process
        self.requests.append(IoTime(*io, self.process))
        return self.streams.feed_request(segment.position, segment.data, segment.size)

    def forget(self) -> None:
        """Drop the times that no exchange to come can need."""
        request, response = self.streams.needed_from()
        self.requests.forget_before(request)
        self.responses.forget_before(response)


class SegmentReader:
    """Turns the segments of each drain into exchange rows.

    exchange: dtype of the rows. segment: dtype of a segment's header. parsers: by the kernel's protocol number.
    settle_ns: a connection without I/O for so long is quiet. limit: connections followed at once; the one idle for
    longest is given up, which is counted.
    """

    def __init__(
        self,
        abi: Abi,
        exchange: np.dtype[np.void],
        segment: np.dtype[np.void],
        parsers: dict[int, SegmentParser],
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
        self._held: list[Segment] = []
        self._touched: list[Connection] = []  # those that have rows
        self._closed = next(number for number, name in abi.outcomes.items() if name == "connection_closed")

    def read(
        self, data: bytes, extents: Sequence[tuple[int, int]], until: int
    ) -> tuple[Records, list[tuple[Parser, Hashable]]]:
        """The exchanges that these segments complete, and their summaries.

        data, extents: what the ring gave, (offset, length) of each record. until: kernel time of this drain; I/Os
        younger than ``HOLD_BACK_NS`` before it wait for the next one.
        """
        segments = self._held + segments_of(data, extents, self._segment)
        segments.sort(key=lambda segment: segment.start)
        ready = [segment for segment in segments if segment.start <= until - HOLD_BACK_NS]
        self._held = segments[len(ready) :]
        for segment in ready:
            if segment.size:
                self._feed(segment)
            else:
                self._close(segment.cookie, segment.end)
        self._settle(until)
        return self._take_rows()

    def _settle(self, until: int) -> None:
        """Tell the parsers of connections that have gone quiet, each once."""
        while self._active:
            cookie, last = next(iter(self._active.items()))
            if last > until - self._settle_ns:
                break
            del self._active[cookie]
            if cookie in self._connections:
                self._connections[cookie].streams.quiet()

    def stop(self) -> tuple[Records, list[tuple[Parser, Hashable]]]:
        """Nothing will be read any more: the exchanges that the end completes, and their summaries. Requests under
        way are no loss."""
        for connection in self._connections.values():
            self._finish(connection)
        self._connections.clear()
        self._active.clear()
        return self._take_rows()

    def _feed(self, segment: Segment) -> None:
        cookie = segment.cookie
        connection = self._connections.get(cookie) or self._open(segment)
        if connection is None:
            return
        self._connections.move_to_end(cookie)
        self._active[cookie] = segment.end
        self._active.move_to_end(cookie)
        self._complete(connection, connection.feed(segment))
        connection.forget()

    def _open(self, segment: Segment) -> Connection | None:
        parser = self._parsers.get(segment.protocol)
        if parser is None:
            self._counters.add("wirespan.segments.dropped", 1, reason="unknown_protocol")
            return None
        if len(self._connections) >= self._limit:
            self._evict()
        info = np.frombuffer(segment.connection, self._segment["connection"])[0]
        sent = self._abi.direction_sent
        request_direction = sent if info["role"] == self._abi.role_client else 1 - sent
        connection = Connection(parser, parser.connection(), request_direction, info)
        self._connections[segment.cookie] = connection
        return connection

    def _evict(self) -> None:
        """Give up the connection that has been idle for longest. Whether its requests are answered will not be known."""
        cookie, connection = self._connections.popitem(last=False)
        self._active.pop(cookie, None)
        self._finish(connection)
        self._count_dropped(connection.streams.pending(), "evicted")
        self._counters.add("wirespan.segments.connections_evicted", 1)

    def _close(self, cookie: int, at: int) -> None:
        connection = self._connections.pop(cookie, None)
        if connection is None:
            return
        self._active.pop(cookie, None)
        self._finish(connection)
        unanswered = connection.streams.unanswered()
        self._counters.add("wirespan.exchanges.observed", len(unanswered))
        for request in unanswered:
            self._add_unanswered(connection, request, at)

    def _finish(self, connection: Connection) -> None:
        self._complete(connection, connection.streams.finish())
        self._count(connection.streams)

    def _count(self, streams: ConnectionParser) -> None:
        self._counters.add("wirespan.segments.skipped_bytes", streams.skipped_bytes, reason="no_boundary")
        self._counters.add("wirespan.messages", streams.pushes, kind="push")
        self._counters.add("wirespan.messages", streams.one_way, kind="one_way")
        self._count_dropped(streams.unpaired, "unpaired")

    def _count_dropped(self, exchanges: int, reason: str) -> None:
        self._counters.add("wirespan.exchanges.observed", exchanges)
        self._counters.add("wirespan.exchanges.dropped", exchanges, reason=reason)

    def _complete(self, connection: Connection, found: Sequence[StreamExchange]) -> None:
        if found:
            self._counters.add("wirespan.exchanges.observed", len(found))
        for exchange in found:
            self._add_exchange(connection, exchange)

    def _add_exchange(self, connection: Connection, exchange: StreamExchange) -> None:
        request = connection.requests.covering(exchange.request_start, exchange.request_end)
        response = connection.responses.covering(exchange.response_start, exchange.response_end)
        if request is None or response is None:
            self._counters.add("wirespan.exchanges.dropped", 1, reason="times_unknown")
            return
        if connection.request_direction == self._abi.direction_sent:
            arrived = response[0].arrival_of(exchange.response_start)
        else:
            arrived = request[0].arrival_of(exchange.request_start)
        size = exchange.response_end - exchange.response_start
        answer = (arrived, response[0].started, response[1].ended, size, 0)
        self._add_row(connection, exchange, request, answer)

    def _add_unanswered(self, connection: Connection, unanswered: UnansweredRequest, closed: int) -> None:
        request = connection.requests.covering(unanswered.request_start, unanswered.request_end)
        if request is None:
            self._counters.add("wirespan.exchanges.dropped", 1, reason="times_unknown")
            return
        received = connection.request_direction != self._abi.direction_sent
        arrived = request[0].arrival_of(unanswered.request_start) if received else 0
        self._add_row(connection, unanswered, request, (arrived, 0, closed, 0, self._closed))

    def _add_row(
        self,
        connection: Connection,
        found: StreamExchange | UnansweredRequest,
        request: tuple[IoTime, IoTime],
        answer: tuple[int, ...],
    ) -> None:
        if not connection.rows:
            self._touched.append(connection)
        size = found.request_end - found.request_start
        connection.rows.append((found.request_start, request[0].started, request[1].ended, size, *answer))
        connection.summaries.append(found.summary)
        connection.processes.append(request[0].process)

    def _take_rows(self) -> tuple[Records, list[tuple[Parser, Hashable]]]:
        touched, self._touched = self._touched, []
        records: npt.NDArray[np.void] = np.zeros(sum(len(c.rows) for c in touched), self._exchange)
        summaries: list[tuple[Parser, Hashable]] = []
        at = 0
        for connection in touched:
            rows = records[at : at + len(connection.rows)]
            at += len(rows)
            rows["connection"] = connection.info
            rows["process"] = np.frombuffer(b"".join(connection.processes), rows["process"].dtype)
            rows["flags"] = connection.info["flags"]
            for name, column in zip(_ROW_FIELDS, zip(*connection.rows, strict=True), strict=True):
                rows[name] = column
            summaries += [(connection.parser, summary) for summary in connection.summaries]
            connection.rows, connection.summaries, connection.processes = [], [], []
        return records, summaries


#: the fields that ``SegmentReader._add_row`` fills, in its order
_ROW_FIELDS = (
    "position",
    "request_start",
    "request_end",
    "request_size",
    "arrived",
    "response_start",
    "response_end",
    "response_size",
    "outcome",
)
