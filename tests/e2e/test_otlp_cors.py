"""Browsers' questions: a Collector and this receiver, configured alike, answer alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import urllib3

from sink import Sink
from support import servers
from support.foreign_batches import every_span
from support.receiving import Receiving, receiving

pytestmark = pytest.mark.requires_tool("otelcol")

CORS = {
    "allowed_origins": ["https://shop.example", "https://*.test:8080"],
    "allowed_headers": ["Content-Type", "X-Tenant"],
    "exposed_headers": ["Retry-After"],
    "max_age": 600,
}
ASKS = {"Access-Control-Request-Method": "POST"}
CASES = [
    ("OPTIONS", {**ASKS, "Origin": "https://shop.example"}),
    ("OPTIONS", {**ASKS, "Origin": "https://shop.example", "Access-Control-Request-Headers": "content-type,x-tenant"}),
    ("OPTIONS", {**ASKS, "Origin": "https://shop.example", "Access-Control-Request-Headers": "x-other"}),
    ("OPTIONS", {**ASKS, "Origin": "https://a.test:8080"}),
    ("OPTIONS", {**ASKS, "Origin": "https://a.test"}),
    ("OPTIONS", ASKS),
    ("OPTIONS", {"Origin": "https://shop.example", "Access-Control-Request-Method": "PUT"}),
    ("POST", {"Origin": "https://shop.example"}),
    ("POST", {"Origin": "https://SHOP.example"}),
    ("POST", {"Origin": "https://other.example"}),
    ("POST", {}),
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[servers.Collector, Receiving]]:
    folder = tmp_path_factory.mktemp("collector")
    with (
        Sink(grpc_port=None) as sink,
        servers.relay(folder, "otlp_http", sink.http_port or 0, http_receiver={"cors": CORS}) as collector,
        receiving(http_settings={"cors": CORS}) as receiver,
    ):
        yield collector, receiver


@pytest.mark.parametrize(("method", "headers"), CASES)
def test_both_answer_alike(method: str, headers: Mapping[str, str], both: tuple[servers.Collector, Receiving]) -> None:
    answers = [said(one.http_port, method, headers) for one in both]
    assert answers[0] == answers[1]


def said(port: int, method: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    body = every_span(1).SerializeToString() if method == "POST" else None
    given = {"Content-Type": "application/x-protobuf", **headers} if body else headers
    response = urllib3.request(method, f"http://127.0.0.1:{port}/v1/traces", body=body, headers=given)
    told = {name.lower(): value for name, value in response.headers.items()}
    return response.status, {name: told[name] for name in told if name.startswith("access-control") or name == "vary"}
