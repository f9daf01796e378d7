"""What a defect costs: the batch, or the connection, in which it shows. The rest goes on, and all is accounted for."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest

from support.segments import CLIENT, GET, LATE, NIL, RECEIVED, RESP, SENT, Reader
from wirespan.pipeline import defects
from wirespan.pipeline.component import Outcome, Signal
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.defects import (
    exporter_boundary,
    processor_boundary,
)
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.spans import ResourceTable, SpanBatch
from wirespan.receiver.protocols.parser import StreamExchange
from wirespan.receiver.protocols.redis import RedisParser
from wirespan.receiver.protocols.redis_connection import RedisConnection


@pytest.fixture(autouse=True)
def nothing_logged_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defects, "_next", {})


class Failing:
    """Fails at the batch of this number."""

    def __init__(self, at: int) -> None:
        self.left, self.spans, self.points = at, 0, 0

    def consume(self, batch: SpanBatch) -> None:
        self._fail_at_last()
        self.spans += len(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        self._fail_at_last()
        self.points += len(batch)
        return Outcome.TAKEN

    def _fail_at_last(self) -> None:
        self.left -= 1
        if not self.left:
            raise ZeroDivisionError("a password")


def batch_of(count: int) -> SpanBatch:
    column = np.ones(count, np.uint64)
    return SpanBatch(
        trace_id=np.ones((count, 2), np.uint64),
        span_id=column,
        parent_span_id=column,
        start=column,
        end=column,
        kind=np.ones(count, np.uint8),
        resource=np.zeros(count, np.int64),
        resources=ResourceTable(1),
        fragments=(),
        numbers={},
        texts={},
    )


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (exporter_boundary, ("otelcol_exporter_send_failed_spans", (("exporter", "it"),))),
        (processor_boundary, ("wirespan.exchanges.dropped", (("reason", "defect"),))),
    ],
)
def test_a_batch_that_a_component_fails_on_is_counted_and_the_next_goes_through(
    make: Callable[..., defects.Boundary], key: tuple[str, tuple[tuple[str, str], ...]]
) -> None:
    counters, component = Counters(), Failing(2)
    boundary = make(component, "it", counters)
    for size in (3, 5, 7):
        boundary.consume(batch_of(size))
    assert component.spans == 10
    assert counters.snapshot() == {key: 5}


@pytest.mark.parametrize(
    ("make", "signal", "key"),
    [
        (exporter_boundary, "metrics", ("otelcol_exporter_send_failed_metric_points", (("exporter", "it"),))),
        (processor_boundary, "metrics", ("wirespan.metric_points.dropped", (("reason", "defect"),))),
        (exporter_boundary, "logs", ("otelcol_exporter_send_failed_log_records", (("exporter", "it"),))),
        (processor_boundary, "logs", ("wirespan.log_records.dropped", (("reason", "defect"),))),
        (exporter_boundary, "traces", ("otelcol_exporter_send_failed_spans", (("exporter", "it"),))),
        (processor_boundary, "traces", ("wirespan.exchanges.dropped", (("reason", "defect"),))),
    ],
)
def test_an_encoded_batch_that_a_component_fails_on_is_counted_and_the_next_goes_through(
    make: Callable[..., defects.Boundary], signal: Signal, key: tuple[str, tuple[tuple[str, str], ...]]
) -> None:
    counters, component = Counters(), Failing(2)
    boundary = make(component, "it", counters)
    outcomes = [boundary.consume_encoded(EncodedBatch(signal, b"", items)) for items in (3, 5, 7)]
    assert outcomes == [Outcome.TAKEN, Outcome.FAILED, Outcome.TAKEN]
    assert component.points == 10
    assert counters.snapshot() == {key: 5}


def test_a_defect_is_logged_once_a_minute_by_its_kind_and_place_alone(caplog: pytest.LogCaptureFixture) -> None:
    boundary = exporter_boundary(Failing(1), "one", Counters())
    other = exporter_boundary(Failing(1), "other", Counters())
    for consumer in (boundary, other):
        consumer.consume(batch_of(1))
    again = exporter_boundary(Failing(1), "one", Counters())
    again.consume(batch_of(1))
    assert [vars(record)["component"] for record in caplog.records] == ["one", "other"]
    line = vars(caplog.records[0])
    assert caplog.records[0].levelno == logging.ERROR
    assert line["error"] == "ZeroDivisionError"
    assert " consume, " in line["trace"]
    assert "password" not in str(line)


class Fragile(RedisConnection):
    """Of which a request with this key is a defect."""

    def feed_request(self, position: int, data: bytes, size: int) -> list[StreamExchange]:
        if b"bad" in data:
            raise IndexError(position)
        return super().feed_request(position, data, size)


class FragileParser(RedisParser):
    def connection(self) -> RedisConnection:
        return Fragile()


BAD = b"*2\r\n$3\r\nGET\r\n$3\r\nbad\r\n"


def test_a_defect_of_a_parser_costs_its_connection_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    reader.reader._parsers[RESP] = FragileParser()
    rows, _ = reader.read(
        reader.io(SENT, 0, GET, 1000, cookie=1),
        reader.io(RECEIVED, 0, NIL, 1100, cookie=1),
        reader.io(SENT, len(GET), BAD, 1200, cookie=1),
        reader.io(SENT, 0, GET, 1300, cookie=2, role=CLIENT),
        reader.io(RECEIVED, 0, NIL, 1400, cookie=2),
    )
    assert sorted(rows["connection"]["cookie"].tolist()) == [1, 2]
    assert reader.count("wirespan.segments.connections_abandoned", reason="defect") == 1
    assert reader.count("wirespan.exchanges.observed") == 2
    assert [record.message for record in caplog.records] == ["A pipelined connection was given up by a defect."]
    rows, _ = reader.read(
        reader.io(SENT, len(GET), GET, LATE + 1000, cookie=2),
        reader.io(RECEIVED, len(NIL), NIL, LATE + 1100, cookie=2),
        until=2 * LATE,
    )
    assert rows["connection"]["cookie"].tolist() == [2]


def test_pipelines_share_a_budget_of_memory_and_those_idle_for_longest_give_theirs_up() -> None:
    reader = Reader(kept_limit=100_000)
    requests = 20  # of each of 50 connections: about 8 KB
    for cookie in range(1, 51):
        reader.read(*(reader.io(SENT, i * len(GET), GET, 1000 * cookie + i, cookie=cookie) for i in range(requests)))
    given_up = reader.count("wirespan.segments.connections_abandoned", reason="memory")
    assert 30 < given_up < 45
    assert reader.reader._kept_bytes <= 100_000
    assert list(reader.reader._connections) == list(range(given_up + 1, 51))
    dropped = reader.count("wirespan.exchanges.dropped", reason="evicted")
    assert dropped == reader.count("wirespan.exchanges.observed") == requests * given_up
    rows, _ = reader.read(
        *(reader.io(RECEIVED, 0, NIL * requests, LATE // 2 + cookie, cookie=cookie) for cookie in range(1, 51))
    )
    assert len(rows) == requests * (50 - given_up), "what was kept is complete"
    assert reader.reader._kept_bytes == 0


def test_idle_connections_keep_nothing_and_are_not_given_up_for_others() -> None:
    reader = Reader(kept_limit=1_000)
    for cookie in (1, 2):
        reader.read(
            reader.io(SENT, 0, GET, 1000 + cookie, cookie=cookie), reader.io(RECEIVED, 0, NIL, 1500, cookie=cookie)
        )
    for cookie in (3, 4, 5):
        reader.read(*(reader.io(SENT, i * len(GET), GET, 3000 + i, cookie=cookie) for i in range(10)))
    assert list(reader.reader._connections) == [1, 2, 5]
