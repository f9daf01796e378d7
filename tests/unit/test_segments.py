"""Segment mode: I/Os in, exchange rows out, in whatever order and however many there are."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pytest

from wirespan.pipeline.counters import Counters
from wirespan.receiver import segments
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import abi_of
from wirespan.receiver.protocols.parser import Parser
from wirespan.receiver.protocols.registry import RESP_PARSER
from wirespan.receiver.segments import HOLD_BACK_NS, SegmentReader

OBJECT = Path(__file__).parents[2] / "bpf" / "wirespan.bpf.o"
CLIENT, SERVER = 1, 2
SENT, RECEIVED = 0, 1
RESP = 1
GET = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
NIL = b"$-1\r\n"
LATE = 10**12
SETTLE_NS = 10**9


class Reader:
    """A :class:`SegmentReader`, and segments as the ring has them."""

    def __init__(self, limit: int = 100) -> None:
        btf = BpfObject.open(OBJECT).btf
        self.counters = Counters()
        self.segment = btf.dtype("segment")
        exchange, parsers = btf.dtype("exchange"), {RESP: RESP_PARSER}
        self.reader = SegmentReader(abi_of(btf), exchange, self.segment, parsers, self.counters, SETTLE_NS, limit)

    def io(
        self, direction: int, position: int, data: bytes, at: int, *, cookie: int = 1, role: int = CLIENT,
        size: int | None = None, arrived: int = 0, protocol: int = RESP,
    ) -> bytes:  # fmt: skip
        header = np.zeros(1, self.segment)
        one = header[0]
        one["connection"]["cookie"], one["connection"]["role"] = cookie, role
        one["direction"], one["position"], one["protocol"] = direction, position, protocol
        one["size"], one["captured"] = len(data) if size is None else size, len(data)
        one["start"], one["end"] = at, at + (10 if direction == SENT else 0)
        one["arrivals"][0] = (arrived, position, position + len(data))
        return header.tobytes() + data

    def read(self, *records: bytes, until: int = LATE) -> tuple[np.ndarray, list[tuple[Parser, Hashable]]]:
        extents, at = [], 0
        for record in records:
            extents.append((at, len(record)))
            at += len(record)
        return self.reader.read(b"".join(records), extents, until)

    def count(self, name: str, **attributes: str) -> int:
        return self.counters.snapshot().get((name, tuple(attributes.items())), 0)


def test_every_command_of_a_pipeline_has_the_times_of_its_own_ios() -> None:
    reader = Reader()
    rows, summaries = reader.read(
        reader.io(SENT, 0, GET * 2 + GET[:5], 1000),
        reader.io(SENT, 2 * len(GET) + 5, GET[5:], 2000),
        reader.io(RECEIVED, 0, NIL * 2, 3000, arrived=2500),
        reader.io(RECEIVED, 10, NIL, 4000, arrived=3500),
    )
    assert rows["position"].tolist() == [0, len(GET), 2 * len(GET)]
    assert rows["request_start"].tolist() == [1000, 1000, 1000]
    assert rows["request_end"].tolist() == [1010, 1010, 2010]
    assert rows["response_start"].tolist() == [3000, 3000, 4000]
    assert rows["arrived"].tolist() == [2500, 2500, 3500]
    assert rows["request_size"].tolist() == [len(GET)] * 3
    assert [parser for parser, _ in summaries] == [RESP_PARSER] * 3


def test_a_server_keeps_the_arrival_of_the_request() -> None:
    reader = Reader()
    rows, _ = reader.read(
        reader.io(RECEIVED, 0, GET, 2000, role=SERVER, arrived=1500),
        reader.io(SENT, 0, NIL, 3000, role=SERVER),
    )
    assert (rows["arrived"][0], rows["request_start"][0], rows["response_start"][0]) == (1500, 2000, 3000)


def test_a_response_that_was_reported_before_its_request_waits_for_it() -> None:
    reader = Reader()
    soon = 10**9
    response = reader.io(RECEIVED, 0, NIL, soon + 100)
    request = reader.io(SENT, 0, GET, soon)
    assert len(reader.read(response, until=soon + 200)[0]) == 0
    rows, _ = reader.read(request, until=soon + HOLD_BACK_NS + 200)
    assert rows["response_size"].tolist() == [len(NIL)]
    assert reader.count("wirespan.messages", kind="push") == 0


def test_observed_is_what_comes_out_and_what_is_dropped() -> None:
    reader = Reader()
    rows, _ = reader.read(
        reader.io(SENT, 0, GET * 3, 1000),
        reader.io(RECEIVED, 0, NIL, 2000),
        reader.io(SENT, 0, b"", 3000),  # the connection is gone
    )
    assert len(rows) == 1
    assert reader.count("wirespan.exchanges.observed") == 3
    assert reader.count("wirespan.exchanges.dropped", reason="unanswered") == 2


def test_a_connection_beyond_the_limit_takes_the_place_of_the_longest_idle_one() -> None:
    reader = Reader(limit=2)
    rows, _ = reader.read(*(reader.io(SENT, 0, GET, 1000 + cookie, cookie=cookie) for cookie in (1, 2, 3)))
    assert len(rows) == 0
    assert reader.count("wirespan.segments.connections_evicted") == 1
    assert reader.count("wirespan.exchanges.dropped", reason="unanswered") == 1
    rows, _ = reader.read(*(reader.io(RECEIVED, 0, NIL, 2000 + cookie, cookie=cookie) for cookie in (2, 3)))
    assert sorted(rows["connection"]["cookie"].tolist()) == [2, 3]


def test_times_are_forgotten_after_so_many_ios_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "IOS_KEPT", 4)
    reader = Reader()
    rows, _ = reader.read(
        *(reader.io(SENT, i * len(GET), GET, 1000 + i) for i in range(8)),
        reader.io(RECEIVED, 0, NIL * 8, 5000),
    )
    assert len(rows) == 4
    assert reader.count("wirespan.exchanges.dropped", reason="times_unknown") == 4
    assert reader.count("wirespan.exchanges.observed") == 8


def test_a_protocol_without_a_parser_is_counted() -> None:
    reader = Reader()
    assert len(reader.read(reader.io(SENT, 0, GET, 1000, protocol=9))[0]) == 0
    assert reader.count("wirespan.segments.dropped", reason="unknown_protocol") == 1


def test_a_gap_leaves_later_pairs_right() -> None:
    reader = Reader()
    value = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n"
    size = len(value) + 100_002
    rows, _ = reader.read(
        reader.io(SENT, 0, value, 1000, size=size),
        reader.io(SENT, size, GET, 2000),
        reader.io(RECEIVED, 0, b"+OK\r\n" + NIL, 3000),
    )
    assert rows["request_size"].tolist() == [size, len(GET)]
    assert rows["response_size"].tolist() == [5, 5]
