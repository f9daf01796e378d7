"""HTTP/1.x in turn mode: what the first bytes of one exchange give."""

from __future__ import annotations

import pytest

from wirespan.pipeline.spans import Fragment, SpanKind, StatusCode
from wirespan.receiver.protocols.http1 import Http1Parser
from wirespan.receiver.protocols.parser import Endpoint

PARSER = Http1Parser()
SERVER = Endpoint("10.0.0.1", 8080)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
GET = b"GET /path?token=secret HTTP/1.1\r\nHost: secret.example\r\n\r\n"


def fragment(
    request: bytes, response: bytes = OK, kind: SpanKind = SpanKind.SERVER, server: Endpoint = SERVER
) -> Fragment:
    return PARSER.fragment(PARSER.summarise(request, response), kind, server)


def attributes(request: bytes, response: bytes = OK, kind: SpanKind = SpanKind.SERVER) -> dict[str, object]:
    return dict(fragment(request, response, kind).attributes)


def target(path: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path


def test_a_server_span_has_method_path_scheme_and_status() -> None:
    assert fragment(GET) == Fragment(
        "GET",
        (
            ("network.protocol.name", "http"),
            ("network.protocol.version", "1.1"),
            ("http.request.method", "GET"),
            ("url.path", "/path"),
            ("url.scheme", "http"),
            ("http.response.status_code", 200),
        ),
    )


def test_a_client_span_has_the_url_of_the_socket_not_of_the_host_header() -> None:
    found = attributes(GET, kind=SpanKind.CLIENT)
    assert found["url.full"] == "http://10.0.0.1:8080/path"
    assert "url.path" not in found


def test_an_ipv6_address_is_in_brackets_in_the_url() -> None:
    found = dict(fragment(GET, OK, SpanKind.CLIENT, Endpoint("2001:db8::1", 80)).attributes)
    assert found["url.full"] == "http://[2001:db8::1]:80/path"


@pytest.mark.parametrize(
    ("status", "kind", "is_error"),
    [
        (200, SpanKind.CLIENT, False),
        (302, SpanKind.CLIENT, False),
        (404, SpanKind.CLIENT, True),
        (404, SpanKind.SERVER, False),
        (503, SpanKind.CLIENT, True),
        (503, SpanKind.SERVER, True),
    ],
)
def test_4xx_is_an_error_of_the_client_span_and_5xx_of_both(status: int, kind: SpanKind, is_error: bool) -> None:
    found = fragment(GET, b"HTTP/1.1 %d X\r\n\r\n" % status, kind)
    assert found.status == (StatusCode.ERROR if is_error else StatusCode.UNSET)
    assert dict(found.attributes).get("error.type") == (str(status) if is_error else None)


def test_an_unregistered_method_is_not_emitted() -> None:
    found = fragment(b"SECRET /p HTTP/1.1\r\n\r\n")
    assert found.name == "HTTP"
    assert dict(found.attributes)["http.request.method"] == "_OTHER"
    assert "SECRET" not in repr(found)


def test_a_method_is_case_sensitive() -> None:
    assert attributes(b"get /p HTTP/1.1\r\n\r\n")["http.request.method"] == "_OTHER"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_version_is_the_requests(version: str) -> None:
    request = b"GET / HTTP/%b\r\n\r\n" % version.encode()
    assert attributes(request, b"HTTP/1.1 200 OK\r\n\r\n")["network.protocol.version"] == version


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"/a/b?x=1?y=2", "/a/b"),
        (b"/a#frag", "/a"),
        (b"/a;jsessionid=secret/b;v=1?x", "/a/b"),
        (b"/%2e%2E/caf%C3%A9%0A", "/%2e%2E/caf%C3%A9%0A"),
        ("/café".encode(), "/café"),
        (b"/\xff\xfe/x", "/\ufffd\ufffd/x"),
        (b"/a\x00\x1b[31m\x7f\tb", "/a\ufffd\ufffd[31m\ufffd\ufffdb"),
        ("/a\u202eb\u0085c".encode(), "/a\ufffdb\ufffdc"),
        (b"http://user:secret@example.com:81/p?q", "/p"),
        (b"HTTPS://example.com?q=/x", "/"),
        (b"http://user:secret@example.com", "/"),
        (b"//host/p", "//host/p"),
    ],
)
def test_of_a_target_only_the_path_is_emitted(raw: bytes, path: str) -> None:
    assert attributes(target(raw))["url.path"] == path
    assert attributes(target(raw), kind=SpanKind.CLIENT)["url.full"] == f"http://10.0.0.1:8080{path}"


