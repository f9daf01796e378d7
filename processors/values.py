"""The values of attributes, as Python has them, and what the Collector makes of them as text.

Of columns a value is text, a number, a boolean, or a tuple of text; in a request it may also be bytes, a list, a mapping
or nothing. A message of opentelemetry-proto is only touched where an attribute is: what is not changed is not rebuilt.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..pipeline.spans import AttributeValue

if TYPE_CHECKING:  # which takes 5 MB
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Value: TypeAlias = str | bool | int | float | bytes | tuple["Value", ...] | Mapping[str, "Value"] | None
Attributes: TypeAlias = MutableMapping[str, Value]

_INT64: Final = range(-(2**63), 2**63)
#: what Go's encoding/json escapes besides what every JSON does
_ESCAPED: Final = re.compile("[\u2028\u2029]")


class MessageAttributes(MutableMapping[str, Value]):
    """The attributes of a message, changed in place. Of a key that is there twice the first counts; both are removed."""

    __slots__ = ("_fields", "_first")

    def __init__(self, fields: Any) -> None:
        self._fields = fields
        self._first: dict[str, KeyValue] | None = None

    def __getitem__(self, key: str) -> Value:
        return value_of(self._index()[key].value)

    def __setitem__(self, key: str, value: Value) -> None:
        field = self._index().get(key)
        if field is None:
            field = self._first_of()[key] = self._fields.add()
            field.key = key
        set_value(field.value, value)

    def __delitem__(self, key: str) -> None:
        del self._first_of()[key]
        fields = self._fields
        for index in reversed(range(len(fields))):
            if fields[index].key == key:
                del fields[index]
        self._first = None  # what is behind has moved

    def __contains__(self, key: object) -> bool:
        return key in self._index()

    def __iter__(self) -> Iterator[str]:
        return iter(self._index())

    def __len__(self) -> int:
        return len(self._index())

    def _first_of(self) -> dict[str, KeyValue]:
        if self._first is None:
            self._first = {}
            for field in self._fields:
                self._first.setdefault(field.key, field)
        return self._first

    _index = _first_of


def readable(attributes: Iterable[tuple[str, AttributeValue]]) -> dict[str, Value]:
    """Attributes of columns, as their encoding will be: lone surrogates (names of files that are not UTF-8) are ``?``."""
    return {_readable(key): _readable(value) if isinstance(value, str) else value for key, value in attributes}


def _readable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def value_of(message: AnyValue) -> Value:
    kind = message.WhichOneof("value")
    if kind == "array_value":
        return tuple(value_of(item) for item in message.array_value.values)
    if kind == "kvlist_value":
        return {item.key: value_of(item.value) for item in message.kvlist_value.values}
    value: Value = None if kind is None else getattr(message, kind)
    return value


def set_value(message: AnyValue, value: Value) -> None:
    match value:
        case str():
            message.string_value = value
        case bool():  # before int: a bool is one
            message.bool_value = value
        case int():
            message.int_value = value
        case float():
            message.double_value = value
        case bytes():
            message.bytes_value = value
        case tuple():
            message.array_value.Clear()
            message.array_value.SetInParent()
            for item in value:
                set_value(message.array_value.values.add(), item)
        case Mapping():
            message.kvlist_value.Clear()
            message.kvlist_value.SetInParent()
            for key, item in value.items():
                set_value(message.kvlist_value.values.add(key=key).value, item)
        case _:
            message.Clear()


def as_text(value: Value) -> str:
    """As ``AsString`` of the Collector's pdata."""
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return _json(value)


def as_integer(value: Value) -> Value:
    """The value as a whole number if it can be one, else as it is."""
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if int(value) in _INT64 else value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,64}", value):
        return int(value) if int(value) in _INT64 else value
    return value


def as_double(value: Value) -> Value:
    """Likewise as a number with a fraction."""
    if isinstance(value, int):  # also a bool
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        with suppress(OverflowError):
            number = float.fromhex(value) if "x" in value.lower() else float(value)
            return value if math.isinf(number) and "inf" not in value.lower() else number
    return value


_HEXADECIMAL: Final = r"0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)p[+-]?[0-9]+"
_NUMBER: Final = re.compile(
    rf"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan|{_HEXADECIMAL})",
    re.IGNORECASE | re.ASCII,
)


def plain_number(value: float) -> str:
    """Without an exponent, as short as it can be, as Go's ``strconv`` has it."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return format(Decimal(repr(value)), "f").removesuffix(".0")


def _number(value: float) -> str:
    """By the rules of ECMAScript, which Go's encoding as JSON follows."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return plain_number(value)
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def _json(value: Value) -> str:
    match value:
        case None:
            return "null"
        case str():
            return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
        case bytes():
            return f'"{as_text(value)}"' if value else "null"
        case tuple():
            return f"[{','.join(map(_json, value))}]"
        case Mapping():
            return "{" + ",".join(f"{_json(key)}:{_json(item)}" for key, item in sorted(value.items())) + "}"
        case _:
            return as_text(value)
