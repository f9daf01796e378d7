"""Redis in segment mode: commands and replies out of two byte streams, exact to the byte, however they are cut."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.conversations import Feed, Turn, Unanswered, cut_at, cutters, expected, in_pieces_of
from wirespan.receiver.protocols.ordered import PENDING_LIMIT
from wirespan.receiver.protocols.redis import Summary
from wirespan.receiver.protocols.redis_connection import RedisConnection
from wirespan.receiver.protocols.stream import TAIL_LIMIT

OK = b"+OK\r\n"


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def command(line: str, *more: bytes) -> bytes:
    words = [*line.encode().split(), *more]
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


def confirmation(kind: str, channel: bytes, count: int, mark: bytes = b"*") -> bytes:
    return mark + b"3\r\n" + bulk(kind.encode()) + bulk(channel) + b":%d\r\n" % count


def message(*parts: bytes, mark: bytes = b"*") -> Unanswered:
    return Unanswered(mark + b"%d\r\n" % len(parts) + b"".join(map(bulk, parts)))


def succeeded(*names: str) -> list[Summary]:
    return [(name, None) for name in names]


NESTED = b"*3\r\n*2\r\n:1\r\n*1\r\n*0\r\n$-1\r\n*-1\r\n"
RESP3 = (
    b"%2\r\n+a\r\n~2\r\n:1\r\n#t\r\n$1\r\nb\r\n*3\r\n,3.14\r\n(349\r\n_\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"|1\r\n+ttl\r\n:5\r\n" + bulk(b"value"),
    b"|1\r\n+ttl\r\n*1\r\n-ERR of an element\r\n-WRONGTYPE x\r\n",
    b"*?\r\n:1\r\n*?\r\n:2\r\n.\r\n%1\r\n+k\r\n+v\r\n.\r\n",
    b"$?\r\n;4\r\nHell\r\n;5\r\no\r\nwo\r\n;0\r\n",
    b"!21\r\nSYNTAX invalid syntax\r\n",
)
QUEUED = b"+QUEUED\r\n"

CASES: dict[str, tuple[Sequence[Turn], Sequence[Summary]]] = {
    "pipeline": (
        [
            Turn(
                [command("SET k v"), command("GET k"), command("lpush k"), command("PING")],
                [OK, bulk(b"v"), b"-WRONGTYPE Op\r\n", b"+PONG\r\n"],
            )
        ],
        [("SET", None), ("GET", None), ("LPUSH", "WRONGTYPE"), ("PING", None)],
    ),
    "binary values that look like messages": (
        [Turn([command("SET k", b"\r\n" + command("GET k")), command("GET k")], [OK, bulk(b"\r\n-ERR \r\n:1\r\n")])],
        succeeded("SET", "GET"),
    ),
    "empty bulks and null": (
        [Turn([command("SET", b"", b""), command("GET", b"")], [bulk(b""), b"$-1\r\n"])],
        succeeded("SET", "GET"),
    ),
    "two words": (
        [
            Turn(
                [command("CLIENT SETNAME x"), command("CONFIG GET *"), command("XINFO")], [OK, b"*0\r\n", b"-ERR x\r\n"]
            )
        ],
        [("CLIENT SETNAME", None), ("CONFIG GET", None), ("XINFO", "ERR")],
    ),
    "unknown commands": (
        [Turn([command("SECRET k"), command("a" * 100), command("GET k")], [b"-ERR x\r\n", b"-SECRET\r\n", OK])],
        [(None, "ERR"), (None, "_OTHER"), ("GET", None)],
    ),
    "inline commands": (
        [Turn([b"PING\r\n", Unanswered(b"\r\n"), b"set k v\n", b"CONFIG  GET x\r\n"], [b"+PONG\r\n", OK, b"*0\r\n"])],
        succeeded("PING", "SET", "CONFIG GET"),
    ),
    "inline commands that are none": (
        [Turn([b"unknown words\r\n", b'"PING\r\n', command("PING")], [b"-ERR x\r\n", b"-ERR y\r\n", b"+PONG\r\n"])],
        [(None, "ERR"), (None, "ERR"), ("PING", None)],
    ),
    "empty arrays, which Redis ignores": (
        [Turn([Unanswered(b"*0\r\n"), command("PING"), Unanswered(b"*-1\r\n")], [b"+PONG\r\n"])],
        succeeded("PING"),
    ),
    "transaction": (
        [
            Turn(
                [command("MULTI"), command("SET k v"), command("GET k"), command("EXEC")],
                [OK, QUEUED, QUEUED, b"*2\r\n+OK\r\n-ERR x\r\n"],
            )
        ],
        succeeded("MULTI", "SET", "GET", "EXEC"),
    ),
    "nested arrays": ([Turn([command("EVAL x"), command("PING")], [NESTED, b"+PONG\r\n"])], succeeded("EVAL", "PING")),
    "RESP3": (
        [Turn([command("HELLO 3"), *[command("GET k")] * 6], RESP3)],
        [("HELLO", None), *[("GET", None)] * 2, ("GET", "WRONGTYPE"), *[("GET", None)] * 2, ("GET", "SYNTAX")],
    ),
    "RESP3 pushes": (
        [
            Turn(
                [command("GET a"), command("GET b")],
                [
                    bulk(b"1"),
                    Unanswered(b">2\r\n" + bulk(b"invalidate") + b"*1\r\n" + bulk(b"a")),
                    bulk(b"2"),
                    Unanswered(b">2\r\n+invalidate\r\n_\r\n"),
                ],
            )
        ],
        succeeded("GET", "GET"),
    ),
    "subscriptions": (
        [
            Turn([command("SUBSCRIBE a b")], [confirmation("subscribe", b"a", 1) + confirmation("subscribe", b"b", 2)]),
            Turn([], [message(b"message", b"a", b"hello")]),
            Turn([command("PSUBSCRIBE p*")], [message(b"message", b"b", b"x"), confirmation("psubscribe", b"p*", 3)]),
            Turn([command("PING")], [message(b"pmessage", b"p*", b"p", b"x"), b"*2\r\n" + bulk(b"pong") + bulk(b"")]),
            Turn(
                [command("UNSUBSCRIBE")], [confirmation("unsubscribe", b"a", 2) + confirmation("unsubscribe", b"b", 1)]
            ),
            Turn(
                [command("PUNSUBSCRIBE"), command("LRANGE k 0 -1")],
                [confirmation("punsubscribe", b"p*", 0), b"*3\r\n" + bulk(b"message") + bulk(b"a") + bulk(b"b")],
            ),
        ],
        succeeded("SUBSCRIBE", "PSUBSCRIBE", "PING", "UNSUBSCRIBE", "PUNSUBSCRIBE", "LRANGE"),
    ),
    "subscribed to one channel twice": (
        [
            Turn([command("SUBSCRIBE a a")], [confirmation("subscribe", b"a", 1) * 2]),
            Turn([command("UNSUBSCRIBE"), command("PING")], [confirmation("unsubscribe", b"a", 0), b"+PONG\r\n"]),
        ],
        succeeded("SUBSCRIBE", "UNSUBSCRIBE", "PING"),
    ),
    "unsubscribed from nothing": (
        [
            Turn(
                [command("UNSUBSCRIBE"), command("PING")],
                [b"*3\r\n" + bulk(b"unsubscribe") + b"$-1\r\n:0\r\n", b"+PONG\r\n"],
            )
        ],
        succeeded("UNSUBSCRIBE", "PING"),
    ),
    "subscriptions in RESP3": (
        [
            Turn(
                [command("SUBSCRIBE a b"), command("GET k"), command("SSUBSCRIBE s"), command("SUNSUBSCRIBE")],
                [
                    confirmation("subscribe", b"a", 1, b">") + confirmation("subscribe", b"b", 2, b">"),
                    message(b"message", b"a", b"x", mark=b">"),
                    bulk(b"v"),
                    confirmation("ssubscribe", b"s", 1, b">"),
                    message(b"smessage", b"s", b"x", mark=b">"),
                    confirmation("sunsubscribe", b"s", 0, b">"),
                    Unanswered(confirmation("sunsubscribe", b"s", 0, b">")),
                ],
            )
        ],
        succeeded("SUBSCRIBE", "GET", "SSUBSCRIBE", "SUNSUBSCRIBE"),
    ),
    "a subscription that is refused or queued": (
        [
            Turn(
                [command("SUBSCRIBE a b"), command("SUBSCRIBE a b"), command("PING")],
                [b"-NOPERM x\r\n", QUEUED, b"+PONG\r\n"],
            )
        ],
        [("SUBSCRIBE", "NOPERM"), ("SUBSCRIBE", None), ("PING", None)],
    ),
    "monitor": (
        [
            Turn([command("MONITOR")], [OK, Unanswered(b'+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"\r\n')]),
            Turn(
                [command("PING"), command("RESET"), command("ECHO 1")],
                [Unanswered(b"+1.1 x\r\n"), b"+PONG\r\n", b"+RESET\r\n", b"+1\r\n"],
            ),
        ],
        succeeded("MONITOR", "PING", "RESET", "ECHO"),
    ),
    "replies switched off": (
        [
            Turn([command("GET k"), Unanswered(command("CLIENT REPLY off")), Unanswered(command("SET k v"))], [OK]),
            Turn(
                [Unanswered(command("CLIENT REPLY SKIP")), command("client reply on"), command("PING")],
                [OK, b"+PONG\r\n"],
            ),
        ],
        succeeded("GET", "CLIENT REPLY", "PING"),
    ),
    "subscriptions while replies are switched off": (
        [
            Turn(
                [
                    Unanswered(command("CLIENT REPLY OFF")),
                    command("SUBSCRIBE a"),
                    Unanswered(command("PING")),
                    command("UNSUBSCRIBE"),
                    command("CLIENT REPLY ON"),
                ],
                [confirmation("subscribe", b"a", 1), confirmation("unsubscribe", b"a", 0), OK],
            )
        ],
        succeeded("SUBSCRIBE", "UNSUBSCRIBE", "CLIENT REPLY"),
    ),
    "one reply skipped": (
        [
            Turn(
                [
                    Unanswered(command("CLIENT REPLY SKIP")),
                    Unanswered(command("CLIENT REPLY SKIP")),
                    Unanswered(command("SET k v")),
                    command("GET k"),
                    command("CLIENT REPLY x"),
                ],
                [bulk(b"v"), b"-ERR syntax error\r\n"],
            )
        ],
        [("GET", None), ("CLIENT REPLY", "ERR")],
    ),
    "reset": (
        [Turn([Unanswered(command("CLIENT REPLY OFF")), command("RESET"), command("QUIT")], [b"+RESET\r\n", OK])],
        succeeded("RESET", "QUIT"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_commands_and_replies_are_found_however_they_are_cut(name: str) -> None:
    turns, summaries = CASES[name]
    one_way = sum(isinstance(request, Unanswered) and len(request) > 5 for turn in turns for request in turn.requests)
    pushes = sum(isinstance(response, Unanswered) for turn in turns for response in turn.responses)
    for cut in cutters(turns):
        feed = Feed(RedisConnection())
        assert feed.turns(turns, cut) == expected(turns, summaries)
        connection = feed.connection
        assert connection.pending() == connection.skipped_bytes == connection.unpaired == 0
        assert (connection.one_way, connection.pushes) == (one_way, pushes)


@pytest.mark.parametrize("name", CASES)
def test_what_follows_is_found_too(name: str) -> None:
    turns, summaries = CASES[name]
    followed = [*turns, Turn([command("DBSIZE")], [b":1\r\n"])]
    assert Feed(RedisConnection()).turns(followed) == expected(followed, [*summaries, ("DBSIZE", None)])


def test_a_connection_that_is_joined_later_has_the_positions_of_its_stream() -> None:
    feed = Feed(RedisConnection(), 5_000_000_000, 7_000_000_000)
    feed.request(command("GET k"))
    assert feed.response(OK) == [
        (5_000_000_000, 5_000_000_000 + len(command("GET k")), 7_000_000_000, 7_000_000_005, ("GET", None))
    ]


def test_a_reply_is_not_complete_before_its_last_byte() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET k"))
    assert feed.response(bulk(b"value")[:-1]) == []
    assert feed.connection.pending() == 1
    assert len(feed.response(b"\n")) == 1


def test_of_a_value_of_512_megabytes_only_the_header_is_needed() -> None:
    size = 512 << 20
    connection = RedisConnection()
    start = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % size
    end = len(start) + size + 2
    connection.feed_request(0, start + b"xxx", 16_384)
    connection.feed_request(16_384, b"", end - 16_384)
    get = command("GET k")
    connection.feed_request(end, get, len(get))
    header = b"$%d\r\n" % size
    reply_end = 5 + len(header) + size + 2
    found = connection.feed_response(0, OK + header, 10_000)
    found += connection.feed_response(10_000, b"", reply_end - 10_000)
    assert found == [
        (0, end, 0, 5, ("SET", None)),
        (end, end + len(get), 5, reply_end, ("GET", None)),
    ]
    assert connection.skipped_bytes == 0


def test_a_message_that_ends_inside_a_gap_is_complete() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a") + command("GET b"))
    reply = bulk(b"x" * 100)
    assert [exchange.response_end for exchange in feed.response(reply + OK, captured=20)] == [len(reply)]
    assert feed.connection.unpaired == 1
    assert feed.connection.skipped_bytes == len(OK)


def test_replies_nest_to_any_depth() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("EVAL x") + command("PING"))
    reply = b"*1\r\n" * 100_000 + b":1\r\n"
    feed.response(reply + b"+PONG\r\n")
    assert [exchange.response_end for exchange in feed.found] == [len(reply), len(reply) + 7]


def test_streamed_aggregates_inside_each_other_are_bounded() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("EVAL x"))
    feed.response(b"*?\r\n" * 100_000)
    assert feed.found == []
    assert feed.connection.skipped_bytes > 300_000


def test_after_a_gap_over_a_command_the_ones_before_it_are_still_paired() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("SET a b"))
    feed.request(command("GET a") * 3, captured=len(command("GET a")) + 4)
    feed.response(OK + bulk(b"b") * 3)
    assert [exchange.summary for exchange in feed.found] == succeeded("SET", "GET")


def test_after_a_gap_pairs_are_given_out_once_a_turn_has_balanced() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a") * 4)
    feed.response(OK * 4, captured=12)
    assert (len(feed.found), feed.connection.unpaired) == (2, 2)
    feed.request(command("SET a b") * 2)
    assert feed.response(OK * 2) == []
    assert feed.connection.pending() == 2
    assert [exchange.summary for exchange in feed.request(command("PING"))] == succeeded("SET", "SET")
    assert [exchange.summary for exchange in feed.response(b"+PONG\r\n")] == succeeded("PING")


def test_after_a_gap_over_a_command_the_ones_before_it_are_paired_even_if_others_follow() -> None:
    feed = Feed(RedisConnection())
    feed.request(
        command("SET a b") + command("GET a") + command("PING"), captured=len(command("SET a b") + command("GET a")) + 4
    )
    feed.response(OK)
    feed.request(command("INCR a"))
    feed.response(bulk(b"b") + b"+PONG\r\n:1\r\n")
    assert [exchange.summary for exchange in feed.finish()] == succeeded("SET", "GET")


def test_after_a_gap_a_turn_that_begins_with_commands_under_way_shows_that_they_overlap() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a") * 4)
    feed.response(OK, captured=0)
    feed.request(command("GET b"))  # the replies that are due now are those of GET a
    feed.request(command("GET c"))
    feed.response(OK)
    for _ in range(10):
        feed.request(command("GET d"))
        feed.response(OK)
    assert feed.finish() == []


def test_after_a_gap_only_what_certainly_begins_a_command_begins_anew() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a"))
    feed.response(OK, captured=1)
    feed.request(b"value\r\n" + command("GET a"))
    feed.response(OK)
    feed.request(command("SECRET a"))
    feed.response(OK)
    assert feed.finish() == []


def test_a_reply_that_nobody_asked_for_gives_nothing_to_the_next_command() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("PING"))
    feed.response(b"+PONG\r\n" + OK)
    feed.found.clear()
    feed.connection.stop_waiting()
    feed.request(command("GET k"))
    feed.response(bulk(b"v"))
    feed.request(command("SET k v"))
    feed.response(OK)
    assert [exchange.summary for exchange in feed.finish()] == succeeded("GET", "SET")
    assert feed.connection.skipped_bytes == len(OK)


def test_replies_wait_for_commands_that_are_seen_after_them() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("PING"))
    feed.response(b"+PONG\r\n" + bulk(b"v") + b"-ERR x\r\n:1")
    assert feed.connection.starved
    assert [exchange.summary for exchange in feed.request(command("GET k"))] == succeeded("GET")
    assert feed.connection.starved
    assert [exchange.summary for exchange in feed.request(command("LPOP k"))] == [("LPOP", "ERR")]
    assert not feed.connection.starved
    assert feed.request(command("INCR k")) == []
    assert [exchange.summary for exchange in feed.response(b"\r\n")] == succeeded("INCR")
    assert feed.connection.skipped_bytes == feed.connection.unpaired == 0


def test_a_reply_that_waits_may_end_in_bytes_that_were_not_captured() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("PING"))
    feed.response(b"+PONG\r\n" + bulk(b"v" * 100), captured=20)
    feed.request(command("GET k") + command("PING"))
    feed.response(b"+PONG\r\n")
    assert [exchange.summary for exchange in feed.found] == succeeded("PING", "GET", "PING")


def test_a_reply_whose_command_is_in_a_gap_does_not_wait_for_another() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("PING"))
    feed.response(b"+PONG\r\n")
    feed.request(command("GET k"), captured=0)
    feed.response(bulk(b"v"))
    assert not feed.connection.starved
    feed.request(command("INCR k"))
    feed.response(b":1\r\n")
    assert [exchange.summary for exchange in feed.finish()] == succeeded("PING", "INCR")
    assert feed.found[1].response_start == len(b"+PONG\r\n" + bulk(b"v"))


def test_a_client_that_overlaps_its_commands_is_paired_again_only_after_it_was_quiet() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a") * 2)
    feed.response(OK)
    feed.request(command("GET c"))
    feed.response(OK, captured=0)
    feed.found.clear()
    for _ in range(10):
        feed.request(command("INCR k"))
        feed.response(b":1\r\n")
    assert feed.found == []
    feed.connection.quiet()
    feed.request(command("PING"))
    feed.response(b"+PONG\r\n")
    assert [exchange.summary for exchange in feed.finish()] == succeeded("PING")


def test_joined_in_the_middle_of_a_reply_the_next_turns_are_found() -> None:
    feed = Feed(RedisConnection(), 1000, 2000)
    feed.response(b"e of a value\r\n+OK\r\n")
    for _ in range(2):
        feed.request(command("PING"))
        feed.response(b"+PONG\r\n")
    assert [exchange.summary for exchange in feed.finish()] == succeeded("PING", "PING")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01 ciphertext",
        b"*x\r\n",
        b"*1\r\n:5\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$99999999999999\r\n",
        b"*" + b"1" * 100,
        b"*1\r\n$3" + b" " * 100,
    ],
)
def test_a_request_that_breaks_the_protocol_is_answered_by_an_error_and_the_connection_recovers(garbage: bytes) -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET k") + garbage)
    feed.response(bulk(b"v") + b"-ERR Protocol error\r\n")
    end = len(command("GET k") + garbage)
    assert feed.found[1:] == [(end - len(garbage), end, 7, 7 + len(b"-ERR Protocol error\r\n"), (None, "ERR"))]
    for _ in range(3):
        feed.request(command("PING"))
        feed.response(b"+PONG\r\n")
    assert [exchange.summary for exchange in feed.finish()][2:] == succeeded("PING", "PING", "PING")
    assert feed.connection.skipped_bytes == feed.connection.unpaired == 0


def test_what_follows_a_request_that_breaks_the_protocol_is_skipped_and_takes_no_reply() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a") + b"*1\r\n")
    feed.request(b":5\r\n" + command("GET b"))
    feed.request(command("GET c"))
    feed.response(OK + b"-ERR Protocol error\r\n")
    assert [exchange.summary for exchange in feed.finish()] == [("GET", None), (None, "ERR")]
    assert feed.connection.skipped_bytes == len(command("GET c"))
    assert feed.connection.unanswered() == []


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400\r\n", b"?\r\n", b".\r\n", b";x\r\n", b"*x\r\n", b"$x\r\n", b"\x00" * 9]
)
def test_after_a_bad_reply_the_connection_recovers(garbage: bytes) -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET k"))
    feed.response(garbage)
    for _ in range(2):
        feed.request(command("PING"))
        feed.response(b"+PONG\r\n")
    assert [exchange.summary for exchange in feed.finish()] == succeeded("PING", "PING")
    assert feed.connection.unpaired == 1


@pytest.mark.parametrize("name", ["SYNC", "PSYNC ? -1"])
def test_what_follows_the_handshake_of_replication_is_skipped(name: str) -> None:
    feed = Feed(RedisConnection())
    feed.request(command("PING") + command(name))
    feed.response(b"+PONG\r\n+FULLRESYNC 8de1 1\r\n$3\r\nRDB" + command("SET k v"))
    feed.request(command("REPLCONF ACK 1"))
    feed.response(command("PING"))
    assert [exchange.summary for exchange in feed.found] == succeeded("PING")
    assert (feed.connection.one_way, feed.connection.pending(), feed.connection.unpaired) == (1, 0, 0)


def test_at_the_end_what_has_no_reply_byte_is_unanswered_and_a_reply_that_began_is_one() -> None:
    feed = Feed(RedisConnection())
    get = command("GET k")
    feed.request(command("PING") + get + command("SET k v") + get[:8])
    feed.response(b"+PONG\r\n$5\r\nva")
    assert [exchange.summary for exchange in feed.finish()] == succeeded("PING", "GET")
    assert feed.found[1].response_end == len(b"+PONG\r\n$5\r\nva")
    begin = len(command("PING") + get)
    assert feed.connection.unanswered() == [(begin, begin + len(command("SET k v")), ("SET", None))]


@pytest.mark.parametrize("cut", [b"-WRONG", b"$", b"*2\r\n:1\r\n"])
def test_a_reply_of_which_the_end_leaves_only_a_part_has_no_error_of_another(cut: bytes) -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a") + command("GET b"))
    feed.response(b"-ERR x\r\n" + cut)
    assert [exchange.summary for exchange in feed.finish()] == [("GET", "ERR"), ("GET", None)]
    assert feed.connection.unanswered() == []


def test_a_push_that_the_end_cuts_is_no_reply() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a"))
    feed.response(b">2\r\n$7\r\nmess")
    assert feed.finish() == []
    assert [request.summary for request in feed.connection.unanswered()] == succeeded("GET")


def test_at_the_end_pairs_in_doubt_are_unpaired_and_not_unanswered() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a"))
    feed.response(OK, captured=1)
    feed.request(command("GET b") + command("GET c"))
    feed.response(OK)
    assert feed.finish() == feed.connection.unanswered() == []
    assert (feed.connection.unpaired, feed.connection.pending()) == (3, 0)


def test_answers_of_commands_that_were_timed_out_are_late_and_shift_no_pair() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a") + command("GET b"))
    feed.response(OK)
    feed.request(command("GET c") + command("SET d e")[:5])
    assert [request.summary for request in feed.time_out()] == succeeded("GET", "GET")
    assert feed.time_out() == []
    assert feed.connection.pending() == 0
    feed.request(command("SET d e")[5:])
    feed.response(bulk(b"b") + bulk(b"c") + OK)
    assert [exchange.summary for exchange in feed.finish()] == succeeded("GET", "SET")
    assert (feed.connection.late, feed.connection.unpaired) == (2, 0)
    assert feed.connection.unanswered() == []


def test_a_command_that_was_timed_out_is_not_unpaired_when_a_gap_follows() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a"))
    assert len(feed.time_out()) == 1
    feed.request(command("GET b"))
    feed.response(OK * 2, captured=1)
    assert feed.connection.unpaired == 1


def test_while_pairs_are_in_doubt_nothing_is_timed_out() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("GET a"))
    feed.response(OK, captured=1)
    feed.request(command("GET b") * 2)
    feed.response(OK)
    assert feed.time_out() == []


def test_requests_that_are_never_answered_are_bounded() -> None:
    feed = Feed(RedisConnection())
    for _ in range(PENDING_LIMIT // 1000 + 2):
        feed.request(command("PING") * 1000)
    assert feed.connection.pending() == PENDING_LIMIT
    assert feed.connection.skipped_bytes > 0
    feed.response(b"+PONG\r\n" * (PENDING_LIMIT + 5))
    assert len(feed.found) == PENDING_LIMIT


def test_a_line_without_end_is_given_up_and_its_bytes_are_not_kept() -> None:
    feed = Feed(RedisConnection())
    feed.request(command("EVAL x"))
    for _ in range(80):
        feed.response(b"+" * 1000)
    assert feed.connection.skipped_bytes == 80_000
    assert len(feed.connection._responses._tail) <= TAIL_LIMIT


def test_bytes_that_are_reported_twice_count_once() -> None:
    connection = RedisConnection()
    request = command("PING")
    connection.feed_request(0, request, len(request))
    connection.feed_request(3, request[3:] + request, 2 * len(request) - 3)
    assert connection.pending() == 2
    assert connection.skipped_bytes == 0


values = st.recursive(
    st.one_of(
        st.integers().map(lambda number: b":%d\r\n" % number),
        st.binary(max_size=30).map(bulk),
        st.sampled_from([b"+OK\r\n", b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"=5\r\ntxt:a\r\n"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: b"*%d\r\n%b" % (len(items), b"".join(items))),
        st.lists(st.tuples(inner, inner), max_size=3).map(
            lambda items: b"%%%d\r\n%b" % (len(items), b"".join(key + value for key, value in items))
        ),
    ),
    max_leaves=8,
)
replies = st.one_of(
    values.map(lambda value: (value, None)),
    st.sampled_from([(b"-ERR x\r\n", "ERR"), (b"-MOVED 1 h:1\r\n", "MOVED"), (b"-secret\r\n", "_OTHER")]),
)
names = st.sampled_from(["GET", "SET", "HGETALL", "CLIENT SETNAME", "XGROUP CREATE", "EVALSHA"])
exchanges = st.tuples(names, st.lists(st.binary(max_size=40), max_size=4), replies)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(exchanges, min_size=1, max_size=6), min_size=1, max_size=4), st.integers(1, 60))
def test_any_pipeline_comes_back_however_it_is_cut(
    pipelines: list[list[tuple[str, list[bytes], tuple[bytes, str | None]]]], size: int
) -> None:
    turns = [
        Turn([command(name, *rest) for name, rest, _ in pipeline], [reply for _, _, (reply, _) in pipeline])
        for pipeline in pipelines
    ]
    summaries = [(name, error) for pipeline in pipelines for name, _, (_, error) in pipeline]
    for cut in (in_pieces_of(size), cut_at(size)):
        assert Feed(RedisConnection()).turns(turns, cut) == expected(turns, summaries)
