"""Pages of browsers that send OTLP: what they are told, and what is not for them to know."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from support.foreign_batches import every_span
from support.receiving import Receiving, receiving
from wirespan.pipeline.component import Outcome
from wirespan.receiver.otlp.cors import CorsSettings

SPANS = every_span(3).SerializeToString()
PAGE = "https://shop.example"
CORS: dict[str, Any] = {
    "allowed_origins": [PAGE, "http://*.shop.example:8080", "https://EVERY*"],
    "allowed_headers": ["X-Tenant"],
    "exposed_headers": ["Retry-After", "Server"],
    "max_age": 7200,
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiving]:
    with receiving(http_settings={"cors": CORS}) as started:
        yield started


def asked(receiver: Receiving, origin: str, method: str = "POST", headers: str = "content-type") -> dict[str, str]:
    """What a browser that asks first is told."""
    given = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    response = receiver.post("/v1/traces", b"", given, "OPTIONS")
    assert (response.status, response.body) == (204, b"")
    assert "content-length" not in response.headers
    assert "content-type" not in response.headers
    assert response.headers["vary"] == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    return {name: value for name, value in response.headers.items() if name.startswith("access-control")}


def test_a_browser_that_asks_is_told_what_its_page_may_send(receiver: Receiving) -> None:
    assert asked(receiver, PAGE, headers="content-type, X-Tenant") == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "content-type, X-Tenant",
        "access-control-allow-credentials": "true",
        "access-control-max-age": "7200",
    }


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://SHOP.example", True),
        ("http://a.b.shop.example:8080", True),
        ("http://.shop.example:8080", True),
        ("https://every.one", True),
        ("http://shop.example", False),
        ("https://shop.example.evil", False),
        ("http://shop.example:8080", False),
        ("http://a.shop.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_only_pages_of_the_origins_that_are_listed_may(origin: str, allowed: bool, receiver: Receiving) -> None:
    assert (asked(receiver, origin).get("access-control-allow-origin") == origin) is allowed
    response = receiver.post("/v1/traces", SPANS, {"Origin": origin})
    assert response.status == 200
    assert (response.headers.get("access-control-allow-origin") == origin) is allowed
    assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize(("method", "headers"), [("DELETE", "content-type"), ("POST", "content-type,x-other")])
def test_a_page_that_wants_more_may_not(method: str, headers: str, receiver: Receiving) -> None:
    assert asked(receiver, PAGE, method, headers) == {}


def test_a_page_may_read_what_it_is_answered_also_when_that_is_a_refusal(receiver: Receiving) -> None:
    receiver.taking.outcome = Outcome.BUSY
    try:
        for path, status in (("/v1/traces", 503), ("/v1/other", 404)):
            response = receiver.post(path, SPANS, {"Origin": PAGE})
            assert response.status == status
            assert response.headers["access-control-allow-origin"] == PAGE
            assert response.headers["access-control-allow-credentials"] == "true"
            assert response.headers["access-control-expose-headers"] == "Retry-After, Server"
    finally:
        receiver.taking.outcome = Outcome.TAKEN


def test_question_and_request_may_share_a_connection(receiver: Receiving) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.http_port, timeout=5)
    connection.connect()
    socket = connection.sock
    question = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    for method, body, headers, status in (
        ("OPTIONS", b"", question, 204),
        ("POST", SPANS, {"Origin": PAGE, "Content-Type": "application/x-protobuf"}, 200),
        ("POST", SPANS, {"Content-Type": "application/x-protobuf"}, 200),
    ):
        connection.request(method, "/v1/traces", body, headers)
        response = connection.getresponse()
        assert (response.status, response.read()) == (status, b"")
        assert (response.headers["access-control-allow-origin"] == PAGE) is ("Origin" in headers)
        assert connection.sock is socket
    connection.close()


def test_any_origin_and_any_header_can_be_allowed() -> None:
    with receiving(
        http_settings={"cors": {"allowed_origins": ["*"], "allowed_headers": ["*"], "max_age": -1}}
    ) as receiver:
        told = asked(receiver, "https://any.where", headers="x-any")
        assert told["access-control-allow-origin"] == "*"
        assert told["access-control-allow-headers"] == "x-any"
        assert told["access-control-max-age"] == "0"


@pytest.mark.parametrize("settings", [{}, {"cors": None}, {"cors": {}}], ids=str)
def test_without_origins_browsers_are_told_nothing(settings: dict[str, Any]) -> None:
    with receiving(http_settings=settings) as receiver:
        question = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        response = receiver.post("/v1/traces", b"", question, "OPTIONS")
        assert response.status == 405
        assert not any(name.startswith("access-control") or name == "vary" for name in response.headers)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"allowed_headers": ["a"]}, "mean nothing without allowed_origins"),
        ({"allowed_origins": ["https://*.a.*"]}, "has more than one *"),
        ({"allowed_origins": ["*"], "max_age": -2}, "greater than or equal to -1"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("*", "[*]")):
        CorsSettings.model_validate(given)
