"""The scan of requests agrees with protobuf: what it passes any decoder takes, and it counts what is in there."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from support.foreign_batches import REQUESTS, count_items, every_log, every_request, every_span
from support.foreign_messages import id_size, messages, paths
from wirespan.pipeline.component import Signal
from wirespan.pipeline.protobuf import MalformedMessage, bytes_field, double_field, tag, varint, varint_field
from wirespan.pipeline.scanning import scanned

of_each_signal = pytest.mark.parametrize("signal", REQUESTS)

LENGTH = 2
DEEPEST = 96


def is_refused(signal: Signal, data: bytes) -> bool:
    try:
        scanned(signal, data)
    except MalformedMessage:
        return True
    return False


@of_each_signal
@given(data=st.data())
def test_any_request_passes_with_its_items_counted(signal: Signal, data: st.DataObject) -> None:
    request = data.draw(messages(REQUESTS[signal]))
    batch = scanned(signal, request.SerializeToString())
    decoded = REQUESTS[signal].FromString(batch.data)
    assert batch.items == count_items(decoded)


@of_each_signal
@settings(max_examples=500)
@given(data=st.data())
def test_what_passes_any_decoder_takes(signal: Signal, data: st.DataObject) -> None:
    """Changed, cut and lengthened anywhere."""
    encoded = bytearray(every_request()[signal].SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    if not is_refused(signal, bytes(encoded)):
        REQUESTS[signal].FromString(bytes(encoded))


@of_each_signal
@given(st.binary(max_size=100))
def test_of_any_bytes_what_passes_any_decoder_takes(signal: Signal, data: bytes) -> None:
    if not is_refused(signal, data):
        REQUESTS[signal].FromString(data)


@of_each_signal
def test_a_request_that_is_cut_anywhere_is_refused_unless_what_is_left_is_one(signal: Signal) -> None:
    whole = every_request()[signal].SerializeToString()
    for size in range(len(whole)):
        try:
            REQUESTS[signal].FromString(whole[:size])
        except Exception:
            assert is_refused(signal, whole[:size]), size


def wrapped(way: tuple[FieldDescriptor, ...], content: bytes) -> bytes:
    for field in reversed(way):
        content = bytes_field(field.number, content)
    return content


def ways(signal: Signal) -> list[tuple[FieldDescriptor, ...]]:
    return list(paths(REQUESTS[signal].DESCRIPTOR))


@of_each_signal
def test_every_known_field_with_another_wire_type_is_refused(signal: Signal) -> None:
    """Fails if opentelemetry-proto has a field that the scan does not know."""
    for *above, field in ways(signal):
        number = field.number
        others = {0: varint_field(number, 1), 1: double_field(number, 1.0), 5: tag(number, 5) + bytes(4)}
        others[LENGTH] = bytes_field(number, b"")
        scalar = {
            FieldDescriptor.CPPTYPE_STRING: LENGTH,
            FieldDescriptor.CPPTYPE_MESSAGE: LENGTH,
            FieldDescriptor.CPPTYPE_DOUBLE: 1,
        }.get(field.cpp_type, 0)
        if field.type in (FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64):
            scalar = 1
        elif field.type == FieldDescriptor.TYPE_FIXED32:
            scalar = 5
        allowed = {scalar, LENGTH} if field.is_repeated else {scalar}
        passed = {kind for kind, encoded in others.items() if not is_refused(signal, wrapped(tuple(above), encoded))}
        assert passed == allowed, (field.full_name, passed)


@of_each_signal
def test_every_string_has_to_be_utf8_and_every_id_of_its_length(signal: Signal) -> None:
    for *above, field in ways(signal):
        size = id_size(field)
        wrong = {FieldDescriptor.TYPE_STRING: [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"x" * 9 + b"\xe2\x82"]}
        fine = {FieldDescriptor.TYPE_STRING: ["täglich".encode(), "日本".encode() * 9, "𝄞".encode(), b""]}
        if size is not None:
            wrong[field.type], fine[field.type] = [bytes(size - 1), bytes(size + 1)], [bytes(size), b""]
        for value in wrong.get(field.type, ()):
            assert is_refused(signal, wrapped(tuple(above), bytes_field(field.number, value))), field.full_name
        for value in fine.get(field.type, ()):
            assert not is_refused(signal, wrapped(tuple(above), bytes_field(field.number, value))), field.full_name


@given(st.binary(max_size=12))
def test_a_string_passes_just_if_python_takes_it_for_utf8(value: bytes) -> None:
    try:
        value.decode()
        expected = False
    except UnicodeDecodeError:
        expected = True
    schema_url = bytes_field(1, bytes_field(3, value))
    assert is_refused("traces", schema_url) is expected


@pytest.mark.parametrize(
    "data",
    [varint(7) + b"\0", tag(2, 3), tag(2, 4), varint(2**32 + 8) + b"\0", b"\x10" + b"\xff" * 9 + b"\x02"],
    ids=["field 0", "group", "end of a group", "field beyond 32 bits", "varint beyond 64 bits"],
)
def test_what_protobuf_refuses_in_fields_that_are_not_known_is_refused(data: bytes) -> None:
    assert is_refused("traces", data)


def test_fields_that_are_not_known_are_skipped() -> None:
    later = varint_field(100, 5) + double_field(101, 1.0) + bytes_field(102, b"\xff") + tag(103, 5) + bytes(4)
    assert scanned("traces", later + every_span(2).SerializeToString() + later).items == 2


def nested(depth: int) -> bytes:
    value = AnyValue(int_value=1).SerializeToString()
    for _ in range(depth):
        value = bytes_field(5, bytes_field(1, value))
    return bytes_field(1, bytes_field(2, bytes_field(2, bytes_field(5, value))))


def test_a_value_is_nested_as_deeply_as_decoders_take_and_no_deeper() -> None:
    deepest = (DEEPEST - 4) // 2
    assert scanned("logs", nested(deepest)).items == 1
    REQUESTS["logs"].FromString(nested(deepest))
    assert is_refused("logs", nested(deepest + 1))
    assert is_refused("logs", nested(100_000))


def test_requests_that_are_joined_are_one_with_the_items_of_both() -> None:
    joined = every_span(2).SerializeToString() + every_span(5).SerializeToString()
    assert scanned("traces", joined).items == 7
    assert count_items(ExportTraceServiceRequest.FromString(joined)) == 7


def test_an_empty_request_has_no_items_and_one_of_another_signal_is_not_taken_for_it() -> None:
    assert scanned("logs", b"").items == 0
    assert is_refused("traces", every_log(1).SerializeToString())
