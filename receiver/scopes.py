"""What records of one connection have in common: who talks to whom, seen from which end.

A :class:`Scope` is one pair of addresses, role and server port; many connections share it. A :class:`View` is one server
seen from one end, which is all that the fragment of an operation depends on; many scopes share it. Both have numbers, and
what a batch needs of them is taken out of arrays by number.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from ctypes import byref
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from ..native.key_table import KeyTable, Numbers
from ..native.library import address, library, records_of
from ..pipeline.spans import ByteTable, Fragment, FragmentTable, SpanKind
from .protocols.http1 import origin
from .protocols.parser import Endpoint

Records: TypeAlias = npt.NDArray[np.void]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

IPPROTO_UDP: Final = 17
_UNSPECIFIED: Final = frozenset(("0.0.0.0", "::"))


@dataclass(frozen=True, slots=True)
class View:
    """A server, seen from its own end (kind SERVER) or from its clients'. number: unique in its :class:`Scopes`;
    transport: as ``network.transport`` has it."""

    number: int
    kind: SpanKind
    server: Endpoint
    transport: str = "tcp"


class Scopes:
    """The scopes of a machine's connections.

    connections: of which the scope is remembered, see :class:`KeyTable`. limit: scopes; ``full`` then says to start
    anew. assumed: networks whose hosts are observed too.
    """

    def __init__(self, role_server: int, assumed: Sequence[Network], limit: int, connections: int) -> None:
        self._role_server = role_server
        self._assumed = assumed
        self._limit = limit
        self._by_connection = KeyTable(connections)
        self._secret = np.frombuffer(os.urandom(16), np.uint64)
        self._by_ends: dict[tuple[bool, bool, bytes, bytes, int], int] = {}
        self._by_server: dict[tuple[SpanKind, Endpoint, str], View] = {}
        self._columns: npt.NDArray[np.int64] = np.zeros((3, 64), np.int64)
        self.endpoints = FragmentTable(limit)
        self.views: list[View] = []
        #: what precedes a path in the URL of a view's requests
        self.origins = ByteTable()

    @property
    def full(self) -> bool:
        return len(self._by_ends) >= self._limit

    def of_records(self, records: Records) -> Numbers:
        """The number of each record's scope."""
        connection = records["connection"]
        keys = np.empty(len(records), np.uint64)
        library().connection_keys(byref(records_of(records)), address(self._secret), address(keys))
        return self._by_connection.recall(keys, lambda row: self._scope_of(connection[row]))

    def endpoints_of(self, scopes: Numbers) -> Numbers:
        """Of each scope the fragment in ``endpoints``."""
        return np.take(self._columns[0], scopes)

    def views_of(self, scopes: Numbers) -> Numbers:
        """Of each scope the index in ``views``."""
        return np.take(self._columns[1], scopes)

    def assumed_of(self, scopes: Numbers) -> npt.NDArray[np.bool_]:
        """Of each scope whether its other end is in an assumed network."""
        return np.take(self._columns[2], scopes).astype(np.bool_)

    def _scope_of(self, connection: Any) -> int:
        is_server = bool(connection["role"] == self._role_server)
        local, remote = connection["local_address"].tobytes(), connection["remote_address"].tobytes()
        port = int(connection["local_port" if is_server else "remote_port"])
        is_udp = bool(connection["transport"] == IPPROTO_UDP)
        key = (is_server, is_udp, local, remote, port)
        scope = self._by_ends.get(key)
        if scope is None:
            scope = self._by_ends[key] = len(self._by_ends)
            transport = "udp" if is_udp else "tcp"
            self._describe(scope, is_server, address_text(local), address_text(remote), port, transport)
        return scope

    def _describe(self, scope: int, is_server: bool, local: str, remote: str, port: int, transport: str) -> None:
        server, client = (local, remote) if is_server else (remote, local)
        addresses = (("server.address", server), ("client.address", client), ("network.peer.address", remote))
        endpoints = Fragment(
            attributes=(
                # A client of UDP that got no answer may not know its own address.
                *((name, address) for name, address in addresses if address not in _UNSPECIFIED),
                ("network.transport", transport),
                ("network.type", "ipv6" if ":" in remote else "ipv4"),
            )
        )
        peer = ipaddress.ip_address(remote)
        view = self._view(SpanKind.SERVER if is_server else SpanKind.CLIENT, Endpoint(server, port), transport)
        if scope == self._columns.shape[1]:
            self._columns = np.concatenate((self._columns, np.zeros_like(self._columns)), axis=1)
        assumed = any(peer in network for network in self._assumed)
        self._columns[:, scope] = self.endpoints.intern(endpoints), view.number, assumed

    def _view(self, kind: SpanKind, server: Endpoint, transport: str) -> View:
        view = self._by_server.get((kind, server, transport))
        if view is None:
            view = self._by_server[kind, server, transport] = View(len(self.views), kind, server, transport)
            self.views.append(view)
            self.origins.append([origin(server).encode() if kind is SpanKind.CLIENT else b""])
        return view


def address_text(address: bytes) -> str:
    """Text of a 16-byte address; IPv4 if it is ``::ffff:a.b.c.d``."""
    v6 = ipaddress.IPv6Address(address)
    return str(v6.ipv4_mapped or v6)
