"""Segment mode: I/Os in, exchange rows out, in whatever order and however many there are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
import pytest

from wirespan.pipeline.counters import Counters
from wirespan.receiver import io_times
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import abi_of
from wirespan.receiver.protocols.parser import Parser
from wirespan.receiver.protocols.registry import RESP_PARSER
from wirespan.receiver.segment_connection import EARLY_LIMIT
from wirespan.receiver.segments import HOLD_BACK_NS, SegmentReader

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

    def __init__(self, limit: int = 100) -> None:
        btf = BpfObject.open(OBJECT).btf
        self.counters = Counters()
        self.segment = btf.dtype("segment")
        exchange, parsers = btf.dtype("exchange"), {RESP: RESP_PARSER}
        times = (SETTLE_NS, TIMEOUT_NS)
        self.reader = SegmentReader(abi_of(btf), exchange, self.segment, parsers, self.counters, *times, limit)

    def io(
        self, direction: int, position: int, data: bytes, at: int, *, cookie: int = 1, role: int = CLIENT,
        size: int | None = None, arrived: int = 0, protocol: int = RESP, tgid: int = 0,
        outcome: int = 0,
    ) -> bytes:  # fmt: skip
        header = np.zeros(1, self.segment)
        one = header[0]
        one["connection"]["cookie"], one["connection"]["role"] = cookie, role
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


def test_replies_that_are_read_while_a_send_blocks_are_those_of_its_commands() -> None:
    reader = Reader()
    reader.read(reader.io(SENT, 0, GET, 1000), reader.io(RECEIVED, 0, NIL, 2000))
    begin = LATE
    for i in range(10):  # drained one by one, while the send of these commands goes on
        at = begin + (i + 1) * SETTLE_NS // 2
        reply = reader.io(RECEIVED, (i + 1) * len(NIL), NIL, at, arrived=at - 100)
        assert len(reader.read(reply, until=at + 2 * HOLD_BACK_NS)[0]) == 0
    end = begin + 6 * SETTLE_NS
    rows, _ = reader.read(reader.io(SENT, len(GET), GET * 10, begin), until=end)
    assert rows["position"].tolist() == [(i + 1) * len(GET) for i in range(10)]
    assert rows["response_start"].tolist() == [begin + (i + 1) * SETTLE_NS // 2 for i in range(10)]
    assert rows["arrived"].tolist() == [at - 100 for at in rows["response_start"].tolist()]
    assert rows["request_start"].tolist() == [begin] * 10
    rows, _ = reader.read(
        reader.io(SENT, 11 * len(GET), GET, end), reader.io(RECEIVED, 11 * len(NIL), NIL, end + 1), until=2 * end
    )
    assert rows["outcome"].tolist() == [0]
    assert reader.count("wirespan.segments.skipped_bytes", reason="no_boundary") == 0


def test_a_reply_is_not_that_of_a_command_whose_send_began_after_it_was_read() -> None:
    reader = Reader()
    reader.read(reader.io(SENT, 0, GET, 1000), reader.io(RECEIVED, 0, NIL + b"+unasked\r\n", 2000))
    at = len(NIL) + len(b"+unasked\r\n")
    reader.read(reader.io(SENT, len(GET), GET, 3000), reader.io(RECEIVED, at, NIL, 4000))
    rows, _ = reader.reader.stop()
    assert rows["response_start"].tolist() == [4000]
    assert reader.count("wirespan.segments.skipped_bytes", reason="no_boundary") == len(b"+unasked\r\n")


@pytest.mark.parametrize(
    ("data", "limit"), [(b"+" + b"x" * 997 + b"\r\n", EARLY_LIMIT // 1000), (NIL, io_times.IOS_KEPT)]
)
def test_replies_wait_within_limits_and_are_counted_when_they_are_given_up(data: bytes, limit: int) -> None:
    reader = Reader()
    reader.read(reader.io(SENT, 0, GET, 1000), reader.io(RECEIVED, 0, NIL, 2000))

    def early(first: int, last: int) -> None:
        ios = (reader.io(RECEIVED, len(NIL) + i * len(data), data, 3000 + i) for i in range(first, last))
        reader.read(*ios)

    early(0, limit + 1)  # one is in the parser
    assert reader.count("wirespan.segments.skipped_bytes", reason="no_boundary") == 0
    early(limit + 1, limit + 2)
    reader.reader.stop()
    assert reader.count("wirespan.segments.skipped_bytes", reason="no_boundary") == (limit + 2) * len(data)


@pytest.mark.parametrize("seen_before_end", [True, False])
def test_a_connection_that_ends_waits_for_the_send_that_is_under_way(seen_before_end: bool) -> None:
    reader = Reader()
    reader.read(reader.io(SENT, 0, GET, 1000), reader.io(RECEIVED, 0, NIL, 2000))
    ended = LATE + 2000
    reply, end = (
        reader.io(RECEIVED, len(NIL), NIL, LATE + 1000),
        reader.io(SENT, 0, b"", ended, outcome=CONNECTION_CLOSED),
    )
    reader.read(reply, end, until=ended + 2 * HOLD_BACK_NS)
    if not seen_before_end:
        assert len(reader.read(until=ended + 2 * SETTLE_NS)[0]) == 0
        assert reader.count("wirespan.segments.skipped_bytes", reason="no_boundary") == len(NIL)
        return
    rows, _ = reader.read(reader.io(SENT, len(GET), GET * 2, LATE), until=ended + 3 * HOLD_BACK_NS)
    assert rows["outcome"].tolist() == [0]
    rows, _ = reader.read(until=ended + 2 * SETTLE_NS)
    assert rows["outcome"].tolist() == [CONNECTION_CLOSED]
    assert rows["response_end"].tolist() == [ended]


def test_observed_is_what_comes_out_and_what_is_dropped() -> None:
    reader = Reader()
    rows, _ = reader.read(
        reader.io(SENT, 0, GET * 4, 1000),
        reader.io(RECEIVED, 0, NIL * 2, 2000),
        reader.io(SENT, 4 * len(GET), b"", 3000),  # the connection is gone
        reader.io(SENT, 0, GET * 4, 1000, cookie=2),
        reader.io(RECEIVED, 0, NIL + NIL, 2000, cookie=2, size=len(NIL) + 100),
    )
    assert len(rows) == 6
    assert len(reader.reader.stop()[0]) == 0
    assert reader.count("wirespan.exchanges.observed") == 8
    assert reader.count("wirespan.exchanges.dropped", reason="unpaired") == 2


@pytest.mark.parametrize(("role", "sent", "arrived"), [(CLIENT, SENT, 0), (SERVER, RECEIVED, 900)])
@pytest.mark.parametrize("outcome", [CONNECTION_CLOSED, CONNECTION_RESET])
def test_requests_without_an_answer_end_as_their_connection_does(
    role: int, sent: int, arrived: int, outcome: int
) -> None:
    reader = Reader()
    rows, summaries = reader.read(
        reader.io(sent, 0, GET * 3, 1000, role=role, arrived=arrived, tgid=7),
        reader.io(1 - sent, 0, NIL, 2000, role=role),
        reader.io(SENT, 0, b"", 3000, role=role, outcome=outcome),
    )
    closed = rows[1:]
    assert rows["outcome"].tolist() == [0, outcome, outcome]
    assert closed["position"].tolist() == [len(GET), 2 * len(GET)]
    assert closed["request_size"].tolist() == [len(GET)] * 2
    assert closed["request_start"].tolist() == [1000] * 2
    assert closed["arrived"].tolist() == [arrived] * 2
    assert closed["response_start"].tolist() == closed["response_size"].tolist() == [0, 0]
    assert closed["response_end"].tolist() == [3000, 3000]
    assert rows["process"]["tgid"].tolist() == [7] * 3
    assert [summary for _, summary in summaries] == [("GET", None)] * 3


def test_a_reply_that_the_end_of_the_connection_cuts_is_an_answer_as_far_as_it_came() -> None:
    reader = Reader()
    rows, _ = reader.read(
        reader.io(SENT, 0, GET * 2, 1000),
        reader.io(RECEIVED, 0, b"$100\r\nhalf", 2000),
        reader.io(SENT, 0, b"", 3000, outcome=CONNECTION_CLOSED),
    )
    assert rows["outcome"].tolist() == [0, CONNECTION_CLOSED]
    assert rows["response_size"].tolist() == [10, 0]
    assert rows["response_end"].tolist() == [2000, 3000]


def test_what_a_parser_holds_back_comes_out_when_the_agent_stops() -> None:
    reader = Reader()
    rows, _ = reader.read(
        reader.io(SENT, 0, GET, 1000),
        reader.io(RECEIVED, 0, b"", 2000, size=len(NIL)),  # a gap: from here on it is unknown whose replies come
        reader.io(SENT, len(GET), GET * 2, 3000),
        reader.io(RECEIVED, len(NIL), NIL * 2, 4000),
    )
    assert len(rows) == 0
    rows, summaries = reader.reader.stop()
    assert rows["position"].tolist() == [len(GET), 2 * len(GET)]
    assert rows["response_start"].tolist() == [4000, 4000]
    assert len(summaries) == 2
    assert reader.count("wirespan.exchanges.observed") == 3
    assert reader.count("wirespan.exchanges.dropped", reason="unpaired") == 1


def test_a_request_without_an_answer_for_the_timeout_is_an_exchange_and_its_answer_is_none() -> None:
    reader = Reader()
    begin = LATE
    last = begin + 10**9  # the younger request's
    requests = [reader.io(SENT, 0, GET * 2, begin, tgid=7), reader.io(SENT, 2 * len(GET), GET, last)]
    assert len(reader.read(*requests, reader.io(RECEIVED, 0, NIL, begin + 100), until=last + SETTLE_NS)[0]) == 1
    assert len(reader.read(until=begin + TIMEOUT_NS)[0]) == 0
    rows, summaries = reader.read(until=begin + TIMEOUT_NS + SETTLE_NS)
    assert rows["outcome"].tolist() == [TIMEOUT]
    assert rows["position"].tolist() == [len(GET)]
    assert (rows["request_start"][0], rows["response_start"][0], rows["response_size"][0]) == (begin, 0, 0)
    assert begin + TIMEOUT_NS <= rows["response_end"][0] <= begin + TIMEOUT_NS + SETTLE_NS
    assert rows["process"]["tgid"].tolist() == [7]
    assert [summary for _, summary in summaries] == [("GET", None)]
    answers = reader.io(RECEIVED, len(NIL), NIL * 2, last + 2 * TIMEOUT_NS // 3)
    rows, _ = reader.read(answers, until=last + TIMEOUT_NS)
    assert rows["outcome"].tolist() == [0]
    assert rows["position"].tolist() == [2 * len(GET)], "the answer of the first is not taken for the second's"
    reader.read(reader.io(SENT, 0, b"", last + TIMEOUT_NS), until=last + 2 * TIMEOUT_NS)
    assert reader.count("wirespan.exchanges.observed") == 3
    assert reader.count("wirespan.messages", kind="continued") == 1
    assert reader.io_kept() == 0


def test_requests_behind_others_that_are_being_answered_do_not_time_out() -> None:
    reader = Reader()
    reader.read(reader.io(SENT, 0, GET * 4, LATE), until=LATE + SETTLE_NS)
    for second in range(20, 100, 20):
        at = LATE + second * 10**9
        rows, _ = reader.read(reader.io(RECEIVED, (second // 20 - 1) * len(NIL), NIL, at), until=at + 2 * HOLD_BACK_NS)
        assert rows["outcome"].tolist() == [0]
        assert len(reader.read(until=at + 19 * 10**9)[0]) == 0


def test_a_request_whose_answer_has_begun_does_not_time_out() -> None:
    reader = Reader()
    reader.read(reader.io(SENT, 0, GET, LATE), reader.io(RECEIVED, 0, NIL[:2], LATE + 100), until=LATE + SETTLE_NS)
    assert len(reader.read(until=LATE + 3 * TIMEOUT_NS)[0]) == 0
    end = LATE + 3 * TIMEOUT_NS
    rows, _ = reader.read(reader.io(RECEIVED, 2, NIL[2:], end), until=end + SETTLE_NS)
    assert rows["outcome"].tolist() == [0]


def test_a_timed_out_request_is_no_loss_and_no_second_exchange_when_its_connection_ends() -> None:
    for end in (CONNECTION_CLOSED, None):
        reader = Reader(limit=1)
        reader.read(reader.io(SENT, 0, GET, LATE), until=LATE + SETTLE_NS)
        rows, _ = reader.read(until=LATE + 2 * TIMEOUT_NS)
        assert rows["outcome"].tolist() == [TIMEOUT]
        after = LATE + 2 * TIMEOUT_NS
        last = reader.io(SENT, 0, b"", after, outcome=end) if end else reader.io(SENT, 0, GET, after, cookie=2)
        assert len(reader.read(last, until=after + SETTLE_NS)[0]) == 0
        assert reader.count("wirespan.exchanges.observed") == 1


def test_nothing_times_out_while_its_answer_may_be_in_the_ring() -> None:
    reader = Reader()
    reader.read(reader.io(SENT, 0, GET, LATE), until=LATE + SETTLE_NS)
    newest = reader.io(SENT, 0, GET, LATE + TIMEOUT_NS // 2, cookie=2)
    assert len(reader.read(newest, until=None)[0]) == 0
    rows, _ = reader.read(reader.io(RECEIVED, 0, NIL, LATE + 100), until=LATE + 2 * TIMEOUT_NS)
    assert sorted(rows["outcome"].tolist()) == [0, TIMEOUT]


def test_what_a_connection_that_is_never_quiet_counts_is_seen_before_it_ends() -> None:
    reader = Reader()
    reader.read(reader.io(SENT, 0, SUBSCRIBE, 1000), reader.io(RECEIVED, 0, CONFIRMED, 2000))
    for i in range(20):
        at = LATE + i * SETTLE_NS // 2
        reader.read(reader.io(RECEIVED, len(CONFIRMED) + i * len(PUSH), PUSH, at), until=at + 2 * HOLD_BACK_NS)
    assert 15 <= reader.count("wirespan.messages", kind="push") <= 20


def test_requests_under_way_when_the_agent_stops_are_no_loss() -> None:
    reader = Reader()
    reader.read(reader.io(SENT, 0, GET * 2, 1000))
    assert len(reader.reader.stop()[0]) == 0
    assert reader.count("wirespan.exchanges.observed") == 0


def test_what_is_fed_after_a_close_loses_nothing_of_before() -> None:
    reader = Reader()
    rows, _ = reader.read(
        reader.io(SENT, 0, GET, 1000),
        reader.io(RECEIVED, 0, NIL, 2000),
        reader.io(SENT, 0, b"", 3000),
        reader.io(SENT, len(GET), GET, 4000),  # its hook lagged
        reader.io(RECEIVED, len(NIL), NIL, 5000),
    )
    assert rows["position"].tolist() == [0, len(GET)]


SUBSCRIBE = b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n"
CONFIRMED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
PUSH = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1000\r\n" + b"x" * 1000 + b"\r\n"
PSYNC = b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n"
SILENCE = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n"


def growth_of(work: Callable[[], None]) -> int:
    """Bytes that are allocated in Python after this work and were not before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("first", "answer", "direction", "data"),
    [
        (SUBSCRIBE, CONFIRMED, RECEIVED, PUSH),
        (PSYNC, b"+FULLRESYNC 1 0\r\n", RECEIVED, PUSH),
        (PSYNC, b"+FULLRESYNC 1 0\r\n", SENT, GET),
        (SILENCE, b"", SENT, GET),
        (b"\x16\x03\x01", b"\x16\x03\x01", RECEIVED, PUSH),
        (b"\x16\x03\x01", b"\x16\x03\x01", SENT, b"\x17" * 1000),
        (GET, b"", RECEIVED, b""),
    ],
    ids=["pushes", "replication", "acknowledgements", "replies off", "lost replies", "lost requests", "gaps"],
)
def test_io_that_belongs_to_no_exchange_leaves_nothing_behind(
    first: bytes, answer: bytes, direction: int, data: bytes
) -> None:
    reader = Reader()
    opening = [reader.io(SENT, 0, first, 1000)] + [reader.io(RECEIVED, 0, answer, 1500)] * bool(answer)
    reader.read(*opening)
    size = len(data) or 1000
    begin = len(first) if direction == SENT else len(answer)

    def read_all() -> None:
        for at in range(0, 5000, 100):
            reader.read(
                *(reader.io(direction, begin + i * size, data, 2000 + i, size=size) for i in range(at, at + 100)),
            )

    assert growth_of(read_all) < 50_000
    assert reader.io_kept() <= 1


