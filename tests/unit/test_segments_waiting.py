"""Segment mode: requests that wait for an answer, and answers that wait for their request."""

from __future__ import annotations

import pytest

from support.segments import CONNECTION_CLOSED, GET, LATE, NIL, RECEIVED, SENT, SETTLE_NS, TIMEOUT, TIMEOUT_NS, Reader
from wirespan.receiver import io_times
from wirespan.receiver.segment_connection import EARLY_LIMIT
from wirespan.receiver.segments import HOLD_BACK_NS

SUBSCRIBE = b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n"
CONFIRMED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
PUSH = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1000\r\n" + b"x" * 1000 + b"\r\n"


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


def test_a_socket_that_is_connected_anew_ends_the_connection_that_still_waits() -> None:
    reader = Reader()
    before = [
        reader.io(SENT, 0, GET, 1000),
        reader.io(RECEIVED, 0, NIL * 2, 2000),
        reader.io(SENT, 0, b"", 3000, outcome=CONNECTION_CLOSED),
    ]
    after = [reader.io(SENT, 0, GET, 4000, sequence=1), reader.io(RECEIVED, 0, NIL, 5000, sequence=1)]
    rows, _ = reader.read(*before, *after)
    assert rows["connection"]["sequence"].tolist() == [0, 1]
    assert rows["request_start"].tolist() == [1000, 4000]
    assert rows["outcome"].tolist() == [0, 0]
