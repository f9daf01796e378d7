"""Segments as the ring of the kernel has them, and a reader that takes them."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import numpy as np

from wirespan.pipeline.counters import Counters
from wirespan.receiver.in_hand import InHand
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import abi_of
from wirespan.receiver.protocols.parser import Parser
from wirespan.receiver.protocols.registry import RESP_PARSER
from wirespan.receiver.segments import SegmentReader

OBJECT = Path(__file__).parents[2] / "bpf" / "wirespan.bpf.o"
CLIENT, SERVER = 1, 2
SENT, RECEIVED = 0, 1
RESP = 1
CONNECTION_CLOSED, CONNECTION_RESET, TIMEOUT = 1, 2, 3
GET = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
NIL = b"$-1\r\n"
LATE = 10**10
SETTLE_NS = 10**9
TIMEOUT_NS = 30 * 10**9


class Reader:
    """A :class:`SegmentReader`, and segments as the ring has them."""

    def __init__(self, limit: int = 100, kept_limit: int = 1 << 25) -> None:
        btf = BpfObject.open(OBJECT).btf
        self.counters = Counters()
        self.segment = btf.dtype("segment")
        exchange, parsers = btf.dtype("exchange"), {RESP: RESP_PARSER}
        self.in_hand = InHand()
        told = (self.counters, self.in_hand)
        bounds = (SETTLE_NS, TIMEOUT_NS, limit, kept_limit)
        self.reader = SegmentReader(abi_of(btf), exchange, self.segment, parsers, *told, *bounds)

    def io(
        self, direction: int, position: int, data: bytes, at: int, *, cookie: int = 1, role: int = CLIENT,
        size: int | None = None, arrived: int = 0, protocol: int = RESP, tgid: int = 0,
        outcome: int = 0, sequence: int = 0,
    ) -> bytes:  # fmt: skip
        header = np.zeros(1, self.segment)
        one = header[0]
        one["connection"]["cookie"], one["connection"]["role"] = cookie, role
        one["connection"]["sequence"] = sequence
        one["process"]["tgid"], one["outcome"] = tgid, outcome
        one["direction"], one["position"], one["protocol"] = direction, position, protocol
        one["size"], one["captured"] = len(data) if size is None else size, len(data)
        one["start"], one["end"] = at, at + (10 if direction == SENT and one["size"] else 0)
        one["arrivals"][0] = (arrived, position, position + len(data))
        return header.tobytes() + data

    def read(self, *records: bytes, until: int | None = LATE) -> tuple[np.ndarray, list[tuple[Parser, Hashable]]]:
        extents, at = [], 0
        for record in records:
            extents.append((at, len(record)))
            at += len(record)
        return self.reader.read(b"".join(records), extents, until)

    def io_kept(self) -> int:
        """I/Os whose times are kept, of all connections."""
        return sum(len(one.requests) + len(one.responses) for one in self.reader._connections.values())

    def count(self, name: str, **attributes: str) -> int:
        return self.counters.snapshot().get((name, tuple(attributes.items())), 0)
