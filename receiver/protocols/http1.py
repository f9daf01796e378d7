"""HTTP/1.x (RFC 9112): a request, a response, in order.

Spans follow the stable semantic conventions, named by the method. ``Host`` is a header value, so ``url.full`` is built
from the server's address and port. A path that the capture cut is given up to its last whole segment, with
``wirespan.url.truncated``; no path is given for CONNECT and ``*``, whose target has none. A method that is not
registered is ``_OTHER``, and its name is not emitted: it may be any word of the client.

In turn mode a response without a request (its bytes were not captured) still gives the status. Requests that were sent
without waiting are one turn: where the captured head shows that, the exchange is marked as pipelined.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import cast

from ...pipeline.spans import AttributeValue, Fragment, SpanKind, StatusCode
from .http1_messages import (
    OTHER,
    REQUEST_LINE,
    STATUS_LINE,
    STATUS_LINE_START,
    Summary,
    holds_another_request,
    is_cut_request_line,
    summary_of,
    url_path,
)
from .parser import Endpoint, Pipelined, ProtocolName, marked_as_pipelined


class Http1Parser:
    """See :class:`~.parser.Parser`."""

    name = ProtocolName.HTTP.value

    def recognises(self, request: bytes, response: bytes) -> bool:
        if REQUEST_LINE.match(request) or STATUS_LINE.match(response):
            return True
        # Nothing but its beginning tells a request whose line is cut, so its response must not contradict it.
        return STATUS_LINE_START.startswith(response[:7]) and is_cut_request_line(request)

    def summarise(self, request: bytes, response: bytes) -> Summary | Pipelined:
        summary = summary_of(request, response)
        if request.find(b"\r\n\r\n", 0, -1) >= 0 and holds_another_request(request):  # most heads have nothing behind
            return Pipelined(summary)
        return summary

    def fragment(self, summary: Hashable, kind: SpanKind, server: Endpoint) -> Fragment:
        if isinstance(summary, Pipelined):
            return marked_as_pipelined(self.fragment(summary.first, kind, server))
        method, path, *_ = cast(Summary, summary)
        return self._fragment(cast(Summary, summary), kind, _url(method, path, kind, server))

    def fragment_without_url(self, summary: Summary | Pipelined, kind: SpanKind) -> Fragment:
        """The same without what of the URL differs from request to request: :func:`url_attribute`."""
        if isinstance(summary, Pipelined):
            return marked_as_pipelined(self.fragment_without_url(cast(Summary, summary.first), kind))
        return self._fragment(summary, kind, _SCHEME if kind is SpanKind.SERVER else ())

    def _fragment(self, summary: Summary, kind: SpanKind, url: Iterable[tuple[str, AttributeValue]]) -> Fragment:
        method, _, cut, version, status = summary
        attributes: list[tuple[str, AttributeValue]] = [("network.protocol.name", self.name)]
        if version:
            attributes.append(("network.protocol.version", version))
        if method:
            attributes.append(("http.request.method", method))
        attributes += url
        if cut:
            attributes.append(("wirespan.url.truncated", True))
        if status:
            attributes.append(("http.response.status_code", status))
        is_error = status is not None and status >= (400 if kind is SpanKind.CLIENT else 500)
        if is_error:
            attributes.append(("error.type", str(status)))
        name = "HTTP" if method in (None, OTHER) else method
        return Fragment(name, tuple(attributes), StatusCode.ERROR if is_error else StatusCode.UNSET)


_SCHEME: tuple[tuple[str, AttributeValue], ...] = (("url.scheme", "http"),)


def url_attribute(kind: SpanKind) -> str:
    """The attribute that holds the path: the client's view is the whole URL, the server's its parts."""
    return "url.path" if kind is SpanKind.SERVER else "url.full"


def origin(server: Endpoint) -> str:
    """What precedes the path in a whole URL."""
    host = f"[{server.address}]" if ":" in server.address else server.address
    return f"http://{host}:{server.port}"


def _url(method: str | None, path: bytes | None, kind: SpanKind, server: Endpoint) -> list[tuple[str, AttributeValue]]:
    text = url_path(path) if path is not None else None
    if kind is SpanKind.SERVER:
        return [(url_attribute(kind), text), *_SCHEME] if text is not None else [*_SCHEME]
    if text is None and method != "OPTIONS":
        return []
    return [(url_attribute(kind), f"{origin(server)}{text or ''}")]
