"""The two streams of one HTTP/1.x connection, paired by order (RFC 9112).

A head is read as a whole, up to 64 KiB. A body is only measured: one with a length costs nothing, of a chunked one the
lines with the sizes are read, and one without either lasts until the connection ends (``finish``).

A response may come before its request is complete; the pair is given out when both are, or at the end of the
connection with the request as far as it came. Interim responses (100 Continue, 103) are no answer and belong to no
exchange. After 101, or 2xx to CONNECT, the connection speaks another protocol: the rest is skipped and counted.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from .http1_messages import (
    REQUEST_LINE,
    STATUS_LINE,
    STATUS_LINE_START,
    Framing,
    RequestSummary,
    framing_of,
    request_summary,
)
from .ordered import PENDING_LIMIT, OrderedConnection
from .parser import StreamExchange, UnansweredRequest
from .stream import FOREVER, Stream

_EMPTY_LINES = re.compile(rb"[\r\n]*")
_HEAD_END = re.compile(rb"\n\r?\n")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
_CHUNK_END = re.compile(rb"\r?\n")
#: chunk extensions are as good as unused; RFC 9112, 7.1.1 asks for a limit
_CHUNK_LINE_LIMIT = 4096
_METHOD_START = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}(?: |\Z)")


class State(Enum):
    """What comes next in a stream."""

    HEAD = "head"
    BODY_END = "body end"
    CHUNK_SIZE = "chunk size"
    CHUNK_END = "chunk end"
    TRAILERS = "trailers"


@dataclass(slots=True)
class Request:
    """A request that waits for its response. end: None until its last byte has come."""

    start: int
    end: int | None
    summary: RequestSummary


@dataclass(slots=True)
class Response:
    """A final response. end: None until it is complete. status: None if the connection ended inside the head."""

    request: Request
    start: int
    end: int | None
    status: int | None


class MessageStream(Stream):
    """Finds the end of each message; what begins one is told by its direction."""

    __slots__ = ("_start", "_state", "_until_close")

    #: a complete first line
    first_line: ClassVar[re.Pattern[bytes]]

    def __init__(self) -> None:
        super().__init__()
        self._state = State.HEAD
        self._start = 0
        self._until_close = False

    @abstractmethod
    def may_begin(self, start: bytes) -> bool:
        """Whether these bytes, without a line end, can be the start of a message."""

    @abstractmethod
    def open(self, head: bytes, position: int) -> tuple[Framing, int] | None:
        """A message with this head begins at ``position``. Returns its framing; None loses the stream."""

    @abstractmethod
    def close(self, position: int) -> None:
        """The message ends before ``position``."""

    def restart(self, position: int) -> None:
        super().restart(position)
        self._state = State.HEAD
        self._until_close = False

    def at_boundary(self) -> bool:
        return self._state is State.HEAD and not self._tail

    def message_start(self) -> int:
        return self._next if self._state is State.HEAD else self._start

    def read(self, buffer: bytes, base: int) -> int:
        at = 0
        while at <= len(buffer) and not self.lost:
            after = _STEPS[self._state](self, buffer, at, base)
            if after < 0:
                break
            at = after
        return at

    def _read_head(self, buffer: bytes, at: int, base: int) -> int:
        empty_lines = _EMPTY_LINES.match(buffer, at)
        if empty_lines and empty_lines.end() > at:  # RFC 9112, 2.2
            return empty_lines.end()
        end = _HEAD_END.search(buffer, at)
        if not self._begins(buffer, at):
            self.lost = True
        elif end is not None:
            framing = self.open(buffer[at : end.end()], base + at)
            if framing is not None:
                self._start = base + at
                return self._begin_body(framing, end.end())
            self.lost = True
        return -1

    def _begins(self, buffer: bytes, at: int) -> bool:
        if buffer.find(b"\n", at) >= 0:
            return self.first_line.match(buffer, at) is not None
        return at == len(buffer) or self.may_begin(buffer[at : at + 64])

    def _begin_body(self, framing: tuple[Framing, int], at: int) -> int:
        kind, length = framing
        self._state = State.CHUNK_SIZE if kind is Framing.CHUNKED else State.BODY_END
        if kind is Framing.CLOSE:
            self._until_close = True
            return FOREVER
        return at + length

    def _end_body(self, buffer: bytes, at: int, base: int) -> int:
        self._state = State.HEAD
        self.close(base + at)
        return at

    def _read_chunk_size(self, buffer: bytes, at: int, base: int) -> int:
        size = _CHUNK_SIZE.match(buffer, at)
        if size is None:
            self.lost = buffer.find(b"\n", at) >= 0 or len(buffer) - at > _CHUNK_LINE_LIMIT
            return -1
        length = int(size[1], 16)
        self._state = State.CHUNK_END if length else State.TRAILERS
        return size.end() + length

    def _end_chunk(self, buffer: bytes, at: int, base: int) -> int:
        line_end = _CHUNK_END.match(buffer, at)
        if line_end is None:
            self.lost = buffer[at:] not in (b"", b"\r")
            return -1
        self._state = State.CHUNK_SIZE
        return line_end.end()

    def _skip_trailer(self, buffer: bytes, at: int, base: int) -> int:
        line_end = buffer.find(b"\n", at)
        if line_end < 0:
            return -1
        if not buffer[at:line_end].rstrip(b"\r"):
            self._state = State.BODY_END
        return line_end + 1


_STEPS = {
    State.HEAD: MessageStream._read_head,
    State.BODY_END: MessageStream._end_body,
    State.CHUNK_SIZE: MessageStream._read_chunk_size,
    State.CHUNK_END: MessageStream._end_chunk,
    State.TRAILERS: MessageStream._skip_trailer,
}


class RequestStream(MessageStream):
    """Appends requests to ``pending`` as soon as their head is read."""

    __slots__ = ("_current", "_pending")

    first_line = REQUEST_LINE

    def __init__(self, pending: deque[Request]) -> None:
        super().__init__()
        self._pending = pending
        self._current: Request | None = None

    def may_begin(self, start: bytes) -> bool:
        return _METHOD_START.match(start) is not None

    def open(self, head: bytes, position: int) -> tuple[Framing, int] | None:
        framing = framing_of(head, without_length=Framing.LENGTH)
        if framing is None or len(self._pending) >= PENDING_LIMIT:
            return None
        self._current = Request(position, None, request_summary(head))
        self._pending.append(self._current)
        return framing

    def close(self, position: int) -> None:
        if self._current is not None:
            self._current.end = position


class ResponseStream(MessageStream):
    """Takes each response's request from ``pending``; both go to ``answered`` when the response is complete."""

    __slots__ = ("_pending", "_switching", "answered", "current", "pushes", "switched")

    first_line = STATUS_LINE

    def __init__(self, pending: deque[Request]) -> None:
        super().__init__()
        self._pending = pending
        self._switching = False
        self.current: Response | None = None
        self.answered: deque[Response] = deque()
        self.pushes = 0
        self.switched = False

    def may_begin(self, start: bytes) -> bool:
        return STATUS_LINE_START.startswith(start[:7])

    def open(self, head: bytes, position: int) -> tuple[Framing, int] | None:
        status = int(head[9:12])
        self.current = None
        if 100 <= status < 200 and status != 101 and self._pending:
            return Framing.LENGTH, 0
        if self._pending:
            self.current = Response(self._pending.popleft(), position, None, status)
        elif status == 408:  # the server closes an idle connection (RFC 9110, 15.5.9)
            self.pushes += 1
        else:
            return None
        method = self.current.request.summary[0] if self.current else None
        self._switching = status == 101 or (method == "CONNECT" and status < 300)
        if self._switching or method == "HEAD" or status in (204, 304):
            return Framing.LENGTH, 0
        return framing_of(head, without_length=Framing.CLOSE)

    def close(self, position: int) -> None:
        response, self.current = self.current, None
        if response is not None:
            response.end = position
            self.answered.append(response)
        if self._switching:
            self.lost = self.switched = True

    def finish(self) -> None:
        """The connection has ended, and with it a response that has begun."""
        if self.lost or self.at_boundary():
            return
        if self._state is State.HEAD and self._pending:
            self.current = Response(self._pending.popleft(), self.message_start(), None, None)
        if self._until_close:  # the end of the connection is that of the message: it is not cut
            self._until_close = False
            self._state = State.HEAD
        self.close(self.end)


