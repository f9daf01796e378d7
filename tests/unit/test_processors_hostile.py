"""Whatever passes the check of the receiver passes all processors that look into requests, as a request of as many items; and
exporters show whatever becomes of columns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from support.batches import make_batch
from support.foreign_batches import every_request
from support.passing import Behind
from wirespan.exporters.debug_format import span_row
from wirespan.exporters.terminal.activity import Activity
from wirespan.pipeline.component import Context, Outcome, Signal
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.otlp import encode_requests
from wirespan.pipeline.otlp_json import encode_json
from wirespan.pipeline.protobuf import MalformedMessage
from wirespan.pipeline.scanning import scanned
from wirespan.processors import attributes, redaction, resource, resource_detection
from wirespan.processors.values import as_text, set_value, value_of

REQUESTS = {signal: request.SerializeToString() for signal, request in every_request().items()}
PATTERN = "(?P<first>.)(?P<rest>.*)"
EVERY_ACTION = [
    {"key": "service.name", "action": "hash"},
    {"pattern": ".", "action": "hash"},
    {"key": "n", "converted_type": "string", "action": "convert"},
    {"key": "täglich", "pattern": PATTERN, "action": "extract"},
    {"key": "copy", "from_attribute": "n", "action": "upsert"},
    {"pattern": "^t", "action": "delete"},
]
CHOSEN = {"match_type": "regexp", "resources": [{"key": "service.name", "value": "."}]}
PROCESSORS: list[tuple[Any, Any]] = [
    (resource, {"attributes": EVERY_ACTION}),
    (attributes, {"actions": EVERY_ACTION}),
    (attributes, {"actions": EVERY_ACTION, "include": CHOSEN, "exclude": CHOSEN}),
    (redaction, {"summary": "debug"}),
    (
        redaction,
        {"allow_all_keys": True, "redact_all_types": True, "blocked_values": [".", "^$"], "summary": "debug"},
    ),
    (resource_detection, {"detectors": ["system"], "system": {"hostname_sources": ["os"]}}),
]


@pytest.fixture(scope="module")
def processors() -> list[tuple[Any, Behind]]:
    made = []
    for module, configured in PROCESSORS:
        behind, factory = Behind(), module.FACTORY
        processor = factory.create(factory.config.model_validate(configured), Context("p", Counters()), behind)
        processor.start()
        made.append((processor, behind))
    return made


def passes(processors: list[tuple[Any, Behind]], batch: EncodedBatch) -> None:
    for processor, behind in processors:
        behind.batches.clear()
        assert processor.consume_encoded(batch) is Outcome.TAKEN
        (out,) = behind.batches
        assert scanned(batch.signal, out.data).items == batch.items == out.items


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(sorted(REQUESTS)),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=4)), min_size=1, max_size=4),
)
def test_damaged_requests_pass_or_are_refused_before(
    processors: list[tuple[Any, Behind]], signal: Signal, damage: list[tuple[int, bytes]]
) -> None:
    data = REQUESTS[signal]
    for at, replacement in damage:
        at %= len(data)
        data = data[:at] + replacement + data[at + len(replacement) :]
    try:
        batch = scanned(signal, data)
    except MalformedMessage:
        return
    passes(processors, batch)


def test_whatever_becomes_of_columns_exporters_show_it(processors: list[tuple[Any, Behind]]) -> None:
    activity = Activity(0.0)
    for processor, behind in processors:
        for seed in range(3):
            processor.consume(make_batch(50, seed))
            batch = behind.columns.pop()
            activity.add(batch, float(seed))
            assert len(json.loads(encode_json(batch))["resourceSpans"]) >= 1
            assert sum(spans for _, spans in encode_requests(batch)) == len([span_row(batch, row) for row in range(50)])


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_values = st.recursive(
    st.one_of(st.none(), _texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.binary(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.dictionaries(_texts, inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(st.tuples(_texts, _values), max_size=5), _values)
def test_values_of_every_type_pass(
    processors: list[tuple[Any, Behind]], pairs: list[tuple[str, Any]], body: Any
) -> None:
    for signal, request in every_request().items():
        items = scanned(signal, REQUESTS[signal]).items
        for group in request.ListFields()[0][1]:
            carriers = [group.resource]
            for scope in group.ListFields()[1][1]:
                carriers.append(scope.scope)
                if signal == "logs":
                    carriers += scope.log_records
                    set_value(scope.log_records[0].body, body)
                if signal == "traces":
                    carriers += scope.spans
            for carrier in carriers:
                for key, value in pairs:
                    set_value(carrier.attributes.add(key=key).value, value)
        passes(processors, EncodedBatch(signal, request.SerializeToString(), items))


@given(_values)
def test_a_value_is_the_same_again(value: Any) -> None:
    message = AnyValue()
    set_value(message, value)
    again = AnyValue()
    set_value(again, value_of(message))
    assert again.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
    assert isinstance(as_text(value), str)


def test_a_message_as_deep_as_the_receiver_takes_passes(processors: list[tuple[Any, Behind]]) -> None:
    request = every_request()["logs"]
    value = request.resource_logs[0].scope_logs[0].log_records[0].body
    value.Clear()
    depth = 0
    while depth < 100:
        value = value.array_value.values.add()
        depth += 1
        try:
            batch = scanned("logs", request.SerializeToString())
        except (MalformedMessage, ValueError):
            break
        passes(processors, batch)
    assert 20 < depth < 100
