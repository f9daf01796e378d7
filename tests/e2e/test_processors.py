"""``resource``, ``attributes``, ``redaction`` and ``resource_detection`` in a running agent: of what it observes, and of what an SDK
sends, by the same configuration."""

from __future__ import annotations

import http.client
import json
import platform
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from support import servers
from support.agent import Agent
from support.exchanges import accounts, of_kind
from support.processes import free_port
from support.waiting import wait_until

CARD = "4111111111111111"
PROCESSORS = """
resource_detection:
  detectors: [system]
  override: false
  system: {hostname_sources: [os], resource_attributes: {host.arch: {enabled: true}}}
resource:
  attributes:
    - {key: deployment.environment.name, value: test, action: upsert}
    - {key: process.executable.path, action: delete}
attributes:
  actions:
    - {key: client.address, action: hash}
    - {key: url.path, pattern: "^/tenants/(?P<tenant>[^/]+)/", action: extract}
    - {key: team, value: [a, b], action: insert}
redaction:
  allow_all_keys: true
  redact_all_types: true
  summary: debug
  blocked_key_patterns: ["(?i)authorization|password"]
  blocked_values: ['\\b4\\d{15}\\b', '(?i)bearer \\S+']
"""
ORDER = ["resource_detection", "resource", "attributes", "redaction"]


def configuration(receivers: dict[str, Any], signals: list[str], out: Path) -> dict[str, Any]:
    pipeline = {"receivers": list(receivers), "processors": ORDER, "exporters": ["file"]}
    return {
        "receivers": receivers,
        "processors": yaml.safe_load(PROCESSORS),
        "exporters": {"file": {"path": str(out)}},
        "service": {"pipelines": dict.fromkeys(signals, pipeline), "telemetry": {"logs": {"encoding": "json"}}},
    }


@pytest.mark.requires_bpf
@pytest.mark.requires_command("nginx")
def test_what_is_observed_is_changed_and_redacted_at_both_ends(tmp_path: Path) -> None:
    capture = {"query_strings": True, "request_headers": ["x-note", "x-team-password"]}
    headers = {"X-Note": f"card {CARD}", "X-Team-Password": "abc"}
    out = tmp_path / "spans.jsonl"
    with servers.nginx(tmp_path) as server:
        receivers = {
            "ebpf": {"select": {"ports": [server.port]}, "capture": capture, "metrics": {"interval": "1s"}},
        }
        with Agent(configuration(receivers, ["traces", "metrics"], out), tmp_path) as agent:
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            for number in range(20):
                connection.request("GET", f"/tenants/t{number}/x?card={CARD}", headers=headers)
                connection.getresponse().read()
            connection.close()
            wait_until("metrics", lambda: out.exists() and "resourceMetrics" in out.read_text())
            agent.wait_for_spans(40)
            spans = agent.stop()
    assert len(spans) == 40
    assert {span["attributes"]["tenant"] for span in of_kind(spans, "SERVER")} == {f"t{n}" for n in range(20)}
    for span in spans:
        assert span["resource"]["deployment.environment.name"] == "test"
        assert span["resource"]["host.arch"] in ("amd64", "arm64")
        assert "process.executable.path" not in span["resource"]
        attributes = span["attributes"]
        assert attributes["team"] == ("a", "b")
        assert len(attributes["client.address"]) == 64
        assert attributes["http.request.header.x-note"] == '["card ****"]'
        assert attributes["http.request.header.x-team-password"] == "****"
        masked = {key for key in attributes if key.startswith(("http.request.header", "url.query", "url.full"))}
        assert masked == set(attributes["redaction.masked.keys"].split(","))
    written = out.read_text()
    assert CARD not in written
    metrics = [json.loads(line) for line in written.splitlines() if "resourceMetrics" in line]
    for request in metrics:
        for group in request["resourceMetrics"]:
            found = {item["key"]: item["value"].get("stringValue") for item in group["resource"]["attributes"]}
            assert found["deployment.environment.name"] == "test"
    account = accounts(agent)[0]
    assert (account["exported"], account["dropped"], account["unaccounted"]) == (40, {}, 0)


def test_what_an_sdk_sends_is_changed_and_redacted_in_every_signal(tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "out.jsonl"
    receivers = {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{port}"}}}}
    with Agent(configuration(receivers, ["traces", "metrics", "logs"], out), tmp_path) as agent:
        send(f"http://127.0.0.1:{port}")
        agent.stop()
    written = out.read_text()
    assert CARD not in written
    requests = [json.loads(line) for line in written.splitlines()]
    groups = {name: groups_of(requests, name) for name in ("resourceSpans", "resourceMetrics", "resourceLogs")}
    for found in groups.values():
        resource = attributes_of(found[0]["resource"])
        assert resource["deployment.environment.name"] == "test"
        assert resource["host.name"] == "mine"
        assert resource["host.arch"] in ("amd64", "arm64", platform.machine())
    spans = [span for group in groups["resourceSpans"] for scope in group["scopeSpans"] for span in scope["spans"]]
    assert len(spans) == 200
    for span in spans:
        attributes = attributes_of(span)
        assert attributes["note"] == "paid with ****"
        assert attributes["db.password"] == "****"
        assert attributes["tenant"] == "t1"
        assert attributes_of(span["events"][0])["header"] == "****"
    metric = groups["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]
    assert attributes_of(metric["sum"]["dataPoints"][0])["card"] == "****"
    record = groups["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    assert record["body"]["stringValue"] == "paid with ****"
    (account, *_) = accounts(agent)
    assert (account["exported"], account["unaccounted"]) == (200, 0)


def send(endpoint: str) -> None:
    """Spans, a metric and a log record with a card's number."""
    resource = Resource({"service.name": "shop", "host.name": "mine"})
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True)))
    tracer = tracers.get_tracer("test")
    for _ in range(200):
        with tracer.start_as_current_span("pay") as span:
            span.set_attributes({"note": f"paid with {CARD}", "db.password": "x", "url.path": "/tenants/t1/pay"})
            span.add_event("sent", {"header": "Bearer abc"})
    tracers.shutdown()
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint, insecure=True))
    meters = MeterProvider([reader], resource, shutdown_on_exit=False)
    meters.get_meter("test").create_counter("payments").add(1, {"card": CARD})
    meters.shutdown()
    loggers = LoggerProvider(resource, shutdown_on_exit=False)
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=endpoint, insecure=True)))
    loggers.get_logger("test").emit(LogRecord(body=f"paid with {CARD}"))
    loggers.shutdown()


def groups_of(requests: list[Any], name: str) -> list[Any]:
    return [group for request in requests for group in request.get(name, ())]


def attributes_of(message: Any) -> dict[str, Any]:
    return {item["key"]: item["value"].get("stringValue", item["value"]) for item in message["attributes"]}
