"""What ``capture`` adds to spans, and what stays out of them whatever it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from pydantic import ValidationError

from wirespan.pipeline.spans import SpanKind
from wirespan.receiver.ebpf import EbpfConfig
from wirespan.receiver.protocols.capturing import KEPT_LIMIT, Capture, CapturingHttp1Parser, CapturingRedisParser
from wirespan.receiver.protocols.parser import Endpoint, StreamExchange, UnansweredRequest
from wirespan.receiver.protocols.redis_text import TEXT_LIMIT, QueryText

SERVER = Endpoint("10.0.0.2", 8080)
OK = b"HTTP/1.1 200 OK\r\n\r\n"
EVERYTHING = Capture(True, ("user-agent", "accept"), ("content-type", "x-n"), QueryText.LITERALS)


def http(request: bytes, response: bytes = OK, kind: SpanKind = SpanKind.SERVER) -> dict[str, Any]:
    parser = CapturingHttp1Parser(EVERYTHING)
    fragment = parser.fragment(parser.summarise(request, response), kind, SERVER)
    assert len(dict(fragment.attributes)) == len(fragment.attributes), "an attribute twice"
    return dict(fragment.attributes)


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_a_query_is_an_attribute_of_the_server_and_part_of_the_clients_url() -> None:
    server, client = http(get("/a?b=1&c")), http(get("/a?b=1&c"), kind=SpanKind.CLIENT)
    assert (server["url.path"], server["url.query"]) == ("/a", "b=1&c")
    assert client["url.full"] == "http://10.0.0.2:8080/a?b=1&c"
    assert "url.query" not in client


@pytest.mark.parametrize(
    ("target", "query"),
    [
        ("/a", None),
        ("/a?", None),
        ("/a?b#c?d", "b"),
        ("http://me:pass@host/a?b=1", "b=1"),
        ("/a?sig=s3cr3t&b=1", "sig=REDACTED&b=1"),
        ("/a?AWSAccessKeyId=s3cr3t&Signature=s3cr3t", "AWSAccessKeyId=REDACTED&Signature=REDACTED"),
        ("/a?X-Goog-Signature=s3cr3t&access_token=s3cr3t", "X-Goog-Signature=REDACTED&access_token=REDACTED"),
        ("/a?%70assword=s3cr3t&api-key=s3cr3t", "%70assword=REDACTED&api-key=REDACTED"),
        ("/a?token", "token"),
        ("/a?monkey=1&signal=2", "monkey=1&signal=2"),
        ("/a?\x01=ü", "\ufffd=ü"),
    ],
)
def test_credentials_stay_out_of_a_query(target: str, query: str | None) -> None:
    assert http(get(target)).get("url.query") == query
    client = http(get(target), kind=SpanKind.CLIENT)["url.full"]
    assert client == "http://10.0.0.2:8080/a" + (f"?{query}" if query else "")


def test_of_a_query_that_is_cut_the_whole_parameters_are_given() -> None:
    found = http(b"GET /a?b=1&c=2&secre")
    assert (found["url.query"], found["wirespan.url.truncated"]) == ("b=1&c=2", True)
    found = http(b"GET /a?tok")
    assert "url.query" not in found
    assert found["wirespan.url.truncated"]


def test_headers_are_lists_of_values_under_names_in_lower_case() -> None:
    request = b"GET / HTTP/1.1\r\nUser-Agent:  curl/8 \r\nACCEPT: a\r\nAccept: b\r\nX-Other: no\r\n\r\naccept: body\r\n"
    response = b"HTTP/1.1 100 Continue\r\nX-N: 0\r\n\r\nHTTP/1.1 200 OK\r\nX-N: 1\r\nContent-Type: te"
    found = http(request, response)
    assert found["http.request.header.user-agent"] == ("curl/8",)
    assert found["http.request.header.accept"] == ("a", "b")
    assert found["http.response.header.x-n"] == ("1",)
    assert not {"http.response.header.content-type", "http.request.header.x-other"} & found.keys()


def test_a_header_that_was_cut_is_left_out() -> None:
    assert "http.request.header.accept" not in http(b"GET / HTTP/1.1\r\nAccept: text/ht")
    assert "http.request.header.accept" not in http(b"GET / HTTP/1.1\r\nAccept: text/ht\r")
    assert http(b"GET / HTTP/1.1\r\nAccept: text/ht\r\n")["http.request.header.accept"] == ("text/ht",)


def redis(mode: QueryText, request: bytes) -> str | None:
    parser = CapturingRedisParser(Capture(query_text=mode))
    fragment = parser.fragment(parser.summarise(request, b"+OK\r\n"), SpanKind.CLIENT, SERVER)
    text = dict(fragment.attributes).get("db.query.text")
    assert text is None or isinstance(text, str)
    return text


def command(*words: str | bytes) -> bytes:
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


@pytest.mark.parametrize(
    ("words", "keys", "literals"),
    [
        (("set", "user:1", "hello world"), "SET user:1 ?", 'SET user:1 "hello world"'),
        (("MSET", "a", "1", "b", "2"), "MSET a ? b ?", "MSET a 1 b 2"),
        (("DEL", "a", "b", "c"), "DEL a b c", "DEL a b c"),
        (("RENAME", "a", "b"), "RENAME a b", "RENAME a b"),
        (("PING",), "PING", "PING"),
        (("PUBLISH", "news", "text"), "PUBLISH ? ?", "PUBLISH news text"),
        (("client", "setname", "me"), "CLIENT SETNAME ?", "CLIENT SETNAME me"),
        (("GET", ""), 'GET ""', 'GET ""'),
        (("GET", 'a"b\n'), 'GET "a\\"b\\n"', 'GET "a\\"b\\n"'),
        (("GET", b"\xff\x00A"), 'GET "\\xff\\x00A"', 'GET "\\xff\\x00A"'),
        (("GET", "schlüssel"), "GET schlüssel", "GET schlüssel"),
        (("AUTH", "me", "s3cr3t"), "AUTH ? ?", "AUTH ? ?"),
        (("HELLO", "3", "AUTH", "me", "s3cr3t"), "HELLO ? ? ? ?", "HELLO ? ? ? ?"),
        (("CONFIG", "SET", "requirepass", "s3cr3t"), "CONFIG SET ? ?", "CONFIG SET ? ?"),
        (("ACL", "SETUSER", "me", ">s3cr3t"), "ACL SETUSER ? ?", "ACL SETUSER ? ?"),
        (("MIGRATE", "host", "1", "k", "0", "1", "AUTH", "s3cr3t"), "MIGRATE ? ? ? ? ? ? ?", "MIGRATE ? ? ? ? ? ? ?"),
        (("NOSUCH", "s3cr3t"), None, None),
    ],
)
def test_the_text_of_a_command(words: tuple[str | bytes, ...], keys: str | None, literals: str | None) -> None:
    request = command(*words)
    assert redis(QueryText.KEYS, request) == keys
    assert redis(QueryText.LITERALS, request) == literals
    assert redis(QueryText.NONE, request) is None


def test_the_text_of_an_inline_command() -> None:
    assert redis(QueryText.KEYS, b"set  user:1 x\r\n") == "SET user:1 ?"


@pytest.mark.parametrize("size", range(len(command("SET", "user:12", "value"))))
def test_a_command_that_was_cut_shows_whole_words_only(size: int) -> None:
    text = redis(QueryText.LITERALS, command("SET", "user:12", "value")[:size])
    assert text in (None, "SET …", "SET user:12 …", "SET user:12 value")


def test_a_text_is_bounded() -> None:
    text = redis(QueryText.LITERALS, command("GET", b"\xff" * 1000))
    assert text is not None
    assert len(text) == TEXT_LIMIT
    assert text.endswith("…")


PIPELINE = command("SET", "user:1", "a") + command("GET", "user:2") + command("AUTH", "s3cr3t") + b"get user:3\r\n"
REPLIES = b"+OK\r\n$1\r\na\r\n-ERR\r\n$-1\r\n"
TEXTS = ["SET user:1 a", "GET user:2", "AUTH ?", "GET user:3"]


def texts(found: Sequence[StreamExchange | UnansweredRequest]) -> list[str | None]:
    parser = CapturingRedisParser(Capture(query_text=QueryText.LITERALS))
    fragments = [parser.fragment(one.summary, SpanKind.CLIENT, SERVER) for one in found]
    return [cast("str | None", dict(fragment.attributes).get("db.query.text")) for fragment in fragments]


@pytest.mark.parametrize("cut", range(len(PIPELINE)))
def test_pipelined_commands_have_their_texts_wherever_the_bytes_are_cut(cut: int) -> None:
    connection = CapturingRedisParser(Capture(query_text=QueryText.LITERALS)).connection()
    found = []
    for turn in range(3):  # what was answered is forgotten
        begin = turn * len(PIPELINE)
        if cut:
            found += connection.feed_request(begin, PIPELINE[:cut], cut)
        found += connection.feed_request(begin + cut, PIPELINE[cut:], len(PIPELINE) - cut)
        found += connection.feed_response(turn * len(REPLIES), REPLIES, len(REPLIES))
    assert texts(found) == TEXTS * 3


def test_a_command_without_an_answer_has_its_text_too() -> None:
    connection = CapturingRedisParser(Capture(query_text=QueryText.KEYS)).connection()
    connection.feed_request(0, command("BLPOP", "queue", "0"), 33)
    connection.finish()
    assert texts(connection.unanswered()) == ["BLPOP ? ?"]


def test_what_is_kept_of_unanswered_commands_is_bounded() -> None:
    connection = CapturingRedisParser(Capture(query_text=QueryText.LITERALS)).connection()
    one = command("GET", "k" * 100)
    many = one * (KEPT_LIMIT // len(one) // 4)
    for number in range(8):
        connection.feed_request(number * len(many), many, len(many))
    count = 8 * many.count(b"GET")
    found = connection.feed_response(0, b"$-1\r\n" * count, 5 * count)
    known = [text for text in texts(found) if text]
    assert len(found) == count
    assert 0 < len(known) * len(one) <= KEPT_LIMIT
    assert set(known) == {"GET " + "k" * 100}


@pytest.mark.parametrize("name", ["Authorization", "cookie", "SET-COOKIE", "proxy-authorization"])
@pytest.mark.parametrize("side", ["request_headers", "response_headers"])
def test_credentials_cannot_be_asked_for(side: str, name: str) -> None:
    with pytest.raises(ValidationError, match=f'"{name}" is a credential, which is never captured'):
        EbpfConfig.model_validate({"capture": {side: [name]}})


@pytest.mark.parametrize("name", ["", "a b", "a:", "ü"])
def test_what_is_no_name_of_a_header_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="is no name of a header"):
        EbpfConfig.model_validate({"capture": {"request_headers": [name]}})


def test_capture_without_payload_is_refused() -> None:
    with pytest.raises(ValidationError, match="capture needs payload: heads"):
        EbpfConfig.model_validate({"payload": "none", "capture": {"query_strings": True}})
