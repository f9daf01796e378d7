"""The processor ``resource``: of every signal and in either form resources have what the actions say, once a distinct one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from support.foreign_batches import encoded, every_request, every_span
from support.metric_batches import text
from support.otlp_batches import batch_of, batches, spans_of
from support.passing import Behind, attributes_of, changed_request, request_of
from wirespan.pipeline.component import Context, Outcome, Signal
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.processors.resource import FACTORY, ResourceProcessor, ResourceSettings

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
INSERT = {"key": "deployment.environment.name", "value": "test", "action": "insert"}
ACTIONS: tuple[Mapping[str, Any], ...] = (
    INSERT,
    {"key": "service.name", "value": "other", "action": "insert"},
    {"key": "service.name", "value": "other", "action": "update"},
    {"key": "zone", "value": 7, "action": "UPSERT"},
    {"key": "copied", "from_attribute": "service.name", "action": "upsert"},
    {"key": "copied", "from_attribute": "nobody", "action": "insert"},
    {"key": "copied", "from_attribute": "nobody", "default_value": "d", "action": "insert"},
    {"key": "service.name", "action": "delete"},
    {"pattern": "^service", "action": "delete"},
    {"key": "service.name", "action": "hash"},
    {"key": "service.name", "pattern": "(?P<head>.)(?P<tail>.*)", "action": "extract"},
    {"key": "process.pid", "converted_type": "string", "action": "convert"},
    {"key": "list", "value": ["a", "b"], "action": "insert"},
)


def made(behind: Behind, *actions: Mapping[str, Any]) -> ResourceProcessor:
    settings = ResourceSettings.model_validate({"attributes": actions})
    return ResourceProcessor(settings, Context("resource", Counters()), behind)


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_resources_of_a_request_are_changed_and_nothing_else(signal: Signal) -> None:
    request = every_request()[signal]
    changed = changed_request(lambda behind: made(behind, INSERT), request)
    for group in getattr(request, f"resource_{'spans' if signal == 'traces' else signal}"):
        group.resource.attributes.append(text("deployment.environment.name", "test"))
    assert changed == request


@given(batches(), st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=4))
def test_columns_and_requests_come_to_the_same(batch: Any, actions: list[Mapping[str, Any]]) -> None:
    behind = Behind()
    made(behind, *actions).consume(batch)
    (columns,) = behind.columns
    expected = [attributes_of(resource) for resource, _ in spans_of(columns)]
    if len(batch):
        changed = changed_request(lambda behind: made(behind, *actions), request_of(batch))
        found = [
            attributes_of(group.resource)
            for group in changed.resource_spans
            for scope in group.scope_spans
            for _ in scope.spans
        ]
        assert found == expected


def test_a_resource_is_changed_once_however_many_spans_and_batches_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    behind, batch, calls = Behind(), batch_of(1000, resources=3), []
    processor = made(behind, INSERT)
    resources = processor._resources
    change = resources._change
    monkeypatch.setattr(resources, "_change", lambda attributes: (calls.append(1), change(attributes)))
    for _ in range(3):
        processor.consume(batch)
        assert processor.consume_encoded(encoded(every_span(100))) is Outcome.TAKEN
    assert len(calls) == 3 + 1
    assert behind.columns[0].resources is behind.columns[2].resources
    batch.resources.intern({"service.name": "new"})
    processor.consume(batch)
    assert behind.columns[3].resources.resources[3] == {
        "service.name": "new",
        "deployment.environment.name": "test",
    }


def test_what_came_in_is_not_changed() -> None:
    behind, batch = Behind(), batch_of(2)
    before = list(spans_of(batch))
    made(behind, INSERT).consume(batch)
    assert list(spans_of(batch)) == before


def test_a_request_without_a_resource_gets_one_and_one_in_parts_is_one() -> None:
    request = every_span(1)
    group = request.resource_spans[0]
    group.ClearField("resource")
    changed = changed_request(lambda behind: made(behind, INSERT), request)
    assert attributes_of(changed.resource_spans[0].resource) == {"deployment.environment.name": "test"}
    parts = [Resource(attributes=[text("a", "1")]), Resource(attributes=[text("a", "2"), text("b", "3")])]
    data = b"".join(b"\x0a" + bytes([part.ByteSize()]) + part.SerializeToString() for part in parts)
    delete = {"key": "a", "action": "delete"}
    raw = b"\x0a" + bytes([len(data)]) + data
    behind = Behind()
    made(behind, delete).consume_encoded(EncodedBatch("traces", raw, 1))
    assert attributes_of(type(request).FromString(behind.batches[0].data).resource_spans[0].resource) == {"b": "3"}


def test_it_is_in_pipelines_of_all_signals() -> None:
    assert FACTORY.signals == set(SIGNALS)
    assert FACTORY.encoded_spans
