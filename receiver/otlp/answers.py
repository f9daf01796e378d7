"""What a sender is answered: ``google.rpc.Status`` in protobuf or JSON, and when it may try again.

Field numbers are those of ``google/rpc/status.proto`` and ``google/rpc/error_details.proto``.
"""

from __future__ import annotations

import json
from enum import IntEnum
from typing import Final

from ...pipeline.protobuf import bytes_field, string_field, varint_field

#: seconds until a sender that was refused for want of room may try again
RETRY_SECONDS: Final = 1


class Code(IntEnum):
    """Of google.rpc.Code, what is used here."""

    INVALID_ARGUMENT = 3
    RESOURCE_EXHAUSTED = 8
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


def status(code: Code, message: str) -> bytes:
    """An encoded Status; an UNAVAILABLE one says when to try again."""
    encoded = varint_field(1, code) + string_field(2, message)
    if code is not Code.UNAVAILABLE:
        return encoded
    delay = bytes_field(1, varint_field(1, RETRY_SECONDS))
    detail = string_field(1, "type.googleapis.com/google.rpc.RetryInfo") + bytes_field(2, delay)
    return encoded + bytes_field(3, detail)


def status_json(code: Code, message: str) -> bytes:
    return json.dumps({"code": int(code), "message": message}).encode()
