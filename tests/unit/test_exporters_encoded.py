"""What came by OTLP leaves by OTLP as it came: spans, metrics and logs, with all that a message can have."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest
from google.protobuf.json_format import Parse

from sink import Sink
from support.exporting import Start, refused, unavailable
from support.foreign_batches import REQUESTS, count_items, encoded, every_log, every_request, every_span
from support.waiting import wait_until
from wirespan.exporters.debug import FACTORY as DEBUG
from wirespan.exporters.file import FACTORY as FILE
from wirespan.pipeline.component import ALL_SIGNALS, Context, Outcome, Signal
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.otlp import DEFAULT_MAX_BYTES

ITEMS: dict[Signal, str] = {"traces": "spans", "metrics": "metric_points", "logs": "log_records"}

of_each_signal = pytest.mark.parametrize("signal", ITEMS)


def payloads(sink: Sink, signal: Signal) -> list[bytes]:
    return {"traces": sink.payloads, "metrics": sink.metrics_payloads, "logs": sink.logs_payloads}[signal]


@of_each_signal
def test_a_request_leaves_as_it_came_and_its_items_are_counted(
    signal: Signal, protocol: str, sink: Sink, start: Start
) -> None:
    running, request = start(protocol), every_request()[signal]
    assert running.exporter.consume_encoded(encoded(request)) is Outcome.TAKEN
    running.shutdown()
    assert payloads(sink, signal) == [request.SerializeToString()]
    assert running.count(f"sent_{ITEMS[signal]}") == count_items(request)


def test_a_request_larger_than_those_that_are_sent_becomes_several(protocol: str, sink: Sink, start: Start) -> None:
    running, request = start(protocol), every_span(3_000, size=1_000)
    assert running.exporter.consume_encoded(encoded(request)) is Outcome.TAKEN
    running.shutdown()
    assert sorted(int(span.name.removeprefix("span ")) for _, span in sink.spans) == list(range(3_000))
    assert len(sink.payloads) == 4
    assert max(map(len, sink.payloads)) <= DEFAULT_MAX_BYTES
    assert all(resource == sink.spans[0][0] for resource, _ in sink.spans)


def test_of_a_request_that_finds_no_room_nothing_is_queued_and_its_sender_is_told(
    protocol: str, sink: Sink, start: Start
) -> None:
    sink.answers.extend([unavailable(delay=30.0)] * 10)
    running = start(protocol, sending_queue={"queue_size": 5})
    large = encoded(every_span(3_000, size=1_000))  # four requests
    assert running.exporter.consume_encoded(large) is Outcome.TAKEN
    assert running.exporter.consume_encoded(large) is Outcome.BUSY
    assert running.exporter.consume_encoded(encoded(every_log(2))) is Outcome.TAKEN
    assert running.gauge("otelcol_exporter_queue_size") == 5
    assert (running.count("enqueue_failed_spans"), running.gauge("wirespan.exporter.in_flight_log_records")) == (
        3_000,
        2,
    )
    running.shutdown(0)
    assert running.exporter.consume_encoded(large) is Outcome.BUSY


def test_without_a_queue_the_sender_is_told_what_the_backend_said(protocol: str, sink: Sink, start: Start) -> None:
    running, batch = (
        start(protocol, sending_queue={"enabled": False}, retry_on_failure={"enabled": False}),
        every_log(2),
    )
    sink.answers.extend([refused(), unavailable()])
    outcomes = [running.exporter.consume_encoded(encoded(batch)) for _ in range(3)]
    assert outcomes == [Outcome.FAILED, Outcome.BUSY, Outcome.TAKEN]
    assert (running.count("send_failed_log_records"), running.count("sent_log_records")) == (4, 2)


@of_each_signal
def test_a_file_has_each_request_as_json_with_ids_in_hex(signal: Signal, tmp_path: Path) -> None:
    path, request = tmp_path / "out.jsonl", every_request()[signal]
    exporter = FILE.create(FILE.config(path=str(path)), Context("file", Counters(), ALL_SIGNALS))
    exporter.start()
    assert exporter.consume_encoded(encoded(request)) is Outcome.TAKEN
    exporter.shutdown(time.monotonic())
    (line,) = path.read_text().splitlines()
    assert "000102030405060708090a0b0c0d0e0f" in line
    back = Parse(json.dumps(with_ids_in_base64(json.loads(line))), REQUESTS[signal]())
    assert back == request


def with_ids_in_base64(tree: object) -> object:
    if isinstance(tree, list):
        return [with_ids_in_base64(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ids = {"traceId", "spanId", "parentSpanId"}
    return {
        key: base64.b64encode(bytes.fromhex(value)).decode() if key in ids else with_ids_in_base64(value)
        for key, value in tree.items()
    }


def shown(batch: EncodedBatch, verbosity: str) -> None:
    exporter = DEBUG.create(DEBUG.config(verbosity=verbosity), Context("debug", Counters(), ALL_SIGNALS))
    exporter.start()
    assert exporter.consume_encoded(batch) is Outcome.TAKEN
    exporter.shutdown(time.monotonic())


def test_debug_shows_spans_and_log_records_on_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    shown(encoded(every_span(2)), "normal")
    shown(encoded(every_log(2)), "normal")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:5] for line in lines[:2]] == [["shop", "·", "span", "0"], ["shop", "·", "span", "1"]]
    assert [line.split(maxsplit=3)[1:] for line in lines[2:]] == [
        ["shop", "ERROR", "{'nested': '日本'}"],
        ["shop", "ERROR", "message 1"],
    ]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (encoded(every_span(2)), ["trace_id: 000102030405060708090a0b0c0d0e0f", "resource service.name: shop"]),
        (encoded(every_log(2)), ["event: checkout", "span_id: c8c9cacbcccdcecf", "log.file.name: app.log"]),
    ],
    ids=["traces", "logs"],
)
def test_debug_in_detail_shows_ids_and_attributes(
    batch: EncodedBatch, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown(batch, "detailed")
    out = capsys.readouterr().out
    assert [word for word in words if out.count(word) != 2] == []


@pytest.mark.parametrize(
    ("batch", "line"),
    [
        (encoded(every_span(2)), "spans: 2, resources: 1"),
        (encoded(every_log(2)), "log records: 2, resources: 1"),
    ],
    ids=["traces", "logs"],
)
def test_debug_basic_is_a_line_a_request(batch: EncodedBatch, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown(batch, "basic")
    assert capsys.readouterr().out.endswith(f"{line}\n")


def test_what_is_no_request_is_counted_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    exporter = DEBUG.create(DEBUG.config(), Context("debug", counters, ALL_SIGNALS))
    exporter.start()
    assert exporter.consume_encoded(EncodedBatch("logs", b"\xff", 3)) is Outcome.FAILED
    assert counters.snapshot() == {("otelcol_exporter_send_failed_log_records", (("exporter", "debug"),)): 3}
    assert "Cannot decode a request. Dropping it." in caplog.text


def test_a_retried_request_is_sent_until_it_is_taken(protocol: str, sink: Sink, start: Start) -> None:
    sink.answers.extend([unavailable()] * 3)
    running = start(protocol)
    assert running.exporter.consume_encoded(encoded(every_log(2))) is Outcome.TAKEN
    wait_until("log records sent", lambda: running.count("sent_log_records") == 2)
    assert sink.logs == [every_log(2)]
