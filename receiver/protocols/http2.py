"""HTTP/2 (RFC 9113), known by the preface of its connection. Its requests overlap, so a turn of direction is no request: such
an exchange is sized and timed, and says that it is not delimited. Frames are not read."""

from __future__ import annotations

from typing import Final

from ...pipeline.spans import Fragment
from .parser import ProtocolName

FRAGMENT: Final = Fragment(
    "HTTP",
    (
        ("network.protocol.name", ProtocolName.HTTP.value),
        ("network.protocol.version", "2"),
        ("wirespan.exchange.delimited", False),
    ),
)
