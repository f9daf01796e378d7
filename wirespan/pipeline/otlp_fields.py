"""The messages of OTLP traces: field numbers, and attributes on the wire.

From opentelemetry-proto 1.11: ``trace/v1/trace.proto``, ``common/v1/common.proto``, ``resource/v1/resource.proto``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache

from .protobuf import bytes_field, double_field, string_field, varint_field
from .spans import AttributeValue

#: The semantic conventions that the attributes follow.
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE_NAME = "wirespan"


class TracesField(IntEnum):
    RESOURCE_SPANS = 1


class ResourceSpansField(IntEnum):
    RESOURCE = 1
    SCOPE_SPANS = 2
    SCHEMA_URL = 3


class ScopeSpansField(IntEnum):
    SCOPE = 1
    SPANS = 2
    SCHEMA_URL = 3


class SpanField(IntEnum):
    TRACE_ID = 1
    SPAN_ID = 2
    TRACE_STATE = 3
    PARENT_SPAN_ID = 4
    NAME = 5
    KIND = 6
    START_TIME_UNIX_NANO = 7
    END_TIME_UNIX_NANO = 8
    ATTRIBUTES = 9
    STATUS = 15


class AnyValueField(IntEnum):
    STRING = 1
    BOOL = 2
    INT = 3
    DOUBLE = 4
    ARRAY = 5


class ResourceField(IntEnum):
    ATTRIBUTES = 1


class ScopeField(IntEnum):
    NAME = 1
    VERSION = 2


class StatusField(IntEnum):
    CODE = 3


class KeyValueField(IntEnum):
    KEY = 1
    VALUE = 2


class ArrayField(IntEnum):
    VALUES = 1


def encode_attributes(number: int, attributes: Iterable[tuple[str, AttributeValue]]) -> bytes:
    """A ``KeyValue`` for each attribute, as the repeated field ``number``."""
    return b"".join(
        _encode_text(number, key, value) if isinstance(value, str) else _encode_attribute(number, key, value)
        for key, value in attributes
    )


def _encode_attribute(number: int, key: str, value: AttributeValue) -> bytes:
    value_field = bytes_field(KeyValueField.VALUE, _encode_value(value))
    return bytes_field(number, string_field(KeyValueField.KEY, key) + value_field)


#: A new fragment mostly has the texts of others: of a new URL everything but the URL. Only texts, because Python takes
#: 1, 1.0 and True, or 0.0 and -0.0, for the same key.
_encode_text = lru_cache(maxsize=4096)(_encode_attribute)


def _encode_value(value: AttributeValue) -> bytes:
    """An ``AnyValue``."""
    match value:
        case str():
            return string_field(AnyValueField.STRING, value)
        case bool():  # before int: a bool is one
            return varint_field(AnyValueField.BOOL, value)
        case int():
            return varint_field(AnyValueField.INT, value)
        case float():
            return double_field(AnyValueField.DOUBLE, value)
        case tuple():
            items = b"".join(bytes_field(ArrayField.VALUES, _encode_value(item)) for item in value)
            return bytes_field(AnyValueField.ARRAY, items)
