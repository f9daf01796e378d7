"""otlp_grpc and otlp_http with metrics: where they go, what is counted, and that no signal is taken for the other."""

from __future__ import annotations

import socket
import time

import pytest

from sink import Answer, Sink
from support.exporting import Start, partly, refused, unavailable
from support.metric_batches import KINDS, batch, every_kind, points, points_of
from support.otlp_batches import batch_of, spans_of
from support.waiting import wait_until
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.otlp import DEFAULT_MAX_BYTES


def test_a_request_arrives_as_it_is_and_its_points_are_counted_as_sent(protocol: str, sink: Sink, start: Start) -> None:
    running, sent = start(protocol, headers={"x-tenant": "blue"}), every_kind()
    running.exporter.consume_encoded(batch(sent))
    running.shutdown()
    assert sink.metrics == [sent]
    assert running.count("sent_metric_points") == KINDS
    assert running.gauge("wirespan.exporter.in_flight_metric_points") == 0
    assert running.count("sent_spans") == sink.span_count == 0
    (headers,) = sink.metrics_headers
    assert headers["x-tenant"] == "blue"
    if protocol == "otlp_http":
        assert (headers[":path"], headers["content-type"]) == ("/v1/metrics", "application/x-protobuf")


def test_metrics_endpoint_is_used_as_it_is_and_traces_go_elsewhere(sink: Sink, start: Start) -> None:
    with Sink(grpc_port=None) as prometheus:
        metrics = f"http://127.0.0.1:{prometheus.http_port}/api/v1/otlp/v1/metrics"
        running = start("otlp_http", metrics_endpoint=metrics)
        running.consume(5)
        running.consume_metrics(7)
        running.shutdown()
        assert prometheus.metrics_headers[0][":path"] == "/api/v1/otlp/v1/metrics"
        assert (len(prometheus.metrics), prometheus.span_count) == (1, 0)
    assert (len(sink.metrics), sink.span_count) == (0, 5)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_metrics_are_compressed_as_configured(compression: str, protocol: str, sink: Sink, start: Start) -> None:
    running = start(protocol, compression=compression)
    running.consume_metrics(1)
    running.shutdown()
    assert sink.metrics_payloads == [points_of(1).data]
    if protocol == "otlp_http":  # gRPC's server shows no compression header
        encoding = sink.metrics_headers[0].get("content-encoding")
        assert encoding == ("gzip" if compression == "gzip" else None)


def test_a_batch_too_large_for_a_request_arrives_as_several(protocol: str, sink: Sink, start: Start) -> None:
    running, large = start(protocol), points_of(3_000, size=1_000, services=3)
    assert len(large.data) > 3 * DEFAULT_MAX_BYTES
    running.exporter.consume_encoded(large)
    running.shutdown()
    assert running.count("sent_metric_points") == 3_000
    assert len(sink.metrics_payloads) == 6, "each service's points are somewhat more than a request"
    assert max(map(len, sink.metrics_payloads)) <= DEFAULT_MAX_BYTES
    arrived = [(service, point.as_int) for request in sink.metrics for service, _, point in points(request)]
    assert sorted(arrived, key=lambda found: found[1]) == [(f"service-{i % 3}", i) for i in range(3_000)]


