"""What a backend answers, read without opentelemetry-proto, whose import costs 5 MB.

Field numbers are those of ``opentelemetry/proto/collector/trace/v1/trace_service.proto``, which are those of
``…/metrics/v1/metrics_service.proto`` too, ``google/rpc/status.proto`` and ``google/rpc/error_details.proto``. Answers are not trusted: what cannot be read says nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from ..pipeline.protobuf import Field, MalformedMessage, read_fields

_RETRY_INFO = b"type.googleapis.com/google.rpc.RetryInfo"

_RESPONSE_PARTIAL_SUCCESS = 1
_PARTIAL_REJECTED, _PARTIAL_ERROR_MESSAGE = 1, 2
_STATUS_MESSAGE, _STATUS_DETAILS = 2, 3
_ANY_TYPE_URL, _ANY_VALUE = 1, 2
_RETRY_DELAY = 1
_DURATION_SECONDS, _DURATION_NANOS = 1, 2


class PartialSuccess(NamedTuple):
    """What the backend says it did with a request that it took: all accepted unless it says otherwise. rejected: spans or
    data points."""

    rejected: int = 0
    message: str = ""


def partial_success(response: bytes) -> PartialSuccess:
    """Of an encoded ``ExportTraceServiceResponse`` or ``ExportMetricsServiceResponse``."""
    fields = _fields(_bytes(_fields(response).get(_RESPONSE_PARTIAL_SUCCESS)))
    message = _bytes(fields.get(_PARTIAL_ERROR_MESSAGE)).decode("utf-8", "replace")
    return PartialSuccess(max(0, _int64(fields.get(_PARTIAL_REJECTED))), message)


def status_message(status: bytes) -> str:
    """The message of an encoded ``google.rpc.Status``."""
    return _bytes(_fields(status).get(_STATUS_MESSAGE)).decode("utf-8", "replace")


def retry_delay(status: bytes) -> float | None:
    """The seconds that an encoded ``google.rpc.Status`` asks to wait (``RetryInfo``), None if it does not."""
    for number, value, _ in _all_fields(status):
        detail = _fields(_bytes(value)) if number == _STATUS_DETAILS else {}
        if detail.get(_ANY_TYPE_URL) == _RETRY_INFO:
            delay = _fields(_bytes(_fields(_bytes(detail.get(_ANY_VALUE))).get(_RETRY_DELAY)))
            return max(0.0, _int64(delay.get(_DURATION_SECONDS)) + _int64(delay.get(_DURATION_NANOS)) * 1e-9)
    return None


def _fields(message: bytes) -> dict[int, int | bytes]:
    """The last value of each field, which is the one that counts."""
    return {field.number: field.value for field in _all_fields(message)}


def _all_fields(message: bytes) -> list[Field]:
    try:
        return list(read_fields(message))
    except MalformedMessage:
        return []


def _bytes(value: int | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else b""


def _int64(value: int | bytes | None) -> int:
    unsigned = value if isinstance(value, int) else 0
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned
