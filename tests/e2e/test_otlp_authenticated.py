"""The agent beside a real Collector that asks who sends, as Jaeger is one, and beside an SDK that says so."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import urllib3

from sink import Sink
from support import servers
from support.agent import Agent
from support.authenticating import basic
from support.certificates import replace
from support.foreign_batches import every_span
from support.jaeger_query import query_jaeger
from support.processes import free_port
from support.waiting import wait_until

HTPASSWD = f"bob:{bcrypt.hashpw(b's3cret', bcrypt.gensalt(5)).decode()}\n"
SPANS = every_span(3).SerializeToString()


def configured(receiver: Mapping[str, Any], exporter: Mapping[str, Any], **extensions: object) -> dict[str, Any]:
    return {
        "extensions": extensions,
        "receivers": {"otlp": {"protocols": receiver}},
        "exporters": exporter,
        "service": {
            "extensions": list(extensions),
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": list(exporter)}},
        },
    }


def spans_of_now() -> bytes:
    """Jaeger is asked for those of the last hour."""
    request = every_span(3)
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.start_time_unix_nano = span.end_time_unix_nano = time.time_ns()
    return request.SerializeToString()


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as listening:
        yield listening


def post(port: int, headers: Mapping[str, str], body: bytes = SPANS) -> int:
    given = {"Content-Type": "application/x-protobuf", **headers}
    return urllib3.request("POST", f"http://127.0.0.1:{port}/v1/traces", body=body, headers=given).status


@pytest.mark.requires_tool("jaeger")
@pytest.mark.parametrize("protocol", ["otlp_grpc", "otlp_http"])
def test_a_collector_that_asks_for_a_password_takes_what_the_agent_sends(protocol: str, tmp_path: Path) -> None:
    port = free_port()
    with servers.jaeger(tmp_path, htpasswd=HTPASSWD) as jaeger:
        assert post(jaeger.http_port, {}) == 401
        backend = jaeger.grpc_port if protocol == "otlp_grpc" else jaeger.http_port
        exporter = {"endpoint": f"http://127.0.0.1:{backend}", "auth": {"authenticator": "basicauth"}}
        client = {"client_auth": {"username": "bob", "password": "s3cret"}}
        receiver = {"http": {"endpoint": f"127.0.0.1:{port}"}}
        with Agent(configured(receiver, {protocol: exporter}, basicauth=client), tmp_path) as agent:
            assert post(port, {}, spans_of_now()) == 200
            wait_until("it is stored", lambda: len(query_jaeger(jaeger.query_port, "shop")) == 3)
            assert "s3cret" not in agent.log


SDK = """
import sys
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[1], headers={"authorization": sys.argv[2]})))
provider.get_tracer("test").start_span("one").end()
provider.shutdown()
"""


def test_an_sdk_with_a_token_is_served_and_passed_on_with_the_agents_own_and_both_change(
    sink: Sink, tmp_path: Path
) -> None:
    port, taken, sent = free_port(), tmp_path / "taken", tmp_path / "sent"
    taken.write_text("one\n")
    sent.write_text("first\n")
    receiver = {"http": {"endpoint": f"127.0.0.1:{port}", "auth": {"authenticator": "bearertokenauth/in"}}}
    exporter = {
        "endpoint": f"http://127.0.0.1:{sink.http_port}",
        "auth": {"authenticator": "bearertokenauth/out"},
    }
    configuration = configured(
        receiver,
        {"otlp_http": exporter},
        **{"bearertokenauth/in": {"filename": str(taken)}, "bearertokenauth/out": {"filename": str(sent)}},
    )

    def run_sdk(token: str) -> str:
        words = [sys.executable, "-c", SDK, f"http://127.0.0.1:{port}/v1/traces", f"Bearer {token}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=60).stderr

    with Agent(configuration, tmp_path) as agent:
        assert run_sdk("one") == ""
        wait_until("it arrives", lambda: sink.span_count == 1)
        assert "401" in run_sdk("two")
        replace(taken, b"two\n")
        replace(sent, b"second\n")
        wait_until("the new one is taken", lambda: run_sdk("two") == "")
        assert "401" in run_sdk("one")
        wait_until("it arrives", lambda: sink.span_count == 2)
        assert [headers["authorization"] for headers in sink.headers] == ["Bearer first", "Bearer second"]
        assert agent.log.count("Credentials were reloaded.") == 2


def test_a_user_of_an_htpasswd_file_is_served_and_nobody_else(sink: Sink, tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "htpasswd"
    file.write_text(HTPASSWD)
    receiver = {"http": {"endpoint": f"127.0.0.1:{port}", "auth": {"authenticator": "basicauth"}}}
    exporter = {"otlp_http": {"endpoint": f"http://127.0.0.1:{sink.http_port}"}}
    with Agent(configured(receiver, exporter, basicauth={"htpasswd": {"file": str(file)}}), tmp_path) as agent:
        assert [post(port, headers) for headers in ({}, basic("bob", "wrong"), basic("bob", "s3cret"))] == [
            401,
            401,
            200,
        ]
        wait_until("it arrives", lambda: sink.span_count == 3)
        assert "s3cret" not in agent.log