def test_signals_in_one_queue_are_sent_each_to_its_own_service(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.extend([unavailable()] * 10)
    running, spans = start(protocol, sending_queue={"num_consumers": 3}), batch_of(5)
    for i in range(1, 21):
        running.exporter.consume(spans)
        running.exporter.consume_encoded(points_of(i))
    running.shutdown()
    assert sink.spans == list(spans_of(spans)) * 20
    assert sorted(sink.metrics_payloads, key=len) == [points_of(i).data for i in range(1, 21)]
    assert running.count("sent_spans") == 100
    assert running.count("sent_metric_points") == sum(range(1, 21))


def test_signals_share_the_room_of_the_queue_and_each_counts_what_finds_none(
    protocol: str, sink: Sink, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answers.extend([unavailable(delay=30.0)] * 10)
    running = start(protocol, sending_queue={"queue_size": 4})
    for _ in range(3):
        running.consume(10)
        running.consume_metrics(7)
    assert running.gauge("otelcol_exporter_queue_size") == running.gauge("otelcol_exporter_queue_capacity") == 4
    assert running.gauge("wirespan.exporter.in_flight_spans") == 20
    assert running.gauge("wirespan.exporter.in_flight_metric_points") == 14
    assert (running.count("enqueue_failed_spans"), running.count("enqueue_failed_metric_points")) == (10, 7)
    full = {record.message: vars(record) for record in caplog.records if "full" in record.message}
    assert full["Sending queue is full. Dropping spans."]["dropped_spans"] == 10
    assert full["Sending queue is full. Dropping metric points."]["dropped_metric_points"] == 7


@pytest.mark.parametrize(("sizer", "unit"), [("items", 10), ("bytes", len(points_of(10).data))])
def test_points_take_room_by_the_sizer(sizer: str, unit: int, sink: Sink, start: Start) -> None:
    sink.answers.extend([unavailable(delay=5.0)] * 3)
    running = start("otlp_http", sending_queue={"sizer": sizer, "queue_size": 2 * unit + 1})
    for _ in range(3):
        running.consume_metrics(10)
    assert running.gauge("otelcol_exporter_queue_size") == 2 * unit
    assert running.count("enqueue_failed_metric_points") == 10


def test_shutdown_counts_what_is_left_of_each_signal(
    protocol: str, sink: Sink, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answers.extend([unavailable(delay=30.0)] * 100)
    running = start(protocol, sending_queue={"num_consumers": 2})
    for _ in range(3):
        running.consume(10)
        running.consume_metrics(7)
    running.shutdown(0.3)
    assert (running.count("send_failed_spans"), running.count("send_failed_metric_points")) == (30, 21)
    assert "Not all spans could be sent before shutdown." in caplog.text
    assert "Not all metric points could be sent before shutdown." in caplog.text
    running.consume_metrics(7)
    assert running.count("enqueue_failed_metric_points") == 7


def test_a_metrics_backend_that_is_down_keeps_no_spans_from_being_sent_at_shutdown(
    sink: Sink, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The only consumer waits with metrics. Shutdown wakes it; they fail once more, and then come the spans, whose backend
    takes longer than the last attempt to reach one that is down may."""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        running = start(
            "otlp_http",
            metrics_endpoint=f"http://127.0.0.1:{dead.getsockname()[1]}/v1/metrics",
            sending_queue={"num_consumers": 1},
            retry_on_failure={"initial_interval": "1h", "max_interval": "1h", "max_elapsed_time": 0},
        )
        running.consume_metrics(7)
        wait_until("a first failure", lambda: "Will retry" in caplog.text)
        running.consume(10)
        sink.answers.append(Answer(delay=2.5))
        running.exporter.consume_encoded(points_of(1))
        running.shutdown(6.0)
    assert running.count("sent_spans") == 10
    assert running.count("send_failed_metric_points") == 8


def test_shutdown_is_quick_when_nobody_has_answered_for_either_signal(
    protocol: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        retry = {"initial_interval": "1h", "max_interval": "1h", "max_elapsed_time": 0}
        running = start(protocol, endpoint=f"http://127.0.0.1:{dead.getsockname()[1]}", retry_on_failure=retry)
        running.consume_metrics(7)
        wait_until("a first failure", lambda: "Will retry" in caplog.text)
        begin = time.monotonic()
        running.shutdown(7.0)
        assert time.monotonic() - begin < 2.5
    assert running.count("send_failed_metric_points") == 7


def test_the_accounts_of_both_signals_balance(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.extend([Answer(), partly(3), unavailable(), refused(), unavailable(delay=0.02)] * 40)
    running = start(protocol, sending_queue={"queue_size": 8, "num_consumers": 4})
    for _ in range(100):
        running.consume(10)
        running.consume_metrics(9)
    running.shutdown(10.0)
    assert running.accounted() == running.consumed == 1000
    assert running.accounted_points() == running.consumed_points == 900
    assert running.count("sent_metric_points") > 0
    assert running.count("enqueue_failed_metric_points") > 0


def test_what_is_no_request_is_for_the_backend_to_refuse(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.append(refused())
    running = start(protocol)
    running.exporter.consume_encoded(EncodedBatch("metrics", b"\xff" * 2 * DEFAULT_MAX_BYTES, 3))
    running.shutdown()
    assert running.count("send_failed_metric_points") == 3


def test_a_batch_without_points_is_not_sent(protocol: str, sink: Sink, start: Start) -> None:
    running = start(protocol)
    running.consume_metrics(0)
    running.shutdown()
    assert sink.request_count == 0
