"""The two streams of one Redis connection, paired by order."""

from __future__ import annotations

import re
from collections import deque

from .ordered import OrderedConnection
from .parser import UnansweredRequest
from .redis_commands import UNKNOWN, command_of
from .redis_replies import ReplyStream
from .redis_requests import Request, RequestStream

_COMMAND_HEAD = re.compile(rb"\*[1-9]\d{0,6}\r\n\$\d{1,2}\r\n([A-Za-z._-]+)\r\n")


class RedisConnection(OrderedConnection[RequestStream, ReplyStream]):
    """See :class:`~.parser.ConnectionParser`. Summaries are (command name or None, error code or None)."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: deque[Request] = deque()
        super().__init__(RequestStream(self._pending), ReplyStream(self._pending))

    @property
    def pushes(self) -> int:
        return self._responses.pushes

    @property
    def one_way(self) -> int:
        return self._requests.one_way

    def _begins_message(self, data: bytes) -> bool:
        head = _COMMAND_HEAD.match(data)
        return head is not None and command_of(head[1], b"") is not UNKNOWN

    def unanswered(self) -> list[UnansweredRequest]:
        return [
            UnansweredRequest(start, end, (command.name, None))
            for start, end, command, _ in self._pending
            if start >= self._timed_out_to
        ]

    def _oldest_waiting(self) -> tuple[int, int]:
        request = self._pending[0][0] if self._pending else self._requests.needed_from()
        return request, self._responses.needed_from()

    def _waiting(self) -> int:
        return len(self._pending)

    def _forget(self) -> None:
        self._pending.clear()

    def _end_streams(self) -> None:
        self._responses.finish()
        self._collect()

    def _collect(self) -> None:
        if self._responses.found:
            self._add(self._responses.found)
            self._responses.found = []
        if self._responses.switched and not self._switched:
            self._pending.popleft()
            self._requests.one_way += 1
            self._switch()
