"""HTTP/1.x in segment mode: messages out of two byte streams, exact to the byte, however they are cut."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.conversations import Feed, Turn, Unanswered, cutters, expected, in_pieces_of
from wirespan.receiver.protocols.http1_connection import Http1Connection
from wirespan.receiver.protocols.http1_messages import Summary
from wirespan.receiver.protocols.stream import TAIL_LIMIT


def summary(status: int = 200, path: bytes | None = b"/", method: str = "GET", version: str = "1.1") -> Summary:
    return method, path, False, version, status


def get(path: bytes = b"/") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path


def ok(body: bytes = b"", status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b'5\r\nhello\r\n6;name="v"\r\n world\r\n0\r\n'
CONTINUE = Unanswered(b"HTTP/1.1 100 Continue\r\n\r\n")
EARLY_HINTS = Unanswered(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n")

CASES: dict[str, tuple[Sequence[Turn], Sequence[Summary]]] = {
    "pipeline": (
        [Turn([get(b"/a"), get(b"/b?q"), get(b"/c")], [ok(b"x"), ok(b"", 404), ok(b"GET / HTTP/1.1\r\n\r\n")])],
        [summary(path=b"/a"), summary(404, b"/b"), summary(path=b"/c")],
    ),
    "request body with a length": (
        [Turn([b"POST / HTTP/1.1\r\ncontent-length :5\r\n\r\nhello", get()], [ok(), ok()])],
        [summary(method="POST"), summary()],
    ),
    "chunked both ways": (
        [
            Turn(
                [b"PUT / HTTP/1.1\r\n" + CHUNKED + CHUNKS + b"\r\n"],
                [b"HTTP/1.1 200 OK\r\n" + CHUNKED + CHUNKS + b"Digest: x\r\nExpires: 0\r\n\r\n"],
            )
        ],
        [summary(method="PUT")],
    ),
    "length beside chunked": (
        [Turn([get()], [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + CHUNKED + CHUNKS + b"\r\n"])],
        [summary()],
    ),
    "no body although a length is given": (
        [
            Turn([b"HEAD / HTTP/1.1\r\n\r\n"], [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"]),
            Turn([get()], [b"HTTP/1.1 304 X\r\nContent-Length: 99\r\n\r\n"]),
            Turn([get()], [b"HTTP/1.1 204 X\r\n\r\n"]),
        ],
        [summary(method="HEAD"), summary(304), summary(204)],
    ),
    "interim responses": (
        [
            Turn(
                [b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"],
                [CONTINUE, EARLY_HINTS, ok()],
            )
        ],
        [summary(method="POST")],
    ),
    "bare line feeds": (
        [Turn([b"GET / HTTP/1.0\nHost: h\n\n"], [b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi"])],
        [summary(version="1.0")],
    ),
    "folded headers": (
        [
            Turn(
                [b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\nX: a\r\n\tb\r\n\r\n1\r\nx\r\n0\r\n\r\n"], [ok()]
            )
        ],
        [summary(method="POST")],
    ),
    "empty lines before a request": (
        [Turn([Unanswered(b"\r\n\r\n"), get()], [ok()])],
        [summary()],
    ),
    "no headers at all": (
        [Turn([b"GET / HTTP/1.0\r\n\r\n"], [b"HTTP/1.0 204 X\r\n\r\n"])],
        [summary(204, version="1.0")],
    ),
    "lengths that agree": (
        [Turn([get()], [b"HTTP/1.1 200 X\r\nContent-Length: 1, 1\r\nContent-Length: 1\r\n\r\nx"])],
        [summary()],
    ),
    "the server closes an idle connection": (
        [Turn([get()], [ok(), Unanswered(ok(b"bye", 408))])],
        [summary()],
    ),
    "refused connect": (
        [Turn([b"CONNECT h:1 HTTP/1.1\r\n\r\n"], [ok(b"no", 407)]), Turn([get()], [ok()])],
        [summary(407, None, "CONNECT"), summary()],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_messages_are_found_however_they_are_cut(name: str) -> None:
    turns, summaries = CASES[name]
    for cut in cutters(turns):
        feed = Feed(Http1Connection())
        assert feed.turns(turns, cut) == expected(turns, summaries)
        assert feed.connection.pending() == feed.connection.skipped_bytes == feed.connection.unpaired == 0


@pytest.mark.parametrize("name", CASES)
def test_what_follows_a_message_is_found_too(name: str) -> None:
    turns, summaries = CASES[name]
    followed = [*turns, Turn([get(b"/next")], [ok(b"next")])]
    assert Feed(Http1Connection()).turns(followed) == expected(followed, [*summaries, summary(path=b"/next")])


def test_a_connection_that_is_joined_later_has_the_positions_of_its_stream() -> None:
    feed = Feed(Http1Connection(), 5_000_000_000, 7_000_000_000)
    feed.request(get())
    assert feed.response(ok(b"x")) == [
        (5_000_000_000, 5_000_000_000 + len(get()), 7_000_000_000, 7_000_000_000 + len(ok(b"x")), summary())
    ]


def test_an_exchange_is_not_complete_before_its_last_byte() -> None:
    feed = Feed(Http1Connection())
    feed.request(get())
    assert feed.response(ok(b"xyz")[:-1]) == []
    assert feed.connection.pending() == 1
    assert len(feed.response(b"z")) == 1
    assert feed.connection.pending() == 0


def test_of_a_body_with_a_length_no_byte_is_needed() -> None:
    body = bytes(300_000)
    feed = Feed(Http1Connection())
    feed.request(b"PUT / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + body, captured=100)
    feed.request(get(b"/b"))
    feed.response(ok(), captured=len(ok()))
    reply = ok(body)
    feed.response(reply[:1000], captured=50)
    found = feed.response(reply[1000:], captured=0)
    assert [exchange.summary for exchange in feed.found] == [summary(method="PUT"), summary(path=b"/b")]
    assert found[0].response_end - found[0].response_start == len(reply)
    assert feed.connection.skipped_bytes == 0


def test_a_body_without_a_length_lasts_until_the_connection_ends() -> None:
    feed = Feed(Http1Connection())
    feed.request(get())
    feed.response(b"HTTP/1.1 200 OK\r\n\r\nsome", captured=21)
    assert feed.response(b"HTTP/1.1 500 more\r\n\r\n") == []
    feed.finish()
    assert feed.found == [(0, len(get()), 0, 19 + 4 + 21, summary())]


def test_a_coding_that_is_not_chunked_at_last_lasts_until_the_connection_ends() -> None:
    feed = Feed(Http1Connection())
    feed.request(get())
    feed.response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\nContent-Length: 1\r\n\r\nxyz")
    assert feed.found == []
    assert len(feed.finish()) == 1


def test_an_early_response_waits_for_the_end_of_its_request() -> None:
    feed = Feed(Http1Connection())
    request = b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n"
    feed.request(request + b"01234")
    assert feed.response(ok(b"", 413)) == []
    assert [exchange.request_end for exchange in feed.request(b"56789")] == [len(request) + 10]


@pytest.mark.parametrize("framing", [b"Content-Length: 10\r\n\r\n", CHUNKED + b"a\r\n"])
def test_a_request_given_up_after_an_early_response_ends_where_it_was_given_up(framing: bytes) -> None:
    feed = Feed(Http1Connection())
    request = b"POST / HTTP/1.1\r\n" + framing + b"01234"
    feed.request(request)
    feed.response(ok(b"", 413))
    assert [exchange.request_end for exchange in feed.finish()] == [len(request)]


@pytest.mark.parametrize(
    ("request_bytes", "response_bytes"),
    [
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (b"CONNECT h:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
)
def test_after_an_upgrade_everything_is_skipped_and_counted(request_bytes: bytes, response_bytes: bytes) -> None:
    feed = Feed(Http1Connection())
    feed.request(request_bytes)
    assert len(feed.response(response_bytes + b"frame")) == 1
    for _ in range(3):
        feed.request(get())
        feed.response(ok())
    assert len(feed.found) == 1
    assert feed.found[0].response_end == len(response_bytes)
    assert feed.connection.skipped_bytes == len(b"frame") + 3 * len(get() + ok())
    assert feed.connection.pending() == feed.connection.unpaired == 0


def test_requests_behind_an_upgrade_have_no_answer_and_are_not_waited_for() -> None:
    feed = Feed(Http1Connection())
    feed.request(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n" + get(b"/b"))
    assert len(feed.response(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")) == 1
    assert (feed.connection.unpaired, feed.connection.pending()) == (1, 0)


@pytest.mark.parametrize(
    ("part", "status"),
    [(b"HTTP/1.1 2", None), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", 200), (b"HTTP/1.1 200 OK\r\n", None)],
)
def test_a_response_that_the_end_cuts_is_one_as_far_as_it_came(part: bytes, status: int | None) -> None:
    feed = Feed(Http1Connection())
    post = b"POST /c HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"
    feed.request(get(b"/a") + get(b"/b") + post)
    feed.response(part)
    assert [(exchange.response_end, exchange.summary[-1]) for exchange in feed.finish()] == [(len(part), status)]
    b, c = feed.connection.unanswered()
    assert (b.request_start, b.request_end) == (len(get(b"/a")), len(get(b"/a") + get(b"/b")))
    assert c == (b.request_end, b.request_end + len(post), ("POST", b"/c", False, "1.1", None))


def test_an_unanswered_request_whose_end_is_in_a_gap_is_unpaired() -> None:
    feed = Feed(Http1Connection())
    feed.request(b"POST / HTTP/1.1\r\n" + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", captured=len(CHUNKED) + 22)
    assert feed.finish() == feed.connection.unanswered() == []
    assert feed.connection.unpaired == 1


def test_after_a_gap_over_a_request_the_ones_before_it_are_still_paired() -> None:
    feed = Feed(Http1Connection())
    feed.request(get(b"/a"))
    feed.request(get(b"/b") + get(b"/c"), captured=len(get(b"/b")))
    feed.response(ok() * 3)
    assert [exchange.summary for exchange in feed.found] == [summary(path=b"/a"), summary(path=b"/b")]


def test_after_a_gap_pairs_are_given_out_once_a_turn_has_balanced() -> None:
    feed = Feed(Http1Connection())
    feed.request(get(b"/a"))
    feed.response(ok(b"", 500), captured=3)
    feed.request(get(b"/b"))
    assert feed.response(ok()) == []
    assert [exchange.summary for exchange in feed.request(get(b"/c"))] == [summary(path=b"/b")]
    assert [exchange.summary for exchange in feed.response(ok())] == [summary(path=b"/c")]
    assert feed.connection.unpaired == 1


def test_after_a_gap_the_last_turn_is_given_out_when_the_connection_ends() -> None:
    feed = Feed(Http1Connection())
    feed.request(get(b"/a"))
    feed.response(ok(b"", 500), captured=3)
    feed.request(get(b"/b"))
    feed.response(ok())
    assert [exchange.summary for exchange in feed.finish()] == [summary(path=b"/b")]


def test_a_client_that_overlaps_its_requests_is_paired_again_only_after_it_was_quiet() -> None:
    feed = Feed(Http1Connection())
    feed.request(get(b"/a") + get(b"/b"))
    feed.response(ok(b"a"))
    feed.request(get(b"/c"))  # while /b is under way: from now on there is always one
    feed.response(ok(b"b"), captured=3)
    feed.found.clear()
    for path in (b"/d", b"/e", b"/f"):
        feed.request(get(path))
        feed.response(ok(b"late"))
    assert feed.found == []
    feed.response(ok(b"f"))
    feed.connection.quiet()
    for path in (b"/g", b"/h"):
        feed.request(get(path))
        feed.response(ok())
    assert [exchange.summary for exchange in feed.finish()] == [summary(path=b"/g"), summary(path=b"/h")]


def test_after_a_gap_a_turn_that_does_not_balance_is_dropped() -> None:
    feed = Feed(Http1Connection())
    feed.request(get(b"/a") + get(b"/b"))
    feed.response(ok(b"a"), captured=3)
    feed.request(get(b"/c"))
    feed.response(ok(b"b") + ok(b"c"))
    feed.request(get(b"/d"))
    feed.response(ok(b"d"))
    feed.request(get(b"/e"))
    assert [exchange.summary for exchange in feed.found] == [summary(path=b"/d")]
    assert feed.connection.unpaired == 3


def test_joined_in_the_middle_of_a_response_the_next_turns_are_found() -> None:
    feed = Feed(Http1Connection(), 1000, 2000)
    feed.response(b"rest of a body")
    for path in (b"/a", b"/b"):
        feed.request(get(path))
        feed.response(ok())
    assert [exchange.summary for exchange in feed.finish()] == [summary(path=b"/a"), summary(path=b"/b")]
    assert feed.connection.skipped_bytes == len(b"rest of a body")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01 ciphertext\x00\x01\x02",
        b"GET / HTTP/2.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + CHUNKED + b"zz\r\n",
        b"POST / HTTP/1.1\r\n" + CHUNKED + b"1\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\n" + CHUNKED + b"1;" + b"x" * 5000,
    ],
)
def test_after_a_bad_request_the_connection_recovers(garbage: bytes) -> None:
    feed = Feed(Http1Connection())
    feed.request(garbage)
    feed.response(ok(b"", 400))
    for _ in range(3):
        feed.request(get())
        feed.response(ok())
    assert [exchange.summary for exchange in feed.finish() if exchange.summary == summary()] == [summary()] * 3


def test_a_head_without_end_is_given_up_and_its_bytes_are_not_kept() -> None:
    feed = Feed(Http1Connection())
    feed.request(b"GET / HTTP/1.1\r\n")
    for _ in range(80):
        feed.request(b"X: " + b"x" * 995 + b"\r\n")
    assert feed.connection.skipped_bytes == 16 + 80_000
    assert len(feed.connection._requests._tail) <= TAIL_LIMIT


def test_bytes_that_are_reported_twice_count_once() -> None:
    connection = Http1Connection()
    connection.feed_request(0, get(), len(get()))
    connection.feed_request(5, get()[5:], len(get()) - 5)
    assert connection.pending() == 1
    assert connection.skipped_bytes == 0


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Turn], list[Summary]]:
    turns, summaries = [], []
    for _ in range(draw(st.integers(1, 4))):
        requests, responses = [], []
        for _ in range(draw(st.integers(1, 4))):
            body = draw(st.binary(max_size=40))
            path = b"/" + draw(st.text("abc/-", max_size=10)).encode()
            status = draw(st.sampled_from([200, 201, 404, 500]))
            if draw(st.booleans()):
                requests.append(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body))
            else:
                chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
                requests.append(b"POST %b HTTP/1.1\r\n%b%b0\r\n\r\n" % (path, CHUNKED, chunk))
            responses.append(ok(body, status))
            summaries.append(summary(status, path, "POST"))
        turns.append(Turn(requests, responses))
    return turns, summaries


@settings(max_examples=60, deadline=None)
@given(conversations(), st.integers(1, 100))
def test_any_pipeline_comes_back_however_it_is_cut(made: tuple[list[Turn], list[Summary]], size: int) -> None:
    turns, summaries = made
    assert Feed(Http1Connection()).turns(turns, in_pieces_of(size)) == expected(turns, summaries)
