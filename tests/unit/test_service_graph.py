"""How components are connected, in which order they start and stop, and what a failing one does to the others."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from wirespan.pipeline.component import (
    ComponentConfig,
    Consumer,
    Context,
    EncodedConsumer,
    Factory,
    Outcome,
    Outputs,
    Signal,
    StartError,
)
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.spans import ResourceTable, SpanBatch
from wirespan.service.config import load
from wirespan.service.graph import Graph
from wirespan.service.registry import Registry


class Settings(ComponentConfig):
    refuses: bool = False
    fails_to_stop: bool = False
    outcome: Outcome = Outcome.TAKEN
    facts: dict[str, int | str] = Field(default_factory=dict)


@dataclass
class Part:
    """A component that notes what happens to it; a receiver or processor also has somewhere to send batches."""

    config: Settings
    context: Context
    events: list[str]
    consumer: Consumer | None = None
    metrics: EncodedConsumer | None = None
    batches: list[SpanBatch] = field(default_factory=list)
    metrics_batches: list[EncodedBatch] = field(default_factory=list)

    def facts(self) -> dict[str, int | str]:
        return self.config.facts

    def start(self) -> None:
        if self.config.refuses:
            raise StartError("port 4317 is in use")
        self.events.append(f"start {self.context.id}")

    def consume(self, batch: SpanBatch) -> None:
        self.batches.append(batch)
        self.events.append(f"got {self.context.id}")
        if self.consumer is not None:
            self.consumer.consume(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        self.metrics_batches.append(batch)
        return self.config.outcome if self.metrics is None else self.metrics.consume_encoded(batch)

    def shutdown(self, deadline: float) -> None:
        assert deadline > time.monotonic()
        self.events.append(f"stop {self.context.id}")
        if self.config.fails_to_stop:
            raise RuntimeError("stuck")


@dataclass
class Built:
    graph: Graph
    parts: dict[str, list[Part]]
    events: list[str]
    counters: Counters


def built(folder: Path, text: str, tally: Consumer | None = None) -> Built:
    events: list[str] = []
    parts: dict[str, list[Part]] = {}

    def create(config: Settings, context: Context, behind: Any = None) -> Part:
        """behind: of a receiver its outputs, of a processor what takes the signal of its pipeline."""
        outputs = behind if isinstance(behind, Outputs) else Outputs(**dict.fromkeys(context.signals, behind))
        part = Part(config, context, events, outputs.traces, outputs.metrics)
        parts.setdefault(context.id, []).append(part)
        return part

    both = frozenset[Signal]({"traces", "metrics"})
    factories = [
        Factory("receiver", "probe", Settings, create, signals=both),
        Factory("processor", "filter", Settings, create, signals=both),
        Factory("exporter", "sink", Settings, create, signals=both),
    ]
    file = folder / "w.yaml"
    file.write_text(text, encoding="utf-8")
    configuration = load(file, {}, (), Registry(lambda: factories))
    counters = Counters()
    return Built(Graph(configuration, counters, tally), parts, events, counters)


def one_span() -> SpanBatch:
    ones = np.ones(1, np.uint64)
    return SpanBatch(
        trace_id=np.ones((1, 2), np.uint64),
        span_id=ones,
        parent_span_id=ones,
        start=ones,
        end=ones,
        kind=np.ones(1, np.uint8),
        resource=np.zeros(1, np.int64),
        resources=ResourceTable(),
        fragments=(),
    )


CHAIN = """\
receivers: {probe: }
processors: {filter/a: , filter/b: }
exporters: {sink/a: , sink/b: }
service: {pipelines: {traces: {receivers: [probe], processors: [filter/a, filter/b], exporters: [sink/a, sink/b]}}}
"""
SHARED = """\
receivers: {probe: }
processors: {filter: }
exporters: {sink: }
service:
  pipelines:
    traces/a: {receivers: [probe], processors: [filter], exporters: [sink]}
    traces/b: {receivers: [probe], processors: [filter], exporters: [sink]}
