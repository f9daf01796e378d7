"""``sending_queue.batch``: what is joined, when it goes, how large it gets; and ``wait_for_result``."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from sink import Answer, Sink
from support.exporting import QUICK_RETRY, Start, partly, refused, unavailable
from support.metric_batches import points_of
from support.otlp_batches import batch_of
from support.waiting import wait_until
from wirespan.exporters.items import ALL
from wirespan.exporters.queue_settings import BatchSettings, QueueSettings
from wirespan.exporters.waiting import Joined, Request
from wirespan.pipeline.component import Outcome
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.otlp import DEFAULT_MAX_BYTES, encode_requests

HOUR = {"flush_timeout": "1h"}


def logs_of(count: int, size: int = 1) -> EncodedBatch:
    message = ExportLogsServiceRequest()
    records = message.resource_logs.add().scope_logs.add().log_records
    for _ in range(count):
        records.add().body.string_value = "x" * size
    return EncodedBatch("logs", message.SerializeToString(), count)


def counts(sink: Sink) -> list[int]:
    """Log records of each request, in order."""
    return [
        sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
        for request in sink.logs
    ]


def test_requests_go_as_one_when_there_are_enough_items(protocol: str, sink: Sink, start: Start) -> None:
    running = start(protocol, sending_queue={"batch": {"min_size": 30, **HOUR}})
    running.consume(10)
    running.consume(10)
    time.sleep(0.2)
    assert sink.request_count == 0
    assert running.gauge("otelcol_exporter_queue_size") == 2
    running.consume(10)
    wait_until("sent", lambda: running.sent(30))
    (payload,) = sink.payloads
    assert payload == encode_requests(batch_of(10))[0].payload * 3
    assert len(ExportTraceServiceRequest.FromString(payload).resource_spans) == 3


def test_a_batch_that_is_not_full_goes_after_flush_timeout(protocol: str, sink: Sink, start: Start) -> None:
    running = start(protocol, sending_queue={"batch": {"flush_timeout": "300ms"}})
    begin = time.monotonic()
    running.consume(10)
    running.consume(10)
    wait_until("sent", lambda: running.sent(20))
    assert 0.3 <= time.monotonic() - begin < 2.0
    assert sink.request_count == 1


def test_signals_are_not_mixed_and_none_waits_for_another(sink: Sink, start: Start) -> None:
    running = start("otlp_http", sending_queue={"batch": {"min_size": 20, "flush_timeout": "200ms"}})
    for _ in range(2):
        running.consume(10)
        running.consume_metrics(3)
        running.exporter.consume_encoded(logs_of(4))
    wait_until("sent", lambda: running.sent(20) and running.count("sent_metric_points") == 6)
    wait_until("logs sent", lambda: running.count("sent_log_records") == 8)
    assert (len(sink.payloads), len(sink.metrics_payloads), len(sink.logs_payloads)) == (1, 1, 1)


def test_no_batch_has_more_than_max_size_items(sink: Sink, start: Start) -> None:
    running = start("otlp_http", sending_queue={"num_consumers": 1, "batch": {"min_size": 8, "max_size": 10, **HOUR}})
    for count in (7, 7, 25, 3):
        running.exporter.consume_encoded(logs_of(count))
    running.shutdown()
    assert sum(counts(sink)) == 42
    assert max(counts(sink)) == 10
    assert running.count("sent_log_records") == 42


def test_spans_in_columns_are_cut_to_max_size_too(sink: Sink, start: Start) -> None:
    running = start("otlp_http", sending_queue={"batch": {"min_size": 0, "max_size": 10}})
    running.consume(25)
    wait_until("sent", lambda: running.sent(25))
    assert sink.request_count == 3


def test_sizes_can_be_in_bytes(sink: Sink, start: Start) -> None:
    queue = {"num_consumers": 1, "batch": {"sizer": "bytes", "min_size": 5000, "max_size": 6000, **HOUR}}
    running = start("otlp_http", sending_queue=queue)
    for _ in range(10):
        running.exporter.consume_encoded(logs_of(1, size=990))
    running.exporter.consume_encoded(logs_of(20, size=990))
    running.shutdown()
    assert running.count("sent_log_records") == 30
    assert counts(sink)[0] == 5
    assert max(map(len, sink.logs_payloads)) <= 6000


def test_no_batch_has_more_bytes_than_a_request_may_have(sink: Sink, start: Start) -> None:
    running = start("otlp_http", sending_queue={"num_consumers": 1, "batch": HOUR})
    for _ in range(4):
        running.exporter.consume_encoded(logs_of(1, size=400_000))
    running.shutdown()
    assert counts(sink) == [2, 2]


def test_shutdown_sends_what_waits_for_its_batch(protocol: str, sink: Sink, start: Start) -> None:
    running = start(protocol, sending_queue={"batch": HOUR})
    running.consume(10)
    running.consume_metrics(5)
    running.shutdown()
    assert running.sent(10)
    assert running.count("sent_metric_points") == 5


@pytest.mark.parametrize(
    ("answer", "sent", "failed"),
    [(Answer(), 30, 0), (partly(4), 26, 4), (refused(), 0, 30)],
    ids=["all", "part", "none"],
)
def test_each_item_of_a_batch_is_counted(
    answer: Answer, sent: int, failed: int, protocol: str, sink: Sink, start: Start
) -> None:
    sink.answers.append(answer)
    running = start(protocol, sending_queue={"batch": {"min_size": 30, **HOUR}})
    for _ in range(3):
        running.consume(10)
    wait_until("settled", lambda: not running.gauge("wirespan.exporter.in_flight_spans"))
    assert (running.count("sent_spans"), running.count("send_failed_spans")) == (sent, failed)
    assert running.gauge("otelcol_exporter_queue_size") == 0


def test_batches_are_off_if_they_are_not_configured_or_not_enabled(sink: Sink, start: Start) -> None:
    for number, queue in enumerate(({}, {"batch": None}, {"batch": {"enabled": False, **HOUR}}), 1):
        running = start("otlp_http", sending_queue=queue)
        running.consume(1)
        wait_until("sent at once", lambda running=running: running.sent(1))
        assert sink.request_count == number


def test_waiting_for_a_batch_takes_one_thread(start: Start) -> None:
    others = set(threading.enumerate())
    running = start("otlp_http", sending_queue={"batch": HOUR})
    for _ in range(20):
        running.consume(10)
        time.sleep(0.01)
    consumers = [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("exporter-")]
    assert len(consumers) <= 2


requests = st.lists(
    st.tuples(st.sampled_from(ALL), st.integers(0, 40), st.integers(0, 400), st.integers(0, 100)), max_size=40
)


@settings(deadline=None)
@given(requests, st.integers(0, 60), st.sampled_from(["items", "bytes"]), st.booleans())
def test_each_request_is_in_one_batch_in_the_order_of_its_signal(
    given: list[Any], least: int, sizer: Any, bounded: bool
) -> None:
    largest = max(least, 50 if sizer == "items" else 500) if bounded else 0
    waiting = Joined(BatchSettings(min_size=least, max_size=largest, sizer=sizer, flush_timeout="1s"))
    offered = [Request(items, count, 1, length, b"", since) for items, count, length, since in given]
    offered.sort(key=lambda request: request.since)
    taken: list[list[Request]] = []
    for request in offered:
        waiting.add([request])
        while batch := waiting.take(request.since, at_once=False):
            taken.append(batch)
        wait = waiting.wait(request.since)
        assert wait is None or 0 < wait <= 1
    while batch := waiting.take(0.0, at_once=True):
        taken.append(batch)
    for batch in taken:
        assert len({request.items for request in batch}) == 1
        size = sum(request.count if sizer == "items" else request.length for request in batch)
        assert len(batch) == 1 or not largest or size <= largest
    for items in ALL:
        assert [r for batch in taken for r in batch if r.items is items] == [r for r in offered if r.items is items]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"batch": {"max_size": 100}}, "max_size 100 is less than min_size 8192"),
        ({"batch": {"flush_timeout": "0"}}, "must be from 1ms to 1h"),
        ({"batch": {"sizer": "requests"}}, "Input should be 'items' or 'bytes'"),
        ({"sizer": "requests", "batch": {}}, "Input should be 'items' or 'bytes'"),
        ({"sizer": "items", "queue_size": 100, "batch": {}}, "batch.min_size 8192 is more than queue_size 100"),
        ({"wait_for_result": True, "storage": "file_storage"}, "wait_for_result is not possible with storage"),
        ({"batch": {"partition": {}}}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        QueueSettings.model_validate(settings)


def test_a_batch_is_measured_as_the_queue_unless_it_says_otherwise() -> None:
    def sizer(**settings: object) -> str:
        joined = QueueSettings.model_validate(settings).joined
        assert joined is not None
        return joined.sizer

    assert sizer(batch={}) == "items"
    assert sizer(sizer="bytes", queue_size=10**6, batch={}) == "bytes"
    assert sizer(sizer="bytes", queue_size=10**6, batch={"sizer": "items"}) == "items"
    assert BatchSettings(sizer="bytes", max_size=10**9).max_bytes == DEFAULT_MAX_BYTES


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(Answer(), Outcome.TAKEN), (partly(1), Outcome.TAKEN), (refused(), Outcome.FAILED)],
    ids=["taken", "taken in part", "refused"],
)
def test_with_wait_for_result_the_sender_hears_what_became_of_it(
    answer: Answer, outcome: Outcome, protocol: str, sink: Sink, start: Start
) -> None:
    sink.answers.extend([unavailable(), answer])
    running = start(protocol, sending_queue={"wait_for_result": True})
    assert running.exporter.consume_encoded(points_of(3)) is outcome
    assert not sink.answers


def test_with_wait_for_result_what_is_given_up_can_be_sent_again(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.extend([unavailable()] * 100)
    running = start(
        protocol, sending_queue={"wait_for_result": True}, retry_on_failure={**QUICK_RETRY, "max_elapsed_time": "50ms"}
    )
    assert running.exporter.consume_encoded(points_of(3)) is Outcome.BUSY


def test_with_wait_for_result_shutdown_leaves_nobody_waiting(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.extend([unavailable(delay=30.0)] * 3)
    running = start(protocol, sending_queue={"wait_for_result": True, "num_consumers": 1})
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(running.exporter.consume_encoded(points_of(3))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    wait_until("all wait", lambda: running.gauge("otelcol_exporter_queue_size") == 3)
    running.shutdown(0.2)
    for thread in threads:
        thread.join(10)
    assert outcomes == [Outcome.BUSY] * 3


def test_joined_requests_share_a_result(sink: Sink, start: Start) -> None:
    queue = {"wait_for_result": True, "batch": {"min_size": 6, **HOUR}}
    running = start("otlp_http", sending_queue=queue)
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(running.exporter.consume_encoded(points_of(3))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert outcomes == [Outcome.TAKEN] * 2
    assert sink.request_count == 1
