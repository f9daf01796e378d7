"""HTTP/2 (RFC 9113) over a connection whose preface was seen: turns of a multiplexed stream.

The kernel tells such a connection by its preface (bpf/opaque.h) and captures nothing of what follows. Requests of several
streams are under way at once, so a turn need not be a request: the span says that it is none.
"""

from __future__ import annotations

from collections.abc import Hashable

from ...pipeline.spans import Fragment, SpanKind
from .parser import Endpoint, ProtocolName

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_ATTRIBUTES = (
    ("network.protocol.name", ProtocolName.HTTP.value),
    ("network.protocol.version", "2"),
    ("wirespan.exchange.delimited", False),
)


class Http2Parser:
    """See :class:`~.parser.Parser`. Asked for what the kernel says is HTTP/2, not by :func:`~.registry.recognise`."""

    name = ProtocolName.HTTP.value

    def recognises(self, request: bytes, response: bytes) -> bool:
        return request.startswith(PREFACE)

    def summarise(self, request: bytes, response: bytes) -> None:
        return None

    def fragment(self, summary: Hashable, kind: SpanKind, server: Endpoint) -> Fragment:
        return Fragment("HTTP", _ATTRIBUTES)
