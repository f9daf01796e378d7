"""The processor ``batch``: requests become fewer and larger ones, with all that was in them, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.foreign_batches import REQUESTS, count_items, encoded, every_log, every_request, every_span
from support.metric_batches import points_of, text
from support.otlp_batches import batch_of
from support.waiting import wait_until
from wirespan.pipeline.component import Context, Outcome, Signal
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.otlp import DEFAULT_MAX_BYTES
from wirespan.pipeline.spans import SpanBatch
from wirespan.pipeline.splitting import cut
from wirespan.processors import batch as module
from wirespan.processors.batch import FACTORY, BatchProcessor


class Behind:
    """The next consumer; it takes nothing while it is told to wait."""

    def __init__(self) -> None:
        self.batches: list[EncodedBatch] = []
        self.columns: list[SpanBatch] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def consume(self, batch: SpanBatch) -> None:
        self.columns.append(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        self.may_go_on.wait(20)
        self.batches.append(batch)
        return Outcome.TAKEN

    @property
    def items(self) -> list[int]:
        return [len(batch) for batch in self.batches]


@contextmanager
def running(counters: Counters | None = None, **given: Any) -> Iterator[tuple[BatchProcessor, Behind]]:
    behind, counters = Behind(), counters or Counters()
    context = Context("batch", counters, frozenset({"traces"}), "traces/passed")
    processor = FACTORY.create(FACTORY.config.model_validate(given), context, behind)
    processor.start()
    try:
        yield processor, behind
    finally:
        behind.may_go_on.set()
        processor.shutdown(time.monotonic() + 5)


def in_flight(counters: Counters) -> int:
    key = ("wirespan.processor.in_flight_items", (("pipeline", "traces/passed"), ("processor", "batch")))
    return counters.gauges()[key]


def names(batches: list[EncodedBatch]) -> list[str]:
    requests = [ExportTraceServiceRequest.FromString(batch.data) for batch in batches]
    return [
        span.name
        for request in requests
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def test_a_batch_goes_on_once_it_has_enough_items_with_all_requests_in_order() -> None:
    counters = Counters()
    with running(counters, send_batch_size=10, timeout="1h") as (processor, behind):
        for _ in range(5):
            assert processor.consume_encoded(encoded(every_span(2))) is Outcome.TAKEN
        wait_until("a batch", lambda: behind.items == [10])
        assert names(behind.batches) == ["span 0", "span 1"] * 5
    assert counters.snapshot() == {("otelcol_processor_batch_batch_size_trigger_send", (("processor", "batch"),)): 1}


def test_a_batch_that_is_not_full_goes_on_after_the_timeout() -> None:
    counters = Counters()
    with running(counters, timeout="100ms") as (processor, behind):
        began = time.monotonic()
        for _ in range(3):
            processor.consume_encoded(encoded(every_span(2)))
        assert in_flight(counters) == 6
        wait_until("a batch", lambda: behind.items == [6])
        assert 0.09 < time.monotonic() - began < 1
        wait_until("nothing held", lambda: in_flight(counters) == 0)
    assert counters.snapshot() == {("otelcol_processor_batch_timeout_trigger_send", (("processor", "batch"),)): 1}


def test_what_waits_longest_decides_when_the_rest_goes_on() -> None:
    with running(send_batch_size=10, timeout="300ms") as (processor, behind):
        began = time.monotonic()
        for _ in range(6):
            processor.consume_encoded(encoded(every_span(2)))
        wait_until("the first", lambda: behind.items == [10])
        wait_until("the rest", lambda: behind.items == [10, 2])
        assert time.monotonic() - began < 0.5


def test_without_a_timeout_everything_goes_on_at_once() -> None:
    with running(timeout=0) as (processor, behind):
        for count in (1, 2, 3):
            processor.consume_encoded(encoded(every_span(count)))
            wait_until("it", lambda count=count: behind.items[-1:] == [count])  # type: ignore[misc]


def test_shutdown_sends_what_waits_and_takes_no_more() -> None:
    counters = Counters()
    with running(counters, timeout="1h") as (processor, behind):
        processor.consume_encoded(encoded(every_span(2)))
        processor.shutdown(time.monotonic() + 5)
        assert behind.items == [2]
        assert processor.consume_encoded(encoded(every_span(3))) is Outcome.BUSY
        refused = ("otelcol_processor_refused_spans", (("pipeline", "traces/passed"), ("processor", "batch")))
        assert counters.snapshot()[refused] == 3
        processor.shutdown(time.monotonic() + 5)


def test_a_batch_has_no_more_bytes_than_a_request_of_exporters() -> None:
    with running(timeout="50ms") as (processor, behind):
        for _ in range(50):
            processor.consume_encoded(encoded(every_span(100, size=500)))
        wait_until("all", lambda: sum(behind.items) == 5_000)
        assert max(len(batch.data) for batch in behind.batches) <= DEFAULT_MAX_BYTES
        assert 4 <= len(behind.batches) <= 6


def test_a_request_with_more_items_than_a_batch_may_have_is_cut() -> None:
    with running(timeout="50ms", send_batch_size=10, send_batch_max_size=10) as (processor, behind):
        processor.consume_encoded(encoded(every_span(35)))
        wait_until("all", lambda: sum(behind.items) == 35)
        assert behind.items == [10, 10, 10, 5]
        assert names(behind.batches) == [f"span {i}" for i in range(35)]


def test_a_batch_that_another_request_would_make_too_large_goes_on_without_it() -> None:
    with running(timeout="50ms", send_batch_size=10, send_batch_max_size=12) as (processor, behind):
        for count in (6, 8, 3):
            processor.consume_encoded(encoded(every_span(count)))
        wait_until("all", lambda: sum(behind.items) == 17)
        assert behind.items == [6, 11]


def test_what_finds_no_room_behind_an_exporter_that_waits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 10_000)
    counters = Counters()
    with running(counters, timeout="10ms") as (processor, behind):
        behind.may_go_on.clear()
        one = encoded(every_span(10))
        outcomes = [processor.consume_encoded(one) for _ in range(200)]
        taken = outcomes.count(Outcome.TAKEN)
        assert outcomes == [Outcome.TAKEN] * taken + [Outcome.BUSY] * (200 - taken)
        assert 10_000 // len(one.data) <= taken <= 2 * 10_000 // len(one.data) + 2
        assert in_flight(counters) == 10 * taken
        behind.may_go_on.set()
        wait_until("all that was taken", lambda: sum(behind.items) == 10 * taken)
        assert processor.consume_encoded(one) is Outcome.TAKEN


def test_what_cannot_go_on_before_the_end_is_counted() -> None:
    counters = Counters()
    with running(counters, timeout="10ms") as (processor, behind):
        behind.may_go_on.clear()
        processor.consume_encoded(encoded(every_span(2)))
        wait_until("it is stuck", lambda: not processor._waiting)
        processor.consume_encoded(encoded(every_span(3)))
        processor.shutdown(time.monotonic() + 0.1)
        assert counters.snapshot()[("wirespan.exchanges.dropped", (("reason", "shutdown"),))] == 3
        assert in_flight(counters) == 2, "what the exporter has not let go of yet"
        behind.may_go_on.set()
        processor.settle(5)
        assert in_flight(counters) == 0


def test_spans_in_columns_pass_at_once() -> None:
    with running(timeout="1h") as (processor, behind):
        batch = batch_of(3)
        processor.consume(batch)
        assert behind.columns == [batch]


@pytest.mark.parametrize("signal", REQUESTS)
def test_requests_of_every_signal_are_joined(signal: Signal) -> None:
    request = every_request()[signal]
    with running(timeout="50ms") as (processor, behind):
        for _ in range(3):
            processor.consume_encoded(encoded(request))
        wait_until("a batch", lambda: behind.items == [3 * count_items(request)])
        (batch,) = behind.batches
        assert batch.signal == signal
        joined = REQUESTS[signal].FromString(batch.data)
        assert joined.SerializeToString() == request.SerializeToString() * 3


def test_many_senders_at_once_lose_nothing() -> None:
    with running(timeout="1ms", send_batch_size=100) as (processor, behind):

        def send(first: int) -> None:
            for number in range(first, first + 500):
                request = every_span(1)
                request.resource_spans[0].scope_spans[0].spans[0].name = str(number)
                processor.consume_encoded(encoded(request))

        threads = [threading.Thread(target=send, args=(500 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        processor.shutdown(time.monotonic() + 5)
        assert sorted(map(int, names(behind.batches))) == list(range(2_000))


def test_a_largest_size_below_the_usual_one_is_refused() -> None:
    with pytest.raises(ValueError, match="send_batch_max_size 5 is less than send_batch_size 10"):
        FACTORY.config.model_validate({"send_batch_size": 10, "send_batch_max_size": 5})


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 3))
def test_parts_have_so_many_items_at_most_and_all_of_them(count: int, most: int, services: int) -> None:
    for whole in (encoded(every_span(count)), encoded(every_log(count)), points_of(count, services=services)):
        parts = list(cut(whole, most))
        assert sum(map(len, parts)) == count
        assert max(map(len, parts)) <= most or len(parts) == 1
        decoded = [REQUESTS[whole.signal].FromString(part.data) for part in parts]
        assert [count_items(request) for request in decoded] == list(map(len, parts))


def test_a_request_that_would_grow_by_its_parts_is_not_cut() -> None:
    request = every_span(1_000, size=1)
    request.resource_spans[0].resource.attributes.append(text("large", "x" * 100_000))
    whole = encoded(request)
    assert list(cut(whole, 10)) == [whole]
    assert len(list(cut(whole, 900))) == 2


@given(st.binary(max_size=100), st.sampled_from(("traces", "metrics", "logs")))
def test_what_is_no_request_of_so_many_items_stays_whole(data: bytes, signal: Signal) -> None:
    whole = EncodedBatch(signal, data, 1_000)
    assert list(cut(whole, 10)) == [whole]
