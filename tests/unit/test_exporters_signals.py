"""otlp_grpc and otlp_http treat what spans and metrics meet alike: a backend that fails, refuses, or takes a part."""

from __future__ import annotations

import pytest

from sink import Sink
from support.exporting import QUICK_RETRY, Start, partly, partly_taken, refused, unavailable
from support.waiting import wait_until

#: as they are called in counters, and in messages
of_each_signal = pytest.mark.parametrize(
    ("items", "called"), [("spans", "spans"), ("metric_points", "metric points")], ids=["spans", "metrics"]
)


@of_each_signal
def test_an_unavailable_backend_is_tried_again_until_it_takes_them(
    items: str, called: str, protocol: str, sink: Sink, start: Start
) -> None:
    sink.answers.extend([unavailable()] * 3)
    running = start(protocol)
    running.consume_items(items, 7)
    wait_until(f"{called} sent", lambda: running.count(f"sent_{items}") == 7)
    assert sink.request_count == 1
    assert not sink.answers


@of_each_signal
def test_what_the_backend_refuses_is_counted_logged_and_not_retried(
    items: str, called: str, protocol: str, sink: Sink, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answers.append(refused())
    running = start(protocol)
    running.consume_items(items, 7)
    running.shutdown()
    assert running.count(f"send_failed_{items}") == 7
    assert sink.request_count == 0
    (record,) = caplog.records
    assert record.message == f"Exporting failed. The backend refuses the {called}. Dropping them."
    assert vars(record)[f"dropped_{items}"] == 7


@of_each_signal
def test_retries_end_after_max_elapsed_time(items: str, called: str, protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.extend([unavailable()] * 100)
    running = start(protocol, retry_on_failure={**QUICK_RETRY, "max_elapsed_time": "200ms"})
    running.consume_items(items, 7)
    wait_until(f"{called} given up", lambda: running.count(f"send_failed_{items}") == 7)
    assert len(sink.answers) > 90


@of_each_signal
def test_a_partial_success_is_counted_logged_and_not_retried(
    items: str, called: str, protocol: str, sink: Sink, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answers.append((partly if items == "spans" else partly_taken)(3, "three too old"))
    running = start(protocol)
    running.consume_items(items, 10)
    running.shutdown()
    assert (running.count(f"sent_{items}"), running.count(f"send_failed_{items}")) == (7, 3)
    assert sink.request_count == 1
    (record,) = caplog.records
    assert record.message == f"Partial success. The backend rejected {called}."
    assert vars(record)[f"dropped_{items}"] == 3
    assert vars(record)["error"] == "three too old"
