"""As much of the protobuf wire format as OTLP needs, without the protobuf runtime.

A message is a sequence of fields: a tag (number << 3 | wire type) as a varint, then a varint, 8 or 4 bytes, or a
length and that many bytes (https://protobuf.dev/programming-guides/encoding/). Writing is for what is encoded
once and cached; reading is for a backend's small answers, which are not trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from functools import cache
from typing import NamedTuple

_INT64_MASK = (1 << 64) - 1
_LONGEST_VARINT = 10
_ONE_BYTE = [bytes([value]) for value in range(0x80)]


class WireType(IntEnum):
    VARINT = 0
    I64 = 1
    LEN = 2
    I32 = 5


class MalformedMessage(ValueError):
    """The bytes are not a protobuf message."""


def varint(value: int) -> bytes:
    """The shortest encoding; a negative value takes 10 bytes, as int64 does on the wire."""
    if 0 <= value <= 0x7F:
        return _ONE_BYTE[value]
    value &= _INT64_MASK
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


@cache
def tag(number: int, wire_type: WireType) -> bytes:
    """What a field begins with."""
    return varint(number << 3 | wire_type)


def varint_field(number: int, value: int) -> bytes:
    """A field of an integer, boolean or enum."""
    return tag(number, WireType.VARINT) + varint(value)


def double_field(number: int, value: float) -> bytes:
    """A field of a double."""
    return tag(number, WireType.I64) + struct.pack("<d", value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field of bytes, or of a message that is already encoded."""
    return bytes_field_prefix(number, len(value)) + value


def bytes_field_prefix(number: int, length: int) -> bytes:
    """What precedes the ``length`` bytes of a field of bytes or of a message."""
    return tag(number, WireType.LEN) + varint(length)


def string_field(number: int, value: str) -> bytes:
    """A field of text. Lone surrogates (names of files that are not UTF-8) become ``?``: a receiver refuses a
    whole request for one string that is not UTF-8."""
    return bytes_field(number, value.encode("utf-8", "replace"))


class Field(NamedTuple):
    """value: an integer, unsigned, of a varint; else bytes. encoded: the whole field, as it is in its message."""

    number: int
    value: int | bytes
    encoded: bytes


def read_fields(message: bytes) -> Iterator[Field]:
    """The fields of a message, in order.

    Raises MalformedMessage where the bytes end early or have a wire type that no field of OTLP has.
    """
    at = 0
    while at < len(message):
        begin = at
        number, at = _read_varint(message, at)
        wire_type, number = number & 7, number >> 3
        if wire_type == WireType.VARINT:
            value, at = _read_varint(message, at)
            yield Field(number, value, message[begin:at])
            continue
        if wire_type == WireType.LEN:
            length, at = _read_varint(message, at)
        elif wire_type in (WireType.I64, WireType.I32):
            length = 8 if wire_type == WireType.I64 else 4
        else:
            raise MalformedMessage(f"wire type {wire_type}")
        if at + length > len(message):
            raise MalformedMessage("a field is cut off")
        yield Field(number, message[at : at + length], message[begin : at + length])
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The unsigned 64-bit value at ``at``, and the position behind it."""
    value = 0
    for offset, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * offset
        if byte < 0x80:
            return value & _INT64_MASK, at + offset + 1
    raise MalformedMessage("a varint has no end")
