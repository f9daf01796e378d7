"""OTLP JSON against the protobuf encoding: the same spans, in the spelling of OTLP's JSON mapping."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.otlp_batches import START, batch_of, batches, spans_of
from wirespan import __version__
from wirespan.pipeline.otlp_fields import SCHEMA_URL
from wirespan.pipeline.otlp_json import encode_json
from wirespan.pipeline.spans import Fragment, FragmentColumn, StatusCode


def as_protobuf(line: str) -> ExportTraceServiceRequest:
    """Parsed by protobuf's own JSON mapping, where ids are base64 and not hex."""
    request = json.loads(line)
    for span in _spans(request):
        for field in ("traceId", "spanId", "parentSpanId"):
            span[field] = base64.b64encode(bytes.fromhex(span[field])).decode()
    return json_format.ParseDict(request, ExportTraceServiceRequest())


def _spans(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [span for group in request["resourceSpans"] for scope in group["scopeSpans"] for span in scope["spans"]]


@settings(max_examples=50, deadline=None)
@given(batches())
def test_json_and_protobuf_say_the_same(batch):
    line = encode_json(batch)
    assert "\n" not in line
    message = as_protobuf(line)
    found = [(group.resource, span) for group in message.resource_spans for span in group.scope_spans[0].spans]
    assert found == list(spans_of(batch))


def test_a_span_is_spelled_as_the_collectors_file_exporter_does():
    batch = batch_of(1, name="größe\n")
    table = batch.fragments[0].table
    failed = Fragment(None, (("error", True), ("ratio", 0.5), ("tags", ("a", "b"))), StatusCode.ERROR)
    batch.fragments += (FragmentColumn(table, batch.fragments[0].ids + table.intern(failed)),)
    request = json.loads(encode_json(batch))
    (group,) = request["resourceSpans"]
    (scope,) = group["scopeSpans"]
    assert group["schemaUrl"] == scope["schemaUrl"] == SCHEMA_URL
    assert scope["scope"] == {"name": "wirespan", "version": __version__}
    assert group["resource"] == {"attributes": [{"key": "service.name", "value": {"stringValue": "service-0"}}]}
    assert scope["spans"] == [
        {
            "traceId": "00000000000000010000000000000001",
            "spanId": "0000000000000001",
            "parentSpanId": "",
            "name": "größe\n",
            "kind": 3,
            "startTimeUnixNano": str(START),
            "endTimeUnixNano": str(START + 1_500_000),
            "attributes": [
                {"key": "network.peer.port", "value": {"intValue": "6379"}},
                {"key": "wirespan.response.size", "value": {"intValue": "5"}},
                {"key": "network.peer.address", "value": {"stringValue": "10.0.0.1"}},
                {"key": "server.address", "value": {"stringValue": "10.0.0.1"}},
                {"key": "error", "value": {"boolValue": True}},
                {"key": "ratio", "value": {"doubleValue": 0.5}},
                {"key": "tags", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}}},
            ],
            "status": {"code": 2},
        }
    ]


def test_a_negative_zero_keeps_its_sign():
    batch = batch_of(2)
    batch.numbers = {"ratio": np.array([-0.0, 0.5])}
    values = [span["attributes"][0]["value"]["doubleValue"] for span in _spans(json.loads(encode_json(batch)))]
    assert [str(value) for value in values] == ["-0.0", "0.5"]


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_no_durations_are_written_in_full():
    values = [1e300, -1e300, 2.0**53, 0.1 + 0.2]
    for some in (values, values[:2], values[2:]):
        batch = batch_of(len(some))
        batch.numbers = {"ratio": np.array(some)}
        written = [span["attributes"][0]["value"]["doubleValue"] for span in _spans(json.loads(encode_json(batch)))]
        assert written == some


def test_an_empty_batch_is_an_empty_request():
    assert json.loads(encode_json(batch_of(0))) == {"resourceSpans": []}


def test_text_that_is_not_utf8_is_replaced():
    line = encode_json(batch_of(1, name=b"\xff".decode("utf-8", "surrogateescape")))
    assert _spans(json.loads(line))[0]["name"] == "?"
    line.encode()
