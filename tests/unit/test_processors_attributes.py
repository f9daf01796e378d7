"""The processor ``attributes``: each action, which spans, points and records it is about, and that columns and requests agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.foreign_batches import every_log, every_request, every_span
from support.metric_batches import points
from support.otlp_batches import batch_of, batches, spans_of
from support.passing import Behind, attributes_of, changed_request, request_of
from wirespan.pipeline.component import Context
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.otlp import encode_requests
from wirespan.pipeline.spans import Fragment, FragmentColumn, FragmentTable, SpanBatch
from wirespan.processors.attributes import AttributesProcessor, AttributesSettings
from wirespan.processors.values import set_value
from wirespan.service.config import load
from wirespan.service.document import ConfigurationError

HASH_OF_A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
#: action, attributes before, attributes after; what has more than text is told apart by its type
CASES: tuple[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], ...] = (
    ({"key": "a", "value": "x", "action": "insert"}, {}, {"a": "x"}),
    ({"key": "a", "value": "x", "action": "insert"}, {"a": 1}, {"a": 1}),
    ({"key": "a", "value": "", "action": "insert"}, {}, {"a": ""}),
    ({"key": "a", "value": False, "action": "Insert"}, {}, {"a": False}),
    ({"key": "a", "value": -1, "action": "insert"}, {}, {"a": -1}),
    ({"key": "a", "value": ["x", 1, True], "action": "insert"}, {}, {"a": ("x", 1, True)}),
    ({"key": "a", "value": 1.5, "action": "update"}, {}, {}),
    ({"key": "a", "value": 1.5, "action": "UPDATE"}, {"a": 1}, {"a": 1.5}),
    ({"key": "a", "value": 1.0, "action": "update"}, {"a": True}, {"a": 1.0}),
    ({"key": "a", "value": "x", "action": "upsert"}, {}, {"a": "x"}),
    ({"key": "a", "value": "x", "action": "upsert"}, {"a": "y", "b": "z"}, {"a": "x", "b": "z"}),
    ({"key": "a", "from_attribute": "b", "action": "upsert"}, {"b": 2}, {"a": 2, "b": 2}),
    ({"key": "a", "from_attribute": "b", "action": "upsert"}, {"a": 1}, {"a": 1}),
    ({"key": "a", "from_attribute": "b", "action": "insert"}, {"a": 1, "b": 2}, {"a": 1, "b": 2}),
    ({"key": "a", "from_attribute": "b", "action": "update"}, {"b": 2}, {"b": 2}),
    ({"key": "a", "from_attribute": "b", "default_value": "d", "action": "upsert"}, {}, {"a": "d"}),
    ({"key": "a", "default_value": "d", "action": "insert"}, {}, {"a": "d"}),
    ({"key": "a", "action": "delete"}, {"a": 1, "b": 2}, {"b": 2}),
    ({"key": "a", "action": "delete"}, {"b": 2}, {"b": 2}),
    ({"pattern": "^a", "action": "delete"}, {"a": 1, "ab": "x", "b": 2}, {"b": 2}),
    ({"key": "b", "pattern": "^a", "action": "delete"}, {"a": 1, "b": 2, "c": 3}, {"c": 3}),
    ({"key": "a", "action": "hash"}, {"a": "a"}, {"a": HASH_OF_A}),
    ({"key": "a", "action": "hash"}, {}, {}),
    ({"pattern": "a|b", "action": "hash"}, {"a": "a", "b": "a", "c": "a"}, {"a": HASH_OF_A, "b": HASH_OF_A, "c": "a"}),
    (
        {"key": "a", "action": "hash"},
        {"a": 1},
        {"a": "7c9fa136d4413fa6173637e883b6998d32e1d675f88cddff9dcbcf331820f4b8"},
    ),
    (
        {"key": "a", "action": "hash"},
        {"a": True},
        {"a": "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"},
    ),
    ({"key": "a", "action": "hash"}, {"a": ("x",)}, {"a": ""}),
    (
        {"key": "a", "pattern": "^/(?P<tenant>[^/]+)/(?P<rest>.*)?", "action": "extract"},
        {"a": "/t1/x", "tenant": 5},
        {"a": "/t1/x", "tenant": "t1", "rest": "x"},
    ),
    ({"key": "a", "pattern": "(?P<b>x)|(?P<c>y)", "action": "extract"}, {"a": "y"}, {"a": "y", "b": "", "c": "y"}),
    ({"key": "a", "pattern": "(?P<b>x)", "action": "extract"}, {"a": "y"}, {"a": "y"}),
    ({"key": "a", "pattern": "(?P<b>1)", "action": "extract"}, {"a": 1}, {"a": 1}),
    ({"key": "a", "converted_type": "int", "action": "convert"}, {"a": "+17"}, {"a": 17}),
    ({"key": "a", "converted_type": "int", "action": "convert"}, {"a": "1.5"}, {"a": "1.5"}),
    (
        {"key": "a", "converted_type": "int", "action": "convert"},
        {"a": "9223372036854775808"},
        {"a": "9223372036854775808"},
    ),
    ({"key": "a", "converted_type": "int", "action": "convert"}, {"a": -1.9}, {"a": -1}),
    ({"key": "a", "converted_type": "int", "action": "convert"}, {"a": True}, {"a": 1}),
    ({"key": "a", "converted_type": "int", "action": "convert"}, {"a": ("1",)}, {"a": ("1",)}),
    ({"key": "a", "converted_type": "double", "action": "convert"}, {"a": "1e3"}, {"a": 1000.0}),
    ({"key": "a", "converted_type": "double", "action": "convert"}, {"a": "1e999"}, {"a": "1e999"}),
    ({"key": "a", "converted_type": "double", "action": "convert"}, {"a": "0x1p-3"}, {"a": 0.125}),
    ({"key": "a", "converted_type": "double", "action": "convert"}, {"a": "0x1p99999"}, {"a": "0x1p99999"}),
    ({"key": "a", "converted_type": "double", "action": "convert"}, {"a": "\u0131nf"}, {"a": "\u0131nf"}),
    ({"key": "a", "converted_type": "double", "action": "convert"}, {"a": 3}, {"a": 3.0}),
    ({"key": "a", "converted_type": "double", "action": "convert"}, {"a": False}, {"a": 0.0}),
    ({"key": "a", "converted_type": "string", "action": "convert"}, {"a": 3}, {"a": "3"}),
    ({"key": "a", "converted_type": "string", "action": "convert"}, {"a": 1e21}, {"a": "1e+21"}),
    ({"key": "a", "converted_type": "string", "action": "convert"}, {"a": 1e-7}, {"a": "1e-7"}),
    ({"key": "a", "converted_type": "string", "action": "convert"}, {"a": float("-inf")}, {"a": "-Infinity"}),
    ({"key": "a", "converted_type": "string", "action": "convert"}, {"a": 100000.0}, {"a": "100000"}),
    ({"key": "a", "converted_type": "string", "action": "convert"}, {"a": True}, {"a": "true"}),
    ({"key": "a", "converted_type": "string", "action": "convert"}, {"a": ("<", 1)}, {"a": '["<",1]'}),
)
ANY_ACTION = st.sampled_from([action for action, _, _ in CASES])
#: what spans of a server have
MATCHES: tuple[tuple[Mapping[str, Any], bool], ...] = (
    ({"match_type": "strict", "services": ["service-0"]}, True),
    ({"match_type": "strict", "services": ["service"]}, False),
    ({"match_type": "regexp", "services": ["^serv"]}, True),
    ({"match_type": "strict", "span_names": ["x", "GET"]}, True),
    ({"match_type": "regexp", "span_names": ["^G.T$"], "services": ["other"]}, False),
    ({"match_type": "strict", "span_kinds": ["SPAN_KIND_CLIENT"]}, True),
    ({"match_type": "regexp", "span_kinds": ["SERVER"]}, False),
    ({"match_type": "strict", "attributes": [{"key": "network.peer.port", "value": 6379}]}, True),
    ({"match_type": "strict", "attributes": [{"key": "network.peer.port", "value": "6379"}]}, False),
    ({"match_type": "regexp", "attributes": [{"key": "network.peer.port", "value": "^63"}]}, True),
    ({"match_type": "strict", "attributes": [{"key": "network.peer.port"}, {"key": "nobody"}]}, False),
    ({"match_type": "strict", "resources": [{"key": "service.name", "value": "service-0"}]}, True),
    ({"match_type": "strict", "resources": [{"key": "service.version"}]}, False),
    ({"match_type": "regexp", "libraries": [{"name": "other"}, {"name": "^wire"}]}, True),
    ({"match_type": "strict", "libraries": [{"name": "wirespan", "version": "0"}]}, False),
)


def made(behind: Behind, *actions: Mapping[str, Any], **others: Any) -> AttributesProcessor:
    settings = AttributesSettings.model_validate({"actions": actions, **others})
    return AttributesProcessor(settings, Context("attributes", Counters()), behind)


def span_with(attributes: Mapping[str, Any]) -> Span:
    span = Span(name="s")
    for key, value in attributes.items():
        set_value(span.attributes.add(key=key).value, value)
    return span


def columns_with(attributes: Mapping[str, Any]) -> SpanBatch:
    """Two spans, of which the second has nothing; every attribute in the kind of column that fits it."""
    batch = batch_of(2)
    table = FragmentTable()
    table.fragments += (Fragment("s"), Fragment("s", tuple(attributes.items())))
    return replace(batch, fragments=(FragmentColumn(table, np.array([1, 0])),), numbers={}, texts={})


def after(batch: SpanBatch) -> list[Mapping[str, Any]]:
    """The attributes of each span as they are encoded."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    return [
        attributes_of(span)
        for request in encode_requests(batch)
        for group in ExportTraceServiceRequest.FromString(request.payload).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


