"""The sending queue: what it holds, what it drops, what shutdown does, and that every span is accounted for."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from sink import Answer, Sink
from support.exporting import Start, partly, refused, unavailable
from support.waiting import wait_until

SLOW_RETRY = {"initial_interval": "1h", "max_interval": "1h", "max_elapsed_time": 0}


def test_nothing_that_fits_the_queue_is_lost_while_the_backend_is_down(protocol: str, start: Start) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    running = start(protocol, endpoint=f"http://127.0.0.1:{port}", sending_queue={"queue_size": 20})
    for _ in range(25):
        running.consume(10)
    assert running.gauge("otelcol_exporter_queue_size") == 20
    assert running.count("enqueue_failed_spans") == 50
    grpc_port, http_port = (port, None) if protocol == "otlp_grpc" else (None, port)
    with Sink(grpc_port, http_port) as back:
        wait_until("spans sent", lambda: running.sent(200))
        assert back.span_count == 200


def test_shutdown_by_its_deadline_counts_what_is_left_as_failed(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.extend([unavailable(delay=30.0)] * 100)
    running = start(protocol, sending_queue={"num_consumers": 2})
    for _ in range(5):
        running.consume(10)
    begin = time.monotonic()
    running.shutdown(0.3)
    assert time.monotonic() - begin < 2.0
    assert running.count("send_failed_spans") == 50
    assert running.gauge("wirespan.exporter.in_flight_spans") == 0


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "no connection"])
def test_shutdown_is_quick_when_nobody_has_answered_and_counts_the_whole_queue(
    protocol: str, silent: bool, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as dead, socket.socket() as waiting:
        dead.bind(("127.0.0.1", 0))
        if silent:  # with one that waits to be accepted, further SYNs are dropped
            dead.listen(0)
            waiting.connect(dead.getsockname())
        endpoint = f"http://127.0.0.1:{dead.getsockname()[1]}"
        queue = {"queue_size": 20, "num_consumers": 4}
        running = start(protocol, endpoint=endpoint, sending_queue=queue, timeout="3500ms", retry_on_failure=SLOW_RETRY)
        for _ in range(20):
            running.consume(10)
        wait_until("a first failure", lambda: "Will retry" in caplog.text)
        begin = time.monotonic()
        running.shutdown(7.0)
        assert time.monotonic() - begin < 2.5
    assert running.count("send_failed_spans") == 200
    assert running.gauge("wirespan.exporter.in_flight_spans") == 0
    assert "Dropping spans." in caplog.text or "Not all spans could be sent" in caplog.text


def test_a_slow_backend_has_the_time_that_shutdown_has(
    protocol: str, sink: Sink, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answers.extend([Answer(delay=10.0), Answer(delay=2.3)])
    running = start(protocol, timeout="2500ms", retry_on_failure=SLOW_RETRY)
    running.consume(7)
    wait_until("a first failure", lambda: "Will retry" in caplog.text)
    running.shutdown(7.0)
    assert running.sent(7)


def test_what_could_not_be_sent_is_sent_at_shutdown_if_the_backend_is_back(start: Start) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    # Not gRPC: a channel that has failed does not connect again within a second.
    running = start("otlp_http", endpoint=f"http://127.0.0.1:{port}", retry_on_failure=SLOW_RETRY)
    for _ in range(20):
        running.consume(10)
    with Sink(None, port):
        running.shutdown(7.0)
    assert running.sent(200)


def test_shutdown_makes_a_last_attempt_at_once(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.append(unavailable())
    running = start(protocol, retry_on_failure=SLOW_RETRY)
    running.consume(7)
    wait_until("first attempt", lambda: not sink.answers)
    running.shutdown()
    assert running.sent(7)


def test_after_shutdown_spans_are_counted_as_not_enqueued(protocol: str, start: Start) -> None:
    running = start(protocol)
    running.shutdown()
    running.shutdown()
    running.consume(7)
    assert running.count("enqueue_failed_spans") == 7


def test_without_a_queue_consume_returns_when_the_spans_were_taken(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.append(unavailable())
    running = start(protocol, sending_queue={"enabled": False})
    running.consume(7)
    assert running.sent(7)


def test_with_block_on_overflow_consume_waits_for_room(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.extend([unavailable()] * 5)
    running = start(protocol, sending_queue={"queue_size": 1, "block_on_overflow": True})
    for _ in range(5):
        running.consume(2)
    running.shutdown()
    assert running.sent(10)


def test_a_batch_larger_than_the_whole_queue_does_not_block_for_ever(protocol: str, start: Start) -> None:
    queue = {"queue_size": 100, "sizer": "bytes", "block_on_overflow": True}
    running = start(protocol, sending_queue=queue)
    running.consume(10)
    assert running.count("enqueue_failed_spans") == 10


@pytest.mark.parametrize(("sizer", "unit"), [("items", 10), ("requests", 1)])
def test_the_queue_is_measured_by_its_sizer(sizer: str, unit: int, sink: Sink, start: Start) -> None:
    sink.answers.extend([unavailable(delay=5.0)] * 3)
    running = start("otlp_http", sending_queue={"sizer": sizer, "queue_size": 2 * unit + 1})
    for _ in range(2):
        running.consume(10)
    assert running.gauge("otelcol_exporter_queue_size") == 2 * unit
    assert running.gauge("otelcol_exporter_queue_capacity") == 2 * unit + 1


def test_the_accounts_balance_at_every_moment(protocol: str, sink: Sink, start: Start) -> None:
    """Sums are read before the gauge and after it: a span that moves between the two reads is missed by one order
    and seen twice by the other, so the truth must lie between."""
    script = [Answer(), partly(3), unavailable(), refused(), unavailable(delay=0.02)]
    sink.answers.extend(script * 40)
    running = start(protocol, sending_queue={"queue_size": 8, "num_consumers": 4})
    for _ in range(200):
        running.consume(10)
        at_most = running.accounted()
        in_flight = running.gauge("wirespan.exporter.in_flight_spans")
        at_least = in_flight + sum(
            running.count(name) for name in ("sent_spans", "send_failed_spans", "enqueue_failed_spans")
        )
        assert at_most <= running.consumed <= at_least
    running.shutdown(10.0)
    assert running.accounted() == running.consumed
    assert running.count("sent_spans") > 0
    assert running.count("enqueue_failed_spans") > 0


def test_a_backend_that_keeps_up_is_not_given_ten_threads(protocol: str, start: Start) -> None:
    others = set(threading.enumerate())
    running = start(protocol)
    for done in range(1, 11):
        running.consume(10)
        wait_until("spans sent", lambda done=done: running.sent(10 * done))
    consumers = [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("exporter-")]
    assert len(consumers) <= 2  # the second, if a batch came just before the first was idle again
