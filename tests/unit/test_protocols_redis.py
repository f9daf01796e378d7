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


def test_an_inline_command_is_named_like_any_other() -> None:
    assert fragment(b"config get secret\r\n", b"*0\r\n").name == "CONFIG GET"
    assert fragment(b"secret value\r\n").name == "redis"
    assert fragment(b"\r\n").name == "redis"


def test_equal_commands_have_equal_summaries_whatever_their_arguments() -> None:
    assert PARSER.summarise(command(b"GET", b"a"), b"$1\r\nx\r\n") == PARSER.summarise(
        command(b"get", b"b"), b"$-1\r\n"
    )


def test_no_word_of_the_tables_is_longer_than_the_limit() -> None:
    words = {*COMMANDS, *ERROR_CODES, *(word for known in COMMANDS.values() for word in known.subcommands)}
    assert max(map(len, words)) <= WORD_LIMIT
