"""``redaction`` of messages: attributes of spans and their events, data points, log records, resources and scopes, and the
bodies of log records. Names, status messages and links are not looked at, as in the Collector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from ..pipeline.component import Signal
from .redaction_rules import BODY_SUMMARY, JUDGEMENTS_KEPT, LONGEST_JUDGED, SUMMARY, SUMMARY_KEYS, Fate, Rules
from .redaction_summary import sum_up
from .requests import data_points, groups, resources
from .values import MessageAttributes, value_of

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

#: the keys by what became of them
Done: TypeAlias = defaultdict[Fate, list[str]]


def _nothing() -> Done:
    return defaultdict(list)


class _Judgement(NamedTuple):
    """Of an attribute. masked: its value if that is masked."""

    fate: Fate
    key: str
    masked: str


class MessageRedaction:
    """summary: as in the configuration. Safe from any thread: what one forgets another finds out again."""

    def __init__(self, rules: Rules, summary: str) -> None:
        self._rules = rules
        self._sums_up, self._with_keys = summary != "silent", summary == "debug"
        self._known: dict[bytes, _Judgement] = {}

    def redact(self, signal: Signal, request: Any) -> None:
        """In place."""
        for resource in resources(signal, request):
            self._attributes(resource.attributes)
        for _, scope, records in groups(signal, request):
            self._attributes(scope.attributes)
            for record in records:
                for fields in _within(signal, record):
                    self._attributes(fields)
                if signal == "logs":
                    self._body(record)

    def _attributes(self, fields: Any) -> None:
        """Most attributes of most spans are known: then encoding one and looking it up is all that is done, a third of the
        time that looking at key and value takes."""
        known, done, sums_up = self._known, _nothing(), False
        removed = []
        for index, field in enumerate(fields):
            encoded = field.SerializeToString()
            judgement = known.get(encoded) or self._judged(field, encoded)
            if judgement is _KEPT:
                continue
            fate, key, masked = judgement
            if fate is Fate.KEPT:
                sums_up = True  # it is of what was summed up before
                continue
            done[fate].append(key)
            if fate is Fate.REDACTED:
                removed.append(index)
            elif fate is Fate.MASKED:
                field.value.string_value = masked
        for index in reversed(removed):
            del fields[index]
        if self._sums_up and (done or sums_up):
            sum_up(MessageAttributes(fields), done, SUMMARY, self._with_keys)

    def _judged(self, field: KeyValue, encoded: bytes) -> _Judgement:
        key, text = field.key, field.value.string_value
        if self._rules.all_types and not text:
            text = self._rules.text(value_of(field.value))
        fate, masked = self._rules.attribute(key, text)
        judgement = _KEPT if fate is Fate.KEPT and key not in SUMMARY_KEYS else _Judgement(fate, key, masked)
        if len(self._known) >= JUDGEMENTS_KEPT:
            self._known.clear()
        if len(encoded) <= LONGEST_JUDGED:
            self._known[encoded] = judgement
        return judgement

    def _body(self, record: Any) -> None:
        if not record.HasField("body"):
            return
        done = _nothing()
        kind = record.body.WhichOneof("value")
        if kind == "kvlist_value":
            self._mapping(record.body.kvlist_value.values, "", done)
        elif kind == "array_value":
            self._list(record.body.array_value.values, "", done)
        else:
            self._value(record.body, "body", done)
        if self._sums_up:
            sum_up(MessageAttributes(record.attributes), done, BODY_SUMMARY, self._with_keys)

    def _mapping(self, fields: Any, path: str, done: Done) -> None:
        removed = []
        for index, field in enumerate(fields):
            key = f"{path}{field.key}"
            fate = self._rules.body_key(field.key)
            if fate is Fate.REDACTED:
                removed.append(index)
            elif fate is Fate.MASKED:
                field.value.string_value = self._rules.masked(field.value.string_value)
            elif fate is Fate.KEPT:
                self._nested(field.value, key, done)
                continue
            done[fate].append(key)
        for index in reversed(removed):
            del fields[index]

    def _list(self, values: Any, path: str, done: Done) -> None:
        for index, value in enumerate(values):
            self._nested(value, f"{path}[{index}]", done)

    def _nested(self, value: AnyValue, path: str, done: Done) -> None:
        kind = value.WhichOneof("value")
        if kind == "kvlist_value":
            self._mapping(value.kvlist_value.values, f"{path}.", done)
        elif kind == "array_value":
            self._list(value.array_value.values, f"{path}.", done)
        else:
            self._value(value, path, done)

    def _value(self, value: AnyValue, path: str, done: Done) -> None:
        """Of any type: what is in a log is often a number that is none to count with."""
        fate, masked = self._rules.body_value(value_of(value))
        if fate is Fate.KEPT:
            return
        done[fate].append(path)
        if fate is Fate.MASKED:
            value.string_value = masked


_KEPT: Final = _Judgement(Fate.KEPT, "", "")


def _within(signal: Signal, record: Any) -> Iterator[Any]:
    """The lists of attributes in a span, metric or log record."""
    if signal == "metrics":
        yield from (point.attributes for point in data_points(record))
        return
    yield record.attributes
    if signal == "traces":
        yield from (event.attributes for event in record.events)
