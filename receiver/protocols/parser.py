"""The contract of a protocol parser.

A parser only observes. It never raises on bad input; GAP (bytes that were not captured), TRUNCATED (a head
cut by the capture limit) and MID-STREAM (the first bytes seen are not a message's first) are states. It emits
no query string, user info, header value, key or literal.

There are two ways in. *Turn mode*: the kernel delimited one exchange and captured the first bytes of each
side; :meth:`Parser.summarise` reduces them to the smallest hashable value that determines everything
emitted, and :meth:`Parser.fragment` turns a summary into span attributes. The caller remembers the fragment by a
hash of the heads, and by summary: ``summarise`` runs for heads that are new, ``fragment`` for summaries that are.
Plain HTTP/1.x and Redis heads are hashed without what does not matter (wirespan/native/heads.c). *Segment mode*: every
I/O's bytes go up because several requests may be under way; a :class:`ConnectionParser` finds the messages
in the two byte streams and pairs them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, Protocol

from ...pipeline.spans import Fragment, SpanKind


class ProtocolName(StrEnum):
    """Values of ``network.protocol.name`` (semantic conventions: lower case) of the parsers in this folder."""

    HTTP = "http"
    TLS = "tls"
    REDIS = "redis"
    DNS = "dns"
    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    MEMCACHED = "memcached"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server's end of the connection as the observing side sees it. address: textual IP."""

    address: str
    port: int


class Pipelined(NamedTuple):
    """Summary of an exchange of turn mode that holds more than one request, by that of the first."""

    first: Hashable


def marked_as_pipelined(fragment: Fragment) -> Fragment:
    return replace(fragment, attributes=(*fragment.attributes, ("wirespan.exchange.pipelined", True)))


class StreamExchange(NamedTuple):
    """One exchange found in the byte streams of a connection.

    All four are absolute stream positions (bytes since the connection began), ends exclusive, of the request
    in the request stream and of the response in the response stream. A tuple, because one is made for every
    command of a pipeline: a frozen dataclass takes three times as long.
    """

    request_start: int
    request_end: int
    response_start: int
    response_end: int
    summary: Hashable


class UnansweredRequest(NamedTuple):
    """A request without a response byte when its connection ended, or when it had waited for too long; positions as in
    :class:`StreamExchange`. ``summary`` is that of an exchange of which the response is not known."""

    request_start: int
    request_end: int
    summary: Hashable


class ConnectionParser(Protocol):
    """Finds and pairs the messages of one connection; its memory is bounded.

    I/Os are fed in the order in which they happened. Exchanges come out in the order of their positions, and
    never before the last byte of both messages was fed.
    """

    @property
    def skipped_bytes(self) -> int:
        """Bytes in which no message was looked for or found, since the parser was made: those lost in a gap with
        the beginning of a message in it, those up to the next certain beginning, and what follows an upgrade."""

    @property
    def pushes(self) -> int:
        """Messages of the server that answer no request."""

    @property
    def one_way(self) -> int:
        """Requests that by the protocol's own rules get no response."""

    @property
    def late(self) -> int:
        """Responses to requests that :meth:`time_out` had given out before."""

    @property
    def unpaired(self) -> int:
        """Requests of which a gap made it unknowable which response is theirs."""

    def feed_request(self, position: int, data: bytes, size: int) -> list[StreamExchange]:
        """Bytes that travel to the server: ``size`` bytes at stream ``position``, of which the first
        ``len(data)`` were captured; the rest is a gap. A position beyond the last end is a gap too. Returns the
        exchanges that this completes."""

    def feed_response(self, position: int, data: bytes, size: int) -> list[StreamExchange]:
        """The same for bytes that travel back."""

    @property
    def starved(self) -> bool:
        """The next response byte answers a request that was not fed yet. Responses behind it are kept by the caller
        until a request has been fed and this is false again."""

    def stop_waiting(self) -> None:
        """The request for which this is ``starved`` will not come: look for where pairing can begin anew."""

    def quiet(self) -> None:
        """Nothing has travelled for so long (the receiver's ``settle``) that whatever was asked is answered. Lets a
        connection that has lost its pairs after a gap begin anew; may be called at any time of quiet."""

    def time_out(self, position: int) -> list[UnansweredRequest]:
        """Requests that end at or before this position have waited for too long: those of which no response byte
        has come, in the order of their positions. They are not given out again; their responses, if they come, are
        ``late``."""

    def finish(self) -> list[StreamExchange]:
        """Nothing will be fed any more, because the connection has ended or is not followed further: returns the
        exchanges that this completes (a response as far as it came). Pairs held back in doubt are given out or
        become ``unpaired``; what is pending afterwards has no response byte."""

    def unanswered(self) -> list[UnansweredRequest]:
        """After ``finish``: the pending requests, in the order of their positions, without those timed out."""

    def pending(self) -> int:
        """Requests seen that wait for their response, or for the end that would complete them, and are not timed
        out."""

    def kept_bytes(self) -> int:
        """About how much memory is taken by what it keeps of the streams and by requests under way. Asked for at every
        I/O."""

    def needed_from(self) -> tuple[int, int]:
        """Positions in the request and the response stream before which no exchange still to come begins: what
        else is kept about the streams (the times of I/Os) is needed from there on."""


class Parser(Protocol):
    """A protocol. Instances are stateless and shared."""

    #: ``network.protocol.name``
    name: str

    def recognises(self, request: bytes, response: bytes) -> bool:
        """Whether these heads (either may be empty or truncated) are of this protocol. Never true by chance
        for ciphertext or random bytes: at least 4 fixed bytes, or the equivalent, are checked."""

    def summarise(self, request: bytes, response: bytes) -> Hashable:
        """Reduce the heads of one exchange to what determines its fragment."""

    def fragment(self, summary: Hashable, kind: SpanKind, server: Endpoint) -> Fragment:
        """Name, status and attributes (``network.protocol.name`` included) of a span of this summary."""


class SegmentParser(Parser, Protocol):
    """A protocol whose connections the kernel sends up in segment mode."""

    def connection(self) -> ConnectionParser:
        """A parser for one connection in segment mode."""
