"""Segment mode: exchanges out of the byte streams of connections whose requests overlap.

The kernel sends every I/O of such a connection with its position, times and first bytes. Per connection, a
protocol's :class:`~.protocols.parser.ConnectionParser` finds and pairs messages by position alone; :mod:`.io_times`
keeps which times each position has, and the pairs are written as rows of the same dtype as the kernel's own exchange
records. A request without an answer when its connection ends, or within ``request_timeout``, is a row too, as in the
kernel.

Two threads of a process may report a response a little before its request. I/Os are therefore put in order by the
time at which they can have begun, and the youngest are held back until the next drain. Where that is not enough,
responses wait for their requests; see :mod:`.segment_connection`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

from ..pipeline.counters import Counters
from ..pipeline.defects import report_defect
from .exchanges import Abi
from .in_hand import InHand
from .protocols.parser import Parser, SegmentParser, StreamExchange, UnansweredRequest
from .scopes import Records
from .segment_connection import Connection
from .segment_records import Segment, segments_of

#: how long the hook of a call may lag behind another thread's (measured: microseconds)
HOLD_BACK_NS = 5_000_000
#: how often connections are looked at for what does not come with an I/O: at most, and in parts of ``request_timeout``
_SWEEP_NS = 1_000_000_000
_SWEEPS_A_TIMEOUT = 8
#: bytes of memory, about, that all connections together may keep until their exchanges are complete
KEPT_BYTES_LIMIT = 33_554_432


class SegmentReader:
    """Turns the segments of each drain into exchange rows.

    exchange: dtype of the rows. segment: dtype of a segment's header. parsers: by the kernel's protocol number. in_hand: has
    the rows that are given out, which are counted then. settle_ns: a connection without I/O for so long is quiet.
    request_timeout_ns: a request waits no longer. limit: connections followed at once; the one idle for longest is given
    up, which is counted. kept_limit: what all together may keep, in bytes; beyond, those that keep something and were idle
    for longest are given up.
    """

    def __init__(
        self,
        abi: Abi,
        exchange: np.dtype[np.void],
        segment: np.dtype[np.void],
        parsers: dict[int, SegmentParser],
        counters: Counters,
        in_hand: InHand,
        settle_ns: int,
        request_timeout_ns: int,
        limit: int = 10_000,
        kept_limit: int = KEPT_BYTES_LIMIT,
    ) -> None:
        self._in_hand = in_hand
        self._abi = abi
        self._exchange = exchange
        self._segment = segment
        self._parsers = parsers
        self._counters = counters
        self._settle_ns = settle_ns
        self._request_timeout_ns = request_timeout_ns
        self._next_sweep = 0
        self._limit = limit
        self._kept_limit = kept_limit
        self._kept: OrderedDict[int, int] = OrderedDict()  # bytes by cookie, of those that keep any, idle longest first
        self._kept_bytes = 0
        self._connections: OrderedDict[int, Connection] = OrderedDict()
        self._active: OrderedDict[int, int] = OrderedDict()  # by cookie, time of the last I/O, oldest first
        self._held: list[Segment] = []
        self._touched: dict[int, Connection] = {}  # those that have rows, by id()
        self._timeout = next(number for number, name in abi.outcomes.items() if name == "timeout")

    def read(
        self, data: bytes, extents: Sequence[tuple[int, int]], until: int | None
    ) -> tuple[Records, list[tuple[Parser, Hashable]]]:
        """The exchanges that these segments complete, and their summaries.

        data, extents: what the ring gave, (offset, length) of each record. until: kernel time up to which the ring
        was drained, None if there is more in it; I/Os younger than ``HOLD_BACK_NS`` before it wait for the next drain.
        """
        drained = segments_of(data, extents, self._segment)
        if until is None:
            until = drained[-1].end if drained else 0
        segments = self._held + drained
        segments.sort(key=lambda segment: segment.start)
        ready = [segment for segment in segments if segment.start <= until - HOLD_BACK_NS]
        self._held = segments[len(ready) :]
        for segment in ready:
            self._attempt(segment.cookie, self._feed if segment.size else self._close, segment)
        self._settle(until)
        if until >= self._next_sweep:
            self._next_sweep = until + min(_SWEEP_NS, self._request_timeout_ns // _SWEEPS_A_TIMEOUT)
            self._sweep(until - HOLD_BACK_NS)
        return self._take_rows()

    def _settle(self, until: int) -> None:
        """Tell the parsers of connections that have gone quiet, each once."""
        while self._active:
            cookie, last = next(iter(self._active.items()))
            if last > until - self._settle_ns:
                break
            del self._active[cookie]
            connection = self._connections.get(cookie)
            if connection is not None:
                self._attempt(cookie, self._settle_one, connection)

    def _settle_one(self, connection: Connection) -> None:
        if connection.ended:
            self._close(connection.ended)
        else:
            connection.streams.quiet()
            self._count(connection)

    def _sweep(self, now: int) -> None:
        """What is due without any I/O: timeouts; and counts of connections that never are quiet."""
        for cookie in list(self._active):
            self._attempt(cookie, self._count, self._connections[cookie])
        for cookie, connection in list(self._connections.items()):
            self._attempt(cookie, self._time_out, cookie, connection, now)

    def _time_out(self, cookie: int, connection: Connection, now: int) -> None:
        overdue = connection.time_out(now - self._request_timeout_ns)
        if overdue:
            self._add_unanswered(connection, overdue, self._timeout, now)
            connection.forget()
            self._note_kept(cookie, connection)

    def stop(self) -> tuple[Records, list[tuple[Parser, Hashable]]]:
        """Nothing will be read any more: the exchanges that the end completes, and their summaries. Requests under
        way are no loss."""
        for cookie, connection in list(self._connections.items()):
            self._attempt(cookie, self._finish, connection)
        self._connections.clear()
        self._active.clear()
        self._kept.clear()
        self._kept_bytes = 0
        return self._take_rows()

    def _feed(self, segment: Segment) -> None:
        cookie = segment.cookie
        connection = self._connections.get(cookie)
        if connection is not None and connection.ended and self._is_another(connection, segment):
            self._close(connection.ended)  # which still waited for requests: the socket is connected anew
            connection = None
        connection = connection or self._open(segment)
        if connection is None:
            return
        self._connections.move_to_end(cookie)
        self._active[cookie] = segment.end
        self._active.move_to_end(cookie)
        self._complete(connection, connection.feed(segment))
        connection.forget()
        self._note_kept(cookie, connection)
        while self._kept_bytes > self._kept_limit and len(self._kept) > 1:
            oldest = next(iter(self._kept))
            self._attempt(oldest, self._give_up, oldest)

    def _note_kept(self, cookie: int, connection: Connection) -> None:
        kept = connection.kept_bytes()
        self._kept_bytes += kept - self._kept.pop(cookie, 0)
        if kept:
            self._kept[cookie] = kept

    def _open(self, segment: Segment) -> Connection | None:
        parser = self._parsers.get(segment.protocol)
        if parser is None:
            self._counters.add("wirespan.segments.dropped", 1, reason="unknown_protocol")
            return None
        if len(self._connections) >= self._limit:
            self._evict()
        info = np.frombuffer(segment.connection, self._segment["connection"])[0]
        sent = self._abi.direction_sent
        is_client = bool(info["role"] == self._abi.role_client)
        connection = Connection(parser, parser.connection(), sent if is_client else 1 - sent, is_client, info)
        self._connections[segment.cookie] = connection
        return connection

    def _is_another(self, connection: Connection, segment: Segment) -> bool:
        """Whether this is of a later connection of the same socket, which keeps its cookie."""
        info = np.frombuffer(segment.connection, self._segment["connection"])[0]
        return bool(info["sequence"] != connection.info["sequence"])

    def _evict(self) -> None:
        """Give up the connection that has been idle for longest. Whether its requests are answered will not be known."""
        cookie, connection = next(iter(self._connections.items()))
        self._forget(cookie)
        self._counters.add("wirespan.segments.connections_evicted", 1)
        self._finish(connection)
        self._count_dropped(connection.streams.pending(), "evicted")

    def _give_up(self, cookie: int) -> None:
        """The same of one that keeps much."""
        self._abandon(cookie, "memory")

    def _abandon(self, cookie: int, reason: str) -> None:
        connection = self._connections[cookie]
        self._forget(cookie)
        self._counters.add("wirespan.segments.connections_abandoned", 1, reason=reason)
        self._finish(connection)
        self._count_dropped(connection.streams.pending(), "evicted")

    def _forget(self, cookie: int) -> None:
        self._connections.pop(cookie, None)
        self._active.pop(cookie, None)
        self._kept_bytes -= self._kept.pop(cookie, 0)

    def _attempt(self, cookie: int, work: Callable[..., None], *arguments: object) -> None:
        """Work on one connection, which is given up if a defect, in its parser as a rule, makes that fail. What it has
        completed before is not lost; what was under way cannot be asked of it any more."""
        try:
            work(*arguments)
        except Exception as defect:
            self._forget(cookie)
            self._counters.add("wirespan.segments.connections_abandoned", 1, reason="defect")
            report_defect("A pipelined connection was given up by a defect.", "ebpf", defect)

    def _close(self, segment: Segment) -> None:
        connection = self._connections.get(segment.cookie)
        if connection is None:
            return
        if not segment.outcome:
            self._abandon(segment.cookie, "unwatched")
            return
        if connection.streams.starved and not connection.ended:
            # A send that is under way may yet bring the requests of what was read.
            connection.ended = segment
            self._active[segment.cookie] = segment.end
            self._active.move_to_end(segment.cookie)
            return
        self._forget(segment.cookie)
        self._finish(connection)
        self._add_unanswered(connection, connection.streams.unanswered(), segment.outcome, segment.end)

    def _finish(self, connection: Connection) -> None:
        self._complete(connection, [*connection.stop_waiting(), *connection.streams.finish()])
        self._count(connection)

    def _count(self, connection: Connection) -> None:
        counts = connection.count()
        self._add("wirespan.segments.skipped_bytes", counts["skipped_bytes"], reason="no_boundary")
        self._add("wirespan.messages", counts["pushes"], kind="push")
        self._add("wirespan.messages", counts["one_way"], kind="one_way")
        self._add("wirespan.messages", counts["late"], kind="continued")
        self._count_dropped(counts["unpaired"], "unpaired")

    def _add(self, name: str, amount: int, **attributes: str) -> None:
        if amount:
            self._counters.add(name, amount, **attributes)

    def _count_dropped(self, exchanges: int, reason: str) -> None:
        self._add("wirespan.exchanges.observed", exchanges)
        self._add("wirespan.exchanges.dropped", exchanges, reason=reason)

    def _complete(self, connection: Connection, found: Sequence[StreamExchange]) -> None:
        added = [connection.add_exchange(exchange) for exchange in found]
        self._count_added(connection, added)

    def _add_unanswered(
        self, connection: Connection, unanswered: Sequence[UnansweredRequest], outcome: int, at: int
    ) -> None:
        added = [connection.add_unanswered(request, outcome, at) for request in unanswered]
        self._count_added(connection, added)

    def _count_added(self, connection: Connection, added: Sequence[bool]) -> None:
        """Of each exchange that was found, whether it is a row now."""
        self._count_dropped(added.count(False), "times_unknown")
        if connection.rows:
            self._touched[id(connection)] = connection

    def _take_rows(self) -> tuple[Records, list[tuple[Parser, Hashable]]]:
        touched, self._touched = self._touched.values(), {}
        records: npt.NDArray[np.void] = np.zeros(sum(len(c.rows) for c in touched), self._exchange)
        summaries: list[tuple[Parser, Hashable]] = []
        at = 0
        for connection in touched:
            end = at + len(connection.rows)
            summaries += connection.take_rows(records[at:end])
            at = end
        self._in_hand.take(len(records))
        self._add("wirespan.exchanges.observed", len(records))
        return records, summaries
