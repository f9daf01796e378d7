"""The clear part of TLS: what a handshake says, however its heads are cut, and that nothing is concluded from a cut."""

from __future__ import annotations

from typing import Any

import pytest

from support.tls import NAME, client_hello, extension, fatal_alert, hello, server_hello, vector
from wirespan.pipeline.spans import SpanKind, StatusCode
from wirespan.receiver.protocols.parser import Endpoint
from wirespan.receiver.protocols.registry import HTTP2_PARSER, TLS_PARSER, recognise

SERVER = Endpoint("10.0.0.1", 443)


def said(request: bytes, response: bytes = b"") -> dict[str, Any]:
    summary = TLS_PARSER.summarise(request, response)
    fragment = TLS_PARSER.fragment(summary, SpanKind.CLIENT, SERVER)
    return {"name": fragment.name, "status": fragment.status, **dict(fragment.attributes)}


def test_a_handshake_tells_name_protocols_and_version() -> None:
    assert said(client_hello(protocols=[b"h2", b"http/1.1"]), server_hello()) == {
        "name": "TLS handshake",
        "status": StatusCode.UNSET,
        "network.protocol.name": "tls",
        "wirespan.exchange.delimited": False,
        "tls.protocol.name": "tls",
        "tls.protocol.version": "1.3",
        "tls.client.server_name": NAME,
        "wirespan.tls.client.alpn": ("h2", "http/1.1"),
    }


def test_what_follows_a_handshake_is_told_by_its_port() -> None:
    assert said(b"", b"") == {
        "name": "TLS 443",
        "status": StatusCode.UNSET,
        "network.protocol.name": "tls",
        "wirespan.exchange.delimited": False,
    }


@pytest.mark.parametrize(
    ("response", "version"),
    [
        (server_hello(b"\3\1", b"\0\x2f"), "1.0"),
        (server_hello(b"\3\2", b"\0\x2f"), "1.1"),
        (server_hello(b"\3\3", b"\xc0\x2f"), "1.2"),
        (server_hello(b"\3\3", b"\xc0\x2f", b""), "1.2"),
        (server_hello(b"\3\3", b"\x13\x03"), "1.3"),
        (server_hello()[:78], "1.3"),
        (server_hello()[:77], None),  # the cipher suite was cut: it may be 1.2
        (server_hello(b"\3\1")[:20], "1.0"),
        (server_hello(b"\3\7"), None),
        (b"", None),
        (b"HTTP/1.1 400 Bad Request\r\n", None),
    ],
)
def test_the_version_is_the_one_that_the_answer_tells(response: bytes, version: str | None) -> None:
    assert said(client_hello(), response).get("tls.protocol.version") == version


def test_the_agreed_protocol_is_told_where_it_is_clear() -> None:
    agreed = said(client_hello(protocols=[b"h2"]), server_hello(b"\3\3", b"\xc0\x2f", b"", b"h2"))
    assert agreed["tls.next_protocol"] == "h2"
    cut = server_hello(b"\3\3", b"\xc0\x2f", b"", b"h2")[:-1]
    assert "tls.next_protocol" not in said(client_hello(protocols=[b"h2"]), cut)


@pytest.mark.parametrize(("number", "error"), [(40, "handshake_failure"), (112, "unrecognized_name"), (200, "_OTHER")])
def test_an_alert_that_refuses_is_the_error(number: int, error: str) -> None:
    found = said(client_hello(), fatal_alert(number))
    assert (found["status"], found["error.type"]) == (StatusCode.ERROR, error)


def test_a_warning_is_no_error() -> None:
    assert said(client_hello(), b"\x15\x03\x03\0\2\1\x70")["status"] is StatusCode.UNSET


@pytest.mark.parametrize(
    "name", [b"", b"a b", b"a\nb", "ä".encode(), b"a..b", b"x" * 64, b".".join([b"x" * 63] * 4), b"10.0.0.1/x"]
)
def test_what_no_host_can_be_named_is_not_emitted(name: bytes) -> None:
    assert "tls.client.server_name" not in said(client_hello(name))


def test_a_name_is_emitted_in_lower_case() -> None:
    assert said(client_hello(b"Shop.Example"))["tls.client.server_name"] == "shop.example"


def test_protocols_that_are_not_registered_are_not_emitted() -> None:
    assert said(client_hello(protocols=[b"\x0a\x0a", b"secret", b"h2"]))["wirespan.tls.client.alpn"] == ("h2",)


def test_at_every_cut_what_is_said_is_true_or_absent() -> None:
    request = client_hello(protocols=[b"h2", b"http/1.1"], behind=[extension(51, bytes(300))])
    whole = said(request)
    assert "wirespan.tls.truncated" not in whole
    for end in range(11, len(request)):
        cut = said(request[:end])
        complete = cut.keys() >= {"tls.client.server_name", "wirespan.tls.client.alpn"}
        assert cut.pop("wirespan.tls.truncated", False) is not complete
        assert cut.items() <= whole.items()
    for end in range(11):
        assert said(request[:end])["name"] == "TLS 443"


def test_extensions_may_come_in_any_order_and_number() -> None:
    others = [extension(number, b"x" * number) for number in range(20, 60)]
    found = said(client_hello(protocols=[b"h2"], before=others, behind=others))
    assert (found["tls.client.server_name"], found["wirespan.tls.client.alpn"]) == (NAME, ("h2",))


def test_a_hello_without_extensions_is_whole() -> None:
    request = hello(1, b"\3\1", b"", vector(b"\0\x2f", 2) + vector(b"\0", 1))
    assert "wirespan.tls.truncated" not in said(request)


def test_a_hello_behind_another_message_is_found() -> None:
    assert said(b"\x20\0\0\1" + bytes(32) + client_hello())["tls.client.server_name"] == NAME


def test_http2_is_named_by_its_version() -> None:
    fragment = HTTP2_PARSER.fragment(HTTP2_PARSER.summarise(b"", b""), SpanKind.SERVER, SERVER)
    assert (fragment.name, dict(fragment.attributes)) == (
        "HTTP",
        {"network.protocol.name": "http", "network.protocol.version": "2", "wirespan.exchange.delimited": False},
    )


@pytest.mark.parametrize(
    ("request_bytes", "response", "known"),
    [
        (client_hello(), server_hello(), True),
        (client_hello(), b"", True),
        (client_hello(), b"HTTP/1.1 400 Bad Request\r\n", False),
        (b"\x17\3\3\0\5hello", b"\x17\3\3\0\5world", True),
        (b"\x14\3\3\0\1\1", b"\x17\3\3\0\5world", True),
        (b"\x17\3\3\0\5hello", b"", False),
        (b"\x17\3\3\0\5hello", b"world", False),
        (b"\x17\3\3\xff\xffhello", b"\x17\3\3\0\5world", False),
        (b"\x18\3\3\0\5hello", b"\x17\3\3\0\5world", False),
        (b"\x17\3\3\0", b"\x17\3\3\0\5world", False),
    ],
)
def test_a_connection_older_than_the_agent_is_known_by_the_records_at_both_sides(
    request_bytes: bytes, response: bytes, known: bool
) -> None:
    assert (recognise(request_bytes, response) is TLS_PARSER) is known


def test_a_preface_is_not_recognised_by_itself() -> None:
    """The kernel knows that it was one."""
    assert recognise(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"") is not HTTP2_PARSER
