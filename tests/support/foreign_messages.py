"""Any request of OTLP, by the descriptors of opentelemetry-proto: what a decoder takes, and what is near it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

_NUMBERS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_SFIXED64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 3),
    FieldDescriptor.TYPE_STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20),
}


def id_size(field: FieldDescriptor) -> int | None:
    """The bytes of an id; None for what is none."""
    if field.type != FieldDescriptor.TYPE_BYTES or not field.name.endswith("_id"):
        return None
    return 16 if field.name == "trace_id" else 8


@st.composite
def messages(draw: st.DrawFn, kind: type[Message], budget: int = 12) -> Message:
    """A message with some of its fields, of any depth that the budget allows."""
    message = kind()
    _fill(draw, message, budget)
    return message


def _fill(draw: st.DrawFn, message: Message, budget: int) -> None:
    known = list(message.DESCRIPTOR.fields)
    for field in draw(st.lists(st.sampled_from(known), max_size=min(len(known), 4), unique_by=lambda f: f.number)):
        many = field.is_repeated
        for _ in range(draw(st.integers(1, 3)) if many else 1):
            if field.message_type is not None:
                if budget:
                    target = getattr(message, field.name)
                    nested = target.add() if many else target
                    nested.SetInParent() if not many else None
                    _fill(draw, nested, budget - 1)
                continue
            size = id_size(field)
            value = draw(_NUMBERS[field.type] if size is None else st.sampled_from((b"", bytes(range(size)))))
            getattr(message, field.name).append(value) if many else setattr(message, field.name, value)


def paths(root: Descriptor) -> Iterator[tuple[FieldDescriptor, ...]]:
    """The way from a request to each field of each kind of message below it, each kind once."""
    found: set[str] = set()

    def below(kind: Descriptor, way: tuple[FieldDescriptor, ...]) -> Iterator[tuple[FieldDescriptor, ...]]:
        if kind.full_name in found:
            return
        found.add(kind.full_name)
        for field in kind.fields:
            yield (*way, field)
            if field.message_type is not None:
                yield from below(field.message_type, (*way, field))

    return below(root, ())
