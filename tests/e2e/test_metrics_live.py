"""Metrics through our exporters into a real Collector come out as they went in, and our JSON of them is its JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import urllib3

from sink import Sink
from support import servers
from support.exporting import PROTOCOLS
from support.metric_batches import KINDS, batch, every_kind, points, points_of
from support.metrics import metrics_from_json
from support.waiting import wait_until
from wirespan.pipeline.component import ALL_SIGNALS, Context
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch

pytestmark = pytest.mark.requires_tool("otelcol")


@pytest.fixture(scope="module")
def behind_collector() -> Iterator[Sink]:
    with Sink(grpc_port=None) as sink:
        yield sink


@pytest.fixture(scope="module")
def collector(behind_collector: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Collector]:
    assert behind_collector.http_port is not None
    with servers.collector(tmp_path_factory.mktemp("collector"), behind_collector.http_port) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_received(behind_collector: Sink) -> None:
    behind_collector.metrics_payloads.clear()
    behind_collector.metrics_headers.clear()


def export(exporter_type: str, configuration: dict[str, Any], metrics: EncodedBatch) -> Counters:
    """Send a batch as a pipeline would, and flush; the exporter's counters."""
    factory = import_module(f"wirespan.exporters.{exporter_type}").FACTORY
    counters = Counters()
    context = Context(exporter_type, counters, ALL_SIGNALS)
    exporter = factory.create(factory.config.model_validate(configuration), context)
    exporter.start()
    exporter.consume_encoded(metrics)
    exporter.shutdown(time.monotonic() + 10)
    return counters


def endpoint(backend: servers.Collector, protocol: str) -> dict[str, Any]:
    port = backend.grpc_port if protocol == "otlp_grpc" else backend.http_port
    return {"endpoint": f"http://127.0.0.1:{port}"}


def sent(counters: Counters, exporter: str) -> int:
    return counters.snapshot()["otelcol_exporter_sent_metric_points", (("exporter", exporter),)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_passes_on_every_field_of_every_kind_of_point(
    protocol: str, collector: servers.Collector, behind_collector: Sink
) -> None:
    request = every_kind()
    counters = export(protocol, endpoint(collector, protocol), batch(request))
    assert sent(counters, protocol) == KINDS
    wait_until("the request behind the Collector", lambda: len(behind_collector.metrics) == 1)
    assert behind_collector.metrics == [request]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_takes_the_parts_of_what_is_larger_than_it_allows(
    protocol: str, collector: servers.Collector, behind_collector: Sink
) -> None:
    large = points_of(6_000, size=1_000, services=2)
    assert len(large.data) > 4 * 1024 * 1024, "what gRPC servers take by default"
    assert sent(export(protocol, endpoint(collector, protocol), large), protocol) == 6_000

    def arrived() -> list[int]:
        return sorted(point.as_int for request in behind_collector.metrics for _, _, point in points(request))

    wait_until("all points behind the Collector", lambda: len(arrived()) >= 6_000)
    assert arrived() == list(range(6_000))


def test_the_file_says_what_the_collector_says_of_the_same_request_in_json(
    collector: servers.Collector, behind_collector: Sink, tmp_path: Path
) -> None:
    request = every_kind()
    export("otlp_grpc", endpoint(collector, "otlp_grpc"), batch(request))
    assert sent(export("file", {"path": str(tmp_path / "metrics.jsonl")}, batch(request)), "file") == KINDS
    # What a test before this one has sent may come only now.
    (theirs,) = wait_until(
        "the request in JSON",
        lambda: [one for one in behind_collector.metrics_json if metrics_from_json(one) == request],
    )
    ours = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert metrics_from_json(theirs) == metrics_from_json(ours) == request
    assert ours == theirs


def test_a_collector_takes_a_line_of_the_file(
    collector: servers.Collector, behind_collector: Sink, tmp_path: Path
) -> None:
    request = every_kind()
    export("file", {"path": str(tmp_path / "metrics.jsonl")}, batch(request))
    line = (tmp_path / "metrics.jsonl").read_bytes()
    url = f"http://127.0.0.1:{collector.http_port}/v1/metrics"
    answer = urllib3.request("POST", url, body=line, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.json()) == (200, {"partialSuccess": {}})
    wait_until("the request behind the Collector", lambda: len(behind_collector.metrics) == 1)
    assert behind_collector.metrics == [request]
