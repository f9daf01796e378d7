"""The parsers, in the order in which they are asked whether they know a connection's bytes.

A parser of an installed package is named by an entry point of the group ``wirespan.protocols``, which loads an object
that fulfils :class:`~.parser.Parser`. It is asked after the ones of this folder.
"""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import Final

from .dns import DnsParser
from .http1 import Http1Parser
from .http2 import Http2Parser
from .parser import Parser
from .redis import RedisParser
from .tls import TlsParser

logger = logging.getLogger(__name__)

ENTRY_POINTS: Final = "wirespan.protocols"


def third_party_parsers() -> tuple[Parser, ...]:
    """Parsers of installed packages; one that cannot be loaded is reported and left out."""
    parsers: list[Parser] = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            parsers.append(entry.load())
        except Exception as error:  # whatever a package does while it is imported
            logger.warning("The protocol parser %r (%s) cannot be loaded: %s", entry.name, entry.value, error)
    return tuple(parsers)


HTTP1_PARSER: Final = Http1Parser()
RESP_PARSER: Final = RedisParser()
DNS_PARSER: Final = DnsParser()
TLS_PARSER: Final = TlsParser()
#: asked only for what the kernel tells
HTTP2_PARSER: Final = Http2Parser()

PARSERS: Final[tuple[Parser, ...]] = (HTTP1_PARSER, RESP_PARSER, DNS_PARSER, TLS_PARSER, *third_party_parsers())


def recognise(request: bytes, response: bytes) -> Parser | None:
    """The parser that knows these heads of one exchange; None if none does."""
    for parser in PARSERS:
        if parser.recognises(request, response):
            return parser
    return None
