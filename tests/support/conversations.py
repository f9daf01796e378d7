"""Conversations on one connection, and every way in which I/Os can cut them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

from wirespan.receiver.protocols.parser import ConnectionParser, StreamExchange, UnansweredRequest


class Unanswered(bytes):
    """A message that is in no exchange: a request without reply, a push."""


@dataclass(frozen=True)
class Turn:
    """Requests, then what comes back. The n-th response answers the n-th request, the unanswered not counted."""

    requests: Sequence[bytes]
    responses: Sequence[bytes]


#: how a run of bytes is cut into I/Os
Cutter = Callable[[bytes], list[bytes]]


def whole(data: bytes) -> list[bytes]:
    return [data] if data else []


def in_pieces_of(size: int) -> Cutter:
    return lambda data: [data[at : at + size] for at in range(0, len(data), size)]


def cut_at(place: int) -> Cutter:
    return lambda data: [part for part in (data[:place], data[place:]) if part]


def cutters(turns: Sequence[Turn]) -> Iterator[Cutter]:
    """Whole, byte by byte, and in two at every byte."""
    yield whole
    yield in_pieces_of(1)
    longest = max(len(b"".join(side)) for turn in turns for side in (turn.requests, turn.responses))
    for place in range(1, longest):
        yield cut_at(place)


class Feed:
    """Feeds a connection, keeps the positions, and holds it to what it says about those it still needs."""

    def __init__(self, connection: ConnectionParser, request_position: int = 0, response_position: int = 0) -> None:
        self.connection = connection
        self.found: list[StreamExchange] = []
        self._request_position = request_position
        self._response_position = response_position
        self._needed_from = connection.needed_from()

    def request(self, data: bytes, captured: int | None = None) -> list[StreamExchange]:
        """An I/O of ``data``, of which only the first ``captured`` bytes are seen; returns what it completes."""
        found = self.connection.feed_request(self._request_position, data[:captured], len(data))
        self._request_position += len(data)
        return self._keep(found)

    def response(self, data: bytes, captured: int | None = None) -> list[StreamExchange]:
        found = self.connection.feed_response(self._response_position, data[:captured], len(data))
        self._response_position += len(data)
        return self._keep(found)

    def turns(self, turns: Sequence[Turn], cut: Cutter = whole) -> list[StreamExchange]:
        for turn in turns:
            for part in cut(b"".join(turn.requests)):
                self.request(part)
            for part in cut(b"".join(turn.responses)):
                self.response(part)
        return self.found

    def time_out(self) -> list[UnansweredRequest]:
        """What was fed so far has waited for too long."""
        overdue = self.connection.time_out(self._request_position)
        for request in overdue:
            assert self._needed_from[0] <= request.request_start < request.request_end
        self._keep([])
        if overdue:
            assert self._needed_from[0] >= overdue[-1].request_end, "it would be given out again"
        return overdue

    def finish(self) -> list[StreamExchange]:
        self._keep(self.connection.finish())
        for request in self.connection.unanswered():
            assert self._needed_from[0] <= request.request_start < request.request_end
        return self.found

    def _keep(self, found: list[StreamExchange]) -> list[StreamExchange]:
        request, response = self._needed_from
        for exchange in found:
            assert exchange.request_start >= request
            assert exchange.response_start >= response
        self._needed_from = self.connection.needed_from()
        self.found += found
        return found


def _extents(messages: Sequence[bytes]) -> list[tuple[int, int]]:
    extents, position = [], 0
    for message in messages:
        if not isinstance(message, Unanswered):
            extents.append((position, position + len(message)))
        position += len(message)
    return extents


def expected(turns: Sequence[Turn], summaries: Sequence[Hashable]) -> list[StreamExchange]:
    """The exchanges of these turns, exact to the byte."""
    requests = _extents([message for turn in turns for message in turn.requests])
    responses = _extents([message for turn in turns for message in turn.responses])
    return [
        StreamExchange(*request, *response, summary)
        for request, response, summary in zip(requests, responses, summaries, strict=True)
    ]
