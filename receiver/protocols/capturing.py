"""What parsers leave out unless ``capture`` asks for it: query strings, headers, the words of a Redis command.

A parser of this file is another one that says more: its summary holds that one's and the attributes that are added. So it
is asked for heads as a whole, and each different text is a fragment of its own; tables of these are bounded.

Only what was captured whole is emitted: a header whose line has its end, a parameter of a query up to its ``&``. Values of
parameters that are named like a credential are replaced, and headers that are one cannot be asked for.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias, cast

from ...pipeline.spans import AttributeValue, Fragment, SpanKind
from .http1 import Http1Parser, url_attribute
from .http1_messages import url_path
from .parser import Endpoint, Parser, Pipelined, StreamExchange, UnansweredRequest
from .redis import RedisParser
from .redis import Summary as RedisSummary
from .redis_connection import RedisConnection
from .redis_text import QueryText, query_text

Attributes: TypeAlias = tuple[tuple[str, AttributeValue], ...]

#: bytes of a request that are looked at; bpf/record.h has as many in turn mode
HEAD_SIZE: Final = 256
#: bytes of unanswered requests that are kept of a connection in segment mode
KEPT_LIMIT: Final = 65_536

#: headers that are credentials themselves
CREDENTIAL_HEADERS: Final = frozenset(("authorization", "proxy-authorization", "cookie", "set-cookie"))

_REDACTED = b"REDACTED"
#: names of parameters whose values are not emitted: those of the conventions for url.query and url.full, and the usual ones
_CREDENTIAL: Final = re.compile(
    rb"sig|key|code|jwt|.*(?:token|secret|passw|pwd|signature|credential|api[-_.]?key|access[-_.]?key|auth|session).*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Capture:
    """request_headers, response_headers: names in lower case."""

    query_strings: bool = False
    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    query_text: QueryText = QueryText.NONE

    @property
    def of_http(self) -> bool:
        return self.query_strings or bool(self.request_headers) or bool(self.response_headers)

    @property
    def of_redis(self) -> bool:
        return self.query_text is not QueryText.NONE


class Captured(NamedTuple):
    """The summary of another parser and what is added. query: of a URL, None if there is none."""

    summary: Hashable
    attributes: Attributes = ()
    query: str | None = None


class CapturingHttp1Parser(Http1Parser):
    """HTTP/1.x with what ``capture`` asks for."""

    def __init__(self, capture: Capture) -> None:
        self._query_strings = capture.query_strings
        self._request_headers = frozenset(capture.request_headers)
        self._response_headers = frozenset(capture.response_headers)

    def summarise(self, request: bytes, response: bytes) -> Captured:  # type: ignore[override]
        summary = super().summarise(request, response)
        attributes = (
            *_headers("http.request.header", request, self._request_headers),
            *_headers("http.response.header", _final(response), self._response_headers),
        )
        query, is_cut = _query(request) if self._query_strings else (None, False)
        if is_cut:
            attributes = (*attributes, ("wirespan.url.truncated", True))
        return Captured(summary, attributes, query)

    def fragment(self, summary: Hashable, kind: SpanKind, server: Endpoint) -> Fragment:
        captured = cast(Captured, summary)
        plain = super().fragment(captured.summary, kind, server)
        attributes = plain.attributes
        if captured.query is not None:
            attributes = tuple(_with_query(attributes, captured.query, kind))
        return Fragment(plain.name, (*attributes, *captured.attributes), plain.status)


class CapturingRedisParser(RedisParser):
    """Redis with the text of commands."""

    def __init__(self, capture: Capture) -> None:
        self._mode = capture.query_text

    def summarise(self, request: bytes, response: bytes) -> Captured:  # type: ignore[override]
        summary = super().summarise(request, response)
        return Captured(summary) if isinstance(summary, Pipelined) else _with_text(summary, request, self._mode)

    def connection(self) -> RedisConnection:
        return CapturingRedisConnection(self._mode)

    def fragment(self, summary: Hashable, kind: SpanKind, server: Endpoint) -> Fragment:
        captured = cast(Captured, summary)
        plain = super().fragment(captured.summary, kind, server)
        return Fragment(plain.name, (*plain.attributes, *captured.attributes), plain.status)


class CapturingRedisConnection(RedisConnection):
    """Keeps the bytes of commands until these are answered, up to ``KEPT_LIMIT``: those beyond have no text."""

    __slots__ = ("_kept", "_mode", "_sent")

    def __init__(self, mode: QueryText) -> None:
        super().__init__()
        self._mode = mode
        self._sent: list[tuple[int, bytes]] = []  # positions and bytes
        self._kept = 0

    def feed_request(self, position: int, data: bytes, size: int) -> list[StreamExchange]:
        self._drop(max(self._index(self.needed_from()[0]), 0))
        self._sent.append((position, data))
        self._kept += len(data)
        while self._kept > KEPT_LIMIT:
            self._drop(1)
        return super().feed_request(position, data, size)

    def kept_bytes(self) -> int:
        return super().kept_bytes() + self._kept

    def unanswered(self) -> list[UnansweredRequest]:
        return [one._replace(summary=self._captured(one)) for one in super().unanswered()]

    def _take(self) -> list[StreamExchange]:
        return [one._replace(summary=self._captured(one)) for one in super()._take()]

    def _captured(self, found: StreamExchange | UnansweredRequest) -> Captured:
        return _with_text(cast(RedisSummary, found.summary), self._head(found.request_start), self._mode)

    def _head(self, position: int) -> bytes:
        """The first bytes at this position, as many as in turn mode, or fewer if these are all that were kept."""
        head = b""
        for begin, data in islice(self._sent, max(self._index(position), 0), None):
            at = position + len(head) - begin
            if not 0 <= at < len(data) or len(head) >= HEAD_SIZE:
                break
            head += data[at : at + HEAD_SIZE]
        return head[:HEAD_SIZE]

    def _index(self, position: int) -> int:
        """Of the bytes in which this position is, or behind which; -1: before all."""
        return bisect_right(self._sent, position, key=itemgetter(0)) - 1

    def _drop(self, count: int) -> None:
        """The oldest."""
        self._kept -= sum(len(data) for _, data in self._sent[:count])
        del self._sent[:count]


def _with_text(summary: RedisSummary, request: bytes, mode: QueryText) -> Captured:
    text = query_text(request, summary[0], mode) if request else None
    return Captured(summary, (("db.query.text", text),) if text else ())


def capturing(capture: Capture, http: Parser, redis: Parser) -> dict[Parser, Parser]:
    """By each parser of which more is asked the one that says more."""
    parsers: dict[Parser, Parser] = {}
    if capture.of_http:
        parsers[http] = CapturingHttp1Parser(capture)
    if capture.of_redis:
        parsers[redis] = CapturingRedisParser(capture)
    return parsers


def _headers(prefix: str, head: bytes, names: frozenset[str]) -> Attributes:
    """The fields of these names in a head: the values of those that were captured whole, in their order."""
    if not names:
        return ()
    found: dict[str, list[str]] = {}
    for line in _whole_lines(head):
        name, colon, value = line.partition(b":")
        key = name.decode("latin-1").lower()
        if colon and key in names:
            found.setdefault(key, []).append(url_path(value.strip(b" \t")))
    return tuple((f"{prefix}.{key}", tuple(values)) for key, values in found.items())


def _whole_lines(head: bytes) -> list[bytes]:
    """The lines of the fields."""
    fields, end, _ = head.partition(b"\r\n\r\n")
    return fields.split(b"\r\n")[1 : None if end else -1]


def _final(response: bytes) -> bytes:
    """Without interim responses, which precede the answer (RFC 9110, 15.2)."""
    while response[:7] == b"HTTP/1." and response[9:10] == b"1" and response[9:12] != b"101":
        response = response.partition(b"\r\n\r\n")[2]
    return response


def _query(request: bytes) -> tuple[str | None, bool]:
    """The query of a request's target without credentials, and whether it was cut, None if there is none."""
    parts = request.split(b" ", 2)
    if len(parts) < 2 or b"\n" in parts[1]:
        return None, False
    query, is_cut = parts[1].partition(b"#")[0].partition(b"?")[2], len(parts) == 2
    if is_cut:
        query = query.rpartition(b"&")[0]
    return (url_path(b"&".join(map(_parameter, query.split(b"&")))) if query else None), is_cut and b"?" in parts[1]


def _parameter(parameter: bytes) -> bytes:
    name, equals, _ = parameter.partition(b"=")
    return name + equals + _REDACTED if equals and _is_credential(name) else parameter


def _is_credential(name: bytes) -> bool:
    """Escapes do not hide a name."""
    plain = re.sub(rb"%([0-9A-Fa-f]{2})", lambda escape: bytes([int(escape[1], 16)]), name)
    return _CREDENTIAL.fullmatch(plain) is not None


def _with_query(attributes: Attributes, query: str, kind: SpanKind) -> Iterator[tuple[str, AttributeValue]]:
    """The query is part of the whole URL, or an attribute of its own beside the path."""
    url = url_attribute(kind)
    for name, value in attributes:
        yield (name, f"{value}?{query}") if name == url and kind is SpanKind.CLIENT else (name, value)
    if kind is SpanKind.SERVER:
        yield "url.query", query
