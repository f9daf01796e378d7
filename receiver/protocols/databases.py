"""PostgreSQL, MySQL and memcached, as far as the first bytes of both sides tell without a parser: which one it is, and the code of
an error.

Told by bpf/databases.h, in the kernel for metrics and in wirespan/native for spans. Nothing of a statement is looked at, so
there is no operation: the span is named by its system (semantic conventions for databases, name).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, NamedTuple

from ...pipeline.spans import AttributeValue, Fragment, SpanKind, StatusCode
from .parser import Endpoint, ProtocolName

#: enum protocol and enum status_class of bpf/
_NAMES: Final = {6: ProtocolName.POSTGRESQL, 7: ProtocolName.MYSQL, 8: ProtocolName.MEMCACHED}
_CLIENT_ERROR, _SERVER_ERROR = 4, 5

#: of what has no code: memcached's text protocol, and errors whose code was not captured
_WITHOUT_CODE: Final = {_CLIENT_ERROR: "CLIENT_ERROR", _SERVER_ERROR: "SERVER_ERROR"}


class Answer(NamedTuple):
    """status: 0, or one of an error. code: see told.h."""

    status: int
    code: int


class DatabaseParser:
    """See :class:`~.parser.Parser`. Not asked by :func:`~.registry.recognise`: sizes are needed to tell."""

    def __init__(self, name: ProtocolName) -> None:
        self.name = name.value

    def recognises(self, request: bytes, response: bytes) -> bool:
        return False

    def summarise(self, request: bytes, response: bytes) -> Answer:
        return Answer(0, 0)

    def fragment(self, summary: Hashable, kind: SpanKind, server: Endpoint) -> Fragment:
        assert isinstance(summary, Answer)
        attributes: list[tuple[str, AttributeValue]] = [
            ("network.protocol.name", self.name),
            ("db.system.name", self.name),
        ]
        if not summary.status:
            return Fragment(self.name, tuple(attributes))
        code = self._code(summary.code)
        if code is not None:
            attributes.append(("db.response.status_code", code))
        error = code or (_WITHOUT_CODE.get(summary.status) if self.name == ProtocolName.MEMCACHED else None) or "_OTHER"
        return Fragment(self.name, (*attributes, ("error.type", error)), StatusCode.ERROR)

    def _code(self, code: int) -> str | None:
        if not code:
            return None
        return code.to_bytes(5, "little").decode("ascii") if self.name == ProtocolName.POSTGRESQL else str(code)


_PARSERS: Final = {number: DatabaseParser(name) for number, name in _NAMES.items()}


def database_told(told: int) -> tuple[DatabaseParser, Answer]:
    """What told.h tells, not 0."""
    return _PARSERS[told & 0xFF], Answer(told >> 8 & 0xFF, told >> 16)