class Http1Connection(OrderedConnection[RequestStream, ResponseStream]):
    """See :class:`~.parser.ConnectionParser`. Summaries are those of :mod:`.http1_messages`."""

    __slots__ = ("_pending",)

    #: every request has a response
    one_way = 0

    def __init__(self) -> None:
        self._pending: deque[Request] = deque()
        super().__init__(RequestStream(self._pending), ResponseStream(self._pending))

    @property
    def pushes(self) -> int:
        return self._responses.pushes

    def _begins_message(self, data: bytes) -> bool:
        return REQUEST_LINE.match(data) is not None

    def unanswered(self) -> list[UnansweredRequest]:
        fed = self._requests.end
        return [
            UnansweredRequest(request.start, fed if request.end is None else request.end, (*request.summary, None))
            for request in self._pending
        ]

    def _oldest_waiting(self) -> tuple[int, int]:
        responses, pending = self._responses, self._pending
        begun = responses.answered[0] if responses.answered else responses.current
        if begun is not None:
            return begun.request.start, begun.start
        request = pending[0].start if pending else self._requests.needed_from()
        return request, responses.needed_from()

    def _waiting(self) -> int:
        return len(self._pending) + len(self._responses.answered) + (self._responses.current is not None)

    def _forget(self) -> None:
        self._pending.clear()
        self._responses.answered.clear()
        self._responses.current = None

    def _collect(self) -> None:
        answered = self._responses.answered
        while answered:
            request = answered[0].request
            if request.end is not None:
                self._found.append(_exchange(answered.popleft(), request.end))
            elif self._requests.lost:
                self.unpaired += 1
                answered.popleft()
            else:
                break
        if self._responses.switched and not self._switched:
            self._switch()

    def _end_streams(self) -> None:
        self._responses.finish()
        self._collect()
        answered = self._responses.answered
        while answered:
            self._found.append(_exchange(answered.popleft(), self._requests.end))
        if self._requests.lost and self._pending and self._pending[-1].end is None:
            self.unpaired += 1  # its end is in a gap
            self._pending.pop()


def _exchange(response: Response, request_end: int) -> StreamExchange:
    request = response.request
    assert response.end is not None
    summary = (*request.summary, response.status)
    return StreamExchange(request.start, request_end, response.start, response.end, summary)
