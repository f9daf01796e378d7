"""Hand-made spans through our exporters into a real Collector and a real Jaeger come out as they went in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import import_module

import pytest

from sink import Sink
from support import servers
from support.batches import SERVICES, make_batch
from support.jaeger_query import query_jaeger
from support.otlp_batches import spans_of
from support.spans import Span, from_messages, sort
from support.waiting import wait_until
from wirespan.pipeline.component import Context, Exporter
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import SpanBatch

PROTOCOLS = ("otlp_grpc", "otlp_http")
SPANS = 1_000


@pytest.fixture(scope="module")
def behind_collector() -> Iterator[Sink]:
    with Sink(grpc_port=None) as sink:
        yield sink


@pytest.fixture(scope="module")
def collector(behind_collector: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Collector]:
    assert behind_collector.http_port is not None
    with servers.collector(tmp_path_factory.mktemp("collector"), behind_collector.http_port) as running:
        yield running


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Jaeger]:
    with servers.jaeger(tmp_path_factory.mktemp("jaeger")) as running:
        yield running


def endpoint(backend: servers.Collector | servers.Jaeger, protocol: str) -> str:
    port = backend.grpc_port if protocol == "otlp_grpc" else backend.http_port
    return f"http://127.0.0.1:{port}"


def as_spans(batch: SpanBatch) -> list[Span]:
    return list(from_messages(spans_of(batch)))


def export(protocol: str, to: str, batch: SpanBatch) -> Counters:
    """Send a batch as a pipeline would, and flush; the exporter's counters."""
    factory = import_module(f"wirespan.exporters.{protocol}").FACTORY
    configuration = factory.config.model_validate({"endpoint": to, "tls": {"insecure": True}})
    counters = Counters()
    exporter: Exporter = factory.create(configuration, Context(protocol, counters))
    exporter.start()
    exporter.consume(batch)
    exporter.shutdown(time.monotonic() + 10)
    return counters


@pytest.mark.requires_tool("otelcol")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_passes_on_every_field(protocol: str, collector: servers.Collector, behind_collector: Sink) -> None:
    batch = make_batch(SPANS, seed=PROTOCOLS.index(protocol))
    behind_collector.payloads.clear()
    counters = export(protocol, endpoint(collector, protocol), batch)
    assert counters.snapshot()[("otelcol_exporter_sent_spans", (("exporter", protocol),))] == SPANS
    wait_until("all spans behind the Collector", lambda: len(behind_collector.spans) >= SPANS)
    assert sort(from_messages(behind_collector.spans)) == sort(as_spans(batch))


@pytest.mark.requires_tool("jaeger")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_jaeger_answers_with_every_field(protocol: str, jaeger: servers.Jaeger) -> None:
    batch = make_batch(SPANS, seed=10 + PROTOCOLS.index(protocol))
    export(protocol, endpoint(jaeger, protocol), batch)
    sent = {span["span_id"]: span for span in as_spans(batch)}
    stored = [span for service in SERVICES for span in query_jaeger(jaeger.query_port, service)]
    # The other protocol's spans are in the same storage.
    assert sort(span for span in stored if span["span_id"] in sent) == sort(sent.values())
