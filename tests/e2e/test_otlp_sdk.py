"""The OpenTelemetry SDKs of Python and of Go as clients: what they send passes with all that they said."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
import urllib3
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from support.agent import Agent
from support.availability import need_tool
from support.exchanges import accounts
from support.foreign_batches import every_span
from support.processes import free_port
from support.receiving import METHOD_OF

SPANS = 2_000
RESOURCE = Resource({"service.name": "shop"})


@pytest.fixture(params=["grpc", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def endpoint(transport: str, tmp_path: Path) -> Iterator[str]:
    """Of an agent that writes all it gets to ``tmp_path/out.jsonl``, and has stopped after the test's SDK has."""
    port = free_port()
    pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
    configuration: dict[str, Any] = {
        "receivers": {"otlp": {"protocols": {transport: {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {"file": {"path": str(tmp_path / "out.jsonl")}},
        "service": {"pipelines": dict.fromkeys(("traces", "metrics", "logs"), pipeline)},
    }
    with Agent(configuration, tmp_path):
        yield f"http://127.0.0.1:{port}"


def exporter(transport: str, signal: str, name: str, endpoint: str) -> Any:
    module = import_module(f"opentelemetry.exporter.otlp.proto.{transport}.{signal}_exporter")
    if transport == "grpc":
        return getattr(module, name)(endpoint=endpoint, insecure=True, compression=grpc.Compression.Gzip)
    path = {"trace": "traces", "metric": "metrics", "_log": "logs"}[signal]
    gzip = import_module("opentelemetry.exporter.otlp.proto.http").Compression.Gzip
    return getattr(module, name)(endpoint=f"{endpoint}/v1/{path}", compression=gzip)


def written(folder: Path, resources: str, scopes: str, items: str) -> list[dict[str, Any]]:
    requests = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return [
        item
        for request in requests
        for resource in request.get(resources, ())
        for scope in resource[scopes]
        for item in scope[items]
    ]


def test_spans_of_the_sdk_pass(transport: str, endpoint: str, tmp_path: Path) -> None:
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(exporter(transport, "trace", "OTLPSpanExporter", endpoint), max_queue_size=10_000)
    )
    tracer, contexts = provider.get_tracer("test", "1"), []
    for number in range(SPANS):
        links = [Link(contexts[-1], {"why": "before"})] if contexts else []
        with tracer.start_as_current_span(f"span {number}", kind=SpanKind.PRODUCER, links=links) as span:
            span.set_attributes({"number": number, "text": "täglich", "many": ["a", "b"]})
            span.add_event("happened", {"x": 1.5})
            span.set_status(Status(StatusCode.ERROR, "it failed"))
            contexts.append(span.get_span_context())
    provider.shutdown()
    spans = written(tmp_path, "resourceSpans", "scopeSpans", "spans")
    ids = [(span["traceId"], span["spanId"], span["name"]) for span in spans]
    assert sorted(ids) == sorted(
        (f"{context.trace_id:032x}", f"{context.span_id:016x}", f"span {number}")
        for number, context in enumerate(contexts)
    )
    one = next(span for span in spans if span["name"] == "span 7")
    assert (one["kind"], one["status"]) == (4, {"code": 2, "message": "it failed"})
    assert one["attributes"][0] == {"key": "number", "value": {"intValue": "7"}}
    assert one["links"][0]["spanId"] == f"{contexts[6].span_id:016x}"
    assert one["events"][0]["name"] == "happened"


def test_metrics_of_the_sdk_pass(transport: str, endpoint: str, tmp_path: Path) -> None:
    reader = PeriodicExportingMetricReader(exporter(transport, "metric", "OTLPMetricExporter", endpoint))
    provider = MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    meter = provider.get_meter("test")
    meter.create_counter("orders", "{order}").add(5, {"kind": "book"})
    meter.create_histogram("latency", "s").record(0.25)
    provider.shutdown()
    metrics = {metric["name"]: metric for metric in written(tmp_path, "resourceMetrics", "scopeMetrics", "metrics")}
    assert metrics["orders"]["sum"]["dataPoints"][0]["asInt"] == "5"
    assert metrics["latency"]["histogram"]["dataPoints"][0]["sum"] == 0.25


def test_logs_of_the_sdk_pass(transport: str, endpoint: str, tmp_path: Path) -> None:
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter(transport, "_log", "OTLPLogExporter", endpoint)))
    logger = provider.get_logger("test")
    for number in range(100):
        logger.emit(LogRecord(body=f"order {number} failed", severity_number=SeverityNumber.ERROR))
    provider.shutdown()
    records = written(tmp_path, "resourceLogs", "scopeLogs", "logRecords")
    assert [record["body"]["stringValue"] for record in records] == [f"order {n} failed" for n in range(100)]
    assert {record["severityNumber"] for record in records} == {17}


def value_of(item: dict[str, Any], key: str) -> Any:
    return next(pair["value"] for pair in item["attributes"] if pair["key"] == key)


@pytest.mark.requires_tool("otel_go")
def test_spans_metrics_and_logs_of_the_sdk_for_go_pass(transport: str, endpoint: str, tmp_path: Path) -> None:
    command = [need_tool("otel_go"), transport, endpoint.removeprefix("http://")]
    made = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()

    spans = written(tmp_path, "resourceSpans", "scopeSpans", "spans")
    ids = [(f"{span['traceId']} {span['spanId']}", span["name"]) for span in spans]
    assert sorted(ids) == sorted((both, f"span {number}") for number, both in enumerate(made))
    one = next(span for span in spans if span["name"] == "span 7")
    assert (one["kind"], one["status"]) == (4, {"code": 2, "message": "it failed"})
    assert value_of(one, "number") == {"intValue": "7"}
    assert value_of(one, "text") == {"stringValue": "täglich"}
    assert value_of(one, "many") == {"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}}
    (link,), (event,) = one["links"], one["events"]
    assert (f"{link['traceId']} {link['spanId']}", value_of(link, "why")) == (made[6], {"stringValue": "before"})
    assert (event["name"], value_of(event, "x")) == ("happened", {"doubleValue": 1.5})

    metrics = {metric["name"]: metric for metric in written(tmp_path, "resourceMetrics", "scopeMetrics", "metrics")}
    (orders,) = metrics["orders"]["sum"]["dataPoints"]
    (latency,) = metrics["latency"]["exponentialHistogram"]["dataPoints"]
    (stock,) = metrics["stock"]["gauge"]["dataPoints"]
    assert (orders["asInt"], value_of(orders, "kind")) == ("5", {"stringValue": "book"})
    assert (latency["count"], latency["sum"], latency["zeroCount"]) == ("3", 0.75, "1")
    assert sum(map(int, latency["positive"]["bucketCounts"])) == 2
    exemplar = latency["exemplars"][0]
    assert f"{exemplar['traceId']} {exemplar['spanId']}" == made[-1]
    assert stock["asInt"] == "-3"

    records = written(tmp_path, "resourceLogs", "scopeLogs", "logRecords")
    bodies = [{pair["key"]: pair["value"] for pair in record["body"]["kvlistValue"]["values"]} for record in records]
    assert [body["order"] for body in bodies] == [{"intValue": str(number)} for number in range(100)]
    assert {(record["severityNumber"], record["eventName"]) for record in records} == {(17, "checkout")}
    assert value_of(records[0], "key") == {"bytesValue": "AP8="}


@pytest.mark.parametrize("processors", [[], ["batch"]], ids=["at once", "batched"])
def test_an_agent_whose_senders_wait_for_room_stops_in_time_and_accounts_for_all(
    processors: list[str], transport: str, tmp_path: Path
) -> None:
    port = free_port()
    exporter = {
        "endpoint": f"http://127.0.0.1:{free_port()}",
        "sending_queue": {"queue_size": 1, "block_on_overflow": True},
    }
    configuration: dict[str, Any] = {
        "receivers": {"otlp": {"protocols": {transport: {"endpoint": f"127.0.0.1:{port}"}}}},
        "processors": {"batch": {"timeout": "10ms"}},
        "exporters": {"otlp_http": exporter},
        "service": {
            "pipelines": {"traces": {"receivers": ["otlp"], "processors": processors, "exporters": ["otlp_http"]}},
            "telemetry": {"logs": {"encoding": "json"}},
        },
    }
    with Agent(configuration, tmp_path) as agent:
        senders = [Thread(target=send_one, args=(transport, port), daemon=True) for _ in range(10)]
        for sender in senders:
            sender.start()
        time.sleep(1)
        began = time.monotonic()
        agent.stop()
        assert time.monotonic() - began < 8
        (account,) = accounts(agent)
        # Without a batch, as many as there are threads wait for the exporter, and one is in its queue.
        assert account["observed"] == (10 if processors else 5)
        assert (account["exported"], account["in_flight"], account["unaccounted"]) == (0, 0, 0)


def send_one(transport: str, port: int) -> None:
    """And wait for the answer, whatever it is."""
    request = every_span(1).SerializeToString()
    if transport == "grpc":
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, suppress(grpc.RpcError):
            channel.unary_unary(METHOD_OF["traces"])(request, timeout=20)
        return
    headers = {"Content-Type": "application/x-protobuf"}
    with suppress(urllib3.exceptions.HTTPError):
        urllib3.request("POST", f"http://127.0.0.1:{port}/v1/traces", body=request, headers=headers, retries=False)