@pytest.mark.parametrize("request_line", [b"CONNECT host:443", b"OPTIONS *", b"GET user:secret@host"])
def test_a_target_without_a_path_gives_none(request_line: bytes) -> None:
    assert "url.path" not in attributes(request_line + b" HTTP/1.1\r\n\r\n")


def test_the_url_of_an_asterisk_is_the_server() -> None:
    assert attributes(b"OPTIONS * HTTP/1.1\r\n\r\n", kind=SpanKind.CLIENT)["url.full"] == "http://10.0.0.1:8080"


def test_connect_has_no_url() -> None:
    assert "url.full" not in attributes(b"CONNECT secret:443 HTTP/1.1\r\n\r\n", kind=SpanKind.CLIENT)


@pytest.mark.parametrize(
    ("head", "path", "cut"),
    [
        (b"GET /api/users/12", "/api/users/", True),
        (b"GET /api", "/", True),
        (b"GET /api/users?to", "/api/users", None),
        (b"GET http://user:sec", "/", True),
        (b"GET http://user:secret@host/a/b", "/a/", True),
        (b"GET /api/users ", "/api/users", None),
        (b"GET /api/users HTTP/1", "/api/users", None),
    ],
)
def test_a_path_that_is_cut_is_emitted_up_to_its_last_whole_segment(head: bytes, path: str, cut: bool | None) -> None:
    assert PARSER.recognises(head, b"")
    found = attributes(head, b"")
    assert (found["url.path"], found.get("wirespan.url.truncated")) == (path, cut)
    assert "http.response.status_code" not in found


@pytest.mark.parametrize("length", range(len(GET)))
def test_a_head_that_is_cut_anywhere_gives_no_wrong_value(length: int) -> None:
    found = fragment(GET[:length])
    whole = dict(fragment(GET).attributes)
    given = dict(found.attributes)
    cut = given.pop("wirespan.url.truncated", False)
    if cut:
        assert whole["url.path"].startswith(given.pop("url.path"))
    assert given.items() <= whole.items()
    assert found.name in {"GET", "HTTP"}


@pytest.mark.parametrize("length", range(len(OK)))
def test_a_response_that_is_cut_gives_its_status_or_none(length: int) -> None:
    status = attributes(GET, OK[:length]).get("http.response.status_code")
    assert status == (200 if length >= 12 else None)


def test_an_interim_response_is_not_the_answer() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert "http.response.status_code" not in attributes(GET, interim)
    assert attributes(GET, interim + OK)["http.response.status_code"] == 200


def test_switching_protocols_is_an_answer() -> None:
    assert attributes(GET, b"HTTP/1.1 101 Switching Protocols\r\n\r\n")["http.response.status_code"] == 101


def test_a_response_without_its_request_still_gives_the_status() -> None:
    assert PARSER.recognises(b"", OK)
    found = fragment(b"", OK)
    assert found.name == "HTTP"
    assert dict(found.attributes) == {
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "url.scheme": "http",
        "http.response.status_code": 200,
    }


def test_equal_exchanges_have_equal_summaries_whatever_their_query_and_headers() -> None:
    other = b"GET /path?token=other HTTP/1.1\r\nHost: elsewhere\r\nCookie: a=b\r\n\r\n"
    assert PARSER.summarise(GET, OK) == PARSER.summarise(other, b"HTTP/1.1 200 Fine\r\nServer: x\r\n\r\n")
