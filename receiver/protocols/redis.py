"""Redis (RESP2 and RESP3): one command, one reply.

Spans follow the semantic conventions for Redis: named by the command, two words where the first is only a container
(``CLIENT SETNAME``). A command that is in no table of :mod:`.redis_commands` may be payload: its span is named
``redis`` and has no ``db.operation.name``. Likewise an error code: ``error.type`` is then ``_OTHER``.

The heads of one exchange are enough for all that. A head that ends inside the second word gives the first alone.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import TypeAlias, cast

from ...pipeline.spans import AttributeValue, Fragment, SpanKind, StatusCode
from .parser import Endpoint, Pipelined, ProtocolName, marked_as_pipelined
from .redis_commands import OTHER, UNKNOWN, command_of, error_code
from .redis_connection import RedisConnection
from .resp import TYPES, number_of

#: command, error code; None: unknown, no error
Summary: TypeAlias = tuple[str | None, str | None]

#: an array of at least one bulk string, possibly cut behind its ``$``
_ARRAY_HEAD = re.compile(rb"\*[1-9]\d{0,6}\r\n\$(?:\d|\Z)")
_INLINE_HEAD = re.compile(rb"([A-Za-z][A-Za-z._-]{2,})(?: [^\r\n]*)?\r?\n")
_PLAIN_REPLY = re.compile(rb"(?:\+(?:OK|PONG|QUEUED)|[$:*]-?\d{1,12}|-(?:ERR|WRONGTYPE|NOAUTH) [^\r\n]*)\r\n")
#: text protocols of mail and news have these commands too, and replies that look the same
_ALSO_ELSEWHERE = frozenset((b"AUTH", b"QUIT"))


def _error(response: bytes) -> str | None:
    """The code of an error reply. Behind a push or an attribute nothing is looked for."""
    first = response[:1]
    if first == b"-":
        return error_code(response[1:].partition(b"\r\n")[0])
    if first == b"!":
        return error_code(response.partition(b"\r\n")[2])
    return None


def _inline_summary(request: bytes, response: bytes) -> Summary | Pipelined:
    """A line is a command, so what stands behind the first one is another."""
    line, _, behind = request.partition(b"\n")
    first, second, *_ = *line.split(None, 2), b"", b""
    summary = command_of(first, second).name, _error(response)
    return Pipelined(summary) if behind.strip() else summary


class RedisParser:
    """See :class:`~.parser.Parser`."""

    name = ProtocolName.REDIS.value

    def recognises(self, request: bytes, response: bytes) -> bool:
        if request[:1] == b"*":
            return _ARRAY_HEAD.match(request) is not None and (not response or response[0] in TYPES)
        head = _INLINE_HEAD.match(request)
        if head is None or not _PLAIN_REPLY.match(response):
            return False
        return command_of(head[1], b"") is not UNKNOWN and head[1].upper() not in _ALSO_ELSEWHERE

    def summarise(self, request: bytes, response: bytes) -> Summary | Pipelined:
        if request[:1] != b"*":
            return _inline_summary(request, response)
        words = request.split(b"\r\n", 5)
        # A word that is cut must not be taken for a shorter one.
        if len(words) > 2 and number_of(words[1]) == len(words[2]):
            command = command_of(words[2], b"")
            if command.subcommands and len(words) > 4 and number_of(words[3]) == len(words[4]):
                command = command_of(words[2], words[4])
        else:
            command = UNKNOWN
        return command.name, _error(response)

    def fragment(self, summary: Hashable, kind: SpanKind, server: Endpoint) -> Fragment:
        if isinstance(summary, Pipelined):
            return marked_as_pipelined(self.fragment(summary.first, kind, server))
        command, error = cast(Summary, summary)
        attributes: list[tuple[str, AttributeValue]] = [
            ("db.system.name", "redis"),
            ("network.protocol.name", self.name),
        ]
        if command:
            attributes.append(("db.operation.name", command))
        if error:
            attributes.append(("error.type", error))
            if error != OTHER:
                attributes.append(("db.response.status_code", error))
        status = StatusCode.ERROR if error else StatusCode.UNSET
        return Fragment(command or "redis", tuple(attributes), status)

    def connection(self) -> RedisConnection:
        return RedisConnection()
