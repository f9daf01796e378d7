"""Redis in turn mode: what the first bytes of one exchange give."""

from __future__ import annotations

import pytest

from wirespan.pipeline.spans import Fragment, SpanKind, StatusCode
from wirespan.receiver.protocols.parser import Endpoint
from wirespan.receiver.protocols.redis import RedisParser
from wirespan.receiver.protocols.redis_commands import COMMANDS, ERROR_CODES, WORD_LIMIT

PARSER = RedisParser()


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def fragment(request: bytes, response: bytes = b"+OK\r\n", kind: SpanKind = SpanKind.SERVER) -> Fragment:
    return PARSER.fragment(PARSER.summarise(request, response), kind, Endpoint("10.0.0.1", 6379))


@pytest.mark.parametrize("kind", [SpanKind.SERVER, SpanKind.CLIENT])
def test_a_command_names_the_span(kind: SpanKind) -> None:
    assert fragment(command(b"GET", b"secret"), b"$6\r\nsecret\r\n", kind) == Fragment(
        "GET",
        (("db.system.name", "redis"), ("network.protocol.name", "redis"), ("db.operation.name", "GET")),
    )


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([b"get", b"k"], "GET"),
        ([b"GeT", b"k"], "GET"),
        ([b"client", b"setname", b"secret"], "CLIENT SETNAME"),
        ([b"CONFIG", b"Get", b"*"], "CONFIG GET"),
        ([b"XGROUP", b"CREATE", b"k", b"g", b"$"], "XGROUP CREATE"),
        ([b"JSON.GET", b"k"], "JSON.GET"),
        ([b"CLIENT", b"secret"], "CLIENT"),
        ([b"COMMAND"], "COMMAND"),
        ([b"SECRET", b"k"], "redis"),
        ([b""], "redis"),
        ([b"\xff\x00"], "redis"),
    ],
)
def test_names_come_from_the_table_of_commands_only(words: list[bytes], name: str) -> None:
    found = fragment(command(*words))
    assert found.name == name
    assert dict(found.attributes).get("db.operation.name") == (name if name != "redis" else None)


@pytest.mark.parametrize("words", [[b"SETRANGE", b"k", b"1", b"v"], [b"CLIENT", b"TRACKINGINFO"]])
def test_a_word_that_is_cut_is_not_taken_for_a_shorter_one(words: list[bytes]) -> None:
    request = command(*words)
    names = {fragment(request[:length]).name for length in range(len(request))}
    assert names == {"redis", *({"SETRANGE"} if words[0] == b"SETRANGE" else {"CLIENT", "CLIENT TRACKINGINFO"})}


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (b"-WRONGTYPE Operation against a key\r\n", "WRONGTYPE"),
        (b"-ERR unknown command 'secret'\r\n", "ERR"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "MOVED"),
        (b"-EXECABORT\r\n", "EXECABORT"),
        (b"!21\r\nSYNTAX invalid syntax\r\n", "SYNTAX"),
        (b"-NOSCRIPT No matching scr", "NOSCRIPT"),
    ],
)
def test_an_error_reply_is_an_error_with_its_code(response: bytes, code: str) -> None:
    found = fragment(command(b"GET", b"k"), response)
    assert found.status is StatusCode.ERROR
    given = dict(found.attributes)
    assert (given["error.type"], given["db.response.status_code"]) == (code, code)


@pytest.mark.parametrize("response", [b"-SECRET of a script\r\n", b"-secret\r\n", b"-\r\n", b"!6\r\nsecret\r\n", b"-"])
def test_an_error_code_that_is_not_known_is_not_emitted(response: bytes) -> None:
    found = fragment(command(b"EVAL", b"x"), response)
    assert found.status is StatusCode.ERROR
    assert dict(found.attributes)["error.type"] == "_OTHER"
    assert "db.response.status_code" not in dict(found.attributes)


@pytest.mark.parametrize("response", [b"", b"+OK\r\n", b"$-1\r\n", b"_\r\n", b"%1\r\n+a\r\n-ERR\r\n"])
def test_everything_else_is_no_error(response: bytes) -> None:
    assert fragment(command(b"GET", b"k"), response).status is StatusCode.UNSET


@pytest.mark.parametrize(
    ("request_head", "response_head"),
    [
        (command(b"GET", b"k"), b""),
        (command(b"GET", b"k"), b"$1\r\nv\r\n"),
        (b"*1\r\n$", b""),
        (b"*100\r\n$4\r\nMSE", b"+OK\r\n"),
        (b"PING\r\n", b"+PONG\r\n"),
        (b"set key value\r\n", b"+OK\r\n"),
        (b"GET /key\r\n", b"$-1\r\n"),
        (b"INFO\n", b"$3\r\nabc\r\n"),
    ],
)
def test_redis_is_recognised(request_head: bytes, response_head: bytes) -> None:
    assert PARSER.recognises(request_head, response_head)


@pytest.mark.parametrize(
    ("request_head", "response_head"),
    [
        (b"", b"+OK\r\n"),
        (b"*1\r\n", b"+OK\r\n"),
        (b"*0\r\n$1", b""),
        (b"*x\r\n$1\r\n", b""),
        (command(b"GET", b"k"), b"HTTP/1.1 400\r\n"),
        (b"PING\r\n", b""),
        (b"get key\r\n", b"END\r\n"),
        (b"QUIT\r\n", b"+OK\r\n"),
        (b"AUTH secret\r\n", b"-ERR no such\r\n"),
        (b"USER secret\r\n", b"+OK\r\n"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
)
def test_what_is_no_redis_is_not_recognised(request_head: bytes, response_head: bytes) -> None:
    assert not PARSER.recognises(request_head, response_head)


def test_an_inline_command_is_named_like_any_other() -> None:
    assert fragment(b"config get secret\r\n", b"*0\r\n").name == "CONFIG GET"
    assert fragment(b"secret value\r\n").name == "redis"
    assert fragment(b"\r\n").name == "redis"


@pytest.mark.parametrize(
    ("request_head", "pipelined"),
    [
        (b"PING\r\nPING\r\n", True),
        (b"ping\nget k", True),
        (b"PING\r\n" + command(b"GET", b"k"), True),
        (b"PING\r\n", False),
        (b"PING\r\n\r\n", False),
        (b"GET a", False),
        (command(b"SET", b"k", b"PING\r\nPING\r\n"), False),
    ],
)
def test_several_inline_commands_are_marked_and_named_by_the_first(request_head: bytes, pipelined: bool) -> None:
    found = fragment(request_head, b"$1\r\nx\r\n")
    assert dict(found.attributes).get("wirespan.exchange.pipelined", False) is pipelined
    assert found.name == fragment(request_head.splitlines()[0] + b"\r\n" if pipelined else request_head).name


def test_equal_commands_have_equal_summaries_whatever_their_arguments() -> None:
    assert PARSER.summarise(command(b"GET", b"a"), b"$1\r\nx\r\n") == PARSER.summarise(
        command(b"get", b"b"), b"$-1\r\n"
    )


def test_no_word_of_the_tables_is_longer_than_the_limit() -> None:
    words = {*COMMANDS, *ERROR_CODES, *(word for known in COMMANDS.values() for word in known.subcommands)}
    assert max(map(len, words)) <= WORD_LIMIT
