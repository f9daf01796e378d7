"""Segment mode: I/Os in, exchange rows out, with their times, their ends and their counts."""

from __future__ import annotations

import pytest

from support.segments import CLIENT, CONNECTION_CLOSED, CONNECTION_RESET, GET, NIL, RECEIVED, SENT, SERVER, Reader
from wirespan.receiver import io_times
from wirespan.receiver.protocols.registry import RESP_PARSER
from wirespan.receiver.segments import HOLD_BACK_NS


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
        reader.io(SENT, 0, GET * 4, 1000),
        reader.io(RECEIVED, 0, NIL * 2, 2000),
        reader.io(SENT, 4 * len(GET), b"", 3000, outcome=CONNECTION_CLOSED),
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


def test_exchanges_are_observed_and_in_hand_when_they_are_given_out() -> None:
    reader = Reader()
    reader.read(reader.io(SENT, 0, GET * 2, 1000))
    assert (reader.in_hand.exchanges, reader.count("wirespan.exchanges.observed")) == (0, 0)
    rows, _ = reader.read(reader.io(RECEIVED, 0, NIL * 2, 2000))
    assert len(rows) == reader.in_hand.exchanges == reader.count("wirespan.exchanges.observed") == 2
    reader.in_hand.let_go(len(rows))
    reader.read(reader.io(SENT, 2 * len(GET), GET, 3000))
    assert (reader.in_hand.exchanges, reader.count("wirespan.exchanges.observed")) == (0, 2)


def test_of_a_connection_that_is_not_watched_any_more_nothing_is_unanswered() -> None:
    reader = Reader()
    rows, _ = reader.read(
        reader.io(SENT, 0, GET * 4, 1000),
        reader.io(RECEIVED, 0, NIL * 2, 2000),
        reader.io(SENT, 4 * len(GET), b"", 3000, outcome=0),
    )
    assert rows["outcome"].tolist() == [0, 0]
    assert reader.count("wirespan.exchanges.dropped", reason="evicted") == 2
    assert reader.count("wirespan.exchanges.observed") == 4
    assert reader.count("wirespan.segments.connections_abandoned", reason="unwatched") == 1
