"""What backends answer, as their own protobuf classes encode it, and as a broken one might."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from wirespan.exporters.otlp_response import PartialSuccess, partial_success, retry_delay, status_message
from wirespan.pipeline.protobuf import (
    MalformedMessage,
    bytes_field,
    double_field,
    read_fields,
    string_field,
    varint_field,
)


def status(*details: RetryInfo | ErrorInfo, message: str = "") -> bytes:
    packed = []
    for detail in details:
        packed.append(Any())
        packed[-1].Pack(detail)
    return Status(code=8, message=message, details=packed).SerializeToString()


@given(st.integers(0, 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_partial_success_is_read(rejected: int, message: str) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    response = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    assert partial_success(response) == PartialSuccess(rejected, message)


def test_an_empty_response_is_full_success() -> None:
    assert partial_success(b"") == PartialSuccess(0, "")


def test_a_negative_count_rejects_nothing() -> None:
    response = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=-3))
    assert partial_success(response.SerializeToString()).rejected == 0


@pytest.mark.parametrize(("seconds", "nanos"), [(0, 0), (3, 500_000_000), (0, 1_000_000)])
def test_the_delay_that_the_backend_asks_for_is_found_among_other_details(seconds: int, nanos: int) -> None:
    info = RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos))
    assert retry_delay(status(ErrorInfo(reason="quota"), info)) == pytest.approx(seconds + nanos / 1e9)


def test_a_status_without_retry_info_asks_for_no_delay() -> None:
    assert retry_delay(status(ErrorInfo(reason="quota"))) is None
    assert status_message(status(message="too large")) == "too large"


@given(st.binary(max_size=64))
def test_garbage_says_nothing_and_raises_nothing(data: bytes) -> None:
    assert partial_success(data).rejected >= 0
    assert isinstance(status_message(data), str)
    assert (retry_delay(data) or 0.0) >= 0.0


@given(st.integers(0, 60))
def test_a_status_cut_off_anywhere_raises_nothing(length: int) -> None:
    whole = status(RetryInfo(retry_delay=Duration(seconds=1)), message="slow down")
    assert retry_delay(whole[:length]) in (None, 0.0, 1.0)


@given(st.integers(0, 2**64 - 1), st.floats(allow_nan=False), st.binary(max_size=300))
def test_fields_are_read_as_they_were_written(integer: int, double: float, content: bytes) -> None:
    message = varint_field(1, integer) + double_field(2, double) + bytes_field(3000, content) + string_field(4, "ü")
    fields = list(read_fields(message))
    assert [field.number for field in fields] == [1, 2, 3000, 4]
    assert fields[0].value == integer
    assert [field.value for field in fields[2:]] == [content, "ü".encode()]
    assert b"".join(field.encoded for field in fields) == message


@pytest.mark.parametrize("message", [b"\x08", b"\x0a\x05abc", b"\x0b", b"\x08" + b"\xff" * 10, b"\x0d\x00"])
def test_a_message_that_ends_early_or_has_unknown_types_is_malformed(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        list(read_fields(message))
