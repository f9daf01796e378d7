"""The replies of one Redis connection, and whose they are.

A reply may nest to any depth: a counter of elements still to come replaces the stack, because every aggregate just
adds its elements. (RESP3's *streamed* aggregates have no count; each saves the counter until its end.)

Order tells whose a reply is, with the exceptions that Redis makes: (UN)SUBSCRIBE is confirmed once a channel, and
these are no reply at all: RESP3 pushes, RESP2 messages while subscribed, lines of MONITOR.
"""

from __future__ import annotations

from collections import deque

from .parser import StreamExchange
from .redis_commands import WORD_LIMIT, Replies, error_code
from .redis_requests import Request
from .resp import DIGITS, INVALID, NULL_LENGTH, TYPES, Type, number_of
from .resp_stream import RespStream

# Plain bytes and ints: members of an enum are slower to compare, and this is done for every element.
_LINES = bytes((Type.SIMPLE_STRING, Type.INTEGER, Type.NULL, Type.BOOLEAN, Type.DOUBLE, Type.BIG_NUMBER))
_BULKS = bytes((Type.BULK_STRING, Type.BULK_ERROR, Type.VERBATIM_STRING))
_AGGREGATES = bytes((Type.ARRAY, Type.SET, Type.PUSH, Type.MAP, Type.ATTRIBUTE))
_ARRAY = int(Type.ARRAY)
_ATTRIBUTE = int(Type.ATTRIBUTE)

#: streamed aggregates inside each other
_STREAMED_DEPTH = 128
_STREAMED_ELEMENTS = 1 << 60

#: which count of subscriptions a confirmation is about
_CONFIRMATIONS = {
    b"subscribe": "channels",
    b"unsubscribe": "channels",
    b"psubscribe": "patterns",
    b"punsubscribe": "patterns",
    b"ssubscribe": "shard channels",
    b"sunsubscribe": "shard channels",
}
#: confirmations give one number for channels and patterns
_COUNTED_WITH = {"channels": "patterns", "patterns": "channels"}
_MESSAGES = frozenset((b"message", b"pmessage", b"smessage"))