def test_pipelined_requests_without_an_answer_keep_their_times_and_no_bytes() -> None:
    reader = Reader()
    value = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\n" + b"x" * 1000 + b"\r\n"

    def read_all() -> None:
        for at in range(0, 4000, 100):
            reader.read(*(reader.io(SENT, i * len(value), value, 2000 + i, tgid=7) for i in range(at, at + 100)))

    assert growth_of(read_all) < 2_000_000
    assert reader.io_kept() == 4000
    rows, _ = reader.read(reader.io(RECEIVED, 0, b"+OK\r\n" * 4000, 10**6))
    assert rows["request_start"].tolist() == [2000 + i for i in range(4000)]


def test_a_long_value_keeps_the_times_of_its_first_io_until_it_is_answered() -> None:
    reader = Reader()
    head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3000\r\n"
    parts = [reader.io(SENT, len(head) + i * 1000, b"x" * 1000, 2000 + i) for i in range(3)]
    end = len(head) + 3000
    rows, _ = reader.read(reader.io(SENT, 0, head, 1000), *parts, reader.io(SENT, end, b"\r\n", 3000))
    assert reader.io_kept() == 5
    rows, _ = reader.read(reader.io(RECEIVED, 0, b"+O", 4000), reader.io(RECEIVED, 2, b"K\r\n", 5000))
    assert (rows["request_start"][0], rows["request_end"][0]) == (1000, 3010)
    assert (rows["response_start"][0], rows["response_end"][0]) == (4000, 5000)
    assert reader.io_kept() == 0


def test_a_connection_beyond_the_limit_takes_the_place_of_the_longest_idle_one() -> None:
    reader = Reader(limit=2)
    rows, _ = reader.read(*(reader.io(SENT, 0, GET, 1000 + cookie, cookie=cookie) for cookie in (1, 2, 3)))
    assert len(rows) == 0
    assert reader.count("wirespan.segments.connections_evicted") == 1
    assert reader.count("wirespan.exchanges.dropped", reason="evicted") == 1
    rows, _ = reader.read(*(reader.io(RECEIVED, 0, NIL, 2000 + cookie, cookie=cookie) for cookie in (2, 3)))
    assert sorted(rows["connection"]["cookie"].tolist()) == [2, 3]


def test_times_are_forgotten_after_so_many_ios_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_times, "IOS_KEPT", 4)
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
