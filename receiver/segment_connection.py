"""One connection in segment mode: its parser, the times of its I/Os, and what came of them, as rows.

A row holds what differs among the exchange records of a connection: positions have become times and sizes.

An I/O is reported when its call returns. A blocking send may do so long after the replies to its first requests were
read by another thread. These wait for it: a request is theirs if its send began before they were read.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from operator import sub
from typing import Any

import numpy as np

from .io_times import IOS_KEPT, IoTime, IoTimes
from .protocols.parser import ConnectionParser, Parser, StreamExchange, UnansweredRequest
from .scopes import Records
from .segment_records import Segment

_COUNTED = ("skipped_bytes", "pushes", "one_way", "late", "unpaired")

#: captured bytes of responses that are kept until their requests are seen, in up to ``IOS_KEPT`` I/Os
EARLY_LIMIT = 262_144
#: bytes of memory of the times of an I/O, about
_KEPT_AN_IO = 256

#: the fields of a row, in its order
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


@dataclass(slots=True)
class Connection:
    """A connection in segment mode.

    is_client: whether its requests are sent. info: its ``connection_info`` record. process: of its last request I/O;
    those of one process share the bytes. answerer: of the last response I/O. early: responses behind one whose request was not seen yet, which was read
    at ``starved_since``. answered: when it last completed an exchange. ended: the segment that said so, if responses
    are still waiting. counted: what its parser had counted when that was last looked at. rows: what is complete and was
    not handed out yet, with summaries and processes.
    """

    parser: Parser
    streams: ConnectionParser
    request_direction: int
    is_client: bool
    info: Any
    requests: IoTimes = field(default_factory=IoTimes)
    responses: IoTimes = field(default_factory=IoTimes)
    process: bytes = b""
    answerer: bytes = b""
    early: list[Segment] = field(default_factory=list)
    early_bytes: int = 0
    starved_since: int = 0
    answered: int = 0
    ended: Segment | None = None
    counted: tuple[int, ...] = (0,) * len(_COUNTED)
    rows: list[tuple[int, ...]] = field(default_factory=list)
    summaries: list[Hashable] = field(default_factory=list)
    processes: list[bytes] = field(default_factory=list)

    def feed(self, segment: Segment) -> list[StreamExchange]:
        """Note the times of this I/O and give its bytes to the parser."""
        if segment.direction == self.request_direction:
            found = self._feed_request(segment)
        elif self.streams.starved:
            found = self._keep(segment)
        else:
            found = self._feed_response(segment)
        if found:
            self.answered = segment.end
        return found

    def _feed_request(self, segment: Segment) -> list[StreamExchange]:
        found: list[StreamExchange] = []
        if self.streams.starved and segment.start > self.starved_since:
            found += self.stop_waiting()
        if segment.process != self.process:
            self.process = segment.process
        self.requests.append(_io_time(segment, self.process))
        found += self.streams.feed_request(segment.position, segment.data, segment.size)
        return found + self._feed_early()

    def _feed_response(self, segment: Segment) -> list[StreamExchange]:
        self.responses.append(_io_time(segment, b""))
        self.answerer = segment.process
        found = self.streams.feed_response(segment.position, segment.data, segment.size)
        if self.streams.starved:
            self.starved_since = segment.start
        return found

    def _keep(self, segment: Segment) -> list[StreamExchange]:
        self.early.append(segment)
        self.early_bytes += len(segment.data)
        if self.early_bytes > EARLY_LIMIT or len(self.early) > IOS_KEPT:
            return self.stop_waiting()
        return []

    def _feed_early(self) -> list[StreamExchange]:
        """As many as have their requests now."""
        found: list[StreamExchange] = []
        fed = 0
        for segment in self.early:
            if self.streams.starved:
                break
            found += self._feed_response(segment)
            self.early_bytes -= len(segment.data)
            fed += 1
        del self.early[:fed]
        return found

    def stop_waiting(self) -> list[StreamExchange]:
        """The requests of the responses that wait will not come."""
        self.streams.stop_waiting()
        return self._feed_early()

    def forget(self) -> None:
        """Drop the times that no exchange to come can need."""
        request, response = self.streams.needed_from()
        self.requests.forget_before(request)
        self.responses.forget_before(response)

    def kept_bytes(self) -> int:
        """About how much memory is taken by what is kept until exchanges are complete."""
        ios = len(self.requests) + len(self.responses) + len(self.early)
        return ios * _KEPT_AN_IO + self.early_bytes + self.streams.kept_bytes()

    def count(self) -> dict[str, int]:
        """What the parser has counted since the last time, by the name of its property."""
        now = tuple(getattr(self.streams, name) for name in _COUNTED)
        before, self.counted = self.counted, now
        return dict(zip(_COUNTED, map(sub, now, before), strict=True))

    def time_out(self, since: int) -> list[UnansweredRequest]:
        """The requests that have waited for a response byte since then: sent, and none before them answered."""
        position = self.requests.moved_by(since)
        return self.streams.time_out(position) if position >= 0 and self.answered <= since else []

    def add_exchange(self, exchange: StreamExchange) -> bool:
        """False if the times of its I/Os are not kept (any more)."""
        request = self.requests.covering(exchange.request_start, exchange.request_end)
        response = self.responses.covering(exchange.response_start, exchange.response_end)
        if request is None or response is None:
            return False
        if self.is_client:
            arrived = response[0].arrival_of(exchange.response_start)
        else:
            arrived = request[0].arrival_of(exchange.request_start)
        size = exchange.response_end - exchange.response_start
        self._add_row(exchange, request, (arrived, response[0].started, response[1].ended, size, 0))
        return True

    def add_unanswered(self, unanswered: UnansweredRequest, outcome: int, at: int) -> bool:
        """The same for a request that came to this end at this time."""
        request = self.requests.covering(unanswered.request_start, unanswered.request_end)
        if request is None:
            return False
        arrived = 0 if self.is_client else request[0].arrival_of(unanswered.request_start)
        self._add_row(unanswered, request, (arrived, 0, at, 0, outcome))
        return True

    def _add_row(
        self, found: StreamExchange | UnansweredRequest, request: tuple[IoTime, IoTime], answer: tuple[int, ...]
    ) -> None:
        size = found.request_end - found.request_start
        self.rows.append((found.request_start, request[0].started, request[1].ended, size, *answer))
        self.summaries.append(found.summary)
        self.processes.append(request[0].process)

    def take_rows(self, rows: Records) -> list[tuple[Parser, Hashable]]:
        """Fill these rows, which are records of exchanges or have them behind their requesters, with those that are
        complete, as many as there are, and forget them. Returns their summaries."""
        has_requester = "requester" in (rows.dtype.names or ())
        records = rows["exchange"] if has_requester else rows
        kind = records["process"].dtype
        both = np.dtype([("process", kind), ("requester", kind)])
        processes = np.frombuffer(b"".join(self.processes), both)
        records["connection"] = self.info
        records["process"] = processes["process"]
        if has_requester:
            rows["requester"] = processes["requester"]
            unknown = processes["requester"]["tgid"] == 0
            if unknown.any() and self.answerer:  # the request was read before the hook of its send ran
                rows["requester"][unknown] = np.frombuffer(self.answerer, both)["requester"]
        records["flags"] = self.info["flags"]
        for name, column in zip(_ROW_FIELDS, zip(*self.rows, strict=True), strict=True):
            records[name] = column
        summaries = [(self.parser, summary) for summary in self.summaries]
        self.rows, self.summaries, self.processes = [], [], []
        return summaries


def _io_time(segment: Segment, process: bytes) -> IoTime:
    begin, end = segment.position, segment.position + segment.size
    arrivals = tuple(arrival for arrival in segment.arrivals if arrival[0] and arrival[1] < end and begin < arrival[2])
    return IoTime(begin, end, segment.start, segment.end, arrivals, process)