class ReplyStream(RespStream):
    """Finds replies, takes each one's request from ``pending`` and appends the pair to ``found``."""

    __slots__ = (
        "_capture",
        "_counts",
        "_error",
        "_first",
        "_kind",
        "_line_of_monitor",
        "_monitoring",
        "_number",
        "_pending",
        "_streamed",
        "_subscribed",
        "_unconfirmed",
        "_word",
        "found",
        "pushes",
        "switched",
    )

    def __init__(self, pending: deque[Request]) -> None:
        super().__init__()
        self._pending = pending
        self.found: list[StreamExchange] = []
        self.pushes = 0
        self.switched = False  # to replication
        self._streamed: list[int] = []  # what was left when a streamed aggregate began
        self._kind = 0
        self._error: str | None = None
        self._capture = False  # whether this may be a push or a confirmation, told by its first word
        self._word = b""
        self._number = 0
        self._monitoring = False
        self._line_of_monitor = False
        self._subscribed = False
        self._counts = {"channels": 0, "patterns": 0, "shard channels": 0}
        self._unconfirmed = 0  # channels of the (UN)SUBSCRIBE under way; 0: none is
        self._first = 0  # where its first confirmation began

    def restart(self, position: int) -> None:
        super().restart(position)
        self._streamed.clear()
        self._unconfirmed = 0

    def at_boundary(self) -> bool:
        return not self._unconfirmed and super().at_boundary()

    def message_start(self) -> int:
        return self._first if self._unconfirmed else super().message_start()

    def finish(self) -> None:
        """The connection has ended: a reply that has begun ends here, unless it may be a push."""
        if self.lost or not self._pending:
            return
        if self._left < 0 and self._tail:
            self._begin(self._tail, 0, self._next)
        is_reply = self._left >= 0 and not self._capture and not self._line_of_monitor
        if (self._unconfirmed or is_reply) and not self.lost:
            self._answer(self.message_start(), self.end)

    def _element(self, buffer: bytes, at: int, line_end: int, base: int) -> int:
        if line_end < 0:
            self.lost = buffer[at] not in TYPES
            return -1
        if self._left < 0:
            self._begin(buffer, at, base)
            if self.lost or self.starved:
                return -1
        elif self._kind == _ATTRIBUTE and self._left == 1:
            self._kind = buffer[at]  # the reply itself
        kind = buffer[at]
        if kind in _BULKS:
            return self._bulk(buffer, at, line_end)
        if kind in _AGGREGATES:
            self._aggregate(kind, buffer[at:line_end])
        elif kind in _LINES:
            self._left -= 1
            if self._capture:
                self._note(kind, buffer[at + 1 : line_end])
        elif kind == Type.SIMPLE_ERROR:
            self._left -= 1
            if self._kind == kind:
                self._error = error_code(buffer[at + 1 : line_end])
        else:
            return self._streamed_part(kind, buffer[at:line_end], line_end + 2)
        return line_end + 2 if not self.lost else -1

    def _begin(self, buffer: bytes, at: int, base: int) -> None:
        kind = buffer[at]
        pending = self._pending
        replies = pending[0][2].replies if pending else Replies.ONE
        if replies is Replies.REPLICATION:
            self.lost = self.switched = True
            return
        if kind == _ARRAY:
            self._capture = self._subscribed or replies is Replies.SUBSCRIPTION
        else:
            self._capture = kind == Type.PUSH
        self._line_of_monitor = self._monitoring and kind == Type.SIMPLE_STRING and buffer[at + 1 : at + 2].isdigit()
        if not pending and not self._capture and not self._line_of_monitor:
            self.starved = True
            return
        self._start = base + at
        self._kind = kind
        self._left = 1
        self._error = None
        self._word = b""

    def _bulk(self, buffer: bytes, at: int, line_end: int) -> int:
        header = buffer[at:line_end]
        length = number_of(header)
        begin = line_end + 2
        if length < 0:
            if length == NULL_LENGTH:
                self._left -= 1
            elif header[1:] != b"?":  # else chunks follow
                self.lost = True
            return begin
        is_error = self._kind == Type.BULK_ERROR
        if is_error or (self._capture and not self._word):
            shown = begin + min(length, WORD_LIMIT)
            if shown > len(buffer):
                return -1
            self._word = buffer[begin:shown]
            if is_error:
                self._error = error_code(self._word)
        self._left -= 1
        return begin + length + 2

    def _aggregate(self, kind: int, header: bytes) -> None:
        count = number_of(header)
        if count == INVALID:
            if header[1:] != b"?" or len(self._streamed) >= _STREAMED_DEPTH:
                self.lost = True
                return
            self._streamed.append(self._left - 1)
            self._left = _STREAMED_ELEMENTS
        elif kind == _ATTRIBUTE:  # comes before an element, and is none
            self._left += 2 * max(count, 0)
        else:
            self._left += max(count, 0) * (2 if kind == Type.MAP else 1) - 1

    def _streamed_part(self, kind: int, header: bytes, after: int) -> int:
        """A chunk of a streamed string, or the end of a streamed aggregate."""
        if kind == Type.CHUNK:
            length = number_of(header)
            if length > 0:
                return after + length + 2
            if not length:
                self._left -= 1
                return after
        elif kind == Type.END and self._streamed:
            self._left = self._streamed.pop()
            return after
        self.lost = True
        return -1

    def _note(self, kind: int, text: bytes) -> None:
        if kind == Type.INTEGER and text.isdigit() and len(text) <= DIGITS:
            self._number = int(text)
        elif kind == Type.SIMPLE_STRING and not self._word:
            self._word = text[:WORD_LIMIT]

    def _complete(self, end: int) -> None:
        self._left = -1
        if self._line_of_monitor:
            self.pushes += 1
        elif self._capture:
            self._complete_captured(end)
        else:
            self._answer(self._start, end)

    def _complete_captured(self, end: int) -> None:
        word, pending = self._word, self._pending
        if word in _CONFIRMATIONS and pending and pending[0][2].name == word.decode().upper():
            self._confirm(word, end)
        elif self._kind == Type.PUSH or word in _MESSAGES or word in _CONFIRMATIONS:
            self.pushes += 1
        elif pending:
            self._answer(self._start, end)
        else:
            self.lost = True

    def _confirm(self, word: bytes, end: int) -> None:
        """Confirmations come once for each channel named, or once for each subscribed if none is named (and once
        even if there is none)."""
        counts, family = self._counts, _CONFIRMATIONS[word]
        if not self._unconfirmed:
            self._unconfirmed = self._pending[0][3] - 1 or counts[family] or 1
            self._first = self._start
        other = _COUNTED_WITH.get(family)
        counts[family] = max(self._number - (counts[other] if other else 0), 0)
        self._subscribed = any(counts.values())
        self._unconfirmed -= 1
        if not self._unconfirmed:
            self._answer(self._first, end)

    def _answer(self, start: int, end: int) -> None:
        request_start, request_end, command, _ = self._pending.popleft()
        self.found.append(StreamExchange(request_start, request_end, start, end, (command.name, self._error)))
        if command.replies is not Replies.ONE:
            self._unconfirmed = 0
            if command.replies is Replies.MONITOR:
                self._monitoring = self._error is None
            elif command.replies is Replies.RESET:
                self._monitoring = self._subscribed = False
                self._counts = dict.fromkeys(self._counts, 0)
