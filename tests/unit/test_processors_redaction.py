"""The processor ``redaction``: what is secret does not pass, in no signal and in neither form, and what was done is said."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from support.foreign_batches import encoded, every_log, every_request, every_span
from support.metric_batches import points
from support.otlp_batches import batch_of, batches, spans_of
from support.passing import Behind, attributes_of, changed_request, request_of
from wirespan.pipeline.component import Context
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.otlp import encode_requests
from wirespan.pipeline.spans import Fragment, FragmentColumn, FragmentTable, SpanBatch, TextColumn
from wirespan.processors import redaction_rules
from wirespan.processors.redaction import RedactionProcessor
from wirespan.processors.redaction_rules import RedactionSettings
from wirespan.processors.values import set_value

CARD = "4111111111111111"
VISA = "4[0-9]{12}(?:[0-9]{3})?"
KEY = "k" * 64
EVERY = {"allow_all_keys": True}
#: settings, attributes before, attributes after
CASES: tuple[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], ...] = (
    ({}, {"a": "x", "b": 1}, {}),
    ({"allowed_keys": ["a"]}, {"a": "x", "b": 1}, {"a": "x"}),
    (EVERY, {"a": "x", "b": 1}, {"a": "x", "b": 1}),
    ({"ignored_keys": ["b"], "blocked_values": ["."]}, {"a": "x", "b": "y"}, {"b": "y"}),
    ({"ignored_key_patterns": ["^b"], "blocked_values": ["."]}, {"a": "x", "bb": "y"}, {"bb": "y"}),
    ({**EVERY, "blocked_values": [VISA]}, {"a": f"card {CARD}, and {CARD}"}, {"a": "card ****, and ****"}),
    ({**EVERY, "blocked_values": ["b+", "a"]}, {"a": "abba"}, {"a": "****" * 3}),
    ({**EVERY, "blocked_values": ["x*"]}, {"a": "axb"}, {"a": "****a****b****"}),
    ({**EVERY, "blocked_values": ["11"]}, {"a": 4111}, {"a": 4111}),
    ({**EVERY, "blocked_values": ["11"], "redact_all_types": True}, {"a": 4111}, {"a": "4****1"}),
    ({**EVERY, "blocked_values": ["rue"], "redact_all_types": True}, {"a": True}, {"a": "t****"}),
    ({**EVERY, "blocked_values": ["b"], "redact_all_types": True}, {"a": ("a", "b")}, {"a": '["a","****"]'}),
    (
        {**EVERY, "blocked_values": ["mycompany"], "allowed_values": ["@mycompany"]},
        {"a": "x@mycompany"},
        {"a": "x@mycompany"},
    ),
    ({**EVERY, "blocked_key_patterns": ["token"]}, {"my.token": "x", "a": "token"}, {"my.token": "****", "a": "token"}),
    ({**EVERY, "blocked_key_patterns": ["token"]}, {"token": 7, "tokens": ("x",)}, {"token": "****", "tokens": "****"}),
    ({**EVERY, "blocked_key_patterns": ["token"], "allowed_values": ["^ok$"]}, {"token": "ok"}, {"token": "ok"}),
    ({**EVERY, "blocked_values": ["b"], "masking_string": "?"}, {"a": "abc"}, {"a": "a?c"}),
    (
        {**EVERY, "blocked_values": ["b+"], "hash_function": "MD5"},
        {"a": "abc"},
        {"a": f"a{hashlib.md5(b'b').hexdigest()}c"},
    ),
    ({**EVERY, "blocked_values": ["^.*$"], "hash_function": "sha1"}, {"a": "b"}, {"a": hashlib.sha1(b"b").hexdigest()}),
    (
        {**EVERY, "blocked_values": ["^.*$"], "hash_function": "sha3"},
        {"a": "b"},
        {"a": hashlib.sha3_256(b"b").hexdigest()},
    ),
    (
        {**EVERY, "blocked_values": ["^.*$"], "hash_function": "hmac-sha256", "hmac_key": KEY},
        {"a": "ü"},
        {"a": hmac.new(KEY.encode(), "ü".encode(), "sha256").hexdigest()},
    ),
    (
        {"allowed_keys": ["a", "b"], "blocked_values": ["x"], "summary": "debug"},
        {"a": "x", "b": "x", "c": 1, "d": 2},
        {
            "a": "****",
            "b": "****",
            "redaction.masked.keys": "a,b",
            "redaction.masked.count": 2,
            "redaction.redacted.keys": "c,d",
            "redaction.redacted.count": 2,
        },
    ),
    (
        {**EVERY, "blocked_values": ["x"], "allowed_values": ["^y"], "ignored_keys": ["c"], "summary": "info"},
        {"a": "x", "b": "yx", "c": "x"},
        {
            "a": "****",
            "b": "yx",
            "c": "x",
            "redaction.masked.count": 1,
            "redaction.allowed.count": 1,
            "redaction.ignored.count": 1,
        },
    ),
    (
        {"allowed_keys": ["a"], "blocked_values": ["x"], "summary": "debug"},
        {
            "a": "x",
            "redaction.masked.keys": "before",
            "redaction.masked.count": 1,
            "redaction.allowed.keys": "gone",
            "redaction.allowed.count": 1,
        },
        {"a": "****", "redaction.masked.keys": "a,before", "redaction.masked.count": 2},
    ),
    ({"allowed_keys": ["a"]}, {"a": "y", "redaction.masked.count": 1}, {"a": "y"}),
    ({**EVERY, "blocked_values": ["."]}, {"redaction.masked.keys": "x"}, {"redaction.masked.keys": "x"}),
)


def made(behind: Behind, chosen: Mapping[str, Any]) -> RedactionProcessor:
    return RedactionProcessor(RedactionSettings.model_validate(chosen), Context("redaction", Counters()), behind)


def typed(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    request = every_span(1)
    fill(request.resource_spans[0].scope_spans[0].spans[0], attributes)
    return attributes_of(request.resource_spans[0].scope_spans[0].spans[0])


def fill(message: Any, attributes: Mapping[str, Any]) -> None:
    message.ClearField("attributes")
    for key, value in attributes.items():
        set_value(message.attributes.add(key=key).value, value)


def after(batch: SpanBatch) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The attributes of each resource and span as they are encoded."""
    return [
        (attributes_of(group.resource), attributes_of(span))
        for request in encode_requests(batch)
        for group in ExportTraceServiceRequest.FromString(request.payload).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


@pytest.mark.parametrize(("chosen", "before", "expected"), CASES)
def test_attributes_are_redacted_wherever_they_are(
    chosen: Mapping[str, Any], before: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    for signal, request in every_request().items():
        carriers = list(carriers_of(signal, request))
        for carrier in carriers:
            fill(carrier, before)
        changed = changed_request(lambda behind: made(behind, chosen), request)
        found = [
            {key: value for key, value in attributes_of(carrier).items() if not key.startswith("redaction.body.")}
            for carrier in carriers_of(signal, changed)
        ]
        assert found == [typed(expected)] * len(carriers), signal


def carriers_of(signal: str, request: Any) -> Any:
    """All that has attributes to be looked at."""
    name = "spans" if signal == "traces" else signal
    records = "log_records" if signal == "logs" else name
    for group in getattr(request, f"resource_{name}"):
        yield group.resource
        for scope in getattr(group, f"scope_{name}"):
            yield scope.scope
            if signal != "metrics":
                yield from getattr(scope, records)
            if signal == "traces":
                yield from (event for span in scope.spans for event in span.events)
    if signal == "metrics":
        yield from (point[-1] for point in points(request))


@pytest.mark.parametrize(("chosen", "before", "expected"), CASES)
def test_columns_are_redacted_the_same_way(
    chosen: Mapping[str, Any], before: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """Texts as fragments and as texts of their own, numbers as fragments and as columns."""
    for apart in (False, True):
        behind = Behind()
        made(behind, chosen).consume(columns_with(before, apart))
        (_, first), (_, second) = after(behind.columns[0])
        assert first == typed(expected)
        assert second == {}


def columns_with(attributes: Mapping[str, Any], apart: bool) -> SpanBatch:
    """Two spans, of which the second has nothing."""
    table = FragmentTable()
    shared = {key: value for key, value in attributes.items() if not apart or type(value) not in (str, int)}
    table.fragments += (Fragment("s"), Fragment("s", tuple(shared.items())))
    numbers = {key: np.array([value, -1]) for key, value in attributes.items() if apart and type(value) is int}
    texts = {
        key: TextColumn(np.frombuffer(value.encode(), np.uint8), np.array([0, 0]), np.array([len(value.encode()), -1]))
        for key, value in attributes.items()
        if apart and type(value) is str
    }
    fragments = (FragmentColumn(table, np.array([1, 0])),)
    return replace(batch_of(2), fragments=fragments, numbers=numbers, texts=texts)


#: settings that find something in texts that hypothesis makes
_PATTERNS = st.lists(st.sampled_from(["0", "[a-m]", "^.$", "e", "\\pL", "1|2", "a*", "^$"]), max_size=2)
ANY_SETTINGS = st.fixed_dictionaries(
    {
        "allow_all_keys": st.booleans(),
        "blocked_values": _PATTERNS,
        "allowed_values": _PATTERNS,
        "blocked_key_patterns": _PATTERNS,
        "ignored_key_patterns": _PATTERNS,
        "redact_all_types": st.booleans(),
        "summary": st.sampled_from(["debug", "info", "silent"]),
        "hash_function": st.sampled_from(["", "sha1"]),
    }
)


@settings(deadline=None)
@given(batches(), ANY_SETTINGS, st.randoms())
def test_columns_and_requests_come_to_the_same(batch: SpanBatch, chosen: dict[str, Any], random: Any) -> None:
    spans = [span for _, span in spans_of(batch)]
    keys = sorted({item.key for span in spans for item in span.attributes})
    chosen["allowed_keys"] = [key for key in keys if random.random() < 0.7]
    behind = Behind()
    processor = made(behind, chosen)
    processor.consume(batch)
    processor.consume(batch)  # what is remembered says the same
    once, again = map(after, behind.columns)
    assert once == again
    if spans and all(len({item.key for item in span.attributes}) == len(span.attributes) for span in spans):
        changed = changed_request(lambda behind: made(behind, chosen), request_of(batch))
        groups = [(group.resource, group.scope_spans[0].spans[0]) for group in changed.resource_spans]
        assert [(attributes_of(resource), attributes_of(span)) for resource, span in groups] == once


@settings(deadline=None)
@given(batches(), ANY_SETTINGS)
def test_redacting_again_in_the_next_processor_sums_up_both(batch: SpanBatch, chosen: dict[str, Any]) -> None:
    """Of columns as of requests."""
    first, second = Behind(), Behind()
    made(first, chosen).consume(batch)
    made(second, chosen).consume(first.columns[0])
    spans = [span for _, span in spans_of(batch)]
    if spans and all(len({item.key for item in span.attributes}) == len(span.attributes) for span in spans):
        once = changed_request(lambda behind: made(behind, chosen), request_of(batch))
        twice = changed_request(lambda behind: made(behind, chosen), once)
        found = [attributes_of(group.scope_spans[0].spans[0]) for group in twice.resource_spans]
        assert found == [span for _, span in after(second.columns[0])]


def test_the_body_of_a_log_record_is_redacted_at_any_depth() -> None:
    request = every_log(1)
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    body = {"user": {"card": f"no {CARD}", "password": "p", "ok": 1}, "list": ("x", CARD, {"card": 4111}), "id": "free"}
    set_value(record.body, body)
    chosen = {
        "allow_all_keys": True,
        "blocked_values": [VISA, "^4111$"],
        "blocked_key_patterns": ["password"],
        "ignored_keys": ["id"],
        "summary": "debug",
    }
    changed = changed_request(lambda behind: made(behind, chosen), request)
    redacted = changed.resource_logs[0].scope_logs[0].log_records[0]
    expected = every_log(1).resource_logs[0].scope_logs[0].log_records[0].body
    user = {"card": "no ****", "password": "****", "ok": 1}
    set_value(expected, {"user": user, "list": ("x", "****", {"card": "****"}), "id": "free"})
    assert redacted.body == expected
    found = attributes_of(redacted)
    assert found["redaction.body.masked.keys"] == "list.[1],list.[2].card,user.card,user.password"
    assert found["redaction.body.masked.count"] == ("int", "4")
    assert found["redaction.body.ignored.count"] == ("int", "1")


@pytest.mark.parametrize(
    ("body", "expected"),
    [(f"paid with {CARD}", "paid with ****"), (("x", CARD), ("x", "****")), (4111, "****"), (None, None)],
)
def test_a_body_that_is_no_mapping_is_looked_at_too(body: Any, expected: Any) -> None:
    request = every_log(1)
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    record.ClearField("body")
    if body is not None:
        set_value(record.body, body)
    chosen = {"blocked_values": [VISA, "^4111$"]}
    changed = changed_request(lambda behind: made(behind, chosen), request)
    wanted = every_log(1).resource_logs[0].scope_logs[0].log_records[0]
    wanted.ClearField("body")
    if expected is not None:
        set_value(wanted.body, expected)
    assert changed.resource_logs[0].scope_logs[0].log_records[0].body == wanted.body


def test_keys_of_a_body_that_are_not_allowed_are_removed() -> None:
    request = every_log(1)
    set_value(request.resource_logs[0].scope_logs[0].log_records[0].body, {"a": {"a": 1, "b": 2}, "c": 3})
    changed = changed_request(lambda behind: made(behind, {"allowed_keys": ["a"], "summary": "debug"}), request)
    record = changed.resource_logs[0].scope_logs[0].log_records[0]
    assert [item.key for item in record.body.kvlist_value.values] == ["a"]
    assert [item.key for item in record.body.kvlist_value.values[0].value.kvlist_value.values] == ["a"]
    assert attributes_of(record)["redaction.body.redacted.keys"] == "a.b,c"


def test_what_is_not_about_attributes_passes_unchanged() -> None:
    for request in every_request().values():
        assert changed_request(lambda behind: made(behind, EVERY), request) == request


def test_a_fragment_is_looked_at_once_and_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction_rules, "JUDGEMENTS_KEPT", 10)
    behind = Behind()
    processor = made(behind, {**EVERY, "blocked_values": [VISA]})
    batch = batch_of(1000)
    looks, look = [], processor._columns._looked_at
    monkeypatch.setattr(processor._columns, "_looked_at", lambda fragment: (looks.append(1), look(fragment))[1])
    for _ in range(3):
        processor.consume(batch)
    assert len(looks) == 1
    assert behind.columns[2].fragments[0] is batch.fragments[0]
    request = every_span(100)
    for number, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
        fill(span, {f"key{number}": f"value {number}"})
    processor.consume_encoded(encoded(request))
    assert len(processor._columns._rules._seen._known) <= 10
    assert len(processor._columns._rules._rule._known) <= 10


def test_a_text_in_which_nearly_all_is_to_be_masked_is_masked_as_a_whole() -> None:
    """Each match takes a while, and a sender may send megabytes of them."""
    request = every_span(1)
    fill(request.resource_spans[0].scope_spans[0].spans[0], {"a": "1 " * 1_000, "b": "1 " * 1_001})
    changed = changed_request(lambda behind: made(behind, {**EVERY, "blocked_values": ["1"]}), request)
    found = attributes_of(changed.resource_spans[0].scope_spans[0].spans[0])
    assert found == {"a": "**** " * 1_000, "b": "****"}


def test_a_pattern_that_would_keep_another_engine_busy_takes_no_time() -> None:
    """Against (a+)+$ a backtracking engine needs 2 ** 40 steps."""
    request = every_span(1)
    fill(request.resource_spans[0].scope_spans[0].spans[0], {"a": "a" * 40 + "!", "b": "a" * 1_000_000 + "!"})
    chosen = {**EVERY, "blocked_values": ["^(a+)+$"]}
    changed = changed_request(lambda behind: made(behind, chosen), request)
    assert attributes_of(changed.resource_spans[0].scope_spans[0].spans[0])["a"] == "a" * 40 + "!"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"blocked_values": ["a", "("]}, "is not a regular expression of RE2"),
        ({"hash_function": "crc32"}, "hmac-sha256"),
        ({"hash_function": "hmac-sha256", "hmac_key": "short"}, "needs an hmac_key of at least 32 bytes"),
        ({"hash_function": "hmac-sha512", "hmac_key": "k" * 63}, "needs an hmac_key of at least 64 bytes"),
        ({"hash_function": "md5", "masking_string": "?"}, "exclude each other"),
        ({"summary": "loud"}, "debug"),
    ],
)
def test_settings_that_make_no_sense_are_refused(chosen: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RedactionSettings.model_validate(chosen)


SECRET_VALUES = (
    "Authorization: Bearer abc.def-ghi_jkl",
    "Basic dXNlcjpwYXNzd29yZA==",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.SflKxwRJSMeKKF2QT4fwpM",
    "key AKIAIOSFODNN7EXAMPLE!",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "postgres://app:hunter2@db/shop",
    "https://shop.example/reset?user=1&token=0123abcd",
    CARD,
    "4111 1111 1111 1111",
    "5500-0000-0000-0004",
    "3782 822463 10005",
)
SECRET_KEYS = ("user.password", "db.passwd", "http.request.header.authorization", "api_key", "aws.secret", "session_id")
PLAIN = {
    "http.route": "/cards/{id}",
    "url.full": "https://shop.example/items?page=2",
    "gen_ai.usage.input_tokens": "17",
    "message": "the bearer of this basic news",
    "order": "411111111111111111111",
    "id": "550e8400-e29b-41d4-a716-446655440000",
    "time": "2026-11-30T12:00:00.123456789Z",
}


def test_the_configuration_that_is_ready_to_use_finds_what_it_says() -> None:
    text = (Path(__file__).parents[2] / "config" / "redaction.yaml").read_text()
    chosen = yaml.safe_load(text)["processors"]["redaction"]
    request = every_span(1)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    before = {f"v{number}": value for number, value in enumerate(SECRET_VALUES)} | dict.fromkeys(SECRET_KEYS, ("x",))
    fill(span, before | PLAIN)
    changed = changed_request(lambda behind: made(behind, chosen), request)
    found = attributes_of(changed.resource_spans[0].scope_spans[0].spans[0])
    assert {key for key in before if "****" not in found[key]} == set()
    assert {key: found[key] for key in PLAIN} == PLAIN
    assert found["redaction.masked.count"] == ("int", repr(len(before)))