@pytest.mark.parametrize(("action", "before", "expected"), CASES)
def test_an_action_does_what_the_collector_does(
    action: Mapping[str, Any], before: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    request = every_span(1)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.CopyFrom(span_with(before))
    changed = changed_request(lambda behind: made(behind, action), request)
    assert attributes_of(changed.resource_spans[0].scope_spans[0].spans[0]) == attributes_of(span_with(expected))


@pytest.mark.parametrize(("action", "before", "expected"), CASES)
def test_an_action_does_the_same_to_columns(
    action: Mapping[str, Any], before: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    behind = Behind()
    made(behind, action).consume(columns_with(before))
    assert after(behind.columns[0])[0] == attributes_of(span_with(expected))


@given(batches(), st.lists(ANY_ACTION, min_size=1, max_size=4), st.randoms())
def test_columns_and_requests_come_to_the_same(batch: SpanBatch, actions: list[Mapping[str, Any]], random: Any) -> None:
    """Of actions about keys that the batch has, most often."""
    keys = sorted({key for span in spans_of(batch) for key in attributes_of(span[1])} - {""})
    actions = [{**action, **({"key": random.choice(keys)} if keys and "key" in action else {})} for action in actions]
    behind = Behind()
    processor = made(behind, *actions)
    processor.consume(batch)
    processor.consume(batch)  # what is remembered says the same
    once, again = map(after, behind.columns)
    assert once == again
    if len(batch) and _has_each_key_once(batch):
        changed = changed_request(lambda behind: made(behind, *actions), request_of(batch))
        assert [attributes_of(group.scope_spans[0].spans[0]) for group in changed.resource_spans] == once


def _has_each_key_once(batch: SpanBatch) -> bool:
    return all(len({item.key for item in span.attributes}) == len(span.attributes) for _, span in spans_of(batch))


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize(("match", "expected"), MATCHES)
def test_spans_are_included_or_excluded_by_what_they_are(
    match: Mapping[str, Any], expected: bool, exclude: bool
) -> None:
    batch = batch_of(3)
    others = {"exclude" if exclude else "include": match}
    action = {"key": "marked", "value": True, "action": "insert"}
    behind = Behind()
    made(behind, action, **others).consume(batch)
    marked = ["marked" in attributes for attributes in after(behind.columns[0])]
    assert marked == [expected is not exclude] * 3
    request = request_of(batch)
    for group in request.resource_spans:
        group.scope_spans[0].scope.name = "wirespan"
        group.scope_spans[0].scope.version = "1"
    changed = changed_request(lambda behind: made(behind, action, **others), request)
    assert ["marked" in attributes_of(group.scope_spans[0].spans[0]) for group in changed.resource_spans] == marked


def test_include_comes_before_exclude_and_only_some_spans_are_changed() -> None:
    batch = batch_of(4, resources=4)
    others = {
        "include": {"match_type": "regexp", "services": ["service-[12]"]},
        "exclude": {"match_type": "strict", "services": ["service-2"]},
    }
    behind = Behind()
    actions = (
        {"key": "network.peer.port", "action": "delete"},
        {"key": "server.address", "action": "delete"},
        {"key": "wirespan.response.size", "converted_type": "string", "action": "convert"},
    )
    made(behind, *actions, **others).consume(batch)
    found = after(behind.columns[0])
    unchanged = after(batch)
    assert found[0::2] + found[3:] == unchanged[0::2] + unchanged[3:]
    assert found[1] == {"network.peer.address": "10.0.0.1", "wirespan.response.size": "5"}


def test_every_data_point_of_an_included_metric_is_changed() -> None:
    request = every_request()["metrics"]
    name = request.resource_metrics[0].scope_metrics[0].metrics[0].name
    action = {"key": "marked", "value": "x", "action": "insert"}
    changed = changed_request(lambda behind: made(behind, action), request)
    assert all("marked" in attributes_of(point[-1]) for point in points(changed))
    include = {"match_type": "strict", "metric_names": [name]}
    changed = changed_request(lambda behind: made(behind, action, include=include), request)
    marked = ["marked" in attributes_of(point[-1]) for point in points(changed)]
    assert any(marked)
    assert not all(marked)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"match_type": "strict", "log_bodies": ["message 1"]}, [False, True, False]),
        ({"match_type": "regexp", "log_bodies": ["nested"]}, [True, False, False]),
        ({"match_type": "strict", "log_severity_texts": ["ERROR"]}, [True, True, False]),
        ({"match_type": "strict", "log_severity_number": {"min": 17}}, [True, True, False]),
        ({"match_type": "strict", "log_severity_number": {"min": 18, "match_undefined": True}}, [False, False, True]),
        ({"match_type": "strict", "attributes": [{"key": "log.file.name", "value": "app.log"}]}, [True, True, True]),
    ],
)
def test_log_records_are_included_by_what_they_are(match: Mapping[str, Any], expected: list[bool]) -> None:
    request = every_log(3)
    last = request.resource_logs[0].scope_logs[0].log_records[2]
    last.severity_number = 0
    last.severity_text = ""
    action = {"key": "marked", "value": "x", "action": "insert"}
    changed = changed_request(lambda behind: made(behind, action, include=match), request)
    records = changed.resource_logs[0].scope_logs[0].log_records
    assert ["marked" in attributes_of(record) for record in records] == expected


