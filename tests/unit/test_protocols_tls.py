"""What is read of TLS: messages as Python's ssl makes them, whole, cut anywhere, and what only looks like them."""

from __future__ import annotations

import random
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from support.certificates import certificate
from wirespan.pipeline.spans import Fragment, SpanKind
from wirespan.receiver.protocols.parser import Endpoint
from wirespan.receiver.protocols.registry import TLS_PARSER, recognise

pytestmark = pytest.mark.requires_command("openssl")

SERVER = Endpoint("192.0.2.1", 8443)
NAME = "shop.example"
#: captured of a request and of a response
REQUEST_HEAD, RESPONSE_HEAD = 256, 64


def context(version: ssl.TLSVersion, offered: list[str]) -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.minimum_version = made.maximum_version = version
    if offered:
        made.set_alpn_protocols(offered)
    return made


def flight(side: ssl.SSLObject, outgoing: ssl.MemoryBIO) -> bytes:
    with suppress(ssl.SSLWantReadError):
        side.do_handshake()
    return outgoing.read()


def hellos(
    folder: Path, version: ssl.TLSVersion, name: str | None = NAME, offered: list[str] | None = None
) -> tuple[bytes, bytes]:
    """The first flights of both sides."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(*certificate(folder, NAME))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context(version, offered or []).wrap_bio(to_client, to_server, server_hostname=name)
    request = flight(client, to_server)
    from_client, answer = ssl.MemoryBIO(), ssl.MemoryBIO()
    from_client.write(request)
    return request, flight(server_context.wrap_bio(from_client, answer, server_side=True), answer)


def fragment(request: bytes, response: bytes) -> Fragment:
    assert recognise(request, response) is TLS_PARSER
    return TLS_PARSER.fragment(TLS_PARSER.summarise(request, response), SpanKind.CLIENT, SERVER)


@pytest.mark.parametrize(("version", "named"), [(ssl.TLSVersion.TLSv1_2, "1.2"), (ssl.TLSVersion.TLSv1_3, "1.3")])
def test_a_handshake_tells_the_name_the_offer_and_the_version(
    tmp_path: Path, version: ssl.TLSVersion, named: str
) -> None:
    found = fragment(*hellos(tmp_path, version, offered=["h2", "http/1.1"]))
    assert found.name == "TLS handshake"
    assert dict(found.attributes) == {
        "network.protocol.name": "tls",
        "wirespan.exchange.delimited": False,
        "tls.client.server_name": NAME,
        "wirespan.tls.client.alpn": ("h2", "http/1.1"),
        "tls.protocol.version": named,
    }


def test_without_name_and_offer_neither_is_told(tmp_path: Path) -> None:
    found = dict(fragment(*hellos(tmp_path, ssl.TLSVersion.TLSv1_3, name=None)).attributes)
    assert not {"tls.client.server_name", "wirespan.tls.client.alpn"} & found.keys()


def test_what_is_cut_is_absent_and_never_wrong(tmp_path: Path) -> None:
    request, response = hellos(tmp_path, ssl.TLSVersion.TLSv1_3, offered=["h2"])
    whole = dict(fragment(request, response).attributes)
    for cut in range(11, len(request)):
        assert dict(fragment(request[:cut], response).attributes).items() <= whole.items()
    for cut in range(5, len(response)):
        assert dict(fragment(request, response[:cut]).attributes).items() <= whole.items()


def test_what_the_kernel_captures_of_a_hello_tells_the_name(tmp_path: Path) -> None:
    request, response = hellos(tmp_path, ssl.TLSVersion.TLSv1_3, offered=["h2"])
    found = dict(fragment(request[:REQUEST_HEAD], response[:RESPONSE_HEAD]).attributes)
    assert found["tls.client.server_name"] == NAME


def test_ciphertext_is_told_by_its_records() -> None:
    data = b"\x17\x03\x03\x01\x00"
    found = fragment(data + b"secret", data + b"secret")
    assert found.name == "TLS 8443"
    assert dict(found.attributes) == {"network.protocol.name": "tls", "wirespan.exchange.delimited": False}


@pytest.mark.parametrize(
    ("request_head", "response_head"),
    [
        (b"\x17\x03\x03\x01\x00x", b""),
        (b"\x17\x03\x03\x01\x00x", b"+OK\r\n"),
        (b"\x17\x03\x03\x50\x00x", b"\x17\x03\x03\x01\x00x"),
        (b"\x16\x03\x01\x00\x50\x02\x00\x00\x4c\x03\x03", b""),
        (b"\x17\x03\x03", b"\x17\x03\x03"),
    ],
    ids=["unanswered", "answered in the clear", "too long", "no ClientHello", "cut"],
)
def test_what_may_be_something_else_is_not_tls(request_head: bytes, response_head: bytes) -> None:
    assert recognise(request_head, response_head) is None


def test_a_name_that_is_none_is_not_shown(tmp_path: Path) -> None:
    request, response = hellos(tmp_path, ssl.TLSVersion.TLSv1_3)
    for name in (b"shop.exam\x00le", b"<script>abcd", b"shop example", b"sh\xc3\xb6p.exampl"):
        assert len(name) == len(NAME)
        changed = request.replace(NAME.encode(), name)
        assert "tls.client.server_name" not in dict(fragment(changed, response).attributes)


def test_any_bytes_behind_a_hello_are_survived(tmp_path: Path) -> None:
    request, response = hellos(tmp_path, ssl.TLSVersion.TLSv1_3, offered=["h2"])
    numbers = random.Random(1)
    for _ in range(5000):
        changed = bytearray(request)
        for _ in range(numbers.randrange(1, 6)):
            changed[numbers.randrange(11, len(changed))] = numbers.randrange(256)
        fragment(bytes(changed), response)
