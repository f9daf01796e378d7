"""The processor ``anomaly``: what it learns from a stream, what it says of it, and that nothing is lost or changed on the way."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.batches import make_batch
from wirespan.exporters.debug_format import span_row
from wirespan.pipeline.component import Context, Outcome
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.otlp import encode_requests
from wirespan.pipeline.spans import (
    AttributeValue,
    Fragment,
    FragmentColumn,
    FragmentTable,
    ResourceTable,
    SpanBatch,
    SpanKind,
    StatusCode,
)
from wirespan.processors.anomaly.holding import Holding
from wirespan.processors.anomaly.processor import FACTORY, AnomalyProcessor, AnomalySettings

SERVICES = ("shop", "catalog")
NAMES = ("GET /", "GET /items", "POST /orders")


class Sink:
    def __init__(self) -> None:
        self.batches: list[SpanBatch] = []
        self.requests: list[EncodedBatch] = []

    def consume(self, batch: SpanBatch) -> None:
        self.batches.append(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        self.requests.append(batch)
        return Outcome.BUSY


class Pipeline:
    """A processor whose clock is moved by hand, and that is trained when it is told to."""

    def __init__(self, **settings: Any) -> None:
        self.sink, self.counters = Sink(), Counters()
        context = Context("anomaly", self.counters, pipeline="traces")
        self.processor: AnomalyProcessor = FACTORY.create(AnomalySettings(**settings), context, self.sink)
        self.live = self.processor.live
        self.now = 0.0
        self.live._clock = lambda: self.now
        self.live._refreshed = 0.0

    def feed(self, batch: SpanBatch) -> list[dict[str, AttributeValue]]:
        self.now += 1.0
        self.processor.consume(batch)
        return attributes(self.sink.batches[-1])

    def teach(self, seconds: int = 30) -> None:
        for seed in range(seconds):
            self.feed(exchanges(200, seed))
        assert self.live.train()

    def counted(self, name: str) -> dict[tuple[str, ...], int]:
        return {
            tuple(value for key, value in sorted(labels) if key != "processor"): amount
            for (found, labels), amount in self.counters.snapshot().items()
            if found == name
        }


def attributes(batch: SpanBatch) -> list[dict[str, AttributeValue]]:
    return [dict(span_row(batch, row).attributes) for row in range(len(batch))]


def exchanges(
    count: int, seed: int, slower: float = 1.0, service: int | None = None, probability: float = 1.0
) -> SpanBatch:
    """Of two services with three operations each, whose processing takes some 20 ms, times ``slower`` for one service."""
    random = np.random.default_rng(seed)
    resources, operations, remarks = ResourceTable(), FragmentTable(), FragmentTable()
    for name in SERVICES:
        resources.intern({"service.name": name})
    for name in NAMES:
        operations.intern(Fragment(name, (("network.protocol.name", "http"),)))
    remarks.intern(Fragment())
    remarks.intern(Fragment(status=StatusCode.ERROR, attributes=(("error.type", "500"),)))
    remarks.intern(Fragment(attributes=(("wirespan.sampling.probability", probability),)))
    resource = random.integers(0, len(SERVICES), count)
    processing = 0.02 * random.lognormal(0, 0.25, count) * np.where(resource == service, slower, 1.0)
    start = np.full(count, 1_700_000_000_000_000_000, np.uint64)
    usual = 0 if probability == 1.0 else 2
    return SpanBatch(
        trace_id=random.integers(1, 2**63, (count, 2)).astype(np.uint64),
        span_id=random.integers(1, 2**63, count).astype(np.uint64),
        parent_span_id=np.zeros(count, np.uint64),
        start=start,
        end=start + (processing * 1e9).astype(np.uint64) + np.uint64(1000),
        kind=np.full(count, SpanKind.SERVER, np.uint8),
        resource=resource,
        resources=resources,
        fragments=(
            FragmentColumn(operations, random.integers(0, len(NAMES), count)),
            FragmentColumn(remarks, np.where(random.random(count) < 0.002, 1, usual)),
        ),
        numbers={
            "server.port": np.full(count, 8080),
            "wirespan.processing.duration": processing,
            "wirespan.request.size": np.full(count, 100),
            "wirespan.response.size": random.integers(-1, 2000, count),
        },
    )


def share(found: list[dict[str, AttributeValue]]) -> float:
    return float(np.mean([bool(said.get("wirespan.anomaly")) for said in found]))


def test_it_learns_first_and_says_so() -> None:
    pipeline = Pipeline()
    found = pipeline.feed(exchanges(200, 0))
    assert {said["wirespan.anomaly.state"] for said in found} == {"learning"}
    assert not any("wirespan.anomaly" in said or "wirespan.anomaly.score" in said for said in found)
    assert not Pipeline().live.train()


def test_calm_traffic_has_scores_as_many_as_they_say() -> None:
    pipeline = Pipeline()
    pipeline.teach()
    scores: list[Any] = []
    for seed in range(100, 140):
        found = pipeline.feed(exchanges(1000, seed))
        scores += [said["wirespan.anomaly.score"] for said in found]
        assert not any("wirespan.anomaly.state" in said for said in found)
    assert 0.0004 < np.mean(np.array(scores) > 0.999) < 0.0022
    assert pipeline.counted("wirespan.anomaly.spans").get(("anomalous", "shop"), 0) <= 3  # one a minute is allowed
    assert pipeline.live.holding.count == 0


def test_a_service_that_becomes_slow_is_anomalous_and_says_why_and_others_are_not() -> None:
    pipeline = Pipeline()
    pipeline.teach()
    found = [pipeline.feed(exchanges(200, seed, slower=8, service=1)) for seed in range(200, 205)][-1]
    batch = pipeline.sink.batches[-1]
    slow = [said for said, row in zip(found, batch.resource.tolist(), strict=True) if row == 1]
    usual = [said for said, row in zip(found, batch.resource.tolist(), strict=True) if row == 0]
    assert share(slow) > 0.9
    assert share(usual) < 0.03
    words = str(next(said for said in slow if said["wirespan.anomaly"])["wirespan.anomaly.drivers"])
    assert re.search(r"processing \d{3} ms, usually 1\d(\.\d)? to 3\d(\.\d)? ms", words)
    assert all(("wirespan.anomaly.drivers" in said) == (said["wirespan.anomaly"] is True) for said in found)
    assert pipeline.live.holding.count == 1
    counted = pipeline.counted("wirespan.anomaly.spans")
    assert counted["anomalous", "catalog"] > 20 * counted.get(("anomalous", "shop"), 0)


def test_an_incident_is_not_learned_until_it_is_the_new_normal() -> None:
    pipeline = Pipeline()
    pipeline.teach()
    for seed in range(60):
        pipeline.now += 14  # a quarter of an hour
        found = pipeline.feed(exchanges(200, 300 + seed, slower=8, service=1))
    assert share(found) > 0.4
    for seed in range(360):
        pipeline.now += 14
        found = pipeline.feed(exchanges(200, 1000 + seed, slower=8, service=1))
    assert share(found) < 0.1
    assert pipeline.live.holding.count == 0


def test_neither_the_batch_of_others_nor_its_tables_change() -> None:
    pipeline = Pipeline()
    pipeline.teach()
    batch = exchanges(500, 7, slower=20, service=0)
    before = attributes(batch)
    columns = len(batch.fragments), set(batch.numbers), set(batch.texts)
    pipeline.feed(batch)
    assert attributes(batch) == before
    assert (len(batch.fragments), set(batch.numbers), set(batch.texts)) == columns
    assert encode_requests(pipeline.sink.batches[-1])


def test_requests_of_otlp_are_marked_as_spans_in_columns_are() -> None:
    pipeline = Pipeline()
    pipeline.teach()
    calm, slow = exchanges(200, 50), exchanges(200, 51, slower=30, service=0)
    said = [pipeline.feed(batch) for batch in (calm, slow)]
    for batch, columns in zip((calm, slow), said, strict=True):
        (request,) = encode_requests(batch)
        encoded = EncodedBatch("traces", request.payload, request.spans)
        assert pipeline.processor.consume_encoded(encoded) is Outcome.BUSY  # what the next one answers
        marked = ExportTraceServiceRequest.FromString(pipeline.sink.requests[-1].data)
        spans = [span for rs in marked.resource_spans for ss in rs.scope_spans for span in ss.spans]
        scores = sorted(a.value.double_value for s in spans for a in s.attributes if a.key == "wirespan.anomaly.score")
        assert pipeline.sink.requests[-1].items == len(spans) == len(scores)
        expected = sorted(float(str(found["wirespan.anomaly.score"])) for found in columns)
        # What was learned in between moves them a little.
        assert scores == pytest.approx(expected, abs=0.05)
    words = [a.value.string_value for s in spans for a in s.attributes if a.key == "wirespan.anomaly.drivers"]
    assert any("processing" in text for text in words)


def test_an_attribute_of_another_type_is_no_measurement() -> None:
    pipeline = Pipeline()
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="GET /")
    span.attributes.add(key="wirespan.queue.duration").value.string_value = "long"
    span.attributes.add(key="wirespan.processing.duration").value.array_value.values.add()
    pipeline.processor.consume_encoded(EncodedBatch("traces", request.SerializeToString(), 1))
    assert pipeline.sink.requests[0].items == 1


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", b"\x0a\x00"])
def test_a_request_without_spans_passes_as_it_is(data: bytes) -> None:
    pipeline = Pipeline()
    pipeline.processor.consume_encoded(EncodedBatch("traces", data, 1))
    assert pipeline.sink.requests == [EncodedBatch("traces", data, 1)]


def test_spans_of_any_kind_of_trouble_are_no_reason_to_fail() -> None:
    pipeline = Pipeline()
    pipeline.teach()
    batch = make_batch(300, 1)
    batch.numbers["wirespan.queue.duration"][:4] = (-1.0, np.inf, -np.inf, 1e300)
    batch.end[5:10] = batch.start[5:10] - np.uint64(7)
    batch.end[11], batch.start[11] = 0, 2**64 - 1
    for _ in range(3):
        found = pipeline.feed(batch)
    assert len(found) == 300
    assert pipeline.live.train()
    assert all(0 <= said.get("wirespan.anomaly.score", 0) < 1 for said in pipeline.feed(batch))  # type: ignore[operator]
    pipeline.processor.consume(batch.where(np.zeros(300, np.bool_)))


def test_what_is_larger_than_all_that_is_told_apart_is_usual_where_it_is_usual() -> None:
    pipeline = Pipeline()
    for seed in range(10):
        batch = exchanges(200, seed)
        batch.numbers["wirespan.request.size"] = np.random.default_rng(seed).integers(10**11, 10**12, 200)
        pipeline.feed(batch)
    assert pipeline.live.train()
    assert share(pipeline.feed(batch)) < 0.05
    assert not any("request size" in str(said.get("wirespan.anomaly.drivers")) for said in pipeline.feed(batch))


def test_a_hundred_thousand_operations_take_no_more_than_they_may() -> None:
    pipeline = Pipeline(max_keys=100)
    batch = exchanges(5000, 0)
    names = FragmentTable()
    for number in range(5000):
        names.intern(Fragment(f"op-{chr(97 + number % 26)}{chr(97 + number // 26 % 26)}{chr(97 + number // 676)}"))
    for _ in range(3):
        pipeline.feed(replace(batch, fragments=(FragmentColumn(names, np.arange(5000)),)))
    assert (
        pipeline.counters.gauges()["wirespan.anomaly.keys", (("pipeline", "traces"), ("processor", "anomaly"))] <= 100
    )
    (overflow,) = pipeline.counted("wirespan.anomaly.overflow").values()
    assert overflow > 3 * 4900
    assert len(pipeline.live.model.baselines._fresh) < 200


def test_what_was_sampled_counts_for_what_it_stands_for() -> None:
    pipeline = Pipeline()
    for seed in range(30):
        pipeline.feed(exchanges(200, seed, probability=0.1))
    observations = pipeline.processor._reader.observations(exchanges(100, 1, probability=0.1))
    assert set(np.round(observations.weights).tolist()) <= {1.0, 10.0}
    assert np.median(observations.weights) == pytest.approx(10)


def test_learning_stops_while_much_is_odd_and_not_for_ever() -> None:
    holding, services, weights = Holding(), np.zeros(50, np.int32), np.ones(50, np.float32)
    calm, odd = np.full(50, 0.5), np.full(50, 0.995)
    now = 0.0

    def add(scores: Any, seconds: int) -> bool:
        nonlocal now
        for _ in range(seconds):
            now += 1
            holding.add(services, scores, weights, now)
        return bool(holding.held(services)[0])

    assert not add(calm, 60)
    assert add(odd, 10)
    assert not add(calm, 120)
    assert add(odd, 1700)
    assert not add(odd, 120)
    assert not add(calm, 120)
    assert add(odd, 10)


def test_shutdown_comes_twice_and_before_a_start() -> None:
    pipeline = Pipeline()
    pipeline.processor.shutdown(0)
    pipeline.processor.start()
    pipeline.processor.shutdown(10)
    pipeline.processor.shutdown(10)