def test_of_a_key_that_is_there_twice_both_are_deleted() -> None:
    request = every_span(1)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.extend([KeyValue(key="password", value=AnyValue(string_value=text)) for text in ("a", "b")])
    changed = changed_request(lambda behind: made(behind, {"key": "password", "action": "delete"}), request)
    assert "password" not in {item.key for item in changed.resource_spans[0].scope_spans[0].spans[0].attributes}


def test_tables_do_not_grow_with_the_number_of_actions() -> None:
    """Each action that changes a fragment makes it another one, but none that is in no span."""
    batch, behind = batch_of(2), Behind()
    for number in range(100):
        batch.fragments[0].table.intern(Fragment(f"name {number}", (("server.address", f"10.0.0.{number}"),)))
    actions = [{"key": "server.address", "value": str(number), "action": "update"} for number in range(10)]
    processor = made(behind, *actions)
    for number in range(100):
        ids = np.full(2, number)
        processor.consume(replace(batch, fragments=(FragmentColumn(batch.fragments[0].table, ids),)))
    assert max(len(column.table) for column in behind.columns[-1].fragments) <= 101


def problems_of(folder: Path, processor: str, pipeline: str = "traces") -> list[str]:
    file = folder / "w.yaml"
    file.write_text(
        "receivers: {otlp: {protocols: {grpc: }}}\nexporters: {debug: }\n"
        f"service: {{pipelines: {{{pipeline}: {{receivers: [otlp], processors: [attributes], exporters: [debug]}}}}}}\n"
        f"processors:\n  attributes: {processor}\n"
    )
    with pytest.raises(ConfigurationError) as raised:
        load(file, {})
    return [str(problem).partition("processors.attributes.")[2] or str(problem) for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            "{key: a, action: remove}",
            'actions[0].action: "remove" is not one of insert, update, upsert, delete, hash, extract, convert',
        ),
        ("{key: a, action: insert}", "actions[0]: insert needs value, from_attribute or default_value"),
        ("{action: insert, value: 1}", "actions[0]: insert needs key"),
        ("{action: delete}", "actions[0]: delete needs key or pattern"),
        ("{key: a, action: delete, value: 1}", "actions[0]: delete does not use value"),
        (
            "{key: a, action: upsert, value: 1, from_attribute: b}",
            "actions[0]: value and from_attribute exclude each other",
        ),
        (
            "{key: a, action: extract}",
            "actions[0]: extract needs a pattern, all of whose groups are named: (?P<name>…)",
        ),
        (
            "{key: a, action: extract, pattern: '(a)'}",
            "actions[0]: extract needs a pattern, all of whose groups are named: (?P<name>…)",
        ),
        ("{key: a, action: convert}", "actions[0]: convert needs converted_type"),
        (
            "{key: a, action: convert, converted_type: bool}",
            'actions[0].converted_type: "bool" is not one of int, double, string',
        ),
        (
            "{key: a, action: hash, pattern: '('}",
            'actions[0].pattern: "(" is not a regular expression of RE2: missing ): (',
        ),
        ("{key: a, action: insert, from_context: x}", "actions[0].from_context: unknown key"),
    ],
)
def test_a_wrong_action_is_refused_with_its_place(tmp_path: Path, action: str, message: str) -> None:
    (found,) = problems_of(tmp_path, f"{{actions: [{action}]}}")
    assert found.startswith(message)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    wrong = "{actions: [{key: a, action: drop}, {action: hash}], include: {match_type: glob}, exclude: {match_type: strict}}"
    assert len(problems_of(tmp_path, wrong)) == 4
    patterns = "{match_type: regexp, span_names: ['a(', b], attributes: [{key: a, value: 1}]}"
    (found,) = problems_of(tmp_path, f"{{actions: [{{key: a, action: hash}}], include: {patterns}}}")
    assert "attributes[0]: 1 is no text" in found
    assert 'span_names[0]: "a(" is not a regular expression' in found


@pytest.mark.parametrize(
    ("pipeline", "key"),
    [("traces", "log_bodies"), ("metrics", "span_names"), ("logs", "services"), ("metrics", "span_kinds")],
)
def test_what_a_signal_does_not_have_cannot_be_matched_in_it(tmp_path: Path, pipeline: str, key: str) -> None:
    match = f"{{match_type: regexp, {key}: [x]}}"
    (found,) = problems_of(tmp_path, f"{{actions: [{{key: a, action: hash}}], exclude: {match}}}", pipeline)
    assert found.endswith(
        f'"attributes" cannot be in a pipeline of {pipeline}: exclude: {key} cannot be matched in {pipeline}'
    )
