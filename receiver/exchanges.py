"""From the kernel's exchange records to span batches, column by column.

The records of one drain arrive as a structured array whose dtype is the kernel's ``struct exchange``. Times, ids,
sizes and durations are array expressions. What repeats is looked up once a record in dictionaries: the
:class:`Scope` of a record (addresses, role, server port) and, in it, the fragment of the protocol's summary. Only
what was never seen before is looked at by a parser's slow path.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..pipeline.counters import Counters
from ..pipeline.spans import (
    AttributeValue,
    Fragment,
    FragmentColumn,
    FragmentTable,
    NumberArray,
    ResourceTable,
    SpanBatch,
    SpanKind,
    StatusCode,
)
from .clock import Clock
from .ids import IdSource
from .process import ImageKey, ProcessTable
from .protocols.parser import Endpoint, Parser
from .protocols.registry import recognise

Records: TypeAlias = npt.NDArray[np.void]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Entries of each table of what was looked up before; a full one starts anew. Full, and encoded, one takes 6 MB (of URLs
#: of 180 bytes, or of IPv6 addresses) to 8 MB (of processes).
LOOKUPS_KEPT = 4_096
#: heads in each of two generations, and connections; an entry is an integer and a reference, some 100 bytes
HEADS_KEPT = 16_384
CONNECTIONS_KEPT = 16_384

_NANOSECONDS = 1e9  # a division gives the float nearest to the decimal, a product with 1e-9 not always

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Abi:
    """The numbers that record.h gives to names, read from BTF."""

    role_client: int
    role_server: int
    direction_sent: int
    outcomes: dict[int, str]
    flag_peer_observed: int
    flag_send_start_unknown: int
    flag_pipelined: int


def recalled(memory: dict[K, V], keys: list[K], make: Callable[[int], V], limit: int) -> list[V]:
    """The value of each key; ``make(row)`` where it is not in ``memory`` yet, which takes up to ``limit`` of them.

    No Python code runs for known keys.
    """
    found: list[V | None] = list(map(memory.get, keys))
    if None in found:
        for row, value in enumerate(found):
            if value is None:
                key = keys[row]
                value = memory.get(key)
                if value is None:
                    value = make(row)
                    if len(memory) < limit:
                        memory[key] = value
                found[row] = value
    return cast("list[V]", found)


@dataclass(slots=True, eq=False)
class Scope:
    """What records of one (addresses, role, server port) have in common.

    number: unique among the scopes of a translator. parser: of the last record; asked first, because a port rarely
    changes its protocol.
    """

    number: int
    kind: SpanKind
    server: Endpoint
    endpoints: int
    peer_assumed: bool
    parser: Parser | None = None


class Operations:
    """Tells the protocol of a record from its heads, and keeps what parsers made of them.

    Heads are remembered by their hash alone (64 bits, keyed by the interpreter), so no payload outlives its batch. A
    key or an id in them makes nearly each one new, so they are kept in two generations: when the younger is full, it
    becomes the older, whose heads come back as they are met. What is frequent stays known, whatever passes by.
    """

    def __init__(self) -> None:
        self.table = FragmentTable(LOOKUPS_KEPT)
        self._by_heads: dict[int, int] = {}
        self._by_older_heads: dict[int, int] = {}
        self._by_summary: dict[tuple[int, Parser | None, Hashable], int] = {}

    def of_heads(self, scopes: Sequence[Scope], requests: Sequence[bytes], responses: Sequence[bytes]) -> list[int]:
        """The fragment of each record, by the first bytes of its request and response."""

        def recall_or_read(row: int) -> int:
            index = older.get(keys[row])
            return read(row) if index is None else index

        def read(row: int) -> int:
            scope, request, response = scopes[row], requests[row], responses[row]
            parser = scope.parser
            if parser is None or not parser.recognises(request, response):
                parser = scope.parser = recognise(request, response)
            return self.of_summary(scope, parser, parser.summarise(request, response) if parser else None)

        numbers = [scope.number for scope in scopes]
        keys = list(map(hash, zip(numbers, requests, responses, strict=True)))
        if len(self._by_heads) >= HEADS_KEPT:
            self._by_heads, self._by_older_heads = {}, self._by_heads
        older = self._by_older_heads
        return recalled(self._by_heads, keys, recall_or_read, HEADS_KEPT)

    def of_summary(self, scope: Scope, parser: Parser | None, summary: Hashable) -> int:
        """The fragment of one exchange whose summary is known; ``parser`` None is the unknown protocol."""
        key = (scope.number, parser, summary)
        index = self._by_summary.get(key)
        if index is None:
            if parser is None:
                fragment = Fragment(name=f"TCP {scope.server.port}")
            else:
                fragment = parser.fragment(summary, scope.kind, scope.server)
            index = self._by_summary[key] = self.table.intern(fragment)
        return index

    @property
    def full(self) -> bool:
        """Whether to start anew."""
        return self.table.full or len(self._by_summary) >= LOOKUPS_KEPT


def address_text(address: bytes) -> str:
    """Text of a 16-byte address; IPv4 if it is ``::ffff:a.b.c.d``."""
    v6 = ipaddress.IPv6Address(address)
    return str(v6.ipv4_mapped or v6)


class ExchangeTranslator:
    """Makes span batches of exchange records. Not thread-safe: it belongs to the drain's thread."""

    def __init__(
        self,
        abi: Abi,
        clock: Clock,
        ids: IdSource,
        processes: ProcessTable,
        counters: Counters,
        assume_peer_observed: Sequence[Network] = (),
        trace_state: str = "",
    ) -> None:
        self._abi = abi
        self._clock = clock
        self._ids = ids
        self._processes = processes
        self._counters = counters
        self._assumed = tuple(assume_peer_observed)
        self._trace_state = trace_state
        self._reset_scopes()
        self._reset_resources()

    def _reset_scopes(self) -> None:
        self._by_cookie: dict[int, Scope] = {}
        self._scopes: dict[tuple[bool, bytes, bytes, int], Scope] = {}
        self._endpoints = FragmentTable(LOOKUPS_KEPT)
        self.operations = Operations()  # its keys are numbers of scopes
        self._remarks = FragmentTable()

    def _reset_resources(self) -> None:
        self._resource_ids: dict[bytes, int] = {}
        self._provisional: list[bytes] = []
        self._resources = ResourceTable(LOOKUPS_KEPT)

    def batch(self, records: Records) -> SpanBatch:
        """Spans of records that carry their heads (turn mode)."""
        scopes = self.scopes(records)
        requests = _heads(records["request_head"], records["request_captured"])
        responses = _heads(records["response_head"], records["response_captured"])
        return self.assemble(records, scopes, self.operations.of_heads(scopes, requests, responses))

    def scopes(self, records: Records) -> list[Scope]:
        """The scope of each record. Starts new tables if the present ones are full."""
        if len(self._scopes) >= LOOKUPS_KEPT:
            self._reset_scopes()
        if self.operations.full:
            self.operations = Operations()
        if self._resources.full or len(self._resource_ids) >= LOOKUPS_KEPT:
            self._reset_resources()
        if len(self._by_cookie) >= CONNECTIONS_KEPT:  # connections come and go faster than anything else here
            self._by_cookie.clear()
        connection = records["connection"]
        cookies = connection["cookie"].tolist()
        return recalled(self._by_cookie, cookies, lambda row: self._scope_of(connection[row]), CONNECTIONS_KEPT)

    def _scope_of(self, connection: Any) -> Scope:
        is_server = bool(connection["role"] == self._abi.role_server)
        local, remote = connection["local_address"].tobytes(), connection["remote_address"].tobytes()
        port = int(connection["local_port" if is_server else "remote_port"])
        key = (is_server, local, remote, port)
        scope = self._scopes.get(key)
        if scope is None:
            scope = self._scopes[key] = self._new_scope(is_server, address_text(local), address_text(remote), port)
        return scope

    def _new_scope(self, is_server: bool, local: str, remote: str, port: int) -> Scope:
        server, client = (local, remote) if is_server else (remote, local)
        endpoints = Fragment(
            attributes=(
                ("server.address", server),
                ("client.address", client),
                ("network.peer.address", remote),
                ("network.transport", "tcp"),
                ("network.type", "ipv6" if ":" in remote else "ipv4"),
            )
        )
        peer = ipaddress.ip_address(remote)
        return Scope(
            number=len(self._scopes),
            kind=SpanKind.SERVER if is_server else SpanKind.CLIENT,
            server=Endpoint(server, port),
            endpoints=self._endpoints.intern(endpoints),
            peer_assumed=any(peer in network for network in self._assumed),
        )

    def assemble(self, records: Records, scopes: Sequence[Scope], operations: Sequence[int]) -> SpanBatch:
        """The batch of these records; ``operations[i]`` is the fragment of record i in ``self.operations``."""
        connection = records["connection"]
        server_side = connection["role"] == self._abi.role_server
        client_port = np.where(server_side, connection["remote_port"], connection["local_port"])
        server_port = np.where(server_side, connection["local_port"], connection["remote_port"])
        trace_id, client_span, server_span = self._ids.of_exchanges(
            np.where(server_side[:, None], connection["remote_address"], connection["local_address"]),
            client_port,
            connection["sequence"] + records["position"].astype(np.uint32),
            records["position"],
            connection["netns"],
        )
        observed = (records["flags"] & self._abi.flag_peer_observed) != 0
        if self._assumed:
            observed |= np.fromiter((scope.peer_assumed for scope in scopes), np.bool_, len(scopes))
        arrived = records["arrived"]
        began = np.where(server_side & (arrived != 0), arrived, records["request_start"])
        start = self._clock.to_unix(began)
        return SpanBatch(
            trace_id=trace_id,
            span_id=np.where(server_side, server_span, client_span),
            parent_span_id=np.where(server_side & observed, client_span, np.uint64(0)),
            start=start,
            end=start + np.maximum(records["response_end"], began) - began,
            kind=np.where(server_side, SpanKind.SERVER, SpanKind.CLIENT).astype(np.uint8),
            resource=self._resource_column(records["process"]),
            resources=self._resources,
            fragments=(
                FragmentColumn(self._endpoints, np.array([scope.endpoints for scope in scopes], np.int64)),
                FragmentColumn(self.operations.table, np.array(operations, np.int64)),
                *self._remark_column(records),
            ),
            numbers={
                "server.port": server_port.astype(np.int64),
                "client.port": client_port.astype(np.int64),
                "network.peer.port": connection["remote_port"].astype(np.int64),
                "process.pid": records["process"]["tgid"].astype(np.int64),
                "wirespan.request.size": records["request_size"].astype(np.int64),
                "wirespan.response.size": records["response_size"].astype(np.int64),
                **self._durations(records, server_side),
            },
        )

    def _durations(self, records: Records, server_side: npt.NDArray[np.bool_]) -> dict[str, NumberArray]:
        """The parts of each exchange in seconds, NaN where an end of it is not known."""
        arrived, request_end = records["arrived"], records["request_end"]
        request_start, response_start = records["request_start"], records["response_start"]
        answered = response_start != 0
        handed_over = np.where(server_side, response_start, arrived)
        return {
            "wirespan.queue.duration": self._seconds(arrived, request_start, server_side & (arrived != 0)),
            "wirespan.request.duration": self._seconds(request_start, request_end, request_start != 0),
            "wirespan.processing.duration": self._seconds(request_end, handed_over, answered & (handed_over != 0)),
            "wirespan.response.duration": self._seconds(response_start, records["response_end"], answered),
        }

    def _seconds(
        self, since: npt.NDArray[np.uint64], until: npt.NDArray[np.uint64], known: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """``until - since``, never negative: a response may arrive before the hook of its request's send ran."""
        span = until.astype(np.int64) - since.astype(np.int64)
        negative = known & (span < 0)
        if negative.any():
            self._counters.add("wirespan.durations.clamped", int(negative.sum()))
        return np.where(known, np.maximum(span, 0) / _NANOSECONDS, np.nan)

    def _resource_column(self, process: Records) -> npt.NDArray[np.int64]:
        for key in self._provisional:  # kept for one batch: a look-up a record would only add to the trouble
            self._resource_ids.pop(key, None)
        self._provisional.clear()
        keys = np.ascontiguousarray(process).view(f"V{process.dtype.itemsize}").tolist()
        find = partial(self._resource_of, process, keys)
        return np.array(recalled(self._resource_ids, keys, find, LOOKUPS_KEPT), np.int64)

    def _resource_of(self, processes: Records, keys: list[bytes], row: int) -> int:
        process = processes[row]
        comm = process["comm"].tobytes().split(b"\0", 1)[0]
        image = ImageKey(int(process["tgid"]), int(process["start_time"]), int(process["exec_id"]), comm)
        attributes = self._processes.resource(*image)
        if not self._processes.is_final(image):
            self._provisional.append(keys[row])
        return self._resources.intern(attributes)

    def _remark_column(self, records: Records) -> tuple[FragmentColumn, ...]:
        """How an exchange ended without an answer, how it is to be read, and that it was sampled; often nothing."""
        flags = records["flags"]
        late = (flags & self._abi.flag_send_start_unknown) != 0
        pipelined = (flags & self._abi.flag_pipelined) != 0
        remarks = records["outcome"].astype(np.int64) + _AFTER_SEND * late + _PIPELINED * pipelined
        if not remarks.any() and not self._trace_state:
            return ()
        codes, inverse = np.unique(remarks, return_inverse=True)
        ids = np.array([self._remarks.intern(self._remark(code)) for code in codes.tolist()], np.int64)
        return (FragmentColumn(self._remarks, ids[inverse]),)

    def _remark(self, code: int) -> Fragment:
        attributes: list[tuple[str, AttributeValue]] = []
        error = self._abi.outcomes.get(code % _AFTER_SEND)
        if error is not None:
            attributes.append(("error.type", error))
        if code & _AFTER_SEND:
            attributes.append(("wirespan.timing", "after_send"))
        if code & _PIPELINED:
            attributes.append(("wirespan.exchange.pipelined", True))
        status = StatusCode.UNSET if error is None else StatusCode.ERROR
        return Fragment(attributes=tuple(attributes), status=status, trace_state=self._trace_state)


#: added to the outcome's number in ``ExchangeTranslator._remark_column``
_AFTER_SEND = 256
_PIPELINED = 512


def _heads(heads: npt.NDArray[np.uint8], captured: npt.NDArray[np.uint16]) -> list[bytes]:
    """The captured bytes of each row."""
    width = heads.shape[1]
    flat = heads.tobytes()
    return [flat[at : at + size] for at, size in zip(range(0, len(flat), width), captured.tolist(), strict=True)]