"""


BOTH_SIGNALS = """\
receivers: {probe: , probe/metrics: }
processors: {filter: }
exporters: {sink: , sink/metrics: }
service:
  pipelines:
    traces: {receivers: [probe], processors: [filter], exporters: [sink]}
    metrics: {receivers: [probe, probe/metrics], processors: [filter], exporters: [sink, sink/metrics]}
    metrics/raw: {receivers: [probe], exporters: [sink/metrics]}
"""


def test_exporters_start_first_and_receivers_last_and_stop_is_the_reverse(tmp_path: Path) -> None:
    chain = built(tmp_path, CHAIN)
    chain.graph.start()
    starts = ["sink/a", "sink/b", "filter/b", "filter/a", "probe"]
    assert chain.events == [f"start {id}" for id in starts]
    chain.events.clear()
    assert chain.graph.shutdown(time.monotonic() + 5)
    assert chain.events == [f"stop {id}" for id in reversed(starts)]


def test_a_batch_passes_the_processors_in_order_and_reaches_every_exporter(tmp_path: Path) -> None:
    chain = built(tmp_path, CHAIN)
    batch = one_span()
    chain.parts["probe"][0].consume(batch)
    assert chain.events == [f"got {id}" for id in ("probe", "filter/a", "filter/b", "sink/a", "sink/b")]
    for exporter in ("sink/a", "sink/b"):
        (received,) = chain.parts[exporter][0].batches
        assert received is batch


def test_pipelines_share_receivers_and_exporters_but_not_processors(tmp_path: Path) -> None:
    shared = built(tmp_path, SHARED)
    assert {id: len(parts) for id, parts in shared.parts.items()} == {"sink": 1, "filter": 2, "probe": 1}
    shared.parts["probe"][0].consume(one_span())
    assert [len(part.batches) for part in shared.parts["filter"]] == [1, 1]
    assert len(shared.parts["sink"][0].batches) == 2


def test_a_component_that_cannot_start_is_named_and_what_started_is_stopped(tmp_path: Path) -> None:
    chain = built(tmp_path, CHAIN.replace("filter/a: ", "filter/a: {refuses: true}"))
    with pytest.raises(StartError, match="the processor filter/a cannot start: port 4317 is in use"):
        chain.graph.start()
    chain.events.clear()
    assert chain.graph.shutdown(time.monotonic() + 5)
    assert chain.events == ["stop filter/b", "stop sink/b", "stop sink/a"]


def test_a_component_that_fails_to_stop_does_not_keep_the_others_from_stopping(tmp_path: Path) -> None:
    chain = built(tmp_path, CHAIN.replace("filter/a: ", "filter/a: {fails_to_stop: true}"))
    chain.graph.start()
    chain.events.clear()
    assert not chain.graph.shutdown(time.monotonic() + 5)
    assert len(chain.events) == 5


def test_nothing_is_stopped_twice(tmp_path: Path) -> None:
    chain = built(tmp_path, CHAIN)
    chain.graph.start()
    chain.graph.shutdown(time.monotonic() + 5)
    chain.events.clear()
    assert chain.graph.shutdown(time.monotonic() + 5)
    assert chain.events == []


def test_an_unused_component_is_not_made(tmp_path: Path) -> None:
    assert "sink/c" not in built(tmp_path, CHAIN.replace("sink/b: }", "sink/b: , sink/c: }")).parts


def test_facts_are_said_by_receivers_first_and_listed_where_they_differ(tmp_path: Path) -> None:
    said = {"probe": "{processes: 7, seen: x}", "sink/a": "{exports_to: a}", "sink/b": "{exports_to: b, seen: x}"}
    text = CHAIN
    for component, facts in said.items():
        text = text.replace(f"{component}: ", f"{component}: {{facts: {facts}}}")
    found = built(tmp_path, text).graph.facts()
    assert list(found.items()) == [("processes", 7), ("seen", "x"), ("exports_to", ["b", "a"])]


def test_what_receivers_hand_on_is_tallied_once_though_several_pipelines_get_it(tmp_path: Path) -> None:
    tally = Part(Settings(), Context("tally", Counters()), [])
    shared = built(tmp_path, SHARED, tally)
    (receiver,) = shared.parts["probe"]
    assert receiver.consumer is not None
    receiver.consumer.consume(one_span())
    assert [len(batch) for batch in tally.batches] == [1]
    assert len(shared.parts["sink"][0].batches) == 2


def test_a_receiver_hands_each_signal_to_the_pipelines_of_that_signal_alone(tmp_path: Path) -> None:
    both = built(tmp_path, BOTH_SIGNALS)
    (probe,), (metrics_only,) = both.parts["probe"], both.parts["probe/metrics"]
    assert metrics_only.consumer is None
    spans, points = one_span(), EncodedBatch("metrics", b"", 3)
    probe.consume(spans)
    probe.consume_encoded(points)
    filters = {frozenset(part.context.signals): part for part in both.parts["filter"]}
    assert filters[frozenset({"traces"})].batches == [spans]
    assert filters[frozenset({"traces"})].metrics_batches == []
    assert filters[frozenset({"metrics"})].metrics_batches == [points]
    assert filters[frozenset({"metrics"})].batches == []
    (sink,), (metrics_sink,) = both.parts["sink"], both.parts["sink/metrics"]
    assert (sink.batches, sink.metrics_batches) == ([spans], [points])
    assert (metrics_sink.batches, metrics_sink.metrics_batches) == ([], [points, points])
    metrics_only.consume_encoded(points)
    assert len(metrics_sink.metrics_batches) == 3


def test_each_component_is_told_the_signals_of_its_pipelines(tmp_path: Path) -> None:
    parts = built(tmp_path, BOTH_SIGNALS).parts
    signals = {id: [set(part.context.signals) for part in made] for id, made in parts.items()}
    assert signals["probe"] == signals["sink"] == [{"traces", "metrics"}]
    assert signals["probe/metrics"] == signals["sink/metrics"] == [{"metrics"}]
    assert signals["filter"] == [{"traces"}, {"metrics"}]


def test_metrics_are_not_tallied(tmp_path: Path) -> None:
    tally = Part(Settings(), Context("tally", Counters()), [])
    both = built(tmp_path, BOTH_SIGNALS, tally)
    both.parts["probe"][0].consume_encoded(EncodedBatch("metrics", b"", 3))
    both.parts["probe"][0].consume(one_span())
    assert (len(tally.batches), tally.metrics_batches) == (1, [])


@pytest.mark.parametrize(("of_one", "of_other"), [(Outcome.TAKEN, Outcome.BUSY), (Outcome.BUSY, Outcome.FAILED)])
def test_a_receiver_is_told_the_worst_of_what_became_of_a_batch(
    tmp_path: Path, of_one: Outcome, of_other: Outcome
) -> None:
    text = BOTH_SIGNALS.replace("sink: ,", f"sink: {{outcome: {of_one:d}}},")
    both = built(tmp_path, text.replace("sink/metrics: }", f"sink/metrics: {{outcome: {of_other:d}}}}}"))
    (probe,), (sink,) = both.parts["probe"], both.parts["sink"]
    assert probe.consume_encoded(EncodedBatch("metrics", b"", 3)) is of_other
    assert len(sink.metrics_batches) == 1


def test_what_comes_to_each_processor_and_what_it_hands_on_is_counted(tmp_path: Path) -> None:
    chain = built(tmp_path, CHAIN)
    chain.parts["probe"][0].consume(one_span())
    chain.parts["filter/a"][0].consumer = None  # it takes out what follows
    chain.parts["probe"][0].consume(one_span())
    counted = {
        (name.removeprefix("otelcol_processor_"), dict(attributes)["processor"]): amount
        for (name, attributes), amount in chain.counters.snapshot().items()
    }
    assert counted == {
        ("incoming_items", "filter/a"): 2,
        ("outgoing_items", "filter/a"): 1,
        ("incoming_items", "filter/b"): 1,
        ("outgoing_items", "filter/b"): 1,
    }
    assert {dict(attributes)["otel.signal"] for _, attributes in chain.counters.snapshot()} == {"traces"}
