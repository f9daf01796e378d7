"""Which baseline a span belongs to: rows of a table, in four levels.

operation → port of a service → protocol → everything. A row's parent is what a young row borrows from. Their number is
bounded: beyond, an operation shares the row of its service, a service that of its protocol, and each is counted.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from ...pipeline.spans import SpanKind

#: kept back for levels above operations, as a share of all rows
_UPPER_SHARE: Final = 4

_VARIABLE: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # a UUID
    r"|(?<![0-9A-Za-z_])(?=[0-9a-f]*\d)[0-9a-f]{8,}(?![0-9A-Za-z_])"  # a hash
    r"|(?<=/)\d+(?![^/?])",  # a number as a segment of a path
    re.IGNORECASE,
)


_KIND_WORDS: Final = {int(kind): kind.name.lower() for kind in SpanKind if kind}


class Level(IntEnum):
    EVERYTHING = 0
    PROTOCOL = 1
    SERVICE = 2
    OPERATION = 3


class Identity(NamedTuple):
    """port: 0 if it is not known. protocol, operation: empty likewise."""

    service: str
    kind: int
    port: int
    protocol: str
    operation: str

    @property
    def words(self) -> str:
        port = f":{self.port}" if self.port else ""
        name = _KIND_WORDS.get(self.kind, "")
        return f"{name}{port} {self.operation}".strip()


@lru_cache(maxsize=4096)
def template(name: str) -> str:
    """The name of a span without what identifies single things, which some SDKs put into it."""
    return _VARIABLE.sub("*", name[:256])


class KeyTable:
    """Rows by identity. limit: rows there are at most. parents, levels: (rows,), grown as needed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.identities: list[Identity] = []
        self.parents: list[int] = []
        self.levels: list[Level] = []
        self.services: list[str] = []  # by number
        self.service_numbers: list[int] = []  # of rows
        self._service_ids: dict[str, int] = {}
        self._rows: dict[tuple[Level, Identity], int] = {}
        self._operations = 0
        self._add(Level.EVERYTHING, Identity("", 0, 0, "", ""), 0)

    def __len__(self) -> int:
        return len(self.identities)

    def row(self, identity: Identity) -> int:
        """The row of an operation, or where there is no room, of what it belongs to."""
        found = self._rows.get((Level.OPERATION, identity))
        if found is not None:
            return found
        parent = self._upper(Level.PROTOCOL, Identity("", identity.kind, 0, identity.protocol, ""), 0)
        parent = self._upper(Level.SERVICE, identity._replace(operation=""), parent)
        room = self.limit - self.limit // _UPPER_SHARE
        if self._operations >= room or self.levels[parent] is not Level.SERVICE:
            return parent
        self._operations += 1
        return self._add(Level.OPERATION, identity, parent)

    def level_array(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(self.levels, np.int64)

    def _upper(self, level: Level, identity: Identity, parent: int) -> int:
        found = self._rows.get((level, identity))
        if found is not None:
            return found
        if len(self) - self._operations >= self.limit // _UPPER_SHARE:
            return parent
        return self._add(level, identity, parent)

    def _add(self, level: Level, identity: Identity, parent: int) -> int:
        row = self._rows[level, identity] = len(self)
        self.identities.append(identity)
        self.parents.append(parent)
        self.levels.append(level)
        self.service_numbers.append(self._service_number(identity.service))
        return row

    def _service_number(self, service: str) -> int:
        number = self._service_ids.get(service)
        if number is None:
            number = self._service_ids[service] = len(self.services)
            self.services.append(service)
        return number
